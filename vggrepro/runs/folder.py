"""Run folders: what they hold, which exist, how far they are.

runs/<name>/config.json           every resolved value of the run
            metrics.jsonl         one line per epoch; lines in between have a "step"
            tensorboard/          the same for TensorBoard, with --tensorboard
            progress.json         how far a running or interrupted training is
            checkpoint.safetensors  weights, momentum and history
            checkpoint.previous.safetensors  the one before; both are gone when finished
            weights.safetensors   the finished weights; its presence means finished
            weights.sha256        in a run from an archive: the hash of the weights, which stayed behind
            posteriors/           what evaluate wrote
            former/               the finished run that is being trained again, until the new one is finished
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.paper import Run
from vggrepro.runs import config, metrics
from vggrepro.runs.config import RunConfig
from vggrepro.runs.metrics import Epoch, Progress, Steps
from vggrepro.system import advice
from vggrepro.system.files import read_json, sha256


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
    def weights_hash_path(self) -> Path:
        return self.path / "weights.sha256"

    @property
    def posteriors_path(self) -> Path:
        return self.path / "posteriors"

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
    def trained(self) -> bool:
        """Whether its training is finished: its weights are here, or, from an archive, their hash."""
        return self.finished or self.weights_hash_path.is_file()

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

    def remove_former(self) -> None:
        """Removes the former run, once the new one is finished."""
        shutil.rmtree(self.former_path, ignore_errors=True)

    def remove_progress(self) -> None:
        """Removes what only an unfinished run needs."""
        for path in (self.previous_checkpoint_path, self.checkpoint_path, self.progress_path):
            path.unlink(missing_ok=True)

    def require_trained(self) -> None:
        """InputError unless the training is finished."""
        if not self.trained:
            self.require_finished()

    def require_finished(self) -> None:
        """InputError unless the training is finished and the weights are here."""
        if self.trained and not self.finished:
            raise InputError(
                f"{self.name} is from an archive and has no weights: tables and claims can be made of its posteriors; "
                "for other posteriors copy its weights.safetensors here"
            )
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
        return config.read(self.config_path)

    def weights_hash(self) -> str:
        """SHA-256 of the weights; of a run from an archive, as it was when they were at hand.

        Raises:
            InputError: the archive's file does not hold a hash.
        """
        if self.finished or not self.trained:
            return sha256(self.weights_path)
        text = self.weights_hash_path.read_text(encoding="utf-8", errors="replace")
        if not (match := re.match(r"[0-9a-f]{64}\b", text)):
            raise InputError(f"{self.weights_hash_path}: holds no SHA-256; unpack the archive again")
        return match[0]

    def epochs(self) -> list[Epoch]:
        """The finished epochs, oldest first; empty if there is none."""
        return [line for line in self.metrics() if isinstance(line, Epoch)]

    def metrics(self) -> list[Epoch | Steps]:
        """All lines of metrics.jsonl, oldest first.

        Raises:
            InputError: a line is damaged.
        """
        if not self.metrics_path.is_file():
            return []
        lines = self.metrics_path.read_text(encoding="utf-8").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()  # it is being written, or an interruption cut it short: it will be written again
        try:
            return [metrics.parsed(line) for line in lines]
        except ValueError as error:
            raise InputError(f"{self.metrics_path}: damaged ({error}); restore it, or remove its bad lines") from None

    def progress(self) -> Progress | None:
        """progress.json, of an unfinished run; None if there is none.

        Raises:
            InputError: it is damaged.
        """
        if not self.progress_path.is_file():
            return None
        try:
            return metrics.record(Progress, read_json(self.progress_path))
        except ValueError as error:
            raise InputError(f"{self.progress_path}: damaged ({error}); remove it") from None


def find_run(runs: Path, name: str) -> RunFolder:
    """A run by its name or path.

    Raises:
        InputError: no such run; the existing ones are listed.
    """
    for path in (runs / name, Path(name)):
        if (path / "config.json").is_file():
            return RunFolder(path)
    known = ", ".join(there.name for there in existing(runs)) or "none"
    run = Run.parse(name)
    command = advice.training(run) if run else "vggrepro train NET --scale S"
    raise InputError(f"no run '{name}' in {runs} (there: {known}); train it with '{command}'")


def existing(runs: Path) -> list[RunFolder]:
    """All run folders: the paper's first, in its order, then others by name."""
    order: dict[Run | None, int] = {run: place for place, run in enumerate(paper.all_runs())}
    found = [RunFolder(path.parent) for path in runs.glob("*/config.json")]
    return sorted(found, key=lambda folder: (order.get(Run.parse(folder.name), len(order)), folder.name))


def seed_folders(runs: Path) -> list[Path]:
    """The folders of runs, one per seed, that `--runs` names: commas between folders, each with its `seed1`, `seed2` …

    Raises:
        InputError: no folder is named, or one of several has no run.
    """
    named = [runs] if runs.is_dir() else [Path(part) for part in str(runs).split(",") if part]
    if not named:
        raise InputError(f"--runs {runs} names no folder; give the folder of your runs")
    found = list(dict.fromkeys(each for path in named for each in (path, *other_seeds(path))))
    if empty := [str(path) for path in found if found[1:] and not existing(path)]:
        raise InputError(f"no run in {', '.join(empty)}; name folders of runs that are there, or train them")
    return found


def other_seeds(runs: Path) -> list[Path]:
    """`seed1`, `seed2`, …, `seed10` in a folder of runs, in the order of their numbers."""
    numbers = {path: int(match[1]) for path in runs.glob("seed*") if (match := re.fullmatch(r"seed(\d+)", path.name))}
    return sorted(numbers, key=lambda path: (numbers[path], path.name))


def finished(runs: Path) -> list[RunFolder]:
    """The runs that have their weights, in `existing`'s order."""
    return [folder for folder in existing(runs) if folder.finished]
