"""The generated data set `demo`: drawn shapes on a cluttered background, nothing to download.

Each image shows one object of one of the `CLASSES`, at a random size, place, tilt, stretch and colour. Small random
shapes lie behind it and in front of it. All classes have the same distribution of colours, so only shape and layout
tell them apart: two discs side by side or stacked, a face upright or upside down. No class becomes another when it is
mirrored, and none looks like a part of another, for a crop at a large Q may show only a part of the object. Images are
nearly square, with the object near the middle: at Q = 256, 384 and 512, dense evaluation by nets with a crop of 64 sees
the upper left 7/8 of a square's sides.

An image depends only on (DRAWING, seed, split, index), so each can be made alone and in any order.
"""

import io
import math
from collections.abc import Iterator
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vggrepro.data.sources.base import Example, Source, digest

Points = NDArray[np.complex128]  # vertices of a polygon as x + iy, y downwards; an object fills about |z| <= 1
Polygon = tuple[Points, int]  # a polygon and its ink: 255 adds to the object's mask, 0 cuts out of it

DRAWING = 4  # counts up when the images change; part of their key, so that a seed then gives new images
SHORT_SIDE = (96, 128)  # smallest and largest shorter side of an image, pixels
MAX_ASPECT = 1.1  # largest ratio of the longer side to the shorter
OBJECT_RADIUS = (0.14, 0.23)  # smallest and largest radius of the object, as a fraction of the shorter side
SPREAD = 0.4  # largest distance of the object from the middle, as a fraction of the free space
MAX_TILT = math.radians(35)  # largest rotation of the object to either side, radians
MAX_STRETCH = 1.5  # largest factor by which the object is wider and flatter, or narrower and taller
SCRAPS = (4, 10)  # smallest and largest number of small shapes in the background
COVERS = (5, 9)  # smallest and largest number of small shapes in front of everything
SCRAP_RADIUS = (0.04, 0.13)  # smallest and largest radius of such a shape, as a fraction of the shorter side
MIN_CONTRAST = 130.0  # the object's luma (0-255) is at least this much above the background's mean
NOISE = 6.0  # standard deviation of the grey noise on each pixel, of 255
JPEG_QUALITY = 90
_SUPERSAMPLING = 2
_LUMA = np.array([0.299, 0.587, 0.114])


def _circle(x: float, y: float, radius: float) -> Points:
    """A circle about (x, y), as a 28-gon."""
    return np.asarray(x + 1j * y + radius * np.exp(2j * np.pi * np.arange(28) / 28))


def _regular(corners: int, inner: float = 1.0) -> Points:
    """A regular polygon, first corner up; `inner` scales every second corner (a star)."""
    turn = -1j * np.exp(2j * np.pi * np.arange(corners) / corners)
    return np.asarray(turn * np.where(np.arange(corners) % 2, inner, 1.0))


def _polygon(*corners: complex) -> Points:
    return np.array(corners, dtype=np.complex128)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return _polygon(left + 1j * top, right + 1j * top, right + 1j * bottom, left + 1j * bottom)


def _face(up: float) -> list[Polygon]:
    """A head with two eyes and a mouth; `up` = 1 the right way up, -1 upside down."""
    return [
        (_circle(0, 0, 1), 255),
        (_circle(-0.4, -0.35 * up, 0.21), 0),
        (_circle(0.4, -0.35 * up, 0.21), 0),
        (_box(-0.5, 0.45 * up - 0.13, 0.5, 0.45 * up + 0.13), 0),
    ]


def _heart() -> Points:
    t = 2 * np.pi * np.arange(40) / 40
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.asarray(np.sin(t) ** 3 - 1j * (y + 2.5) / 16)


def _arrow(up: float) -> Points:
    """An arrow that points up (`up` = 1) or down (-1)."""
    side = np.array([1j, 0.3 + 1j, 0.3 - 0.1j, 0.85 - 0.1j, -1j])
    points = np.concatenate([side, -side[-2:0:-1].conj()])
    return np.asarray(points.real + 1j * up * points.imag)


_SHAPES: dict[str, list[Polygon]] = {
    "arrow-down": [(_arrow(-1), 255)],
    "arrow-up": [(_arrow(1), 255)],
    "bars": [(_box(-0.9, y - 0.2, 0.9, y + 0.2), 255) for y in (-0.7, 0, 0.7)],
    "crescent": [(_circle(0, 0, 1), 255), (_circle(0.5, 0, 0.8), 0)],
    "cross": [(_box(-1, -0.3, 1, 0.3), 255), (_box(-0.3, -1, 0.3, 1), 255)],
    "diamond": [(_regular(4), 255)],
    "discs-beside": [(_circle(-0.52, 0, 0.47), 255), (_circle(0.52, 0, 0.47), 255)],
    "discs-stacked": [(_circle(0, -0.52, 0.47), 255), (_circle(0, 0.52, 0.47), 255)],
    "face": _face(1),
    "face-inverted": _face(-1),
    "frame": [(_box(-0.8, -0.8, 0.8, 0.8), 255), (_box(-0.45, -0.45, 0.45, 0.45), 0)],
    "heart": [(_heart(), 255)],
    "hourglass": [(_polygon(-0.8 - 1j, 0.8 - 1j, -0.8 + 1j, 0.8 + 1j), 255)],
    "ring": [(_circle(0, 0, 0.95), 255), (_circle(0, 0, 0.55), 0)],
    "star": [(_regular(10, 0.42), 255)],
    "triangle": [(_regular(3), 255)],
}

CLASSES: tuple[str, ...] = tuple(sorted(_SHAPES))  # a label is an index into it


def _xy(points: Points) -> list[tuple[float, float]]:
    return list(zip(points.real.tolist(), points.imag.tolist(), strict=True))


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A smooth random blend of colours, `size` = (width, height) in pixels."""
    base = rng.uniform(10, 90, 3)
    grid = np.clip(base + rng.normal(0, 32, (3, 4, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(grid).resize(size, Image.Resampling.BILINEAR)


def _scatter(rng: np.random.Generator, image: Image.Image, short: float, number: tuple[int, int]) -> None:
    """Draws small shapes (irregular polygons, ellipses, strokes) in random dark colours on `image`.

    `short` is its shorter side in pixels; `number` is the smallest and the largest number of shapes.
    """
    pen = ImageDraw.Draw(image)
    for kind in rng.integers(0, 3, rng.integers(*number, endpoint=True)):
        centre = complex(rng.uniform(0, image.width), rng.uniform(0, image.height))
        radius = short * rng.uniform(*SCRAP_RADIUS)
        colour = tuple(int(c) for c in rng.integers(0, 130, 3))
        if kind == 0:
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            pen.polygon(_xy(centre + radius * np.exp(1j * angles)), fill=colour)
        elif kind == 1:
            rx, ry = radius * rng.uniform(0.4, 1.0, 2)
            box = (centre.real - rx, centre.imag - ry, centre.real + rx, centre.imag + ry)
            pen.ellipse(box, fill=colour)
        else:
            reach = 2 * radius * np.exp(1j * rng.uniform(0, 2 * np.pi))
            ends = np.array([centre - reach, centre + reach])
            pen.line(_xy(ends), fill=colour, width=round(short * rng.uniform(0.01, 0.04)) + 1)


def _object_colour(rng: np.random.Generator, background_luma: float) -> tuple[int, ...]:
    """A random colour at least `MIN_CONTRAST` brighter than the background."""
    while True:
        colour = rng.integers(0, 256, 3)
        if float(colour @ _LUMA) - background_luma >= MIN_CONTRAST:
            return tuple(int(c) for c in colour)


def _mask(rng: np.random.Generator, parts: list[Polygon], size: tuple[int, int], short: float) -> Image.Image:
    """The object's mask: its parts at a random size, tilt, stretch and place, wholly inside `size`."""
    radius = short * rng.uniform(*OBJECT_RADIUS)
    turn = radius * np.exp(1j * rng.uniform(-MAX_TILT, MAX_TILT))
    room = SPREAD * (np.array(size) / 2 - radius)
    centre = complex(*(np.array(size) / 2 + rng.uniform(-room, room)))
    mask = Image.new("L", size)
    pen = ImageDraw.Draw(mask)
    stretch = MAX_STRETCH ** rng.uniform(-1, 1)
    for points, ink in parts:
        stretched = points.real * stretch + 1j * points.imag / stretch
        pen.polygon(_xy(centre + turn * stretched), fill=ink)
    return mask


def _size(rng: np.random.Generator) -> tuple[int, int]:
    """A random (width, height) in pixels, upright or lying."""
    short = int(rng.integers(*SHORT_SIDE, endpoint=True))
    long = round(short * rng.uniform(1.0, MAX_ASPECT))
    return (short, long) if rng.random() < 0.5 else (long, short)


def draw(seed: int, split: str, index: int) -> tuple[Image.Image, int]:
    """Image `index` of `split` (RGB) and its label; the same on every machine and call."""
    key = np.array([seed, crc32(f"{DRAWING} {split}".encode()) << 32 | index], dtype=np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key))
    label = index % len(CLASSES)
    width, height = _size(rng)
    size = (width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    image = _background(rng, size)
    luma = float(np.asarray(image.resize((1, 1), Image.Resampling.BOX))[0, 0] @ _LUMA)
    _scatter(rng, image, min(size), SCRAPS)
    colour = _object_colour(rng, luma)
    image.paste(colour, mask=_mask(rng, _SHAPES[CLASSES[label]], size, min(size)))
    _scatter(rng, image, min(size), COVERS)
    pixels = np.array(image.reduce(_SUPERSAMPLING), dtype=np.float32)
    pixels += NOISE * rng.standard_normal((height, width, 1), dtype=np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), label


def example(seed: int, split: str, index: int) -> tuple[str, bytes, int]:
    """Image `index` of `split` as (key, JPEG, label); the classes come in turn."""
    image, label = draw(seed, split, index)
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return f"{split}-{index:05d}-{CLASSES[label]}.jpg", jpeg.getvalue(), label


class DemoSource(Source):
    """The generated data set of `vggrepro prepare demo`."""

    name = "demo"
    classes = CLASSES

    def __init__(self, seed: int, train: int = 4800, val: int = 1200, *, val_only: bool = False) -> None:
        self.seed = seed
        self.val_only = val_only
        self.counts = {"val": val} if val_only else {"train": train, "val": val}
        self.description = f"demo, seed {seed}"

    def contents(self) -> str:
        return digest([*self.counts.items(), ("drawing", DRAWING)])

    def count(self, split: str) -> int:
        return self.counts.get(split, 0)

    def examples(self, split: str, start: int) -> Iterator[Example]:
        for index in range(start, self.count(split)):
            key, data, label = example(self.seed, split, index)
            yield Example(key, data, label, f"demo image {key}")
