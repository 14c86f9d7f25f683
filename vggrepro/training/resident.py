"""Keeps the decoded images of a small data set in the device's memory and cuts a batch of training crops there.

The crops are those of `augment.training_window` and `augment.cut`, identical except where rounding ties differ. No
image is copied from the host, and no worker thread is needed.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vggrepro.data.dataset import Split
from vggrepro.data.rescaling import SUPPORT
from vggrepro.paper import Scale, real_pixels

LIMIT_BYTES = 4 << 30  # of decoded pixels


def fits(split: Split) -> bool:
    """Whether the split's decoded images take no more than `LIMIT_BYTES`."""
    return 3 * int((split.widths.astype(np.int64) * split.heights).sum()) <= LIMIT_BYTES


class Resident:
    """The decoded images of a split, on a device.

    Args:
        split: its images are decoded and copied one by one.
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
        """A random crop of each image, rescaled to an S drawn from `scale` (Sect. 3.1).

        Args:
            images: (n,) int64 positions in the split, on the device.
            scale: S in paper pixels.
            crop: side in real pixels.
            place: (n, 3) float64 in [0, 1) on the device; they choose S, left and top edge.
            resample: bilinear or bicubic.

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
        # An upper bound for all images, so that the host knows the number of taps without asking the device.
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
    """For each pixel of a crop along one side: the pixels of the image it is made of, and their weights.

    They are those of Pillow's antialiased resize.

    Args:
        size, new_size: (n,) int64, the side's length before and after rescaling.
        offset: (n,) int64, where the crop begins after rescaling.
        crop: its side.
        shrink: no image's size / new_size is larger.
        resample: bilinear or bicubic.

    Returns:
        positions (n, crop, taps) int64 in the image's side, and weights (n, crop, taps) float32; unused taps weigh 0.
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
