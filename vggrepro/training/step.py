"""The loss of a micro-batch on the device: from uint8 crops to summed cross-entropy, in eager mode or compiled.

Nothing here makes the host wait for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from vggrepro.nets.vgg import VGG, to_input
from vggrepro.recipe import Recipe
from vggrepro.system import devices
from vggrepro.training.loader import Batch, mirror


def pieces(batch: Batch, most: int, device: torch.device) -> Iterator[Batch]:
    """Copies the batch to the device in micro-batches of at most `most` images; 0 makes one of the whole batch."""
    count = len(batch.labels)
    most = most or max(1, count)
    for start in range(0, count, most):
        yield Batch(*(devices.upload(tensor[start : start + most], device) for tensor in batch.tensors()))


class Loss:
    """Cross-entropy summed over the images of a micro-batch (Sect. 3.1).

    The class scores are converted to fp32 before the soft-max, at any precision.

    Args:
        model: on the device.
        recipe: dropout and input scale.
        mean: (3,), mean RGB of the training set, on the device.
        precision: fp32, tf32, bf16 or fp16.
        compiled: uses torch.compile. Compiling takes about a minute at first; then the operations between matrix
            products are fused. Results differ by rounding. Dropout masks are drawn outside and stay exactly the same.
            If something cannot be compiled, that is an error; it never runs uncompiled instead.
    """

    def __init__(self, model: VGG, recipe: Recipe, mean: Tensor, precision: str, *, compiled: bool = False) -> None:
        self.model, self.recipe, self.mean, self.precision = model, recipe, mean, precision
        halves = self._compiled() if compiled else (self._plain_maps, self._plain_end)
        self._maps: Callable[..., Tensor] = halves[0]
        self._end: Callable[..., Tensor] = halves[1]

    def __call__(self, batch: Batch) -> Tensor:
        masks = self.model.dropout_masks(self.recipe.dropout, batch.keys)
        crops = mirror(batch.crops, batch.flip)
        with devices.autocast(self.precision, self.mean.device):
            return self._end(self._maps(crops, batch.shift), batch.labels, masks)

    def _compiled(self) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        """Both halves, each compiled for each shape that comes.

        A compiled part's gradients are there all at once, when its backward pass ends. So the FC layers are a part of
        their own: their gradients travel to the other processes during the backward pass of the convolutions.

        torch counts the shapes of all nets together and stops compiling at the eighth, so a new net resets the count.
        """
        torch._dynamo.reset()
        maps = torch.compile(self._plain_maps, dynamic=False, fullgraph=True)
        return maps, torch.compile(self._plain_end, dynamic=False, fullgraph=True)

    def _plain_maps(self, crops: Tensor, shift: Tensor) -> Tensor:
        images = to_input(crops, self.mean - shift[:, None, None, :], self.recipe.input_scale)
        return self.model.features(images)

    def _plain_end(self, maps: Tensor, labels: Tensor, masks: tuple[Tensor, Tensor] | None) -> Tensor:
        return F.cross_entropy(self.model.scores(maps, masks).float(), labels, reduction="sum")
