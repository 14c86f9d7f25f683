"""Images read in place from uncompressed tar files, which are never unpacked.

A tar's headers are read once, from header to header; after that each image is one read at a known offset. Member
names serve as keys and suffixes only, never as paths.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from vggrepro.data.sources.base import refuse_lfs_pointer
from vggrepro.errors import InputError

LONGEST_NAME = 4096  # characters; file systems allow no more, and one long name would widen the array of all


@dataclass(frozen=True, slots=True)
class Members:
    """Regular files of a tar in its order, as arrays: a million of them take some 50 MB."""

    path: Path  # of the tar on disk
    names: np.ndarray  # (n,) bytes, UTF-8
    offsets: np.ndarray  # (n,) int64, of the contents in `path`
    sizes: np.ndarray  # (n,) int64, bytes

    def __len__(self) -> int:
        return len(self.names)

    def name(self, row: int) -> str:
        return bytes(self.names[row]).decode("utf-8", "backslashreplace")

    def read(self, file: IO[bytes], row: int) -> bytes:
        """A member's bytes; `file` is `path`, open.

        Raises:
            InputError: the file ends before the member does.
        """
        size = int(self.sizes[row])
        data = os.pread(file.fileno(), size, int(self.offsets[row]))
        if len(data) < size:
            raise InputError(f"prepare: {self.path}: cut off in member '{self.name(row)}'; download it again")
        return data

    def select(self, rows: np.ndarray) -> Members:
        """The members at these positions, or where a mask is true."""
        return Members(self.path, self.names[rows], self.offsets[rows], self.sizes[rows])


def members(path: Path) -> Members:
    """The regular files of a tar.

    Raises:
        InputError: not there, no uncompressed tar, or cut off.
    """
    try:
        with path.open("rb") as file:
            return _scan(file, path, 0, str(path))
    except OSError as error:
        raise InputError(f"prepare: {path} cannot be read ({error.strerror}); mend or remove it") from None


def nested(path: Path) -> Iterator[tuple[str, Members]]:
    """The tars in a tar, in its order: each one's name and regular files, at offsets in the outer file.

    Raises:
        InputError: as `members`, naming the inner tar if it is at fault.
    """
    outer = members(path)
    with path.open("rb") as file:
        for row in range(len(outer)):
            name = outer.name(row)
            if name.endswith(".tar") and not name.rpartition("/")[2].startswith("."):  # macOS's `._x.tar` is no tar
                window = _Window(file, int(outer.offsets[row]), int(outer.sizes[row]))
                yield name, _scan(window, path, int(outer.offsets[row]), f"{path}: inner tar '{name}'")


def _scan(file: IO[bytes] | _Window, path: Path, base: int, place: str) -> Members:
    names: list[bytes] = []
    offsets: list[int] = []
    sizes: list[int] = []
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload]
            while (member := tar.next()) is not None:
                tar.members.clear()  # tarfile would keep every header
                if member.size < 0 or len(member.name) > LONGEST_NAME:
                    raise tarfile.ReadError("a header is garbled")
                if member.isreg() and not member.issparse():
                    names.append(member.name.encode("utf-8", "surrogateescape"))
                    offsets.append(base + member.offset_data)
                    sizes.append(member.size)
        end = file.seek(0, os.SEEK_END)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:  # tarfile's, of garbled headers
        refuse_lfs_pointer(path)
        file.seek(0)
        if file.read(2) == b"\x1f\x8b":
            raise InputError(f"prepare: {place}: is gzip-compressed; gunzip it") from None
        raise InputError(f"prepare: {place}: damaged or no uncompressed tar ({error}); download it again") from None
    # A block of zeros follows the last member; without it the tar was cut at a header, which tarfile lets pass.
    if offsets and offsets[-1] - base + _whole_blocks(sizes[-1]) + tarfile.BLOCKSIZE > end:
        last = names[-1].decode("utf-8", "backslashreplace")
        raise InputError(f"prepare: {place}: cut off in or after member '{last}'; download it again")
    return Members(path, np.array(names, dtype=np.bytes_), np.array(offsets, np.int64), np.array(sizes, np.int64))


def _whole_blocks(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


class _Window:
    """A part of an open file, which is read like a file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self.file, self.start, self.size, self.position = file, start, size, 0

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        return self.position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self.position)
        data = os.pread(self.file.fileno(), left if size < 0 else min(size, left), self.start + self.position)
        self.position += len(data)
        return data
