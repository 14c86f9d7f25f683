"""Decoding images to RGB pixels, and doing so in threads without losing the order."""

from __future__ import annotations

import io
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import PIL
from PIL import Image, ImageFile, UnidentifiedImageError, features

from vggrepro.system.files import LFS_POINTER, is_lfs_pointer

T = TypeVar("T")
R = TypeVar("R")

# Pillow would print many EXIF warnings. Set once: `warnings.catch_warnings` around each image is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


# Formats that `prepare` accepts. Pillow reads more; some of these run other programs (EPS: Ghostscript).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


# Turns that EXIF's orientation asks for, by its value; 1 is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112  # EXIF's tag
FEWEST = 1 << 14  # a 16-bit image with values below this only was written from 14 bits or fewer


class BadImage(ValueError):
    """Bytes that are no image, or an image that is cut, empty, far too large, or of an unknown range of values."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image that was decoded and checked, and what its file says of it."""

    image: Image.Image  # RGB, the pixels as they are stored
    kind: str  # the file's format and colour mode, such as "JPEG RGB", "JPEG CMYK" or "PNG RGBA"
    orientation: int  # EXIF's: 2 to 8 ask for a turn

    def upright(self) -> Image.Image:
        """The image as EXIF says that it is to be seen."""
        turn = TURNS.get(self.orientation)
        return self.image if turn is None else self.image.transpose(turn)


def decode(data: bytes | memoryview) -> Image.Image:
    """An RGB image from image bytes of any of the `FORMATS` and any colour mode; for images that passed `decode_new`.

    It stays a Pillow image: an array and back would cost a fifth of the decoding time. Greyscale, palette and CMYK
    images become RGB. The content decides the format, not a name. EXIF rotation is not applied: no published number
    uses it.

    Raises:
        BadImage: not decodable.
    """
    with _opened(data) as image:
        return _rgb(image)


def decode_new(data: bytes | memoryview) -> Decoded:
    """As `decode`, for an image that is new to the program: its values must use the whole range of its format.

    Raises:
        BadImage: not decodable; numbers whose scale the file does not say (floats, 32 bits, signed); 16 bits that hold
            values of 14 bits or fewer. All of these would come out black or white.
    """
    with _opened(data) as image:
        kind, sixteen = f"{image.format} {image.mode}", _has_sixteen_bits(image)
        image.load()
        rgb = _rgb(image)
        if sixteen or image.mode[0] in "FI":
            _check_scale(kind, image, rgb, sixteen)
        return Decoded(rgb, kind, _orientation(image))


def decoders() -> dict[str, str]:
    """The versions of Pillow and of its JPEG library, on which the decoded pixels depend."""
    turbo = features.version("libjpeg_turbo")
    return {"pillow": PIL.__version__} | (
        {"libjpeg-turbo": turbo} if turbo else {"libjpeg": features.version("jpg") or "?"}
    )


def size_of(data: bytes | memoryview) -> tuple[int, int]:
    """Width and height from an image's header, in pixels.

    Raises:
        BadImage: not an image.
    """
    with _opened(data) as image:
        return image.size


@contextmanager
def _opened(data: bytes | memoryview) -> Iterator[ImageFile.ImageFile]:
    """Pillow's image, whose every error is a BadImage."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            limit = Image.MAX_IMAGE_PIXELS  # above twice as many Pillow raises an error, above so many only a warning
            if limit is not None and image.width * image.height > limit:
                raise BadImage(f"too large: {image.width}x{image.height} pixels")
            yield image
    except UnidentifiedImageError:
        raise BadImage(_no_image(bytes(data[:200]))) from None
    except Image.DecompressionBombError as error:
        raise BadImage(f"too large: {error}") from None
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow's parsers fail in every way on damaged files
        raise BadImage(str(error) or type(error).__name__) from None


def _no_image(head: bytes) -> str:
    """What bytes are that are no image, judged by their beginning."""
    if is_lfs_pointer(head):
        return LFS_POINTER
    if head.startswith((b"II*\0", b"MM\0*")):
        return "a TIFF of pixels that Pillow does not read, such as colours in floats; save it with 8 bits per channel"
    return "not an image" if head else "empty"


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def _has_sixteen_bits(image: ImageFile.ImageFile) -> bool:
    """Whether the file holds unsigned 16-bit values. Call it before Pillow loads them, as it cuts colours to 8 bits."""
    if not image.tile:
        return False
    details: Any = image.tile[0][3]
    stored, *more = (details,) if isinstance(details, str) else details
    if image.format == "PPM":
        return image.mode != "F" and bool(more) and more[0] > 255  # its greatest value
    return ";16" in str(stored) and "S" not in str(stored)  # S: signed


def _check_scale(kind: str, image: Image.Image, rgb: Image.Image, sixteen: bool) -> None:
    """Refuses values that do not use the range of their format."""
    if image.mode[0] in "FI":
        values = np.asarray(image)
        low, high = float(np.fmin.reduce(values, None)), float(np.fmax.reduce(values, None))
    else:  # Pillow has kept the upper byte
        low, high = (int(np.asarray(rgb).min()) << 8), (int(np.asarray(rgb).max()) << 8) + 255
    if sixteen and high >= FEWEST:
        return
    why = "of 16 bits up to 65535" if sixteen else "and the file does not say which one is white"
    raise BadImage(
        f"{kind} with values from {low:g} to {high:g} {why}; scale them to 0 to 255 and save it with 8 bits per channel"
    )


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 where there is none; Pillow itself has applied that of a TIFF."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF in an image that is good
        return 1


def ordered(function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int) -> Iterator[R]:
    """`map(function, items)` with `workers` threads that are at most `ahead` items ahead of the reader.

    Pillow and numpy work outside Python's global lock, so threads decode in parallel and nothing is pickled.
    With no workers everything is done in the caller's thread.
    """
    if workers == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown(wait=True)
