"""The training loop: against plain autograd, and the same run however it is computed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import CPU
from torch import Tensor
from torch.nn import functional as F
from trained import SMALL, distance, tensors, train

from vggrepro import recipe
from vggrepro.data.dataset import Dataset, Split
from vggrepro.data.rescaling import cut
from vggrepro.errors import InputError
from vggrepro.nets import keyed, weights
from vggrepro.nets.initialise import initialise
from vggrepro.nets.vgg import VGG
from vggrepro.paper import Run, Scale
from vggrepro.runs import status as run_status
from vggrepro.runs.folder import RunFolder
from vggrepro.runs.metrics import Steps
from vggrepro.system.devices import Machine
from vggrepro.system.files import read_json
from vggrepro.training import augment, recorded
from vggrepro.training.chain import Request, train_chain
from vggrepro.training.checkpoint import Checkpoints
from vggrepro.training.train import Goal, Training


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_trainings_on_a_gpu_end_in_the_same_bits(dataset: Dataset, tmp_path: Path, precision: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    machine = Machine(torch.device("cuda:0"), precision, workers=0)
    one, two = (train(dataset, tmp_path / name, machine) for name in ("one", "two"))
    assert one.weights_path.read_bytes() == two.weights_path.read_bytes()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_steps_on_a_gpu_have_the_same_bits(
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: str,
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    machine = Machine(torch.device("cuda:0"), precision, workers=0)
    one = train(dataset, tmp_path / "recorded", machine, batch=2)
    assert "cannot be recorded" not in capsys.readouterr().err
    monkeypatch.setattr(recorded, "PIXELS", 0)
    two = train(dataset, tmp_path / "plain", machine, batch=2)
    assert one.weights_path.read_bytes() == two.weights_path.read_bytes()


@pytest.mark.parametrize("form", ["caffe", "torch"])
def test_steps_equal_plain_sgd(dataset: Dataset, tmp_path: Path, form: str) -> None:
    """Steps over a warm-up and a drop of the rate, against autograd and SGD written out.

    caffe: v = 0.9 v + rate (g + decay w), w -= v; torch: v = 0.9 v + (g + decay w), w -= rate v.
    """
    values = SMALL | {"dropout": 0.4, "epochs": 1, "drop_by": [], "bias_rate": 2.0, "bias_decay": 0.0}
    values |= {"warmup_steps": 2, "clip_norm": 0.0, "momentum_form": form}
    set_rates, used_rates = (0.01, 0.01, 0.01, 0.001), (0.005, 0.01, 0.01, 0.001)
    chosen = recipe.load("demo", values)
    model = VGG("A", len(dataset.classes), 32, 1 / 16)
    initialise(model, "he", 0)
    plain = VGG("A", len(dataset.classes), 32, 1 / 16)
    plain.load_state_dict(model.state_dict())
    scale = Scale(256, 512)
    goal = Goal(Run("A", scale), chosen, 0.01, 1, seed=3)
    training = Training(goal, model, dataset, RunFolder(tmp_path), CPU)
    orders = [keyed.permutation(3, epoch, dataset.counts["train"]) for epoch in (0, 1)]
    split = Split(dataset, "train")
    velocity = {name: torch.zeros_like(p) for name, p in plain.named_parameters()}
    images = [batch for epoch in (0, 1) for batch in training.loader.batches(epoch)]
    for step, batch in zip(range(4), images, strict=False):
        epoch, within = divmod(step, 3)  # of 30 images
        training.state.step = within
        training.step(set_rates[step], epoch, batch)
        loss = torch.zeros(())
        for row in range(8):
            image = int(orders[epoch][within * 8 + row])
            drawn = augment.draws(3, epoch, torch.tensor([image]))
            windows = augment.training_windows(split.sizes[:, [image]], scale, 32, drawn.place)
            crop = cut(split.image(image), windows[0])
            crop = crop[:, ::-1] if drawn.flip[0] else crop
            shift = sum(
                0.1 * drawn.colour[0, i] * dataset.rgb_eigenvalues[i] / 255 * np.array(dataset.rgb_eigenvectors[i])
                for i in range(3)
            )
            pixels = torch.tensor(crop.astype(np.float64) + shift - dataset.mean_rgb, dtype=torch.float32)
            x = (pixels * chosen.input_scale).permute(2, 0, 1)[None]
            masks = plain.dropout_masks(0.4, keyed.key(3, keyed.DROPOUT, epoch, within, torch.tensor([row])))
            loss = loss + F.cross_entropy(plain(x, masks), torch.tensor([int(split.labels[image])])) / 8
        gradients = torch.autograd.grad(loss, list(plain.parameters()))
        with torch.no_grad():
            for (name, parameter), gradient in zip(plain.named_parameters(), gradients, strict=True):
                bias = name.endswith("bias")
                decayed = gradient + (0 if bias else 5e-4) * parameter
                rate = used_rates[step] * (2 if bias else 1)
                velocity[name] = 0.9 * velocity[name] + (rate * decayed if form == "caffe" else decayed)
                parameter -= velocity[name] if form == "caffe" else rate * velocity[name]
    assert distance(model.state_dict(), plain.state_dict()) < 1e-5


def test_without_momentum_there_is_none_to_rescale(dataset: Dataset, tmp_path: Path) -> None:
    """The two forms differ in the rate of what was gathered before: without momentum in nothing, else here they do."""

    def differ(momentum: float) -> float:
        values = {"momentum": momentum, "warmup_steps": 3, "epochs": 1}
        caffe, torch_ = (
            train(dataset, tmp_path / f"{form}{momentum}", momentum_form=form, **values) for form in ("caffe", "torch")
        )
        return distance(tensors(caffe), tensors(torch_))

    assert differ(0.0) == 0
    assert differ(0.9) > 1e-3


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


def curve(run: RunFolder) -> list[dict[str, object]]:
    """metrics.jsonl without what depends on the clock."""
    times = ("images_per_second", "data_wait", "seconds")
    return [{name: value for name, value in asdict(line).items() if name not in times} for line in run.metrics()]


@pytest.fixture
def power_cuts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each fourth step fails; the list gets a number for each step tried."""
    step, calls = Training.step, list[int]()

    def cut_short(self: Training, *args: object) -> Tensor:
        calls.append(len(calls) + 1)
        if calls[-1] % 4 == 0:
            raise RuntimeError("power cut")
        return step(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Training, "step", cut_short)
    return calls


def until_finished(dataset: Dataset, runs: Path, machine: Machine, **values: object) -> RunFolder:
    """A training that is started again after each power cut."""
    for _ in range(40):
        try:
            return train(dataset, runs, machine, **values)
        except RuntimeError:
            assert not RunFolder(runs / "A-256").finished
    pytest.fail("never finished")


CUT = {"batch": 4, "epochs": 3, "momentum_form": "caffe", "drops": 1, "drop_by": [0.5], "patience": 9}


def test_stops_and_resumes_at_any_step(dataset: Dataset, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A run cut short after each third step, again and again, ends in the very weights of an uncut one."""
    whole = train(dataset, tmp_path / "whole", **CUT)
    calls: list[int] = request.getfixturevalue("power_cuts")
    run = until_finished(dataset, tmp_path / "cut", replace(CPU, checkpoint_seconds=0.0), **CUT)
    assert len(calls) >= 21 + 6  # 21 steps and six power cuts
    assert run.weights_path.read_bytes() == whole.weights_path.read_bytes()
    assert [epoch.epoch for epoch in run.epochs()] == [1, 2, 3]
    assert curve(run) == curve(whole)


def test_damaged_checkpoint_is_refused_and_the_previous_one_leads_to_the_same_end(
    dataset: Dataset, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(dataset, tmp_path / "whole", **CUT)
    request.getfixturevalue("power_cuts")
    machine, run = replace(CPU, checkpoint_seconds=0.0), RunFolder(tmp_path / "cut" / "A-256")
    for _ in range(2):  # cut after steps 3 and 6 of 7
        with pytest.raises(RuntimeError):
            train(dataset, tmp_path / "cut", machine, **CUT)
    content = bytearray(run.checkpoint_path.read_bytes())
    content[len(content) // 2] ^= 1
    run.checkpoint_path.write_bytes(content)
    with pytest.raises(
        InputError,
        match=r"A-256/checkpoint.safetensors: damaged \(.*hash\); remove it to continue from the previous one "
        r"\(checkpoint.previous.safetensors: epoch 1, step 5\)$",
    ):
        train(dataset, tmp_path / "cut", machine, **CUT)
    run.checkpoint_path.unlink()
    capsys.readouterr()
    until_finished(dataset, tmp_path / "cut", machine, **CUT)
    assert "A-256: resuming at epoch 1, step 5" in capsys.readouterr().err
    assert run.weights_path.read_bytes() == whole.weights_path.read_bytes()
    assert curve(run) == curve(whole)
    assert not list(run.path.glob("checkpoint*"))


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
JITTERED = {"dropout": 0.3, "learning_rate": 0.002, "epochs": 2, "warmup_steps": 2, "momentum_form": "caffe"}


def start(dataset: Dataset, runs: Path, launcher: list[str], *options: str, **values: object) -> subprocess.Popen[str]:
    """A training of A-256-512 by the command line in processes of its own."""
    words = ["-m", "vggrepro", "train", "A", "--scale", "256:512", "--init", "he", "--precision", "fp32"]
    words += ["--data", str(dataset.folder), "--runs", str(runs), *options]
    words += [word for name, value in (SMALL | values).items() for word in ("--set", f"{name}={json.dumps(value)}")]
    command = [sys.executable, *launcher, *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


@pytest.mark.slow
def test_two_processes_are_the_same_run(dataset: Dataset, tmp_path: Path) -> None:
    """torchrun with two real processes (gloo), micro-batches and workers: within rounding of one process."""
    chosen = recipe.load("demo", SMALL | JITTERED | {"rescale_epochs": 2, "deeper_epochs": 2})
    train_chain(Run("A", Scale(256, 512)), Request(chosen, dataset, tmp_path / "one", CPU), "he")
    process = start(dataset, tmp_path / "two", TORCHRUN, "--micro-batch", "2", "--workers", "1", **JITTERED)
    _, talk = process.communicate(timeout=120)
    assert process.returncode == 0, talk
    assert talk.count("finished") == 1  # only the first process talks
    one, two = (RunFolder(tmp_path / name / "A-256-512") for name in ("one", "two"))
    assert 0 < distance(tensors(one), tensors(two)) < 1e-5
    for line, other in zip(one.metrics(), two.metrics(), strict=True):
        assert type(line) is type(other)
        assert line.loss == pytest.approx(other.loss, rel=1e-5)
        assert getattr(line, "gradient_norm", 0) == pytest.approx(getattr(other, "gradient_norm", 0), rel=1e-4)


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Until the process says so on stderr."""
    assert process.stderr
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return
    pytest.fail(f"never said '{words}': {said}")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_torchrun_passes_signals_on_and_the_run_is_saved(
    dataset: Dataset, tmp_path: Path, number: signal.Signals
) -> None:
    process = start(dataset, tmp_path, TORCHRUN, epochs=5000, patience=9999, **{"drop_by": []})
    wait_for(process, "epoch 3/5000")
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)
    assert process.returncode != 0
    assert rest.count("run the same command to resume") == 1
    contents = Checkpoints(RunFolder(tmp_path / "A-256-512")).load()
    assert contents and len(contents[1]["history"]) >= 3


@pytest.mark.slow
def test_torchrun_goes_on_after_a_killed_process(dataset: Dataset, tmp_path: Path) -> None:
    """One of two processes is killed; with --max-restarts both start again and end as if nothing had been."""
    values = JITTERED | {"epochs": 24, "rescale_epochs": 24, "patience": 9999}
    launcher = [*TORCHRUN, "--max-restarts", "2", "--monitor-interval", "0.1"]
    runs = [RunFolder(tmp_path / name / "A-256-512") for name in ("whole", "killed")]
    whole = start(dataset, tmp_path / "whole", TORCHRUN, **values)
    _, talk = whole.communicate(timeout=120)
    assert whole.returncode == 0, talk
    process = start(dataset, tmp_path / "killed", launcher, "--checkpoint-minutes", "0.002", **values)
    for epoch in (5, 12):
        wait_for(process, f"epoch {epoch}/24")
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(workers) == 2
        os.kill(int(workers[epoch == 12]), signal.SIGKILL)
    _, talk = process.communicate(timeout=120)
    assert process.returncode == 0, talk
    assert "resuming at epoch" in talk
    assert runs[0].weights_path.read_bytes() == runs[1].weights_path.read_bytes()
    assert curve(runs[0]) == curve(runs[1])


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


def test_bad_weights_never_replace_a_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    chosen = recipe.load("demo", SMALL)
    goal = Goal(Run("A", Scale(256, 256)), chosen, 0.01, 1, seed=0)
    model = VGG("A", len(dataset.classes), 32, 1 / 16)
    initialise(model, "he", 0)
    training = Training(goal, model, dataset, RunFolder(tmp_path / "A-256"), CPU)
    training.save()
    training.checkpoints.wait()
    before = training.folder.checkpoint_path.read_bytes()
    with torch.no_grad():
        model.fc7.bias[3] = torch.inf
    with pytest.raises(InputError, match="A-256: the weights are no longer finite in epoch 1; the checkpoint before"):
        training.save()
    training.checkpoints.wait()
    assert training.folder.checkpoint_path.read_bytes() == before


def test_an_explosion_is_said_at_once(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step of epoch 2 has a hundred times its rate: said within three steps, once, and not without it."""
    values: dict[str, Any] = {"batch": 2, "epochs": 2, "learning_rate": 0.005, "warmup_steps": 0, "clip_norm": 0.0}
    values |= {"dropout": 0.0, "momentum_form": "torch"}
    train(dataset, tmp_path / "even", **values)
    assert "jumped" not in capsys.readouterr().err
    set_rate = Training._set_rate
    monkeypatch.setattr(
        Training, "_set_rate", lambda self, rate, done: set_rate(self, rate * (100 if done == 15 else 1), done)
    )
    assert train(dataset, tmp_path / "kicked", **values).finished
    said = re.findall(
        r"warning: A-256, epoch 2, step (\d+): the loss jumped to .*, (\d+) times its usual level.*"
        r"try clip_norm=.*train A --scale 256 --retrain --set learning_rate=0.0017",
        capsys.readouterr().err,
    )
    assert len(said) == 1
    step, times = map(int, said[0])
    assert 2 <= step <= 4
    assert times >= 3


def test_warns_of_a_run_at_chance(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(dataset, tmp_path, initialisation="random", initial_std=1e-4)
    talk = capsys.readouterr()
    assert "warning: A-256 is still at chance after 2 epochs (loss 1.79" in talk.err
    assert "or initialisation=looks-linear (now random), each with --set" in talk.err
    assert talk.out == ""


def test_metrics_say_what_happened(dataset: Dataset, tmp_path: Path) -> None:
    run = train(dataset, tmp_path, batch=2, dropout=0.0, warmup_steps=5, learning_rate=0.001, drop_by=[])
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    epochs = [line for line in lines if "step" not in line]
    assert [line["epoch"] for line in epochs] == [1, 2]
    assert [asdict(epoch) for epoch in run.epochs()] == epochs
    for line in epochs:
        assert 0 <= line["top5_error"] <= line["top1_error"] <= 100
        assert line["images_per_second"] > 0
        assert 0 <= line["data_wait"] <= 1
    between = [line for line in lines if "step" in line]
    assert [line["step"] for line in between] == [*range(2, 15, 2), *range(17, 30, 2)]  # 15 steps an epoch
    assert [line["learning_rate"] for line in between[:3]] == pytest.approx([0.0004, 0.0008, 0.001])
    for line in between:
        assert line["loss"] > 0
        assert line["gradient_norm"] > 0
    even = sum(line["loss"] for line in between[:7]) * 2  # all of the first epoch's steps but the last
    assert 0 < 15 * epochs[0]["loss"] - even < 5
    config = read_json(run.config_path)
    assert (config["net"], config["scale"], config["crop"], config["classes"]) == ("A", "256", 32, 6)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", config["versions"]["torch"])
    assert not list(run.path.glob("checkpoint*"))


def test_tensorboard_has_the_same_curves_without_doubles(
    dataset: Dataset, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    request.getfixturevalue("power_cuts")
    run = until_finished(dataset, tmp_path, replace(CPU, checkpoint_seconds=0.0, tensorboard=True), **CUT)
    events = accumulator.EventAccumulator(str(run.tensorboard_path), purge_orphaned_data=True).Reload()
    for kind, lines in (("epoch", run.epochs()), ("step", [line for line in run.metrics() if isinstance(line, Steps)])):
        for name in ("loss", "learning_rate", "images_per_second"):
            points = events.Scalars(f"{kind}/{name}")
            assert [point.step for point in points] == [getattr(line, "step", 7 * line.epoch) for line in lines]
            assert [point.value for point in points] == pytest.approx([getattr(line, name) for line in lines], rel=1e-5)


def test_tensorboard_that_is_missing_is_said(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"--tensorboard: .*install it with 'pip install vggrepro\[tensorboard\]'"):
        train(dataset, tmp_path, replace(CPU, tensorboard=True))


def test_status_shows_the_last_checkpoint(dataset: Dataset, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("power_cuts")
    with pytest.raises(RuntimeError):
        train(dataset, tmp_path, replace(CPU, checkpoint_seconds=0.0))
    run = RunFolder(tmp_path / "A-256")
    an_hour_ago = time.time() - 3600
    os.utime(run.checkpoint_path, (an_hour_ago, an_hour_ago))
    row = run_status.status(run)
    assert row.state == "interrupted"
    assert row.checkpoint_age == pytest.approx(3600, abs=60)
    run.checkpoint_path.unlink()  # the previous one is left
    age = run_status.status(run).checkpoint_age
    assert age is not None and age < 60
