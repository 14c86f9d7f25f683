"""What training steps measured: fetched without waiting for the device, watched for leaps, written down as curves."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vggrepro.errors import InputError
from vggrepro.files import write_text
from vggrepro.runs import RunFolder

LAG = 2  # steps that a GPU may be ahead of what the host knows


class Readings:
    """Small tensors on their way from the device to the host, each read `lag` steps after it was put.

    Neither side waits for the other: the host never runs more than `lag` steps ahead, which is enough to keep a GPU
    busy. What is read depends on the steps alone, so that torchrun's processes learn the same at the same step.
    """

    def __init__(self, device: torch.device) -> None:
        self.lag = LAG if device.type == "cuda" else 0
        self._queue: deque[tuple[int, float, Tensor, torch.cuda.Event | None]] = deque()

    def put(self, step: int, rate: float, figures: Tensor) -> None:
        """Queues the figures, (n,), of a step that had this learning rate."""
        if not figures.is_cuda:
            self._queue.append((step, rate, figures, None))
            return
        host = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
        host.copy_(figures, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        self._queue.append((step, rate, host, copied))

    def take(self, *, everything: bool = False) -> Iterator[tuple[int, float, list[float]]]:
        """The steps that are due, their rates and figures, oldest first; or all, waiting for the device."""
        while len(self._queue) > (0 if everything else self.lag):
            step, rate, figures, copied = self._queue.popleft()
            if copied is not None:
                copied.synchronize()
            yield step, rate, figures.tolist()


class Level:
    """The running level of a positive figure, and whether a new value leaps far above it."""

    def __init__(self, factor: float, floor: float = 0.0, memory: float = 0.95, settle: int = 10) -> None:
        self.factor, self.floor, self.memory, self.settle = factor, floor, memory, settle
        self.value = 0.0
        self._count = 0

    def leaps(self, value: float) -> bool:
        """Whether `value` is above `floor` and `factor` times the level; the level then takes it in."""
        leap = self._count >= self.settle and value > max(self.floor, self.factor * self.value)
        self._count += 1
        weight = max(1 - self.memory, 1 / self._count)  # a plain mean at first
        if not leap:
            self.value += weight * (value - self.value)
        return leap


class Curves:
    """A run's metrics.jsonl and, if asked for, the same in its `tensorboard` folder.

    Raises:
        InputError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: RunFolder, tensorboard: bool = False) -> None:
        self.folder, self.tensorboard = folder, tensorboard
        self._board: Any = None
        if tensorboard:
            _summary_writer()

    def open(self, step: int, history: list[dict[str, Any]]) -> None:
        """Continues after `step` steps and the epochs of `history`: what was written of later ones goes."""
        if self.folder.metrics_path.is_file():
            between = [line for line in _lines(self.folder) if line.get("step", step + 1) <= step]
        else:
            between = []
        lines: list[dict[str, Any]] = []
        for record in history:
            lines += [line for line in between if line["epoch"] == record["epoch"]] + [record]
        lines += [line for line in between if line["epoch"] == len(history) + 1]
        write_text(self.folder.metrics_path, "".join(json.dumps(line) + "\n" for line in lines))
        if self.tensorboard:
            self._board = _summary_writer()(self.folder.tensorboard_path, purge_step=step + 1)

    def write(self, step: int, record: dict[str, Any]) -> None:
        """Adds a line, of an epoch or in between, at the run's step `step`."""
        with open(self.folder.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._board is not None:
            for name, value in record.items():
                if name not in ("epoch", "step") and value is not None:
                    kind = "step" if "step" in record else "epoch"
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def flush(self) -> None:
        """Before a checkpoint, so that a kill after it loses no point of a curve."""
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None


def _lines(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl that a kill or a full disk left whole."""
    for text in folder.metrics_path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("epoch"), int):
            yield line


def _summary_writer() -> Any:
    """torch's writer of TensorBoard files.

    Raises:
        InputError: it needs the package tensorboard.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            f"--tensorboard: not usable here ({error}); install it with 'pip install vggrepro[tensorboard]'"
        ) from None
    return SummaryWriter
