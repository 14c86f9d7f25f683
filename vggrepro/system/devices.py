"""Devices and precisions. No other module asks which device it runs on."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggrepro.errors import InputError
from vggrepro.system.precisions import PRECISIONS
from vggrepro.system.processes import local_rank

# What errors of a CPU, of CUDA and its driver, of cuBLAS and of cuDNN (before version 9, and since) say when memory is
# short.
NO_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED")
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}

# On a CPU a step writes gigabytes of fresh memory, and first touching a 4 kB page costs more than filling it: torch
# asks for 2 MB pages if this is set before its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


@dataclass(frozen=True, slots=True)
class Machine:
    """How to compute: choices that do not change which training this is."""

    device: torch.device
    precision: str
    workers: int = 2
    micro_batch: int = 0  # images at a time on one device; 0 is all
    checkpoint_seconds: float = 600.0
    tensorboard: bool = False
    compile: bool = False  # the step, with torch.compile
    fast: bool = False  # on a GPU, also kernels whose sums may differ from one run to the next


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
        # A GPU for which this torch has no kernels fails here and not at the first step.
        torch.zeros(1, device=chosen).add_(1)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        if "no kernel image" in reason:
            reason = without_kernels(chosen.index)
        raise InputError(f"--device {text}: not usable here ({reason}); try --device cpu") from None
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if chosen.type == "cpu":
        keep_memory()
    return chosen


def without_kernels(number: int) -> str:
    """Why this torch cannot compute on a GPU: it was not built for such a card. Empty if it was."""
    capability, built = torch.cuda.get_device_capability(number), torch.cuda.get_arch_list()
    if not built or any(_runs(arch, capability) for arch in built):
        return ""
    card = f"{torch.cuda.get_device_name(number)} (sm_{capability[0]}{capability[1]})"
    return f"torch {torch.__version__} has no kernels for {card}, only for {', '.join(built)}"


def _runs(arch: str, capability: tuple[int, int]) -> bool:
    """Whether code built for `arch` runs on a card: `sm_86` on 8.6 and 8.9, `sm_90a` on 9.0, `compute_90` from 9.0 on.

    Names of other makers' cards (`gfx942`) are not judged.
    """
    match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", arch)
    if match is None:
        return True
    built = int(match[2]), int(match[3])
    if match[4] == "a":
        return capability == built
    return built <= capability if match[1] == "compute" else built[0] == capability[0] and built <= capability


def keep_memory() -> bool:
    """Keeps memory that a step frees for the next one, where the C library can; with huge pages, up to half of a step.

    Otherwise glibc returns each large tensor to the system, which zeroes its pages again when they are next touched.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    max_mappings, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    return bool(mallopt(max_mappings, 0) and mallopt(trim_threshold, -1))


def upload(tensor: Tensor, chosen: torch.device) -> Tensor:
    """The tensor on the device; copied to a GPU from pinned memory, so that the host does not wait for it."""
    return pinned(tensor, chosen).to(chosen, non_blocking=chosen.type == "cuda")


def pinned(tensor: Tensor, chosen: torch.device) -> Tensor:
    """The tensor in memory that a GPU copies from by itself; for other devices it stays where it is."""
    return tensor.pin_memory() if chosen.type == "cuda" and tensor.device.type == "cpu" else tensor


def precision(text: str, chosen: torch.device) -> str:
    """Resolves `auto`: the one of bf16, fp16 (on GPUs) and fp32 that the device multiplies fastest.

    Raises:
        InputError: unknown, or not for this kind of device.
    """
    if text not in PRECISIONS:
        raise InputError(f"--precision {text}: choose one of {', '.join(PRECISIONS)}")
    if text == "auto":
        if chosen.type == "cuda":
            return _fastest_on_gpu(chosen)
        return "bf16" if chosen.type == "cpu" and _fast_bf16() else "fp32"
    if text == "tf32" and chosen.type != "cuda":
        raise InputError("--precision tf32 needs a GPU; use fp32 or bf16")
    if text == "fp16" and chosen.type not in ("cuda", "cpu"):
        raise InputError(f"--precision fp16 is not for {chosen.type}; use fp32 or bf16")
    return text


def _fastest_on_gpu(chosen: torch.device) -> str:
    """bf16 from Ampere on; fp16 on Volta and Turing, whose matrix units know no bf16; fp32 on older cards."""
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp16" if torch.cuda.get_device_capability(chosen) >= (7, 0) else "fp32"


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
    if chosen.type == "cuda":  # at bf16, what stays in fp32 (fc8, LRN) must not be rounded to TF32's 11 bits
        torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
        torch.backends.cudnn.allow_tf32 = kind == "tf32"
    return torch.autocast(chosen.type, HALVES[kind]) if kind in HALVES else nullcontext()


def uncast(chosen: torch.device) -> AbstractContextManager[object]:
    """The context, inside `autocast`, of what is computed in the type of its input."""
    return nullcontext() if chosen.type == "meta" else torch.autocast(chosen.type, enabled=False)


def repeatable(machine: Machine) -> None:
    """Makes trainings on a GPU end in the same bits each time, unless the machine is to be `fast`.

    cuDNN then leaves out kernels that add in any order, and neither it nor a compiler chooses kernels by timing them.
    """
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = not machine.fast
    if machine.compile:
        inductor: Any = import_module("torch._inductor.config")
        if hasattr(inductor, "deterministic"):  # torch 2.6 has no such choice
            inductor.deterministic = not machine.fast


def describe(chosen: torch.device) -> str:
    """The device for logs and configs."""
    if chosen.type == "cuda":
        return torch.cuda.get_device_name(chosen)
    return f"{cpu_name()}, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def cpu_name() -> str:
    """The CPU's name as Linux tells it; elsewhere what Python knows."""
    names = (line.partition(":")[2].strip() for line in _cpu().splitlines() if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def release_memory(chosen: torch.device) -> None:
    """After a lack of memory: returns the memory that torch keeps for later; its pieces may be too small to use."""
    if chosen.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether the error says that a tensor does not fit the memory; on a CPU, torch has no error class for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(words in str(error) for words in NO_MEMORY)


def is_not_compiled(error: Exception) -> bool:
    """Whether torch.compile failed, as without a C++ compiler or on a GPU that it does not know."""
    return any(kind.__module__ == "torch._dynamo.exc" for kind in type(error).__mro__)
