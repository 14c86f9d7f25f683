"""Every script of benchmarks/ runs, at its smallest size. `imagenet20.py` has tests of its own."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nets import random_run
from PIL import Image

from vggrepro.data import dataset
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import FolderSource

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parents[2] / "benchmarks"
TESTED = {"imagenet20"}  # elsewhere
PARTS = {"record", "photographs", "evaluate_peer", "fuzz_inputs"}  # of other scripts
Bench = Callable[..., Any]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Runs a script's `main` in this process and an empty folder; gives the results that it stores.

    Names in capitals replace the script's constants. What a script sets of threads ends with the test.
    """
    variables, threads = dict(os.environ), torch.get_num_threads()
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results"
    monkeypatch.setattr(importlib.import_module("record"), "RESULTS", results)

    def run(script: str, *words: str, stored: str = "", **constants: Any) -> Any:
        module = importlib.import_module(script)
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
        module.main()
        return json.loads((results / f"{stored or script}.json").read_text())["results"] if stored != "no" else None

    yield run
    os.environ.clear()
    os.environ.update(variables)
    torch.set_num_threads(threads)


@pytest.fixture
def squares(photos: Path, tmp_path: Path) -> None:
    """A data set of square images, in `data`."""
    shutil.copytree(photos, tmp_path / "squares")
    for path in (tmp_path / "squares").rglob("*.jpg"):
        Image.open(path).resize((80, 80)).save(path)
    prepare(FolderSource(tmp_path / "squares"), tmp_path / "data", "demo", workers=0)


def test_every_script_has_a_test_here() -> None:
    text = Path(__file__).read_text()
    scripts = {path.stem for path in FOLDER.glob("*.py")} - TESTED - PARTS
    assert {script for script in scripts if f'bench("{script}"' not in text} == set()


def test_busy(bench: Bench) -> None:
    ways = {"ours": ("ours", {"OMP_NUM_THREADS": "1"})}
    words = ("--net", "A", "--size", "tiny", "--batch", "2", "--rounds", "1", "--steps", "1", "--others", "1")
    rows = bench("busy", *words, WAYS=ways, SETTLE={})["rows"]
    assert [row["others"] for row in rows] == [0, 1]
    assert all(row["images_per_second"]["ours"] > 0 for row in rows)


def test_demo(bench: Bench) -> None:
    """The command is not run again: `test_pipeline.py` does so. What it printed before stands in for it."""
    printed = "## Table 3\n\n| A |\n\n## Table 4\n"
    seen: list[list[str]] = []

    def run(words: list[str], **_: Any) -> SimpleNamespace:
        seen.append(words)
        return SimpleNamespace(stdout=printed)

    stored = bench("demo", "7", "--epochs", "1", stored="demo-seed7", subprocess=SimpleNamespace(run=run, PIPE=-1))
    assert seen[0] == seen[1]
    expected = ["--preset", "demo", "--init", "dirac", "--jobs", "auto", "--seed", "7", "--epochs", "1"]
    assert seen[0][-len(expected) :] == expected
    assert stored["table3"] == ["| A |"]


def test_evaluate(bench: Bench) -> None:
    found = bench("evaluate", "--size", "tiny", "--images", "2", "--rounds", "1", "--workers", "1", "--device", "cpu")
    assert len(found["protocols"]) == 5
    for row in found["protocols"]:
        assert min(row["images_per_second"].values()) > 0
    assert found["protocols"][0]["mean_difference"]["fp32"] < 1e-6


def test_exactness(bench: Bench) -> None:
    """With bf16 only what has the same order of sums is compared to the bit."""
    settings = {"again": {}, "2 micro-batches": {"micro": 2}}
    sizes = {"IMAGES": 16, "LONG_IMAGES": 16, "EPOCHS": 1, "SETTINGS": settings, "RESULTS": Path("results")}
    again, halved = bench("exactness", "--part", "table", "--precision", "bf16", **sizes)["table"]
    assert again["identical"]
    assert again["same_metrics"]
    assert halved["largest_relative_difference"] > 0


def test_fuse(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes are calls here."""
    module = importlib.import_module("fuse")

    def run(words: list[str], **_: Any) -> SimpleNamespace:
        way, folder, nets, output = words[-4:]
        answer = module.child(way, module.files_of(Path(folder))[: int(nets)], Path(output))
        return SimpleNamespace(stdout=json.dumps(answer))

    words = ("--nets", "2", "--images", "40", "--classes", "5", "--rounds", "1")
    found = bench("fuse", *words, subprocess=SimpleNamespace(run=run))
    assert {"read", "fuse", "fuse_many", "naive"} <= set(found["warm"])


def test_fuzz(bench: Bench) -> None:
    found = bench("fuzz", "--inputs", "3", "--only", "mat", IMPORTED=(), RESULTS=Path("results"))["readers"]["mat"]
    assert found["inputs"] == 3
    assert found["first_faults"] == {}


@pytest.fixture(scope="module")
def gpu_size(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module("gpu").size_of(tmp_path_factory.mktemp("gpu"), None, True)


PARTS_OF_GPU = {
    "rate": 3,
    "step": 2,
    "repeat": 3,
    "crops": 2,
    "rescaling": 3,
    "small": 3,
    "passes": 2,
    "evaluate": 5,
    "fused": 13,
}
PARTS_OF_GPU |= {"fc6": 4, "layout": 2, "nets": 4, "decoding": 2, "start": 1, "compiled peers": 0}


@pytest.mark.parametrize("part", PARTS_OF_GPU)
def test_a_part_of_gpu(gpu_size: Any, part: str) -> None:
    gpu: ModuleType = sys.modules["gpu"]
    assert gpu.PARTS.keys() == PARTS_OF_GPU.keys()
    rows = [gpu.rounded(row) for row in gpu.PARTS[part][0](gpu_size)]
    assert json.loads(json.dumps(rows)) == rows
    assert [row["failed"] for row in rows if "failed" in row] == []
    if gpu.DEVICE.type == "cpu":
        assert len(rows) == (PARTS_OF_GPU[part] if part != "decoding" else len(rows))
    if part == "repeat":
        assert [list(row.values()) for row in rows] == [[True], [9, True], [True]]
    if part in ("crops", "rescaling"):
        assert rows[0]["that_differ"] == 0


def test_gpu_stores_what_a_part_finds_and_keeps_it_where_no_time_is_left(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    found = bench("gpu", "--smallest", "--parts", "fc6", stored="gpu-smallest")
    assert len(found["fc6"]["rows"]) == 4
    again = bench("gpu", "--smallest", "--parts", "fc6,rate", "--minutes", "0", stored="gpu-smallest")
    assert again["fc6"] == found["fc6"]
    assert again["rate"]["left_out"] == "no time was left"
    assert "measure them with --parts fc6,rate" in capsys.readouterr().err


def test_gpu_keeps_nothing_of_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    gpu, record = importlib.import_module("gpu"), importlib.import_module("record")
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    gpu.Results("own").save("rate", {"rows": [1]})
    assert gpu.Results("own")._parts["rate"]["rows"] == [1]
    here = record.machine()
    monkeypatch.setattr(record, "machine", lambda: here | {"gpu": "another"})
    assert gpu.Results("own")._parts == {}


def test_gpu_cuts_off_a_part_that_takes_too_long_and_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that the part started would keep its output open, and the device busy."""
    monkeypatch.syspath_prepend(str(FOLDER))
    gpu = importlib.import_module("gpu")
    slow = "print('ready', flush=True); input(); print('{\"a\": 1}', flush=True); "
    slow += "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    real = subprocess.Popen
    monkeypatch.setattr(gpu.subprocess, "Popen", lambda words, **more: real([sys.executable, "-c", slow], **more))
    found: list[Any] = []
    began = time.monotonic()
    gpu.Part("rate", [], tmp_path).run(1.0, found.append)
    assert time.monotonic() - began < 30
    assert found[0] == {"rows": [{"a": 1}]}
    assert found[-1]["cut_off_after_seconds"] == 1.0


@pytest.mark.usefixtures("squares")
def test_initialisation(bench: Bench) -> None:
    rows = bench("initialisation", WIDTH=1 / 32, EPOCHS=1, IMAGES=4, NETS=("A",), SETS=("batch=16",))["start"]
    assert [row["initialisation"] for row in rows] == ["he", "delta"]


def test_jobs(bench: Bench) -> None:
    """One job at a time is both ways here."""
    rows = bench("jobs", "A", "--jobs", "1", "--images", "32", "--rounds", "1")["rows"]
    assert [row["net"] for row in rows] == ["A"]
    assert min(rows[0]["images_per_second"].values()) > 0


def test_loader(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "CACHE_BYTES", dataset.CACHE_BYTES)  # the script changes it: undone at the end
    importlib.import_module("prepare").write_source(tmp_path / "source", 10)
    found = bench("loader", str(tmp_path / "source"), ROUNDS=1, BATCH=8)
    assert len(found["rows"]) == 3
    assert found["rows"][0]["difference"]["pillow"]["max"] <= 1
    (row,) = bench("loader", str(tmp_path / "source"), "--limit", stored="loader-limit", ROUNDS=1, BATCH=8)["rows"]
    assert row["ratio"]["region, only decoded"] > 0


def test_lrn(bench: Bench) -> None:
    (row,) = bench("lrn", SIZES=((2, 8, 8),), ROUNDS=1)
    assert row["largest_relative_difference"] < 1e-5


@pytest.mark.usefixtures("squares")
def test_padding(bench: Bench, tmp_path: Path) -> None:
    random_run(tmp_path / "runs" / "A-256")
    (row,) = bench("padding", "A-256:256")["top1_errors"]
    assert 0 <= min(row["dense"], row["cut_out"]) <= 100


def test_prepare(bench: Bench) -> None:
    (row,) = bench("prepare", "10")["rows"]
    assert row["images"] == 10


def test_scaling(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    alone = {"1 process, 1 thread": (1, 1, True)}
    (row,) = bench("scaling", "tiny", "2", ARRANGEMENTS=alone, TURNS=1)["rows"]
    assert row["over_1_thread"] == 1
    bench("scaling", "--plan", "800", stored="no")
    assert "| 8 | 32 |" in capsys.readouterr().out


def test_search(bench: Bench) -> None:
    (row,) = bench("search", SIZES=((3, 40, 10),))
    assert row["subsets"] == 7
    assert np.isfinite(row["errors_of_single_nets"]).all()


def test_start(bench: Bench) -> None:
    contenders = dict(importlib.import_module("start").CONTENDERS)
    few = {name: contenders[name] for name in ("python", "prepare", "status")}
    found = bench("start", "1", CONTENDERS=few, BASE="python")
    assert found["python"]["beyond_libraries"] == 0
    assert found["status"]["processor"] > found["python"]["processor"]


class HereAndNow:
    """A contender of train_step.py in this process; `test_busy` has one in a process of its own."""

    error, memory, first = "", 0.0, 0.0

    def __init__(self, name: str, net: str, size: str, batch: int) -> None:
        script, device = importlib.import_module("train_step"), torch.device("cpu")
        self.name, self.seconds, self.cpu_seconds = name, list[float](), list[float]()
        matrix = script.product(name[7:], device, True) if name.startswith("matrix") else None
        self.step = matrix or script.ours(name, net, size, batch)

    def turn(self, steps: int) -> None:
        began, worked = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self.step()
        self.seconds.append(time.perf_counter() - began)
        self.cpu_seconds.append(time.process_time() - worked)

    def end(self) -> None:
        pass


def test_train_step(bench: Bench) -> None:
    words = ("--nets", "A", "--sizes", "tiny", "--only", "ours", "--batch", "2", "--rounds", "1", "--steps", "1")
    found = bench("train_step", *words, Contender=HereAndNow)
    assert found["equality"]["A tiny"]["timm"]["float64"] < 1e-9
    assert found["comparisons"][0]["rows"][0]["images_per_second"] > 0
