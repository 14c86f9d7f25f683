"""How far each run is, from its files alone: what `vggrepro status` shows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.paper import Run
from vggrepro.runs.folder import RunFolder, existing, seed_folders
from vggrepro.system.files import locked_by

FINISHED, NOT_STARTED = "finished", "not started"


@dataclass(frozen=True, slots=True)
class Status:
    """A line of `vggrepro status`."""

    run: str
    state: str  # finished, training, interrupted, not started or damaged
    epoch: str
    learning_rate: float | None
    top1_error: float | None  # per cent, centre crop, after the last epoch
    top5_error: float | None
    images_per_second: float | None
    seconds_left: float | None
    checkpoint_age: float | None  # seconds since the last checkpoint of an unfinished run
    note: str
    epochs_done: float | None = None
    epochs: int | None = None  # at most
    starts_from: str | None = None  # a run


def status(folder: RunFolder) -> Status:
    """How far a run is, from its files alone."""
    if not folder.config_path.is_file():
        parent = known.parent if (known := Run.parse(folder.name)) else None
        start = parent.name if parent else None
        return Status(folder.name, NOT_STARTED, "", None, None, None, None, None, None, "", starts_from=start)
    try:
        config, epochs, progress = folder.config(), folder.epochs(), folder.progress()
    except InputError as error:
        return Status(folder.name, "damaged", "", None, None, None, None, None, None, str(error))
    last = epochs[-1] if epochs else None
    now = progress or last
    imported = folder.trained and config.imported is not None
    if folder.trained:
        state, note = FINISHED, "imported" if imported else ""
        note += "" if folder.finished else ", without weights" if note else "without weights"
    elif holder := locked_by(folder.path):
        state, note = "training", holder
    else:
        state, note = "interrupted", "run the same train command to resume"
    if not folder.trained:
        epoch = f"{progress.epoch:g}/{progress.epochs}" if progress else f"{len(epochs)}/?"
    else:
        epoch = "" if imported else str(len(epochs))
    return Status(
        folder.name,
        state,
        epoch,
        now.learning_rate if now else None,
        last.top1_error if last else None,
        last.top5_error if last else None,
        now.images_per_second if now else None,
        progress.seconds_left if progress and not folder.trained else None,
        None if folder.trained else _age(folder),
        note,
        None if imported else float(progress.epoch if progress and not folder.trained else len(epochs)),
        (progress.epochs if progress else config.epochs) or None,
        config.start.run,
    )


def _age(folder: RunFolder) -> float | None:
    """Seconds since the last checkpoint was written; None without one."""
    for path in (folder.checkpoint_path, folder.previous_checkpoint_path):
        with suppress(FileNotFoundError):
            return max(0.0, time.time() - path.stat().st_mtime)
    return None


def statuses(runs: Path) -> list[Status]:
    """All runs of the paper's chain and any other run there."""
    names = dict.fromkeys([run.name for run in paper.all_runs()] + [folder.name for folder in existing(runs)])
    return [status(RunFolder(runs / name)) for name in names]


def statuses_of_seeds(runs: Path) -> list[Status]:
    """`statuses` of each seed's folder (`folder.seed_folders`)."""
    return [row for folder in seed_folders(runs) for row in statuses(folder)]


def counted(rows: Sequence[Status]) -> str:
    """How many of the runs are finished, and how many in each other state: `9 of 14 finished, 1 training`."""
    states = Counter(row.state for row in rows)
    others = [f"{states[state]} {state}" for state in states if state not in (FINISHED, NOT_STARTED)]
    return ", ".join([f"{states[FINISHED]} of {len(rows)} finished", *others])
