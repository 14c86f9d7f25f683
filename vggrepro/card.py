"""A model card: what an exported net is, how it was trained and on what, its errors, its limits. Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggrepro import __version__, fusion, paper, posteriors
from vggrepro.errors import InputError

if TYPE_CHECKING:
    from vggrepro.exporting import Trained
    from vggrepro.runs import RunFolder

RECIPE = {  # values of the recipe that a reader asks for first
    "preset": "preset",
    "batch": "batch",
    "learning_rate": "learning rate",
    "momentum": "momentum",
    "weight_decay": "weight decay",
    "dropout": "dropout",
    "initialisation": "initialisation",
    "schedule": "schedule",
}


def card(run: RunFolder, trained: Trained, to: str, path: Path) -> str:
    """The card of a run's net, exported as `to` to `path`."""
    config = trained.config
    parts = [
        f"# {trained.run}: net {trained.net} of *Very Deep Convolutional Networks for Large-Scale Image Recognition*",
        f"Written by `vggrepro export {trained.run} --to {to}` ({__version__}). It is one of Table 1 of Simonyan & "
        "Zisserman, arXiv 1409.1556; the weights are not the authors' unless it says so below.",
        "## Net and input",
        _lines(_net(trained, path)),
        "## Training",
        _lines(_training(run, config)),
        "## Errors",
        _errors(run, trained),
        "## Limits",
        _lines(_limits(trained)),
    ]
    return "\n\n".join(parts) + "\n"


def _lines(values: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in values.items())


def _net(trained: Trained, path: Path) -> dict[str, str]:
    count = paper.parameter_count(trained.net, trained.classes, trained.crop, trained.width)
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (trained.mean, trained.std))
    rgb = ", ".join(f"{value:.6g}" for value in trained.mean_rgb)
    return {
        "file": f"`{path.name}`",
        "parameters": f"{count:,}; width {trained.width:g}",
        "classes": str(trained.classes),
        "input": f"RGB, {trained.crop} × {trained.crop}, (0–255 − ({rgb})) · {trained.input_scale:g}",
        "the same as torchvision's `Normalize`": f"mean ({mean}), std ({std}), of pixels from 0 to 1",
        "test image": f"shorter side {trained.test_side} ({trained.resample}, antialiased), then the central crop",
        "weights": f"SHA-256 of the run's weights.safetensors `{trained.weights_hash}`",
    }


def _training(run: RunFolder, config: dict[str, Any]) -> dict[str, str]:
    if origin := config.get("origin"):
        return {"origin": str(origin)}
    data, recipe = config.get("dataset") or {}, config.get("recipe") or {}
    start = config.get("start") or {}
    values = {
        "data": f"{data.get('name', 'not recorded')}, {data.get('train_images', '?')} training images"
        + (f", fingerprint `{data['fingerprint'][:16]}`" if data.get("fingerprint") else ""),
        "training scale S": paper.Scale.parse(str(config["scale"])).label + " (in the paper's pixels)",
        "start": str(start.get("run") or f"random weights ({start.get('initialisation', 'not recorded')})"),
        "epochs": str(len(run.metrics())),
    }
    return values | {label: f"{recipe[name]}" for name, label in RECIPE.items() if name in recipe}


def _errors(run: RunFolder, trained: Trained) -> str:
    """A row a posterior file that these weights made; the paper's protocols are dense and multi-crop."""
    rows = []
    for path in sorted((run.path / "posteriors").glob("val-*.parquet")):
        try:
            origin = posteriors.read_origin(path)
            if origin.weights != trained.weights_hash:
                continue
            score = fusion.score([path])
        except InputError:  # another tool's, or damaged: no row, `report` says why
            continue
        top5 = "–" if score.top5 is None else f"{score.top5:.2f}"
        method = path.stem.removeprefix("val-").rpartition("-q")[0]  # with its variant: a grid, ceil, noflip
        made = f"{origin.dataset} | {method} | {origin.q} | {'yes' if origin.flip else 'no'}"
        rows.append(f"| {made} | {score.images:,} | {score.top1:.2f} | {top5} |")
    if not rows:
        return "Not evaluated."
    head = "| data set | method | Q | flips | images | top-1 error (%) | top-5 error (%) |"
    return "\n".join([head, "| :-- | :-- | --: | :-- | --: | --: | --: |", *rows])


def _limits(trained: Trained) -> dict[str, str]:
    result = {
        "classes": "it knows those it was trained on and gives one of them to any image",
        "crop": f"the FC layers see {trained.crop} × {trained.crop} pixels; larger images by dense evaluation or crops",
    }
    if (trained.crop, trained.width) != (paper.CROP, 1):
        result["size"] = (
            f"crop {trained.crop}, width {trained.width:g}: a reduced net, not to be compared with the paper's"
        )
    if "origin" not in trained.config:
        result["reproduction"] = "trained with vggrepro; errors differ from the paper's by data, length and chance"
    return result
