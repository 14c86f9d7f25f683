"""Small data on the device: a split's decoded images in its memory, training crops cut there a batch at a time.

The crops are those of `augment.training_window`, pixel for pixel up to the rounding of near ties, without a copy from
the host or a worker for each.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vggrepro.dataset import Split
from vggrepro.paper import Scale, real_pixels
from vggrepro.rescaling import SUPPORT

LIMIT_BYTES = 4 << 30  # of decoded pixels


def fits(split: Split) -> bool:
    """Whether the split's decoded images take no more than `LIMIT_BYTES`."""
    return 3 * int((split.widths.astype(np.int64) * split.heights).sum()) <= LIMIT_BYTES


class Resident:
    """A split's images on a device.

    Args:
        split: whose images are decoded and copied, one after another.
        device: where they are kept.
    """

    def __init__(self, split: Split, device: torch.device) -> None:
        sizes = split.widths.astype(np.int64) * split.heights
        ends = np.cumsum(sizes)
        self.pixels = torch.empty((int(ends[-1]), 3), dtype=torch.uint8, device=device)
        for index, end in enumerate(ends.tolist()):
            image = torch.from_numpy(np.array(split.image(index))).view(-1, 3)
            self.pixels[end - len(image) : end] = image.to(device)
        self.starts = torch.from_numpy(ends - sizes).to(device)
        self.widths = torch.from_numpy(split.widths.astype(np.int64)).to(device)
        self.heights = torch.from_numpy(split.heights.astype(np.int64)).to(device)
        self._shortest = int(np.minimum(split.widths, split.heights).max())

    def crops(self, images: Tensor, scale: Scale, crop: int, place: Tensor, resample: str = "bilinear") -> Tensor:
        """A random crop of each image, rescaled to an S drawn from `scale`.

        Args:
            images: (n,) int64 positions in the split, on the device.
            scale: S in paper pixels.
            crop: side in real pixels.
            place: (n, 3) float64 in [0, 1), for S, left and top, on the device.

        Returns:
            uint8 (n, crop, crop, 3).
        """
        low, high = real_pixels(scale.low, crop), real_pixels(scale.high, crop)
        shorter = (low + (place[:, 0] * (high - low + 1)).long()).clamp(min=crop)
        width, height = self.widths[images], self.heights[images]
        longer = torch.maximum(shorter, shorter * torch.maximum(width, height) // torch.minimum(width, height))
        new_width, new_height = (
            torch.where(width <= height, shorter, longer),
            torch.where(width <= height, longer, shorter),
        )
        left = (place[:, 1] * (new_width - crop + 1)).long()
        top = (place[:, 2] * (new_height - crop + 1)).long()
        # No image shrinks by more than this, so the number of taps is known without asking the device.
        shrink = max(1.0, self._shortest / max(low, crop))
        x, across = _taps(width, new_width, left, crop, shrink, resample)
        y, down = _taps(height, new_height, top, crop, shrink, resample)
        start = self.starts[images][:, None, None]
        total = torch.zeros((len(images), crop, crop, 3), device=self.pixels.device)
        for i in range(y.shape[2]):
            row = start + (y[:, :, i] * width[:, None])[:, :, None]
            line = torch.zeros_like(total)
            for j in range(x.shape[2]):
                line += across[:, None, :, j, None] * self.pixels[row + x[:, None, :, j]]
            total += down[:, :, None, i, None] * _to_bytes(line)  # Pillow rounds between the two directions
        return _to_bytes(total).to(torch.uint8)


def _to_bytes(values: Tensor) -> Tensor:
    return (values + 0.5).floor().clamp(0, 255)


def _taps(
    size: Tensor, new_size: Tensor, offset: Tensor, crop: int, shrink: float, resample: str
) -> tuple[Tensor, Tensor]:
    """Which pixels along a side make each of a crop's, and their weights, as in Pillow's antialiased resize.

    Args:
        size, new_size: (n,) int64, of the side before and after rescaling.
        offset: (n,) int64, of the crop after rescaling.
        shrink: at least the greatest size / new_size.

    Returns:
        positions (n, crop, taps) int64 within the side and weights (n, crop, taps) float32, zero for taps unused.
    """
    ratio = (size.double() / new_size)[:, None]
    stretch = ratio.clamp(min=1)
    reach = SUPPORT[resample] * stretch
    out = torch.arange(crop, device=size.device) + 0.5
    centre = offset.double()[:, None] * ratio + out * ratio
    first = (centre - reach + 0.5).long().clamp(min=0)
    last = torch.minimum((centre + reach + 0.5).long(), size[:, None])
    count = 2 * math.ceil(SUPPORT[resample] * shrink) + 1
    position = first[:, :, None] + torch.arange(count, device=size.device)
    weight = _kernel((position - centre[:, :, None] + 0.5) / stretch[:, :, None], resample)
    weight = torch.where(position < last[:, :, None], weight, 0)
    weight = weight / weight.sum(2, keepdim=True)
    return torch.minimum(position, size[:, None, None] - 1), weight.float()


def _kernel(x: Tensor, resample: str) -> Tensor:
    x = x.abs()
    if resample == "bilinear":
        return (1 - x).clamp(min=0)
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))
