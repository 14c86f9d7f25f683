"""Posterior files: round trip, averages and errors by hand, every damage named with file and row."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vggrepro import posteriors
from vggrepro.errors import InputError
from vggrepro.posteriors import Batch, Origin

ORIGIN = Origin(
    run="A-256",
    weights="w",
    dataset="tiny",
    fingerprint="f",
    preset="demo",
    split="val",
    method="dense",
    q=256,
    q_pixels=256,
    flip=True,
    grid=0,
    pooling="floor",
    resample="bilinear",
    precision="fp32",
    version="0",
    commit="c",
)


def plant(path: Path, rows: Sequence[Sequence[float]], labels: Sequence[int], keys: str = "abcdefgh") -> Path:
    """A posterior file of the given rows; image i has key keys[i]."""
    values = np.array(rows, dtype=np.float32)
    batch = Batch(list(keys[: len(values)]), np.array(labels, dtype=np.int32), values)
    posteriors.write(path, [batch], values.shape[1], ORIGIN)
    return path


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    path = plant(tmp_path / "p.parquet", [[0.25, 0.75], [1, 0]], [1, -1])
    (batch,) = posteriors.read(path)
    assert batch.keys == ["a", "b"]
    assert batch.labels.tolist() == [1, -1]
    assert batch.posteriors.tolist() == [[0.25, 0.75], [1.0, 0.0]]
    assert posteriors.read_origin(path) == ORIGIN


def test_files_from_before_poolings_could_round_up_have_rounded_down(tmp_path: Path) -> None:
    path = plant(tmp_path / "p.parquet", [[0.25, 0.75]], [1])
    values = dataclasses.asdict(ORIGIN)
    del values["pooling"]
    table = pq.read_table(path).replace_schema_metadata({posteriors.METADATA_KEY: json.dumps(values)})
    pq.write_table(table, path)
    assert posteriors.read_origin(path) == ORIGIN


def test_the_file_format_is_the_contract(tmp_path: Path) -> None:
    path = posteriors.file_path(tmp_path / "A-256", "val", "dense", 256)
    assert path == tmp_path / "A-256" / "posteriors" / "val-dense-q256.parquet"
    schema = pq.read_schema(plant(path, [[0.5, 0.5]], [0]))
    assert schema.names == ["key", "label", "posterior"]
    assert schema.field("key").type == pa.string()
    assert schema.field("label").type == pa.int32()
    assert pa.types.is_fixed_size_list(schema.field("posterior").type)
    assert (schema.field("posterior").type.list_size, schema.field("posterior").type.value_type) == (
        2,
        pa.float32(),
    )


def test_average_by_hand(tmp_path: Path) -> None:
    a = plant(tmp_path / "a.parquet", [[0.5, 0.25, 0.25], [1, 0, 0]], [0, 1])
    b = plant(tmp_path / "b.parquet", [[0.25, 0.75, 0], [0, 1, 0]], [0, 1])
    c = plant(tmp_path / "c.parquet", [[0, 0.5, 0.5], [0.5, 0.5, 0]], [0, 1])
    (batch,) = posteriors.average([a, b, c])
    assert batch.posteriors == pytest.approx(np.array([[0.25, 0.5, 0.25], [0.5, 0.5, 0]]))
    assert batch.posteriors.dtype == np.float64


def test_average_of_files_written_in_parts_of_different_sizes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.dirichlet(np.ones(3), size=5000).astype(np.float32)
    keys, labels = [str(i) for i in range(5000)], np.zeros(5000, dtype=np.int32)
    for name, step in (("a", 7), ("b", 3000)):
        starts = range(0, 5000, step)
        parts = [Batch(keys[i : i + step], labels[i : i + step], values[i : i + step]) for i in starts]
        posteriors.write(tmp_path / name, parts, 3, ORIGIN)
    mean = np.concatenate([batch.posteriors for batch in posteriors.average([tmp_path / "a", tmp_path / "b"])])
    np.testing.assert_allclose(mean, values)


def test_ranks_break_ties_by_class_order() -> None:
    rows = np.array([[0.25, 0.25, 0.25, 0.25]] * 4)
    assert posteriors.ranks(rows, np.array([0, 1, 2, 3])).tolist() == [0, 1, 2, 3]
    assert posteriors.ranks(np.array([[0.2, 0.5, 0.3]]), np.array([2])).tolist() == [1]


def test_errors_by_hand(tmp_path: Path) -> None:
    falling = [0.4, 0.25, 0.15, 0.1, 0.06, 0.04]  # class i has rank i
    score = posteriors.score(posteriors.read(plant(tmp_path / "p", [falling] * 8, [0, 1, 4, 5, 0, 0, 5, 5])))
    assert (score.images, score.top1, score.top5) == (8, 62.5, 37.5)  # 5 and 3 of 8 images


def test_five_classes_have_no_top_5(tmp_path: Path) -> None:
    score = posteriors.score(posteriors.read(plant(tmp_path / "p", [[0.2] * 5], [1])))
    assert (score.top1, score.top5) == (100.0, None)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([2.0, 3.0], r"row 1 is no distribution \(sum 5\.0000"),
        ([float("nan"), 1.0], "row 1 is no distribution"),
        ([1.5, -0.5], r"row 1 is no distribution \(sum 1\.0000, smallest -0\.5\)"),
        ([0.5, 0.4], "row 1 is no distribution"),
        ([float("inf"), 0.0], "row 1 is no distribution"),
    ],
)
def test_rows_that_are_no_distribution_are_named(tmp_path: Path, row: list[float], said: str) -> None:
    path = plant(tmp_path / "p.parquet", [[0.5, 0.5], row], [0, 0])
    with pytest.raises(InputError, match=f"p.parquet: {said}"):
        list(posteriors.read(path))


def test_a_bad_row_far_down_has_its_number_in_the_file(tmp_path: Path) -> None:
    values = np.full((5000, 2), 0.5, dtype=np.float32)
    values[4321] = 0.1
    batch = Batch([str(i) for i in range(5000)], np.zeros(5000, dtype=np.int32), values)
    posteriors.write(tmp_path / "p", [batch], 2, ORIGIN)
    with pytest.raises(InputError, match="row 4321 is no distribution"):
        list(posteriors.read(tmp_path / "p"))


@pytest.mark.parametrize("size", [0, 3, 60, 0.5])
def test_truncated_files_are_named(tmp_path: Path, size: float) -> None:
    path = plant(tmp_path / "p.parquet", [[0.5, 0.5]] * 8, [0] * 8)
    content = path.read_bytes()
    path.write_bytes(content[: int(size if size >= 1 else size * len(content))])
    with pytest.raises(InputError, match=r"p\.parquet: damaged parquet file") as error:
        list(posteriors.read(path))
    assert "\n" not in str(error.value)


def test_a_file_damaged_inside_is_named(tmp_path: Path) -> None:
    path = plant(tmp_path / "p.parquet", [[0.5, 0.5]] * 8, [0] * 8)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56  # the first page's header; the footer is whole
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"p\.parquet: damaged near row 0") as error:
        list(posteriors.read(path))
    assert "\n" not in str(error.value)


def test_a_missing_file_and_one_of_other_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.parquet does not exist; run 'vggrepro evaluate'"):
        list(posteriors.read(tmp_path / "none.parquet"))
    pq.write_table(pa.table({"key": ["a"], "score": [1.0]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other.parquet: columns \['key', 'score'\] are not key, label, posterior"):
        list(posteriors.read(tmp_path / "other.parquet"))


def test_empty_cells_are_refused(tmp_path: Path) -> None:
    rows = pa.array([[0.5, 0.5], None], pa.list_(pa.float32(), 2))
    table = pa.table({"key": ["a", "b"], "label": pa.array([0, 1], pa.int32()), "posterior": rows})
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(InputError, match=r"p\.parquet: an empty cell"):
        list(posteriors.read(tmp_path / "p.parquet"))


def test_a_file_without_our_metadata_has_no_origin(tmp_path: Path) -> None:
    rows = pa.array([[0.5, 0.5]], pa.list_(pa.float32(), 2))
    table = pa.table({"key": ["a"], "label": pa.array([0], pa.int32()), "posterior": rows})
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(InputError, match="has no valid 'vggrepro' metadata"):
        posteriors.read_origin(tmp_path / "p.parquet")


def test_files_of_different_images_labels_or_classes_are_not_averaged(tmp_path: Path) -> None:
    first = plant(tmp_path / "first", [[0.5, 0.5]] * 2, [0, 1])
    others = {
        r"differ in their images \('a' against 'x'\)": plant(tmp_path / "keys", [[0.5, 0.5]] * 2, [0, 1], "xb"),
        r"differ in their images \('a' against 'b'\)": plant(tmp_path / "order", [[0.5, 0.5]] * 2, [0, 1], "ba"),
        "give different labels to image 'b'": plant(tmp_path / "labels", [[0.5, 0.5]] * 2, [0, 0]),
        "has 2 classes, .*wide 3": plant(tmp_path / "wide", [[0.5, 0.25, 0.25]] * 2, [0, 1]),
        r"differ in their images \('fewer rows' against 'more rows'\)": plant(
            tmp_path / "more", [[0.5, 0.5]] * 3, [0, 1, 0]
        ),
    }
    for said, other in others.items():
        with pytest.raises(InputError, match=said):
            list(posteriors.average([first, other]))


def test_nothing_to_average() -> None:
    with pytest.raises(InputError, match="nothing to average"):
        list(posteriors.average([]))


def test_images_without_a_label_have_no_error(tmp_path: Path) -> None:
    for label in (-1, 2):
        path = plant(tmp_path / "p", [[0.5, 0.5]] * 2, [0, label])
        with pytest.raises(InputError, match="val: image 'b' has no label among 2 classes"):
            posteriors.score(posteriors.read(path), "val")


def test_stale_says_why() -> None:
    assert ORIGIN.stale(dataclasses.replace(ORIGIN, precision="bf16", commit="d", version="1")) is None
    assert ORIGIN.stale(dataclasses.replace(ORIGIN, weights="v")) == "other weights"
    assert ORIGIN.stale(dataclasses.replace(ORIGIN, fingerprint="g")) == "another data set"
    assert ORIGIN.stale(dataclasses.replace(ORIGIN, flip=False)) == "other flips"
