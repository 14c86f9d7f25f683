"""Images in folders and tars, listed in arrays: a million names take some 50 MB, a million paths a gigabyte."""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np

from vggrepro.data.sources.archives import Members
from vggrepro.data.sources.base import IMAGE_SUFFIXES, TRAIN_NAMES, VAL_NAMES, Example, LeftOut, Source, is_hidden
from vggrepro.errors import InputError

SIZES = 50_000  # file sizes that are looked up at most to tell a changed split: a minute on a slow network disk
OPEN_TARS = 8

_SPLIT_NAMES = {"train": TRAIN_NAMES, "val": VAL_NAMES, "test": ("test",)}


def split_folder(folder: Path, split: str) -> Path | None:
    """The folder of a split, by any of its names in any case: `Train/` is Windows's habit."""
    names = _SPLIT_NAMES[split]
    with os.scandir(folder) as entries:
        found = sorted((entry.name for entry in entries if entry.name.lower() in names), reverse=True)
    ranked = sorted(found, key=lambda name: names.index(name.lower()))  # of one name, `train` before `Train`
    return next((folder / name for name in ranked if (folder / name).is_dir()), None)


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder by name, without hidden ones and a system's own."""
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name) and path.is_dir())


def has_image_suffix(name: str) -> bool:
    """Whether a name ends as an image's."""
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES


def is_image(name: str) -> bool:
    """Whether a file name, maybe after folders, has an image's suffix and is not hidden, as macOS's `._x.jpg` are."""
    return not is_hidden(name.rpartition("/")[2]) and has_image_suffix(name.rpartition("/")[2])


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


def image_files(folder: Path, left: LeftOut, deep: bool = True) -> Files:
    """The image files of a folder and, if `deep`, of those in it; others are counted in `left`.

    Links to folders are followed, each folder once, so that no circle is without end.

    Raises:
        InputError: a folder cannot be read.
    """
    names: list[bytes] = []
    try:
        seen = {_identity(place) for place in (folder, *folder.resolve().parents)}  # a link to those is a circle
        places = [(folder, "")]
        while places:
            links: list[tuple[Path, str]] = []
            for place, prefix in places:
                links += _scan(place, prefix, names, left, seen, deep)
            places = [link for link in sorted(links) if _is_new(link[0], seen)]
    except OSError as error:
        raise _unreadable(Path(error.filename or folder), error) from None
    return Files(folder, np.array(sorted(names), dtype=np.bytes_))


def _scan(
    place: Path, prefix: str, names: list[bytes], left: LeftOut, seen: set[tuple[int, int]], deep: bool
) -> list[tuple[Path, str]]:
    """Adds the image files of a folder and its folders to `names`; returns the links to folders, with their prefixes.

    Links are followed after all else, so that a file's name does not depend on the order of a listing.
    """
    folders: list[tuple[Path, str]] = []
    links: list[tuple[Path, str]] = []
    with os.scandir(place) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                left.hidden += 1
            elif entry.is_dir(follow_symlinks=False):
                folders.append((place / entry.name, f"{prefix}{entry.name}/"))
            elif has_image_suffix(entry.name):  # a link of this name is not looked up: there may be a million
                names.append(os.fsencode(prefix + entry.name))
            elif entry.is_symlink() and entry.is_dir():
                links.append((place / entry.name, f"{prefix}{entry.name}/"))
            else:
                left.suffixes[Path(entry.name).suffix or "no suffix"] += 1
    if not deep:
        return []
    for inner, longer in folders:
        if _is_new(inner, seen):
            links += _scan(inner, longer, names, left, seen, deep)
    return links


def _identity(path: Path) -> tuple[int, int]:
    """What tells whether two paths lead to one folder."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_new(path: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder is not in `seen`; adds it."""
    known = len(seen)
    seen.add(_identity(path))
    return len(seen) > known


def image_members(held: Members, left: LeftOut) -> Members:
    """The image members of a tar, sorted by name, without the folders in their names; others are counted in `left`.

    Raises:
        InputError: a name comes twice.
    """
    rows = []
    for row in range(len(held)):
        name = held.name(row).rpartition("/")[2]
        if is_hidden(name):
            left.hidden += 1
        elif has_image_suffix(name):
            rows.append(row)
        else:
            left.suffixes[Path(name).suffix or "no suffix"] += 1
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


class Listing:
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


class ListedSource(Source):
    """A source whose splits are listings."""

    @abstractmethod
    def _list(self) -> dict[str, Listing]:
        """The images of each split; counts in `_left` what is not among them."""

    @cached_property
    def _images(self) -> dict[str, Listing]:
        return self._list()

    @cached_property
    def _left(self) -> LeftOut:
        return LeftOut()

    def count(self, split: str) -> int:
        return len(self._images.get(split, ()))

    def left_out(self) -> dict[str, int]:
        return self._left.reasons()

    def examples(self, split: str, start: int) -> Iterator[Example]:
        return self._images[split].examples(start)


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"prepare: {path} cannot be read ({error.strerror}); mend or remove it")
