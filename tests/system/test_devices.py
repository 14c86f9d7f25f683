"""Devices, memory, and sums over real processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import program
import pytest
import torch

from vggrepro.errors import InputError
from vggrepro.system import devices
from vggrepro.system.devices import Machine


def gradients(path: Path, processes: int) -> dict[str, torch.Tensor]:
    """What `programs/gradient_sums.py` finds when so many processes share the images."""
    program.together("gradient_sums", path, processes=processes)
    return torch.load(path, weights_only=True)


@pytest.mark.slow
def test_gradients_summed_during_backward_are_one_processs(tmp_path: Path) -> None:
    one, two = gradients(tmp_path / "one.pt", 1), gradients(tmp_path / "two.pt", 2)
    assert one.keys() == two.keys()
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, rtol=0, atol=1e-5 * float(expected.abs().max()), msg=name)


def test_freed_memory_is_kept_where_the_c_library_can() -> None:
    assert devices.keep_memory() == sys.platform.startswith("linux")
    assert os.environ["THP_MEM_ALLOC_ENABLE"]
    assert torch.ones(1 << 24).sum() == 1 << 24


def test_upload_leaves_a_tensor_that_is_there_already() -> None:
    tensor = torch.arange(3)
    assert devices.upload(tensor, torch.device("cpu")) is tensor


@pytest.fixture
def flags() -> Iterator[None]:
    """torch's global choices, put back after the test."""
    places: list[tuple[Any, str]] = [(torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")]
    places += [(torch.backends.cudnn, "deterministic"), (torch.backends.cudnn, "benchmark")]
    before = [getattr(*place) for place in places]
    yield
    for place, value in zip(places, before, strict=True):
        setattr(*place, value)


@pytest.mark.usefixtures("flags")
@pytest.mark.filterwarnings("ignore:User provided device_type")
@pytest.mark.parametrize("kind", ["fp32", "bf16", "tf32"])
def test_only_tf32_rounds_what_stays_in_fp32(kind: str) -> None:
    devices.autocast(kind, torch.device("cuda"))
    assert torch.backends.cuda.matmul.allow_tf32 == (kind == "tf32")
    assert torch.backends.cudnn.allow_tf32 == (kind == "tf32")


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize("fast", [False, True])
def test_trainings_are_repeatable_unless_fast(fast: bool) -> None:
    devices.repeatable(Machine(torch.device("cuda"), "bf16", fast=fast))
    assert torch.backends.cudnn.deterministic is not fast
    assert not torch.backends.cudnn.benchmark


@pytest.mark.gpu
def test_upload_to_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    there = devices.upload(torch.arange(3), torch.device("cuda"))
    assert there.is_cuda
    assert there.tolist() == [0, 1, 2]


def test_a_device_that_is_not_here_is_bad_input() -> None:
    with pytest.raises(InputError, match="--device tpu: choose auto, cpu, cuda"):
        devices.device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cuda:0: not usable here"):
            devices.device("cuda")


def test_a_lack_of_memory_is_known_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert devices.is_out_of_memory(caught.value)
    assert devices.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert devices.is_out_of_memory(MemoryError())
    for words in (
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    ):
        assert devices.is_out_of_memory(RuntimeError(words))
    assert not devices.is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


@pytest.mark.parametrize(
    ("tiles", "avx512", "vendor", "expected"),
    [
        (False, False, "AuthenticAMD", "fp32"),
        (False, True, "AuthenticAMD", "bf16"),
        (False, True, "GenuineIntel", "fp32"),
        (True, True, "GenuineIntel", "bf16"),
    ],
)
def test_auto_is_bf16_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, tiles: bool, avx512: bool, vendor: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(devices, "_cpu", lambda: f"vendor_id\t: {vendor}\n")
    assert devices.precision("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize(
    ("capability", "bf16", "expected"), [((9, 0), True, "bf16"), ((7, 5), False, "fp16"), ((6, 1), False, "fp32")]
)
def test_auto_on_a_gpu_is_what_its_matrix_units_know(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.precision("auto", torch.device("cuda:0")) == expected


BUILT = ["sm_75", "sm_80", "sm_86", "sm_90a", "compute_100"]


@pytest.mark.parametrize(
    ("capability", "runs"),
    [((7, 0), False), ((7, 5), True), ((8, 9), True), ((9, 0), True), ((10, 3), True), ((12, 0), True)],
)
def test_a_card_without_kernels_is_named(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], runs: bool
) -> None:
    """Code for 8.6 runs on 8.9; that for 9.0a on 9.0 alone; compute_100 is compiled for any card from 10.0 on."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: BUILT)
    reason = devices.without_kernels(0)
    assert bool(reason) is not runs
    if reason:
        assert reason.startswith(f"torch {torch.__version__} has no kernels for Tesla V100 (sm_70), only for sm_75,")


def test_a_command_on_a_card_without_kernels_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with")

    monkeypatch.setattr(torch, "zeros", refuse)
    monkeypatch.setattr(devices, "without_kernels", lambda number: f"no kernels for card {number}")
    with pytest.raises(InputError, match=r"--device cuda:1: not usable here \(no kernels for card 1\); try --device"):
        devices.device("cuda:1")


def test_a_cpu_is_described_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_cpu", lambda: "processor\t: 0\nmodel name\t: AMD EPYC 9R14\n")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert devices.describe(torch.device("cpu")) == "AMD EPYC 9R14, 2 threads"
    monkeypatch.setattr(devices, "_cpu", str)
    assert devices.describe(torch.device("cpu")).endswith(", 2 threads")


def test_precisions() -> None:
    cpu = torch.device("cpu")
    assert devices.precision("auto", cpu) in ("bf16", "fp32")
    assert devices.precision("fp32", cpu) == "fp32"
    with pytest.raises(InputError, match="--precision tf32 needs a GPU"):
        devices.precision("tf32", cpu)
    with pytest.raises(InputError, match="--precision fp8: choose one of auto, fp32, tf32, bf16, fp16"):
        devices.precision("fp8", cpu)
    with pytest.raises(InputError, match="--precision fp16 is not for mps"):
        devices.precision("fp16", torch.device("mps"))
