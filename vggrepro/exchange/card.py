"""A model card: what an exported net is, how it was trained and on what, its errors, its limits. Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vggrepro import __version__, paper
from vggrepro.errors import InputError
from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors import means
from vggrepro.posteriors.protocol import FileName
from vggrepro.runs.config import RunConfig
from vggrepro.runs.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vggrepro.nets.trained import Trained

RECIPE = {  # values of the recipe that a reader asks for first
    "preset": "preset",
    "batch": "batch",
    "momentum": "momentum",
    "weight_decay": "weight decay",
    "dropout": "dropout",
    "schedule": "schedule",
}


def card(folder: RunFolder, trained: Trained, to: str, path: Path, dense: bool = False) -> str:
    """The card of a run's net, exported as `to` (onnx: perhaps `dense`) to `path`."""
    config = trained.config
    command = f"vggrepro export {trained.run} --to {to}" + (" --dense" if dense else "")
    parts = [
        f"# {trained.run}: net {config.net} of *Very Deep Convolutional Networks for Large-Scale Image Recognition*",
        f"Written by `{command}` ({__version__}). Net {config.net} is one of Table 1 of Simonyan & Zisserman, "
        "arXiv 1409.1556; the weights are not the authors' unless it says so below.",
        "## Net and input",
        _lines(_net(trained, path) | _input(trained, to, dense)),
        "## Training",
        _lines(_training(folder, config)),
        "## Errors",
        _errors(folder, trained),
        "## Limits",
        _lines(_limits(trained, dense)),
    ]
    return "\n\n".join(parts) + "\n"


def _lines(values: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in values.items())


def _net(trained: Trained, path: Path) -> dict[str, str]:
    count = trained.config.architecture.parameters
    return {
        "file": f"`{path.name}`",
        "weights": f"SHA-256 of the run's weights.safetensors `{trained.weights_hash}`",
        "parameters": f"{count:,}; {trained.config.geometry.widths}",
        "classes": str(trained.config.classes),
    }


def _input(trained: Trained, to: str, dense: bool) -> dict[str, str]:
    """What this file takes and gives. If mean and scale are in its graph, the user must not apply them again."""
    config = trained.config
    crop, q = config.crop, config.scale.middle
    rgb, mean, std = map(_triple, (config.mean_rgb, trained.mean, trained.std))
    ours = f"(0–255 − ({rgb})) · {config.input_scale:g}"
    normalize = f"mean ({mean}), std ({std})"
    result: dict[str, str] = {}
    if to == "onnx":
        least = crop // config.stride * config.stride
        size = f"(N, H, W, 3), H and W at least {least}" if dense else f"(N, {crop}, {crop}, 3)"
        result["input"] = f"`images`, uint8 RGB, {size}: pixels as they are, neither centred nor scaled"
        result["in the graph"] = f"{ours}, the net, " + ("the mean over positions, " if dense else "") + "soft-max"
        result["output"] = f"`posterior` and, before the soft-max, `scores`: float32 (N, {config.classes})"
    elif to in ("torchvision", "timm"):
        result["input"] = f"float32 RGB from 0 to 1, (N, 3, {crop}, {crop}), then `Normalize`: {normalize}"
        result["the same of pixels from 0 to 255"] = ours
    elif to == "caffe":
        bgr = _triple(reversed(config.mean_rgb))
        result["input"] = f"float32 BGR, (N, 3, {crop}, {crop}), (0–255 − ({bgr})) · {config.input_scale:g}"
    else:
        result["input"] = f"float32 RGB, (N, 3, {crop}, {crop}), {ours}"
        result["the same as torchvision's `Normalize`"] = f"{normalize}, of pixels from 0 to 1"
    result["test image"] = f"shorter side {trained.test_side} for Q = {q}, the longer rounded down " + (
        f"({config.recipe.resample}, antialiased), "
        + ("whole" if dense else f"then the central crop of {crop} × {crop}")
    )
    return result


def _triple(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _training(folder: RunFolder, config: RunConfig) -> dict[str, str]:
    if config.origin:
        return {"origin": config.origin}
    data, recipe, rate = config.dataset, config.recipe.values, config.learning_rate
    images = "?" if data.train_images is None else data.train_images
    start, epochs = _history(folder, config)
    values = {
        "data": f"{data.name or 'not recorded'}, {images} training images"
        + (f", fingerprint `{data.fingerprint[:16]}`" if data.fingerprint else ""),
        "training scale S": config.scale.label + " (in the paper's pixels)",
        "start": start,
        "epochs": epochs,
        **({"trained layers": "the FC layers alone"} if config.fc_only else {}),
        "learning rate": f"{rate:g} at first" if rate else "not recorded",
    }
    return values | {label: f"{recipe[name]}" for name, label in RECIPE.items() if name in recipe}


def _history(folder: RunFolder, config: RunConfig) -> tuple[str, str]:
    """What the run started from, back to random weights, and the epochs of each, as far as those runs are there."""
    starts, epochs = list[str](), [str(len(folder.epochs()))]
    while name := config.start.run:
        before = _before(folder.path.absolute().parent / name, config.start.weights)
        if before is None:
            starts.append(f"{name}, which is not there or was trained again")
            epochs.insert(0, "unknown")
            break
        parent, count = before
        copied = "all layers"
        if parent.net != config.net:
            fresh = config.recipe.initialisation or "not recorded"
            copied = f"{', '.join(paper.COPIED_FROM_A)}; the others random, {fresh}"
        starts.append(f"{name} ({copied})")
        if parent.origin:
            starts.append(parent.origin)
            break
        epochs.insert(0, f"{count} ({name})")
        config = parent
    else:
        starts.append(f"random weights ({config.start.initialisation or 'not recorded'})")
    return " ← ".join(starts), " + ".join(epochs) + (" (this run)" if len(epochs) > 1 else "")


def _before(path: Path, weights: str | None) -> tuple[RunConfig, int] | None:
    """Config and epochs of the run that had these weights; None if it is gone, damaged or was trained again."""
    parent = RunFolder(path)
    try:
        config, count = parent.config(), len(parent.epochs())
    except InputError:
        return None
    return (config, count) if parent.finished and parent.weights_hash() == weights else None


def _errors(folder: RunFolder, trained: Trained) -> str:
    """A row for each posterior file of these weights; the paper's protocols are dense and multi-crop."""
    rows = []
    for path in sorted((folder.path / "posteriors").glob("val-*.parquet")):
        try:
            origin = posterior_files.read_origin(path)
            if origin.weights != trained.weights_hash:
                continue
            score = means.score([path])
        except InputError:  # another tool's, or damaged: no row, `report` says why
            continue
        top5 = "–" if score.top5 is None else f"{score.top5:.2f}"
        name = FileName.parse(path.name)
        method = name.method + name.variant if name else origin.method
        made = f"{origin.dataset} | {method} | {origin.q} | {'yes' if origin.flip else 'no'}"
        rows.append(f"| {made} | {score.images:,} | {score.top1:.2f} | {top5} |")
    if not rows:
        return "Not evaluated."
    head = "| data set | method | Q | flips | images | top-1 error (%) | top-5 error (%) |"
    return "\n".join([head, "| :-- | :-- | --: | :-- | --: | --: | --: |", *rows])


def _limits(trained: Trained, dense: bool) -> dict[str, str]:
    config = trained.config
    result = {
        "classes": "it knows those it was trained on and gives one of them to any image",
        "crop": f"the FC layers see {config.crop} × {config.crop} pixels; larger images "
        + (f"are seen at positions {config.stride} pixels apart" if dense else "by dense evaluation or crops"),
    }
    if (config.crop, config.width) != (paper.CROP, 1):
        result["size"] = (
            f"crop {config.crop}, {config.geometry.widths}: a reduced net, not to be compared with the paper's"
        )
    if not config.origin:
        result["reproduction"] = "trained with vggrepro; errors differ from the paper's by data, length and chance"
    return result
