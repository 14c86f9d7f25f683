"""Runs and posterior files written as if a net had been trained and evaluated: for tests of what is made of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vggrepro import paper
from vggrepro.data.dataset import Dataset
from vggrepro.paper import JITTER, S256, S384, Run
from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors import protocol
from vggrepro.posteriors.files import Origin, Rows
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import sha256

CLASSES = 6
LABELS = [0, 1, 2, 5]  # four images
RIGHT: list[list[float]] = [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
WRONG = [[0.1, 0.3, 0.2, 0.2, 0.1, 0.1]] * 4  # right for image 1 only; image 3's class comes last: 75 %, 25 %

ORIGIN = Origin(
    run="A-256",
    weights="w",
    dataset="tiny",
    fingerprint="print",
    preset="demo",
    split="val",
    method="dense",
    q=256,
    q_pixels=256,
    flip=True,
    grid=0,
    pooling="floor",
    resample="bilinear",
    precision="fp32",
    version="0",
    commit="abc",
)


def dataset_of(classes: int = CLASSES, images: int = len(LABELS), train: int = 24, **changes: Any) -> Dataset:
    """A description of a data set without images: what the tables need of one."""
    names = tuple(f"class {i}" for i in range(classes))
    counts = {"train": train, "val": images}
    made = Dataset(Path("data"), "tiny", names, counts, (0, 0, 0), ((1, 0, 0),), (1, 1, 1), "demo", "print")
    return dataclasses.replace(made, **changes)


def make_run(runs: Path, run: Run, done: int = 74, name: str = "", **config: Any) -> RunFolder:
    """A finished run's folder `name` (else the run's own) at the demo preset's geometry; its weights are no weights."""
    folder = RunFolder(runs / (name or run.name))
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.weights_path.write_text(str(folder.path))
    values: dict[str, Any] = {"net": run.net, "scale": str(run.scale), "fc_only": run.fc_only, "seed": 0, "epochs": 74}
    values |= {"crop": 64, "width": 0.125, "classes": CLASSES, "mean_rgb": [0, 0, 0], "input_scale": 1.0}
    values |= {"recipe": {"preset": "demo"}, "dataset": {"fingerprint": "print", "train_images": 24}}
    values["start"] = {"run": run.parent.name} if run.parent else {"initialisation": "random"}
    folder.config_path.write_text(json.dumps(values | config))
    folder.metrics_path.write_text("{}\n" * done)
    return folder


def started(folder: Path, done: int = 2, **progress: Any) -> RunFolder:
    """A run A-256 in training, of which so many epochs are done."""
    run = make_run(folder, Run("A", S256))
    run.weights_path.unlink()
    lines: list[dict[str, Any]] = []
    for epoch in range(1, done + 1):
        lines.append({"epoch": epoch, "step": 10 * epoch - 5, "loss": 9.0})
        line = {"epoch": epoch, "learning_rate": 0.01, "top1_error": 80.0 - epoch, "top5_error": 50.0 - epoch}
        lines.append(line | {"images_per_second": 100.0 + epoch})
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if progress:
        run.progress_path.write_text(json.dumps(progress))
    return run


def write_posteriors(
    path: Path, rows: Any, labels: Sequence[int], keys: Sequence[str] = "abcdefgh", origin: Origin = ORIGIN
) -> Path:
    """A posterior file of the given rows, (images, classes); image i has key keys[i]."""
    values = np.array(rows, dtype=np.float32)
    batch = Rows(list(keys[: len(values)]), np.array(labels, dtype=np.int32), values)
    posterior_files.write(path, [batch], values.shape[1], origin)
    return path


def plant(
    runs: Path,
    run: Run,
    q: int,
    rows: Any,
    method: str = "dense",
    *,
    labels: Sequence[int] = LABELS,
    keys: Sequence[str] = (),
    **origin: Any,
) -> Path:
    """A posterior file of a run, made by its present weights unless `origin` says otherwise."""
    folder = RunFolder(runs / run.name)
    made: dict[str, Any] = {"run": run.name, "weights": sha256(folder.weights_path), "method": method, "q": q}
    made |= {"q_pixels": paper.real_pixels(q, 64), "flip": method != "center"}
    made |= {"grid": {"multicrop": 5, "center": 1}.get(method, 0)}
    return write_posteriors(
        protocol.file_path(folder.path, "val", method, q),
        rows,
        labels[: len(rows)],
        keys or [f"image {i}" for i in range(len(rows))],
        dataclasses.replace(ORIGIN, **made | origin),
    )


def multi_scale(runs: Path) -> None:
    """D and E at [256;512] by both methods. Dense D errs on three images, all else is right."""
    make_run(runs, Run("A", S256))
    for net in ("D", "E"):
        run = Run(net, JITTER)
        for scale in (S256, S384, JITTER):
            make_run(runs, Run(net, scale))
        for q in JITTER.test_scales:
            plant(runs, run, q, WRONG if net == "D" else RIGHT)
            plant(runs, run, q, RIGHT, "multicrop")
