"""Devices, precisions and processes: the only module that asks what it runs on."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from vggrepro.errors import InputError

PRECISIONS = ("auto", "fp32", "tf32", "bf16")
LARGE = 1 << 16  # elements of a gradient worth a message of its own

# On a CPU a step writes gigabytes of fresh memory, and first touching a 4 kB page costs more than filling it: torch
# asks for 2 MB pages if told so before its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def device(text: str = "auto") -> torch.device:
    """`auto` is this process's GPU if there is one, else the CPU; also `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        InputError: no such device here.
    """
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    if text == "cuda":
        text = f"cuda:{local_rank()}"
    if text.partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {text}: choose auto, cpu, cuda, cuda:1 or mps")
    try:
        chosen = torch.device(text)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {text}: not usable here ({reason}); try --device cpu") from None
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if chosen.type == "cpu":
        keep_memory()
    return chosen


def keep_memory() -> bool:
    """Keeps memory that a step frees for the next one, where the C library can; with huge pages, up to half of a step.

    Otherwise glibc returns each large tensor to the system, which zeroes its pages anew when they are next touched.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    max_mappings, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    return bool(mallopt(max_mappings, 0) and mallopt(trim_threshold, -1))


def upload(tensor: Tensor, chosen: torch.device) -> Tensor:
    """The tensor on the device; copied to a GPU from pinned memory, so that the host does not wait for it."""
    if chosen.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(chosen, non_blocking=True)
    return tensor.to(chosen)


def precision(text: str, chosen: torch.device) -> str:
    """Resolves `auto`: bf16 where the device multiplies it faster than fp32, else fp32.

    Raises:
        InputError: unknown, or tf32 without a GPU.
    """
    if text not in PRECISIONS:
        raise InputError(f"--precision {text}: choose one of {', '.join(PRECISIONS)}")
    if text == "auto":
        if chosen.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        return "bf16" if chosen.type == "cpu" and _fast_bf16() else "fp32"
    if text == "tf32" and chosen.type != "cuda":
        raise InputError("--precision tf32 needs a GPU; use fp32 or bf16")
    return text


def _fast_bf16() -> bool:
    """Whether this CPU multiplies bf16 faster than fp32: with AMX tiles, or with AVX512 bf16 that is not Intel's.

    Intel's AVX512 bf16 alone runs at 0.57 of fp32 (a Xeon without AMX, products and convolutions); AMD's at about 2.
    """
    tiles, avx512 = (getattr(torch.cpu, f"_is_{kind}_supported", bool) for kind in ("amx_tile", "avx512_bf16"))
    return bool(tiles()) or (bool(avx512()) and "GenuineIntel" not in _cpu())


def _cpu() -> str:
    """What Linux says of the CPU; elsewhere nothing."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def autocast(kind: str, chosen: torch.device) -> AbstractContextManager[object]:
    """The context that runs a forward pass at a resolved precision."""
    if chosen.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = kind != "fp32"
        torch.backends.cudnn.allow_tf32 = kind != "fp32"
    return torch.autocast(chosen.type, torch.bfloat16) if kind == "bf16" else nullcontext()


def describe(chosen: torch.device) -> str:
    """The device for logs and configs."""
    if chosen.type == "cuda":
        return torch.cuda.get_device_name(chosen)
    return f"{cpu_name()}, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def cpu_name() -> str:
    """The CPU's name as Linux tells it; elsewhere what Python knows."""
    names = (line.partition(":")[2].strip() for line in _cpu().splitlines() if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def local_rank() -> int:
    """This process's number on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank() -> int:
    """This process's number under torchrun; 0 alone."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


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


def is_out_of_memory(error: Exception) -> bool:
    """Whether the error says that a tensor does not fit the memory; a CPU has no class of error of its own for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def first_process(context: AbstractContextManager[object]) -> AbstractContextManager[object]:
    """`context`, such as a lock, entered by the first process for all."""
    return nullcontext() if rank() else context


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

    The FC layers, nine tenths of the weights, are the first that backward reaches: their messages travel during the
    convolutions. Small gradients share the message of `finish`.

    Args:
        parameters: whose gradients are summed; in every process the same.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._on_the_way: list[dist.Work] = []
        self._small: list[Tensor] = []
        self._armed = False
        if world() > 1:
            for parameter in parameters:
                parameter.register_post_accumulate_grad_hook(self._ready)  # type: ignore[no-untyped-call]

    def arm(self, *, last: bool) -> None:
        """Before each backward pass of a step: only the gradients of the last are whole."""
        self._armed = last

    def _ready(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        if not self._armed or gradient is None:
            return
        if gradient.numel() < LARGE:
            self._small.append(gradient)
        elif work := dist.all_reduce(gradient, async_op=True):
            self._on_the_way.append(work)

    def finish(self, *others: Tensor) -> None:
        """Returns when all sums are made (on a GPU: are due before what is asked of it next), `others` among them."""
        sum_over_processes([*self._small, *others])
        for work in self._on_the_way:
            work.wait()
        self._small.clear()
        self._on_the_way.clear()
        self._armed = False
