"""Isotropic rescaling and square windows of images (Sect. 3.1, 3.2), with Pillow and numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}  # half-width of a filter, in the larger of original and rescaled pixels
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def rescaled_size(width: int, height: int, shorter: int) -> tuple[int, int]:
    """(width, height) after rescaling so that the shorter side is `shorter`; the longer side is rounded down."""
    if width <= height:
        return shorter, max(shorter, shorter * height // width)
    return max(shorter, shorter * width // height), shorter


@dataclass(frozen=True, slots=True)
class Window:
    """A square crop of a rescaled image, in real pixels; only the crop is resampled, never the whole image."""

    ratio: tuple[float, float]  # original pixels per rescaled pixel, horizontally and vertically
    left: int
    top: int
    side: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom edge in the original image."""
        (x, y), right, bottom = self.ratio, self.left + self.side, self.top + self.side
        return self.left * x, self.top * y, right * x, bottom * y


@dataclass(frozen=True, slots=True)
class Windows:
    """Square crops of n rescaled images, in real pixels."""

    places: np.ndarray  # int64 (3, 2, n): original size, rescaled size, corner (left, top); [:, 0] across, [:, 1] down
    side: int

    def __getitem__(self, number: int) -> Window:
        (width, height), (new_width, new_height), (left, top) = self.places[:, :, number].tolist()
        return Window((width / new_width, height / new_height), left, top, self.side)

    @property
    def shrinks(self) -> np.ndarray:
        """Original pixels per rescaled pixel of each image, the larger of both sides: float64 (n,)."""
        return np.asarray((self.places[0] / self.places[1]).max(0))


def centre_window(width: int, height: int, shorter: int, crop: int) -> Window:
    """The central crop of an image whose shorter side is rescaled to `shorter` pixels, as torchvision's CenterCrop."""
    new_width, new_height = rescaled_size(width, height, shorter)
    left, top = round((new_width - crop) / 2), round((new_height - crop) / 2)
    return Window((width / new_width, height / new_height), left, top, crop)


def cut(image: Image.Image, window: Window, resample: str = "bilinear") -> np.ndarray:
    """The window's pixels, antialiased: uint8 (side, side, 3).

    They equal those of rescaling the whole image and cropping it, up to rounding (2 of 255).
    """
    return np.asarray(image.resize((window.side, window.side), RESAMPLING[resample], box=window.box))


def rescale(image: Image.Image, shorter: int, resample: str = "bilinear") -> np.ndarray:
    """Isotropic, antialiased rescaling so that the shorter side has `shorter` real pixels: uint8 (H, W, 3)."""
    size = rescaled_size(*image.size, shorter)
    return np.asarray(image if size == image.size else image.resize(size, RESAMPLING[resample]))
