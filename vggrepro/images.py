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


class BadImage(ValueError):
    """Bytes that are no image, or a truncated, empty or absurdly large one."""


def decode(data: bytes | memoryview) -> np.ndarray:
    """Image bytes of any format and colour mode as RGB: uint8 (H, W, 3).

    Greyscale, palette and CMYK images become RGB; the format is told by the content, not by a name; EXIF
    rotation is not applied (no published number does).

    Raises:
        BadImage: not decodable.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EXIF warnings would flood logs
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise BadImage("not an image" if len(data) else "empty") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"too large: {error}") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError) as error:
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
