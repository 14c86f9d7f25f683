"""Mistakes in imported weights, found on a few images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from nets import random_run
from PIL import Image

from vggrepro.data.dataset import Dataset
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import FolderSource
from vggrepro.doctor import diagnose, sanity
from vggrepro.doctor.diagnosis import OK, WARNING, Diagnosis
from vggrepro.nets import weights
from vggrepro.nets.trained import Trained
from vggrepro.paper import Architecture
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import read_json, write_json


def coloured(folder: Path) -> Dataset:
    """Two classes, red and blue images, 16 of each to validate."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 16)):
        for name, colour in (("blue", (30, 60, 200)), ("red", (200, 60, 30))):
            (folder / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(rng.normal(colour, 10, (64, 64, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "photos" / split / name / f"{number}.png")
    return prepare(FolderSource(folder / "photos"), folder / "data", "demo", workers=0, allow_few_classes=True)


def colour_net(folder: Path, *, bgr: bool = False, mean: float = 115.0) -> RunFolder:
    """Net A that hands blue minus red, and red minus blue, through all its layers to the two classes."""
    run = random_run(folder / "runs" / "A-256", classes=2, imported={"format": "by hand"})
    write_json(run.config_path, read_json(run.config_path) | {"mean_rgb": [mean] * 3, "input_scale": 0.01})
    tensors = {n: torch.zeros(s) for n, s in Architecture("A", 2, 64, 1 / 32).shapes().items()}
    for name, tensor in tensors.items():
        if name.endswith(".weight") and tensor.ndim == 4:
            for channel in range(2):
                tensor[channel, channel if name != "conv1_1.weight" else 0, 1, 1] = 1
    first = tensors["conv1_1.weight"][:2, :, 1, 1]
    first[:] = torch.tensor([[-1.0, 0, 1], [1, 0, -1]])
    if bgr:
        first[:] = first.flip(1)
    for name in ("fc6", "fc7", "fc8"):
        weight = tensors[f"{name}.weight"]
        positions = 4 if name == "fc6" else 1
        for channel in range(2):
            weight[channel, channel * positions : (channel + 1) * positions] = 1 / positions
    weights.save(run.weights_path, tensors, {})
    return run


def test_an_imported_net_on_a_handful_of_images(tmp_path: Path) -> None:
    dataset = coloured(tmp_path)
    run = colour_net(tmp_path)
    found = sanity.check(run, Trained.load(run), dataset)
    assert found == Diagnosis(OK, "A-256", "32 of 32 images right (chance: 16)")
    run = colour_net(tmp_path, bgr=True)
    diagnoses = diagnose.all_runs(dataset.folder, tmp_path / "runs", (), 60)
    assert [(f.state, f.result) for f in diagnoses][1] == (
        WARNING,
        "0 of 32 images right (chance: 16), but 32 with red and blue swapped",
    )
    write_json(run.config_path, read_json(run.config_path) | {"class_names": ["red", "blue"]})
    found = sanity.check(run, Trained.load(run), dataset)
    assert (found.state, found.result) == (
        OK,
        f"not tried on images: its classes are not those of {dataset.folder}",
    )


def sharp(best: np.ndarray, classes: int, top: float = 0.9) -> np.ndarray:
    """Posteriors of which `best` have `top`, the rest evenly."""
    result = np.full((len(best), classes), (1 - top) / (classes - 1))
    result[np.arange(len(best)), best] = top
    return result


def test_what_is_concluded_from_posteriors() -> None:
    rng = np.random.default_rng(0)
    labels, classes = rng.integers(0, 1000, 16), 1000
    guesses = (labels + 1 + rng.integers(0, 900, 16)) % 1000
    right, wrong, even = sharp(labels, classes), sharp(guesses, classes), np.full((16, classes), 1 / classes)
    half = np.where(np.arange(16)[:, None] < 8, right, wrong)
    judged = lambda *four, ids=(): sanity.diagnosis_of("D", np.stack(four), labels, ids)  # noqa: E731
    assert judged(right, half, half, half) == Diagnosis(OK, "D", "16 of 16 images right (chance: 0.016)")
    assert judged(half, wrong, right, wrong).result == "8 of 16 images right (chance: 0.016), but 16 without the mean"
    assert judged(half, wrong, half, right).result.endswith(", but 16 with the data set's mean")
    assert judged(wrong, wrong, wrong, wrong).result == "0 of 16 images right (chance: 0.016): no better than guessing"
    assert judged(even, even, even, even).result.endswith("nearly the same posterior for all classes")
    order = rng.permutation(1000)
    moved = sharp(order[labels], classes)
    found = judged(moved, moved, moved, moved, ids=tuple((order + 1).tolist()))
    assert found.result.endswith(", but 16 if its classes are in the devkit's order")
    assert found.state == WARNING


def test_chance() -> None:
    assert sanity.at_least(0, 16, 0.001) == pytest.approx(1)
    assert sanity.at_least(1, 16, 0.001) == pytest.approx(1 - 0.999**16)
    assert sanity.at_least(2, 2, 0.5) == pytest.approx(0.25)
