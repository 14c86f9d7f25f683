"""Decoding the images that real data sets hold, good and bad, and ordered work in threads."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageOps

from vggrepro.data import images
from vggrepro.data.images import BadImage, ordered

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # pytest takes back the module's own filter


def smooth(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([4 * x, 6 * y, 255 - 2 * (x + y)], 2).clip(0, 255).astype(np.uint8)


def file(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes | memoryview) -> np.ndarray:
    image = images.decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_rgb_images_keep_their_pixels() -> None:
    pixels = decode(file(Image.fromarray(smooth()), "PNG"))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, smooth())
    jpeg = decode(file(Image.fromarray(smooth()), "JPEG", quality=95))
    assert np.abs(jpeg.astype(int) - smooth()).mean() < 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_greyscale_becomes_three_equal_channels(kind: str) -> None:
    grey = smooth()[..., 0]
    pixels = decode(file(Image.fromarray(grey), kind, quality=100))
    assert pixels.shape == (40, 60, 3)
    assert (pixels == pixels[..., :1]).all()
    assert np.abs(pixels[..., 0].astype(int) - grey).max() <= 3


@pytest.mark.parametrize(
    ("ink", "rgb"),
    [
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0,) * 4, (255,) * 3),
    ],
)
def test_cmyk_jpegs_with_adobes_inverted_inks(ink: tuple[int, ...], rgb: tuple[int, ...]) -> None:
    data = file(Image.new("CMYK", (32, 32), ink), "JPEG", quality=100)
    assert b"Adobe" in data  # as the 22 CMYK images of ILSVRC-2012
    assert np.abs(decode(data).astype(int) - rgb).max() <= 2


def test_palettes_are_looked_up() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    expected = [[[255, 0, 0], [0, 255, 0]], [[10, 20, 30], [0, 255, 0]]]
    for data in (file(image, "PNG"), file(image, "PNG", transparency=1), file(image, "GIF")):
        assert decode(data).tolist() == expected


def test_opaque_colours_of_rgba_and_grey_with_alpha() -> None:
    rgba = np.dstack([smooth(), np.full((40, 60), 255, np.uint8)])
    np.testing.assert_array_equal(decode(file(Image.fromarray(rgba), "PNG")), smooth())
    grey = Image.merge("LA", [Image.fromarray(smooth()[..., 1]), Image.new("L", (60, 40), 255)])
    assert (decode(file(grey, "PNG")) == smooth()[..., 1:2]).all()


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels = decode(file(Image.fromarray(grey), kind))
        np.testing.assert_allclose(pixels[..., 0], grey / 257, atol=1)
        assert (pixels == pixels[..., :1]).all()


def sixteen_bit_png(colours: np.ndarray) -> bytes:
    """A PNG of 16-bit colours (H, W, 3), which Pillow reads and does not write."""
    height, width = colours.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


RAMP = np.linspace(0, 1, 40 * 60).reshape(40, 60)


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        (
            RAMP.astype(np.float32),
            "TIFF",
            "TIFF F with values from 0 to 1 and the file does not say which one is white",
        ),
        ((2 * RAMP - 1).astype(np.float32), "TIFF", "TIFF F with values from -1 to 1 "),
        ((65535 * RAMP).astype(np.float32), "TIFF", "TIFF F with values from 0 to 65535 "),
        ((255 * RAMP).astype(np.int32), "TIFF", "TIFF I with values from 0 to 255 "),
        ((255 * RAMP).astype(np.uint16), "TIFF", "TIFF I;16 with values from 0 to 255 of 16 bits up to 65535"),
        ((255 * RAMP).astype(np.uint16), "PNG", "PNG I;16 with values from 0 to 255 of 16 bits"),
        ((4095 * RAMP).astype(np.uint16), "PNG", "PNG I;16 with values from 0 to 4095 of 16 bits"),
    ],
)
def test_values_on_another_scale_than_the_containers_are_refused(values: np.ndarray, kind: str, said: str) -> None:
    with pytest.raises(BadImage) as error:
        images.decode_new(file(Image.fromarray(values), kind))
    assert str(error.value).startswith(said)
    assert str(error.value).endswith("; scale them to 0 to 255 and save it with 8 bits per channel")


def test_sixteen_bits_that_use_their_range_are_taken() -> None:
    for kind in ("PNG", "TIFF"):
        new = images.decode_new(file(Image.fromarray((65535 * RAMP).astype(np.uint16)), kind))
        np.testing.assert_allclose(np.asarray(new.image)[..., 0], 255 * RAMP, atol=1)
    colours = smooth().astype(np.uint16) * 257
    np.testing.assert_array_equal(np.asarray(images.decode_new(sixteen_bit_png(colours)).image), smooth())
    with pytest.raises(BadImage, match=r"PNG RGB with values from 0 to 255 of 16 bits"):
        images.decode_new(sixteen_bit_png(smooth().astype(np.uint16)))
    twelve = b"P5 60 40 4095\n" + (4095 * RAMP).astype(">u2").tobytes()  # says itself what white is
    np.testing.assert_allclose(np.asarray(images.decode_new(twelve).image)[..., 0], 255 * RAMP, atol=1)


def test_a_tiff_of_colours_in_floats_is_named() -> None:
    entries = [(256, 4, 4), (257, 4, 4), (258, 3, 32), (259, 3, 1), (262, 3, 2), (273, 4, 8), (277, 3, 3), (339, 3, 3)]
    ifd = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, kind, 1, n) for tag, kind, n in entries)
    data = b"II*\0" + struct.pack("<I", 8 + 192) + bytes(192) + ifd + bytes(4)
    with pytest.raises(BadImage, match="a TIFF of pixels that Pillow does not read, such as colours in floats"):
        images.decode_new(data)


def test_a_pointer_of_git_lfs_is_named() -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    with pytest.raises(BadImage, match="a pointer of Git LFS; fetch the file itself with 'git lfs pull'"):
        images.decode_new(pointer)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright_as_its_exif_says(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "JPEG"):
        data = file(Image.fromarray(smooth()), kind, exif=exif.tobytes())
        new = images.decode_new(data)
        assert (new.orientation, new.image.size) == (orientation, (60, 40))
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(np.asarray(new.upright()), np.asarray(expected))


def test_the_content_tells_the_format_not_a_name() -> None:
    # n02105855_2933.JPEG of ILSVRC-2012 is a PNG; nothing here sees the name
    np.testing.assert_array_equal(decode(memoryview(file(Image.fromarray(smooth()), "PNG"))), smooth())
    assert decode(file(Image.fromarray(smooth()), "BMP")).shape == (40, 60, 3)


def test_exif_rotation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    assert decode(file(Image.fromarray(smooth()), "JPEG", exif=exif.tobytes())).shape == (40, 60, 3)


JPEG = file(Image.fromarray(smooth()), "JPEG")
PNG = file(Image.fromarray(smooth()), "PNG")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"this is no picture", "not an image"),
        (b"<!DOCTYPE html><html>404</html>", "not an image"),
        (JPEG[: len(JPEG) // 2], "Truncated File Read"),
        (JPEG[:-20], "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (b"\0" * 1000, "not an image"),
    ],
)
def test_bad_images_say_why(data: bytes, message: str) -> None:
    with pytest.raises(BadImage, match=message):
        decode(data)


def test_format_and_colour_mode_are_the_files_own() -> None:
    image = Image.fromarray(smooth())
    for mode, form in [("RGB", "JPEG"), ("CMYK", "JPEG"), ("L", "JPEG"), ("RGBA", "PNG"), ("P", "GIF")]:
        new = images.decode_new(memoryview(file(image.convert(mode), form)))
        assert (new.image.mode, new.kind, new.orientation) == ("RGB", f"{form} {mode}", 1)


def test_formats_that_run_other_programs_are_no_images() -> None:
    with pytest.raises(BadImage, match="not an image"):
        decode(file(Image.fromarray(smooth()), "EPS"))


def test_any_damage_is_a_bad_image_or_an_image() -> None:
    rng = np.random.default_rng(0)
    outcomes = {"image": 0, "bad": 0}
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        whole = file(Image.fromarray(smooth()), kind)
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 2):
                data[place] = rng.integers(256)
            if rng.random() < 0.3:
                data = data[: rng.integers(len(data))]
            try:
                assert decode(bytes(data)).shape[2] == 3
                outcomes["image"] += 1
            except BadImage:
                outcomes["bad"] += 1
    assert min(outcomes.values()) > 10


def test_decompression_bombs_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (2399, 1000):  # Pillow warns above the limit, raises above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(BadImage, match="too large"):
            decode(PNG)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2400)
    assert decode(PNG).shape == (40, 60, 3)


def test_decoding_in_threads_refuses_every_bomb_and_leaves_the_warning_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    small, bomb = JPEG, file(Image.fromarray(smooth(80, 80)), "JPEG")
    before = list(warnings.filters)

    def outcome(number: int) -> str:
        try:
            decode(bomb if number % 2 else small)
        except BadImage:
            return "bad"
        return "image"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(outcome, range(600)))
    assert outcomes == ["image", "bad"] * 300
    assert list(warnings.filters) == before


def test_warnings_about_metadata_do_not_flood_the_log() -> None:
    broken = file(Image.fromarray(smooth()), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    code = f"from PIL import Image; import io; Image.open(io.BytesIO({broken!r})).getexif().get_ifd(1)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "UserWarning" in run.stderr  # Pillow alone warns
    run = subprocess.run(
        [sys.executable, "-c", f"import vggrepro.data.images; {code}"], capture_output=True, text=True, check=True
    )
    assert run.stderr == ""


# ordered


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    def slow(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number * number

    assert list(ordered(slow, range(40), workers, 8)) == [n * n for n in range(40)]
    assert list(ordered(slow, [], workers, 8)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_no_more_items_are_taken_than_the_look_ahead(workers: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    for read, _ in enumerate(ordered(lambda n: n, items(), workers, 5), 1):
        assert taken <= read + 5
        if read == 20:
            break


@pytest.mark.parametrize("workers", [0, 3])
def test_an_error_reaches_the_reader_after_the_results_before_it(workers: int) -> None:
    def fail(number: int) -> int:
        if number == 7:
            raise KeyError("seven")
        return number

    results = ordered(fail, range(100), workers, 4)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(KeyError, match="seven"):
        next(results)


def test_leaving_early_stops_the_threads() -> None:
    before = threading.active_count()
    results = ordered(lambda n: n, range(1000), 4, 8)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
