"""Which nets to fuse: counts against brute force, an honest choice, greedy and exhaustive, the paper's own choices."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import RIGHT, WRONG, dataset_of, make_run, multi_scale, plant

from vggrepro.errors import InputError
from vggrepro.paper import JITTER, S256, Run
from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors import ranks as ranking
from vggrepro.results import ensembles, fuse, scores
from vggrepro.results.scores import Scores
from vggrepro.runs.folder import RunFolder
from vggrepro.system.advice import Invocation, invocation

# The keys of the planted images; image 1 is the one whose hash is odd.
KEYS = [f"image {place}" for place in range(4)]


def brute_force(sums: np.ndarray, labels: np.ndarray, half: np.ndarray, members: np.ndarray) -> np.ndarray:
    result = np.zeros((len(members), 2, 2), int)
    for row, member in enumerate(members):
        ranks = ranking.true_ranks(sums[member.astype(bool)].sum(axis=0), labels)
        for side in (0, 1):
            result[row, 0, side] = (ranks[half == side] >= 1).sum()
            result[row, 1, side] = (ranks[half == side] >= 5).sum()
    return result


@pytest.mark.parametrize(("classes", "levels", "cells"), [(7, 3, 1), (7, 4, 64), (40, 1000, 500), (12, 8, 1 << 21)])
def test_counts_are_those_of_fusing_each_subset(
    monkeypatch: pytest.MonkeyPatch, classes: int, levels: int, cells: int
) -> None:
    monkeypatch.setattr(ensembles, "CELLS", cells)  # from an image at a time to all at once
    rng = np.random.default_rng(classes)
    sums = rng.integers(0, levels, (4, 60, classes)) / 8.0  # few levels: many ties
    labels = rng.integers(0, classes, 60)
    sums[:, :20][:, np.arange(20), labels[:20]] += levels  # right in every net
    half = rng.integers(0, 2, 60)
    chosen = [subset for size in range(1, 5) for subset in combinations(range(4), size)]
    members = np.array([[float(net in subset) for net in range(4)] for subset in chosen])
    counted = ensembles.count_wrong(sums, labels, half, members)
    np.testing.assert_array_equal(counted, brute_force(sums, labels, half, members))
    assert counted[:, 0].sum() > counted[:, 1].sum() > 0


def test_halves_depend_on_the_key_alone() -> None:
    keys = [f"ILSVRC2012_val_{place:08}.JPEG" for place in range(1, 2001)]
    halves = ensembles.halves(keys)
    assert 900 < halves.sum() < 1100
    np.testing.assert_array_equal(ensembles.halves(keys[::-1]), halves[::-1])
    assert ensembles.halves(KEYS).tolist() == [0, 1, 0, 0]


def files(runs: Path, nets: dict[str, list[list[float]]]) -> None:
    """A finished run NET-256 of each net, dense at its three Q."""
    for net, rows in nets.items():
        run = Run(net, S256)
        make_run(runs, run)
        for q in S256.test_scales:
            plant(runs, run, q, rows)


def test_one_half_chooses_and_the_other_is_scored(tmp_path: Path) -> None:
    missed = [RIGHT[0], [0.1, 0, 0.2, 0.3, 0.2, 0.2], *RIGHT[2:]]  # errs on the held-out image 1 alone
    files(tmp_path, {"A": missed, "B": [WRONG[0], RIGHT[1], *WRONG[2:]]})
    fusion, pairs = ensembles.search(Scores(tmp_path, dataset_of()))
    lines = fusion.frame.set_index("choice")
    best = lines.loc["best net"]
    assert (best["runs"], best["choosing_images"], best["images"], best["all_images"]) == ("A-256", 3, 1, 4)
    assert (best["choosing_top1_val_error"], best["top1_val_error"], best["all_top1_val_error"]) == (0.0, 100.0, 25.0)
    assert best["top1_val_error_low"] == pytest.approx(20.65, abs=0.01)  # Wilson, 1 of 1
    # Fused, the true class has 0.5 or more everywhere.
    pair = pairs.frame.iloc[-1]
    assert (pair["runs"], pair["nets"], pair["all_top1_val_error"]) == ("A-256 + B-256", 2, 0.0)
    assert lines.loc["best subset", "runs"] == "A-256"  # as good with fewer nets, where it was chosen
    assert lines.loc["all 2 nets", "all_top1_val_error"] == 0.0
    assert "on 3 images" in fusion.caption


def test_pairs_are_those_of_fuse(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    nets = {net: rng.dirichlet(np.ones(6), 4).tolist() for net in ("A", "B", "C")}
    files(tmp_path, nets)
    _, pairs = ensembles.search(Scores(tmp_path, dataset_of()))
    for _, line in pairs.frame.iterrows():
        frame = fuse.fuse_runs([RunFolder(tmp_path / name) for name in line["runs"].split(" + ")], ["dense"])
        assert line["all_top1_val_error"] == frame["top1_error"].iloc[-1]
        assert line["all_top5_val_error"] == frame["top5_error"].iloc[-1]
    assert [column.heading for column in pairs.columns] == ["run", "A-256", "B-256", "C-256"]
    assert [column.cells.count("") for column in pairs.columns] == [0, 0, 1, 2]  # a triangle


def test_labels_are_the_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another tool's file may know no labels: where all or the first are such, the split's count."""
    rng = np.random.default_rng(6)
    files(tmp_path, {net: rng.dirichlet(np.ones(6), 4).tolist() for net in ("A", "B")})
    first = tmp_path / "A-256" / "posteriors" / "val-dense-q224.parquet"
    known = posterior_files.images_of(first)
    for module in (scores, ensembles):
        monkeypatch.setattr(module, "split_images", lambda dataset, split: known)
    expected = [extra.frame for extra in ensembles.search(Scores(tmp_path, dataset_of()))]
    for net in ("A", "B"):
        for path in (tmp_path / f"{net}-256" / "posteriors").iterdir():
            table = pq.read_table(path).replace_schema_metadata(None)
            unknown = pa.array(np.full(len(table), -1, np.int32))
            pq.write_table(table.set_column(table.schema.get_field_index("label"), "label", unknown), path)
        found = ensembles.search(Scores(tmp_path, dataset_of()))
        for extra, frame in zip(found, expected, strict=True):
            pd.testing.assert_frame_equal(extra.frame, frame)


def test_more_nets_are_sought_greedily(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    files(tmp_path, {net: rng.dirichlet(np.ones(6), 4).tolist() for net in ("A", "A-LRN", "B", "C", "D")})
    scores = Scores(tmp_path, dataset_of())
    whole, _ = ensembles.search(scores)
    monkeypatch.setattr(ensembles, "EXHAUSTIVE", 2)
    greedy, _ = ensembles.search(scores)
    steps = [whole.frame[whole.frame["choice"].str.startswith("greedy, ")] for whole in (whole, greedy)]
    assert steps[0].to_numpy().tolist() == steps[1].to_numpy().tolist()
    names = [set(runs.split(" + ")) for runs in steps[0]["runs"]]
    assert [len(part) for part in names] == [1, 2, 3, 4, 5]
    assert all(small < large for small, large in pairwise(names))
    assert "best subset" not in greedy.frame["choice"].tolist()
    assert greedy.notes == ("More than 2 nets: larger subsets than pairs were sought greedily only.",)


def test_the_papers_choices_stand_beside(tmp_path: Path) -> None:
    multi_scale(tmp_path)
    dense = ensembles.search(Scores(tmp_path, dataset_of()))[0].frame
    assert dense.set_index("choice").loc["the paper's 2 nets", "runs"] == "D-256-512 + E-256-512"
    both = ensembles.search(Scores(tmp_path, dataset_of()), ("dense", "multicrop"))[0]
    assert "the paper's 2 nets" in both.frame["choice"].tolist()
    assert "Multi-crop & dense at the paper's Q." in both.caption


def test_incomplete_and_stale_runs_are_named(tmp_path: Path) -> None:
    files(tmp_path, {"A": RIGHT, "B": RIGHT})
    make_run(tmp_path, Run("C", S256))
    plant(tmp_path, Run("C", S256), 256, RIGHT)
    make_run(tmp_path, Run("D", S256))
    paths = [plant(tmp_path, Run("D", S256), q, RIGHT, weights="old") for q in S256.test_scales]
    with invocation(Invocation([("--runs", "r")])):
        fusion, _ = ensembles.search(Scores(tmp_path, dataset_of()))
    names = ", ".join([str(paths[0]), *(path.name for path in paths[1:])])
    assert fusion.notes == (
        f"Not used: {names} (other weights).",
        "Not all posteriors: `vggrepro evaluate C-256 --dense --runs r`.",
    )


def test_one_net_cannot_be_fused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--search: no run has all dense posteriors at the paper's Q; evaluate two"):
        ensembles.search(Scores(tmp_path, dataset_of()))
    files(tmp_path, {"A": RIGHT})
    make_run(tmp_path, Run("E", JITTER))
    with pytest.raises(InputError, match=r"^--search: no run has all dense and multicrop posteriors"):
        ensembles.search(Scores(tmp_path, dataset_of()), ("dense", "multicrop"))
    with pytest.raises(InputError, match=r"^--search: only A-256 has all dense posteriors at the paper's Q; evaluate"):
        ensembles.search(Scores(tmp_path, dataset_of()))


def test_too_few_images_for_two_halves(tmp_path: Path) -> None:
    files(tmp_path, {"A": RIGHT[:1], "B": RIGHT[:1]})
    with pytest.raises(InputError, match=r"^--search: 1 images fall into one half; it needs more images"):
        ensembles.search(Scores(tmp_path, dataset_of(images=1)))


def test_few_classes_have_no_top_5(tmp_path: Path) -> None:
    files(tmp_path, {"A": [[1, 0, 0]] * 3, "B": [[0, 1, 0]] * 3})
    fusion, _ = ensembles.search(Scores(tmp_path, dataset_of(classes=3, images=3)))
    assert fusion.frame["top5_val_error"].isna().all()
    assert fusion.frame["all_top5_val_error"].isna().all()
    assert not any("top-5" in column.heading for column in fusion.columns)
