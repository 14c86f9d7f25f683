"""Printed commands: complete, quoted, and safe to follow to the letter."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from conftest import Call

from vggrepro.data.dataset import Dataset
from vggrepro.paper import JITTER, S256, Run
from vggrepro.runs.folder import RunFolder
from vggrepro.system import advice
from vggrepro.system.advice import Invocation, command, invocation

FAST = ("--epochs", "1", "--set", "crop=32", "--width", "0.0625", "--device", "cpu", "--workers", "0")
SPECIAL = "it's my data"


def test_a_command_repeats_the_options_that_it_has() -> None:
    given = [("--device", "cpu"), ("--set", "batch=8"), ("--set", "dropout=0"), ("--runs", "r's"), ("--tensorboard",)]
    known = {"train": frozenset(advice.REPEATED), "evaluate": frozenset({"--runs", "--device"})}
    with invocation(Invocation(given, known)):
        assert command("evaluate", "A-256") == """vggrepro evaluate A-256 --runs 'r'"'"'s' --device cpu"""
        words = shlex.split(command("train", "A", "--set", "batch=16"))
        assert words[:5] == ["vggrepro", "train", "A", "--set", "batch=16"]
        assert words[5:] == ["--runs", "r's", "--set", "dropout=0", "--device", "cpu", "--tensorboard"]
    assert command("evaluate", "A-256") == "vggrepro evaluate A-256"


def test_a_run_outside_of_the_runs_is_named_by_its_path() -> None:
    with invocation(Invocation(runs=Path("runs"))):
        assert advice.run_name(Path("runs/A-256")) == "A-256"
        assert advice.run_name(Path("other/A-256")) == "other/A-256"


def test_what_a_run_starts_from_is_repeated() -> None:
    assert advice.training(Run("D", JITTER), start="mine") == "vggrepro train D --scale 256:512 --init mine"
    tuned = Run("D", JITTER, fc_only=True)
    assert advice.training(tuned, start="mine").endswith("finetune-scale D --scale 256:512 --layers fc --from mine")


@pytest.fixture
def special(dataset: Dataset) -> str:
    """The data set's folder under a name that a shell has to have quoted."""
    dataset.folder.rename(dataset.folder.with_name(SPECIAL))
    return SPECIAL


def test_following_the_advice_after_a_divergence_harms_no_other_run(
    vggrepro: Call, special: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VGGREPRO_DATA", special)
    assert vggrepro("train", "A", *FAST)[0] == 0
    other = RunFolder(Path("runs/A-256")).weights_hash()
    monkeypatch.setenv("VGGREPRO_RUNS", "our 'runs'")
    code, _, err = vggrepro("train", "A", *FAST, "--set", "learning_rate=1e30", "--set", "dropout=0.25", "--seed", "3")
    assert code == 2
    monkeypatch.delenv("VGGREPRO_DATA")
    monkeypatch.delenv("VGGREPRO_RUNS")
    printed = shlex.split(err[err.index("vggrepro train") :].splitlines()[0])
    assert "learning_rate=3.3e+29" in printed
    vggrepro(*printed[1:])
    config = RunFolder(Path("our 'runs'/A-256")).config()
    assert (config.recipe.values["dropout"], config.seed, config.width) == (0.25, 3, 0.0625)
    assert config.recipe.values["learning_rate"] == 3.3e29
    assert RunFolder(Path("runs/A-256")).weights_hash() == other


def test_what_is_next_and_what_is_not_run_can_be_run_as_printed(vggrepro: Call, special: str) -> None:
    where = ("--data", special, "--runs", "our 'runs'")
    refused = vggrepro("evaluate", *where)[2]
    assert "train one with 'vggrepro train A --data " in refused
    err = vggrepro("train", "A", *FAST, *where)[2]
    printed = shlex.split(err.rpartition("next: ")[2])
    assert printed == ["vggrepro", "evaluate", "A-256", *where, "--device", "cpu", "--workers", "0"]
    assert vggrepro(*printed[1:])[0] == 0
    note = next(line for line in vggrepro("report", *where)[1].splitlines() if "Not run" in line and "A-LRN" in line)
    train, evaluate = (shlex.split(text) for text in re.findall("`(vggrepro [^`]*)`", note)[:2])
    assert vggrepro(*train[1:], *FAST)[0] == 0
    assert vggrepro(*evaluate[1:], "--device", "cpu", "--workers", "0")[0] == 0
    assert RunFolder(Path("our 'runs'/A-LRN-256")).finished


def test_a_former_run_is_kept_until_the_new_one_is_finished(vggrepro: Call, dataset: Dataset) -> None:
    assert vggrepro("train", "A", *FAST)[0] == 0
    run = RunFolder(Path("runs") / Run("A", S256).name)
    files = {path: path.read_bytes() for path in (run.weights_path, run.config_path, run.metrics_path)}
    code, _, err = vggrepro("train", "A", *FAST, "--retrain", "--set", "learning_rate=1e30")
    assert (code, run.finished) == (2, False)
    assert f"the former run stays in {run.former_path}" in err
    for rate in ("1e29", "1e28"):  # another attempt keeps the run that was finished, not the one that was not
        assert vggrepro("train", "A", *FAST, "--retrain", "--set", f"learning_rate={rate}")[0] == 2
        assert {path: (run.former_path / path.name).read_bytes() for path in files} == files
    assert vggrepro("train", "A", *FAST, "--retrain")[0] == 0
    assert run.finished
    assert not run.former_path.exists()
