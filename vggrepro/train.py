"""The training loop of Sect. 3.1: SGD with momentum on keyed crops, the plateau schedule, exact resumption.

The state of a training is (weights, momentum, history, step): everything random is keyed, so a run that resumes
from a checkpoint, or is spread over more processes or micro-batches, sees the same crops and dropout masks.
Nothing in a step makes the host wait for the device: what steps measure is read a little later (`watch.Readings`).
"""

from __future__ import annotations

import math
import signal
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from vggrepro import advice, hardware, weights
from vggrepro.checkpoint import Checkpoints
from vggrepro.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.files import write_json
from vggrepro.interrupt import Stopped, StopWish
from vggrepro.loader import Batch, Loader
from vggrepro.net import VGG, to_input
from vggrepro.paper import Run
from vggrepro.posteriors import TOP_K, ranks
from vggrepro.progress import Track, say
from vggrepro.recipe import Recipe
from vggrepro.runs import RunFolder
from vggrepro.step import Loss, pieces
from vggrepro.watch import Curves, Level, Readings

PROGRESS_SECONDS = 5.0  # between two writings of progress.json
CHANCE_EPOCHS = 2  # after so many epochs a loss within CHANCE_MARGIN of log K is reported
CHANCE_MARGIN = 0.01
LINES = 10  # of metrics within an epoch, about
LOSS_LEAP, NORM_LEAP = 3.0, 10.0  # so far above its running level, a loss or a gradient's norm explodes


@dataclass(frozen=True, slots=True)
class Machine:
    """How to compute: choices that do not change which training this is."""

    device: torch.device
    precision: str
    workers: int = 2
    micro_batch: int = 0  # images at a time on one device; 0 is all
    checkpoint_seconds: float = 600.0
    tensorboard: bool = False
    compile: bool = False  # the step, with torch.compile


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train: a run's recipe resolved for its place in the chain."""

    run: Run
    recipe: Recipe
    learning_rate: float
    epochs: int
    seed: int
    start: str | None = None  # what the user had it start from, if not what the paper has


@dataclass(slots=True)
class Progress:
    """Where a training stands; saved in its checkpoint."""

    step: int = 0  # steps done in the epoch that `history` lacks
    loss_sum: float = 0.0  # over that epoch's images so far
    line_loss: float = 0.0  # the same since the last line of metrics
    line_norm: float = 0.0  # largest norm of a gradient since then
    rate: float = 0.0  # of the last step
    seconds: float = 0.0  # of work on that epoch so far
    waited: float = 0.0  # seconds of those that training stood still for data
    history: list[dict[str, Any]] = field(default_factory=list)


class Training:
    """One run's training on one device or, under torchrun, on this process's share of each batch."""

    def __init__(
        self,
        plan: Plan,
        model: VGG,
        dataset: Dataset,
        folder: RunFolder,
        machine: Machine,
        loader: Loader | None = None,
    ) -> None:
        self.plan, self.folder, self.machine = plan, folder, machine
        self.recipe = plan.recipe
        self.model = model.to(machine.device).to(memory_format=torch.channels_last)
        self.classes = len(dataset.classes)
        self.batch = self.recipe.batch
        images = self.recipe.training_images(dataset.counts["train"])
        if not hardware.world() <= self.batch <= images:
            raise InputError(
                f"recipe: batch = {self.batch} must be at least the number of processes ({hardware.world()}) and at "
                f"most that of training images ({images:,})"
            )
        self.loader = loader or Loader(
            dataset,
            self.recipe,
            plan.run.scale,
            plan.seed,
            machine.device,
            machine.workers,
            hardware.share(self.batch),
            hardware.share,
        )
        self.steps = self.loader.steps
        self.mean = torch.tensor(dataset.mean_rgb, dtype=torch.float32, device=machine.device)
        self.optimiser = self._optimiser()
        self.loss = Loss(self.model, self.recipe, self.mean, machine.precision, compiled=machine.compile)
        self.gradient_sum = hardware.GradientSum(self._trained())
        self.progress = Progress()
        self.checkpoints = Checkpoints(folder)
        self.curves = Curves(folder, machine.tensorboard)
        self.readings = Readings(machine.device)
        self.stop = StopWish()
        self._stopping = False  # whether all processes agreed to
        self._act_at = 0  # the step at which they save, and perhaps stop; 0 is none
        self._saved = time.monotonic()
        self._loss_level = Level(LOSS_LEAP, floor=2 * math.log(self.classes))
        self._norm_level = Level(NORM_LEAP)
        self._warned = False  # of a leap, in this epoch
        self._lined = (0, 0.0, 0.0)  # step, seconds and waited at the last line of metrics
        self._bits = torch.tensor([0.0, 1.0], device=machine.device)

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

    @torch.no_grad()
    def save(self) -> None:
        """Writes the checkpoint (the first process only), in the background.

        Raises:
            InputError: the weights are no longer finite (in every process).
        """
        state = self.progress
        if not math.isfinite(float(torch.nn.utils.get_total_norm(self.model.parameters()))):
            raise self._diverged("the weights are")
        self._saved = time.monotonic()
        if hardware.rank():
            return
        self.curves.flush()
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            tensors[f"weights/{name}"] = parameter
            buffer = self.optimiser.state.get(parameter, {}).get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum/{name}"] = buffer
        self.checkpoints.save(tensors, asdict(state))

    def resume(self) -> bool:
        """Goes to where the run's checkpoint stands; False if there is none.

        Raises:
            InputError: the checkpoint is damaged or another program's.
        """
        contents = self.checkpoints.load()
        if contents is None:
            return False
        tensors, state = contents
        path = self.folder.checkpoint_path
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
            InputError: the loss, the gradient or the weights are no longer finite.
        """
        state = self.progress
        if hardware.rank() == 0:
            self.curves.open(len(state.history) * self.steps + state.step, state.history)
        try:
            with self.stop:
                while True:
                    rate, finished = self._rate()
                    if finished:
                        return
                    self._epoch(rate)
        finally:
            self.curves.close()
            self.checkpoints.wait()

    def _rate(self) -> tuple[float, bool]:
        errors = [record["top1_error"] for record in self.progress.history]
        return self.recipe.rate_after(errors, self.plan.learning_rate, self.plan.epochs)

    def _epoch(self, rate: float) -> None:
        """One epoch from `progress.step` on: steps, validation, a line of metrics, a checkpoint."""
        state, epoch = self.progress, len(self.progress.history)
        began, seconds_before = time.monotonic(), state.seconds
        spoke = began
        self._lined = (state.step, state.seconds, state.waited)
        self._warned = False
        talk = f"epoch {epoch + 1}/{self.plan.epochs} {self.summary()}"
        total, before = self.plan.epochs * self.steps, epoch * self.steps + state.step
        unit_done = before * self.batch
        with Track(f"train {self.plan.run.name}", total * self.batch, done=unit_done) as track:
            batches = self.loader.batches(epoch, state.step)
            while state.step < self.steps:
                asked = time.monotonic()
                batch = next(batches)
                state.waited += time.monotonic() - asked
                figures = self._step(rate, epoch, batch)
                state.step += 1
                self.readings.put(state.step, state.rate, figures)
                now = time.monotonic()
                state.seconds = seconds_before + now - began
                track.advance(self.batch, talk)
                read = self._read(everything=state.step == self.steps)
                if now - spoke > PROGRESS_SECONDS and read:
                    spoke = now
                    loss = state.loss_sum / (read * self.batch)
                    talk = f"epoch {epoch + 1}/{self.plan.epochs} loss {loss:.3f} {self.summary()}"
                    self._write_progress(epoch + state.step / self.steps, rate, track.rate, track.seconds_left)
                if 0 < self._act_at <= state.step:
                    self._read(everything=True)
                    self._act_at = 0
                    self.save()
                    if self._stopping:
                        self._write_progress(epoch + state.step / self.steps, rate, track.rate, track.seconds_left)
                        raise Stopped(self.stop.number or signal.SIGTERM)
        loss = state.loss_sum / (self.steps * self.batch)
        seconds = max(state.seconds, 1e-9)
        speed, waited = self.steps * self.batch / seconds, state.waited / seconds
        record: dict[str, Any] = {"epoch": epoch + 1, "learning_rate": rate, "loss": loss, **self._validate()}
        record |= {"images_per_second": round(speed, 1), "data_wait": round(waited, 4), "seconds": round(seconds, 3)}
        self.progress = Progress(rate=state.rate, history=[*state.history, record])
        if hardware.rank() == 0:
            self.curves.write((epoch + 1) * self.steps, record)
            self._write_progress(epoch + 1, rate, speed, track.seconds_left)
        self.save()
        say(
            f"{self.plan.run.name} epoch {epoch + 1}/{self.plan.epochs}: rate {rate:.2g}, loss {loss:.3f}, "
            f"{self.summary()}, {speed:,.0f} images/s, waiting for data {100 * waited:.0f} %"
        )
        self._warn_at_chance(loss)

    def _read(self, *, everything: bool) -> int:
        """Takes in what steps measured; gives the last step known of, 0 if none was new."""
        known = 0
        for known, rate, (loss, norm, stop, due) in self.readings.take(everything=everything):
            self._account(known, loss, norm, rate)
            if stop or due:  # every process reads this at the same step
                self._stopping |= stop > 0
                self._act_at = min(known + self.readings.lag, self.steps)
        return known

    def _account(self, step: int, loss: float, norm: float, rate: float) -> None:
        """Adds a step's loss, summed over its batch, and its gradient's norm to the epoch's; writes a line at times.

        Raises:
            InputError: they are not finite.
        """
        state, epoch = self.progress, len(self.progress.history)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise self._diverged("the loss is" if not math.isfinite(loss) else "the gradient is")
        state.loss_sum += loss
        state.line_loss += loss
        state.line_norm = max(state.line_norm, norm)
        self._warn_of_leaps(step, loss / self.batch, norm)
        every = -(-self.steps // LINES)
        if step % every:
            return
        images, seconds = every * self.batch, max(state.seconds - self._lined[1], 1e-9)
        speed = (step - self._lined[0]) * self.batch / seconds  # of those since a resumption
        waited = (state.waited - self._lined[2]) / seconds
        record = {"epoch": epoch + 1, "step": epoch * self.steps + step, "learning_rate": rate}
        record |= {"loss": state.line_loss / images, "gradient_norm": state.line_norm}
        record |= {"images_per_second": round(speed, 1), "data_wait": round(waited, 4)}
        if hardware.rank() == 0:
            self.curves.write(int(record["step"]), record)
        state.line_loss = state.line_norm = 0.0
        self._lined = (step, state.seconds, state.waited)

    def summary(self) -> str:
        """The last epoch's validation errors in words; empty before the first."""
        if not self.progress.history:
            return ""
        last = self.progress.history[-1]
        top5 = "" if last["top5_error"] is None else f" top-5 {last['top5_error']:.1f}"
        kind = "held-out" if self.recipe.held_out else "validation"
        return f"{kind} error top-1 {last['top1_error']:.1f}{top5} %"

    def _step(self, rate: float, epoch: int, batch: Batch) -> Tensor:
        """Forward, backward and update for one global batch.

        Gives, on the device: the loss summed over the batch's images, the norm of the gradient (before clipping), how
        many processes were asked to stop, and whether a checkpoint is due.
        """
        device, recipe = self.machine.device, self.recipe
        self._set_rate(rate, epoch * self.steps + self.progress.step)
        self.optimiser.zero_grad()
        total = torch.zeros((), device=device)
        done = 0
        for piece in pieces(batch, self.machine.micro_batch, device):
            done += len(piece.labels)
            loss = self.loss(piece)
            self.gradient_sum.arm(last=done == len(batch.labels))
            torch.autograd.backward(loss / self.batch)
            total += loss.detach()
        agreed = torch.stack([total, *self._asks()])  # travels with the gradients: a stop costs no message of its own
        self.gradient_sum.finish(agreed)
        parameters = self._trained()
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if recipe.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, recipe.clip_norm, norm)
        self.optimiser.step()
        return torch.stack([agreed[0], norm, agreed[1], agreed[2]])

    def _trained(self) -> list[Tensor]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    def _set_rate(self, rate: float, done: int) -> None:
        """Sets the rate of the step after `done` steps.

        torch keeps the rate out of the momentum buffer: w -= rate v. Caffe has it inside, so that what was gathered at
        the old rate goes on at the old rate; the same is had by torch's buffer times old / new.
        """
        recipe, state = self.recipe, self.progress
        if done < recipe.warmup_steps:
            rate *= (done + 1) / recipe.warmup_steps
        if recipe.momentum and recipe.momentum_form == "caffe" and state.rate not in (0.0, rate):
            buffers = [kept["momentum_buffer"] for kept in self.optimiser.state.values()]
            torch._foreach_mul_(buffers, state.rate / rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        state.rate = rate

    def _asks(self) -> tuple[Tensor, Tensor]:
        """Whether this process was asked to stop, and whether it finds a checkpoint due: 0 or 1 each."""
        due = hardware.rank() == 0 and time.monotonic() - self._saved > self.machine.checkpoint_seconds
        if due:
            self._saved = time.monotonic()
        return self._bits[int(self.stop.number > 0)], self._bits[int(due)]

    def _validate(self) -> dict[str, float | None]:
        """Top-1 and top-5 error (%) on the centre crops, at Q = S or its middle, of what judges the training."""
        count, machine = len(self.loader.judging), self.machine
        wrong = torch.zeros(2, device=machine.device)
        with torch.inference_mode():
            for pixels, labels in self.loader.validation():
                x = to_input(pixels.to(machine.device), self.mean, self.recipe.input_scale)
                with hardware.autocast(machine.precision, machine.device):
                    scores = self.model(x)
                rank = ranks(scores.float().cpu().numpy(), labels)
                wrong += torch.tensor([(rank >= 1).sum(), (rank >= TOP_K).sum()], device=machine.device)
        hardware.sum_over_processes([wrong])
        top1, top5 = (100 * images / count for images in wrong.tolist())
        return {"top1_error": top1, "top5_error": top5 if self.classes > TOP_K else None}

    # Talk

    def _write_progress(self, epoch: float, rate: float, speed: float, left: float | None) -> None:
        if hardware.rank() == 0:
            record: dict[str, Any] = {"epoch": round(epoch, 2), "epochs": self.plan.epochs, "learning_rate": rate}
            record |= {"images_per_second": round(speed, 1), "seconds_left": left, "time": round(time.time())}
            write_json(self.folder.progress_path, record)

    def _lower_rate(self) -> str:
        name = "rescale_rate" if self.plan.run.is_rescaling else "learning_rate"
        rate = f"{name}={self.plan.learning_rate / 3:.2g}"
        return advice.training(self.plan.run, "--retrain", "--set", rate, start=self.plan.start)

    def _diverged(self, what: str) -> InputError:
        """`what` ("the loss is") not finite: nothing is saved from here on."""
        return InputError(
            f"{self.plan.run.name}: {what} no longer finite in epoch {len(self.progress.history) + 1}; the checkpoint "
            f"before it is kept. Try a lower rate: {self._lower_rate()}"
        )

    def _warn_of_leaps(self, step: int, loss: float, norm: float) -> None:
        """Says once an epoch that the loss or the gradient explodes."""
        leaps = [
            f"{name} leapt to {value:.3g}, {value / level:.0f} times its level"
            for name, value, level, leap in (
                ("the loss", loss, self._loss_level.value, self._loss_level.leaps(loss)),
                ("the gradient's norm", norm, self._norm_level.value, self._norm_level.leaps(norm)),
            )
            if leap
        ]
        if leaps and not self._warned:
            self._warned = True
            clip = 2 * self._norm_level.value
            say(
                f"warning: {self.plan.run.name}, epoch {len(self.progress.history) + 1}, step {step}: "
                f"{' and '.join(leaps)}. If it does not come down again, try clip_norm={clip:.2g}, warmup_steps or a "
                f"lower rate: {self._lower_rate()}"
            )

    def _warn_at_chance(self, loss: float) -> None:
        if len(self.progress.history) == CHANCE_EPOCHS and loss > math.log(self.classes) - CHANCE_MARGIN:
            recipe, chance = self.recipe, math.log(self.classes)
            say(
                f"warning: {self.plan.run.name} is still at chance after {CHANCE_EPOCHS} epochs (loss {loss:.3f}, "
                f"chance {chance:.3f}); it may not start. Try another learning_rate (now {recipe.learning_rate:g}), "
                f"less dropout (now {recipe.dropout:g}), a smaller batch (now {self.batch}) or initialisation=he (now "
                f"{recipe.initialisation}), each with --set"
            )
