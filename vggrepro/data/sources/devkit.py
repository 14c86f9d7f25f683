"""ILSVRC-2012's classes and the labels of its validation images, which are not in the images.

They come from the development kit or, in Kaggle's copy, which has none, from a CSV file and the package's own table.
"""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vggrepro.data import mat5, synsets
from vggrepro.data.sources.base import refuse_lfs_pointer
from vggrepro.errors import InputError

TAR = "ILSVRC2012_devkit_t12.tar.gz"
FOLDER = "ILSVRC2012_devkit_t12"
SOLUTION = "LOC_val_solution.csv"
META = "data/meta.mat"
TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
CLASSES = 1000
LARGEST = 64 << 20  # bytes of the unpacked devkit that are read at most; the true one has a tenth
LARGEST_FILE = 4 << 20  # bytes of each of its two files; the true ones have a twentieth


@dataclass(frozen=True, slots=True)
class Devkit:
    """The classes in the order of their indices, and the labels of the validation images."""

    path: Path | None  # where the labels are from; None: nothing was there, and `truth` is empty
    synsets: tuple[synsets.Synset, ...]
    truth: dict[int, int]  # class index by the number in the image's name


def find(folders: Iterable[Path]) -> Devkit:
    """Reads the devkit, packed or unpacked, or Kaggle's CSV, from the first folder that has one.

    Raises:
        InputError: it is damaged, or not that of ILSVRC-2012.
    """
    for folder in folders:
        if (path := folder / TAR).is_file():
            return _parse(path, *_packed(path))
        if (path := folder / FOLDER).is_dir():
            return _parse(path, _limited(path / META), _limited(path / TRUTH))
        if (path := folder / SOLUTION).is_file():
            known = tuple(synsets.table().values())
            return Devkit(path, known, _solution(path, known))
    return Devkit(None, tuple(synsets.table().values()), {})


def _packed(path: Path) -> tuple[bytes, bytes]:
    """`meta.mat` and the ground truth from the tar.gz; the number of bytes that are read is limited."""
    found: dict[str, bytes] = {}
    try:
        with gzip.open(path) as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise InputError(f"prepare: {path}: more than {LARGEST >> 20} MB when unpacked; download the devkit again")
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                name = "/".join(PurePosixPath(member.name).parts[-2:])
                if name in (META, TRUTH) and member.isreg() and member.size <= LARGEST_FILE:
                    content = tar.extractfile(member)
                    assert content is not None  # a regular file
                    found[name] = content.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        refuse_lfs_pointer(path)
        raise InputError(f"prepare: {path}: damaged devkit ({error}); download it again") from None
    if missing := [name for name in (META, TRUTH) if name not in found]:
        raise InputError(f"prepare: {path}: no {' and no '.join(missing)} in it; download the devkit again")
    return found[META], found[TRUTH]


def _limited(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"prepare: {path} cannot be read ({error.strerror}); unpack {TAR} again") from None
    refuse_lfs_pointer(path)
    if len(data) > LARGEST_FILE:
        raise InputError(f"prepare: {path}: more than {LARGEST_FILE >> 20} MB; unpack {TAR} again")
    return data


def _parse(path: Path, meta: bytes, truth: bytes) -> Devkit:
    leaves = _leaves(path, meta)
    index = {synset.id: label for label, synset in enumerate(leaves)}
    labels: dict[int, int] = {}
    for number, line in enumerate(truth.decode("latin-1").rstrip().splitlines(), 1):
        text = line.strip()
        if not text.isdecimal() or int(text[:9]) not in index:
            raise InputError(
                f"prepare: {path}: line {number} of {TRUTH} is '{text[:40]}', no class number from 1 to {CLASSES}; "
                "download the devkit again"
            )
        labels[number] = index[int(text[:9])]
    if not labels:
        raise InputError(f"prepare: {path}: {TRUTH} is empty; download the devkit again")
    return Devkit(path, leaves, labels)


def _leaves(path: Path, meta: bytes) -> tuple[synsets.Synset, ...]:
    """The synsets without children, sorted by wnid. Fields are found by their names, since their order varies."""
    try:
        rows = mat5.parse(memoryview(meta), LARGEST_FILE)["synsets"]
        rows = [rows] if isinstance(rows, dict) else rows
        leaves = [
            synsets.Synset(_number(row["ILSVRC2012_ID"]), str(row["WNID"]), str(row["words"]))
            for row in rows
            if _number(row["num_children"]) == 0
        ]
    except (mat5.MatError, KeyError, TypeError, ValueError, OverflowError) as error:
        refuse_lfs_pointer(path)
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"prepare: {path}: {META} is unreadable ({what}); download the devkit again") from None
    leaves.sort(key=lambda synset: synset.wnid)
    if sorted(synset.id for synset in leaves) != list(range(1, CLASSES + 1)):
        raise InputError(
            f"prepare: {path}: {META} has {len(leaves):,} synsets without children, not the {CLASSES} with the numbers "
            f"1 to {CLASSES}; take the devkit of ILSVRC-2012"
        )
    wrong = [synset.wnid for synset in leaves if not synsets.WNID.fullmatch(synset.wnid)]
    if wrong or len({synset.wnid for synset in leaves}) < CLASSES:
        what = f"'{wrong[0]}' is no wnid" if wrong else "a wnid comes twice"
        raise InputError(f"prepare: {path}: in {META} {what}; take the devkit of ILSVRC-2012")
    return tuple(leaves)


def _number(value: Any) -> int:
    """The number that a 1 × 1 matrix holds."""
    return int(np.asarray(value).item())


def _solution(path: Path, known: tuple[synsets.Synset, ...]) -> dict[int, int]:
    """Kaggle's `LOC_val_solution.csv`: an image's name, then its wnid and a box, for each object in it."""
    refuse_lfs_pointer(path)
    index = {synset.wnid: label for label, synset in enumerate(known)}
    labels: dict[int, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, row in enumerate(csv.reader(file), 1):
                if not row or row[0] == "ImageId":
                    continue
                number = synsets.val_number(row[0])
                wnid = next(iter(row[1].split()), "") if len(row) > 1 else ""
                if number is None or wnid not in index or number in labels:
                    raise InputError(
                        f"prepare: {path} line {line}: '{','.join(row)[:60]}' is not a further validation image with "
                        "its wnid; download the file again"
                    )
                labels[number] = index[wnid]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"prepare: {path} cannot be read ({error}); download it again") from None
    if not labels:
        raise InputError(f"prepare: {path} names no image; download it again")
    return labels
