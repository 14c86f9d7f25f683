"""The processes that torchrun starts: their ranks, their shares of work, and sums over all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

LARGE = 1 << 16  # elements of a gradient worth a message of its own


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
    backend, patience = "nccl" if chosen.type == "cuda" else "gloo", timedelta(hours=2)
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        store, number, count = next(dist.rendezvous("env://", timeout=patience))  # type: ignore[attr-defined]
        attempt = f"attempt{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        store = dist.PrefixStore(attempt, store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=patience)
    else:
        dist.init_process_group(backend, timeout=patience)


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
        dist.destroy_process_group()
    return joined


def barrier() -> None:
    """Waits for all processes."""
    if world() > 1:
        dist.barrier()


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
