"""Run folders: what they hold, which exist, how far they are.

runs/<name>/config.json           every resolved value of the run
            metrics.jsonl         one line an epoch
            progress.json         where a running or interrupted training stands
            checkpoint.safetensors  weights, momentum and history (gone when finished)
            weights.safetensors   the finished weights; its presence means finished
            posteriors/           what evaluate wrote
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.files import locked_by, read_json, sha256
from vggrepro.progress import duration


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A folder `runs/<name>`, existing or not."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config_path(self) -> Path:
        return self.path / "config.json"

    @property
    def weights_path(self) -> Path:
        return self.path / "weights.safetensors"

    @property
    def checkpoint_path(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def progress_path(self) -> Path:
        return self.path / "progress.json"

    @property
    def finished(self) -> bool:
        return self.weights_path.is_file()

    def require_finished(self) -> None:
        """InputError unless the run is finished."""
        if not self.finished:
            raise InputError(f"{self.name} is not finished; resume it with 'vggrepro train', see 'vggrepro status'")

    def config(self) -> dict[str, Any]:
        """config.json.

        Raises:
            InputError: there is none, it is damaged, or it lacks what describes the net.
        """
        if not self.config_path.is_file():
            raise InputError(f"{self.path} is no run: it has no config.json; 'vggrepro status' lists the runs")
        config = read_json(self.config_path)
        needed = ("net", "scale", "crop", "width", "classes", "mean_rgb", "input_scale")
        missing = [name for name in needed if name not in config]
        if missing:
            raise InputError(f"{self.config_path}: lacks {', '.join(missing)}; restore the file or remove its folder")
        try:
            for name in ("crop", "width", "classes", "input_scale"):
                config[name] + 0.0
            _ = [value + 0.0 for value in config["mean_rgb"]]
        except TypeError:
            raise InputError(
                f"{self.config_path}: {name} is no number; restore the file or remove its folder"
            ) from None
        return config

    def weights_hash(self) -> str:
        return sha256(self.weights_path)

    def metrics(self) -> list[dict[str, Any]]:
        """One record an epoch, oldest first; empty if none was finished."""
        if not self.metrics_path.is_file():
            return []
        try:
            return [json.loads(line) for line in self.metrics_path.read_text(encoding="utf-8").splitlines()]
        except ValueError as error:
            raise InputError(f"{self.metrics_path}: damaged ({error}); train the run again with --retrain") from None


def folder(runs: Path, name: str) -> RunFolder:
    """A run by its name or path.

    Raises:
        InputError: no such run; the existing ones are listed.
    """
    for path in (runs / name, Path(name)):
        if (path / "config.json").is_file():
            return RunFolder(path)
    known = ", ".join(run.name for run in existing(runs)) or "none"
    commands = {run.name: run.command for run in paper.all_runs()}
    command = commands.get(name, "vggrepro train NET --scale S")
    raise InputError(f"no run '{name}' in {runs} (there: {known}); train it with '{command}'")


def existing(runs: Path) -> list[RunFolder]:
    """All run folders: the paper's first, in its order, then others by name."""
    order = {run.name: place for place, run in enumerate(paper.all_runs())}
    found = [RunFolder(path.parent) for path in runs.glob("*/config.json")]
    return sorted(found, key=lambda run: (order.get(run.name, len(order)), run.name))


def finished(runs: Path) -> list[RunFolder]:
    """The runs that have their weights, in `existing`'s order."""
    return [run for run in existing(runs) if run.finished]


@dataclass(frozen=True, slots=True)
class Status:
    """A line of `vggrepro status`."""

    run: str
    state: str  # finished, training, interrupted or not started
    epoch: str
    learning_rate: float | None
    top1_error: float | None  # per cent, centre crop, after the last epoch
    top5_error: float | None
    images_per_second: float | None
    seconds_left: float | None
    note: str


def status(run: RunFolder) -> Status:
    """How far a run is, from its files alone."""
    if not run.config_path.is_file():
        return Status(run.name, "not started", "", None, None, None, None, None, "")
    try:
        run.config()
    except InputError as error:
        return Status(run.name, "damaged", "", None, None, None, None, None, str(error))
    progress = read_json(run.progress_path) if run.progress_path.is_file() else {}
    metrics = run.metrics()
    last = metrics[-1] if metrics else {}
    if run.finished:
        state, note = "finished", ""
    elif holder := locked_by(run.path):
        state, note = "training", holder
    else:
        state, note = "interrupted", "run the same train command to resume"
    epoch = f"{progress.get('epoch', len(metrics)):g}/{progress.get('epochs', '?')}" if not run.finished else ""
    epoch = epoch or str(len(metrics))
    return Status(
        run.name,
        state,
        epoch,
        progress.get("learning_rate", last.get("learning_rate")),
        last.get("top1_error"),
        last.get("top5_error"),
        progress.get("images_per_second", last.get("images_per_second")),
        None if run.finished else progress.get("seconds_left"),
        note,
    )


def status_table(runs: Path) -> pd.DataFrame:
    """All runs of the paper's chain and any other run there, a row each (columns as `Status`)."""
    names = dict.fromkeys([run.name for run in paper.all_runs()] + [run.name for run in existing(runs)])
    rows = [status(RunFolder(runs / name)) for name in names]
    frame = pd.DataFrame([dataclasses.asdict(row) for row in rows])
    frame["seconds_left"] = frame["seconds_left"].map(lambda s: "" if pd.isna(s) else duration(s))
    return frame.rename(columns={"seconds_left": "time_left", "images_per_second": "images/s"})
