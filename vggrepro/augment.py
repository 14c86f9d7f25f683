"""Training views (Sect. 3.1): rescale to S, one random crop, flip and colour shift an image, all keyed.

All randomness is a function of (seed, epoch, image), see `keyed`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from vggrepro import keyed
from vggrepro.paper import Scale, real_pixels

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def rescaled_size(width: int, height: int, shorter: int) -> tuple[int, int]:
    """(width, height) after isotropic rescaling of the shorter side to `shorter`; the longer is rounded down."""
    if width <= height:
        return shorter, max(shorter, shorter * height // width)
    return max(shorter, shorter * width // height), shorter


@dataclass(frozen=True, slots=True)
class Draws:
    """The random choices for n images of an epoch, as numpy arrays of length n.

    place: (n, 3) in [0, 1), for S, left and top; flip: bool; colour: (n, 3) standard normal.
    """

    place: np.ndarray
    flip: np.ndarray
    colour: np.ndarray


def draws(seed: int, epoch: int, images: Tensor) -> Draws:
    """The choices of `images` (n,) int64 in `epoch`."""
    keys = keyed.key(seed, keyed.CROP, epoch, images)
    numbers = keyed.uniform(keys, 4).double().numpy()
    colour = keyed.normal(keyed.key(keys, 1), 3).double().numpy()
    return Draws(numbers[:, :3], numbers[:, 3] < 0.5, colour)


def cut(pixels: np.ndarray, shorter: int, crop: int, left: int, top: int, resample: str = "bilinear") -> np.ndarray:
    """Rescales an image's shorter side to `shorter` and cuts a crop at (left, top), all in real pixels.

    Only the crop's window is resampled; the pixels are those of rescaling all of it, up to rounding (2 of 255).
    uint8 (H, W, 3) -> uint8 (crop, crop, 3).
    """
    height, width, _ = pixels.shape
    new_width, new_height = rescaled_size(width, height, shorter)
    if (new_width, new_height) == (width, height):
        return pixels[top : top + crop, left : left + crop]
    x, y = width / new_width, height / new_height
    box = (left * x, top * y, (left + crop) * x, (top + crop) * y)
    return np.asarray(Image.fromarray(pixels).resize((crop, crop), RESAMPLING[resample], box=box))


def training_crop(
    pixels: np.ndarray, scale: Scale, crop: int, drawn: np.ndarray, resample: str = "bilinear"
) -> np.ndarray:
    """A random crop of an image rescaled to S; a jittered S is drawn uniformly from its integers.

    Args:
        pixels: RGB uint8 (H, W, 3).
        scale: S in paper pixels.
        crop: side in real pixels.
        drawn: (3,) for S, left and top, each in [0, 1).

    Returns:
        uint8 (crop, crop, 3).
    """
    low, high = real_pixels(scale.low, crop), real_pixels(scale.high, crop)
    shorter = max(crop, low + int(drawn[0] * (high - low + 1)))
    new_width, new_height = rescaled_size(pixels.shape[1], pixels.shape[0], shorter)
    left = int(drawn[1] * (new_width - crop + 1))
    top = int(drawn[2] * (new_height - crop + 1))
    return cut(pixels, shorter, crop, left, top, resample)


def centre_crop(pixels: np.ndarray, shorter: int, crop: int, resample: str = "bilinear") -> np.ndarray:
    """The central crop of an image rescaled to `shorter` real pixels: uint8 (H, W, 3) -> (crop, crop, 3)."""
    new_width, new_height = rescaled_size(pixels.shape[1], pixels.shape[0], shorter)
    left, top = round((new_width - crop) / 2), round((new_height - crop) / 2)  # as torchvision's CenterCrop
    return cut(pixels, shorter, crop, left, top, resample)


def colour_basis(eigenvectors: np.ndarray, eigenvalues: np.ndarray, std: float) -> np.ndarray:
    """Matrix B (3, 3) such that normal draws z (n, 3) shift pixels by z @ B, in RGB 0-255 (Krizhevsky et al. 2012).

    The shift is the sum over i of p_i alpha_i lambda_i with alpha_i = std * z_i. lambda are the eigenvalues of
    the RGB covariance of pixels in [0, 1], the scale on which the published implementations use that formula.

    Args:
        eigenvectors: (3, 3), rows.
        eigenvalues: (3,), on the 0-255 scale.
    """
    return np.asarray(255 * std * (eigenvalues / 255**2)[:, None] * eigenvectors)
