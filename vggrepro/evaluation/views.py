"""Test views (Sect. 3.2): an image rescaled to Q, and the crops that a method cuts from it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vggrepro.posteriors.protocol import Method


def crops(images: Tensor, crop: int, method: Method) -> Tensor:
    """All crops of equal-sized images: uint8 (n, H, W, 3) -> (n * method.crops, crop, crop, 3), image by image.

    `multicrop` is the grid of Sect. 3.2. `center` is the central crop. `tencrop` has the corners and the centre, with
    flips Krizhevsky et al.'s ten. `googlenet` has three squares along the longer side, and of each these five crops
    and the whole square, resized; with flips and four Q these are Szegedy et al.'s 144.
    """
    height, width = images.shape[1:3]
    if method.name == "googlenet":
        side = min(height, width)
        squares = [
            images[:, top : top + side, left : left + side]
            for top, left in zip(grid_offsets(height, side, 3), grid_offsets(width, side, 3), strict=True)
        ]
        parts = [[crops(s, crop, Method("tencrop")), _resized(s, crop)] for s in squares]
        each = [part.view(len(images), -1, crop, crop, 3) for pair in parts for part in pair]
        return torch.cat(each, 1).flatten(0, 1)
    cut = [images[:, top : top + crop, left : left + crop] for top, left in places(height, width, crop, method)]
    return torch.stack(cut, 1).flatten(0, 1)


def places(height: int, width: int, crop: int, method: Method) -> list[tuple[int, int]]:
    """(top, left) of the crops of a method other than `googlenet`."""
    bottom, right = height - crop, width - crop
    centre = round(bottom / 2), round(right / 2)  # as torchvision's CenterCrop
    if method.name == "center":
        return [centre]
    if method.name == "tencrop":
        return [(0, 0), (0, right), (bottom, 0), (bottom, right), centre]
    rows, columns = (grid_offsets(side, crop, method.grid) for side in (height, width))
    return [(top, left) for top in rows for left in columns]


def distinct(height: int, width: int, crop: int, method: Method) -> tuple[list[int], list[int]]:
    """The crops of a method that differ: the places of each one's first copy, and for each crop the copy it equals.

    At Q = 224 (paper pixels) the rows of a grid coincide, or its columns: 5 of 25 crops differ.
    For a square image all 25 are the same.
    """
    if method.name == "googlenet":
        return list(range(method.crops)), list(range(method.crops))
    every = places(height, width, crop, method)
    found = list(dict.fromkeys(every))
    return [every.index(place) for place in found], [found.index(place) for place in every]


def grid_offsets(length: int, crop: int, grid: int) -> list[int]:
    """`grid` positions of a crop along a side, evenly spaced from border to border.

    One position is the centre.
    """
    if grid == 1:
        return [round((length - crop) / 2)]
    return [int(position + 0.5) for position in np.linspace(0, length - crop, grid)]


def _resized(squares: Tensor, side: int) -> Tensor:
    """uint8 (n, S, S, 3) -> (n, side, side, 3), antialiased bilinear."""
    x = squares.permute(0, 3, 1, 2).float()
    x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
    return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
