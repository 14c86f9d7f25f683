"""Runs commands of the program side by side, each after the jobs that it needs; a stop request stops all of them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.live import Live

from vggrepro.errors import InputError
from vggrepro.system.interrupt import Stopped, StopRequest
from vggrepro.system.progress import PLAIN_SECONDS, console, say

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """A command of the program and the names of the jobs whose results it needs."""

    name: str
    command: str  # `vggrepro train A …`, quoted for a shell
    needs: tuple[str, ...] = ()
    views: int = 0  # of an evaluation: how often the net sees each image; more views take longer

    @property
    def words(self) -> list[str]:
        """The command's arguments, without the program's name."""
        return shlex.split(self.command)[1:]


@dataclass(frozen=True, slots=True)
class _Running:
    job: Job
    place: int
    process: subprocess.Popen[bytes]
    log: Path


class SideBySide:
    """Runs jobs, as many at a time as there are `places`; those that the longest chains of jobs need start first.

    Of jobs with equally long chains, those with the most views start first: a long evaluation at the end runs alone.

    Args:
        jobs: each after those that it needs.
        places: the environment variables of each place; a job gets those of the place it runs in.
        logs: the folder that gets `<job>.log`, with all that the job prints; a later run adds to it.
        describe: a line about a running job, for the display.
        program: what runs a job's words.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        places: Sequence[Mapping[str, str]],
        logs: Path,
        describe: Callable[[Job], str],
        program: Sequence[str] = (sys.executable, "-m", "vggrepro"),
    ) -> None:
        self.places, self.logs, self.describe, self.program = places, logs, describe, program
        self._total, self._waiting = len(jobs), _longest_first(jobs)
        self._running: list[_Running] = []
        self._done: set[str] = set()

    def run(self) -> None:
        """Returns when all jobs have ended well.

        Raises:
            Stopped: a signal asked to stop; the running jobs were asked too and have ended.
            InputError: a job failed; the running ones were stopped. Its last line and its log are named.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        try:
            with StopRequest() as stop, _Display() as display:
                while self._waiting or self._running:
                    if stop.number:
                        raise Stopped(stop.number)
                    self._start_what_is_ready()
                    display.show(self._lines)
                    time.sleep(POLL_SECONDS)
                    self._collect()
        finally:
            self._stop_all()

    def _start_what_is_ready(self) -> None:
        for job in list(self._waiting):
            free = set(range(len(self.places))) - {each.place for each in self._running}
            if free and self._done.issuperset(job.needs):
                self._waiting.remove(job)
                self._running.append(self._start(job, min(free)))

    def _start(self, job: Job, place: int) -> _Running:
        """A process in a session of its own, so that Ctrl-C reaches it through this one only."""
        log = self.logs / f"{job.name}.log"
        with open(log, "ab") as file:
            process = subprocess.Popen(
                [*self.program, *job.words],
                env=os.environ | self.places[place],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return _Running(job, place, process, log)

    def _collect(self) -> None:
        for each in [each for each in self._running if each.process.poll() is not None]:
            self._running.remove(each)
            if each.process.returncode:
                raise InputError(f"{each.job.name} failed: {_last_line(each.log)} (its whole output: {each.log})")
            self._done.add(each.job.name)
            say(f"{each.job.name}: done")

    def _stop_all(self) -> None:
        """Asks the running jobs to stop and waits; if that is interrupted too, kills them."""
        try:
            for each in self._running:
                each.process.send_signal(signal.SIGTERM)
            for each in self._running:
                each.process.wait()
        finally:
            for each in self._running:
                each.process.kill()

    def _lines(self) -> list[str]:
        return [f"{len(self._done)} of {self._total} done", *(self.describe(each.job) for each in self._running)]


def _longest_first(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, sorted by how many others in a row must follow each, then by views; equal ones in the given order."""
    length = {job.name: 1 for job in jobs}
    for job in reversed(jobs):
        for need in length.keys() & set(job.needs):
            length[need] = max(length[need], length[job.name] + 1)
    return sorted(jobs, key=lambda job: (-length[job.name], -job.views))


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


class _Display:
    """Shows lines: in a terminal it replaces the last ones, elsewhere it prints new ones now and then."""

    def __init__(self) -> None:
        self._live = Live(console=console, transient=True) if console.is_terminal else None
        self._shown = time.monotonic()

    def __enter__(self) -> _Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, lines: Callable[[], list[str]]) -> None:
        """Takes the lines only if it is time to show them."""
        if time.monotonic() - self._shown < (1.0 if self._live else PLAIN_SECONDS):
            return
        self._shown = time.monotonic()
        if self._live:
            self._live.update("\n".join(lines()))
        else:
            say("; ".join(lines()))
