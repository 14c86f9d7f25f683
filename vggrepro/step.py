"""A micro-batch on the device: uint8 crops in, the summed loss out, in eager mode or compiled as one function.

Nothing here makes the host wait for a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import torch
from torch import Tensor
from torch.nn import functional as F

from vggrepro import hardware
from vggrepro.loader import Batch, mirror
from vggrepro.net import VGG, to_input
from vggrepro.recipe import Recipe


def pieces(batch: Batch, most: int, device: torch.device) -> Iterator[Batch]:
    """The batch on the device, `most` images at a time; 0 is all at once."""
    names = [field.name for field in fields(Batch)]
    count = len(batch.labels)
    most = most or max(1, count)
    for start in range(0, count, most):
        part = (getattr(batch, name)[start : start + most] for name in names)
        yield Batch(*(hardware.upload(tensor, device) for tensor in part))


class Loss:
    """Cross-entropy summed over a micro-batch, from its crops; fp32 from fc8 on at any precision.

    Args:
        model: on the device.
        recipe: dropout and input scale.
        mean: RGB of the training set, on the device.
        precision: fp32, tf32 or bf16.
        compiled: with torch.compile, which costs a minute or so at first and then fuses what lies between matrix
            products; results differ by rounding. Dropout's masks are made outside and stay the same to the bit.
    """

    def __init__(self, model: VGG, recipe: Recipe, mean: Tensor, precision: str, *, compiled: bool = False) -> None:
        self.model, self.recipe, self.mean, self.precision = model, recipe, mean, precision
        self._loss = torch.compile(self._plain, dynamic=False) if compiled else self._plain

    def __call__(self, batch: Batch) -> Tensor:
        masks = self.model.dropout_masks(self.recipe.dropout, batch.keys)
        crops = mirror(batch.crops, batch.flip)
        with hardware.autocast(self.precision, self.mean.device):
            return self._loss(crops, batch.shift, batch.labels, masks)

    def _plain(self, crops: Tensor, shift: Tensor, labels: Tensor, masks: tuple[Tensor, Tensor] | None) -> Tensor:
        images = to_input(crops, self.mean - shift[:, None, None, :], self.recipe.input_scale)
        return F.cross_entropy(self.model(images, masks).float(), labels, reduction="sum")
