"""Posterior files: round trip, averages and errors by hand, every damage named with file and row."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import ORIGIN, write_posteriors

from vggrepro.errors import InputError
from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors import protocol
from vggrepro.posteriors.files import Rows
from vggrepro.posteriors.ranks import Score, score_of, true_ranks


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    path = write_posteriors(tmp_path / "p.parquet", [[0.25, 0.75], [1, 0]], [1, -1])
    (batch,) = posterior_files.read(path)
    assert batch.keys == ["a", "b"]
    assert batch.labels.tolist() == [1, -1]
    assert batch.posteriors.tolist() == [[0.25, 0.75], [1.0, 0.0]]
    assert posterior_files.read_origin(path) == ORIGIN


def test_files_from_before_poolings_could_round_up_have_rounded_down(tmp_path: Path) -> None:
    path = write_posteriors(tmp_path / "p.parquet", [[0.25, 0.75]], [1])
    values = dataclasses.asdict(ORIGIN)
    del values["pooling"]
    table = pq.read_table(path).replace_schema_metadata({posterior_files.METADATA_KEY: json.dumps(values)})
    pq.write_table(table, path)
    assert posterior_files.read_origin(path) == ORIGIN


def test_the_file_format_is_the_contract(tmp_path: Path) -> None:
    path = protocol.file_path(tmp_path / "A-256", "val", "dense", 256)
    assert path == tmp_path / "A-256" / "posteriors" / "val-dense-q256.parquet"
    schema = pq.read_schema(write_posteriors(path, [[0.5, 0.5]], [0]))
    assert schema.names == ["key", "label", "posterior"]
    assert schema.field("key").type == pa.string()
    assert schema.field("label").type == pa.int32()
    assert pa.types.is_fixed_size_list(schema.field("posterior").type)
    assert (schema.field("posterior").type.list_size, schema.field("posterior").type.value_type) == (
        2,
        pa.float32(),
    )


def test_ranks_break_ties_by_class_order() -> None:
    rows = np.array([[0.25, 0.25, 0.25, 0.25]] * 4)
    assert true_ranks(rows, np.array([0, 1, 2, 3])).tolist() == [0, 1, 2, 3]
    assert true_ranks(np.array([[0.2, 0.5, 0.3]]), np.array([2])).tolist() == [1]
    assert true_ranks(np.array([[np.nan, np.nan], [np.nan, 1.0]]), np.array([0, 1])).tolist() == [2, 1]  # never right


def test_errors_by_hand() -> None:
    ranks = np.array([0, 1, 4, 5, 0, 0, 5, 5])
    assert score_of(ranks, 6) == Score(8, 62.5, 37.5)  # 5 and 3 of 8 images
    assert score_of(ranks, 5).top5 is None


@pytest.mark.parametrize("classes", [1, 2, 300, 70_000])
def test_ranks_of_any_number_of_classes(classes: int) -> None:
    rng = np.random.default_rng(classes)
    rows = rng.integers(0, 50, (4, classes)).astype(np.float32)  # many ties
    labels = rng.integers(0, classes, 4)
    order = np.argsort(-rows, axis=1, kind="stable")
    expected = [list(order[i]).index(label) for i, label in enumerate(labels)]
    assert true_ranks(rows, labels).tolist() == expected
    assert true_ranks(np.zeros((1, classes)), np.array([classes - 1])).tolist() == [classes - 1]


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
    path = write_posteriors(tmp_path / "p.parquet", [[0.5, 0.5], row], [0, 0])
    with pytest.raises(InputError, match=f"p.parquet: {said}"):
        list(posterior_files.read(path))


def test_a_bad_row_far_down_has_its_number_in_the_file(tmp_path: Path) -> None:
    values = np.full((5000, 2), 0.5, dtype=np.float32)
    values[4321] = 0.1
    batch = Rows([str(i) for i in range(5000)], np.zeros(5000, dtype=np.int32), values)
    posterior_files.write(tmp_path / "p", [batch], 2, ORIGIN)
    with pytest.raises(InputError, match="row 4321 is no distribution"):
        list(posterior_files.read(tmp_path / "p"))


@pytest.mark.parametrize("size", [0, 3, 60, 0.5])
def test_truncated_files_are_named(tmp_path: Path, size: float) -> None:
    path = write_posteriors(tmp_path / "p.parquet", [[0.5, 0.5]] * 8, [0] * 8)
    content = path.read_bytes()
    path.write_bytes(content[: int(size if size >= 1 else size * len(content))])
    with pytest.raises(InputError, match=r"p\.parquet: damaged parquet file") as error:
        list(posterior_files.read(path))
    assert "\n" not in str(error.value)


def test_a_file_damaged_inside_is_named(tmp_path: Path) -> None:
    path = write_posteriors(tmp_path / "p.parquet", [[0.5, 0.5]] * 8, [0] * 8)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56  # the first page's header; the footer is whole
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"p\.parquet: damaged parquet file") as error:
        list(posterior_files.read(path))
    assert "\n" not in str(error.value)


def test_a_missing_file_and_one_of_other_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.parquet does not exist; run 'vggrepro evaluate'"):
        list(posterior_files.read(tmp_path / "none.parquet"))
    pq.write_table(pa.table({"key": ["a"], "score": [1.0]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other.parquet: its columns \(key, score\) are not key, label and posterior"):
        list(posterior_files.read(tmp_path / "other.parquet"))


def test_empty_cells_are_refused(tmp_path: Path) -> None:
    rows = pa.array([[0.5, 0.5], None], pa.list_(pa.float32(), 2))
    table = pa.table({"key": ["a", "b"], "label": pa.array([0, 1], pa.int32()), "posterior": rows})
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(InputError, match=r"p\.parquet: row 1 has no posterior"):
        list(posterior_files.read(tmp_path / "p.parquet"))


def test_a_file_without_our_metadata_has_no_origin(tmp_path: Path) -> None:
    rows = pa.array([[0.5, 0.5]], pa.list_(pa.float32(), 2))
    table = pa.table({"key": ["a"], "label": pa.array([0], pa.int32()), "posterior": rows})
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(InputError, match="has no valid 'vggrepro' metadata"):
        posterior_files.read_origin(tmp_path / "p.parquet")


def test_stale_says_why() -> None:
    assert ORIGIN.stale({"precision": "bf16", "commit": "d", "version": "1"}) is None
    assert ORIGIN.stale({"weights": "v"}) == "other weights"
    assert ORIGIN.stale({"fingerprint": "g"}) == "another data set"
    assert ORIGIN.stale({"flip": False}) == "other flips"


FLOATS = pa.list_(pa.float32(), 2)


def table(**columns: pa.Array) -> pa.Table:
    """Three rows of two classes; `columns` replace or add."""
    rows = pa.array([[0.25, 0.75], [1, 0], [0.5, 0.5]], FLOATS)
    return pa.table({"key": ["a", "b", "c"], "label": pa.array([0, 1, -1], pa.int32()), "posterior": rows} | columns)


@pytest.mark.parametrize(
    "columns",
    [
        {"posterior": table()["posterior"].cast(pa.list_(pa.float32()))},
        {"posterior": table()["posterior"].cast(pa.large_list(pa.float64()))},
        {
            "posterior": pa.array(
                np.array(table()["posterior"].to_pylist(), np.float16).tolist(), pa.list_(pa.float16())
            )
        },
        {"label": pa.array([0, 1, -1], pa.int64())},
        {"key": pa.array(["a", "b", "c"], pa.large_string())},
        {"key": pa.array(["a", "b", "c"]).dictionary_encode()},
        {"key": pa.array([b"a", b"b", b"c"])},
        {"confidence": pa.array([0.75, 1.0, 0.5])},
    ],
)
@pytest.mark.parametrize("options", [{}, {"compression": "zstd", "row_group_size": 2, "store_schema": False}])
def test_files_of_other_tools(tmp_path: Path, columns: dict[str, pa.Array], options: dict[str, Any]) -> None:
    content = table(**columns)
    content = content.select(content.column_names[::-1])
    pq.write_table(content, tmp_path / "p", **options)
    assert posterior_files.shape_of(tmp_path / "p") == posterior_files.Shape(3, 2, foreign=True)
    for rows in (1, 2, 3, 100):
        batches = list(posterior_files.read(tmp_path / "p", rows))
        assert [key for batch in batches for key in batch.keys] == ["a", "b", "c"]
        assert np.concatenate([batch.labels for batch in batches]).tolist() == [0, 1, -1]
        assert np.concatenate([batch.posteriors for batch in batches]).tolist() == [[0.25, 0.75], [1, 0], [0.5, 0.5]]
        sizes = [len(values) for values in posterior_files.values(tmp_path / "p", rows)]
        assert sum(sizes) == 3 and set(sizes[:-1]) <= {rows}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (table(posterior=pa.array([[0.5, 0.5], [1.0], [0.5, 0.5]])), "row 1 has 1 posteriors, row 0 2"),
        (table(posterior=pa.array([[0.5, 0.5], [1.0, 0.0], [1.0, None]])), "row 2 lacks a posterior"),
        (table(posterior=pa.array([[], [1.0], [1.0]])), "row 0 has no posteriors"),
        (table(posterior=pa.array([[0, 1]] * 3)), r"posteriors are list<\w+: int64>, not a list of floats per row"),
        (table(posterior=pa.array([0.5] * 3)), "posteriors are double, not a list of floats per row"),
        (table(key=pa.array([1, 2, 3])), "keys are int64, not strings"),
        (table(key=pa.array(["a", None, "c"])), "row 1 has no key"),
        (table(key=pa.array(["a", "b", "a"])), "rows 0 and 2 are both image 'a'"),
        (table(key=pa.array([b"a", b"b", b"\xff"])), "damaged parquet file .*UTF8"),
        (table(label=pa.array([0, None, 1])), "row 1 has no label"),
        (table(label=pa.array([0, 1, 2])), "row 2 has label 2 of 2 classes"),
        (table(label=pa.array([0, 1, -2])), "row 2 has label -2 of 2 classes"),
        (table(label=pa.array([0, 1, 2**40])), "row 2 has label 1099511627776 of 2 classes"),
        (table(label=pa.array([0.0, 1.0, 0.0])), "labels are double, not integers"),
        (table().slice(0, 0), "holds no images"),
    ],
)
def test_what_is_wrong_is_said_with_its_row(tmp_path: Path, content: pa.Table, said: str) -> None:
    pq.write_table(content, tmp_path / "p")
    with pytest.raises(InputError, match=f"^{tmp_path / 'p'}: {said}") as error:
        posterior_files.images_of(tmp_path / "p")
        list(posterior_files.values(tmp_path / "p"))
    assert "\n" not in str(error.value)


def test_one_class(tmp_path: Path) -> None:
    path = write_posteriors(tmp_path / "p", [[1.0], [1.0]], [0, 0])
    assert posterior_files.shape_of(path) == posterior_files.Shape(2, 1, foreign=False)
    assert [batch.posteriors.tolist() for batch in posterior_files.read(path)] == [[[1.0], [1.0]]]


def test_a_changed_bit_is_found_by_its_pages_checksum(tmp_path: Path) -> None:
    path = write_posteriors(tmp_path / "p.parquet", [[0.5, 0.5]] * 8, [0] * 8)
    content = bytearray(path.read_bytes())
    at = bytes(content).index(np.array([0.5, 0.5], np.float32).tobytes())
    content[at] ^= 1  # the last bit of a number: its row would still be a distribution
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"p\.parquet: damaged parquet file \(.*CRC"):
        list(posterior_files.read(path))


@pytest.mark.parametrize("seed", range(60))
def test_no_damage_ends_otherwise_than_in_one_line(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = write_posteriors(tmp_path / "p", rng.dirichlet(np.ones(9), 8).tolist(), rng.integers(0, 9, 8).tolist())
    (whole,) = posterior_files.read(path)
    content = bytearray(path.read_bytes())
    at = int(rng.integers(len(content)))
    if seed % 3 == 0:
        del content[at:]
    else:
        content[at : at + seed] = rng.bytes(len(content[at : at + seed]))
    path.write_bytes(content)
    try:
        posterior_files.read_origin(path)
        (batch,) = posterior_files.read(path)
    except InputError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:  # nothing that is read was hit
        assert (batch.keys, batch.labels.tolist()) == (whole.keys, whole.labels.tolist())
        np.testing.assert_array_equal(batch.posteriors, whole.posteriors)
