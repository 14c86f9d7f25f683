"""Jobs side by side, with small shell commands in place of trainings."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from vggrepro.errors import InputError
from vggrepro.system.interrupt import Stopped
from vggrepro.system.jobs import Job, SideBySide

SHELL = ("sh", "-c", 'eval "$@"', "sh")


def job(name: str, shell: str, *needs: str) -> Job:
    return Job(name, f"vggrepro {shell}", needs)


def side_by_side(jobs: Sequence[Job], folder: Path, places: Sequence[Mapping[str, str]] = ({}, {})) -> SideBySide:
    return SideBySide(jobs, places, folder, lambda each: each.name, SHELL)


def test_each_job_starts_after_what_it_needs_and_says_what_it_says_to_its_log(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    jobs = [
        job("a", f"sleep 0.5 '&&' echo a '>>' {trace}"),
        job("c", f"echo c '>>' {trace}"),
        job("b", f"echo b '>>' {trace} '&&' echo said", "a", "c"),
    ]
    side_by_side(jobs, tmp_path).run()
    assert trace.read_text().split() == ["c", "a", "b"]
    assert (tmp_path / "b.log").read_text() == "said\n"


def test_jobs_that_the_longest_chain_needs_start_first(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    needs = {"a": (), "b": (), "c": (), "c2": ("c",), "b2": ("b",), "c3": ("c2",)}
    jobs = [job(name, f"echo {name} '>>' {trace}", *needed) for name, needed in needs.items()]
    side_by_side(jobs, tmp_path, [{}]).run()
    assert trace.read_text().split() == ["c", "b", "c2", "a", "b2", "c3"]


def test_of_jobs_that_no_other_needs_those_with_the_most_views_start_first(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    views = {"few": 6, "most": 306, "many": 300}
    jobs = [Job(name, f"vggrepro echo {name} '>>' {trace}", views=number) for name, number in views.items()]
    side_by_side(jobs, tmp_path, [{}]).run()
    assert trace.read_text().split() == ["most", "many", "few"]


def test_two_jobs_at_a_time_each_in_the_place_of_its_own(tmp_path: Path) -> None:
    places = [{"PLACE": "first"}, {"PLACE": "second"}]
    jobs = [job(name, "echo $PLACE '&&' sleep 0.6") for name in ("a", "b")] + [job("c", "echo $PLACE")]
    jobs = [Job(each.name, each.command.replace("$PLACE", "'$PLACE'")) for each in jobs]
    began = time.monotonic()
    side_by_side(jobs, tmp_path, places).run()
    assert time.monotonic() - began < 10
    assert [(tmp_path / f"{name}.log").read_text().strip() for name in "abc"][:2] == ["first", "second"]


def test_a_failed_job_stops_the_others_and_is_named_with_its_last_line(tmp_path: Path) -> None:
    jobs = [job("long", "exec sleep 60"), job("bad", "echo no such file ';' exit 2"), job("never", "true", "bad")]
    began = time.monotonic()
    with pytest.raises(InputError, match=r"bad failed: no such file \(its whole output: .*bad\.log\)"):
        side_by_side(jobs, tmp_path).run()
    assert time.monotonic() - began < 30
    assert not (tmp_path / "never.log").exists()


def test_a_stop_stops_all_jobs(tmp_path: Path) -> None:
    traps = "trap '\"echo saved; exit 143\"' TERM ';' echo '$$' ';' while true ';' do sleep 0.1 ';' done"
    jobs = [job(name, traps) for name in ("a", "b")]
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Stopped):
        side_by_side(jobs, tmp_path).run()
    for name in ("a", "b"):
        process, said = (tmp_path / f"{name}.log").read_text().split()
        assert said == "saved"
        assert subprocess.run(["ps", "-p", process], capture_output=True, check=False).returncode
