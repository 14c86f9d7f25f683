"""Images in folders and tars, listed in arrays: a million names take some 50 MB, a million paths a gigabyte."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from vggrepro.data.sources.archives import Members
from vggrepro.data.sources.base import IMAGE_SUFFIXES, TRAIN_NAMES, VAL_NAMES, Example
from vggrepro.errors import InputError

SIZES = 50_000  # file sizes that are looked up at most to tell a changed split: a minute on a slow network disk
OPEN_TARS = 8

_SPLIT_NAMES = {"train": TRAIN_NAMES, "val": VAL_NAMES, "test": ("test",)}


def split_folder(folder: Path, split: str) -> Path | None:
    """The folder of a split, by any of its names."""
    return next((folder / name for name in _SPLIT_NAMES[split] if (folder / name).is_dir()), None)


def is_image(name: str) -> bool:
    """Whether a file name has an image's suffix and is not hidden, as macOS's `._x.jpg` are."""
    base = name.rpartition("/")[2]
    return not base.startswith(".") and base[base.rfind(".") :].lower() in IMAGE_SUFFIXES


@dataclass(frozen=True, slots=True)
class Files:
    """Image files of a folder."""

    folder: Path
    names: np.ndarray  # (n,) bytes as the file system has them, relative to `folder`, sorted

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        return bytes(self.names[row]).decode("utf-8", "backslashreplace")

    def path(self, row: int) -> Path:
        return self.folder / os.fsdecode(bytes(self.names[row]))

    def read(self, row: int) -> bytes:
        """A file's bytes.

        Raises:
            InputError: it cannot be read, such as a link to nowhere.
        """
        try:
            return self.path(row).read_bytes()
        except OSError as error:
            raise _unreadable(self.path(row), error) from None

    def digest(self, step: int) -> str:
        """Hash of all names and the sizes of every `step`-th file."""
        found = hashlib.sha256(b"/".join(self.names.tolist()))
        for row in range(0, len(self), step):
            try:
                found.update(b"/%d" % self.path(row).stat().st_size)
            except OSError as error:
                raise _unreadable(self.path(row), error) from None
        return found.hexdigest()

    def select(self, rows: np.ndarray) -> Files:
        """The files at these positions, or where a mask is true."""
        return Files(self.folder, self.names[rows])


def image_files(folder: Path, skipped: Counter[str] | None = None, deep: bool = True) -> Files:
    """The image files of a folder and, if `deep`, of those in it; others are counted in `skipped` by their suffix.

    Raises:
        InputError: a folder cannot be read.
    """
    names: list[bytes] = []
    others = Counter[str]() if skipped is None else skipped

    def scan(place: Path, prefix: str) -> None:
        with os.scandir(place) as entries:
            for entry in entries:
                if is_image(entry.name):
                    names.append(os.fsencode(prefix + entry.name))
                elif entry.name.startswith("."):  # .DS_Store, ._x.jpg
                    continue
                elif not entry.is_dir():
                    others[Path(entry.name).suffix or "no suffix"] += 1
                elif deep and not entry.is_symlink():  # which may lead round in a circle
                    scan(place / entry.name, f"{prefix}{entry.name}/")

    try:
        scan(folder, "")
    except OSError as error:
        raise _unreadable(Path(error.filename or folder), error) from None
    return Files(folder, np.array(sorted(names), dtype=np.bytes_))


def image_members(held: Members) -> Members:
    """The image members of a tar, sorted by name, without the folders in their names.

    Raises:
        InputError: a name comes twice.
    """
    rows = [row for row in range(len(held)) if is_image(held.name(row))]
    bases = np.array([bytes(held.names[row]).rpartition(b"/")[2] for row in rows], dtype=np.bytes_)
    found = held.select(np.array(rows, np.int64))
    images = Members(held.path, bases, found.offsets, found.sizes).select(np.argsort(bases, kind="stable"))
    if len(twice := np.flatnonzero(images.names[1:] == images.names[:-1])):
        raise InputError(f"prepare: {held.path}: image '{images.name(twice[0])}' is there twice; download it again")
    return images


@dataclass(frozen=True, slots=True)
class Part:
    """Images of one place, with their labels; their keys are their names after `prefix`."""

    images: Files | Members
    labels: np.ndarray  # (n,) int32
    prefix: str = ""

    @classmethod
    def of(cls, images: Files | Members, label: int, prefix: str = "") -> Part:
        """Images that share a label."""
        return cls(images, np.full(len(images), label, np.int32), prefix)

    def __len__(self) -> int:
        return len(self.labels)

    def key(self, row: int) -> str:
        return self.prefix + self.images.name(row)


class Images:
    """A split's images: those of `parts` one after another or, `by_name`, all of them sorted by name."""

    def __init__(self, parts: Iterable[Part], by_name: bool = False) -> None:
        self.parts = [part for part in parts if len(part)]
        self._ends = np.cumsum([len(part) for part in self.parts])
        self._order: np.ndarray | None = None
        if by_name and self.parts:
            self._order = np.argsort(np.concatenate([part.images.names for part in self.parts]), kind="stable")

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.parts else 0

    def at(self, position: int) -> tuple[Part, int]:
        """The part of an image and its row there."""
        index = position if self._order is None else int(self._order[position])
        number = int(np.searchsorted(self._ends, index, side="right"))
        part = self.parts[number]
        return part, index - int(self._ends[number]) + len(part)

    def examples(self, start: int) -> Iterator[Example]:
        """The images from a position on, each read when its turn comes; tars are opened once."""
        with ExitStack() as stack:
            tars: dict[Path, IO[bytes]] = {}
            for position in range(start, len(self)):
                part, row = self.at(position)
                key, label, images = part.key(row), int(part.labels[row]), part.images
                if isinstance(images, Files):
                    yield Example(key, images.read(row), label, str(images.path(row)))
                    continue
                if images.path not in tars:
                    if len(tars) == OPEN_TARS:  # a tar for each of 1000 classes
                        stack.close()
                        tars.clear()
                    try:
                        tars[images.path] = stack.enter_context(images.path.open("rb"))
                    except OSError as error:
                        raise _unreadable(images.path, error) from None
                yield Example(key, images.read(tars[images.path], row), label, f"{images.path} member '{key}'")

    def digests(self) -> Iterator[tuple[str, int]]:
        """What `Source.contents` is made of: sizes of tars, names in folders and, up to `SIZES`, their sizes."""
        step = -(-len(self) // SIZES)
        for part in self.parts:
            if isinstance(part.images, Files):
                yield f"{part.prefix}{part.images.digest(step)}", len(part)
            else:
                yield part.images.path.name, part.images.path.stat().st_size


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"prepare: {path} cannot be read ({error.strerror}); mend or remove it")
