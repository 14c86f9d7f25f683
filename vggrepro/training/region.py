"""Cuts training crops from partly decoded JPEGs: only the rows and columns in the crop (`--decode region`).

nvImageCodec decodes the region on the CPU (libjpeg-turbo) and cykooz-resizer resamples it with SIMD instructions. Both
are optional (`pip install 'vggrepro[fast]'`). Pixels differ from Pillow's by at most 2 of 255, by 0.2 on average.
"""

from __future__ import annotations

import importlib
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from vggrepro.data.rescaling import SUPPORT, Window
from vggrepro.errors import InputError

CHROMA = 2  # pixels outside the region that the interpolation of a JPEG's colours needs

_lock = threading.Lock()
_own = threading.local()  # each thread has its own decoder and resizer


def require() -> None:
    """Checks that both libraries can be used.

    Raises:
        InputError: one is not installed or does not work here.
    """
    try:
        _tools()
    except (ImportError, RuntimeError, OSError) as error:
        raise InputError(
            f"--decode region: not usable here ({error}); pip install 'vggrepro[fast]', or leave --decode out"
        ) from None


def cut(data: memoryview, width: int, height: int, window: Window, resample: str) -> np.ndarray | None:
    """The window's pixels, uint8 (side, side, 3), from the bytes of a JPEG file.

    Args:
        data: the file's bytes.
        width, height: of the whole image.
        window: the crop.
        resample: bilinear or bicubic.

    Returns:
        None if the image must be decoded as a whole: no JPEG, CMYK, or of another size than expected.
    """
    found = decoded(data, width, height, window, resample)
    if found is None:
        return None
    pixels, x, y = found
    side = window.side
    if window.ratio == (1.0, 1.0):
        return pixels[window.top - y :, window.left - x :][:side, :side]
    _, resizer, _, resizing, _ = _tools()
    (left, top, right, bottom), (rows, columns) = window.box, pixels.shape[:2]
    source = resizer.ImageData(columns, rows, resizer.PixelType.U8x3, pixels.tobytes())
    result = resizer.ImageData(side, side, resizer.PixelType.U8x3)
    across, down = _inside(left - x, right - x, columns), _inside(top - y, bottom - y, rows)
    box = resizer.CropBox(across[0], down[0], across[1], down[1])
    kernel = resizer.FilterType.bilinear if resample == "bilinear" else resizer.FilterType.catmull_rom
    how = resizer.ResizeAlg.convolution(kernel)
    resizing.resize(source, result, resizer.ResizeOptions(resize_alg=how, crop_box=box, use_alpha=False))
    return np.frombuffer(result.get_buffer(), np.uint8).reshape(side, side, 3)


def decoded(
    data: memoryview, width: int, height: int, window: Window, resample: str
) -> tuple[np.ndarray, int, int] | None:
    """The pixels that a window is made of, uint8 (h, w, 3), with their left and upper edge in the image; as `cut`."""
    if bytes(data[:2]) != b"\xff\xd8":
        return None
    nv, _, decoder, _, parameters = _tools()
    try:
        stream = nv.CodeStream(np.frombuffer(data, np.uint8))
        if stream.num_channels == 4 or (stream.width, stream.height) != (width, height):
            return None  # Pillow converts CMYK
    except RuntimeError:  # not a JPEG despite its first bytes
        return None
    left, top, right, bottom = window.box
    reach = [SUPPORT[resample] * max(1.0, ratio) + CHROMA for ratio in window.ratio]
    x, y = max(0, int(left - reach[0])), max(0, int(top - reach[1]))
    end_x, end_y = min(width, math.ceil(right + reach[0])), min(height, math.ceil(bottom + reach[1]))
    region = decoder.decode(stream.get_sub_code_stream(region=nv.Region(y, x, end_y, end_x)), params=parameters)
    return None if region is None else (np.asarray(region.cpu()), x, y)


def _inside(start: float, end: float, size: int) -> tuple[float, float]:
    """Start and length of an interval in [0, size]; the resizer refuses a sum that rounding pushes above `size`."""
    length = min(end, size) - start
    while start + length > size:
        length = math.nextafter(length, 0)
    return start, length


def _tools() -> tuple[Any, Any, Any, Any, Any]:
    """The two modules, and this thread's decoder, resizer and decoding parameters."""
    if not hasattr(_own, "tools"):
        with _lock, _quiet():
            nv, resizer = importlib.import_module("nvidia.nvimgcodec"), importlib.import_module("cykooz_resizer")
            decoder = nv.Decoder(
                device_id=nv.NVIMGCODEC_DEVICE_CPU_ONLY,
                max_num_cpu_threads=1,
                backends=[nv.Backend(nv.BackendKind.CPU_ONLY)],
            )
            parameters = nv.DecodeParams(apply_exif_orientation=False, color_spec=nv.ColorSpec.SRGB)
            _own.tools = nv, resizer, decoder, resizer.Resizer(), parameters
    return _own.tools


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides what nvImageCodec prints on stderr about missing GPU libraries."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
