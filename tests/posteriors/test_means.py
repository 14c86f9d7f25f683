"""Means over many files: by hand, against numpy, in any order of files and rows; each bad file is named alone."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import ORIGIN, write_posteriors

from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors import means
from vggrepro.posteriors.files import Rows
from vggrepro.posteriors.ranks import Score
from vggrepro.results.scores import Scores, split_images


def random_files(folder: Path, files: int, images: int, classes: int, seed: int = 0) -> tuple[list[Path], np.ndarray]:
    """Files in two folders, and their posteriors (files, images, classes); the labels are those of `labels_of`."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(classes, 0.3), (files, images)).astype(np.float32)
    keys = [f"image {i}" for i in range(images)]
    paths = [folder / f"run{number % 2}" / f"{number}.parquet" for number in range(files)]
    for path, values in zip(paths, rows, strict=True):
        batches = [
            Rows(keys[i : i + 7], labels_of(images, classes)[i : i + 7], values[i : i + 7]) for i in range(0, images, 7)
        ]
        posterior_files.write(path, batches, classes, ORIGIN)
    return paths, rows


def labels_of(images: int, classes: int) -> np.ndarray:
    return (np.arange(images) % classes).astype(np.int32)


def naive(rows: np.ndarray) -> np.ndarray:
    """Ranks under the mean over the first axis, by sorting."""
    mean = rows.astype(np.float64).sum(axis=0)
    order = np.argsort(-mean, axis=1, kind="stable")
    return (order == labels_of(*mean.shape)[:, None]).argmax(axis=1)


def shuffled(path: Path, order: np.ndarray) -> None:
    """The same rows in another order, as another tool writes them."""
    pq.write_table(pq.read_table(path).take(pa.array(order)).replace_schema_metadata(None), path)


def test_average_by_hand(tmp_path: Path) -> None:
    a = write_posteriors(tmp_path / "a", [[0.5, 0.25, 0.25], [1, 0, 0]], [0, 1])
    b = write_posteriors(tmp_path / "b", [[0.25, 0.75, 0], [0, 1, 0]], [0, 1])
    c = write_posteriors(tmp_path / "c", [[0, 0.5, 0.5], [0.5, 0.5, 0]], [0, 1])
    (batch,) = means.average([a, b, c])
    assert (batch.keys, batch.labels.tolist()) == (["a", "b"], [0, 1])
    np.testing.assert_allclose(batch.posteriors, [[0.25, 0.5, 0.25], [0.5, 0.5, 0]])
    assert batch.posteriors.dtype == np.float64
    found = means.rank_classes([[a], [b], [c], [a, b], [a, b, c]])
    ranks = [found.ranks[frozenset(group)].tolist() for group in ([a], [b], [c], [a, b], [a, b, c])]
    assert ranks == [[0, 1], [1, 0], [2, 1], [1, 1], [1, 1]]


def test_every_group_is_numpys_mean_and_every_file_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, rows = random_files(tmp_path, 6, 41, 9)
    streamed: list[Path] = []
    values = posterior_files.values
    monkeypatch.setattr(posterior_files, "values", lambda path, *more: streamed.append(path) or values(path, *more))
    monkeypatch.setattr(means, "BLOCK_NUMBERS", 45)  # 5 images
    monkeypatch.setattr(posterior_files, "BATCH_ROWS", 12)
    groups = [[i for i in range(6) if chosen >> i & 1] for chosen in range(1, 64)]
    found = means.rank_classes([[paths[i] for i in group] for group in groups])
    assert sorted(streamed) == sorted(paths)
    assert not found.bad
    for group in groups:
        ranks = found.ranks[frozenset(paths[i] for i in group)]
        np.testing.assert_array_equal(ranks, naive(rows[group]))
    score = means.score(paths)
    assert score.images == 41
    assert score.top1 == pytest.approx(100 * (naive(rows) >= 1).mean())
    assert score.top5 == pytest.approx(100 * (naive(rows) >= 5).mean())


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_neither_the_order_of_files_nor_that_of_rows_matters(data: st.DataObject) -> None:
    images = data.draw(st.integers(1, 30))
    files = data.draw(st.integers(1, 5))
    with tempfile.TemporaryDirectory() as name:
        paths, rows = random_files(Path(name), files, images, 7, data.draw(st.integers(0, 9)))
        reference = posterior_files.images_of(paths[0])
        before = np.concatenate([batch.posteriors for batch in means.average(paths, reference)])
        ranks = means.rank_classes([paths], reference).ranks[frozenset(paths)]
        np.testing.assert_array_equal(ranks, naive(rows))
        for path in paths:
            shuffled(path, np.array(data.draw(st.permutations(range(images)))))
        again = data.draw(st.permutations(paths))
        after = list(means.average(again, reference))
        assert [key for batch in after for key in batch.keys] == reference.keys.to_pylist()
        np.testing.assert_array_equal(np.concatenate([batch.posteriors for batch in after]), before)  # bit for bit
        others = [again[:1], again[1:], again] if files > 1 else [again]
        np.testing.assert_array_equal(means.rank_classes(others, reference).ranks[frozenset(paths)], ranks)


def test_a_file_in_another_order_is_joined_by_key_over_many_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, rows = random_files(tmp_path, 3, 500, 6)
    monkeypatch.setattr(posterior_files, "BATCH_ROWS", 64)
    shuffled(paths[1], np.random.default_rng(1).permutation(500))
    table = pq.read_table(paths[2])
    wide = table["posterior"].cast(pa.list_(pa.float64()))
    pq.write_table(table.set_column(2, "posterior", wide).take(pa.array(np.arange(500)[::-1])), paths[2])
    reference = posterior_files.images_of(paths[0])
    np.testing.assert_array_equal(means.rank_classes([paths], reference).ranks[frozenset(paths)], naive(rows))


def test_files_of_different_images_labels_or_classes_are_named(tmp_path: Path) -> None:
    first = write_posteriors(tmp_path / "0", [[0.5, 0.5]] * 2, [0, 1])
    others = {
        f"row 0 is image 'x', which is not in {first}": write_posteriors(
            tmp_path / "1", [[0.5, 0.5]] * 2, [0, 1], "xb"
        ),
        f"row 1 gives image 'b' label 0, {first} gives it 1": write_posteriors(
            tmp_path / "2", [[0.5, 0.5]] * 2, [0, 0]
        ),
        f"row 0 gives image 'b' label 0, {first} gives it 1": write_posteriors(
            tmp_path / "3", [[0.5, 0.5]] * 2, [0, 0], "ba"
        ),
        f"has 3 classes, {first} 2; only posteriors of one data set can be averaged": write_posteriors(
            tmp_path / "4", [[0.5, 0.25, 0.25]] * 2, [0, 1]
        ),
        f"row 2 is image 'c', which is not in {first}": write_posteriors(tmp_path / "5", [[0.5, 0.5]] * 3, [0, 1, 0]),
        f"lacks image 'b', which is row 1 of {first}": write_posteriors(tmp_path / "6", [[0.5, 0.5]], [0]),
        "rows 0 and 1 are both image 'a'; delete the file and evaluate again": write_posteriors(
            tmp_path / "7", [[0.5, 0.5]] * 2, [0, 1], "aa"
        ),
    }
    for said, other in others.items():
        with pytest.raises(InputError) as error:
            means.score([first, other])
        assert str(error.value).removeprefix(str(other)).lstrip(": ") == said
    found = means.rank_classes([[first], [first, *others.values()], *[[other] for other in others.values()]])
    assert found.bad.keys() == set(others.values())
    assert found.ranks.keys() == {frozenset([first])}


def test_a_label_that_another_tool_does_not_know_is_no_contradiction(tmp_path: Path) -> None:
    known = write_posteriors(tmp_path / "0", [[0.75, 0.25]] * 2, [0, 1])
    unknown = write_posteriors(tmp_path / "1", [[0.25, 0.75]] * 2, [-1, -1], "ba")
    found = means.rank_classes([[known], [unknown], [known, unknown]])
    assert [ranks.tolist() for ranks in found.ranks.values()] == [[0, 1], [1, 0], [0, 1]]


def test_a_bad_row_spoils_its_own_groups_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posterior_files, "BATCH_ROWS", 8)
    paths, rows = random_files(tmp_path, 3, 30, 6)
    values = rows[1].copy()
    values[20] = [2, 0, 0, 0, 0, 0]
    batch = Rows([f"image {i}" for i in range(30)], labels_of(30, 6), values)
    posterior_files.write(paths[1], [batch], 6, ORIGIN)
    found = means.rank_classes([[paths[0]], paths, paths[:2], [paths[0], paths[2]], [paths[1]]])
    assert {path: str(error) for path, error in found.bad.items()} == {
        paths[1]: f"{paths[1]}: row 20 is no distribution (sum 2.0000, smallest 0); delete the file and evaluate again"
    }
    assert found.ranks.keys() == {frozenset([paths[0]]), frozenset([paths[0], paths[2]])}
    np.testing.assert_array_equal(found.ranks[frozenset([paths[0], paths[2]])], naive(rows[[0, 2]]))
    with pytest.raises(InputError, match="row 20 is no distribution"):
        means.score(paths)
    with pytest.raises(InputError, match="row 20 is no distribution"):
        list(means.average(paths))
    shuffled(paths[1], np.arange(30)[::-1])
    with pytest.raises(InputError, match="row 9 is no distribution"):  # of the file as it is now
        means.score(paths)


def test_a_failure_in_a_thread_is_raised_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, _ = random_files(tmp_path, 2, 50, 6)

    def fail(*_: object) -> None:
        raise MemoryError("no memory")

    monkeypatch.setattr(means, "BLOCK_NUMBERS", 6)  # a block an image: more blocks than threads
    monkeypatch.setattr(means, "true_ranks", fail)
    with pytest.raises(MemoryError, match="no memory"):
        means.rank_classes([paths])


def test_all_files_bad(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"no parquet")
    found = means.rank_classes([[tmp_path / "p"]])
    assert (found.images, found.ranks, list(found.bad)) == (None, {}, [tmp_path / "p"])
    assert means.rank_classes([]) == means.Ranks(None, {}, {})


def test_nothing_to_average() -> None:
    with pytest.raises(InputError, match="nothing to average"):
        list(means.average([]))


def test_images_without_a_label_have_no_error(tmp_path: Path) -> None:
    path = write_posteriors(tmp_path / "p", [[0.5, 0.5]] * 2, [0, -1])
    with pytest.raises(InputError, match="p: image 'b' has no label; errors need a labelled split"):
        means.score([path])
    assert len(list(means.average([path]))) == 1  # a submission needs none


def test_the_data_sets_images_decide(dataset: Dataset, tmp_path: Path) -> None:
    images = split_images(dataset, "val")
    assert images is not None
    assert split_images(dataclasses.replace(dataset, fingerprint="0"), "val") is None
    assert split_images(dataclasses.replace(dataset, folder=tmp_path / "none"), "val") is None
    keys, labels = images.keys.to_pylist(), images.labels
    right = np.eye(6, dtype=np.float32)[labels]
    paths = [tmp_path / name for name in ("a", "b")]
    posterior_files.write(paths[0], [Rows(keys, (labels + 1) % 6, right)], 6, ORIGIN)  # all labels are off
    posterior_files.write(paths[1], [Rows(keys[::-1], labels[::-1], right[::-1])], 6, ORIGIN)
    scores = Scores(tmp_path, dataset)
    scores.rank_groups([paths[:1], paths[1:]])
    assert scores.ranks(paths[1:]).tolist() == [0] * 18
    assert scores.score(paths[1:]) == Score(18, 0.0, 0.0)
    with pytest.raises(
        InputError, match=rf"a: row 0 gives image '{keys[0]}' label 1, the split 'val' of {dataset.folder}"
    ):
        scores.ranks(paths)


def test_sums_are_exact_where_floats_allow_it(tmp_path: Path) -> None:
    """A tie of means is a tie in every order of adding: 0.1 + 0.7 + 0.2 as float32 adds up exactly in float64."""
    rows = [[0.1, 0.7, 0.2], [0.7, 0.2, 0.1], [0.2, 0.1, 0.7]]
    paths = [write_posteriors(tmp_path / f"{i}" / "p", [row] * 3, [0, 1, 2]) for i, row in enumerate(rows)]
    assert means.rank_classes([paths]).ranks[frozenset(paths)].tolist() == [0, 1, 2]
