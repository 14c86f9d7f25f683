"""Recipes: presets, overrides and the plateau rule of Sect. 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vggrepro import recipe
from vggrepro.errors import InputError
from vggrepro.runs.config import UsedRecipe


def test_the_paper_preset_is_the_paper() -> None:
    paper = recipe.load("paper")
    assert (paper.crop, paper.width, paper.batch, paper.epochs) == (224, 1.0, 256, 74)
    assert (paper.learning_rate, paper.rescale_rate) == (0.01, 0.001)
    assert (paper.momentum, paper.weight_decay, paper.dropout, paper.drops) == (0.9, 5e-4, 0.5, 3)
    assert (paper.initialisation, paper.initial_std, paper.input_scale) == ("random", 0.01, 1.0)
    assert (paper.lrn, paper.momentum_form, paper.bias_rate, paper.bias_decay) == ("krizhevsky", "caffe", 2.0, 0.0)
    assert (paper.schedule, paper.drop_by, paper.warmup_steps, paper.clip_norm) == ("plateau", (), 0, 0.0)


@pytest.mark.parametrize("preset", recipe.PRESETS)
def test_presets_load_and_survive_a_round_trip(preset: str) -> None:
    loaded = recipe.load(preset)
    values = {name: value for name, value in loaded.as_dict().items() if name != "preset"}
    assert recipe.load(preset, values) == loaded
    with pytest.raises(InputError, match="the preset is the data set's"):
        recipe.load(preset, {"preset": "paper"})


@pytest.mark.parametrize("preset", recipe.PRESETS)
def test_every_value_has_a_reason_that_names_its_section_or_says_that_it_is_open(preset: str) -> None:
    reasons = recipe.reasons(preset)
    assert list(reasons) == [name for name in recipe.load(preset).as_dict() if name != "preset"]
    if preset == "paper":
        known = ("Sect. ", "Table 1", "open", "ours", "none in the paper", "as the other layers")
        assert all(reason.startswith(known) for reason in reasons.values())


def test_docs_explain_every_choice_that_is_open() -> None:
    text = (Path(__file__).parent.parent / "docs" / "recipe.md").read_text(encoding="utf-8")
    open_ones = {name for name, reason in recipe.reasons("paper").items() if reason.startswith("open")}
    for name in open_ones | {"initialisation", "initial_std", "lrn", "schedule", "drop_by"}:
        assert f"`{name}`" in text, name
    for choices in recipe.CHOICES.values():
        assert all(f"`{choice}`" in text for choice in choices), choices


def test_recipes_of_older_runs_mean_what_they_meant() -> None:
    assert UsedRecipe.of({}).lrn == "krizhevsky"
    used = UsedRecipe.of({"lrn": "caffe", "batch": 3})
    assert (used.lrn, used.batch, used.resample) == ("caffe", 3, "bilinear")
    assert used.complete == recipe.FORMER | {"lrn": "caffe", "batch": 3}
    assert recipe.FORMER["momentum_form"] == "torch"
    assert recipe.FORMER.keys() <= recipe.load("paper").as_dict().keys()


def test_overrides_are_toml_values_or_bare_words() -> None:
    texts = ["dropout=0.2", "batch = 64", "initialisation=he", "drop_by=[0.5, 1]"]
    values = recipe.parse_overrides(texts)
    assert recipe.load("demo", {"initialisation": "glorot"}).initialisation == "glorot-uniform"
    assert values == {"dropout": 0.2, "batch": 64, "initialisation": "he", "drop_by": [0.5, 1]}
    changed = recipe.load("paper", values)
    assert (changed.dropout, changed.batch, changed.initialisation, changed.drop_by) == (
        0.2,
        64,
        "he",
        (0.5, 1.0),
    )


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("full", {}, "unknown preset 'full'; choose one of paper, half, quarter, eighth, coarse, demo"),
        ("demo", {"depth": 3}, "no value 'depth' in a recipe"),
        ("demo", {"batch": 2.5}, "--set batch=2.5: expected a whole number"),
        ("demo", {"batch": True}, "--set batch=True: expected a whole number"),
        ("demo", {"dropout": "much"}, "--set dropout=much: expected a number"),
        ("demo", {"drop_by": 0.5}, "--set drop_by=0.5: expected a list of numbers"),
        ("demo", {"batch": 0}, "batch = 0 must be a number above 0"),
        ("demo", {"weight_decay": -1.0}, "weight_decay = -1.0 must be a number 0 or more"),
        ("demo", {"crop": 31}, "crop = 31; the poolings need at least 32 pixels"),
        ("demo", {"dropout": 1.0}, "dropout = 1.0 must be below 1"),
        ("demo", {"initialisation": "zero"}, "initialisation 'zero'; choose random, glorot-uniform"),
        ("demo", {"resample": "lanczos"}, "resample 'lanczos'; choose bilinear, bicubic"),
        ("demo", {"drop_by": [0.2, 0.4, 0.6, 0.8]}, "at most one for each drop"),
        ("demo", {"drop_by": [0.8, 0.2]}, "rising shares"),
        ("demo", {"lrn": "torch"}, "lrn 'torch'; choose krizhevsky, caffe"),
        ("demo", {"momentum_form": "nesterov"}, "momentum_form 'nesterov'; choose caffe, torch"),
        ("demo", {"colour_scale": "none"}, "colour_scale 'none'; choose eigenvalue, deviation"),
        ("demo", {"schedule": "cosine"}, "schedule 'cosine'; choose plateau, fixed"),
        (
            "coarse",
            {"schedule": "fixed", "drop_by": [0.7]},
            "schedule 'fixed' with drops = 3 and 1 shares in drop_by; give one a drop",
        ),
        ("demo", {"momentum": float("nan")}, "momentum = nan must be a number 0 or more"),
    ],
)
def test_bad_recipes_are_named(preset: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        recipe.load(preset, overrides)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["dropout", "=3", "dropout="])
def test_an_override_without_name_or_value(text: str) -> None:
    with pytest.raises(InputError, match=r"give NAME=VALUE, such as --set dropout=0\.2"):
        recipe.parse_overrides([text])


def schedule(errors: Sequence[float], epochs: int, **options: Any) -> list[tuple[float, bool]]:
    """What `learning_rate` says before each epoch and at the end."""
    return [recipe.learning_rate(errors[:n], 1.0, epochs, **options) for n in range(len(errors) + 1)]


def test_the_rate_falls_on_each_plateau_and_training_stops_after_the_last() -> None:
    errors = [50, 40, 41, 30, 30, 31, 29, 29]
    # drops after 41 (1), 30 (2), 31 (3); 29 improves; the second 29 is the plateau after the last drop
    said = schedule(errors, epochs=74)
    assert [rate for rate, _ in said] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.001, 0.001, 0.001])
    assert [stop for _, stop in said] == [False] * 8 + [True]


def test_patience_counts_epochs_since_the_best_or_the_last_drop() -> None:
    said = schedule([50, 51, 52, 53, 49, 50, 50], epochs=74, patience=2)
    assert [rate for rate, _ in said] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01])
    assert not any(stop for _, stop in said)


def test_an_improvement_below_the_threshold_is_a_plateau() -> None:
    assert recipe.learning_rate([50, 49.8], 1.0, 74)[0] == 1
    assert recipe.learning_rate([50, 49.8], 1.0, 74, min_improvement=0.5)[0] == pytest.approx(0.1)


def test_drops_come_at_the_latest_after_their_share() -> None:
    improving = [float(50 - n) for n in range(10)]
    said = schedule(improving, epochs=10, drops=2, drop_by=(0.5, 0.8))
    assert [rate for rate, _ in said] == pytest.approx([1] * 5 + [0.1] * 3 + [0.01] * 3)
    assert [stop for _, stop in said] == [False] * 10 + [True]  # the epochs are over


def test_fixed_drops_ignore_plateaus() -> None:
    values = {"schedule": "fixed", "drops": 2, "drop_by": [0.5, 0.8], "patience": 1}
    chosen = recipe.load("paper", values)
    flat = [50.0] * 10
    said = [chosen.rate_after(flat[:n], 1.0, 10) for n in range(11)]
    assert [rate for rate, _ in said] == pytest.approx([1] * 5 + [0.1] * 3 + [0.01] * 3)
    assert [stop for _, stop in said] == [False] * 10 + [True]
    plateau = recipe.load("paper", values | {"schedule": "plateau"})
    assert plateau.rate_after(flat[:3], 1.0, 10) == recipe.learning_rate(
        flat[:3], 1.0, 10, drops=2, patience=1, drop_by=(0.5, 0.8)
    )
    assert plateau.rate_after(flat[:4], 1.0, 10)[1]


def test_an_early_plateau_does_not_bring_the_next_share_forward() -> None:
    errors = [50.0, 50.0, 40.0, 39.0, 38.0, 37.0, 36.0, 35.0, 34.0]
    said = schedule(errors, epochs=10, drops=2, drop_by=(0.5, 0.8))
    assert [rate for rate, _ in said] == pytest.approx([1, 1] + [0.1] * 6 + [0.01] * 2)


@pytest.mark.parametrize(
    ("width", "least", "words"),
    [(1 / 16, 16, "width 0.0625 (at least 16 channels)"), (0.25, 1, "width 0.25"), (1.0, 1, "width 1")],
)
def test_a_least_number_of_channels_counts_where_it_changes_a_net(width: float, least: int, words: str) -> None:
    geometry = recipe.load("eighth", {"width": width, "min_channels": 16}).geometry
    assert (geometry.min_channels, geometry.widths) == (least, words)


def test_a_least_number_of_channels_is_at_most_the_papers() -> None:
    with pytest.raises(InputError, match="recipe: min_channels = 65 must be at most 64, conv1_1's"):
        recipe.load("eighth", {"min_channels": 65})
