"""Rescales the images of an evaluation to each Q (Sect. 3.2), in threads of the host or in a GPU's forward pass.

Both ways give the same pixels. A GPU that waits for threads is faster if they only decode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggrepro.data.rescaling import rescale, rescaled_size
from vggrepro.nets import resampling
from vggrepro.nets.vgg import Extent
from vggrepro.paper import real_pixels
from vggrepro.system import devices

# A device rescales an image whose sides shrink by at most this factor; the work grows with its square.
SHRINK = {"cuda": 2.0}


@dataclass(frozen=True, slots=True)
class ImageAtQ:
    """An image, and the size at which the net sees it."""

    pixels: Tensor  # uint8 (H, W, 3); of another size if the device still has to rescale them
    size: tuple[int, int]  # height and width


def tensor_of(image: np.ndarray) -> Tensor:
    """The image as a tensor, uint8 (H, W, 3); not copied if its memory is contiguous and writable."""
    return torch.from_numpy(np.require(image, requirements=["C", "W"]))


def as_it_is(image: np.ndarray) -> ImageAtQ:
    """An image that is not rescaled any more, uint8 (H, W, 3)."""
    return ImageAtQ(tensor_of(image), (image.shape[0], image.shape[1]))


class Rescaler:
    """Rescales images to the sizes of an evaluation.

    Args:
        crop: side of the net's training crop in real pixels; it says how many real pixels Q has.
        resample: bilinear or bicubic.
        device: of the net.
    """

    def __init__(self, crop: int, resample: str, device: torch.device) -> None:
        self._crop, self._resample, self._device = crop, resample, device
        self._shrink = SHRINK.get(device.type, 0.0)

    def at_each(self, image: Image.Image, qs: Sequence[int]) -> dict[int, ImageAtQ]:
        """The image at each Q, on the device; to be called by threads.

        What the device will rescale is copied there once for all Q.
        """
        sides = {q: real_pixels(q, self._crop) for q in qs}
        later = [q for q, side in sides.items() if min(image.size) <= self._shrink * side]
        original = devices.upload(tensor_of(np.asarray(image)), self._device) if later else torch.empty(0)
        found = {}
        for q, side in sides.items():
            if q in later:
                found[q] = ImageAtQ(original, rescaled_size(*image.size, side)[::-1])
            else:
                now = as_it_is(rescale(image, side, self._resample))
                found[q] = ImageAtQ(devices.upload(now.pixels, self._device), now.size)
        return found

    def bytes_at_each(self, widths: np.ndarray, heights: np.ndarray, qs: Sequence[int]) -> float:
        """About how many bytes `at_each` takes for an image, on average over images of these sizes."""
        if self._shrink:
            return 3 * float((widths.astype(float) * heights).mean())
        longer = np.maximum(widths, heights) / np.minimum(widths, heights)
        return 3 * float(longer.mean()) * sum(real_pixels(q, self._crop) ** 2 for q in qs)

    def together(self, images: Sequence[ImageAtQ], size: tuple[int, int]) -> tuple[Tensor, Extent | None]:
        """The images of a pass: uint8 (n, *size, 3) on the device; if some are smaller, also their extent."""
        pixels = [devices.upload(image.pixels, self._device) for image in images]
        sizes = [image.size for image in images]
        extent = Extent.of(sizes, self._device) if any(each != size for each in sizes) else None
        if extent is None and all(each.shape[:2] == size for each in pixels):
            return torch.stack(pixels), None
        return resampling.rescaled(pixels, sizes, size, self._resample), extent
