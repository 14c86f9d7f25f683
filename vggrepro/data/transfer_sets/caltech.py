"""Caltech-101 and Caltech-256 in their official folders: one folder for each class.

The background class (`BACKGROUND_Google`, `257.clutter`) counts as a class, as in the paper: 102 and 257 classes. Files
that are no images (`BACKGROUND_Google/tmp`, `198.spider/RENAME2`) and folders in class folders (`056.dog/greg`) are
left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vggrepro.data.sources.listing import is_image
from vggrepro.data.transfer_sets.base import Picture, Pictures, TransferSet
from vggrepro.errors import InputError
from vggrepro.system.progress import say

FOLDERS = {"101_ObjectCategories": "caltech-101", "256_ObjectCategories": "caltech-256"}


def find(folder: Path) -> list[Path]:
    """The official folders that are there: `folder` itself or in it, also as torchvision's downloads have them."""
    if folder.name in FOLDERS and folder.is_dir():
        return [folder]
    places = [folder, folder / "caltech101", folder / "caltech256", folder / "caltech-101", folder / "caltech-256"]
    return [place / name for name in FOLDERS for place in places if (place / name).is_dir()]


def read(root: Path) -> TransferSet:
    """The images of an official folder, sorted by class, then by name; a key is `accordion/image_0001.jpg`.

    Raises:
        InputError: no two classes; a class without an image.
    """
    classes = tuple(sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] != "."))
    pictures: list[Picture] = []
    labels: list[int] = []
    stray = []
    for label, name in enumerate(classes):
        entries = sorted(path for path in (root / name).iterdir() if path.name[0] != ".")
        images = [path for path in entries if path.is_file() and is_image(path.name)]
        stray += [path.relative_to(root).as_posix() for path in entries if path not in images]
        if not images:
            raise InputError(f"{root / name} holds no image; download the data again or remove the folder")
        pictures += [Picture(f"{name}/{path.name}", path) for path in images]
        labels += [label] * len(images)
    if stray:
        say(f"{root}: left out of class folders, as no images: {len(stray)}, such as {stray[0]}")
    places = {"image": np.arange(len(pictures))}
    return TransferSet(FOLDERS[root.name], root, classes, {"image": Pictures(pictures)}, places, np.array(labels))
