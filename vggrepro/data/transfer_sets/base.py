"""What every transfer set provides: pictures to compute features of, and examples with their labels (Appendix B)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from vggrepro.data.images import BadImage, decode, size_of
from vggrepro.errors import InputError

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are outside


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file, or a box of it, under a name of its own in its set."""

    key: str
    path: Path
    box: Box | None = None


class Pictures:
    """Random access to pictures by position. Safe to share between threads."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def keys(self, start: int, stop: int) -> list[str]:
        return [picture.key for picture in self.pictures[start:stop]]

    def image(self, index: int) -> Image.Image:
        """The decoded RGB picture.

        Raises:
            InputError: the file cannot be read or decoded, or the box is outside of the image.
        """
        picture = self.pictures[index]
        try:
            image = decode(_read(picture.path))
        except BadImage as error:
            raise InputError(f"{picture.path} does not decode ({error}); download it again or remove it") from None
        if picture.box is None:
            return image
        left, top, right, bottom = picture.box
        box = max(0, left), max(0, top), min(image.width, right), min(image.height, bottom)
        if box[0] >= box[2] or box[1] >= box[3]:
            raise InputError(f"{picture.path}: the box of '{picture.key}' is outside of the image; mend its annotation")
        return image.crop(box)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the keys, the boxes and the bytes of the files: what features depend on.

        Raises:
            InputError: a file cannot be read or is no image.
        """
        return self._scanned[0]

    @property
    def widths(self) -> np.ndarray:
        """(n,) int64, in pixels."""
        return self._scanned[1][:, 0]

    @property
    def heights(self) -> np.ndarray:
        """(n,) int64, in pixels."""
        return self._scanned[1][:, 1]

    @cached_property
    def _scanned(self) -> tuple[str, np.ndarray]:
        """The fingerprint and the sizes, from one reading of all files."""
        found, sizes = hashlib.sha256(), []
        for picture in self.pictures:
            data = _read(picture.path)
            found.update(f"{picture.key}\0{picture.box}\0".encode())
            found.update(hashlib.sha256(data).digest())
            sizes.append(_size(picture, data))
        return found.hexdigest(), np.array(sizes, np.int64).reshape(-1, 2)


def _size(picture: Picture, data: bytes) -> tuple[int, int]:
    """Width and height from the file's header, or of the box."""
    if picture.box is not None:
        left, top, right, bottom = picture.box
        return max(1, right - left), max(1, bottom - top)
    try:
        return size_of(data)
    except BadImage as error:
        raise InputError(f"{picture.path} is no image ({error}); download it again or remove it") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); mend it or remove it") from None


@dataclass(frozen=True, slots=True, eq=False)
class TransferSet:
    """A data set that the features of trained nets are tested on.

    `pictures` has the whole images under "image" and, for actions, the boxes of persons under "box"; `places` has,
    under the same names, the position of each example's picture, (n,) int64. `labels` are (n,) int64 classes where an
    example has one class, or (n, K) int8 where it has any number of K: 1 yes, -1 no, 0 "difficult", which is left out.
    `train` is the published split, (n,) bool; None where splits are drawn at random. `scored` names the other part.
    """

    name: str
    folder: Path
    classes: tuple[str, ...]
    pictures: Mapping[str, Pictures]
    places: Mapping[str, np.ndarray]
    labels: np.ndarray
    train: np.ndarray | None = None
    scored: str = "test"

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise InputError(f"{self.folder} has {len(self.classes)} class; a classifier needs two or more")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labels_hash(self) -> str:
        """SHA-256 of the labels and of the published split: with the fingerprint, what results depend on."""
        parts = [np.ascontiguousarray(part).tobytes() for part in (self.labels, self.train) if part is not None]
        return hashlib.sha256(b"".join(parts)).hexdigest()
