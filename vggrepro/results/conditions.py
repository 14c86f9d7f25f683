"""How runs and posterior files differ from the paper's, in sentences.

What holds for all runs is said once, above the tables and claims: `reductions` (data and nets) and `shared` (training).
`conditions` says the rest, row by row. Every value is compared with the preset `paper`, whatever the run's own preset.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vggrepro import paper, recipe
from vggrepro.data.dataset import Dataset
from vggrepro.paper import Geometry, Run
from vggrepro.posteriors.protocol import SPLIT
from vggrepro.results.scores import File, Scores
from vggrepro.runs.config import RunConfig

ILSVRC = {"classes": 1000, "train": 1_281_167, "val": 50_000}  # Sect. 4: the data set of all published errors
PAPER_EPOCHS = 74  # Sect. 3.1: 370K iterations of 256 images
QS = (224, 256, 288, 352, 384, 416, 512)  # every test scale of Tables 3-6

# The values of a recipe that are compared, in words. `crop`, `stride` and `width` are those of the nets (`reductions`),
# `_epochs` says how many epochs there were.
WORDS = {
    "batch": "batch",
    "learning_rate": "learning rate",
    "rescale_rate": "rate at another S",
    "momentum": "momentum",
    "momentum_form": "form of the momentum",
    "weight_decay": "weight decay",
    "bias_rate": "factor of the rate of biases",
    "bias_decay": "factor of the weight decay of biases",
    "dropout": "dropout",
    "warmup_steps": "warm-up steps",
    "clip_norm": "limit of the gradient's norm",
    "initialisation": "first weights",
    "initial_std": "deviation of the first weights",
    "initial_fc8": "factor of the first weights of fc8",
    "input_scale": "input scale",
    "lrn": "LRN",
    "resample": "resampling",
    "decode": "decoding",
    "colour_std": "deviation of the RGB shift",
    "colour_scale": "unit of the RGB shift",
    "held_out": "share of the training images held out",
    "schedule": "schedule of the rate",
    "drops": "drops of the rate",
    "drop_by": "drops after these shares of the epochs",
    "patience": "epochs of patience before a drop",
    "min_improvement": "least improvement, in points",
    "precision": "precision",
}
NONE = (
    "dropout",
    "warmup_steps",
    "clip_norm",
    "held_out",
    "drop_by",
)  # recipe values for which 0 or [] means that there is none


class Departure(NamedTuple):
    """A value of a run's training that is not the paper's."""

    name: str  # of the recipe, or precision
    words: str  # "batch 64 (256)"
    silent: bool  # the paper does not give the value: the preset `paper` has chosen one


# All runs


def reductions(dataset: Dataset, geometries: Iterable[Geometry]) -> tuple[str, ...]:
    """How the data and the nets are smaller than the paper's; empty for ILSVRC's data and Table 1's nets.

    Args:
        dataset: without training images, the nets were trained elsewhere, and the rows of the tables say so.
        geometries: of the nets that were used.
    """
    lines = [line for geometry in dict.fromkeys(geometries) for line in _less_net(geometry)]
    subset = [f"a subset: {dataset.subset.rstrip('.')}"] if dataset.subset else []
    return (*_less_data(dataset), *lines, *subset)


def _less_data(dataset: Dataset) -> list[str]:
    sizes = {"classes": len(dataset.classes), "val": dataset.counts[SPLIT]}
    if dataset.trainable:
        sizes["train"] = dataset.counts.get("train", 0)
    words = {"classes": "classes", "train": "training images", "val": "validation images"}
    return [
        f"{sizes[name]:,} {word} (the paper: {ILSVRC[name]:,})"
        for name, word in words.items()
        if name in sizes and sizes[name] != ILSVRC[name]
    ]


def _less_net(geometry: Geometry) -> list[str]:
    crop, stride = geometry.crop, geometry.stride
    result = []
    if crop != paper.CROP:
        pixels = f"S and Q stay in the paper's pixels, real lengths are {crop}/{paper.CROP} of them"
        if stride != paper.STRIDE:
            pixels += f"; {sum(paper.poolings(stride))} max-poolings, stride {stride}"
        if crop % stride:
            pixels += f"; {crop} is no multiple of {stride}, so dense evaluation uses positions that no crop had"
        result += [f"crop {crop} (the paper: {paper.CROP}; {pixels})", _score_maps(geometry)]
    if geometry.width != 1:
        result.append(f"{geometry.widths} (the paper: 1)")
    return result


def _score_maps(geometry: Geometry) -> str:
    """How many positions dense evaluation averages over, beside the paper's."""
    ours, theirs = positions(geometry), positions(Geometry())
    if ours == theirs:
        return "score maps of dense evaluation have as many positions as the paper's at every Q"
    scales, here, there = (", ".join(map(str, numbers)) for numbers in (QS, ours, theirs))
    text = (
        f"score maps of dense evaluation have {here} positions at Q = {scales}, of a square image (the paper: {there})"
    )
    return text + ("; a map of one position sees the upper left of the image alone" if ours[1] == 1 else "")


def positions(geometry: Geometry) -> list[int]:
    """The positions of a square image's score map at each of `QS`."""
    side = geometry.crop // geometry.stride
    maps = [paper.real_pixels(q, geometry.crop) // geometry.stride for q in QS]
    return [(each - side + 1) ** 2 for each in maps]


def shared(scores: Scores) -> tuple[str, ...]:
    """How the training of all runs here differs from the paper's.

    A line has the values that the paper gives, another one those that it leaves open.
    Runs of the other seeds count too; imported weights and runs without config.json do not.
    """
    return tuple(_lines(_shared(scores)))


def _shared(scores: Scores) -> list[Departure]:
    runs = [
        (seed, run) for seed in (scores, *scores.seeds) for run in paper.all_runs() if (seed.runs / run.name).is_dir()
    ]
    everyone = [_departures(config) for seed, run in runs if (config := _own_training(seed, run))]
    common = set(everyone[0]).intersection(*everyone[1:]) if everyone else set()
    return [departure for departure in everyone[0] if departure in common] if everyone else []


def _own_training(scores: Scores, run: Run) -> RunConfig | None:
    """The config of a run that was trained here, on this data."""
    config = scores.facts(run).config
    mine = config and not config.origin and config.dataset.fingerprint in (None, scores.dataset.fingerprint)
    return config if mine else None


def _departures(config: RunConfig) -> list[Departure]:
    """Where the training of a run differs from the preset `paper`."""
    reference, silent = _paper()
    used = config.recipe.complete | {"precision": config.precision or "fp32"}
    if config.start.initialisation:
        used["initialisation"] = config.start.initialisation  # train --init
    without = _meaningless(config, used)
    return [
        Departure(
            name,
            f"{words} {_value(name, used[name])} ({_value(name, reference[name])})",
            name in silent,
        )
        for name, words in WORDS.items()
        if name not in without and used.get(name, reference[name]) != reference[name]
    ]


@cache
def _paper() -> tuple[dict[str, Any], frozenset[str]]:
    """The values of the preset `paper`, and the names of those that the paper itself does not give."""
    values = recipe.load("paper").as_dict() | {"precision": "fp32"}
    said = {name for name, reason in recipe.reasons("paper").items() if not reason.startswith(("open", "ours"))}
    return values, frozenset(values) - said


def _meaningless(config: RunConfig, used: dict[str, Any]) -> set[str]:
    """Values of a recipe that did nothing in this run."""
    result = set()
    if config.lrn is None:
        result.add("lrn")
    if used.get("initialisation") != "random":
        result.add("initial_std")
    if used.get("schedule") == "fixed":
        result |= {"patience", "min_improvement"}
    return result


def _value(name: str, value: Any) -> str:
    if name in NONE and not value:
        return "none"
    if isinstance(value, list):
        return " and ".join(f"{share:g}" for share in value)
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _lines(departures: Sequence[Departure]) -> Iterator[str]:
    said = [each.words for each in departures if not each.silent]
    silent = [each.words for each in departures if each.silent]
    if said:
        yield f"Training, the paper's value in brackets: {', '.join(said)}."
    if silent:
        yield f"Where the paper gives no value, that of the preset `paper` in brackets: {', '.join(silent)}."


# One row


def conditions(scores: Scores, having: Sequence[tuple[Scores, Sequence[File]]]) -> list[str]:
    """How the runs and files of a row differ from the paper's, a sentence each, beyond `reductions` and `shared`.

    Args:
        scores: all runs, with all seeds.
        having: the seeds that have the row, each with its files (`Scores.having`). What holds for some of them alone
            begins with the names of their folders.
    """
    common = _shared(scores)
    seeds: dict[str, list[str]] = {}
    for seed, files in having:
        for text in dict.fromkeys(_row_conditions(scores, seed, files, common)):
            seeds.setdefault(text, []).append(seed.name)
    return [text if len(names) == len(having) else f"{', '.join(names)}: {text}" for text, names in seeds.items()]


def _row_conditions(scores: Scores, seed: Scores, files: Sequence[File], common: Sequence[Departure]) -> Iterator[str]:
    """How a row of one seed differs, beyond what all runs have in `common`."""
    runs = list(dict.fromkeys(file.view.run for file in files))
    for run in runs:
        yield from _run_conditions(seed, run, scores.geometry)
    yield from _training(seed, runs, common)
    if any(file.origin is None for file in files):
        yield "Posteriors of another tool, without metadata: weights and data cannot be checked."
    if any(file.origin and not file.origin.flip and file.view.method != "center" for file in files):
        yield "Evaluated without horizontal flips (the paper: with)."
    for file in files:
        if file.origin and file.view.method == "multicrop" and file.origin.grid != paper.GRID:
            grid = file.origin.grid
            yield f"Multi-crop on a {grid} × {grid} grid (the paper: {paper.GRID} × {paper.GRID})."


def _training(scores: Scores, runs: Sequence[Run], common: Sequence[Departure]) -> list[str]:
    """The departures of some runs beyond `common`, with the runs' names where not all of the row have them."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if config := _own_training(scores, run):
            for line in _lines([departure for departure in _departures(config) if departure not in common]):
                found.setdefault(line, []).append(run.name)
    return [line if len(names) == len(runs) else f"{', '.join(names)}: {line}" for line, names in found.items()]


def _run_conditions(scores: Scores, run: Run, usual: Geometry) -> list[str]:
    """Sentences on a run's weights, data, start and length, from its folder; `usual` is the geometry of most runs."""
    facts = scores.facts(run)
    result = []
    if facts.weights is None:
        result.append(f"The weights of {run.name} are not here to check its posteriors against.")
    if facts.damaged:
        result.append(f"{facts.damaged}.")
    if facts.config is None:
        why = "its config.json is damaged" if facts.damaged else "it has no config.json"
        return [*result, f"How {run.name} was trained is not known: {why}."]
    config = facts.config
    if config.geometry != usual:
        own, most = (f"crop {each.crop}, {each.widths}, stride {each.stride}" for each in (config.geometry, usual))
        result.append(f"{own[0].upper()}{own[1:]} (most runs: {most}).")
    if config.origin:
        return [*result, f"{run.name}: {config.origin}."]  # what follows describes our own training
    if config.dataset.fingerprint not in (None, scores.dataset.fingerprint):
        result.append(f"Trained on another data set ({config.dataset.name or 'unnamed'}).")
    weights = config.start.weights
    parent = scores.facts(run.parent).weights if run.parent else None
    if weights and parent and weights != parent and run.parent:
        result.append(f"{run.name} started from an earlier {run.parent.name}, which was trained again since.")
    expected = run.parent.name if run.parent else "random weights"
    if (start := _start(config)) != expected:
        result.append(f"{run.name} started from {start} (the paper: {expected}).")
    return result + _epochs(scores, run)


def _start(config: RunConfig) -> str:
    return Path(config.start.run or "random weights").name


def _epochs(scores: Scores, run: Run) -> list[str]:
    """The length of the training, counted from random weights, where it may be shorter than the paper's.

    The paper trains A, and then each deeper net, for 74 epochs. It does not say how long it continues at another scale
    (Sect. 3.1).
    """
    steps, everyone = [run], [scores.facts(run)]
    while (config := everyone[0].config) and (parent := Run.parse(_start(config))) and parent not in steps:
        steps.insert(0, parent)
        everyone.insert(0, scores.facts(parent))
    limits = [facts.config.epochs if facts.config else 0 for facts in everyone]
    said = [not step.is_rescaling for step in steps]
    if all(
        facts.epochs == PAPER_EPOCHS if known else limit >= PAPER_EPOCHS
        for facts, limit, known in zip(everyone, limits, said, strict=True)
    ):
        return []
    counts = ["?" if facts.epochs is None or facts.config is None else str(facts.epochs) for facts in everyone]
    own = [f"{count}{_named(step, run)}" for count, step in zip(counts, steps, strict=True)]
    theirs = " + ".join([str(PAPER_EPOCHS)] * sum(said)) + (", then it does not say" if not all(said) else "")
    return [f"Trained for {' + '.join(own)} epoch{'s' * (own != ['1'])} (the paper: {theirs})."]


def _named(step: Run, run: Run) -> str:
    """The run that a number of epochs belongs to: empty for the row's own run, S for another run of its net."""
    if step == run:
        return ""
    return f" (S = {step.scale.label})" if step.net == run.net else f" ({step.name})"
