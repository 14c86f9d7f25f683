"""Runs a trained net on test views: posteriors of rescaled images by any method (Sect. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vggrepro.errors import InputError
from vggrepro.evaluation import views
from vggrepro.nets.trained import Trained
from vggrepro.nets.vgg import VGG, to_input
from vggrepro.posteriors.protocol import Method
from vggrepro.system import devices
from vggrepro.system.devices import Machine
from vggrepro.system.progress import say

FORWARD_PIXELS = {"cpu": 1 << 20, "cuda": 32 << 20}  # input pixels of a forward pass, flips included
WAITING_BYTES = 256 << 20  # of images that wait for others of their size, for each method and Q


def dense_posteriors(model: VGG, x: Tensor, flip: bool = True, ceil_pool: bool = False) -> Tensor:
    """Dense posteriors (Sect. 3.2): the mean over flips of the soft-max of spatially averaged scores.

    (N, 3, H, W) net input -> (N, K) float32.
    """
    return _mean_over_flips(partial(model.dense_scores, ceil_pool=ceil_pool), x, flip)


def crop_posteriors(model: VGG, x: Tensor, flip: bool = True) -> Tensor:
    """Posteriors of crops, the mean over flips: (N, 3, crop, crop) -> (N, K) float32."""
    return _mean_over_flips(model, x, flip)


def _mean_over_flips(scores: Any, x: Tensor, flip: bool) -> Tensor:
    views_of_x = torch.cat([x, x.flip(3)]) if flip else x
    result = torch.softmax(scores(views_of_x).float(), dim=1)
    return result.view(-1, len(x), result.shape[1]).mean(0)


class Evaluator:
    """A finished run's net on a device, ready for images."""

    def __init__(self, trained: Trained, machine: Machine) -> None:
        config = trained.config
        self.crop, self.classes, self.resample = config.crop, config.classes, config.recipe.resample
        self.machine, self.input_scale = machine, config.input_scale
        self.mean = torch.tensor(config.mean_rgb, dtype=torch.float32, device=machine.device)
        self.model = trained.model()
        self.model.to(machine.device).to(memory_format=torch.channels_last)
        if half := devices.HALVES.get(machine.precision):  # what autocast would do in each pass; fc8 stays in fp32
            for name, layer in self.model.named_children():
                if name != "fc8":
                    layer.to(half)
        self._budget = FORWARD_PIXELS.get(machine.device.type, FORWARD_PIXELS["cpu"])

    @property
    def outputs(self) -> int:
        """How many numbers `forward` gives for an image."""
        return self.classes

    def posteriors(self, images: Sequence[np.ndarray], method: Method) -> np.ndarray:
        """Posteriors of rescaled images, each uint8 (H, W, 3), of any sizes: (n, K) float32.

        Raises:
            InputError: a single image does not fit the memory.
        """
        batcher = Batcher(self, method)
        for image in images:
            batcher.add(image)
        return batcher.finish()

    def images_a_pass(self, size: tuple[int, ...], method: Method) -> int:
        """How many images of a size (H, W, 3) share a forward pass."""
        return max(1, self._budget // self._pixels(size, method))

    def _pixels(self, size: tuple[int, ...], method: Method) -> int:
        """Input pixels of one image, flips and distinct crops included."""
        if method.name == "dense":
            return size[0] * size[1] * method.flips
        return len(views.distinct(size[0], size[1], self.crop, method)[0]) * self.crop**2 * method.flips

    def spend_less(self, images: int, size: tuple[int, ...], method: Method) -> None:
        """After a pass of `images` that did not fit the memory: halves this and all further passes.

        Raises:
            InputError: it was a single image.
        """
        if images == 1:
            raise InputError(
                f"an image of {size[1]}x{size[0]} pixels does not fit the memory of {self.machine.device}; "
                "use a smaller Q, --precision bf16 or --device cpu"
            )
        self._budget = images * self._pixels(size, method) // 2
        if self.machine.device.type == "cuda":
            torch.cuda.empty_cache()
        say(f"note: {images} images of {size[1]}x{size[0]} do not fit the memory; going on with {images // 2}")

    def forward(self, batch: Tensor, method: Method) -> Tensor:
        """Posteriors of equal-sized images in one pass: uint8 (n, H, W, 3) on the device -> (n, K) float32."""
        with torch.inference_mode(), devices.autocast(self.machine.precision, self.machine.device):
            if method.name == "dense":
                x = to_input(batch, self.mean, self.input_scale)
                return dense_posteriors(self.model, x, method.flip, method.ceil_pool)
            first, which = views.distinct(batch.shape[1], batch.shape[2], self.crop, method)
            crops = views.crops(batch, self.crop, method)
            crops = crops.view(len(batch), -1, *crops.shape[1:])[:, first].flatten(0, 1)
            result = crop_posteriors(self.model, to_input(crops, self.mean, self.input_scale), method.flip)
            return result.view(len(batch), len(first), -1)[:, which].mean(1)


class Batcher:
    """Computes the posteriors (or the features) of one method at one Q.

    Images wait, by size, until they fill a forward pass.

    Which images share a pass depends on their order alone, so the same images give the same bits.
    """

    def __init__(self, evaluator: Evaluator, method: Method) -> None:
        self._evaluator, self._method = evaluator, method
        self._waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
        self._images = self._bytes = 0
        self._places: list[int] = []
        self._found: list[Tensor] = []  # they stay on the device, so that it does not wait for the host

    def add(self, image: np.ndarray) -> None:
        """One more image, uint8 (H, W, 3).

        Raises:
            InputError: a single image does not fit the memory.
        """
        waiting = self._waiting.setdefault(image.shape, [])
        waiting.append((self._images, image))
        self._images, self._bytes = self._images + 1, self._bytes + image.nbytes
        if len(waiting) >= self._evaluator.images_a_pass(image.shape, self._method):
            self._compute(image.shape)
        elif self._bytes > WAITING_BYTES:
            self._compute_all()

    def finish(self) -> np.ndarray:
        """The posteriors of all images in the order of `add`: (n, K) float32."""
        self._compute_all()
        result = np.empty((self._images, self._evaluator.outputs), np.float32)
        if self._found:
            result[self._places] = torch.cat(self._found).cpu().numpy()
        return result

    def _compute_all(self) -> None:
        for size in list(self._waiting):
            self._compute(size)

    def _compute(self, size: tuple[int, ...]) -> None:
        """The posteriors of all that wait with this size; a pass that does not fit the memory is split."""
        left, device = self._waiting.pop(size), self._evaluator.machine.device
        self._bytes -= sum(image.nbytes for _, image in left)
        while left:
            part = left[: self._evaluator.images_a_pass(size, self._method)]
            try:
                batch = devices.upload(torch.from_numpy(np.stack([image for _, image in part])), device)
                found = self._evaluator.forward(batch, self._method)
            except (RuntimeError, MemoryError) as error:
                if not devices.is_out_of_memory(error):
                    raise
                self._evaluator.spend_less(len(part), size, self._method)
                continue
            self._found.append(found)
            self._places += [place for place, _ in part]
            left = left[len(part) :]
