"""The script of tables/imagenet-20, with a stand-in for the program: its commands, and what a time limit does."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import typer

from vggrepro.cli import app

SCRIPT = Path(__file__).parents[1] / "tables" / "imagenet-20" / "reproduce.sh"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that writes its arguments to `ran`; where there is a file `slow` it works until it is stopped."""
    path = tmp_path / "program.sh"
    path.write_text(
        'echo "$@" >> ran\n[ -f slow ] || exit 0\n'
        'trap "sleep 0.3; echo saved >> ran; exit 143" TERM\nwhile :; do sleep 0.05; done\n'
    )
    return tmp_path


def start(folder: Path, *words: str, **more: str) -> subprocess.Popen[bytes]:
    settings = {"SEEDS": "3,4", "WIDTH": "0.25", "JOBS": "8", "PRECISION": "bf16", "OPTIONS": "--epochs 2 --workers 0"}
    environment = os.environ | settings | more | {"VGGREPRO": "sh program.sh"}
    return subprocess.Popen(["bash", str(SCRIPT), *words], cwd=folder, env=environment, start_new_session=True)


@pytest.mark.parametrize(("more", "init"), [({}, "looks-linear"), ({"INIT": "dirac"}, "dirac")])
def test_the_script_trains_all_nets_and_a_control_of_each_seed(program: Path, more: dict[str, str], init: str) -> None:
    assert start(program, "--multicrop", **more).wait(timeout=30) == 0
    options = "--width 0.25 --precision bf16 --epochs 2 --workers 0"
    ran = (program / "ran").read_text().splitlines()
    assert ran == [
        f"reproduce --init {init} --seeds 3,4 --jobs 8 {options} --multicrop",
        f"finetune-scale D --scale 256 --from runs/D-256 --runs runs-control/seed3 --seed 3 {options}",
        "evaluate --dense --runs runs-control/seed3 --precision bf16",
        f"finetune-scale D --scale 256 --from runs/seed4/D-256 --runs runs-control/seed4 --seed 4 {options}",
        "evaluate --dense --runs runs-control/seed4 --precision bf16",
    ]
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, *words in map(str.split, ran):
        commands[name].make_context(name, words)  # refuses an option that is none


def test_at_a_time_limit_the_script_ends_after_its_command_has_saved(program: Path) -> None:
    """As `timeout` does it: SIGTERM to the script and to the command that it runs."""
    (program / "slow").touch()
    script = start(program)
    while not (program / "ran").is_file():
        time.sleep(0.02)
    time.sleep(0.1)  # until the stand-in has set its trap
    os.killpg(script.pid, signal.SIGTERM)
    assert script.wait(timeout=30) == 143
    assert (program / "ran").read_text().splitlines()[1:] == ["saved"]
