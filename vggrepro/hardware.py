"""Devices, precisions and processes: the only module that asks what it runs on."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from vggrepro.errors import InputError

PRECISIONS = ("auto", "fp32", "tf32", "bf16")


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
    return chosen


def precision(text: str, chosen: torch.device) -> str:
    """Resolves `auto`: bf16 where the device multiplies it natively, else fp32.

    Raises:
        InputError: unknown, or tf32 without a GPU.
    """
    if text not in PRECISIONS:
        raise InputError(f"--precision {text}: choose one of {', '.join(PRECISIONS)}")
    if text == "auto":
        if chosen.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        checks = [getattr(torch.cpu, f"_is_{kind}_supported", None) for kind in ("avx512_bf16", "amx_tile")]
        native = chosen.type == "cpu" and any(check() for check in checks if check)
        return "bf16" if native else "fp32"
    if text == "tf32" and chosen.type != "cuda":
        raise InputError("--precision tf32 needs a GPU; use fp32 or bf16")
    return text


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
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


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
    """Joins torchrun's other processes, if it started this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(hours=2))


def first_process(context: AbstractContextManager[object]) -> AbstractContextManager[object]:
    """`context`, such as a lock, entered by the first process for all."""
    return nullcontext() if rank() else context


def leave_processes() -> None:
    """Ends what `join_processes` began."""
    if dist.is_initialized():
        dist.destroy_process_group()


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
