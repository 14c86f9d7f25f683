"""The whole pipeline in miniature, as real processes: killed with SIGKILL again and again, it ends the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vggrepro import paper
from vggrepro.nets import weights
from vggrepro.runs.folder import RunFolder

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "vggrepro", *words]


def reproduce(photos: Path) -> list[str]:
    values = ("crop=32", "width=0.0625", "batch=8")
    sets = [word for value in values for word in ("--set", value)]
    options = ["--epochs", "1", "--precision", "fp32", "--workers", "1", "--checkpoint-minutes", "0"]
    return command("reproduce", "--source", str(photos), "--preset", "demo", *options, *sets)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that must be the same whatever happened on the way."""
    patterns = ("data/*", "runs/*/weights.safetensors", "runs/*/posteriors/*.parquet", "tables/**/*")
    paths = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_killed_again_and_again_it_gives_the_same_tables(photos: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    began = time.monotonic()
    done = subprocess.run(
        reproduce(photos), cwd=whole, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    whole_seconds = time.monotonic() - began

    kills = 0
    moments = np.random.default_rng(0).uniform(0.25, 0.6, 6) * whole_seconds
    for seconds in moments:  # each life gets on a little; later ones start where the last one fell
        process = subprocess.Popen(
            reproduce(photos), cwd=cut, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            kills += process.wait() == -signal.SIGKILL
        else:
            break
    last = subprocess.run(
        reproduce(photos), cwd=cut, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert last.returncode == 0, last.stderr
    assert kills >= 2
    assert last.stdout == done.stdout
    expected, found = contents(whole), contents(cut)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert not list(cut.rglob("*.tmp"))
    assert not list(cut.rglob("parts"))

    for run in paper.all_runs():
        assert RunFolder(whole / "runs" / run.name).finished
    for number in (3, 4, 5, 6):  # every row is filled
        section = done.stdout.split(f"Table {number}")[1].split("Table ")[0]
        rows = [line for line in section.splitlines() if line.startswith("|")][2:]
        assert len(rows) == len(paper.rows(number))
        assert not any("Not run" in line or "Not used" in line for line in section.splitlines())


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_say_how_to_resume(photos: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    prepared = subprocess.run(command("prepare", str(photos), "--preset", "demo"), cwd=tmp_path, check=False)
    assert prepared.returncode == 0
    train = command("train", "A", "--epochs", "2000", "--set", "patience=9999", "--workers", "1", "--precision", "fp32")
    process = subprocess.Popen(
        train, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr
    for line in process.stderr:
        if "epoch 2/2000" in line:
            process.send_signal(number)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == code
    assert "run the same command to resume" in rest
    assert "Traceback" not in rest
    run = RunFolder(tmp_path / "runs" / "A-256")
    _, state = weights.load(run.checkpoint_path)
    assert len(state["history"]) >= 2
    assert not run.finished
