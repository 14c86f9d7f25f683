"""Runs for the HTML report: with curves, posteriors of real images, and names that must be escaped."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import planted
from safetensors.numpy import save_file

from vggrepro.data.dataset import Dataset, Split
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import FolderSource
from vggrepro.paper import JITTER, S256, S384, Run
from vggrepro.runs.folder import RunFolder

EVIL = "<script>alert(1)</script>"
RUNS = {Run("A", S256): 0.5, Run("D", S256): 0.4, Run("D", S384): 0.45, Run("D", JITTER): 0.2}  # share of mistakes


def make_run(runs: Path, name: str, run: Run, epochs: int = 3, finished: bool = True, **config: Any) -> RunFolder:
    """A run's folder with curves, and a drop of the learning rate before the last epoch."""
    values: dict[str, Any] = {"recipe": {"preset": "demo", "batch": 10, "drop_by": [0.7]}, "epochs": epochs}
    values |= {"device": "x86_64, 2 threads", "dataset": {"train_images": 30}}
    values |= {"versions": {"vggrepro": "0.1", "torch": "2.9"}}
    folder = planted.make_run(runs, run, name=name, seed=3, **values | config)
    if finished:
        weights = np.random.default_rng(len(name)).normal(size=(8, 3, 3, 3)).astype(np.float32)
        save_file({"conv1_1.weight": weights}, folder.weights_path)
    else:
        folder.weights_path.unlink()
    lines: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        rate = 0.01 if epoch < epochs else 0.001
        lines.append({"epoch": epoch, "step": 3 * epoch - 2, "learning_rate": rate, "loss": 2.5 / epoch})
        record = {"epoch": epoch, "learning_rate": rate, "loss": 2 / epoch, "top1_error": 60 / epoch}
        lines.append(record | {"top5_error": 20 / epoch, "images_per_second": 1000.0, "seconds": 30.0})
    folder.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def plant(runs: Path, run: Run, dataset: Dataset, q: int, method: str, wrong: float) -> None:
    """Posteriors of the validation images that are wrong in about this share of them."""
    split = Split(dataset, "val")
    rng = np.random.default_rng(q + len(run.name))
    values = rng.uniform(0.01, 0.1, (len(split), 6))
    first = np.where(rng.uniform(size=len(split)) < wrong, (split.labels + 1) % 6, split.labels)
    values[np.arange(len(split)), first] += rng.uniform(0.3, 0.9, len(split))
    values /= values.sum(axis=1, keepdims=True)
    values[:, 0] += 1 - values.astype(np.float32).sum(axis=1)
    data = {"dataset": dataset.name, "fingerprint": dataset.fingerprint, "commit": "abc123"}
    keys = split.keys(0, len(split))
    planted.plant(runs, run, q, values, method, labels=split.labels, keys=keys, **data)


class Reader(HTMLParser):
    """Collects tags with their attributes, and the words of each element with an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def evil_data(photos: Path, folder: Path) -> Dataset:
    """`photos` prepared, its classes of evil words."""
    made = prepare(FolderSource(photos), folder / "data", "demo", workers=0)
    words = tuple(f"{EVIL} {name}, the animal" for name in made.classes)
    return dataclasses.replace(made, words=words)


def several_runs(data: Dataset, folder: Path) -> Path:
    """Four finished runs with posteriors, and an unfinished one of an evil name."""
    for run, wrong in RUNS.items():
        make_run(folder, run.name, run)
        for q in run.scale.test_scales:
            plant(folder, run, data, q, "dense", wrong)
            if run.scale == JITTER:
                plant(folder, run, data, q, "multicrop", wrong)
    make_run(folder, '"><img src=x onerror=alert(1)>$1$', Run("E", S256), epochs=2, finished=False)
    return folder


def one_run(data: Dataset, folder: Path) -> Path:
    """One finished run with one posterior file, wrong everywhere."""
    make_run(folder, "D-256", Run("D", S256))
    plant(folder, Run("D", S256), data, 256, "dense", 1.0)
    return folder
