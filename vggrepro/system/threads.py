"""Threads on a CPU that other programs use too: no more threads than free processors, and none waits busily for long.

Two threads that share one processor wait for each other at every operation. Under load, one thread is then many
times as fast as two. The order of sums depends on the number of threads: OMP_NUM_THREADS, which fixes it, also fixes a
run's last bits.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SECONDS = 5.0  # between two measurements of the load
MOST_WORKERS = 16  # more threads that decode would wait for Python's global lock
STAT = Path("/proc/stat")
GROUPS = Path("/sys/fs/cgroup")  # Linux's groups of processes, of which a container or a service is one
OWN_GROUP = Path("/proc/self/cgroup")
LIMITS = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))  # files of a group, of version 2 and of version 1


def shorten_waits(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets a thread that waits sleep soon, unless the user chose otherwise. Call it before torch loads.

    It spins for less than a millisecond: that is longer than the pause between two operations of a small net. A thread
    that sleeps at once must be woken for each operation. One that spins for long takes the time of other programs.
    The variables are those of GNU's and of Intel's OpenMP.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment.setdefault("GOMP_SPINCOUNT", "30000")
    environment.setdefault("KMP_BLOCKTIME", "1")  # milliseconds


def processors() -> float:
    """The processors that this process may use: those of its affinity, or what its group of processes is limited to."""
    return min([float(len(_allowed())), *map(_limit, _groups())])


def _groups() -> Iterator[Path]:
    """The folders of the groups that this process is in, from its own up to the outermost of each version."""
    try:
        lines = OWN_GROUP.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = ["0::/"]
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if not controllers or "cpu" in controllers.split(","):
            top = GROUPS / controllers
            own = top / path.strip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))


def _limit(group: Path) -> float:
    """The processors that a group may use in all."""
    for names in LIMITS:
        with suppress(OSError, ValueError):
            quota, period = " ".join((group / name).read_text(encoding="ascii") for name in names).split()
            return int(quota) / int(period) if quota.isdecimal() else math.inf
    return math.inf


def workers() -> int:
    """How many threads decode images if the user does not say: this process's share of the processors here."""
    processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MOST_WORKERS, int(processors() / processes_here)))


def _allowed() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class Sample:
    """What was used up to a moment, in seconds."""

    moment: float
    own: float  # processor time of this process
    all: float  # of all processes, on the processors that this one may use

    @classmethod
    def take(cls) -> Sample | None:
        """None where the system does not say (not Linux)."""
        try:
            lines = STAT.read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        names = {f"cpu{number}" for number in _allowed()}
        rows = [line.split() for line in lines if line.partition(" ")[0] in names]
        ticks = sum(
            sum(map(int, row[1:4])) + sum(map(int, row[6:9])) for row in rows
        )  # without idle, waiting and guests
        return cls(time.monotonic(), time.process_time(), ticks / os.sysconf("SC_CLK_TCK"))


def free(before: Sample, now: Sample, most: float) -> int:
    """The whole processors that others left free between two samples, at least 1 and at most `most`."""
    seconds = max(now.moment - before.moment, 1e-9)
    others = max(0.0, (now.all - before.all) - (now.own - before.own)) / seconds
    return max(1, min(int(most + 0.5), int(most - others + 0.5)))


class Follower:
    """Gives torch as many threads as there are free processors, and measures again every few seconds.

    Args:
        active: false leaves the number as it is, as OMP_NUM_THREADS does.
    """

    def __init__(self, active: bool) -> None:
        self._last = Sample.take() if active and "OMP_NUM_THREADS" not in os.environ else None

    def follow(self) -> None:
        """Call it often; it costs nothing between two measurements."""
        if self._last is None or time.monotonic() - self._last.moment < SECONDS:
            return
        import torch

        now = Sample.take()
        if now is not None:
            count = free(self._last, now, processors())
            if count != torch.get_num_threads():
                torch.set_num_threads(count)
            self._last = now
