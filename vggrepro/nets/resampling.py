"""Pillow's 8-bit antialiased resampling as matrix products on any device, equal to Pillow's to the bit.

Pillow multiplies pixels by weights with 22 bits after the point, along one side of the image and then along the other,
and rounds to bytes after each. Here each weight is split into small digits, so that every sum of products is a whole
number below 2^24. fp32 holds such sums exactly, in any order. TF32 rounds factors to 11 bits; the digits have no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL
import torch
from torch import Tensor

from vggrepro.data.rescaling import SUPPORT, Windows
from vggrepro.system import devices

BITS = 22  # after the point of Pillow's weights
EXACT = 1 << 24  # fp32 holds all whole numbers up to here
LARGEST_DIGIT = 11  # bits, as many as TF32 keeps
PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:2])  # which pass comes first depends on the version
WORK_BYTES = 1 << 30  # of memory in which windows are cut at once


def rescaled(
    images: Sequence[Tensor], sizes: Sequence[tuple[int, int]], shape: tuple[int, int], resample: str
) -> Tensor:
    """Images rescaled together, as `rescaling.rescale` does alone.

    Args:
        images: uint8 (H, W, 3) each, on one device.
        sizes: the new height and width of each, at most `shape`.
        shape: the height and width of the result.
        resample: bilinear or bicubic.

    Returns:
        uint8 (n, *shape, 3): each image is in its upper left corner; the pixels beyond it mean nothing.
    """
    device, corners = images[0].device, [(0, 0)] * len(images)
    places = np.array([[image.shape[:2] for image in images], sizes, corners])[..., ::-1].swapaxes(1, 2).copy()
    windows = Windows(places, max(shape))
    counts = places[0].prod(0)
    starts = torch.from_numpy(np.cumsum(counts) - counts)
    resampler = Resampler(windows.side, float(windows.shrinks.max()), resample)
    pixels = torch.cat([image.reshape(-1, 3) for image in images])
    cut = resampler.cut(pixels, devices.upload(starts, device), devices.upload(torch.from_numpy(places), device))
    return cut[:, : shape[0], : shape[1]]


@dataclass(frozen=True, slots=True)
class Resampler:
    """Cuts square windows of rescaled images.

    A window may reach beyond its image. It then holds the image in its upper left corner.

    Args:
        side: of the windows, in rescaled pixels.
        shrink: original pixels per rescaled pixel, at most; the host knows it without asking the device.
        resample: bilinear or bicubic.
    """

    side: int
    shrink: float
    resample: str

    @property
    def taps(self) -> int:
        """The most original pixels along a side that one pixel of a window depends on."""
        return 2 * math.ceil(SUPPORT[self.resample] * max(1.0, self.shrink)) + 1

    @property
    def reach(self) -> int:
        """The most original pixels along a side that a window depends on."""
        return math.ceil((self.side - 1) * self.shrink) + 1 + self.taps

    @property
    def digit_bits(self) -> int:
        """The base of the digits is two to this power: a sum of bytes times digits of half the base is exact."""
        return min(LARGEST_DIGIT, int(math.log2(EXACT / 255 / self.taps))) + 1

    @property
    def digits(self) -> int:
        """How many digits a weight has."""
        return math.ceil((BITS + 1) / self.digit_bits)

    @property
    def at_once(self) -> int:
        """How many windows to cut at once. Many, because a GPU needs about as long to start the work as to do it."""
        work = 24 * max(self.reach, self.side) * (self.reach + self.digits * self.side)  # bytes for one
        return max(1, WORK_BYTES // work)

    def cut(self, pixels: Tensor, starts: Tensor, places: Tensor) -> Tensor:
        """The windows' pixels: uint8 (n, side, side, 3).

        Args:
            pixels: uint8 (P, 3), the rows of all images, one image after another.
            starts: (n,) int64, where in `pixels` the image of each window begins.
            places: (3, 2, n) int64 on the device, as in `rescaling.Windows`.
        """
        parts = zip(torch.split(starts, self.at_once), torch.split(places, self.at_once, 2), strict=True)
        return torch.cat([self._cut(pixels, *part) for part in parts])

    def _cut(self, pixels: Tensor, starts: Tensor, places: Tensor) -> Tensor:
        """As `cut`, all windows at once."""
        count, side = len(starts), self.side
        length = (places[1] - places[2]).clamp(max=side)  # of what a window holds
        down_first = _down_first(places[0], length)
        steps = torch.stack([torch.ones_like(starts), places[0, 0]])  # in `pixels`, to the next pixel and the next row
        facts = torch.cat([places, torch.stack([length, steps])])
        # Each (2, n): of the first and of the second pass.
        size, new_size, corner, length, step = torch.where(down_first, facts.flip(1), facts)
        place, digits = self._weights(size.flatten(), new_size.flatten(), corner.flatten(), length.flatten())
        first, second = place.view(2, count, -1) * step[:, :, None]
        found = pixels[starts[:, None, None] + second[:, :, None] + first[:, None, :]]  # (n, second, first, 3)
        lines = found.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        with devices.uncast(pixels.device):
            lines = self._pass(lines.flatten(1, 2), digits[:count]).view(count, 3, -1, side)
            lines = self._pass(lines.transpose(2, 3).flatten(1, 2), digits[count:]).view(count, 3, side, side)
        result = torch.where(down_first[:, None, None, None], lines, lines.transpose(2, 3))  # (n, 3, down, across)
        return result.to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _weights(self, size: Tensor, new_size: Tensor, corner: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """The original pixels and weights of windows along one side of images; all are (m,) int64.

        Args:
            size: of the image before it is rescaled.
            new_size: after it.
            corner: where the window begins.
            length: how much of the image it holds; its further pixels repeat the last one.

        Returns:
            places (m, reach) int64 of original pixels; those beyond the image are put on its edge and weigh nothing.
            digits (m, reach, digits * side) float32 of the weights, the lowest digit first.
        """
        device = size.device
        ratio = size.double() / new_size
        start, end = (corner * ratio).float(), ((corner + length) * ratio).float()  # Pillow takes edges as C floats
        scale = ((end - start).double() / length)[:, None]
        stretch = scale.clamp(min=1)
        support = SUPPORT[self.resample] * stretch
        number = torch.minimum(torch.arange(self.side, device=device), length[:, None] - 1)
        centre = start.double()[:, None] + (number + 0.5) * scale
        first = (centre - support + 0.5).long().clamp(min=0)
        last = torch.minimum((centre + support + 0.5).long(), size[:, None])[:, :, None]
        tap = first[:, :, None] + torch.arange(self.taps, device=device)
        weight = _kernel((tap - centre[:, :, None] + 0.5) * (1 / stretch)[:, :, None], self.resample)
        weight = torch.where(tap < last, weight, 0.0)
        weight = weight / weight.sum(2, keepdim=True) * (1 << BITS)
        digits = self._digits((weight + torch.copysign(torch.full_like(weight, 0.5), weight)).trunc())
        column = (tap - first[:, :1, None]).repeat(1, len(digits), 1)
        matrix = torch.zeros(len(size), column.shape[1], self.reach, device=device)
        matrix.scatter_(2, column, torch.cat(digits, 1))
        place = first[:, :1] + torch.arange(self.reach, device=device)
        return torch.minimum(place, size[:, None] - 1), matrix.transpose(1, 2)

    def _digits(self, weights: Tensor) -> list[Tensor]:
        """Whole numbers below 2^23 as digits, the lowest first, float32; digits are at most half their base."""
        left, found = weights, []
        for _ in range(self.digits - 1):
            higher = torch.round(left / (1 << self.digit_bits))
            found.append((left - higher * (1 << self.digit_bits)).float())
            left = higher
        return [*found, left.float()]

    def _pass(self, lines: Tensor, digits: Tensor) -> Tensor:
        """One pass of Pillow's: (n, lines, reach) bytes and (n, reach, …) digits -> (n, lines, side), all float32."""
        *lower, total = torch.split(torch.bmm(lines, digits).int(), self.side, 2)
        for part in reversed(lower):
            total = torch.add(part, total, alpha=1 << self.digit_bits)
        return ((total + (1 << BITS - 1)) >> BITS).clamp(0, 255).float()


def _down_first(size: Tensor, length: Tensor) -> Tensor:
    """For each image, whether Pillow takes the vertical pass first: (n,) bool.

    From version 13 on it does so if a window has fewer rows than the image, and loses more than twice as many rows as
    columns. Versions 12.2 and 12.3 do so if it has fewer rows and the image is more than 100 times as high as wide.

    Args:
        size: (2, n), widths and heights.
        length: (2, n), widths and heights of the windows.
    """
    (width, height), (across, down) = size, size - length
    if PILLOW >= (13, 0):
        return (down > 0) & (down > 2 * across)
    return (down > 0) & (height > 100 * width) & (PILLOW >= (12, 2))


def _kernel(x: Tensor, resample: str) -> Tensor:
    """A filter's value at distance x: the triangle, or Keys' cubic with a = -0.5."""
    x = x.abs()
    if resample == "bilinear":
        return (1 - x).clamp(min=0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
