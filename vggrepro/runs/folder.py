"""Run folders: what they hold, which exist, how far they are.

runs/<name>/config.json           every resolved value of the run
            metrics.jsonl         one line an epoch, and some in between, which have a "step"
            tensorboard/          the same for TensorBoard, with --tensorboard
            progress.json         where a running or interrupted training stands
            checkpoint.safetensors  weights, momentum and history
            checkpoint.previous.safetensors  the one before; both are gone when finished
            weights.safetensors   the finished weights; its presence means finished
            posteriors/           what evaluate wrote
            former/               the finished run that is being trained again, until the new one is finished
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vggrepro import advice, paper, run_config
from vggrepro.errors import InputError
from vggrepro.files import locked_by, read_json, sha256
from vggrepro.paper import Run
from vggrepro.progress import duration
from vggrepro.run_config import RunConfig

if TYPE_CHECKING:
    import pandas as pd


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
    def previous_checkpoint_path(self) -> Path:
        return self.path / "checkpoint.previous.safetensors"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def progress_path(self) -> Path:
        return self.path / "progress.json"

    @property
    def tensorboard_path(self) -> Path:
        return self.path / "tensorboard"

    @property
    def finished(self) -> bool:
        return self.weights_path.is_file()

    @property
    def former_path(self) -> Path:
        return self.path / "former"

    def keep_former(self) -> None:
        """Copies config, metrics and weights to `former/`, in place of what was there."""
        partial = self.path / "former.tmp"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for path in (self.config_path, self.metrics_path, self.weights_path):
            if path.is_file():
                shutil.copy2(path, partial)
        shutil.rmtree(self.former_path, ignore_errors=True)
        partial.rename(self.former_path)

    def remove_progress(self) -> None:
        """Removes what only an unfinished run needs."""
        for path in (self.previous_checkpoint_path, self.checkpoint_path, self.progress_path):
            path.unlink(missing_ok=True)

    def require_finished(self) -> None:
        """InputError unless the run is finished."""
        if not self.finished:
            run = Run.parse(self.name)
            resume = f"resume it with '{advice.training(run)}'" if run else "resume it with the command that began it"
            raise InputError(f"{self.name} is not finished; {resume}, see '{advice.command('status')}'")

    def config(self) -> RunConfig:
        """config.json.

        Raises:
            InputError: there is none, it is damaged, or it lacks what describes the net.
        """
        if not self.config_path.is_file():
            raise InputError(
                f"{self.path} is no run: it has no config.json; '{advice.command('status')}' lists the runs"
            )
        return run_config.read(self.config_path)

    def weights_hash(self) -> str:
        return sha256(self.weights_path)

    def metrics(self) -> list[dict[str, Any]]:
        """One record an epoch, oldest first; empty if none was finished."""
        return [record for record in self.all_metrics() if "step" not in record]

    def all_metrics(self) -> list[dict[str, Any]]:
        """`metrics` and the records in between: those have a `step`, counted from the run's start."""
        if not self.metrics_path.is_file():
            return []
        lines = self.metrics_path.read_text(encoding="utf-8").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()  # it is being written, or an interruption cut it short: it will be written again
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise InputError(f"{self.metrics_path}: damaged ({error}); restore it, or remove its bad lines") from None


def folder(runs: Path, name: str) -> RunFolder:
    """A run by its name or path.

    Raises:
        InputError: no such run; the existing ones are listed.
    """
    for path in (runs / name, Path(name)):
        if (path / "config.json").is_file():
            return RunFolder(path)
    known = ", ".join(run.name for run in existing(runs)) or "none"
    run = Run.parse(name)
    command = advice.training(run) if run else "vggrepro train NET --scale S"
    raise InputError(f"no run '{name}' in {runs} (there: {known}); train it with '{command}'")


def existing(runs: Path) -> list[RunFolder]:
    """All run folders: the paper's first, in its order, then others by name."""
    order: dict[Run | None, int] = {run: place for place, run in enumerate(paper.all_runs())}
    found = [RunFolder(path.parent) for path in runs.glob("*/config.json")]
    return sorted(found, key=lambda folder: (order.get(Run.parse(folder.name), len(order)), folder.name))


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
    checkpoint_age: float | None  # seconds since the last checkpoint of an unfinished run
    note: str


def status(run: RunFolder) -> Status:
    """How far a run is, from its files alone."""
    if not run.config_path.is_file():
        return Status(run.name, "not started", "", None, None, None, None, None, None, "")
    try:
        config = run.config()
    except InputError as error:
        return Status(run.name, "damaged", "", None, None, None, None, None, None, str(error))
    progress = read_json(run.progress_path) if run.progress_path.is_file() else {}
    metrics = run.metrics()
    last = metrics[-1] if metrics else {}
    imported = run.finished and config.imported is not None
    if run.finished:
        state, note = "finished", "imported" if imported else ""
    elif holder := locked_by(run.path):
        state, note = "training", holder
    else:
        state, note = "interrupted", "run the same train command to resume"
    epoch = f"{progress.get('epoch', len(metrics)):g}/{progress.get('epochs', '?')}" if not run.finished else ""
    epoch = epoch or ("" if imported else str(len(metrics)))
    return Status(
        run.name,
        state,
        epoch,
        progress.get("learning_rate", last.get("learning_rate")),
        last.get("top1_error"),
        last.get("top5_error"),
        progress.get("images_per_second", last.get("images_per_second")),
        None if run.finished else progress.get("seconds_left"),
        None if run.finished else _age(run),
        note,
    )


def _age(run: RunFolder) -> float | None:
    """Seconds since the last checkpoint was written; None without one."""
    for path in (run.checkpoint_path, run.previous_checkpoint_path):
        with suppress(FileNotFoundError):
            return max(0.0, time.time() - path.stat().st_mtime)
    return None


def status_table(runs: Path) -> pd.DataFrame:
    """All runs of the paper's chain and any other run there, a row each (columns as `Status`)."""
    import pandas as pd  # here, as a second of every training's start

    names = dict.fromkeys([run.name for run in paper.all_runs()] + [run.name for run in existing(runs)])
    rows = [status(RunFolder(runs / name)) for name in names]
    frame = pd.DataFrame([dataclasses.asdict(row) for row in rows])
    frame["seconds_left"] = frame["seconds_left"].map(lambda s: "" if pd.isna(s) else duration(s))
    frame["checkpoint_age"] = frame["checkpoint_age"].map(lambda s: "" if pd.isna(s) else f"{duration(s)} ago")
    names = {"seconds_left": "time_left", "images_per_second": "images/s", "checkpoint_age": "last_checkpoint"}
    return frame.rename(columns=names)
