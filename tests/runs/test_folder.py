"""Run folders: which exist, what they hold, and what damaged ones say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from planted import make_run, started

from vggrepro.errors import InputError
from vggrepro.paper import JITTER, S256, S384, Run
from vggrepro.runs import folder as run_folders
from vggrepro.runs.metrics import Epoch, Steps, parsed
from vggrepro.system.files import read_json


def test_the_papers_runs_come_first_in_its_order(tmp_path: Path) -> None:
    for name, run in (("zebra", Run("A", S256)), ("Ant", Run("A", S256))):
        make_run(tmp_path, run, name=name)
    for run in (Run("E", JITTER), Run("D", S384), Run("A", S256), Run("D", S256)):
        make_run(tmp_path, run)
    (tmp_path / "no run").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "D-256" / "weights.safetensors").unlink()
    names = ["A-256", "D-256", "D-384", "E-256-512", "Ant", "zebra"]
    assert [run.name for run in run_folders.existing(tmp_path)] == names
    assert [run.name for run in run_folders.finished(tmp_path)] == [name for name in names if name != "D-256"]
    assert run_folders.existing(tmp_path / "none") == []


def test_a_run_is_found_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "runs", Run("A", S256))
    assert run_folders.find_run(tmp_path / "runs", "A-256") == run
    assert run_folders.find_run(tmp_path / "other", str(run.path)).path == run.path
    monkeypatch.chdir(tmp_path)
    assert run_folders.find_run(Path("other"), "runs/A-256").path == Path("runs/A-256")


def test_a_run_that_is_not_there_is_named_with_its_command(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        run_folders.find_run(tmp_path, "D-256")
    assert str(error.value) == (
        f"no run 'D-256' in {tmp_path} (there: none); train it with 'vggrepro train D --scale 256'"
    )
    make_run(tmp_path, Run("B", S256))
    make_run(tmp_path, Run("A", S256))
    with pytest.raises(InputError) as error:
        run_folders.find_run(tmp_path, "mine")
    assert str(error.value) == (
        f"no run 'mine' in {tmp_path} (there: A-256, B-256); train it with 'vggrepro train NET --scale S'"
    )


def test_a_config_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, Run("A", S256))
    config, whole = run.config(), read_json(run.config_path)
    assert (config.net, config.crop, config.width) == ("A", 64, 0.125)

    def said(content: str) -> str:
        run.config_path.write_text(content)
        with pytest.raises(InputError) as error:
            run.config()
        assert "\n" not in str(error.value)
        assert str(error.value).startswith(f"{run.config_path}: ")
        return str(error.value).removeprefix(f"{run.config_path}: ")

    assert said("{").startswith("damaged JSON")
    assert said("[1]").startswith("holds no JSON object")
    lacking = {name: value for name, value in whole.items() if name not in ("crop", "mean_rgb")}
    assert said(json.dumps(lacking)) == "lacks crop, mean_rgb; restore the file or remove its folder"
    for name in ("crop", "width", "classes", "input_scale"):
        for wrong in ("64", None, []):
            expected = f"{name} is no number; restore the file or remove its folder"
            assert said(json.dumps(whole | {name: wrong})) == expected
    run.config_path.unlink()
    with pytest.raises(InputError, match=r"A-256 is no run: it has no config.json; 'vggrepro status' lists the runs"):
        run.config()


def test_metrics_leave_out_a_line_that_is_being_written(tmp_path: Path) -> None:
    run = started(tmp_path)
    assert [epoch.epoch for epoch in run.epochs()] == [1, 2]
    assert [getattr(line, "step", None) for line in run.metrics()] == [5, None, 15, None]
    whole = run.metrics_path.read_text()
    run.metrics_path.write_text(whole[:-5])
    assert [epoch.epoch for epoch in run.epochs()] == [1]
    run.metrics_path.write_text(whole.replace('"loss"', "loss", 1))
    with pytest.raises(InputError, match=r"metrics.jsonl: damaged \(.*\); restore it, or remove its bad lines"):
        run.metrics()
    run.metrics_path.unlink()
    assert run.metrics() == []


def test_removing_progress_leaves_the_results(tmp_path: Path) -> None:
    run = started(tmp_path, epoch=1)
    for path in (run.checkpoint_path, run.previous_checkpoint_path):
        path.touch()
    with pytest.raises(InputError, match=r"^A-256 is not finished; resume it with 'vggrepro train A --scale 256', see"):
        run.require_finished()
    run.weights_path.touch()
    run.require_finished()
    run.remove_progress()
    run.remove_progress()  # what is gone is no error
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "metrics.jsonl", "weights.safetensors"]


def test_lines_of_metrics_by_their_kind() -> None:
    epoch = parsed('{"epoch": 2, "loss": 1.5, "top1_error": 40.0, "later": true}')
    assert isinstance(epoch, Epoch)
    assert (epoch.epoch, epoch.loss, epoch.top1_error, epoch.top5_error) == (2, 1.5, 40.0, None)
    steps = parsed('{"epoch": 2, "step": 7, "gradient_norm": 3.0}')
    assert isinstance(steps, Steps)
    assert (steps.epoch, steps.step, steps.gradient_norm) == (2, 7, 3.0)
    for wrong, words in (("[]", "a line is no JSON object"), ('{"loss": "1"}', "loss is no number")):
        with pytest.raises(ValueError, match=words):
            parsed(wrong)


def test_a_damaged_progress_file_is_named(tmp_path: Path) -> None:
    run = started(tmp_path, epoch="half")
    with pytest.raises(InputError, match=r"progress.json: damaged \(epoch is no number\); remove it"):
        run.progress()
