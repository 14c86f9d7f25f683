"""The training loop of Sect. 3.1: SGD with momentum on keyed crops, the plateau schedule, exact resumption.

The state of a training is (weights, momentum, history, step): everything random is keyed, so a run that resumes
from a checkpoint, or is spread over more processes or micro-batches, sees the same crops and dropout masks.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vggrepro import hardware, weights
from vggrepro.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.files import write_json, write_text
from vggrepro.loader import Batch, Loader, mirror
from vggrepro.net import VGG, to_input
from vggrepro.paper import Run
from vggrepro.posteriors import TOP_K, ranks
from vggrepro.progress import Track, say
from vggrepro.recipe import Recipe, learning_rate
from vggrepro.runs import RunFolder

PROGRESS_SECONDS = 5.0  # between two writings of progress.json
CHANCE_EPOCHS = 2  # after so many epochs a loss within CHANCE_MARGIN of log K is reported
CHANCE_MARGIN = 0.01


class Stopped(Exception):
    """SIGTERM or Ctrl-C arrived (`signal`); the checkpoint is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


@dataclass(frozen=True, slots=True)
class Machine:
    """How to compute: choices that do not change which training this is."""

    device: torch.device
    precision: str
    workers: int = 2
    micro_batch: int = 0  # images at a time on one device; 0 is all
    checkpoint_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train: a run's recipe resolved for its place in the chain."""

    run: Run
    recipe: Recipe
    learning_rate: float
    epochs: int
    seed: int


@dataclass(slots=True)
class Progress:
    """Where a training stands; saved in its checkpoint."""

    step: int = 0  # steps done in the epoch that `history` lacks
    loss_sum: float = 0.0  # over that epoch's images so far
    seconds: float = 0.0  # of work on that epoch so far
    waited: float = 0.0  # seconds of those that training stood still for data
    history: list[dict[str, Any]] = field(default_factory=list)


class Training:
    """One run's training on one device or, under torchrun, on this process's share of each batch."""

    def __init__(self, plan: Plan, model: VGG, dataset: Dataset, folder: RunFolder, machine: Machine) -> None:
        self.plan, self.folder, self.machine = plan, folder, machine
        self.recipe = plan.recipe
        self.model = model.to(machine.device).to(memory_format=torch.channels_last)
        self.classes = len(dataset.classes)
        self.batch = self.recipe.batch
        if not hardware.world() <= self.batch <= dataset.counts["train"]:
            raise InputError(
                f"recipe: batch = {self.batch} must be at least the number of processes ({hardware.world()}) and at "
                f"most that of training images ({dataset.counts['train']:,})"
            )
        self.loader = Loader(
            dataset,
            self.recipe,
            plan.run.scale,
            plan.seed,
            machine.device,
            machine.workers,
            hardware.share(self.batch),
            hardware.share(dataset.counts["val"]),
        )
        self.steps = self.loader.steps
        self.mean = torch.tensor(dataset.mean_rgb, dtype=torch.float32, device=machine.device)
        self.optimiser = self._optimiser()
        self.progress = Progress()
        self.stop_signal = 0  # which signal asked to stop

    def _optimiser(self) -> torch.optim.SGD:
        """SGD whose biases have their own rate and decay; frozen layers (FC-only fine-tuning) are left out."""
        recipe = self.recipe
        groups: tuple[list[Tensor], list[Tensor]] = ([], [])
        for name, parameter in self.model.named_parameters():
            if self.plan.run.fc_only and not name.startswith("fc"):
                parameter.requires_grad_(False)
            else:
                groups[name.endswith(".bias")].append(parameter)
        decay = recipe.weight_decay
        return torch.optim.SGD(
            [
                {"params": groups[0], "rate": 1.0, "weight_decay": decay},
                {"params": groups[1], "rate": recipe.bias_rate, "weight_decay": decay * recipe.bias_decay},
            ],
            lr=self.plan.learning_rate,
            momentum=recipe.momentum,
            fused=self.machine.device.type in ("cpu", "cuda"),
        )

    # State

    def save(self) -> None:
        """Writes the checkpoint (the first process only)."""
        if hardware.rank():
            return
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            tensors[f"weights/{name}"] = parameter
            buffer = self.optimiser.state.get(parameter, {}).get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum/{name}"] = buffer
        state = self.progress
        record = {name: getattr(state, name) for name in ("step", "loss_sum", "seconds", "waited", "history")}
        weights.save(self.folder.checkpoint_path, tensors, record)

    def resume(self) -> bool:
        """Goes to where the run's checkpoint stands; False if there is none."""
        path = self.folder.checkpoint_path
        if not path.is_file():
            return False
        tensors, state = weights.load(path)
        own = {name.removeprefix("weights/"): t for name, t in tensors.items() if name.startswith("weights/")}
        weights.into(self.model, own, str(path))
        for name, parameter in self.model.named_parameters():
            if (buffer := tensors.get(f"momentum/{name}")) is not None:
                kept = torch.empty_like(parameter).copy_(buffer)  # in the parameter's memory format and device
                self.optimiser.state[parameter]["momentum_buffer"] = kept
        try:
            self.progress = Progress(**state)
        except TypeError:
            raise InputError(f"{path}: is no training checkpoint; remove it to start this run again") from None
        return True

    # The loop

    def run(self) -> None:
        """Trains to the end of the schedule; the caller then stores the weights.

        Raises:
            Stopped: a signal asked to stop; the checkpoint is saved.
            InputError: the loss is no longer finite.
        """
        with self._signals():
            while True:
                rate, finished = self._rate()
                if finished:
                    return
                self._epoch(rate)

    def _rate(self) -> tuple[float, bool]:
        recipe = self.recipe
        return learning_rate(
            [record["top1_error"] for record in self.progress.history],
            self.plan.learning_rate,
            self.plan.epochs,
            drops=recipe.drops,
            patience=recipe.patience,
            min_improvement=recipe.min_improvement,
            drop_by=recipe.drop_by,
        )

    def _epoch(self, rate: float) -> None:
        """One epoch from `progress.step` on: steps, validation, a line of metrics, a checkpoint."""
        state, epoch = self.progress, len(self.progress.history)
        loss_sum = torch.tensor(state.loss_sum, dtype=torch.float64, device=self.machine.device)
        began, seconds_before = time.monotonic(), state.seconds
        spoke = saved = began
        talk = f"epoch {epoch + 1}/{self.plan.epochs} {self.summary()}"
        total, before = self.plan.epochs * self.steps, epoch * self.steps + state.step
        unit_done = before * self.batch
        with Track(f"train {self.plan.run.name}", total * self.batch, done=unit_done) as track:
            batches = self.loader.batches(epoch, state.step)
            while state.step < self.steps:
                asked = time.monotonic()
                batch = next(batches)
                state.waited += time.monotonic() - asked
                loss_sum += self._step(rate, epoch, batch)
                state.step += 1
                now = time.monotonic()
                state.seconds = seconds_before + now - began
                track.advance(self.batch, talk)
                if now - spoke > PROGRESS_SECONDS:
                    spoke = now
                    loss = float(loss_sum) / (state.step * self.batch)  # waits for the device: not at each step
                    talk = f"epoch {epoch + 1}/{self.plan.epochs} loss {loss:.3f} {self.summary()}"
                    self._write_progress(epoch + state.step / self.steps, rate, track.rate, track.seconds_left)
                stop = self.agreed_stop()
                if stop or now - saved > self.machine.checkpoint_seconds:
                    saved = now
                    state.loss_sum = self._finite(loss_sum, epoch)
                    self.save()
                if stop:
                    self._write_progress(epoch + state.step / self.steps, rate, track.rate, track.seconds_left)
                    raise Stopped(stop)
        loss = self._finite(loss_sum, epoch) / (self.steps * self.batch)
        seconds = max(state.seconds, 1e-9)
        speed, waited = self.steps * self.batch / seconds, state.waited / seconds
        record: dict[str, Any] = {"epoch": epoch + 1, "learning_rate": rate, "loss": loss, **self._validate()}
        record |= {"images_per_second": round(speed, 1), "data_wait": round(waited, 4), "seconds": round(seconds, 3)}
        self.progress = Progress(history=[*state.history, record])
        if hardware.rank() == 0:
            lines = "".join(json.dumps(line) + "\n" for line in self.progress.history)
            write_text(self.folder.metrics_path, lines)
            self._write_progress(epoch + 1, rate, speed, track.seconds_left)
        self.save()
        say(
            f"{self.plan.run.name} epoch {epoch + 1}/{self.plan.epochs}: rate {rate:.2g}, loss {loss:.3f}, "
            f"{self.summary()}, {speed:,.0f} images/s, waiting for data {100 * waited:.0f} %"
        )
        self._warn_at_chance(loss)

    def summary(self) -> str:
        """The last epoch's validation errors in words; empty before the first."""
        if not self.progress.history:
            return ""
        last = self.progress.history[-1]
        top5 = "" if last["top5_error"] is None else f" top-5 {last['top5_error']:.1f}"
        return f"validation error top-1 {last['top1_error']:.1f}{top5} %"

    def _step(self, rate: float, epoch: int, batch: Batch) -> Tensor:
        """Forward, backward and update for one global batch; gives the loss summed over its images."""
        device, recipe = self.machine.device, self.recipe
        done = epoch * self.steps + self.progress.step
        if done < recipe.warmup_steps:
            rate *= (done + 1) / recipe.warmup_steps
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.optimiser.zero_grad(set_to_none=hardware.world() == 1)
        total = torch.zeros((), dtype=torch.float64, device=device)
        count = len(batch.labels)
        many = self.machine.micro_batch or max(1, count)
        for piece in (slice(start, start + many) for start in range(0, count, many)):
            pixels = mirror(batch.crops[piece].to(device, non_blocking=True), batch.flip[piece].to(device))
            mean = self.mean - batch.shift[piece, None, None, :].to(device)
            masks = self.model.dropout_masks(recipe.dropout, batch.keys[piece].to(device))
            with hardware.autocast(self.machine.precision, device):
                scores = self.model(to_input(pixels, mean, recipe.input_scale), masks)
            loss = F.cross_entropy(scores.float(), batch.labels[piece].to(device), reduction="sum")
            torch.autograd.backward(loss / self.batch)
            total += loss.detach()
        if hardware.world() > 1:
            hardware.sum_over_processes([*(p.grad for p in parameters if p.grad is not None), total])
        if recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        self.optimiser.step()
        return total

    def _validate(self) -> dict[str, float | None]:
        """Top-1 and top-5 error (%) on the centre crops of the validation set at Q = S (or its middle)."""
        count, machine = len(self.loader.val), self.machine
        wrong = torch.zeros(2, dtype=torch.float64, device=machine.device)
        with torch.inference_mode():
            for pixels, labels in self.loader.validation():
                x = to_input(pixels.to(machine.device), self.mean, self.recipe.input_scale)
                with hardware.autocast(machine.precision, machine.device):
                    scores = self.model(x)
                rank = ranks(scores.float().cpu().numpy(), labels)
                wrong += torch.tensor([(rank >= 1).sum(), (rank >= TOP_K).sum()], device=machine.device)
        hardware.sum_over_processes([wrong])
        top1, top5 = (100 * wrong / count).tolist()
        return {"top1_error": top1, "top5_error": top5 if self.classes > TOP_K else None}

    # Talk and signals

    def _write_progress(self, epoch: float, rate: float, speed: float, left: float | None) -> None:
        if hardware.rank() == 0:
            record: dict[str, Any] = {"epoch": round(epoch, 2), "epochs": self.plan.epochs, "learning_rate": rate}
            record |= {"images_per_second": round(speed, 1), "seconds_left": left, "time": round(time.time())}
            write_json(self.folder.progress_path, record)

    def _finite(self, loss_sum: Tensor, epoch: int) -> float:
        value = float(loss_sum)
        if not math.isfinite(value):
            name = "rescale_rate" if self.plan.run.is_rescaling else "learning_rate"
            raise InputError(
                f"{self.plan.run.name}: the loss is no longer finite in epoch {epoch + 1}; the checkpoint before it is "
                f"kept. Try a lower rate: {self.plan.run.command} --retrain --set {name}="
                f"{self.plan.learning_rate / 3:.2g}"
            )
        return value

    def _warn_at_chance(self, loss: float) -> None:
        if len(self.progress.history) == CHANCE_EPOCHS and loss > math.log(self.classes) - CHANCE_MARGIN:
            recipe, chance = self.recipe, math.log(self.classes)
            say(
                f"warning: {self.plan.run.name} is still at chance after {CHANCE_EPOCHS} epochs (loss {loss:.3f}, "
                f"chance {chance:.3f}); it may not start. Try another learning_rate (now {recipe.learning_rate:g}), "
                f"less dropout (now {recipe.dropout:g}), a smaller batch (now {self.batch}) or initialisation=he (now "
                f"{recipe.initialisation}), each with --set"
            )

    def agreed_stop(self) -> int:
        """The signal by which any process was asked to stop, or 0; all processes leave at the same step."""
        if hardware.world() == 1:
            return self.stop_signal
        asked = torch.tensor([float(self.stop_signal > 0)], device=self.machine.device)
        hardware.sum_over_processes([asked])
        return (self.stop_signal or signal.SIGTERM) if asked.item() else 0

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C stop after the current step; a second Ctrl-C stops at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self.stop_signal and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.stop_signal = number

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
