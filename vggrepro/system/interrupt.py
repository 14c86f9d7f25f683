"""Turns SIGTERM and Ctrl-C into a stop request; all processes stop at the same step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

import torch

from vggrepro.system import processes


class Stopped(Exception):
    """Training stopped because a signal (`signal`) asked for it; the checkpoint is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


class StopRequest:
    """Inside its `with` block, SIGTERM and Ctrl-C only set `number`; a second Ctrl-C stops the program at once."""

    def __init__(self) -> None:
        self.number = 0  # the signal that asked this process to stop; 0: none
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number

    def agreed(self, device: torch.device) -> int:
        """The signal that asked any of the processes to stop, or 0 if none did; call it in all processes."""
        if processes.world() == 1:
            return self.number
        asked = torch.tensor([float(self.number > 0)], device=device)
        processes.sum_over_processes([asked])
        return (self.number or signal.SIGTERM) if asked.item() else 0
