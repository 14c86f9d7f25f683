"""Runs a trained net on test views: posteriors of rescaled images by any method (Sect. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vggrepro.errors import InputError
from vggrepro.evaluation import views
from vggrepro.evaluation.images import ImageAtQ, Rescaler, as_it_is
from vggrepro.nets.trained import Trained
from vggrepro.nets.vgg import VGG, Extent, to_input
from vggrepro.posteriors.protocol import Method
from vggrepro.system import devices
from vggrepro.system.devices import Machine
from vggrepro.system.progress import say

FORWARD_PIXELS = {"cpu": 1 << 20, "cuda": 12 << 20}  # input pixels of a forward pass, flips included
WAITING_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}  # of images that wait for others, for each method and Q
PADDED_TO = {
    "cpu": 1,
    "cuda": 32,
}  # sides of a dense pass are multiples of this: a GPU plans once for each of few shapes


def dense_posteriors(
    model: VGG, x: Tensor, flip: bool = True, ceil_pool: bool = False, extent: Extent | None = None
) -> Tensor:
    """Dense posteriors (Sect. 3.2): the mean over flips of the soft-max of spatially averaged scores.

    (N, 3, H, W) net input -> (N, K) float32. In a padded batch, `extent` says which part of each is image.
    """
    both, extent = with_mirrored(x, flip, extent)
    return _mean_over_flips(model.dense_scores(both, ceil_pool, extent), len(x))


def crop_posteriors(model: VGG, x: Tensor, flip: bool = True) -> Tensor:
    """Posteriors of crops, the mean over flips: (N, 3, crop, crop) -> (N, K) float32."""
    return _mean_over_flips(model(with_mirrored(x, flip)[0]), len(x))


def with_mirrored(x: Tensor, flip: bool = True, extent: Extent | None = None) -> tuple[Tensor, Extent | None]:
    """The images, then (with `flip`) their mirrored copies, with zeros as padding; and the extent of all of them.

    (N, C, H, W) -> (N or 2 N, C, H, W).
    """
    if flip:
        x = torch.cat([x, extent.mirrored(x) if extent else x.flip(3)])
        extent = extent.twice() if extent else None
    return (extent.clear(x) if extent else x), extent


def _mean_over_flips(scores: Tensor, images: int) -> Tensor:
    result = torch.softmax(scores.float(), dim=1)
    return result.view(-1, images, result.shape[1]).mean(0)


class Evaluator:
    """A finished run's net on a device, ready for images."""

    def __init__(self, trained: Trained, machine: Machine) -> None:
        config = trained.config
        self.crop, self.classes, self.resample = config.crop, config.classes, config.recipe.resample
        self.machine, self.input_scale = machine, config.input_scale
        self.rescaler = Rescaler(self.crop, self.resample, machine.device)
        self.mean = torch.tensor(config.mean_rgb, dtype=torch.float32, device=machine.device)
        self.model = trained.model()
        self.model.to(machine.device).to(memory_format=torch.channels_last)
        if half := devices.HALVES.get(machine.precision):  # once here, not by autocast in each pass; fc8 stays in fp32
            for name, layer in self.model.named_children():
                if name != "fc8":
                    layer.to(half)
        kind = machine.device.type if machine.device.type in FORWARD_PIXELS else "cpu"
        self._budget, self.padded_to, self.waiting_bytes = (
            table[kind] for table in (FORWARD_PIXELS, PADDED_TO, WAITING_BYTES)
        )
        if kind == "cuda":
            self.model.take_channels_last()
            self.model.fuse()

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
            batcher.add(as_it_is(image))
        return batcher.finish()

    def size_in_pass(self, size: tuple[int, int], method: Method) -> tuple[int, int]:
        """The size (H, W) to which an image is padded: dense evaluation takes images of several sizes in a pass."""
        to = self.padded_to if method.name == "dense" else 1
        height, width = (-(-side // to) * to for side in size)
        return height, width

    def images_a_pass(self, size: tuple[int, int], method: Method) -> int:
        """How many images of a size (H, W) share a forward pass."""
        return max(1, self._budget // self._pixels(size, method))

    def images_next(self, waiting: int, size: tuple[int, int], method: Method) -> int:
        """How many waiting images the next pass takes; on a GPU a full pass or a power of two, for few shapes."""
        full = self.images_a_pass(size, method)
        if waiting >= full or self.padded_to == 1:
            return min(waiting, full)
        return 1 << (waiting.bit_length() - 1)

    def _pixels(self, size: tuple[int, int], method: Method) -> int:
        """Input pixels of one image, flips and distinct crops included."""
        if method.name == "dense":
            return size[0] * size[1] * method.flips
        return len(views.distinct(size[0], size[1], self.crop, method)[0]) * self.crop**2 * method.flips

    def spend_less(self, images: int, size: tuple[int, int], method: Method) -> None:
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
        devices.release_memory(self.machine.device)
        say(f"note: {images} images of {size[1]}x{size[0]} do not fit the memory; going on with {images // 2}")

    def forward(self, batch: Tensor, method: Method, extent: Extent | None = None) -> Tensor:
        """Posteriors of images in one pass: uint8 (n, H, W, 3) on the device -> (n, K) float32.

        The images are of one size or, dense, padded to it: then `extent` says what is image.
        """
        with torch.inference_mode(), devices.autocast(self.machine.precision, self.machine.device):
            if method.name == "dense":
                x = to_input(batch, self.mean, self.input_scale)
                return dense_posteriors(self.model, x, method.flip, method.ceil_pool, extent)
            first, which = views.distinct(batch.shape[1], batch.shape[2], self.crop, method)
            crops = views.crops(batch, self.crop, method)
            if len(first) < len(which):  # without equal crops, an index would only make the host wait for a GPU
                crops = crops.view(len(batch), -1, *crops.shape[1:])[:, self._index(first)].flatten(0, 1)
            result = crop_posteriors(self.model, to_input(crops, self.mean, self.input_scale), method.flip)
            result = result.view(len(batch), len(first), -1)
            return (result[:, self._index(which)] if len(first) < len(which) else result).mean(1)

    def _index(self, places: list[int]) -> Tensor:
        return devices.upload(torch.tensor(places), self.machine.device)


class Batcher:
    """Computes the posteriors (or the features) of one method at one Q.

    Images wait, by size, until they fill a forward pass. On a GPU the pass runs while further images are decoded.

    Which images share a pass depends on their order alone, so the same images give the same bits.
    """

    def __init__(self, evaluator: Evaluator, method: Method) -> None:
        self._evaluator, self._method = evaluator, method
        self._waiting: dict[tuple[int, int], list[tuple[int, ImageAtQ]]] = {}
        self._images = self._bytes = 0
        self._places: list[int] = []
        self._found: list[Tensor] = []  # they stay on the device, so that it does not wait for the host

    def add(self, image: ImageAtQ) -> None:
        """One more image.

        Raises:
            InputError: a single image does not fit the memory.
        """
        size = self._evaluator.size_in_pass(image.size, self._method)
        waiting = self._waiting.setdefault(size, [])
        waiting.append((self._images, image))
        self._images, self._bytes = self._images + 1, self._bytes + image.pixels.nbytes
        if len(waiting) >= self._evaluator.images_a_pass(size, self._method):
            self._compute(size)
        elif self._bytes > self._evaluator.waiting_bytes:
            self._compute_all()

    def finish(self) -> np.ndarray:
        """The posteriors of all images in the order of `add`: (n, K) float32.

        Raises:
            InputError: a number is not finite, as where fp16 overflows.
        """
        self._compute_all()
        result = np.empty((self._images, self._evaluator.outputs), np.float32)
        if self._found:
            result[self._places] = torch.cat(self._found).cpu().numpy()
        if not np.isfinite(result).all():
            raise InputError(
                f"the net's answers to some images are not finite at --precision {self._evaluator.machine.precision}; "
                "use --precision fp32; if that does not help, train or import the net again"
            )
        return result

    def _compute_all(self) -> None:
        for size in list(self._waiting):
            self._compute(size)

    def _compute(self, size: tuple[int, int]) -> None:
        """The posteriors of all that wait with this size; a pass that does not fit the memory is split."""
        left = self._waiting.pop(size)
        self._bytes -= sum(image.pixels.nbytes for _, image in left)
        while left:
            part = left[: self._evaluator.images_next(len(left), size, self._method)]
            found = self._pass([image for _, image in part], size)
            if found is None:
                self._evaluator.spend_less(len(part), size, self._method)
                continue
            self._found.append(found)
            self._places += [place for place, _ in part]
            left = left[len(part) :]

    def _pass(self, images: Sequence[ImageAtQ], size: tuple[int, int]) -> Tensor | None:
        """One forward pass of images padded to a size; None if they do not fit the memory."""
        try:
            batch, extent = self._evaluator.rescaler.together(images, size)
            return self._evaluator.forward(batch, self._method, extent)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            return None
