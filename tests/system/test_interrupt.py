"""SIGTERM and Ctrl-C are taken down, not obeyed at once; all processes agree on them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import program
import pytest
import torch

from vggrepro.system.interrupt import Stopped, StopRequest

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[list[object]]:
    """The handlers before the test, which it leaves as they were."""
    before = [signal.getsignal(number) for number in BOTH]
    yield before
    assert [signal.getsignal(number) for number in BOTH] == before


@pytest.mark.parametrize("number", BOTH)
def test_a_signal_is_taken_down(number: signal.Signals) -> None:
    with StopRequest() as wish:
        assert (wish.number, wish.agreed(torch.device("cpu"))) == (0, 0)
        os.kill(os.getpid(), number)
        assert (wish.number, wish.agreed(torch.device("cpu"))) == (number, number)
    assert str(Stopped(number)) == number.name
    assert Stopped(number).signal == number


@pytest.mark.parametrize("first", BOTH)
def test_ctrl_c_after_another_signal_stops_at_once(first: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest() as wish:
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), signal.SIGINT)
    assert wish.number == first


def test_sigterm_may_come_twice() -> None:
    with StopRequest() as wish:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
    assert wish.number == signal.SIGTERM


def test_outside_of_it_the_handlers_are_those_of_before() -> None:
    heard: list[int] = []
    own = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with StopRequest():
            os.kill(os.getpid(), signal.SIGTERM)
            assert heard == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, own)


@pytest.mark.slow
def test_processes_agree_when_one_was_asked() -> None:
    """The asked one knows its signal; the other calls it SIGTERM."""
    assert program.together("agreed_stop", processes=2) == [f"0 {int(signal.SIGTERM)}\n", f"0 {int(signal.SIGINT)}\n"]
