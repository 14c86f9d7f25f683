"""Decoding images to RGB pixels, and doing so in threads without losing the order."""

from __future__ import annotations

import io
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

T = TypeVar("T")
R = TypeVar("R")

# EXIF warnings would flood logs. Set once: `warnings.catch_warnings` around each image is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


# Those of the files that sources take. Pillow knows more, some of which run other programs (EPS: Ghostscript).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


class BadImage(ValueError):
    """Bytes that are no image, or a truncated, empty or absurdly large one."""


def decode(data: bytes | memoryview) -> Image.Image:
    """Image bytes of any of the `FORMATS` and any colour mode as an RGB image.

    It stays Pillow's: an array and back would cost a fifth of what decoding does. Greyscale, palette and CMYK images
    become RGB; the format is told by the content, not by a name; EXIF rotation is not applied (no published number
    does).

    Raises:
        BadImage: not decodable.
    """
    return decode_kind(data)[0]


def decode_kind(data: bytes | memoryview) -> tuple[Image.Image, str]:
    """As `decode`, and the file's format and colour mode, such as "JPEG RGB", "JPEG CMYK" or "PNG RGBA"."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            kind = f"{image.format} {image.mode}"
            limit = Image.MAX_IMAGE_PIXELS  # twice as many raise an error, so many would be a mere warning
            if limit is not None and image.width * image.height > limit:
                raise BadImage(f"too large: {image.width}x{image.height} pixels")
            if image.mode.startswith("I"):  # 16-bit grey, which `convert` would clip at 255
                grey = (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)
                return Image.fromarray(grey).convert("RGB"), kind
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB"), kind
    except UnidentifiedImageError:
        raise BadImage("not an image" if len(data) else "empty") from None
    except Image.DecompressionBombError as error:
        raise BadImage(f"too large: {error}") from None
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow's parsers fail in every way on damaged files
        raise BadImage(str(error) or type(error).__name__) from None


def ordered(function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int) -> Iterator[R]:
    """`map(function, items)` with `workers` threads that run at most `ahead` items in front of the reader.

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
