"""Training views (Sect. 3.1): rescale to S, one random crop, flip and colour shift an image, all keyed.

All randomness is a function of (seed, epoch, image), see `keyed`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vggrepro import keyed
from vggrepro.paper import Scale, real_pixels
from vggrepro.rescaling import Window, rescaled_size


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


def training_window(width: int, height: int, scale: Scale, crop: int, drawn: np.ndarray) -> Window:
    """A random crop of an image rescaled to S; a jittered S is drawn uniformly from its integers.

    Args:
        width, height: of the original image.
        scale: S in paper pixels.
        crop: side in real pixels.
        drawn: (3,) for S, left and top, each in [0, 1).
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
    """Matrix B (3, 3) such that normal draws z (n, 3) shift pixels by z @ B, in RGB 0-255 (Krizhevsky et al. 2012).

    The shift is the sum over i of p_i alpha_i lambda_i with alpha_i = std * z_i. As printed, lambda are eigenvalues
    of the RGB covariance, whose unit then matters: `eigenvalue` takes that of pixels in [0, 1], as the published
    implementations that use the formula do. `deviation` takes their square roots, as the authors' own code does.

    Args:
        eigenvectors: (3, 3), rows.
        eigenvalues: (3,), on the 0-255 scale.
        std: of the draws.
        scale: eigenvalue or deviation.
    """
    sizes = eigenvalues / 255 if scale == "eigenvalue" else np.sqrt(np.maximum(eigenvalues, 0))  # RGB 0-255
    return np.asarray(std * sizes[:, None] * eigenvectors)
