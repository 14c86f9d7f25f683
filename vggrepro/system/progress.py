"""Progress on stderr: a bar in a terminal, else a plain line now and then. stdout stays free for results."""

from __future__ import annotations

import os
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 20.0  # between two plain lines

console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def silent() -> bool:
    """Whether this is one of torchrun's further processes: only the first prints."""
    return os.environ.get("RANK", "0") != "0"


def say(message: str) -> None:
    """Prints one line on stderr, from the first process only, above a running bar.

    A terminal shows it wrapped at words. A message with a command stays one line, so that the command can be copied.
    """
    if not silent():
        console.print(message, markup=False, soft_wrap=not console.is_terminal or "vggrepro " in message)


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


class Track:
    """Counts `unit`s of work done in this process and shows their rate and the time left.

    Args:
        label: what is being done, such as "train E-256".
        total: units in all; `done` of them were finished earlier and do not count for the rate.
    """

    def __init__(self, label: str, total: int, unit: str = "images", done: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.text = done, ""
        self._first = done
        self._began = self._spoke = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Track:
        if console.is_terminal and not silent():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[text]}"), console=console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def rate(self) -> float:
        """Units per second in this process."""
        return (self.done - self._first) / max(time.monotonic() - self._began, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """The time left at the rate so far; None before anything was done."""
        return (self.total - self.done) / self.rate if self.done > self._first else None

    def advance(self, count: int, text: str | None = None) -> None:
        """`count` more units are done; `text` (loss, errors …) replaces the last one."""
        self.done += count
        if text is not None:
            self.text = text
        rate = f"{self.rate:{',.0f' if self.rate >= 10 else '.2g'}} {self.unit}/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, text=f"{rate} {self.text}")
        elif time.monotonic() - self._spoke >= PLAIN_SECONDS and self.done < self.total:
            self._spoke = time.monotonic()
            left = duration(self.seconds_left) if self.seconds_left is not None else "?"
            say(f"{self.label}: {self.done:,}/{self.total:,} {self.unit}, {rate}, {left} left {self.text}".rstrip())
