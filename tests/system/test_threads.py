"""Threads follow the processors that are free."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from vggrepro.system import threads
from vggrepro.system.threads import Follower, Sample, free


@pytest.mark.parametrize(
    ("own", "all_", "most", "expected"),
    [
        (10, 10, 2, 2),  # alone with one thread: a second one
        (20, 20, 2, 2),  # alone with two
        (10, 20, 2, 1),  # one other process has the other processor
        (13.3, 20, 2, 1),  # three threads, one of another process, share two processors
        (6.7, 20, 2, 1),  # two other processes: at least one thread
        (80, 300, 64, 42),
        (10, 300, 2.0, 1),
        (15, 15, 1.5, 2),  # limited to one and a half
    ],
)
def test_others_processors_are_left_to_them(own: float, all_: float, most: float, expected: int) -> None:
    assert free(Sample(100, 5, 50), Sample(110, 5 + own, 50 + all_), most) == expected


def test_only_busy_time_of_allowed_processors_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 20 30 999 999 4 5 6 50 7\ncpu1 1 1 1 1 1 1 1 1 1 1\nintr 5\n")
    monkeypatch.setattr(threads, "STAT", stat)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    sample = Sample.take()
    assert sample is not None
    assert sample.all == pytest.approx((100 + 20 + 30 + 4 + 5 + 6) / os.sysconf("SC_CLK_TCK"))
    monkeypatch.setattr(threads, "STAT", tmp_path / "none")
    assert Sample.take() is None


@pytest.mark.parametrize(
    ("here", "processes", "expected"), [(6, "1", 6), (12.5, "4", 3), (1.5, "4", 1), (192, "8", 16)]
)
def test_processes_of_one_machine_share_its_processors_for_decoding(
    here: float, processes: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "processors", lambda: here)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert threads.workers() == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {"cpu.max": "max 100000"}, 3),
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "junk"}, 3),
        ("0::/", {}, 3),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ("0::/a/b", {"a/b/cpu.max": "200000 100000", "a/c/cpu.max": "50000 100000"}, 2),
        ("1:cpu:/\n0::/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ("1:cpu:/a\n0::/", {"cpu/a/cpu.cfs_quota_us": "25000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 0.25),
        (None, {"cpu.max": "150000 100000"}, 1.5),
    ],
)
def test_a_limit_of_a_group_of_processes_counts(
    own: str | None, files: dict[str, str], expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a container, a service, or a group around it; groups of both versions."""
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    if own is not None:
        (tmp_path / "own").write_text(own)
    monkeypatch.setattr(threads, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(threads, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 2, 5})
    assert threads.processors() == expected


def test_a_run_adapts_while_it_goes_on_unless_the_number_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    before, used = torch.get_num_threads(), [0.0, 0.0]
    monkeypatch.setattr(threads, "processors", lambda: 4.0)
    monkeypatch.setattr(threads, "SECONDS", 0.0)
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(Sample, "take", lambda: Sample(next(clock), *used))
    monkeypatch.setattr(threads.time, "monotonic", lambda: 1e9)
    try:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        follower, still = Follower(True), Follower(False)
        used[:] = 10, 30  # two other processes
        follower.follow()
        assert torch.get_num_threads() == 2
        used[:] = 40, 60  # they have gone
        still.follow()
        assert torch.get_num_threads() == 2
        follower.follow()
        assert torch.get_num_threads() == 4
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        fixed = Follower(True)
        used[:] = 0, 400
        fixed.follow()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("PASSIVE", "30000", "1")),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None, "1")),
        ({"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "200"}, ("PASSIVE", "7", "200")),
    ],
)
def test_waiting_threads_soon_sleep_unless_the_user_chose(
    given: dict[str, str], expected: tuple[str | None, ...]
) -> None:
    threads.shorten_waits(given)
    assert tuple(map(given.get, ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"))) == expected
