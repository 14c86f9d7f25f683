"""Training crops (Sect. 3.1): an image is rescaled to S, cropped, flipped and shifted in colour, all at random.

Every random choice is a function of (seed, epoch, image); see `keyed`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vggrepro.data.rescaling import Windows
from vggrepro.nets import keyed
from vggrepro.paper import Scale, real_pixels


@dataclass(frozen=True, slots=True)
class Draws:
    """The random choices for n images of an epoch."""

    place: np.ndarray  # float64 (n, 3) in [0, 1); they choose S, left and top edge
    flip: np.ndarray  # bool (n,)
    colour: np.ndarray  # float64 (n, 3), standard normal


def draws(seed: int, epoch: int, images: Tensor) -> Draws:
    """The random choices for `images` (n,), int64 positions in the training split, in `epoch`."""
    keys = keyed.key(seed, keyed.CROP, epoch, images)
    numbers = keyed.uniform(keys, 4).double().numpy()
    colour = keyed.normal(keyed.key(keys, 1), 3).double().numpy()
    return Draws(numbers[:, :3], numbers[:, 3] < 0.5, colour)


def training_windows(sizes: np.ndarray, scale: Scale, crop: int, place: np.ndarray) -> Windows:
    """Random crops of images rescaled to S; from a range, S is drawn uniformly among whole pixels.

    Args:
        sizes: int64 (2, n), widths and heights of the original images.
        scale: S in paper pixels.
        crop: side in real pixels.
        place: (n, 3) in [0, 1); they choose S, left and top edge.
    """
    low, high = real_pixels(scale.low, crop), real_pixels(scale.high, crop)
    shorter = np.maximum(crop, low + (place[:, 0] * (high - low + 1)).astype(np.int64))
    new_sizes = shorter * sizes // sizes.min(0)  # the longer side is rounded down, as in `rescaled_size`
    corners = (place[:, 1:].T * (new_sizes - crop + 1)).astype(np.int64)
    return Windows(np.stack([sizes, new_sizes, corners]), crop)


def colour_basis(
    eigenvectors: np.ndarray, eigenvalues: np.ndarray, std: float, scale: str = "eigenvalue"
) -> np.ndarray:
    """The colour shift of Krizhevsky et al. 2012 as a matrix B (3, 3): normal draws z (n, 3) shift pixels by z @ B.

    The shift is the sum over i of p_i alpha_i lambda_i with alpha_i = std * z_i, in RGB 0-255. That paper calls lambda
    the eigenvalues of the RGB covariance, so the unit of RGB matters. `eigenvalue` uses pixels in [0, 1], as published
    implementations of the formula do. `deviation` uses the square roots of the eigenvalues, as Krizhevsky's code does.

    Args:
        eigenvectors: (3, 3), one in each row.
        eigenvalues: (3,), of the covariance in RGB 0-255.
        std: standard deviation of alpha.
        scale: eigenvalue or deviation.
    """
    sizes = eigenvalues / 255 if scale == "eigenvalue" else np.sqrt(np.maximum(eigenvalues, 0))  # RGB 0-255
    return np.asarray(std * sizes[:, None] * eigenvectors)
