"""Recorded steps: the same bits as steps asked for operator by operator, with a stand-in for a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nets import CPU
from operators import Operators
from torch import Tensor

from vggrepro import recipe
from vggrepro.data.dataset import Dataset
from vggrepro.nets.initialise import initialise
from vggrepro.nets.vgg import VGG
from vggrepro.paper import Run, Scale
from vggrepro.runs.folder import RunFolder
from vggrepro.system.devices import Machine
from vggrepro.training import recorded
from vggrepro.training.recorded import FIRST, Recorded
from vggrepro.training.train import Goal, Training

VALUES = {
    "crop": 32,
    "batch": 4,
    "width": 1 / 32,
    "warmup_steps": 3,
    "momentum_form": "caffe",
    "clip_norm": 1.0,
    "bias_rate": 2.0,
}


def by_hand(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Stands for `recorded.record`: what repeats the function on the tensors that it had, and where its result lies."""
    result = torch.empty(4)

    def repeat() -> None:
        result.copy_(function())

    return repeat, result


def new_training(dataset: Dataset, folder: Path, machine: Machine = CPU) -> Training:
    """A small training; on a CPU with learning rates as tensors, as on a GPU."""
    model = VGG("A", len(dataset.classes), 32, 1 / 32)
    initialise(model, "he", 0)
    goal = Goal(Run("A", Scale(256, 256)), recipe.load("demo", VALUES), 0.01, 2, seed=0)
    training = Training(goal, model, dataset, RunFolder(folder), machine)
    if machine is CPU:
        for group in training.optimiser.param_groups:
            group["lr"] = torch.tensor(group["lr"])
    return training


def steps(training: Training) -> list[list[float]]:
    """The figures of an epoch's steps."""
    found = []
    for step, batch in enumerate(training.loader.batches(0)):
        training.state.step = step
        found.append(training.step(0.02, 0, batch).tolist())
    return found


def test_a_recorded_training_has_the_same_bits(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates change while it warms up, momentum with them; each step has other images, shifts and masks."""
    monkeypatch.setattr(recorded, "record", by_hand)
    plain, own = new_training(dataset, tmp_path), new_training(dataset, tmp_path)
    own.update = Recorded(own.update)
    figures = steps(plain)
    assert steps(own) == figures
    assert len({figure[0] for figure in figures}) == len(figures) > FIRST + 2
    for one, other in zip(plain.model.parameters(), own.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [float(group["lr"]) for group in own.optimiser.param_groups] == pytest.approx([0.02, 0.04])


def test_a_step_that_cannot_be_recorded_goes_on_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")

    monkeypatch.setattr(recorded, "record", refuse)
    doubled = Recorded(lambda x: 2 * x)
    assert [float(doubled(torch.tensor(float(number)))) for number in range(6)] == [0, 2, 4, 6, 8, 10]
    said = capsys.readouterr().err
    assert said.count("note: a step cannot be recorded as a CUDA graph (operation not permitted when stream") == 1
    assert "more lines" not in said


def test_a_step_of_net_a_costs_few_operators(dataset: Dataset, tmp_path: Path) -> None:
    """In bf16, which copies all weights. Views are not counted: they cost the host little and a GPU nothing."""
    training = new_training(dataset, tmp_path, Machine(torch.device("cpu"), "bf16", workers=0))
    batches = training.loader.batches(0)
    training.step(0.02, 0, next(batches))
    training.state.step = 1
    with Operators() as done:
        training.step(0.02, 0, next(batches))
    assert done.count - done.views < 170


def test_a_step_never_leaves_its_device(dataset: Dataset, tmp_path: Path) -> None:
    """So it can be recorded: reading a number of the meta device, or mixing in the host's tensors, is an error."""
    training = new_training(dataset, tmp_path, Machine(torch.device("meta"), "fp32", workers=0))
    tensors = [tensor.to("meta") for tensor in next(training.loader.batches(0)).tensors()]
    for _ in range(FIRST):  # the first steps may ask whether memory suffices
        training.update(*tensors, *training._asks())
    with Operators() as done:
        figures = training.update(*tensors, *training._asks())
    assert figures.is_meta
    assert done.devices == {"meta"}
