"""What the tests of export share: a small run, its posteriors, the lines of docs/exchange.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import ROOT
from nets import random_run

from vggrepro.nets import weights
from vggrepro.nets.vgg import VGG, to_input
from vggrepro.paper import Architecture
from vggrepro.runs.config import RunConfig
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import read_json, write_json

NAMES = ["ant", "bee", "cat", "dog", "eel", "fox"]
WORDS = ["an ant", "a bee", "a cat", "a dog", "an eel", "a fox"]


def small(folder: Path, net: str = "A", crop: int = 64, stride: int = 32, **more: Any) -> RunFolder:
    """A finished run of width 1/32, or, at another crop than `random_run`'s, with weights drawn for it."""
    known = {"class_names": NAMES, "class_words": WORDS} | more
    run = random_run(folder / "runs" / f"{net}-256", net=net, **known)
    if crop != 64:
        write_json(run.config_path, read_json(run.config_path) | {"crop": crop, "stride": stride})
        generator = torch.Generator().manual_seed(0)
        shapes = Architecture(net, 6, crop, 1 / 32, stride, known.get("min_channels", 1)).shapes()
        drawn = {n: torch.randn(s, generator=generator) * (2 / np.prod(s[1:])) ** 0.5 for n, s in shapes.items()}
        weights.save(run.weights_path, drawn, {})
    return run


def pixels(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), np.uint8)


def our_model(run: RunFolder) -> tuple[VGG, RunConfig]:
    config = run.config()
    net = config.architecture
    model = VGG.of(net, config.recipe.lrn)
    weights.into(model, weights.load(run.weights_path)[0], run.name)
    return model.eval(), config


def ours(run: RunFolder, images: np.ndarray, dense: bool = False) -> np.ndarray:
    """Our posteriors of uint8 crops, or densely of one flip."""
    model, config = our_model(run)
    x = to_input(torch.from_numpy(images), torch.tensor(config.mean_rgb), config.input_scale)
    with torch.inference_mode():
        return (model.dense_scores(x) if dense else model(x)).softmax(1).numpy()


def snippet(title: str, run: RunFolder) -> str:
    """A code block of docs/exchange.md, for net A in the run's export folder."""
    text = (ROOT / "docs" / "exchange.md").read_text(encoding="utf-8")
    found = re.search(rf"## {title}\n.*?```python\n(.*?)```", text, re.DOTALL)
    assert found
    return found[1].replace("D-256-512", run.name).replace("vgg16", "vgg11")
