"""Durations in words, and progress by a clock that the test moves."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from vggrepro.system import progress
from vggrepro.system.progress import Track, duration


class Clock:
    """Stands for the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.5, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.5, "1 h 00 min"),
        (7679, "2 h 07 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 00 h"),
        (3 * 86_400 + 4 * 3600 + 1800, "3 d 04 h"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 1e8))
def test_a_duration_is_its_seconds_but_for_its_smaller_unit(seconds: float) -> None:
    text = duration(seconds)
    length = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
    parts = [(int(number), length[unit]) for number, unit in re.findall(r"(\d+) (\w+)", text)]
    assert 0 <= seconds + 0.5 - sum(number * unit for number, unit in parts) < min(unit for _, unit in parts)
    assert len(parts) == 1 + (seconds >= 59.5)


def test_rate_and_time_left_count_from_here(clock: Clock) -> None:
    """100 of 1000 were done before: they are no work of this process."""
    with Track("train E-256", 1000, done=100) as track:
        assert (track.rate, track.seconds_left) == (0, None)
        clock.now = 10.0
        assert track.seconds_left is None
        track.advance(50)
        assert track.rate == 5
        assert track.seconds_left == (1000 - 150) / 5


def test_a_plain_line_comes_every_twenty_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    def said_at(now: float, count: int, text: str | None = None) -> str:
        clock.now = now
        track.advance(count, text)
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    with Track("train E-256", 2000, done=100) as track:
        assert said_at(19, 50) == ""
        assert said_at(20, 50, "loss 1.00") == "train E-256: 200/2,000 images, 5 images/s, 6 min 00 s left loss 1.00\n"
        assert said_at(39, 50) == ""
        line = said_at(41, 155)
        assert line == "train E-256: 405/2,000 images, 7.4 images/s, 3 min 34 s left loss 1.00\n"  # 305 in 41 s
        assert said_at(90, 1595) == ""  # at the end others talk


def test_nothing_done_has_no_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Track("prepare", 10, "files") as track:
        clock.now = 25
        track.advance(0)
    assert capsys.readouterr().err == "prepare: 0/10 files, 0 files/s, ? left\n"


def test_only_the_first_process_talks(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with Track("train E-256", 100) as track:
        clock.now = 60.0
        track.advance(10)
    progress.say("finished")
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "0")
    progress.say("finished [bold]A[/bold]")
    assert capsys.readouterr().err == "finished [bold]A[/bold]\n"


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True, width=120))
    ticks = iter(range(100))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    with Track("train E-256", 100, done=40) as track:
        track.advance(20, "loss 0.50")
        assert track._bar is not None
        track._bar.refresh()
        assert "60/100" in screen.getvalue()
    assert re.search(r"train E-256 .*60/100.* 20 images/s loss 0.50", screen.getvalue())


def test_a_terminal_wraps_talk_at_words_but_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True, width=20, highlight=False))
    progress.say("only images that it alone gets wrong")
    progress.say("next: vggrepro evaluate A-256 --runs elsewhere")
    lines = ["only images that it ", "alone gets wrong", "next: vggrepro evaluate A-256 --runs elsewhere", ""]
    assert screen.getvalue().split("\n") == lines
