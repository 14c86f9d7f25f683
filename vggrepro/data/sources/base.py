"""What every source of images gives to `prepare`, and functions that sources share."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from vggrepro.errors import InputError
from vggrepro.system.files import LFS_POINTER, is_lfs_pointer

IMAGE_SUFFIXES = {".jpeg", ".jpg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}
TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("validation", "valid", "val")
# Files that file managers, archives and network disks put beside images, in lower case.
SYSTEM_NAMES = {"@eadir", "#recycle", "$recycle.bin", "__macosx", "desktop.ini", "lost+found", "thumbs.db"}
SYSTEM_NAMES |= {"system volume information"}
VAL_ONLY = "give --val-only, which is enough to evaluate nets trained elsewhere"  # where training images are missing


@dataclass(frozen=True, slots=True)
class Example:
    """An image as the source holds it: unique key in its split, original bytes, class index, where it is."""

    key: str
    data: bytes
    label: int  # -1: not known (test images)
    place: str  # file, or file and row: for messages


@dataclass
class LeftOut:
    """Counts what a source holds and does not give, by the reason."""

    hidden: int = 0  # files and folders; also a system's own
    suffixes: Counter[str] = field(default_factory=Counter)  # of files that are no images
    others: Counter[str] = field(default_factory=Counter)  # by a reason in words

    def reasons(self) -> dict[str, int]:
        """The reasons, as words that follow a number, and how many files each."""
        counts = {"hidden or a system's own": self.hidden}
        if self.suffixes:
            kinds = some([f"{count:,} {suffix}" for suffix, count in self.suffixes.most_common()])
            counts[f"without an image's suffix ({kinds})"] = self.suffixes.total()
        return {why: count for why, count in (counts | self.others).items() if count}


class Source(ABC):
    """A class list and, for each split, a sequence of examples.

    Sources know file layouts and nothing else; `prepare` decodes, measures and stores. An example is read when its
    turn comes, so memory does not grow with the images, and a split can be entered at any position.
    """

    layout: ClassVar[str] = ""  # for the list of known layouts

    name: str  # of the data set, as in tables/<name>/
    description: str  # identifies the source when a preparation is resumed
    classes: tuple[str, ...]
    words: tuple[str, ...] = ()  # a readable name for each class, where the source has one beside its own name
    devkit_ids: tuple[int, ...] = ()  # each class's number in ILSVRC submissions, where it has one
    subset: str = ""  # why this is only a part of the data set that its name says
    val_only: bool = False  # --val-only: only the split "val" is read, even if there are others

    @property
    def required(self) -> tuple[str, ...]:
        """The splits that must have images; the first is the one for mean and covariance."""
        return ("val",) if self.val_only else ("train", "val")

    @classmethod
    def recognises(cls, folder: Path, val_only: bool = False) -> bool:
        """Whether a folder has this layout, with or without training images; it reads only names."""
        return False

    @abstractmethod
    def contents(self) -> str:
        """Hash of its files' names and sizes; it tells whether the source has changed."""

    @abstractmethod
    def count(self, split: str) -> int:
        """Number of examples of split "train", "val" or "test" (0: no such split)."""

    @abstractmethod
    def examples(self, split: str, start: int) -> Iterator[Example]:
        """The split's examples from position `start` on, always in the same order."""

    def left_out(self) -> dict[str, int]:
        """How many files it holds and does not give, by the reason; complete when all splits were counted."""
        return {}

    def checksums(self) -> list[tuple[Path, str]]:
        """The downloaded files whose MD5 sums are published, with these sums."""
        return []


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, as macOS's `._x.jpg`, or belongs to a system, as `@eaDir`."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def refuse_lfs_pointer(path: Path) -> None:
    """Raises an InputError if a file is only a pointer of Git LFS; called for files that cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return
    if is_lfs_pointer(head):
        raise InputError(f"prepare: {path} is {LFS_POINTER}")


def digest(files: Iterable[tuple[str, int]]) -> str:
    """Hash of (name, size) pairs in any order."""
    return hashlib.sha256(json.dumps(sorted(files)).encode()).hexdigest()


def some(names: list[str], most: int = 5) -> str:
    """The first few names, for messages."""
    if not names:
        return "none"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
