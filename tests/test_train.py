"""The training loop: against plain autograd, and the same run however it is computed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vggrepro import augment, keyed, recipe, weights
from vggrepro.chain import Request, train_chain
from vggrepro.dataset import Dataset, Split
from vggrepro.errors import InputError
from vggrepro.net import VGG, initialise
from vggrepro.paper import Run, Scale
from vggrepro.runs import RunFolder
from vggrepro.train import Machine, Plan, Training

CPU = Machine(torch.device("cpu"), "fp32", workers=0)
SMALL = {"crop": 32, "width": 1 / 16, "batch": 8, "epochs": 2, "deeper_epochs": 2, "rescale_epochs": 1}


def train(dataset: Dataset, runs: Path, machine: Machine = CPU, seed: int = 0, **values: object) -> RunFolder:
    """A-256 trained on `dataset`, with recipe values replaced."""
    request = Request(recipe.load("demo", SMALL | values), dataset, runs, machine, seed)
    train_chain(Run("A", Scale(256, 256)), request)
    return RunFolder(runs / "A-256")


def tensors(run: RunFolder) -> dict[str, Tensor]:
    return weights.load(run.weights_path)[0]


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference of any tensor, relative to that tensor's largest value."""
    assert a.keys() == b.keys()
    return max(float((a[n] - b[n]).abs().max() / b[n].abs().max().clamp_min(1e-12)) for n in a)


def test_steps_equal_plain_sgd(dataset: Dataset, tmp_path: Path) -> None:
    """Three steps against autograd and SGD written out: v = 0.9 v + (g + decay w), w -= rate v."""
    values = SMALL | {"dropout": 0.4, "epochs": 1, "drop_by": [], "bias_rate": 2.0, "bias_decay": 0.0}
    values |= {"warmup_steps": 0, "clip_norm": 0.0}
    chosen = recipe.load("demo", values)
    model = VGG("A", len(dataset.classes), 32, 1 / 16)
    initialise(model, "he", 0)
    plain = VGG("A", len(dataset.classes), 32, 1 / 16)
    plain.load_state_dict(model.state_dict())
    scale = Scale(256, 512)
    plan = Plan(Run("A", scale), chosen, 0.01, 1, seed=3)
    training = Training(plan, model, dataset, RunFolder(tmp_path), CPU)
    order = keyed.permutation(3, 0, dataset.counts["train"])
    split = Split(dataset, "train")
    velocity = {name: torch.zeros_like(p) for name, p in plain.named_parameters()}
    for step, batch in zip(range(3), training.loader.batches(0), strict=False):
        training._step(0.01, 0, batch)
        loss = torch.zeros(())
        for row in range(8):
            image = int(order[step * 8 + row])
            drawn = augment.draws(3, 0, torch.tensor([image]))
            window = augment.training_window(*split.image(image).size, scale, 32, drawn.place[0])
            crop = augment.cut(split.image(image), window)
            crop = crop[:, ::-1] if drawn.flip[0] else crop
            shift = sum(
                0.1 * drawn.colour[0, i] * dataset.rgb_eigenvalues[i] / 255 * np.array(dataset.rgb_eigenvectors[i])
                for i in range(3)
            )
            pixels = torch.tensor(crop.astype(np.float64) + shift - dataset.mean_rgb, dtype=torch.float32)
            x = (pixels * chosen.input_scale).permute(2, 0, 1)[None]
            masks = plain.dropout_masks(0.4, keyed.key(3, keyed.DROPOUT, 0, step, torch.tensor([row])))
            loss = loss + F.cross_entropy(plain(x, masks), torch.tensor([int(split.labels[image])])) / 8
        gradients = torch.autograd.grad(loss, list(plain.parameters()))
        with torch.no_grad():
            for (name, parameter), gradient in zip(plain.named_parameters(), gradients, strict=True):
                bias = name.endswith("bias")
                decayed = gradient + (0 if bias else 5e-4) * parameter
                velocity[name] = 0.9 * velocity[name] + decayed
                parameter -= 0.01 * (2 if bias else 1) * velocity[name]
    assert distance(model.state_dict(), plain.state_dict()) < 1e-5


def test_workers_change_nothing(dataset: Dataset, tmp_path: Path) -> None:
    one = tensors(train(dataset, tmp_path / "a"))
    other = tensors(train(dataset, tmp_path / "b", replace(CPU, workers=3)))
    assert distance(one, other) == 0


def test_micro_batches_change_only_rounding(dataset: Dataset, tmp_path: Path) -> None:
    values = {"epochs": 1, "dropout": 0.5, "learning_rate": 1e-3}
    one = tensors(train(dataset, tmp_path / "a", **values))
    other = tensors(train(dataset, tmp_path / "b", replace(CPU, micro_batch=3), **values))
    assert 0 < distance(one, other) < 1e-4


def test_seed_matters(dataset: Dataset, tmp_path: Path) -> None:
    one, other = (tensors(train(dataset, tmp_path / str(seed), seed=seed, epochs=1)) for seed in (0, 1))
    assert distance(one, other) > 0.1


def test_stops_and_resumes_at_any_step(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run cut short after each third step, again and again, ends in the very weights of an uncut one."""
    values = {"batch": 4, "epochs": 3}
    whole = tensors(train(dataset, tmp_path / "whole", **values))
    step, calls = Training._step, {"count": 0}

    def cut_short(self: Training, *args: object) -> Tensor:
        calls["count"] += 1
        if calls["count"] % 4 == 0:
            raise RuntimeError("power cut")
        return step(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Training, "_step", cut_short)
    machine = replace(CPU, checkpoint_seconds=0.0)
    for _ in range(40):
        try:
            run = train(dataset, tmp_path / "cut", machine, **values)
            break
        except RuntimeError:
            assert not (tmp_path / "cut" / "A-256" / "weights.safetensors").exists()
    else:
        pytest.fail("never finished")
    assert calls["count"] >= 21 + 6  # 21 steps and six power cuts
    assert distance(tensors(run), whole) == 0
    assert [line["epoch"] for line in run.metrics()] == [1, 2, 3]


def test_two_processes_are_the_same_run(dataset: Dataset, tmp_path: Path) -> None:
    """torchrun with two real processes (gloo): within rounding of one process."""
    options = ["--data", str(dataset.folder), "--precision", "fp32", "--epochs", "1", "--workers", "1"]
    sets = ["crop=32", "width=0.0625", "batch=8", "learning_rate=0.001", "dropout=0.5"]
    words = ["-m", "vggrepro", "train", "A", *options, *(w for s in sets for w in ("--set", s))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for runs, prefix in ((tmp_path / "one", []), (tmp_path / "two", launcher)):
        command = [sys.executable, *prefix, *words, "--runs", str(runs)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (tensors(RunFolder(tmp_path / name / "A-256")) for name in ("one", "two"))
    assert distance(one, two) < 1e-4
    metrics = [RunFolder(tmp_path / name / "A-256").metrics()[0] for name in ("one", "two")]
    assert metrics[0]["loss"] == pytest.approx(metrics[1]["loss"], rel=1e-5)


def test_fc_only_leaves_convolutions_alone(dataset: Dataset, tmp_path: Path) -> None:
    request = Request(recipe.load("demo", SMALL | {"epochs": 1}), dataset, tmp_path, CPU)
    train_chain(Run("A", Scale(256, 512), fc_only=True), request)
    before = tensors(RunFolder(tmp_path / "A-384"))
    after = tensors(RunFolder(tmp_path / "A-256-512-fc"))
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith("conv"), name


def test_loss_that_explodes_stops_at_the_last_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no longer finite in epoch 1; .*train A --scale 256 --retrain --set learning_rate=3.3e"
    ):
        train(dataset, tmp_path, learning_rate=1e6)
    kept, _ = weights.load(tmp_path / "A-256" / "checkpoint.safetensors")
    assert all(bool(t.isfinite().all()) for t in kept.values())


def test_warns_of_a_run_at_chance(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(dataset, tmp_path, initialisation="random", initial_std=1e-4)
    talk = capsys.readouterr()
    assert "warning: A-256 is still at chance after 2 epochs (loss 1.79" in talk.err
    assert talk.out == ""


def test_metrics_say_what_happened(dataset: Dataset, tmp_path: Path) -> None:
    run = train(dataset, tmp_path)
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert 0 <= line["top5_error"] <= line["top1_error"] <= 100
        assert line["images_per_second"] > 0
        assert 0 <= line["data_wait"] <= 1
    config = run.config()
    assert (config["net"], config["scale"], config["crop"], config["classes"]) == ("A", "256", 32, 6)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", config["versions"]["torch"])
    assert not run.checkpoint_path.exists()
