"""The monitor of a training: what it writes and warns of, for steps made up here."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from vggrepro import recipe
from vggrepro.errors import InputError
from vggrepro.paper import Run, Scale
from vggrepro.runs.folder import RunFolder
from vggrepro.runs.metrics import Epoch
from vggrepro.training.loader import Batch
from vggrepro.training.monitor import Curves, Level, Monitor, Readings, State

A_256 = Run("A", Scale(256, 256))
RECIPE = recipe.load("demo", {"batch": 2, "epochs": 3})
ERRORS = (50.0, 25.0)  # top-1, top-5


def monitor(folder: Path, steps: int = 4, run: Run = A_256) -> Monitor:
    """A monitor of `run`: 3 epochs of `steps` steps, batch 2, 8 classes, first rate 0.01; its curves are open."""
    made = Monitor(run, RECIPE, 0.01, 3, steps, 8, Curves(RunFolder(folder)))
    made.open(State())
    return made


def feed(to: Monitor, progress: State, losses: list[float], norm: float = 1.0) -> None:
    """The steps of an epoch from `progress` on, with these losses an image."""
    with to.epoch(progress, 0.01):
        for loss in losses:
            progress.step += 1
            to.step_done()
            to.add(progress.step, 0.01, 2 * loss, norm)


def lines(to: Monitor) -> list[dict[str, float]]:
    return [json.loads(line) for line in to.curves.folder.metrics_path.read_text().splitlines()]


def test_an_epoch_leaves_about_ten_lines_and_its_record(tmp_path: Path) -> None:
    to = monitor(tmp_path, steps=20)
    feed(to, State(), [float(step) for step in range(1, 21)])
    record = to.end_epoch(*ERRORS)
    *between, last = lines(to)
    assert [line["step"] for line in between] == list(range(2, 21, 2))
    assert [line["loss"] for line in between] == [1.5 + 2 * pair for pair in range(10)]
    assert last == asdict(record)
    assert (record.epoch, record.learning_rate, record.loss) == (1, 0.01, 10.5)
    assert (record.top1_error, record.top5_error) == (50.0, 25.0)
    assert record.images_per_second > 0
    progress = json.loads(to.curves.folder.progress_path.read_text())
    assert (progress["epoch"], progress["epochs"], progress["learning_rate"]) == (1.0, 3, 0.01)


def test_a_resumed_epoch_adds_to_what_its_checkpoint_holds(tmp_path: Path) -> None:
    whole, cut = monitor(tmp_path / "whole", steps=20), monitor(tmp_path / "cut", steps=20)
    feed(whole, State(), [3.0] * 9 + [1.0] * 11)
    progress = State()
    feed(cut, progress, [3.0] * 9)
    feed(cut, progress, [1.0] * 11)
    for to in (whole, cut):
        assert to.end_epoch(*ERRORS).loss == pytest.approx(1.9)
    losses = [[line["loss"] for line in lines(to)] for to in (whole, cut)]
    assert losses[0] == losses[1]
    assert losses[0][4] == 2.0  # steps 9 and 10, on both sides of the cut


def test_waiting_for_data_is_counted(tmp_path: Path) -> None:
    def slow() -> Iterator[Batch]:
        for _ in range(3):
            time.sleep(0.05)
            yield Batch(*[torch.zeros(0)] * 5)

    to, progress = monitor(tmp_path), State()
    with to.epoch(progress, 0.01):
        for _ in to.timed(slow()):
            time.sleep(0.1)
            to.step_done()
    assert 0.15 <= progress.waited <= progress.seconds - 0.3


def test_a_jump_is_reported_once_an_epoch_with_the_command_to_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = monitor(tmp_path, steps=14, run=Run("D", Scale(384, 384)))
    for history in (list[Epoch](), [Epoch(1, 0.01, 2.0, *ERRORS)]):
        feed(to, State(history=history), [2.0] * 12 + [20.0, 20.0])
    first, second = [line for line in capsys.readouterr().err.splitlines() if "jumped" in line]
    assert first == (
        "warning: D-384, epoch 1, step 13: the loss jumped to 20, 10 times its usual level. If it does not come down "
        "again, try clip_norm=2, warmup_steps or a lower rate: vggrepro train D --scale 384 --retrain --set "
        "rescale_rate=0.0033"
    )
    assert second.startswith("warning: D-384, epoch 2, step 13: ")


@pytest.mark.parametrize(("loss", "warned"), [(math.log(8) - 0.009, True), (math.log(8) - 0.011, False)])
def test_a_loss_of_log_k_after_two_epochs_is_chance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], loss: float, warned: bool
) -> None:
    to = monitor(tmp_path)
    history: list[Epoch] = []
    for epoch in (1, 2, 3):
        feed(to, State(history=[*history]), [loss] * 4)
        history.append(to.end_epoch(*ERRORS))
        to.say_epoch(history[-1])
        talk = capsys.readouterr().err
        assert f"A-256 epoch {epoch}/3: rate 0.01, loss {loss:.3f}, " in talk
        assert "validation error 50.0 % top-1, 25.0 % top-5, " in talk
        assert ("A-256 is still at chance after 2 epochs (loss 2.070, chance 2.079)" in talk) == (warned and epoch == 2)
        advice = "Try more warmup_steps (now 400), another learning_rate (now 0.02) or a smaller batch (now 2), "
        assert (advice in talk) == (warned and epoch == 2)  # the recipe has no dropout and starts with dirac


@pytest.mark.parametrize(("loss", "norm", "what"), [(math.nan, 1.0, "loss"), (2.0, math.inf, "gradient")])
def test_values_that_are_not_finite_end_a_training(tmp_path: Path, loss: float, norm: float, what: str) -> None:
    with pytest.raises(
        InputError,
        match=f"^A-256: the {what} is no longer finite in epoch 1; the checkpoint before it is kept. Try a lower rate: "
        "vggrepro train A --scale 256 --retrain --set learning_rate=0.0033$",
    ):
        feed(monitor(tmp_path), State(), [loss], norm)


def test_curves_drop_what_a_resumed_run_does_again(tmp_path: Path) -> None:
    to = monitor(tmp_path)
    feed(to, State(), [2.0] * 4)
    record = to.end_epoch(*ERRORS)
    feed(to, State(history=[record]), [2.0] * 3)
    with open(to.curves.folder.metrics_path, "a") as file:
        file.write('{"epoch": 2, "st')  # an interrupted write
    to.open(State(step=1, history=[record]))
    assert [line.get("step", "epoch") for line in lines(to)] == [1, 2, 3, 4, "epoch", 5]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_readings_of_a_gpu_come_some_steps_later() -> None:
    readings = Readings(torch.device("cuda"))
    for step in range(1, 6):
        readings.put(step, 0.1 * step, torch.tensor([step, step**2], device="cuda"))
    assert list(readings.take()) == [(step, 0.1 * step, [step, step**2]) for step in range(1, 6 - readings.lag)]
    assert [step for step, *_ in readings.take(everything=True)] == [4, 5]


def test_a_level_tells_a_jump_from_a_slow_rise() -> None:
    level = Level(3.0, floor=1.0)
    assert not any(level.jumps(0.1 * 1.05**step) for step in range(100))  # up to 13, gently
    assert level.jumps(10 * level.value)
    assert not level.jumps(2 * level.value)
    low = Level(3.0, floor=1.0)
    assert not any(low.jumps(value) for value in [0.01] * 20 + [0.9])  # far above its level, but low
