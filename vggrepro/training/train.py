"""The training loop of Sect. 3.1: SGD with momentum on random crops, a schedule that drops the rate, exact resumption.

The state of a training is (weights, momentum, history, step). All random choices are functions of seed, epoch and image
(`keyed`), so a run sees the same crops and dropout masks after a resumption, and with any number of processes or
micro-batches. No step but the first ones makes the host wait for the device: results of a step are read a little later
(`Readings`).
"""

from __future__ import annotations

import math
import signal
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.nets import weights
from vggrepro.nets.vgg import VGG, to_input
from vggrepro.paper import TOP_K, Run
from vggrepro.posteriors.ranks import true_ranks
from vggrepro.recipe import Recipe
from vggrepro.runs.folder import RunFolder
from vggrepro.system import devices, processes
from vggrepro.system.devices import Machine
from vggrepro.system.interrupt import Stopped, StopRequest
from vggrepro.system.threads import Follower
from vggrepro.training import recorded
from vggrepro.training.checkpoint import Checkpoints
from vggrepro.training.gradient import Gradient
from vggrepro.training.loader import Batch, Loader
from vggrepro.training.monitor import Curves, Monitor, Readings, State

FRESH_SECONDS = 20.0  # an epoch's end writes no checkpoint if the newest one is younger than this


@dataclass(frozen=True, slots=True)
class Goal:
    """What to train: a run, and its recipe's values for its place in the chain."""

    run: Run
    recipe: Recipe
    learning_rate: float  # of the first epoch
    epochs: int  # at most
    seed: int
    start: str | None = None  # what the user chose to start from; None: the paper's choice


class Training:
    """One run's training on one device or, under torchrun, on this process's share of each batch."""

    def __init__(
        self,
        goal: Goal,
        model: VGG,
        dataset: Dataset,
        folder: RunFolder,
        machine: Machine,
        loader: Loader | None = None,
    ) -> None:
        self.goal, self.folder, self.machine = goal, folder, machine
        self.recipe = goal.recipe
        self.model = model.to(machine.device).to(memory_format=torch.channels_last)
        self.classes = len(dataset.classes)
        self.batch = self.recipe.batch
        images = self.recipe.training_images(dataset.counts["train"])
        if not processes.world() <= self.batch <= images:
            raise InputError(
                f"recipe: batch = {self.batch} must be at least the number of processes ({processes.world()}) and at "
                f"most the number of training images ({images:,})"
            )
        self.loader = loader or Loader(dataset, self.recipe, goal.run.scale, goal.seed, machine.device, machine.workers)
        self.steps = self.loader.steps
        self.mean = torch.tensor(dataset.mean_rgb, dtype=torch.float32, device=machine.device)
        self.optimiser = self._optimiser()
        devices.repeatable(machine)
        self.gradient = Gradient(self.model, self.recipe, self.mean, machine, self._trained(), goal.run.name)
        self.scaler = self.gradient.scaler
        self.update = recorded.Recorded(self._update) if self._recordable() else self._update
        self.threads = Follower(machine.device.type == "cpu")
        self.state = State()
        self.checkpoints = Checkpoints(folder)
        self.readings = Readings(machine.device)
        self.monitor = Monitor(
            goal.run,
            self.recipe,
            goal.learning_rate,
            goal.epochs,
            self.steps,
            self.classes,
            Curves(folder, machine.tensorboard),
            goal.start,
        )
        self.stop = StopRequest()
        self._stopping = False  # whether all processes have agreed to stop
        self._save_at = 0  # the step after which all processes save, and stop if `_stopping`; 0: none
        self._saved = time.monotonic()
        self._bits = torch.tensor([0.0, 1.0], device=machine.device)

    def _optimiser(self) -> torch.optim.SGD:
        """SGD (Sect. 3.1) in two groups, weights and biases, since Caffe gives biases their own rate and decay.

        Layers that are not trained (FC-only fine-tuning, Sect. 4.4) are left out.
        """
        recipe = self.recipe
        groups: tuple[list[Tensor], list[Tensor]] = ([], [])
        for name, parameter in self.model.named_parameters():
            if self.goal.run.fc_only and not name.startswith("fc"):
                parameter.requires_grad_(False)
            else:
                groups[name.endswith(".bias")].append(parameter)
        decay = recipe.weight_decay
        optimiser = torch.optim.SGD(
            [
                {"params": groups[0], "rate": 1.0, "weight_decay": decay},
                {"params": groups[1], "rate": recipe.bias_rate, "weight_decay": decay * recipe.bias_decay},
            ],
            lr=self.goal.learning_rate,
            momentum=recipe.momentum,
            fused=self.machine.device.type in ("cpu", "cuda"),
        )
        if self.machine.device.type == "cuda":  # a recorded step reads its rate from the GPU
            for group in optimiser.param_groups:
                group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=self.machine.device)
        if self.machine.precision == "fp16" and recipe.momentum:
            # If fp16 skips its first step, torch would use momentum that was never written.
            for trained in (*groups[0], *groups[1]):
                optimiser.state[trained]["momentum_buffer"] = torch.zeros_like(trained)
        return optimiser

    # State

    @torch.no_grad()
    def save(self, older: float = 0.0) -> None:
        """Writes a checkpoint in the background; only the first process does.

        Args:
            older: seconds; a checkpoint that is younger is enough.

        Raises:
            InputError: the weights are no longer finite; raised in every process.
        """
        if not math.isfinite(float(torch.nn.utils.get_total_norm(self.model.parameters()))):
            raise self.monitor.diverged("the weights are", len(self.state.history) + 1)
        if time.monotonic() - self._saved < older:
            return
        self._saved = time.monotonic()
        if not processes.is_first():
            return
        self.monitor.curves.flush()
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            tensors[f"weights/{name}"] = parameter
            buffer = self.optimiser.state.get(parameter, {}).get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum/{name}"] = buffer
        self.state.scaler = self.scaler.state_dict()
        self.checkpoints.save(tensors, asdict(self.state))

    def resume(self) -> bool:
        """Loads the run's checkpoint; False if there is none.

        Raises:
            InputError: the checkpoint is damaged, or the file is no training checkpoint.
        """
        contents = self.checkpoints.load()
        if contents is None:
            return False
        tensors, values = contents
        path = self.folder.checkpoint_path
        own = {name.removeprefix("weights/"): t for name, t in tensors.items() if name.startswith("weights/")}
        weights.into(self.model, own, str(path))
        for name, parameter in self.model.named_parameters():
            if (buffer := tensors.get(f"momentum/{name}")) is not None:
                kept = torch.empty_like(parameter).copy_(buffer)  # in the parameter's memory format and device
                self.optimiser.state[parameter]["momentum_buffer"] = kept
        try:
            self.state = State.of(values)
        except (TypeError, ValueError):
            raise InputError(f"{path}: not a training checkpoint; remove it to start this run again") from None
        self.gradient.limit = self.state.micro_batch
        if self.state.scaler:
            self.scaler.load_state_dict(self.state.scaler)
        return True

    # The loop of Sect. 3.1

    def run(self) -> None:
        """Trains to the end of the schedule; the caller then stores the weights.

        Raises:
            Stopped: a signal asked to stop; the checkpoint is saved.
            InputError: the loss, the gradient or the weights are no longer finite.
        """
        self.monitor.open(self.state)
        try:
            with self.stop:
                rate, finished = self._schedule()
                while not finished:
                    self._epoch(rate)
                    rate, finished = self._schedule()
        finally:
            self.monitor.curves.close()
            self.checkpoints.wait()

    def _schedule(self) -> tuple[float, bool]:
        """The learning rate of the next epoch, and whether training is over.

        Sect. 3.1: the rate is divided by 10 when the validation accuracy stops improving, three times in all.
        """
        errors = [each.top1_error for each in self.state.history]
        return self.recipe.rate_after(errors, self.goal.learning_rate, self.goal.epochs)

    def _epoch(self, rate: float) -> None:
        """One epoch of Sect. 3.1 at the schedule's learning rate, from step `state.step` on."""
        state, epoch = self.state, len(self.state.history)
        with self.monitor.epoch(state, rate):
            # Crops: each image is rescaled to S, cropped at random, mirrored at random and shifted in colour.
            for batch in self.monitor.timed(self.loader.batches(epoch, state.step)):
                # Loss, gradient, update. Its figures are read a few steps later: the host never waits for a GPU.
                figures = self.step(rate, epoch, batch)
                state.step += 1
                self.readings.put(state.step, state.rate, figures)
                self.monitor.step_done()
                self._read(everything=state.step == self.steps)

                # Checkpoint within an epoch, at the same step in every process.
                if 0 < self._save_at <= state.step:
                    self._save_as_agreed()

        # Validation: its error decides when the rate drops.
        done = self.monitor.end_epoch(*self._validate())
        self.state = State(rate=state.rate, history=[*state.history, done], micro_batch=state.micro_batch)

        # Checkpoint of the finished epoch. Short epochs skip it if the last checkpoint is recent.
        self.save(older=min(FRESH_SECONDS, self.machine.checkpoint_seconds))
        self.monitor.say_epoch(done)

    def step(self, rate: float, epoch: int, batch: Batch) -> Tensor:
        """One update of the weights by a global batch.

        Args:
            rate: the schedule's learning rate.
            epoch: from 0; with `state.step` it gives the place in the warm-up.
            batch: this process's share of the batch.

        Returns:
            (4,) float32 on the device: the loss summed over the global batch, the norm of its gradient before clipping,
            the number of processes that were asked to stop, and 1 if a checkpoint is due.

        Raises:
            InputError: an image alone does not fit the memory, or memory fell short later in one of several processes.
        """
        self.threads.follow()

        # Learning rate: the schedule's, after a warm-up (none in the paper).
        self._set_rate(rate, epoch * self.steps + self.state.step)

        # Loss, gradient and new weights.
        figures = self.update(*batch.tensors(), *self._asks())
        self.state.micro_batch = self.gradient.limit
        return figures

    def _update(self, *tensors: Tensor) -> Tensor:
        """What a step does on the device; the tensors are the batch's and the two of `_asks`."""
        *of_batch, stop, due = tensors

        # Loss and gradient: mean cross-entropy over the batch (256 images), one micro-batch after another.
        total = self.gradient.make(Batch(*of_batch))
        sums = torch.stack([total, stop, due])  # summed in the same message as small gradients
        self.gradient.finish(sums)

        # Clipping: none in the paper; the small presets limit the gradient's norm.
        self.scaler.unscale_(self.optimiser)
        parameters = self._trained()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.recipe.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.recipe.clip_norm, norm)

        # Momentum (0.9) and weight decay (5e-4) are applied by the optimiser.
        recorded = self._recorded_norm(norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return torch.stack([sums[0], recorded, sums[1], sums[2]])

    def _recordable(self) -> bool:
        """Whether to record the step: one GPU does the same in every step, with too little work to keep it busy."""
        machine = self.machine
        alone = machine.device.type == "cuda" and processes.world() == 1
        plain = not machine.compile and not self.scaler.is_enabled()
        small = self.loader.resident is not None and self.batch * self.recipe.crop**2 <= recorded.PIXELS
        return alone and plain and small

    def _recorded_norm(self, norm: Tensor) -> Tensor:
        """The gradient's norm for the metrics: 0 if fp16 skips this step because its scaled gradient overflowed.

        The next step then has half the scale. An overflow at scale 1 is the gradient's own, and stays infinite.
        """
        if not self.scaler.is_enabled():
            return norm
        scale = self.scaler.scale(torch.ones_like(norm))
        return torch.where(norm.isfinite() | (scale <= 1), norm, 0.0)

    def _trained(self) -> list[Tensor]:
        return [p for group in self.optimiser.param_groups for p in group["params"]]

    def _set_rate(self, rate: float, done: int) -> None:
        """Sets the learning rate of the step that follows `done` steps of the run.

        torch keeps the rate outside the momentum buffer v: w -= rate v. Caffe, on which the authors' code was built
        (Sect. 3.3), keeps it inside: v = mu v + rate g, w -= v. There, past gradients keep the rate of their own step.
        Multiplying torch's buffer by old rate / new rate gives the same weights.
        """
        recipe, state = self.recipe, self.state
        if done < recipe.warmup_steps:
            rate *= (done + 1) / recipe.warmup_steps
        if recipe.momentum and recipe.momentum_form == "caffe" and state.rate not in (0.0, rate):
            buffers = [kept["momentum_buffer"] for kept in self.optimiser.state.values()]
            torch._foreach_mul_(buffers, state.rate / rate)
        for group in self.optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * group["rate"])
            else:
                group["lr"] = rate * group["rate"]
        state.rate = rate

    def _validate(self) -> tuple[float, float | None]:
        """Top-1 and top-5 error (%) on centre crops at Q = S, or at the middle of a range S.

        The images are the validation set's, or those held out; top-5 is None for five classes or fewer.
        """
        machine, found, truths = self.machine, list[Tensor](), list[np.ndarray]()
        with torch.inference_mode():
            for pixels, labels in self.loader.validation():
                x = to_input(devices.upload(pixels, machine.device), self.mean, self.recipe.input_scale)
                with devices.autocast(machine.precision, machine.device):
                    found += [self.model(part).float() for part in torch.split(x, self.gradient.limit or len(x))]
                truths.append(labels)
        ranks = np.empty(0, int)  # where images are fewer than processes, some have none
        if found:
            ranks = true_ranks(torch.cat(found).cpu().numpy(), np.concatenate(truths))  # the only wait for a GPU
        wrong = torch.tensor([(ranks >= 1).sum(), (ranks >= TOP_K).sum()], dtype=torch.float32, device=machine.device)
        processes.sum_over_processes([wrong])
        top1, top5 = (100 * images / len(self.loader.validation_rows) for images in wrong.tolist())
        return top1, top5 if self.classes > TOP_K else None

    def summary(self) -> str:
        """The validation errors of the last epoch in words; empty before the first."""
        return self.monitor.summary(self.state.history)

    # When to save and to stop: processes agree on the step by numbers that are summed with the gradients.

    def _asks(self) -> tuple[Tensor, Tensor]:
        """Whether this process was asked to stop, and whether a checkpoint is due: 0 or 1 each, on the device."""
        due = processes.is_first() and time.monotonic() - self._saved > self.machine.checkpoint_seconds
        if due:
            self._saved = time.monotonic()
        return self._bits[int(self.stop.number > 0)], self._bits[int(due)]

    def _read(self, *, everything: bool) -> None:
        """Reads the figures of past steps: losses go to the monitor, a request sets the step at which to save."""
        for step, rate, (loss, norm, stop, due) in self.readings.take(everything=everything):
            self.monitor.add(step, rate, loss, norm)
            if stop or due:  # every process reads this at the same step
                self._stopping |= stop > 0
                self._save_at = min(step + self.readings.lag, self.steps)

    def _save_as_agreed(self) -> None:
        """Saves within an epoch.

        Raises:
            Stopped: some process was asked to stop.
        """
        self._read(everything=True)  # the checkpoint's sums contain every step done
        self._save_at = 0
        self.save()
        if self._stopping:
            self.monitor.write_progress()
            raise Stopped(self.stop.number or signal.SIGTERM)
