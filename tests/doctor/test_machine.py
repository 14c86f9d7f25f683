"""The checks of the installation and the machine."""

from __future__ import annotations

import builtins
import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vggrepro.doctor import machine
from vggrepro.doctor.diagnosis import BROKEN, OK, WARNING, Diagnosis
from vggrepro.system import devices


def test_torchvision_made_for_another_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def broken(name: str, *rest: Any) -> Any:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")
        return real(name, *rest)

    versions = {"torch": "2.15.0", "torchvision": "0.21.0"}
    monkeypatch.setattr(machine, "installed", versions.get)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["numpy", "torch==2.6.0"])
    found = machine.torchvision_()
    assert (found.state, found.advice) == (WARNING, "pip install 'torch==2.6.0' 'torchvision==0.21.0'")
    monkeypatch.setattr(builtins, "__import__", broken)
    found = machine.torchvision_()
    assert found.state == BROKEN
    assert found.result == "0.21.0 does not fit torch 2.15.0 (operator torchvision::nms does not exist)"


def test_a_card_that_torch_has_no_kernels_for_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="Tesla V100", total_memory=16 << 30)
    for name, value in (("is_available", True), ("device_count", 2), ("get_device_properties", card)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(devices, "without_kernels", lambda number: "")
    assert machine.device().result == "Tesla V100, 16 GB; Tesla V100, 16 GB"
    monkeypatch.setattr(devices, "without_kernels", lambda number: "no kernels" if number else "")
    found = machine.device()
    assert (found.state, found.result) == (BROKEN, "no kernels")


def test_packages_and_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["torch>=2.6", "pandas>=2.2", "scipy>=1.11", 'onnx>=1.16; extra == "onnx"', 'h5py; extra == "keras"']
    lines += ['vggrepro[onnx]; extra == "dev"', 'pytest>=8; extra == "dev"']
    monkeypatch.setattr(machine, "declared", lambda: lines)
    versions = {"torch": "2.15.0+cu128", "pandas": "2.1.4", "h5py": "3.1"}
    monkeypatch.setattr(machine, "installed", versions.get)
    found = machine.packages()
    assert (found.state, found.result) == (BROKEN, "pandas 2.1.4 is older than 2.2, scipy is missing")
    versions |= {"pandas": "3.0", "scipy": "1.11.0"}
    assert machine.packages() == Diagnosis(OK, "packages", "torch 2.15.0+cu128, pandas 3.0, scipy 1.11.0")
    found = machine.extras()
    assert found.result == "onnx: lacks onnx; keras: installed"
    assert found.advice == "pip install 'vggrepro[onnx]', if you want them"


def test_a_checkout_says_its_requirements_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata of an editable install may be older than the extras."""
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["torch>=2.6"])
    assert machine.declared(tmp_path) == ["torch>=2.6"]
    text = '[project]\nname = "NAME"\ndependencies = ["pandas>=2.2"]\n[project.optional-dependencies]\n'
    text += """fast = ["x>=4; platform_machine in 'x86_64' and sys_platform != 'darwin'"]\n"""
    for name, expected in (("vggrepro", ["pandas", "x"]), ("other", ["torch"])):
        (tmp_path / "pyproject.toml").write_text(text.replace("NAME", name))
        lines = machine.declared(tmp_path)
        monkeypatch.setattr(machine, "declared", lambda lines=lines: lines)
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(sys, "platform", "linux")
        assert [package for package, _, _ in machine.requirements()] == expected
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        assert [package for package, _, _ in machine.requirements()] == expected[:1]
        monkeypatch.undo()
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["torch>=2.6"])


def test_this_checkouts_extras_are_listed() -> None:
    extras = {extra for _, _, extra in machine.requirements()}
    assert {"", "onnx", "keras", "tensorboard", "dev"} <= extras


@pytest.mark.parametrize(("text", "expected"), [("2.15.0+cu128", (2, 15, 0)), ("3.0", (3, 0)), ("1.0.0rc1", (1, 0, 0))])
def test_version_numbers(text: str, expected: tuple[int, ...]) -> None:
    assert machine.numbers(text) == expected


def test_disk_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.disk(tmp_path / "not" / "yet", tmp_path)[0].state == OK
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12, 2 * 10**9))
    found = machine.disk(tmp_path, tmp_path)
    assert found == [
        Diagnosis(WARNING, f"disk of {tmp_path}", "2.0 GB free", "training a net of the paper's width takes up to 5 GB")
    ]
    monkeypatch.setattr(machine, "MEMORY_GB", 10**6)
    assert machine.memory().state == WARNING


def test_idle_cores_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert machine.threads() == Diagnosis(
        WARNING,
        "threads",
        "torch computes with 1 of 8 cores",
        "unset OMP_NUM_THREADS, unless other work needs the cores",
    )
