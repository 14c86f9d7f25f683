"""Micro-batches when memory is short, by simulated lacks of memory; fp16 with a scaled loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import CPU
from program import together
from torch import Tensor
from trained import SMALL, distance, tensors, train

from vggrepro import recipe
from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.nets.initialise import initialise
from vggrepro.nets.vgg import VGG
from vggrepro.paper import S256, Run
from vggrepro.runs.folder import RunFolder
from vggrepro.system.devices import Machine
from vggrepro.training.loader import Batch
from vggrepro.training.step import Loss
from vggrepro.training.train import Goal, Training

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]
Shrink = Callable[..., None]


@pytest.fixture
def holds(monkeypatch: pytest.MonkeyPatch) -> Shrink:
    """Lets the memory hold so many images; more of them raise the error."""
    plain = Loss.__call__

    def shrink(most: int, error: Exception = ERRORS[0]) -> None:
        def call(self: Loss, batch: Batch) -> Tensor:
            loss = plain(self, batch)
            if len(batch.labels) > most:
                raise error
            return loss

        monkeypatch.setattr(Loss, "__call__", call)

    return shrink


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__ + str(error)[:10])
def test_a_batch_that_does_not_fit_goes_in_micro_batches(
    dataset: Dataset, tmp_path: Path, holds: Shrink, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    values = {"epochs": 1, "dropout": 0.5, "learning_rate": 1e-3}
    whole = train(dataset, tmp_path / "whole", **values)
    asked = train(dataset, tmp_path / "asked", replace(CPU, micro_batch=2), **values)
    holds(3, error)
    capsys.readouterr()
    short = train(dataset, tmp_path / "short", **values)
    talk = capsys.readouterr().err
    assert "note: A-256: 8 images at a time do not fit the memory of cpu; going on with 4" in talk
    assert talk.count("do not fit") == 2
    assert short.weights_path.read_bytes() == asked.weights_path.read_bytes()
    assert 0 < distance(tensors(short), tensors(whole)) < 1e-4
    assert {line.micro_batch for line in short.metrics()} == {2}
    assert {line.micro_batch for line in whole.metrics()} == {0}


def test_a_resumption_goes_on_with_the_same_micro_batch(
    dataset: Dataset, tmp_path: Path, holds: Shrink, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    holds(5)
    whole = train(dataset, tmp_path / "whole")
    step = Training.step

    def cut(self: Training, *args: Any) -> Tensor:
        if self.state.step == 2:
            raise RuntimeError("power cut")
        return step(self, *args)

    monkeypatch.setattr(Training, "step", cut)
    with pytest.raises(RuntimeError, match="power cut"):
        train(dataset, tmp_path / "cut", replace(CPU, checkpoint_seconds=0.0))
    monkeypatch.setattr(Training, "step", step)
    holds(100)
    capsys.readouterr()
    resumed = train(dataset, tmp_path / "cut")
    talk = capsys.readouterr().err
    assert "resuming at epoch 1, step 2" in talk
    assert "do not fit" not in talk
    assert resumed.weights_path.read_bytes() == whole.weights_path.read_bytes()
    assert {line.micro_batch for line in resumed.metrics()} == {4}


def test_an_image_that_does_not_fit_is_said(dataset: Dataset, tmp_path: Path, holds: Shrink) -> None:
    holds(0)
    with pytest.raises(InputError, match="A-256: an image alone does not fit the memory of cpu; use --precision bf16"):
        train(dataset, tmp_path)


def test_other_errors_pass(dataset: Dataset, tmp_path: Path, holds: Shrink) -> None:
    holds(3, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(dataset, tmp_path)


@pytest.mark.slow
def test_processes_agree_on_a_micro_batch() -> None:
    """The second of two processes has less memory. Later it can only say so."""
    first, second = together("short_memory", processes=2)
    assert first.split() == ["2", "True"]
    assert second.split()[:2] == ["2", "True"]
    assert "A: the memory of cpu fell short; the same command goes on from the last checkpoint" in second


# fp16

FP16 = Machine(torch.device("cpu"), "fp16", workers=0)


def test_fp16_is_near_fp32_and_resumes_with_its_scale(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"dropout": 0.0, "learning_rate": 1e-3}
    exact = train(dataset, tmp_path / "fp32", **values)
    whole = train(dataset, tmp_path / "fp16", FP16, **values)
    for line, other in zip(exact.epochs(), whole.epochs(), strict=True):
        assert other.loss == pytest.approx(line.loss, rel=0.01)
    step = Training.step

    def cut(self: Training, *args: Any) -> Tensor:
        if self.state.step == 2 and not self.state.history:
            raise RuntimeError("power cut")
        return step(self, *args)

    monkeypatch.setattr(Training, "step", cut)
    with pytest.raises(RuntimeError, match="power cut"):
        train(dataset, tmp_path / "cut", replace(FP16, checkpoint_seconds=0.0), **values)
    monkeypatch.setattr(Training, "step", step)
    resumed = train(dataset, tmp_path / "cut", FP16, **values)
    assert resumed.weights_path.read_bytes() == whole.weights_path.read_bytes()


def fp16_training(dataset: Dataset, folder: Path) -> Training:
    chosen = recipe.load("demo", SMALL | {"warmup_steps": 0})
    model = VGG("A", len(dataset.classes), 32, 1 / 16)
    initialise(model, "he", 0)
    return Training(Goal(Run("A", S256), chosen, 0.01, 1, seed=0), model, dataset, RunFolder(folder), FP16)


def test_a_step_whose_scaled_gradient_overflows_is_left_out(dataset: Dataset, tmp_path: Path) -> None:
    training = fp16_training(dataset, tmp_path)
    training.scaler.load_state_dict(training.scaler.state_dict() | {"scale": 2.0**40})
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    batches = list(training.loader.batches(0))
    loss, norm, *_ = training.step(0.01, 0, batches[0]).tolist()
    assert loss > 0
    assert norm == 0
    assert distance(training.model.state_dict(), before) == 0
    assert all(not float(kept["momentum_buffer"].abs().max()) for kept in training.optimiser.state.values())
    assert training.scaler.get_scale() == 2.0**39
    for _ in range(40):
        _, norm, *_ = training.step(0.01, 0, batches[0]).tolist()
    assert norm > 0
    assert distance(training.model.state_dict(), before) > 0


def test_an_overflow_that_no_scale_explains_stays_infinite(dataset: Dataset, tmp_path: Path) -> None:
    training = fp16_training(dataset, tmp_path)
    training.scaler.load_state_dict(training.scaler.state_dict() | {"scale": 1.0})
    training.model.fc8.weight.data.fill_(float("inf"))
    _, norm, *_ = training.step(0.01, 0, next(iter(training.loader.batches(0)))).tolist()
    assert not torch.tensor(norm).isfinite()
