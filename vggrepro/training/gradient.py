"""The gradient of a global batch, in micro-batches that fit the memory, summed over all processes.

The first steps show whether a process's share fits its device. If it does not, all processes halve their micro-batches
and compute the same step again: no weight has changed, and dropout masks are a function of the image. The gradients
of a batch are then summed in another order, so the sum differs by rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vggrepro.errors import InputError
from vggrepro.nets.vgg import VGG
from vggrepro.recipe import Recipe
from vggrepro.system import devices, processes
from vggrepro.system.devices import Machine
from vggrepro.system.progress import say
from vggrepro.training.loader import Batch
from vggrepro.training.step import Loss, pieces

PROVING = 2  # first steps that show whether memory suffices; the second one has momentum, too


class Gradient:
    """Computes the gradients of one run, step by step.

    Args:
        model: on the device.
        recipe: batch, dropout and input scale.
        mean: (3,), mean RGB of the training set, on the device.
        machine: its device, precision, largest micro-batch, and whether to compile.
        parameters: what is trained.
        run: the run's name, for messages.
    """

    def __init__(
        self, model: VGG, recipe: Recipe, mean: Tensor, machine: Machine, parameters: list[Tensor], run: str
    ) -> None:
        self._model, self._recipe, self._mean, self._machine = model, recipe, mean, machine
        self._parameters, self._run = parameters, run
        self.scaler = torch.amp.GradScaler(machine.device.type, enabled=machine.precision == "fp16")
        self.limit = 0  # most images at a time once memory was short; 0: it never was
        self.loss = self._new_loss()
        self._sum = processes.GradientSum(parameters)
        self._proving = PROVING

    def _new_loss(self) -> Loss:
        precision, compiled = self._machine.precision, self._machine.compile
        return Loss(self._model, self._recipe, self._mean, precision, compiled=compiled)

    @property
    def micro_batch(self) -> int:
        """The most images at a time on this device: what the user asked for, or the limit; 0: the whole share."""
        return min(filter(None, (self._machine.micro_batch, self.limit)), default=0)

    def make(self, batch: Batch) -> Tensor:
        """Computes the gradient of the mean loss over the global batch; `finish` then completes it.

        Args:
            batch: this process's share.

        Returns:
            (): the loss, summed over the share.

        Raises:
            InputError: an image alone does not fit the memory, or memory fell short later in one of several processes.
        """
        while True:
            total = self._backward(batch)
            if self._all_fit(total is not None):
                break
            self._take_fewer()
        self._sum.release()
        self._proving = max(0, self._proving - 1)
        assert total is not None
        return total

    def finish(self, *others: Tensor) -> None:
        """Returns when all sums over the processes are done, also those of `others`; see `processes.GradientSum`."""
        self._sum.finish(*others)

    def _backward(self, batch: Batch) -> Tensor | None:
        """The share's loss; gradients, one micro-batch after another. None if memory falls short."""
        device = self._machine.device
        self._clear()
        try:
            total = torch.zeros((), device=device)
            done = 0
            for piece in pieces(batch, self.micro_batch, device):
                done += len(piece.labels)
                loss = self.loss(piece)
                self._sum.arm(last=done == len(batch.labels), hold=self._proving > 0)
                torch.autograd.backward(self.scaler.scale(loss / self._recipe.batch))
                total += loss.detach()
            return total
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            return None

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def _all_fit(self, fits: bool) -> bool:
        """Whether the step fitted the memory of all processes; they exchange this in the first steps only.

        Raises:
            InputError: memory fell short later, in one of several processes; the others have continued.
        """
        if processes.world() == 1:
            return fits
        if self._proving:
            short = torch.full((), 0.0 if fits else 1.0, device=self._machine.device)
            processes.sum_over_processes([short])
            return not short.item()
        if not fits:
            raise InputError(
                f"{self._run}: the memory of {self._machine.device} fell short; the same command goes on from the last "
                "checkpoint; if it happens again, give it a smaller --micro-batch"
            )
        return True

    def _take_fewer(self) -> None:
        """Halves the micro-batch; every process does so after the same step.

        Raises:
            InputError: a single image does not fit.
        """
        device, share = self._machine.device, -(-self._recipe.batch // processes.world())
        most = min(self.micro_batch or share, share)
        if most == 1:
            raise InputError(
                f"{self._run}: an image alone does not fit the memory of {device}; use --precision bf16, a smaller "
                "--width or --device cpu"
            )
        self.limit = -(-most // 2)
        self._clear()
        devices.release_memory(device)
        self.loss = self._new_loss()  # a compiled step counts its shapes anew
        say(f"note: {self._run}: {most} images at a time do not fit the memory of {device}; going on with {self.limit}")
