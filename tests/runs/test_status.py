"""How far runs are, from their files alone."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from planted import make_run, started

from vggrepro.paper import S256, Run, all_runs
from vggrepro.runs import status as run_status
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import lock, read_json


def test_the_state_of_a_run_by_its_files(tmp_path: Path) -> None:
    assert run_status.status(RunFolder(tmp_path / "A-256")).state == "not started"
    where = {"epoch": 2.5, "epochs": 74, "learning_rate": 0.001, "images_per_second": 250.0, "seconds_left": 90.0}
    run = started(tmp_path, **where)
    seen = run_status.status(run)
    assert (seen.state, seen.epoch, seen.note) == ("interrupted", "2.5/74", "run the same train command to resume")
    assert (seen.learning_rate, seen.images_per_second, seen.seconds_left) == (0.001, 250.0, 90.0)
    assert (seen.top1_error, seen.top5_error, seen.checkpoint_age) == (78.0, 48.0, None)
    with lock(run.path, "vggrepro train A"):
        seen = run_status.status(run)
        assert seen.state == "training"
        assert seen.note.startswith(f"vggrepro train A (process {os.getpid()} on ")
    run.progress_path.unlink()
    run.weights_path.touch()
    seen = run_status.status(run)
    assert (seen.state, seen.epoch, seen.note) == ("finished", "2", "")
    assert (seen.learning_rate, seen.images_per_second, seen.seconds_left) == (0.01, 102.0, None)
    run.config_path.write_text(json.dumps(read_json(run.config_path) | {"imported": {"file": "vgg.npz"}}))
    assert (run_status.status(run).state, run_status.status(run).epoch, run_status.status(run).note) == (
        "finished",
        "",
        "imported",
    )
    for path, why in ((run.metrics_path, "damaged (a line"), (run.config_path, "damaged JSON")):
        path.write_text("[]\n[]\n{")
        seen = run_status.status(run)
        assert seen.state == "damaged"
        assert seen.note.startswith(f"{path}: {why}")


@pytest.mark.parametrize("name", ["checkpoint_path", "previous_checkpoint_path"])
def test_the_age_of_the_newest_checkpoint(tmp_path: Path, name: str) -> None:
    run = started(tmp_path)
    run.previous_checkpoint_path.touch()
    os.utime(run.previous_checkpoint_path, (0, 0))
    path: Path = getattr(run, name)
    path.touch()
    then = time.time() - 500
    os.utime(path, (then, then))
    age = run_status.status(run).checkpoint_age
    assert age is not None
    assert 500 <= age < 530
    run.weights_path.touch()
    assert run_status.status(run).checkpoint_age is None


def test_all_runs_of_the_paper_and_others_are_listed_and_counted(tmp_path: Path) -> None:
    started(tmp_path, epoch=1.5, epochs=74, seconds_left=3725.0)
    make_run(tmp_path, Run("A", S256), name="mine")
    rows = run_status.statuses(tmp_path)
    assert [row.run for row in rows] == [*(run.name for run in all_runs()), "mine"]
    assert (rows[0].state, rows[0].epoch, rows[0].seconds_left) == ("interrupted", "1.5/74", 3725.0)
    assert (rows[-2].state, rows[-2].seconds_left, rows[-2].checkpoint_age) == ("not started", None, None)
    assert run_status.counted(rows) == "1 of 15 finished, 1 interrupted"
