"""Small data sets in the official layouts of Caltech and VOC."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import photo
from PIL import Image

VOC_CLASSES = ("aeroplane", "bird", "cat")


def write_caltech(folder: Path, classes: int = 3, per_class: int = 8) -> Path:
    """`101_ObjectCategories/` with a background class and its stray file; returns its path."""
    root = folder / "101_ObjectCategories"
    for label in range(classes):
        place = root / ("BACKGROUND_Google" if label == 0 else f"class{label}")
        place.mkdir(parents=True)
        for number in range(1, per_class + 1):
            pixels = photo(label, 10 * label + number, 90, 70)
            Image.fromarray(pixels).save(place / f"image_{number:04}.jpg")
    (root / "BACKGROUND_Google" / "tmp").write_text("no image")
    return root


def write_voc(folder: Path, year: int = 2007, images: int = 12) -> Path:
    """`VOCdevkit/VOC<year>/`: the first half trainval, the rest test; every third label is "difficult" or not there."""
    root = folder / "VOCdevkit" / f"VOC{year}"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    names = [f"{number:06}" for number in range(images)]
    for number, name in enumerate(names):
        Image.fromarray(photo(number % 3, number, 90, 70)).save(root / "JPEGImages" / f"{name}.jpg")
    parts = {"trainval": names[: images // 2], "test": names[images // 2 :]}
    for part, members in parts.items():
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(members) + "\n")
        for label, kind in enumerate(VOC_CLASSES):
            lines = [f"{name} {voc_label(int(name), label):2}" for name in members]
            (root / "ImageSets" / "Main" / f"{kind}_{part}.txt").write_text("\n".join(lines) + "\n")
    return root


def voc_label(number: int, label: int) -> int:
    """1 for the class of the picture, 0 for one in seven other images, else -1."""
    return 1 if number % 3 == label else 0 if (number + label) % 7 == 0 else -1


def write_actions(root: Path, persons: dict[str, list[tuple[int, int, int, int]]]) -> None:
    """Action lists `running`, `walking` and `other` of train and val, and boxes (VOC's pixels) of persons by image."""
    place = root / "ImageSets" / "Action"
    place.mkdir(parents=True)
    for image, boxes in persons.items():
        objects = "".join(
            f"<object><name>person</name><bndbox><xmax>{right}</xmax><xmin>{left}.0</xmin><ymax>{bottom}</ymax>"
            f"<ymin>{top}</ymin></bndbox></object>"
            for left, top, right, bottom in boxes
        )
        (root / "Annotations" / f"{image}.xml").write_text(f"<annotation>{objects}</annotation>")
    rows = [(image, number) for image, boxes in persons.items() for number in range(1, len(boxes) + 1)]
    for place_of, part in enumerate(("train", "val")):
        chosen = rows[place_of::2]
        for turn, action in enumerate(("running", "walking", "other")):
            lines = [f"{image} {number} {1 if (row + turn) % 2 else -1}" for row, (image, number) in enumerate(chosen)]
            (place / f"{action}_{part}.txt").write_text("\n".join(lines) + "\n")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))
