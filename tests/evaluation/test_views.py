"""Test views against slices by hand and torchvision's resizing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as vision

from vggrepro.data.rescaling import rescale
from vggrepro.evaluation import views
from vggrepro.posteriors.protocol import Method


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width + height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_grid_offsets_by_hand() -> None:
    assert views.grid_offsets(256, 224, 5) == [0, 8, 16, 24, 32]
    assert views.grid_offsets(341, 224, 5) == [0, 29, 59, 88, 117]  # 0, 29.25, 58.5, 87.75, 117
    assert views.grid_offsets(224, 224, 5) == [0] * 5
    assert views.grid_offsets(226, 224, 5) == [0, 1, 1, 2, 2]
    assert views.grid_offsets(257, 224, 1) == [16]


@pytest.mark.parametrize("grid", [2, 3, 5, 7])
def test_grids_reach_both_borders_in_even_steps(grid: int) -> None:
    for length in range(56, 200):
        offsets = views.grid_offsets(length, 56, grid)
        assert len(offsets) == grid
        assert (offsets[0], offsets[-1]) == (0, length - 56)
        steps = np.diff(offsets)
        assert steps.max() - steps.min() <= 1
        assert all(abs(a + b - (length - 56)) <= 1 for a, b in zip(offsets, offsets[::-1], strict=True))


def test_crops_are_slices_an_images_together() -> None:
    images = torch.from_numpy(np.stack([noise(80, 64), noise(80, 64)[::-1]]))
    crops = views.crops(images, 56, Method("multicrop"))
    assert crops.shape == (50, 56, 56, 3)
    for image in range(2):
        for row, top in enumerate((0, 2, 4, 6, 8)):
            for column, left in enumerate((0, 6, 12, 18, 24)):
                expected = images[image, top : top + 56, left : left + 56]
                assert torch.equal(crops[25 * image + 5 * row + column], expected)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (97, 701), (64, 64), (256, 300), (57, 80)])
def test_the_centre_crop_is_torchvisions(width: int, height: int) -> None:
    pixels = noise(width, height)
    expected = np.asarray(vision.center_crop(Image.fromarray(pixels), [56, 56]))
    crop = views.crops(torch.from_numpy(pixels[None]), 56, Method("center"))
    assert np.array_equal(crop[0], expected)
    assert np.array_equal(views.crops(torch.from_numpy(pixels[None]), 56, Method("multicrop", grid=1))[0], expected)


def test_ten_crops_are_torchvisions() -> None:
    for width, height in ((90, 64), (64, 101)):
        image = Image.fromarray(noise(width, height))
        expected = [np.asarray(crop) for crop in vision.five_crop(image, [56, 56])]  # corners, then the centre
        crops = views.crops(torch.from_numpy(np.array(image)[None]), 56, Method("tencrop"))
        assert [crop.tolist() for crop in crops.numpy()] == [crop.tolist() for crop in expected]
        assert len(crops) == Method("tencrop").crops


@pytest.mark.parametrize(("width", "height"), [(120, 80), (80, 121), (80, 80)])
def test_googlenets_crops_of_three_squares(width: int, height: int) -> None:
    """Left, centre and right square (or top, centre and bottom): four corners, the centre, and the square resized."""
    pixels = np.stack([noise(width, height), noise(width, height)[::-1]])
    crops = views.crops(torch.from_numpy(pixels.copy()), 56, Method("googlenet")).view(2, 18, 56, 56, 3)
    assert Method("googlenet").crops == 18  # 18 x 2 flips x 4 Q = 144
    middle = (max(width, height) - 80 + 1) // 2
    for image in range(2):
        for number, offset in enumerate((0, middle, max(width, height) - 80)):
            top, left = (0, offset) if width >= height else (offset, 0)
            square = pixels[image, top : top + 80, left : left + 80]
            own = crops[image, 6 * number : 6 * number + 6].numpy()
            corners = [(0, 0), (0, 24), (24, 0), (24, 24), (12, 12)]
            for crop, (row, column) in zip(own, corners, strict=False):
                assert np.array_equal(crop, square[row : row + 56, column : column + 56])
            resized = np.asarray(vision.resize(Image.fromarray(square), [56, 56], antialias=True))
            assert np.abs(own[5].astype(int) - resized).max() <= 1


def test_one_crop_of_a_crop_sized_image_is_the_image() -> None:
    images = torch.from_numpy(noise(56, 56)[None])
    assert torch.equal(views.crops(images, 56, Method("multicrop", grid=1)), images)
    assert torch.equal(views.crops(images, 56, Method("multicrop")), images.expand(25, -1, -1, -1))


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(64, 64, [1, 1, 1, 18]), (64, 80, [5, 3, 1, 18]), (65, 67, [8, 5, 1, 18]), (80, 90, [25, 5, 1, 18])],
)
def test_distinct_crops_and_which_of_them_each_is(height: int, width: int, expected: list[int]) -> None:
    images = torch.from_numpy(noise(width, height)[None])
    for method, count in zip(("multicrop", "tencrop", "center", "googlenet"), expected, strict=True):
        crops = views.crops(images, 64, Method(method))
        first, which = views.distinct(height, width, 64, Method(method))
        assert len(first) == count
        assert torch.equal(crops[first][which], crops)
        if method != "googlenet":
            assert len(crops.flatten(1).unique(dim=0)) == count


@pytest.mark.parametrize(("width", "height"), [(500, 375), (120, 480), (333, 47), (64, 64), (65, 64)])
def test_rescale_is_torchvisions_resize(width: int, height: int) -> None:
    for shorter in (56, 64, 72, 128):
        expected = np.asarray(vision.resize(Image.fromarray(noise(width, height)), shorter, antialias=True))
        np.testing.assert_array_equal(rescale(Image.fromarray(noise(width, height)), shorter), expected)


def test_an_image_of_the_target_size_is_left_alone() -> None:
    pixels = noise(97, 64)
    np.testing.assert_array_equal(rescale(Image.fromarray(pixels), 64), pixels)


def test_bicubic_is_bicubic() -> None:
    expected = Image.fromarray(noise(90, 100)).resize((64, 71), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(rescale(Image.fromarray(noise(90, 100)), 64, "bicubic"), np.asarray(expected))
