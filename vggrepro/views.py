"""Test views (Sect. 3.2): an image rescaled to Q, its crops on a regular grid."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vggrepro.augment import RESAMPLING, rescaled_size


def rescale(image: Image.Image, shorter: int, resample: str = "bilinear") -> np.ndarray:
    """Isotropic, antialiased rescaling so that the shorter side has `shorter` real pixels: uint8 (H, W, 3)."""
    size = rescaled_size(*image.size, shorter)
    return np.asarray(image if size == image.size else image.resize(size, RESAMPLING[resample]))


def grid_offsets(length: int, crop: int, grid: int) -> list[int]:
    """`grid` positions of a crop along a side, evenly spaced from border to border.

    One position is the centre.
    """
    if grid == 1:
        return [(length - crop) // 2]
    return [int(position + 0.5) for position in np.linspace(0, length - crop, grid)]


def crops(images: Tensor, crop: int, grid: int) -> Tensor:
    """All grid crops of equal-sized images: (n, H, W, 3) -> (n * grid², crop, crop, 3), an image's together."""
    height, width = images.shape[1:3]
    cut = [
        images[:, top : top + crop, left : left + crop]
        for top in grid_offsets(height, crop, grid)
        for left in grid_offsets(width, crop, grid)
    ]
    return torch.stack(cut, 1).flatten(0, 1)
