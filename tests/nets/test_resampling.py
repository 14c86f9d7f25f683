"""Resampling by matrix products against Pillow, to the bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from vggrepro.data.rescaling import Windows, cut, rescale, rescaled_size
from vggrepro.nets import resampling
from vggrepro.nets.resampling import Resampler
from vggrepro.system import devices

rng = np.random.default_rng(0)


def images(sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    """Noise of few, extreme values, whose sums are often halves, and noise of all values."""
    few = np.array([0, 3, 128, 255], np.uint8)
    shapes = [(height, width, 3) for width, height in sizes]
    return [rng.choice(few, shape) if rng.random() < 0.5 else rng.integers(0, 256, shape, np.uint8) for shape in shapes]


def random_windows(pixels: list[np.ndarray], side: int, most: int) -> Windows:
    """A random square of each image, rescaled to a random size from `side` to `most`."""
    sizes = [(image.shape[1], image.shape[0]) for image in pixels]
    new = [rescaled_size(*size, int(rng.integers(side, most + 1))) for size in sizes]
    corners = [rng.integers(0, [width - side + 1, height - side + 1]).tolist() for width, height in new]
    return Windows(np.array([sizes, new, corners]).transpose(0, 2, 1).copy(), side)


def resampled(pixels: list[np.ndarray], windows: Windows, resample: str, device: str = "cpu") -> np.ndarray:
    """All windows at once."""
    counts = [image.shape[0] * image.shape[1] for image in pixels]
    rows = torch.from_numpy(np.concatenate([image.reshape(-1, 3) for image in pixels]))
    starts = torch.tensor(np.cumsum([0, *counts[:-1]]))
    resampler = Resampler(windows.side, float(windows.shrinks.max()), resample)
    places = torch.from_numpy(windows.places)
    return resampler.cut(*(part.to(device) for part in (rows, starts, places))).cpu().numpy()


def pillow(pixels: list[np.ndarray], windows: Windows, resample: str) -> np.ndarray:
    cuts = [cut(Image.fromarray(image), windows[number], resample) for number, image in enumerate(pixels)]
    return np.stack(cuts)


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("side", "most"), [(1, 9), (16, 40), (32, 64), (56, 56), (64, 128), (224, 300)])
def test_windows_are_pillows_to_the_bit(side: int, most: int, resample: str) -> None:
    """Images of all shapes, enlarged and shrunk; Pillow takes either side of them first. 4 million values in all."""
    count = 8 if side == 224 else 40
    pixels = images([(int(width), int(height)) for width, height in rng.integers(1, 3 * side + 100, (count, 2))])
    windows = random_windows(pixels, side, most)
    np.testing.assert_array_equal(resampled(pixels, windows, resample), pillow(pixels, windows, resample))


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(640, 600), (90, 1500), (2000, 2100), (32, 32), (32, 70)])
def test_images_are_pillows_to_the_bit_where_sums_are_long_and_where_a_pass_is_left_out(
    size: tuple[int, int], resample: str
) -> None:
    pixels = images([size])
    windows = random_windows(pixels, 32, 32)
    np.testing.assert_array_equal(resampled(pixels, windows, resample), pillow(pixels, windows, resample))


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_windows_of_narrow_images_are_pillows_to_the_bit(resample: str) -> None:
    """About 100 times as high as wide, where Pillow 12.2 changes the order of the passes, and as wide as high."""
    pixels = images([(4, 630), (4, 401), (4, 400), (3, 299), (1, 101), (2, 350), (6, 650), (630, 4), (401, 4)])
    windows = random_windows(pixels, 64, 128)
    np.testing.assert_array_equal(resampled(pixels, windows, resample), pillow(pixels, windows, resample))


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_whole_images_rescaled_together_are_pillows_to_the_bit(
    resample: str, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wide and tall, enlarged, shrunk and left alone, in a shape with room for all."""
    if not at_once:
        monkeypatch.setattr(resampling, "WORK_BYTES", 1)
    pixels = images([(50, 40), (40, 50), (160, 120), (64, 48), (48, 300), (113, 97), (130, 52)])
    shorter = [48, 48, 48, 48, 60, 70, 20]
    expected = [rescale(Image.fromarray(image), side, resample) for image, side in zip(pixels, shorter, strict=True)]
    sizes = [(image.shape[0], image.shape[1]) for image in expected]
    shape = max(height for height, _ in sizes), 96
    found = resampling.rescaled([torch.from_numpy(image) for image in pixels], sizes, shape, resample).numpy()
    assert found.shape == (7, *shape, 3)
    for number, (height, width) in enumerate(sizes):
        np.testing.assert_array_equal(found[number, :height, :width], expected[number])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_a_gpu_gives_pillows_pixels_to_the_bit(resample: str, precision: str) -> None:
    pixels = images([(int(width), int(height)) for width, height in rng.integers(1, 700, (40, 2))])
    windows = random_windows(pixels, 64, 128)
    with devices.autocast(precision, torch.device("cuda")):
        found = resampled(pixels, windows, resample, "cuda")
    np.testing.assert_array_equal(found, pillow(pixels, windows, resample))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((10, 0), [False, False, False, False, False, False]),
        ((12, 1), [False, False, False, False, False, False]),
        ((12, 2), [False, False, False, True, False, False]),
        ((12, 3), [False, False, False, True, False, False]),
        ((13, 0), [True, False, True, True, True, False]),
    ],
)
def test_each_pillow_has_its_own_order_of_passes(
    version: tuple[int, int], expected: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 13 on, 12.2 and 12.3, and before: the two orders round differently."""
    monkeypatch.setattr(resampling, "PILLOW", version)
    size = torch.tensor([[50, 64, 64, 4, 4, 1], [300, 64, 300, 401, 400, 101]])  # widths and heights
    length = torch.tensor([[64, 64, 64, 64, 64, 101], [64, 64, 64, 64, 64, 101]])
    assert resampling._down_first(size, length).tolist() == expected


@pytest.mark.parametrize("shrink", [0.3, 1.0, 2.5, 7.4, 15.0, 40.0])
def test_sums_are_exact_in_fp32_and_factors_in_tf32(shrink: float) -> None:
    """Every sum of bytes times digits stays below 2^24, and a digit has at most the 11 bits that TF32 keeps."""
    for resample in ("bilinear", "bicubic"):
        resampler = Resampler(32, shrink, resample)
        size = torch.tensor([round(100 * shrink), round(77 * shrink)])
        facts = torch.tensor([[100, 77], [68, 0], [32, 32]])  # new sizes, corners, lengths
        _, digits = resampler._weights(size, *facts)
        assert (255 * digits.abs().sum(1)).max() < 1 << 24
        mantissas = torch.frexp(digits[digits != 0]).mantissa * (1 << 11)
        assert torch.equal(mantissas, mantissas.round())
        parts = digits.double().split(32, 2)
        total = sum(part * float(1 << resampler.digit_bits * place) for place, part in enumerate(parts))
        assert isinstance(total, torch.Tensor)
        assert (total.sum(1) - (1 << resampling.BITS)).abs().max() <= math.ceil(resampler.taps / 2)


def test_autocast_does_not_reach_the_sums() -> None:
    pixels = images([(100, 90)])
    windows = random_windows(pixels, 32, 64)
    with torch.autocast("cpu", torch.bfloat16):
        found = resampled(pixels, windows, "bilinear")
    np.testing.assert_array_equal(found, pillow(pixels, windows, "bilinear"))
