"""Keeps the decoded images of a small data set in a device's memory and cuts training crops there.

The crops equal those of `rescaling.cut` to the bit. While a run trains, no pixel is copied from the host.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vggrepro.data.dataset import Split
from vggrepro.data.images import ordered
from vggrepro.nets.resampling import Resampler
from vggrepro.system import devices

LIMIT_BYTES = 4 << 30  # of decoded pixels, and at most half of the memory that a GPU has free


def fits(split: Split, device: torch.device) -> bool:
    """Whether the split's decoded images fit the device's memory."""
    limit = min(LIMIT_BYTES, torch.cuda.mem_get_info(device)[0] // 2) if device.type == "cuda" else LIMIT_BYTES
    return 3 * int(split.sizes.prod(0).sum()) <= limit


class Resident:
    """The decoded images of a split, on a device.

    Args:
        split: its images are decoded, each copied to the device while others are decoded.
        device: where they are kept.
        workers: number of threads that decode; with 0 the calling thread does it.
    """

    def __init__(self, split: Split, device: torch.device, workers: int = 0) -> None:
        counts = split.sizes.prod(0)
        starts = np.cumsum(counts) - counts
        self.pixels = torch.empty((int(counts.sum()), 3), dtype=torch.uint8, device=device)
        self.starts = devices.upload(torch.from_numpy(starts), device)
        decoded = ordered(lambda index: np.array(split.image(index)), range(len(split)), workers, 4 * workers)
        for start, image in zip(starts.tolist(), decoded, strict=True):
            rows = devices.upload(torch.from_numpy(image), device).view(-1, 3)
            self.pixels[start : start + len(rows)] = rows

    def crops(self, images: Tensor, places: Tensor, resampler: Resampler) -> Tensor:
        """Crops of rescaled images (Sect. 3.1): uint8 (n, crop, crop, 3).

        Args:
            images: (n,) int64 positions in the split, on the device.
            places: (3, 2, n) int64 on the device, as in `rescaling.Windows`.
            resampler: for the same crop and for images that shrink as much.
        """
        return resampler.cut(self.pixels, self.starts[images], places)
