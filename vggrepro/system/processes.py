"""The processes that torchrun starts: their ranks, their shares of work, and sums over all of them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vggrepro.errors import InputError

LARGE = 1 << 16  # elements of a gradient worth a message of its own
PATIENCE = timedelta(hours=2)  # for a process that starts late, or prepares data while the others wait at a barrier
MESSAGE = timedelta(minutes=10)  # for a sum: after that, a process was lost with its machine
GRACE = 20.0  # seconds that a process on a GPU has after SIGTERM; torchrun kills it after 30

_barriers: list[Any] = []  # of the CPUs, where a wait may be long


def local_rank() -> int:
    """This process's rank on its machine, 0 is the first."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank() -> int:
    """This process's rank under torchrun, 0 is the first; 0 alone."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this is the first process, which alone writes files and prints."""
    return rank() == 0


def world() -> int:
    """Number of processes under torchrun; 1 alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(count: int) -> range:
    """This process's part of `count` things in a row."""
    return range(count * rank() // world(), count * (rank() + 1) // world())


def join_processes(chosen: torch.device) -> None:
    """Joins torchrun's other processes, if it started this one.

    After a restart torchrun may give the same store again, with the addresses of processes that are dead
    (pytorch#135712). On one machine each attempt has its own part of the store; several machines do not count alike.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    store, number, count = next(dist.rendezvous("env://", timeout=PATIENCE))  # type: ignore[attr-defined]
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        attempt = f"attempt{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        store = dist.PrefixStore(attempt, store)  # type: ignore[attr-defined]
        if chosen.type == "cuda":
            refuse_a_shared_card(store, number, count, str(torch.cuda.get_device_properties(chosen).uuid))
    gpu = chosen if chosen.type == "cuda" else None
    if gpu:
        leave_when_stuck()
    backend = "nccl" if gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=MESSAGE, device_id=gpu)
    _barriers[:] = [dist.new_group(backend="gloo", timeout=PATIENCE)]


def refuse_a_shared_card(store: Any, number: int, count: int, card: str) -> None:
    """Refuses that two processes compute on one card.

    Args:
        store: which all processes share.
        number: this process's rank.
        count: how many processes there are.
        card: what names this process's card.

    Raises:
        InputError: two have the same card; in the first process, which says so for all.
        SystemExit: the same in the others.
    """
    store.set(f"card{number}", card)
    cards = [store.get(f"card{other}") for other in range(count)]
    if len(set(cards)) == count:
        return
    if number:
        raise SystemExit(2)
    raise InputError(
        f"{count} processes have {len(set(cards))} GPU{'s' if len(set(cards)) > 1 else ''}; give torchrun "
        "--nproc-per-node the number of a machine's GPUs, and the command no --device with a number"
    )


def leave_when_stuck(grace: float = GRACE) -> None:
    """Starts a thread that ends this process, with a line, if it is still there `grace` seconds after SIGTERM.

    torchrun sends SIGTERM when another process was lost. On a GPU the main thread may then wait for that process for
    ever, where no signal handler of Python's runs.
    """
    listen, tell = socket.socketpair()
    tell.setblocking(False)
    signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        with tell:  # as long as the thread listens
            while signal.SIGTERM not in listen.recv(64):
                pass
        threading.Event().wait(grace)
        message = "no answer from another process, which says why or was killed; run the same command again"
        print(f"vggrepro: {message}: finished work is kept", file=sys.stderr, flush=True)
        os._exit(2)

    threading.Thread(target=watch, name="leave when stuck", daemon=True).start()


def is_lost_process(error: Exception) -> bool:
    """Whether the error says that another of torchrun's processes can no longer be reached."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo/transport" in str(error))


def first_process(context: AbstractContextManager[object]) -> AbstractContextManager[object]:
    """`context`, such as a lock, entered by the first process for all."""
    return context if is_first() else nullcontext()


def leave_processes() -> bool:
    """Ends what `join_processes` began; whether there was anything to end."""
    joined = dist.is_initialized()
    if joined:
        _barriers.clear()
        dist.destroy_process_group()
    return joined


def barrier() -> None:
    """Waits for all processes."""
    if world() > 1:
        dist.all_reduce(torch.zeros(1), group=_barriers[0])


def sum_over_processes(tensors: list[Tensor]) -> None:
    """Sums each tensor over all processes, in place and in one message."""
    if world() == 1:
        return
    flat = torch.cat([tensor.reshape(-1).to(torch.float32) for tensor in tensors])
    dist.all_reduce(flat)
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()


class GradientSum:
    """Sums gradients over all processes while the backward pass still runs.

    The backward pass reaches the FC layers, nine tenths of the weights, first: their gradients are sent while it
    computes the convolutions. Small gradients share the message of `finish`.

    Args:
        parameters: whose gradients are summed; in every process the same.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._on_the_way: list[dist.Work] = []
        self._small: list[Tensor] = []
        self._held: list[Tensor] = []
        self._armed = self._holds = False
        if world() > 1:
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(self._ready)  # type: ignore[no-untyped-call]

    def arm(self, *, last: bool, hold: bool = False) -> None:
        """Before each backward pass of a step: only the gradients of the last are whole.

        `hold` keeps them back until `release`: the backward pass may fail in one process, and the others must not wait.
        """
        self._armed, self._holds = last, hold
        self._held.clear()

    def _ready(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        if not self._armed or gradient is None:
            return
        if self._holds:
            self._held.append(gradient)
        else:
            self._send(gradient)

    def _send(self, gradient: Tensor) -> None:
        if gradient.numel() < LARGE:
            self._small.append(gradient)
        elif work := dist.all_reduce(gradient, async_op=True):
            self._on_the_way.append(work)

    def release(self) -> None:
        """Sends what was held, in the order of the backward pass: the sums have the same bits as without holding."""
        for gradient in self._held:
            self._send(gradient)
        self._held.clear()

    def finish(self, *others: Tensor) -> None:
        """Returns when all sums, also those of `others`, are done (on a GPU: come before any later operation)."""
        sum_over_processes([*self._small, *others])
        for work in self._on_the_way:
            work.wait()
        self._small.clear()
        self._on_the_way.clear()
        self._armed = False
