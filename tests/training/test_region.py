"""Crops of JPEGs decoded in part, against decoding and resizing the whole with Pillow."""

from __future__ import annotations

import importlib
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from conftest import photo
from PIL import Image

from vggrepro import recipe
from vggrepro.data import dataset as module
from vggrepro.data.dataset import Dataset
from vggrepro.data.images import decode
from vggrepro.data.rescaling import centre_window, cut
from vggrepro.errors import InputError
from vggrepro.paper import JITTER, S256, Scale
from vggrepro.training import augment
from vggrepro.training.loader import Loader

pytest.importorskip("nvidia.nvimgcodec", reason="needs pip install vggrepro[fast]")
pytest.importorskip("cykooz_resizer", reason="needs pip install vggrepro[fast]")

from vggrepro.training import region


def jpeg(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo(2, 5, width, height)).convert(mode).save(file, "JPEG", **({"quality": 90} | options))
    return file.getvalue()


def difference(data: bytes, scale: Scale, crop: int, resample: str = "bilinear") -> tuple[float, int]:
    """Mean and greatest difference to Pillow's crops at twelve drawn places and in the four corners."""
    image = decode(data)
    corners = np.minimum([[0.5, x, y] for x in (0, 1) for y in (0, 1)], 1 - 2**-24)
    places = np.concatenate([augment.draws(0, 0, torch.arange(12)).place, corners])
    windows = augment.training_windows(np.array([image.size] * len(places)).T, scale, crop, places)
    found = []
    for window in (windows[number] for number in range(len(places))):
        crop_ = region.cut(memoryview(data), *image.size, window, resample)
        assert crop_ is not None
        assert crop_.shape == (crop, crop, 3)
        assert crop_.dtype == np.uint8
        found.append(np.abs(crop_.astype(int) - cut(image, window, resample)))
    return float(np.mean(found)), int(np.max(found))


@pytest.mark.parametrize("options", [{"subsampling": s} for s in (0, 1, 2)] + [{"progressive": True}, {"mode": "L"}])
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (301, 97), (640, 120)])
@pytest.mark.parametrize("scale", [S256, JITTER])
def test_crops_are_pillows_up_to_rounding(size: tuple[int, int], scale: Scale, options: dict[str, Any]) -> None:
    mean, most = difference(jpeg(*size, **options), scale, 224)
    assert mean < 0.5
    assert most <= 2


def test_bicubic() -> None:
    mean, most = difference(jpeg(500, 375), JITTER, 224, "bicubic")
    assert mean < 0.5
    assert most <= 4


@pytest.mark.parametrize("subsampling", [0, 2])
def test_an_image_of_the_target_size_is_only_cut(subsampling: int) -> None:
    assert difference(jpeg(341, 256, subsampling=subsampling), S256, 224) == (0, 0)


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Random detail of all sizes whose power falls as in photographs: with the square of the frequency."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    frequency = np.maximum(np.hypot(fy, fx), 1 / max(width, height))
    spectrum = rng.normal(size=(3, *frequency.shape)) + 1j * rng.normal(size=(3, *frequency.shape))
    pixels = np.fft.irfft2(spectrum / frequency, (height, width)).transpose(1, 2, 0)
    return Image.fromarray((128 + 48 * (pixels - pixels.mean()) / pixels.std()).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("quality", [60, 80, 96])
@pytest.mark.parametrize("size", [(500, 375), (333, 500), (1024, 683)])
def test_detail_of_photographs(size: tuple[int, int], quality: int) -> None:
    file = io.BytesIO()
    photograph(*size, seed=quality).save(file, "JPEG", quality=quality)
    mean, most = difference(file.getvalue(), JITTER, 224)
    assert mean < 0.5
    assert most <= 2


def test_what_must_be_decoded_whole() -> None:
    whole = jpeg(300, 260)
    png = io.BytesIO()
    Image.fromarray(photo(0, 0, 300, 260)).save(png, "PNG")
    window = centre_window(300, 260, 256, 224)
    cmyk = jpeg(300, 260, "CMYK")
    for data in (png.getvalue(), cmyk, whole[:300], b"\xff\xd8 no image", b""):
        assert region.cut(memoryview(data), 300, 260, window, "bilinear") is None
    assert region.cut(memoryview(whole), 260, 300, window, "bilinear") is None  # another image than was said


def test_threads_have_their_own_decoders() -> None:
    data = jpeg(500, 375)
    window = centre_window(500, 375, 256, 224)
    expected = region.cut(memoryview(data), 500, 375, window, "bilinear")
    with ThreadPoolExecutor(8) as pool:
        crops = list(pool.map(lambda _: region.cut(memoryview(data), 500, 375, window, "bilinear"), range(64)))
    assert all(np.array_equal(crop, expected) for crop in crops)


def test_the_loader_takes_regions_where_images_are_not_kept(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = region.cut
    monkeypatch.setattr(region, "cut", lambda *given: calls.append(1) or real(*given))

    def crops(decode_: str, workers: int) -> torch.Tensor:
        chosen = recipe.load("demo", {"crop": 32, "batch": 8, "decode": decode_})
        loader = Loader(dataset, chosen, JITTER, 0, torch.device("cpu"), workers)
        return torch.cat([batch.crops for batch in loader.batches(0)])

    kept = crops("region", 0)
    assert not calls
    assert torch.equal(kept, crops("pillow", 2))
    monkeypatch.setattr(module, "CACHE_BYTES", 0)
    cut = crops("region", 0)
    assert len(calls) == 24
    assert torch.equal(cut, crops("region", 4))
    assert (cut.int() - kept.int()).abs().max() <= 2


def test_libraries_that_are_missing_are_named(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", missing)
    monkeypatch.setattr(region, "_own", type("None", (), {})())
    message = (
        r"--decode region: not usable here \(No module named 'nvidia.nvimgcodec'\); pip install 'vggrepro\[fast\]'"
    )
    with pytest.raises(InputError, match=message):
        Loader(dataset, recipe.load("demo", {"decode": "region"}), S256, 0, torch.device("cpu"), 0)
