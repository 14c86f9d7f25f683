"""The doctor finds what is broken, by itself, and never breaks with it."""

from __future__ import annotations

import builtins
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nets import random_run
from PIL import Image
from typer.testing import CliRunner

from vggrepro.cli import app
from vggrepro.data import synsets
from vggrepro.data.dataset import Dataset, load
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import FolderSource
from vggrepro.doctor import diagnose, machine, sanity
from vggrepro.doctor.diagnosis import BROKEN, OK, WARNING, Diagnosis, guarded, table
from vggrepro.nets import weights
from vggrepro.nets.trained import Trained
from vggrepro.paper import Architecture
from vggrepro.runs.folder import RunFolder
from vggrepro.system import devices
from vggrepro.system.files import read_json, write_json


def only(found: Diagnosis | list[Diagnosis]) -> Diagnosis:
    return found if isinstance(found, Diagnosis) else found[0]


def of(diagnoses: list[Diagnosis], check: str) -> Diagnosis:
    return next(diagnosis for diagnosis in diagnoses if diagnosis.check == check)


# The command


def test_all_is_well(dataset: Dataset, tmp_path: Path) -> None:
    random_run(tmp_path / "runs" / "A-256")
    command = ["doctor", "--data", str(dataset.folder), "--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert not [line for line in lines if line.startswith("broken")]
    columns = [line.split(maxsplit=2) for line in lines]
    assert ["ok", "python"] in [column[:2] for column in columns]
    count = Architecture("A", 6, 64, 1 / 32).parameters
    assert any(line.endswith(f"finished, {count:,} weights, all finite") for line in lines)
    assert any("photos: 30 train, 18 val; 6 classes, preset demo" in line for line in lines)


def test_a_broken_run_ends_with_2(dataset: Dataset, tmp_path: Path) -> None:
    run = random_run(tmp_path / "runs" / "A-256")
    data = bytearray(run.weights_path.read_bytes())
    data[-5] ^= 1
    run.weights_path.write_bytes(data)
    command = ["doctor", "A-256", "--data", str(dataset.folder), "--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "its contents do not have its hash" in result.stdout


def test_the_table_has_columns() -> None:
    diagnoses = [Diagnosis(OK, "a", "fine"), Diagnosis(WARNING, "longer", "odd", "do this")]
    assert table(diagnoses) == "ok       a       fine\nwarning  longer  odd\n" + " " * 17 + "→ do this"


def test_a_check_that_fails_is_a_finding() -> None:
    def check() -> Diagnosis:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    (found,) = guarded("x", check)
    assert (found.state, found.check) == (BROKEN, "x")
    assert found.result == "the check failed: RuntimeError: operator torchvision::nms does not exist"


# The installation


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
    assert only(machine.device()).result == "Tesla V100, 16 GB; Tesla V100, 16 GB"
    monkeypatch.setattr(devices, "without_kernels", lambda number: "no kernels" if number else "")
    found = only(machine.device())
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


# The machine


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


# The data set


def test_no_data_set_is_a_warning_a_damaged_one_is_broken(dataset: Dataset, tmp_path: Path) -> None:
    assert only(diagnose.data_set(tmp_path / "none")).state == WARNING
    next(dataset.folder.glob("train-*.arrow")).unlink()
    assert of(diagnose.data_set(dataset.folder), "shards") == Diagnosis(
        BROKEN, "shards", "train-00000.arrow is missing", "prepare the data set again"
    )
    (dataset.folder / "dataset.json").write_text("{")
    (found,) = guarded("data set", lambda: diagnose.data_set(dataset.folder))
    assert (found.state, "damaged JSON" in found.result) == (BROKEN, True)


def test_a_cut_shard_is_named(dataset: Dataset) -> None:
    shard = next(dataset.folder.glob("val-*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-300])
    found = of(diagnose.data_set(dataset.folder), "shards")
    assert found.state == BROKEN
    assert found.result.startswith(f"{shard}: damaged shard")


def reordered(dataset: Dataset, classes: list[str]) -> Dataset:
    path = dataset.folder / "dataset.json"
    write_json(path, read_json(path) | {"classes": classes, "words": classes})
    return load(dataset.folder)


def test_class_order(dataset: Dataset) -> None:
    assert diagnose.class_order(dataset).result == "names, sorted (no wnids)"
    wnids = sorted(synsets.table())[:6]
    assert diagnose.class_order(reordered(dataset, wnids)).result == "sorted by wnid"
    found = diagnose.class_order(reordered(dataset, wnids[::-1]))
    assert (found.state, found.result[:25]) == (WARNING, "the wnids are not sorted:")


def test_the_first_validation_images(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of the 1000 classes, with the labels of another order."""
    import vggrepro.data.dataset as stage

    class Few:
        labels = np.array([65, 970, 230, 489])

        def __init__(self, dataset: Dataset, name: str) -> None:
            assert name == "val"

        def __len__(self) -> int:
            return 4

        def key(self, place: int) -> str:
            return f"val/ILSVRC2012_val_{place + 1:08}.JPEG"

    monkeypatch.setattr(stage, "Split", Few)
    path = dataset.folder / "dataset.json"
    wnids = list(synsets.table())
    write_json(path, read_json(path) | {"classes": wnids, "words": wnids, "devkit_ids": [1] * 1000})
    (found,) = guarded("class order", lambda: diagnose.class_order(load(dataset.folder)))
    assert (found.state, "ILSVRC2012_val_00000004 has class index 489, not 809" in found.result) == (BROKEN, True)
    Few.labels = np.array([65, 970, 230, 809])
    expected = "sorted by wnid; the first 4 validation images have the known classes"
    assert diagnose.class_order(load(dataset.folder)) == Diagnosis(OK, "class order", expected)


# Runs


def test_runs_of_every_state(dataset: Dataset, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert only(diagnose.all_runs(dataset.folder, runs, (), 9)).result == f"none in {runs}"
    random_run(runs / "A-256")
    unfinished = random_run(runs / "B-256", net="B")
    unfinished.weights_path.unlink()
    nan = random_run(runs / "C-256", net="C")
    tensors, state = weights.load(nan.weights_path)
    tensors["conv1_1.bias"][0] = torch.nan
    weights.save(nan.weights_path, tensors, state)
    (random_run(runs / "D-256", net="D").config_path).write_text(json.dumps({"net": "D"}))
    diagnoses = diagnose.all_runs(dataset.folder, runs, (), 60)
    assert [(f.state, f.check) for f in diagnoses] == [
        (OK, "A-256"),
        (OK, "B-256"),
        (BROKEN, "C-256"),
        (BROKEN, "D-256"),
    ]
    assert diagnoses[1].result == "not finished"
    assert diagnoses[2].result == "conv1_1.bias holds values that are no finite numbers"
    late = diagnose.all_runs(dataset.folder, runs, (), -1)
    assert [f.result for f in late] == ["not checked, to save time: A-256, B-256, C-256, D-256"]
    named = diagnose.all_runs(dataset.folder, runs, ["A-256"], -1)
    assert [f.check for f in named] == ["A-256"]


# Imported nets on images


def coloured(folder: Path) -> Dataset:
    """Two classes, red and blue images, 16 of each to validate."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 16)):
        for name, colour in (("blue", (30, 60, 200)), ("red", (200, 60, 30))):
            (folder / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(rng.normal(colour, 10, (64, 64, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "photos" / split / name / f"{number}.png")
    return prepare(FolderSource(folder / "photos"), folder / "data", "demo", workers=0, allow_few_classes=True)


def colour_net(folder: Path, *, bgr: bool = False, mean: float = 115.0) -> RunFolder:
    """Net A that hands blue minus red, and red minus blue, through all its layers to the two classes."""
    run = random_run(folder / "runs" / "A-256", classes=2, imported={"format": "by hand"})
    write_json(run.config_path, read_json(run.config_path) | {"mean_rgb": [mean] * 3, "input_scale": 0.01})
    tensors = {n: torch.zeros(s) for n, s in Architecture("A", 2, 64, 1 / 32).shapes().items()}
    for name, tensor in tensors.items():
        if name.endswith(".weight") and tensor.ndim == 4:
            for channel in range(2):
                tensor[channel, channel if name != "conv1_1.weight" else 0, 1, 1] = 1
    first = tensors["conv1_1.weight"][:2, :, 1, 1]
    first[:] = torch.tensor([[-1.0, 0, 1], [1, 0, -1]])
    if bgr:
        first[:] = first.flip(1)
    for name in ("fc6", "fc7", "fc8"):
        weight = tensors[f"{name}.weight"]
        positions = 4 if name == "fc6" else 1
        for channel in range(2):
            weight[channel, channel * positions : (channel + 1) * positions] = 1 / positions
    weights.save(run.weights_path, tensors, {})
    return run


def test_an_imported_net_on_a_handful_of_images(tmp_path: Path) -> None:
    dataset = coloured(tmp_path)
    run = colour_net(tmp_path)
    found = sanity.check(run, Trained.load(run), dataset)
    assert found == Diagnosis(OK, "A-256", "32 of 32 images right (chance: 16)")
    run = colour_net(tmp_path, bgr=True)
    diagnoses = diagnose.all_runs(dataset.folder, tmp_path / "runs", (), 60)
    assert [(f.state, f.result) for f in diagnoses][1] == (
        WARNING,
        "0 of 32 images right (chance: 16), but 32 with red and blue swapped",
    )
    write_json(run.config_path, read_json(run.config_path) | {"class_names": ["red", "blue"]})
    found = sanity.check(run, Trained.load(run), dataset)
    assert (found.state, found.result) == (
        OK,
        f"not tried on images: its classes are not those of {dataset.folder}",
    )


def sharp(best: np.ndarray, classes: int, top: float = 0.9) -> np.ndarray:
    """Posteriors of which `best` have `top`, the rest evenly."""
    result = np.full((len(best), classes), (1 - top) / (classes - 1))
    result[np.arange(len(best)), best] = top
    return result


def test_what_is_concluded_from_posteriors() -> None:
    rng = np.random.default_rng(0)
    labels, classes = rng.integers(0, 1000, 16), 1000
    guesses = (labels + 1 + rng.integers(0, 900, 16)) % 1000
    right, wrong, even = sharp(labels, classes), sharp(guesses, classes), np.full((16, classes), 1 / classes)
    half = np.where(np.arange(16)[:, None] < 8, right, wrong)
    judged = lambda *four, ids=(): sanity.diagnosis_of("D", np.stack(four), labels, ids)  # noqa: E731
    assert judged(right, half, half, half) == Diagnosis(OK, "D", "16 of 16 images right (chance: 0.016)")
    assert judged(half, wrong, right, wrong).result == "8 of 16 images right (chance: 0.016), but 16 without the mean"
    assert judged(half, wrong, half, right).result.endswith(", but 16 with the data set's mean")
    assert judged(wrong, wrong, wrong, wrong).result == "0 of 16 images right (chance: 0.016): no better than guessing"
    assert judged(even, even, even, even).result.endswith("nearly the same posterior for all classes")
    order = rng.permutation(1000)
    moved = sharp(order[labels], classes)
    found = judged(moved, moved, moved, moved, ids=tuple((order + 1).tolist()))
    assert found.result.endswith(", but 16 if its classes are in the devkit's order")
    assert found.state == WARNING


def test_chance() -> None:
    assert sanity.at_least(0, 16, 0.001) == pytest.approx(1)
    assert sanity.at_least(1, 16, 0.001) == pytest.approx(1 - 0.999**16)
    assert sanity.at_least(2, 2, 0.5) == pytest.approx(0.25)
