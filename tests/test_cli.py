"""The command line as a user meets it: the card's three lines, and one clear line for each bad input."""

from __future__ import annotations

import errno
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import program
import pytest
import torch
from conftest import Call, Result
from PIL import Image

from vggrepro import cli, recipe
from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.system import files, processes
from vggrepro.system.files import lock

FAST = ["--set", "crop=32", "--set", "width=0.0625", "--epochs", "1", "--precision", "fp32", "--workers", "1"]


def refused(result: Result, *parts: str) -> None:
    """Exit code 2, nothing on stdout, and a single line on stderr that holds `parts`."""
    code, out, err = result
    assert (code, out) == (2, "")
    last = err.rstrip().split("\n")[-1]
    assert last.startswith("vggrepro: ")
    assert "Traceback" not in err
    for part in parts:
        assert part in last


def test_the_three_lines_of_the_card(vggrepro: Call, dataset: Dataset) -> None:
    code, out, err = vggrepro("train", "E", "--scale", "256:512", *FAST)
    assert (code, out) == (0, "")
    assert "plan: A-256 (to train) → E-256 (to train) → E-384 (to train) → E-256-512 (to train)" in err
    code, out, _ = vggrepro("evaluate", "--dense", "--multicrop", "--workers", "1")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["run", "method", "Q", "top1_error", "top5_error", "images"]
    assert [line[:3] for line in lines[1:] if line[0] == "E-256-512"] == [
        ["E-256-512", method, q] for method in ("dense", "multicrop") for q in ("256", "384", "512", "256,384,512")
    ]
    code, out, err = vggrepro("report")
    assert (code, err) == (0, "")
    assert out.startswith("#")
    for number in range(1, 8):
        assert f"Table {number}" in out
    row = next(line for line in out.splitlines() if line.startswith("| E") and "[256;512]" in line)
    assert "25.5" in row  # the paper's
    code, out, _ = vggrepro("fuse")
    assert code == 0
    assert [Path(line).name for line in out.splitlines()][:5] == [f"table{n}.csv" for n in range(3, 8)]
    assert all(Path(line).is_file() for line in out.splitlines())
    code, out, _ = vggrepro("fuse", "E-384", "E-256-512", "--dense")
    assert code == 0
    assert "E-384 + E-256-512" in out
    refused(vggrepro("fuse", "E-384", "E-384"), "E-384 is named twice")
    code, out, _ = vggrepro("status")
    assert code == 0
    assert out.count("finished") == 4


def test_dry_runs_print_a_plan_and_leave_no_trace(vggrepro: Call, dataset: Dataset) -> None:
    code, out, err = vggrepro("train", "B", "--scale", "384", *FAST, "--dry-run")
    assert code == 0
    assert re.search(rf"\n  epochs +1 +option  preset: {recipe.load('demo').epochs}\n", out)
    assert re.search(r"\n  batch +16 +preset  ours: 4,800 images", out)
    assert "\n  B-384  to train  from B-256: all layers\n" in out
    total = next(line for line in out.splitlines() if line.startswith("  total"))
    assert total.split()[1] == "48"  # 30 images are one batch of 16, three runs
    assert "measuring a training step of net B on synthetic images" in err
    code, out, _ = vggrepro("finetune-scale", "A", "--scale", "256:512", "--layers", "fc", *FAST, "--dry-run")
    assert code == 0
    assert "  A-256-512-fc  to train  from A-384: all layers; only the FC layers are trained\n" in out
    code, out, _ = vggrepro("reproduce", *FAST, "--dry-run")
    assert code == 0
    assert out.count("\n  E-256-512 ") == 3  # chain, cost, disk
    assert not Path("runs").exists()
    assert not Path("tables").exists()
    refused(vggrepro("train", "A", *FAST, "--set", "batch=31", "--dry-run"), "batch = 31", "training images (30)")
    refused(vggrepro("reproduce", "--data", "nowhere", "--dry-run"), "no data set in nowhere", "vggrepro prepare")
    for words in (["--dry-run"], ["--plan", "make"]):
        refused(vggrepro("reproduce", "--source", "nope", "--data", "nowhere", *words), "'nope' does not exist")
        refused(vggrepro("reproduce", "--preset", "paper", *words), "data was prepared with preset demo, not paper")


def test_tensorboard_is_an_option(vggrepro: Call, dataset: Dataset) -> None:
    assert vggrepro("train", "A", *FAST, "--tensorboard")[0] == 0
    assert list(Path("runs/A-256/tensorboard").iterdir())
    assert vggrepro("train", "B", *FAST)[0] == 0
    assert not Path("runs/B-256/tensorboard").exists()


def test_no_data_set(vggrepro: Call) -> None:
    for words in (["train", "A"], ["evaluate"], ["fuse"], ["report"]):
        refused(vggrepro(*words), "no data set in data", "vggrepro prepare")


def test_bad_nets_and_scales(vggrepro: Call, dataset: Dataset) -> None:
    refused(vggrepro("train", "F"), "unknown net 'F'", "A, A-LRN, B, B-5x5, C, D, E")
    refused(vggrepro("train", "A", "--scale", "big"), "--scale 'big' is not a scale", "256:512")
    refused(vggrepro("train", "A", "--scale", "200"), "S = 200 is below the crop of 224")
    refused(vggrepro("train", "A", "--scale", "512:256"), "MIN 512 is larger than MAX 256")
    refused(vggrepro("finetune-scale", "D", "--scale", "256"), "D-256 continues no run of D", "train D --scale 256")
    refused(vggrepro("finetune-scale", "D", "--scale", "384", "--from", "X"), "no run 'X' in runs (there: none)")
    refused(vggrepro("train", "A", "--set", "droput=0.5"), "no value 'droput' in a recipe", "dropout")
    refused(vggrepro("train", "A", "--device", "cuda:77"), "--device cuda:77", "try --device cpu")
    assert not Path("runs").exists()


def test_bad_sources(vggrepro: Call, photos: Path) -> None:
    refused(vggrepro("prepare", "nowhere"), "'nowhere' does not exist")
    Path("apart/deep/empty").mkdir(parents=True)
    refused(vggrepro("prepare", "apart/deep/empty"), "no known layout", "train/<class>/", "parquet")
    shutil.copytree(photos, "source")
    (Path("source") / "train" / "gnu").mkdir()
    refused(vggrepro("prepare", "source"), "train and val hold different classes", "only in train: gnu")
    (Path("source") / "val" / "gnu").mkdir()
    refused(vggrepro("prepare", "source"), "train/gnu", "holds no image")
    assert not Path("data").exists()


def test_corrupt_image_is_named_and_can_be_skipped(vggrepro: Call, photos: Path) -> None:
    shutil.copytree(photos, "source")
    victim = Path("source/train/bee/2.jpg")
    victim.write_bytes(victim.read_bytes()[:300])
    refused(vggrepro("prepare", "source"), "train/bee/2.jpg", "--skip-bad")
    code, out, err = vggrepro("prepare", "source", "--skip-bad")
    assert code == 0
    assert "29 train" in out
    assert "left out 1 unreadable" in err
    assert "train/bee/2.jpg" in err


def unplanned(runs: Path, seeds: Sequence[int]) -> None:
    """Ends a reproduction before its first run."""
    raise InputError("the data set is there")


def test_five_classes_have_no_top5(vggrepro: Call, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(photos, "source")
    for split in ("train", "val"):
        shutil.rmtree(Path("source") / split / "fox")
    refused(vggrepro("prepare", "source"), "5 classes leave no top-5 error", "--no-top5")
    everything = ["reproduce", "--source", "source", "--data", "other"]
    refused(vggrepro(*everything), "accept tables without it with --no-top5")
    monkeypatch.setattr("vggrepro.reproduce.seeded", unplanned)
    refused(vggrepro(*everything, "--no-top5"), "the data set is there")
    assert vggrepro("prepare", "source", "--no-top5", "--preset", "demo")[0] == 0
    assert vggrepro("train", "A", *FAST)[0] == 0
    assert "–" in vggrepro("evaluate")[1]
    code, out, _ = vggrepro("report")
    assert code == 0
    row = next(line for line in out.splitlines() if line.startswith("| A ") and "29.6" in line)
    cells = [cell.strip() for cell in row.split("|")]
    assert cells[cells.index("10.4") - 1] == "–"


def test_run_of_another_configuration(vggrepro: Call, dataset: Dataset) -> None:
    assert vggrepro("train", "A", *FAST)[0] == 0
    refused(vggrepro("train", "A", *FAST, "--seed", "1"), "another configuration: seed is 0 there, now 1")
    refused(
        vggrepro("train", "B", *FAST, "--set", "width=0.125"),
        "A-256 is a run of another configuration: width is 0.0625",
    )
    assert vggrepro("train", "A", *FAST, "--seed", "1", "--retrain")[0] == 0


def test_q_without_a_map(vggrepro: Call, dataset: Dataset) -> None:
    refused(vggrepro("evaluate"), "no finished run in runs")
    assert vggrepro("train", "A", *FAST)[0] == 0
    refused(vggrepro("evaluate", "--q", "200"), "--q 200", "leaves no map", "224")
    refused(vggrepro("evaluate", "--q", "224:1000000000:1"), "--q 4097", "4096 or less")
    refused(vggrepro("evaluate", "--q", "many"), "--q 'many'", "256,384,512")
    assert not Path("runs/A-256/posteriors").exists()


def test_slips_on_the_command_line(vggrepro: Call, dataset: Dataset) -> None:
    refused(vggrepro("train", "A", "--epochs", "0"), "--epochs", "see --help")
    refused(vggrepro("trian", "A"), "trian")
    refused(vggrepro("train"), "NET", "see --help")
    refused(vggrepro("prepare", "demo", "--to", ""), "an argument is empty")
    refused(vggrepro("fuse", "--runs", "nowhere"), "no run in nowhere")
    for command in ("evaluate", "archive"):
        refused(vggrepro(command, "D-256", "E-256", "D-256"), "D-256 is named twice")
    refused(vggrepro("report", "--runs", "nowhere"), "no run in nowhere")
    refused(vggrepro("status", "--runs", "data/dataset.json"), "--runs data/dataset.json is a file")
    for folders in (",", "runs,runs/seed1"):
        refused(vggrepro("status", "--runs", folders), f"--runs {folders}: this command takes one folder")
    refused(vggrepro("claims", "--runs", ","), "--runs , names no folder")
    refused(vggrepro("train", "A", "--set", "batch=31"), "batch = 31", "training images (30)")
    refused(vggrepro("train", "A", "--device", "gpu"), "choose auto, cpu, cuda")
    assert not Path("tables").exists()
    assert not Path("runs/A-256/config.json").exists()


def test_a_refused_sheet_prints_nothing_and_json_writes_one(vggrepro: Call, dataset: Dataset) -> None:
    refused(vggrepro("dataset", "--sheet", "data"), "--sheet data is a folder")
    code, out, _ = vggrepro("dataset", "--sheet", "sheet.png", "--verify", "--format", "json")
    assert (code, out[0]) == (0, "{")
    assert Path("sheet.png").stat().st_size


def test_a_run_cannot_start_from_itself(vggrepro: Call, dataset: Dataset) -> None:
    assert vggrepro("train", "a", *FAST)[0] == 0
    before = Path("runs/A-256/weights.safetensors").read_bytes()
    refused(vggrepro("train", "A", *FAST, "--init", "A-256", "--retrain"), "A-256 cannot start from itself")
    assert Path("runs/A-256/weights.safetensors").read_bytes() == before


def test_parents_are_not_trained_for_a_target_that_is_refused(vggrepro: Call, dataset: Dataset) -> None:
    assert vggrepro("train", "B", *FAST, "--init", "he")[0] == 0
    refused(vggrepro("train", "B", *FAST), "B-256 is a run of another configuration: it started from he, now it would")
    assert not Path("runs/A-256").exists()


def test_retrained_parents_are_said(vggrepro: Call, dataset: Dataset) -> None:
    assert vggrepro("train", "B", *FAST)[0] == 0
    assert vggrepro("train", "A", *FAST, "--seed", "1", "--retrain")[0] == 0
    code, _, err = vggrepro("train", "B", *FAST, "--scale", "384")
    assert code == 0
    assert "note: B-256 started from an earlier A-256, which was trained again since" in err
    assert vggrepro("evaluate", "B-256", "--q", "256")[0] == 0
    assert "B-256 started from an earlier A-256, which was trained again since." in vggrepro("report")[1]


def test_reproduce_refuses_other_options_than_before(vggrepro: Call, dataset: Dataset) -> None:
    assert vggrepro("train", "A", *FAST)[0] == 0
    result = vggrepro("reproduce", *FAST, "--seed", "1")
    refused(result, "A-256 is a run of another configuration: seed is 0 there, now 1")


def test_evaluate_wants_the_classes_that_a_run_was_trained_for(vggrepro: Call, dataset: Dataset, photos: Path) -> None:
    assert vggrepro("train", "A", *FAST)[0] == 0
    shutil.copytree(photos, "source")
    for split in ("train", "val"):
        (Path("source") / split / "ant").rename(Path("source") / split / "zebu")
    assert vggrepro("prepare", "source", "--to", "other", "--preset", "demo")[0] == 0
    refused(vggrepro("evaluate", "--data", "other"), "trained for other classes or another order", "--data")


def test_second_writer(vggrepro: Call, dataset: Dataset) -> None:
    with lock(Path("runs/A-256"), "vggrepro train A-256"):
        refused(vggrepro("train", "A", *FAST), "runs/A-256 is being written by vggrepro train A-256", "wait")


def test_disk_full(vggrepro: Call, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        refused(vggrepro("train", "A", *FAST), "No space left on device", "run the same command again")
    assert not list(Path("runs").rglob("*.tmp"))
    assert vggrepro("train", "A", *FAST)[0] == 0


def test_folder_that_cannot_be_written(vggrepro: Call, dataset: Dataset) -> None:
    Path("plain").write_text("a file")
    refused(vggrepro("train", "A", *FAST, "--runs", "plain/runs"), "plain/runs", "can be written")
    refused(vggrepro("prepare", "--to", "plain/data"), "plain/data", "can be written")


def test_a_value_that_is_no_choice(vggrepro: Call) -> None:
    result = vggrepro("report", "--format", "nope")
    refused(result, "Invalid value for '--format': 'nope' is not one of 'md', 'html', 'latex', 'csv' (see --help)")


def test_one_image_and_its_slips(vggrepro: Call, dataset: Dataset, photos: Path) -> None:
    assert vggrepro("train", "A", *FAST)[0] == 0
    image, folder = str(photos / "val" / "bee" / "0.jpg"), Path("folder")
    folder.mkdir()
    call = ["predict", image, "--run", "A-256", "--q", "512"]
    code, out, _ = vggrepro(*call, "--heatmap", "map.png")
    assert (code, out.splitlines()[-1]) == (0, "heatmap: map.png")
    assert Path("map.png").stat().st_size
    refused(vggrepro(*call, "--heatmap", "folder"), "folder: Is a directory", "can be written")
    refused(vggrepro(*call, "--heatmap", "map.png/map.png"), "map.png: File exists", "can be written")
    refused(vggrepro(*call, image, "--heatmap", "map.png"), "--heatmap draws one image, 2 are given")
    refused(vggrepro(*call, "--q", "large"), "--q 'large'", "256,384,512")
    refused(vggrepro("predict", image, "--run", "B-256"), "no run 'B-256' in runs (there: A-256)")
    assert not list(folder.iterdir())


def test_submissions_name_their_runs(vggrepro: Call, dataset: Dataset) -> None:
    assert vggrepro("train", "A", *FAST)[0] == 0
    refused(vggrepro("fuse", "--submission", "s.txt"), "--submission: name the runs")
    refused(vggrepro("fuse", "A-256", "--submission", "s.txt"), "val-dense-q224.parquet does not exist; run 'vggrepro")
    assert vggrepro("evaluate")[0] == 0
    refused(vggrepro("fuse", "A-256", "--submission", "s.txt"), "has no ILSVRC devkit ids")
    assert not Path("s.txt").exists()


@pytest.mark.parametrize("kind", [RuntimeError, torch.distributed.DistNetworkError])
def test_a_lost_process_is_said_in_a_line(
    vggrepro: Call, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def lose(device: torch.device) -> None:
        raise kind("[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234")

    monkeypatch.setattr(processes, "join_processes", lose)
    result = vggrepro("train", "A", *FAST)
    refused(result, "no connection to another process", "Connection closed by peer", "run the same command")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")])
def test_a_lack_of_memory_is_said_in_a_line(
    vggrepro: Call, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fall_short(device: torch.device) -> None:
        raise error

    monkeypatch.setattr(processes, "join_processes", fall_short)
    refused(vggrepro("train", "A", *FAST), "memory fell short", "a smaller --micro-batch; finished work is kept")


def test_a_step_that_cannot_be_compiled_is_said_in_a_line(
    vggrepro: Call, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine without a C++ compiler."""

    def fail(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> None:
        raise FileNotFoundError("no C++ compiler\nmore lines")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=fail))
    result = vggrepro("train", "A", *FAST, "--compile")
    refused(result, "--compile: the step cannot be compiled here", "no C++ compiler", "leave out --compile")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"]])
def test_help_needs_no_large_library(words: list[str]) -> None:
    done = program.run("quick_help", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_names_arguments_as_manuals_do(vggrepro: Call) -> None:
    usage = {"train": "[OPTIONS] NET", "import": "[OPTIONS] NET [WEIGHTS]", "fuse": "[OPTIONS] [RUN]..."}
    for name in cli.EXAMPLES:
        out = vggrepro(name, "--help")[1]
        assert not re.search(r"<(str|int|float|path|list)|\{|\[\[", out), name
        assert out.splitlines()[0].endswith(usage.get(name, "")), name
        assert not re.search(r"x[<>]=|\[\]", out), name
    assert "--epochs N" in vggrepro("train", "--help")[1]


def test_unexpected_failure_keeps_its_traceback(
    vggrepro: Call, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "stack", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        vggrepro("train", "A", *FAST)


def test_greyscale_and_cmyk_images_train(vggrepro: Call, photos: Path) -> None:
    shutil.copytree(photos, "source")
    for number, mode in enumerate(("L", "CMYK", "1")):
        path = Path(f"source/train/cat/{number}.jpg")
        Image.open(path).convert(mode).convert("L" if mode == "1" else mode).save(path, "JPEG")
    path = Path("source/train/cat/3.jpg")
    Image.open(path).convert("RGBA").save(path, "PNG")
    assert vggrepro("prepare", "source", "--preset", "demo")[0] == 0
    assert vggrepro("train", "A", *FAST)[0] == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "utf-8"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=["latin-1", "ascii", "utf-8", "the locale C"],
)
def test_any_output_encoding_shows_whole_documents(environment: dict[str, str]) -> None:
    text = "Q – × é \\udce9"
    written = text.encode("ascii", "backslashreplace").decode()  # Python reads its -c by the locale
    command = (
        f"import sys; from vggrepro import cli; cli.leave_with = lambda app: print('{written}') or "
        f"print('{written}', file=sys.stderr); cli.main()"
    )
    command = command.encode("ascii", "backslashreplace").decode()  # Python may refuse other commands in the locale C
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    run = subprocess.run([sys.executable, "-c", command], env=clean | environment, capture_output=True, check=True)
    assert run.stdout.decode("utf-8") == run.stderr.decode("utf-8") == f"{text}\n"


def test_without_fcntl_one_line_says_which_systems_it_runs_on() -> None:
    command = "import importlib.util as u; u.find_spec = lambda name: None; from vggrepro import cli; cli.main()"
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    said = "vggrepro: runs on Linux and macOS (its locks are fcntl's); on Windows, run it in WSL\n"
    assert (run.returncode, run.stdout, run.stderr) == (2, "", said)
