"""Several processes: one card each, and a lost one is said."""

from __future__ import annotations

import signal
import subprocess

import program
import pytest
import torch.distributed as dist

from vggrepro.errors import InputError
from vggrepro.system.processes import refuse_a_shared_card


def store_of(*cards: str) -> dist.HashStore:
    """A store in which these cards are known."""
    store = dist.HashStore()
    for number, card in enumerate(cards):
        store.set(f"card{number}", card)
    return store


def test_processes_on_a_card_each_go_on() -> None:
    refuse_a_shared_card(store_of("a", "b"), 1, 2, "b")


def test_one_card_for_several_processes_is_refused_once() -> None:
    with pytest.raises(InputError, match="3 processes have 2 GPUs; give torchrun --nproc-per-node the number of"):
        refuse_a_shared_card(store_of("a", "b", "a"), 0, 3, "a")
    with pytest.raises(SystemExit) as caught:  # the others leave without a word
        refuse_a_shared_card(store_of("a", "b", "a"), 2, 3, "a")
    assert caught.value.code == 2


def test_a_process_that_hangs_in_a_library_leaves_with_a_line_after_sigterm() -> None:
    with program.start("stuck", "0.2", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(signal.SIGTERM)
        _, talk = process.communicate(timeout=20)
    assert process.returncode == 2
    assert talk.startswith("vggrepro: no answer from another process, which says why or was killed; run the same")


@pytest.mark.slow
def test_a_silent_process_is_lost_after_the_time_of_a_message_and_not_at_a_barrier() -> None:
    first, _ = program.together("silent_process", processes=2)
    assert first == "the barrier waited\nlost\n"
