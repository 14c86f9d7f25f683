"""How runs differ from the paper: once for all runs, then row by row, each value against the preset `paper`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from planted import RIGHT, dataset_of, make_run, plant

from vggrepro import paper, recipe
from vggrepro.data.dataset import Dataset
from vggrepro.paper import JITTER, S256, S384, Geometry, Run
from vggrepro.results.conditions import QS, WORDS, conditions, positions, reductions, shared
from vggrepro.results.scores import Scores

A, B, D, ALRN = (Run(net, S256) for net in ("A", "B", "D", "A-LRN"))
PAPER = recipe.load("paper").as_dict()


def trained(runs: Path, run: Run, done: int = 74, **changes: Any) -> None:
    """A run by the preset `paper` but for `changes`."""
    make_run(runs, run, done, recipe=PAPER | changes)


def of(scores: Scores, *runs: Run) -> list[str]:
    """The conditions of a row of these runs, each by dense evaluation at Q = 256, of the seeds that have them all."""
    for each in (scores, *scores.seeds):
        for run in runs:
            if (each.runs / run.name).is_dir():
                plant(each.runs, run, 256, RIGHT)
    return conditions(scores, scores.having([paper.View(run, 256, "dense") for run in runs]))


def test_every_value_of_a_recipe_is_compared() -> None:
    elsewhere = {"preset", "crop", "stride", "width", "min_channels", "epochs", "deeper_epochs", "rescale_epochs"}
    assert set(WORDS) - {"precision"} == set(PAPER) - elsewhere


def test_the_papers_recipe_differs_in_nothing(tmp_path: Path) -> None:
    for run in (A, B, ALRN):
        trained(tmp_path, run)
    scores = Scores(tmp_path, dataset_of())
    assert shared(scores) == ()
    assert of(scores, A, B, ALRN) == []


@pytest.mark.parametrize("preset", recipe.PRESETS)
def test_what_all_runs_share_is_told_once(tmp_path: Path, preset: str) -> None:
    values = recipe.load(preset).as_dict()
    for run in (A, B):
        make_run(tmp_path, run, recipe=values, start={"run": "A-256"} if run == B else None)
    scores = Scores(tmp_path, dataset_of())
    text = " ".join(shared(scores))
    for name, words in WORDS.items():
        does_nothing = name == "lrn" or (values["initialisation"] != "random" and name == "initial_std")
        does_nothing = does_nothing or (values["schedule"] == "fixed" and name in ("patience", "min_improvement"))
        differs = values.get(name) != PAPER.get(name) and not does_nothing
        assert (re.search(f"[:,] {re.escape(words)} ", text) is not None) == differs, name
    assert of(scores, A, B) == []
    if preset == "demo":
        assert "batch 16 (256), learning rate 0.02 (0.01), rate at another S 0.02 (0.001), dropout none (0.5)" in text


def test_the_lines_say_which_values_the_paper_gives(tmp_path: Path) -> None:
    values = PAPER | {"batch": 64, "dropout": 0.0, "momentum_form": "torch", "drop_by": [0.5, 0.75]}
    make_run(tmp_path, A, recipe=values, start={"initialisation": "glorot-uniform"}, precision="bf16")
    assert shared(Scores(tmp_path, dataset_of())) == (
        "Training, the paper's value in brackets: batch 64 (256), dropout none (0.5), first weights glorot-uniform "
        "(random), drops after these shares of the epochs 0.5 and 0.75 (none).",
        "Where the paper gives no value, that of the preset `paper` in brackets: form of the momentum torch (caffe), "
        "precision bf16 (fp32).",
    )


def test_a_run_of_its_own_recipe_is_named_where_the_row_has_others(tmp_path: Path) -> None:
    for run in (A, B, ALRN):
        trained(tmp_path, run, batch=64, lrn="caffe", **({"dropout": 0.2} if run == B else {"drops": 2}))
    scores = Scores(tmp_path, dataset_of())
    assert shared(scores) == ("Training, the paper's value in brackets: batch 64 (256).",)
    assert of(scores, B) == ["Training, the paper's value in brackets: dropout 0.2 (0.5)."]
    assert of(scores, A, B) == [
        "A-256: Training, the paper's value in brackets: drops of the rate 2 (3).",
        "B-256: Training, the paper's value in brackets: dropout 0.2 (0.5).",
    ]
    assert of(scores, ALRN) == [
        "Training, the paper's value in brackets: LRN caffe (krizhevsky), drops of the rate 2 (3)."
    ]


def test_imported_weights_and_runs_of_other_data_are_not_shared(tmp_path: Path) -> None:
    trained(tmp_path, B, batch=64)
    make_run(tmp_path, A, origin="imported from vgg.npz")
    make_run(tmp_path, D, recipe=PAPER, dataset={"name": "other", "fingerprint": "x"})
    scores = Scores(tmp_path, dataset_of())
    assert shared(scores) == ("Training, the paper's value in brackets: batch 64 (256).",)
    assert of(scores, A) == ["A-256: imported from vgg.npz."]
    assert of(scores, D) == ["Trained on another data set (other)."]


def test_a_seed_of_its_own_recipe_is_named(tmp_path: Path) -> None:
    for folder, epochs in ((tmp_path, 6), (tmp_path / "seed1", 6), (tmp_path / "seed2", 5)):
        make_run(folder, A, epochs, recipe=PAPER | {"batch": 64})
    seeds = [Scores(tmp_path / name, dataset_of()) for name in ("seed1", "seed2")]
    assert of(Scores(tmp_path, dataset_of(), seeds), A) == [
        f"{tmp_path.name}, seed1: Trained for 6 epochs (the paper: 74).",
        "seed2: Trained for 5 epochs (the paper: 74).",
    ]


def test_a_seed_that_was_trained_otherwise_is_named(tmp_path: Path) -> None:
    for folder, rate in ((tmp_path, 0.01), (tmp_path / "seed1", 0.02), (tmp_path / "seed2", 0.01)):
        trained(folder, A, batch=64, learning_rate=rate)
    seeds = [Scores(tmp_path / name, dataset_of()) for name in ("seed1", "seed2")]
    scores = Scores(tmp_path, dataset_of(), seeds)
    assert shared(scores) == ("Training, the paper's value in brackets: batch 64 (256).",)
    assert of(scores, A) == ["seed1: Training, the paper's value in brackets: learning rate 0.02 (0.01)."]


def test_a_row_that_the_first_seed_lacks_says_what_its_seed_alone_shares(tmp_path: Path) -> None:
    trained(tmp_path, A, batch=64)
    for run in (A, D):
        trained(tmp_path / "seed1", run, batch=32)
    scores = Scores(tmp_path, dataset_of(), [Scores(tmp_path / "seed1", dataset_of())])
    assert shared(scores) == ()
    batch = "Training, the paper's value in brackets: batch 32 (256)."
    assert batch in of(scores, D)
    assert f"seed1: {batch}" in of(scores, A)
    assert not any("weights of" in text for text in of(scores, D))  # the first seed is no part of the row


def test_a_seed_of_another_crop_and_without_flips_is_named(tmp_path: Path) -> None:
    trained(tmp_path, A)
    make_run(tmp_path / "seed1", A, recipe=PAPER, crop=32)
    scores = Scores(tmp_path, dataset_of(), [Scores(tmp_path / "seed1", dataset_of())])
    plant(tmp_path, A, 256, RIGHT)
    plant(tmp_path / "seed1", A, 256, RIGHT, flip=False, q_pixels=paper.real_pixels(256, 32))
    assert conditions(scores, scores.having([paper.View(A, 256, "dense")])) == [
        "seed1: Crop 32, width 0.125, stride 32 (most runs: crop 64, width 0.125, stride 32).",
        "seed1: Evaluated without horizontal flips (the paper: with).",
    ]


@pytest.mark.parametrize(
    ("run", "done", "sentence"),
    [
        (A, 12, "Trained for 12 epochs (the paper: 74)."),
        (B, 12, "Trained for 12 (A-256) + 12 epochs (the paper: 74 + 74)."),
        (
            Run("B", S384),
            8,
            "Trained for 8 (A-256) + 8 (S = 256) + 8 epochs (the paper: 74 + 74, then it does not say).",
        ),
        (
            Run("D", JITTER),
            9,
            "Trained for 9 (A-256) + 9 (S = 256) + 9 (S = 384) + 9 epochs (the paper: 74 + 74, then it does not say).",
        ),
        (Run("D", JITTER), 74, None),
    ],
)
def test_epochs_count_from_random_weights(tmp_path: Path, run: Run, done: int, sentence: str | None) -> None:
    for each in paper.chain(run):
        make_run(tmp_path, each, done, recipe=PAPER, epochs=done)
    found = [text for text in of(Scores(tmp_path, dataset_of()), run) if text.startswith("Trained")]
    assert found == ([sentence] if sentence else [])


def counted(crop: int, stride: int, q: int) -> int:
    """The positions of fc6 on a square image, by halving a side as the poolings do."""
    side, window = round(q * crop / 224), crop
    while stride > 1:
        side, window, stride = side // 2, window // 2, stride // 2
    return (side - window + 1) ** 2


@pytest.mark.parametrize(("crop", "stride"), [(224, 32), (112, 16), (56, 8), (64, 32), (96, 32)])
def test_positions_of_the_score_maps(crop: int, stride: int) -> None:
    assert positions(Geometry(crop, 1, stride)) == [counted(crop, stride, q) for q in QS]


def test_reductions_name_the_score_maps(tmp_path: Path) -> None:
    full = Dataset(tmp_path, "full", ("c",) * 1000, {"train": 1_281_167, "val": 50_000}, (0, 0, 0), ((1, 0, 0),),
                   (1, 1, 1), "paper", "print")  # fmt: skip
    assert reductions(full, [Geometry()]) == ()
    _, exact = reductions(full, [Geometry(56, 1, 8)])
    assert exact == "score maps of dense evaluation have as many positions as the paper's at every Q"
    _, coarse = reductions(full, [Geometry(64, 1, 32)])
    assert coarse == (
        "score maps of dense evaluation have 1, 1, 1, 4, 4, 4, 9 positions at Q = 224, 256, 288, 352, 384, 416, 512, "
        "of a square image (the paper: 1, 4, 9, 25, 36, 49, 100); a map of one position sees the upper left of the "
        "image alone"
    )
