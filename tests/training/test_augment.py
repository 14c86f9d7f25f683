"""Training views against resizing whole images with Pillow and torchvision, and against hand calculations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from vggrepro.data import rescaling
from vggrepro.paper import JITTER, S256, Scale
from vggrepro.training import augment

SIZES = [(500, 375), (375, 500), (64, 64), (333, 100), (97, 701), (40, 41), (256, 300), (1, 7)]


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Noise whose bicubic interpolation stays within 0-255."""
    return np.random.default_rng(seed).integers(64, 192, (height, width, 3), dtype=np.uint8)


def resized(pixels: np.ndarray, shorter: int, resample: str) -> np.ndarray:
    """torchvision's `Resize` of the whole image, as other VGG code does it."""
    mode = InterpolationMode.BILINEAR if resample == "bilinear" else InterpolationMode.BICUBIC
    return np.asarray(vision.resize(Image.fromarray(pixels), shorter, mode, antialias=True))


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


def cut(pixels: np.ndarray, shorter: int, side: int, left: int, top: int, resample: str = "bilinear") -> np.ndarray:
    """The crop at (left, top) after rescaling the shorter side."""
    height, width, _ = pixels.shape
    new_width, new_height = rescaling.rescaled_size(width, height, shorter)
    window = rescaling.Window((width / new_width, height / new_height), left, top, side)
    return rescaling.cut(Image.fromarray(pixels), window, resample)


def training_crop(pixels: np.ndarray, scale: Scale, crop: int, place: np.ndarray) -> np.ndarray:
    height, width, _ = pixels.shape
    windows = augment.training_windows(np.array([[width], [height]]), scale, crop, place[None])
    return rescaling.cut(Image.fromarray(pixels), windows[0])


def test_rescaled_size_is_torchvisions() -> None:
    rng = np.random.default_rng(0)
    for width, height in [*SIZES, *rng.integers(1, 3000, (300, 2)).tolist()]:
        for shorter in (56, 64, 224, 256, 384, 512):
            expected = vision._compute_resized_output_size((height, width), [shorter])  # (height, width)
            assert rescaling.rescaled_size(width, height, shorter) == (expected[1], expected[0])


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), SIZES[:-1])
def test_cut_is_a_crop_of_the_resized_image(width: int, height: int, resample: str) -> None:
    pixels = noise(width, height)
    for shorter in (64, 96, 128):
        whole = resized(pixels, shorter, resample)
        rows, columns = whole.shape[:2]
        for left, top in ((0, 0), (columns - 64, rows - 64), ((columns - 64) // 2, (rows - 64) // 3)):
            crop = cut(pixels, shorter, 64, left, top, resample)
            assert crop.dtype == np.uint8
            # Pillow rounds after each of its two passes, whose order it chooses, and holds the window in float32
            assert difference(crop, whole[top : top + 64, left : left + 64]) <= 2


def test_cut_of_an_image_of_the_target_size_does_not_touch_its_pixels() -> None:
    pixels = noise(90, 64)
    np.testing.assert_array_equal(cut(pixels, 64, 64, 13, 0), pixels[:, 13:77])


@pytest.mark.parametrize("shorter", [224, 257, 384, 512])
def test_every_window_lies_inside_images_of_any_size(shorter: int) -> None:
    rng = np.random.default_rng(shorter)
    for width, height in rng.integers(1, 400, (60, 2)).tolist():
        pixels = np.zeros((height, width, 3), np.uint8)
        new_width, new_height = rescaling.rescaled_size(width, height, shorter)
        if max(new_width, new_height) < 5000:
            assert cut(pixels, shorter, 224, new_width - 224, new_height - 224).shape == (224, 224, 3)


def position(pixels: np.ndarray, crop: np.ndarray) -> tuple[int, int]:
    """Where a crop was cut, from an image whose red and green are column and row."""
    np.testing.assert_array_equal(crop[0, :, 0], np.arange(crop[0, 0, 0], crop[0, 0, 0] + crop.shape[1]))
    return int(crop[0, 0, 0]), int(crop[0, 0, 1])


def test_training_crops_reach_both_borders_and_every_place_is_as_likely() -> None:
    y, x = np.mgrid[0:64, 0:70]
    pixels = np.stack([x, y, x], 2).astype(np.uint8)  # at S = 224 of a 64 crop: no resizing
    drawn = augment.draws(0, 0, torch.arange(4000))
    places = [position(pixels, training_crop(pixels, Scale(224, 224), 64, place)) for place in drawn.place]
    lefts = np.bincount([left for left, _ in places], minlength=7)
    assert {top for _, top in places} == {0}
    assert len(lefts) == 7
    assert ((lefts - 4000 / 7) ** 2 / (4000 / 7)).sum() < 22.5  # chi-square, 6 degrees: one in a thousand
    last = training_crop(pixels, Scale(224, 224), 64, np.array([0, 1 - 2**-24, 1 - 2**-24]))
    assert position(pixels, last) == (6, 0)


def test_jitter_draws_every_size_between_its_ends() -> None:
    drawn = augment.draws(0, 0, torch.arange(3000)).place

    def shorter(scale: Scale, crop: int, places: np.ndarray) -> list[int]:
        sizes = np.array([[80], [70]]).repeat(len(places), 1)
        windows = augment.training_windows(sizes, scale, crop, places)
        return [round(70 / windows[number].ratio[1]) for number in range(len(places))]

    seen = shorter(JITTER, 56, drawn)  # [64; 128] real pixels
    counts = np.bincount(seen)
    assert (min(seen), max(seen), np.count_nonzero(counts)) == (64, 128, 65)
    expected = 3000 / 65
    assert ((counts[64:] - expected) ** 2 / expected).sum() < 64 + 4 * np.sqrt(2 * 64)
    assert set(shorter(S256, 224, drawn[:50])) == {256}


def test_scale_and_place_are_drawn_apart() -> None:
    place = augment.draws(1, 2, torch.arange(5000)).place
    correlation = np.corrcoef(place.T)
    assert np.abs(correlation - np.eye(3)).max() < 0.06


def test_centre_crop_is_torchvisions() -> None:
    for width, height in ((500, 375), (375, 500), (64, 64), (97, 701), (256, 300)):  # even margins: no halves to round
        pixels = noise(width, height)
        whole = Image.fromarray(resized(pixels, 72, "bilinear"))
        expected = np.asarray(vision.center_crop(whole, [56, 56]))
        crop = rescaling.cut(Image.fromarray(pixels), rescaling.centre_window(width, height, 72, 56))
        assert difference(crop, expected) <= 2


def test_draws_belong_to_seed_epoch_and_image_alone() -> None:
    images = torch.tensor([5, 0, 99, 7, 31])
    whole = augment.draws(3, 1, images)
    parts = [augment.draws(3, 1, part) for part in images.split([2, 3])]
    for name in ("place", "flip", "colour"):
        np.testing.assert_array_equal(getattr(whole, name), np.concatenate([getattr(part, name) for part in parts]))
    for other in (augment.draws(4, 1, images), augment.draws(3, 2, images)):
        assert not np.isin(other.place, whole.place).any()
        assert not np.isin(other.colour, whole.colour).any()


def test_half_the_images_are_flipped_and_colours_are_standard_normal() -> None:
    drawn = augment.draws(0, 0, torch.arange(10_000))
    assert drawn.flip.mean() == pytest.approx(0.5, abs=0.02)
    assert drawn.place.min() >= 0
    assert drawn.place.max() < 1
    np.testing.assert_allclose(drawn.colour.mean(0), 0, atol=0.04)
    np.testing.assert_allclose(np.cov(drawn.colour.T), np.eye(3), atol=0.06)


def test_colour_shift_by_hand() -> None:
    # Axes: grey, then red against blue. Krizhevsky's formula on pixels in [0, 1], brought back to 0-255.
    vectors = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0], [0.8, 0.0, -0.6]])
    values = np.array([4000.0, 500.0, 100.0])
    basis = augment.colour_basis(vectors, values, std=0.1)
    shift = np.array([2.0, -1.0, 0.0]) @ basis
    first = 255 * (0.1 * 2.0) * (4000 / 255**2)  # 3.137
    second = 255 * (0.1 * -1.0) * (500 / 255**2)
    np.testing.assert_allclose(shift, [0.6 * first, second, 0.8 * first])
    assert not augment.colour_basis(vectors, values, std=0).any()


def test_both_readings_of_the_colour_shift_on_imagenets_covariance() -> None:
    # fb.resnet.torch's constants, on pixels in [0, 1]; columns are R, G, B
    vectors = np.array([[-0.5675, -0.5808, -0.5836], [0.7192, -0.0045, -0.6948], [0.4009, -0.8140, 0.4203]])
    values = np.array([0.2175, 0.0188, 0.0045]) * 255**2
    for scale, along_axes in (("eigenvalue", [5.55, 0.479, 0.115]), ("deviation", [11.89, 3.50, 1.71])):
        basis = augment.colour_basis(vectors, values, 0.1, scale)
        np.testing.assert_allclose(np.linalg.norm(basis, axis=1), along_axes, rtol=5e-3)
    np.testing.assert_allclose(
        augment.colour_basis(vectors, values, 1.0, "deviation").T
        @ augment.colour_basis(vectors, values, 1.0, "deviation"),
        (vectors.T * values) @ vectors,  # the covariance itself: shifts of pixels' own spread
        rtol=1e-12,
    )
