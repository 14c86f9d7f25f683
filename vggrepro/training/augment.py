"""Training crops (Sect. 3.1): an image is rescaled to S, cropped, flipped and shifted in colour, all at random.

Every random choice is a function of (seed, epoch, image); see `keyed`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vggrepro.data.rescaling import Window, rescaled_size
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


def training_window(width: int, height: int, scale: Scale, crop: int, drawn: np.ndarray) -> Window:
    """A random crop of an image rescaled to S; from a range, S is drawn uniformly among whole pixels.

    Args:
        width, height: of the original image.
        scale: S in paper pixels.
        crop: side in real pixels.
        drawn: (3,) in [0, 1); they choose S, left and top edge.
    """
    low, high = real_pixels(scale.low, crop), real_pixels(scale.high, crop)
    shorter = max(crop, low + int(drawn[0] * (high - low + 1)))
    new_width, new_height = rescaled_size(width, height, shorter)
    left = int(drawn[1] * (new_width - crop + 1))
    top = int(drawn[2] * (new_height - crop + 1))
    return Window((width / new_width, height / new_height), left, top, crop)


def colour_basis(
    eigenvectors: np.ndarray, eigenvalues: np.ndarray, std: float, scale: str = "eigenvalue"
) -> np.ndarray:
    """The colour shift of Krizhevsky et al. 2012 as a matrix B (3, 3): normal draws z (n, 3) shift pixels by z @ B.

    The shift is the sum over i of p_i alpha_i lambda_i with alpha_i = std * z_i, in RGB 0-255. That paper calls lambda
    the eigenvalues of the RGB covariance, so the unit of RGB matters. `eigenvalue` uses pixels in [0, 1], as published
    implementations of the formula do. `deviation` uses the square roots of the eigenvalues, as Krizhevsky's code does.

    Args:
        eigenvectors: (3, 3), one a row.
        eigenvalues: (3,), of the covariance in RGB 0-255.
        std: standard deviation of alpha.
        scale: eigenvalue or deviation.
    """
    sizes = eigenvalues / 255 if scale == "eigenvalue" else np.sqrt(np.maximum(eigenvalues, 0))  # RGB 0-255
    return np.asarray(std * sizes[:, None] * eigenvectors)
