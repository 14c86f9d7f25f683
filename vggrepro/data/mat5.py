"""MATLAB 5 files (`.mat`, as MATLAB's `save -v7` and scipy write them): numbers, texts, cells and structs.

scipy's reader crashes the process on some damaged files. Here every length is compared with what is there first.
"""

from __future__ import annotations

import math
import mmap
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 1 << 22  # bytes unpacked at a time
HEADER = 128  # bytes before the first element
MATRIX, COMPRESSED = 14, 15  # types of elements
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
CELL, STRUCT, CHAR, NUMERIC = 1, 2, 4, range(6, 16)  # classes of matrices
COMPLEX = 0x800
MAX_DEPTH, MAX_DIMENSIONS, MAX_NAME = 16, 8, 64  # MATLAB's names have 63 characters
MAX_ELEMENTS = 1_000_000  # of one file; each becomes objects many times its size


class MatError(ValueError):
    """The bytes are no whole MATLAB 5 file; the message says why."""


@dataclass(frozen=True, slots=True)
class Element:
    """A part of a file: its type and bytes."""

    kind: int
    data: memoryview


def load(path: Path, most: int) -> dict[str, Any]:
    """The variables of a file by name; at most `most` bytes are unpacked."""
    with open(path, "rb") as file:
        return parse(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), most)


def parse(data: memoryview, most: int) -> dict[str, Any]:
    """The variables of a file's bytes by name.

    Numbers are arrays of MATLAB's shape, as stored; texts are str; cells are lists, column by column; a struct is
    a dict, an array of them a list of dicts. Sparse matrices, objects and functions are None.

    Raises:
        MatError: cut short, lengths that contradict each other, or more than `most` bytes when unpacked.
    """
    reader = _Reader("big" if bytes(data[126:HEADER]) == b"MI" else "little", most)
    result: dict[str, Any] = {}
    at = HEADER
    while at < len(data):
        element, at = reader.element(data, at)
        if element.kind == COMPRESSED:
            element, _ = reader.element(reader.unpack(element.data), 0)
        if element.kind == MATRIX:
            name, value = reader.matrix(element.data, 0)
            result[name] = value
    return result


class _Reader:
    """Reads elements of one byte order, and counts the elements and the unpacked bytes."""

    def __init__(self, order: str, most: int) -> None:
        self.big, self.most = order == "big", most
        self.unpacked = self.elements = 0

    def _numbers(self, data: memoryview, kind: str) -> np.ndarray:
        size = int(kind[1])
        if len(data) % size:
            raise MatError(f"{len(data)} bytes of numbers of {size} bytes each")
        return np.frombuffer(data, (">" if self.big else "<") + kind)

    def _words(self, data: memoryview) -> list[int]:
        return self._numbers(data, "u4").tolist()

    def element(self, data: memoryview, at: int) -> tuple[Element, int]:
        """The element at `at` and where the next one begins; those of up to 4 bytes have a short form."""
        if len(data) - at < 8:
            raise MatError("it is cut short")
        self.elements += 1
        if self.elements > MAX_ELEMENTS:
            raise MatError(f"more than {MAX_ELEMENTS:,} elements")
        first, size = self._words(data[at : at + 8])
        if first >> 16:
            kind, size = first & 0xFFFF, first >> 16
            if size > 4:
                raise MatError(f"a short element of {size} bytes")
            return Element(kind, data[at + 4 : at + 4 + size]), at + 8
        at += 8
        if size > len(data) - at:
            raise MatError(f"it is cut short: {size:,} bytes are announced where {len(data) - at:,} are left")
        padding = 0 if first == COMPRESSED else -size % 8
        return Element(first, data[at : at + size]), min(at + size + padding, len(data))

    def unpack(self, data: memoryview) -> memoryview:
        """A compressed element's bytes."""
        unpacker, result = zlib.decompressobj(), bytearray()
        try:
            for start in range(0, len(data), CHUNK):
                piece: bytes | memoryview = data[start : start + CHUNK]
                while piece:
                    result += unpacker.decompress(piece, CHUNK)
                    piece = unpacker.unconsumed_tail
                    if self.unpacked + len(result) > self.most:
                        raise MatError(f"it unpacks to more than {self.most:,} bytes")
        except zlib.error as error:
            raise MatError(str(error)) from None
        if not unpacker.eof:
            raise MatError("it is cut short")
        self.unpacked += len(result)
        return memoryview(result)

    def matrix(self, data: memoryview, depth: int) -> tuple[str, Any]:
        """A matrix's name and value."""
        if not data:
            return "", np.empty((0, 0))
        if depth > MAX_DEPTH:
            raise MatError(f"cells and structs nested more than {MAX_DEPTH} deep")
        flags, at = self.element(data, 0)
        dims, at = self.element(data, at)
        name, at = self.element(data, at)
        words = self._words(flags.data)
        shape = tuple(self._words(dims.data))
        if not words or not 2 <= len(shape) <= MAX_DIMENSIONS:
            raise MatError("a matrix without flags or dimensions")
        kind, count = words[0] & 0xFF, math.prod(shape)
        value: Any = None
        if kind in NUMERIC and not words[0] & COMPLEX:
            value = self._array(self.element(data, at)[0], shape, count)
        elif kind == CHAR:
            value = self._text(self.element(data, at)[0])
        elif kind == CELL:
            value = self._values(data, at, count, depth)[0]
        elif kind == STRUCT:
            value = self._structs(data, at, count, depth)
        return bytes(name.data).decode("latin-1"), value

    def _array(self, element: Element, shape: tuple[int, ...], count: int) -> np.ndarray:
        if element.kind not in NUMBERS:
            raise MatError(f"numbers of type {element.kind}")
        values = self._numbers(element.data, NUMBERS[element.kind])
        if len(values) != count:
            raise MatError(f"{len(values):,} numbers for a matrix of {' × '.join(map(str, shape))}")
        return values.reshape(shape, order="F")

    def _text(self, element: Element) -> str:
        encoding = TEXTS.get(element.kind, "latin-1")
        if encoding in ("utf-16", "utf-32"):
            encoding += "-be" if self.big else "-le"
        return bytes(element.data).decode(encoding, "replace")

    def _values(self, data: memoryview, at: int, count: int, depth: int) -> tuple[list[Any], int]:
        """`count` matrices, and where they end."""
        if count > (len(data) - at) // 8:
            raise MatError(f"a cell or struct of {count:,} values in {len(data) - at:,} bytes")
        values = []
        for _ in range(count):
            element, at = self.element(data, at)
            if element.kind != MATRIX:
                raise MatError(f"an element of type {element.kind} in a cell or struct")
            values.append(self.matrix(element.data, depth + 1)[1])
        return values, at

    def _structs(self, data: memoryview, at: int, count: int, depth: int) -> Any:
        length, at = self.element(data, at)
        names, at = self.element(data, at)
        (size,) = self._words(length.data) if len(length.data) == 4 else (0,)
        if not 0 < size <= MAX_NAME or len(names.data) % size:
            raise MatError("a struct without names of fields")
        fields = [
            bytes(names.data[start : start + size]).split(b"\0")[0].decode("latin-1")
            for start in range(0, len(names.data), size)
        ]
        values, _ = self._values(data, at, count * len(fields), depth)
        step = max(1, len(fields))
        records = [
            dict(zip(fields, values[start : start + step], strict=True)) for start in range(0, len(values), step)
        ]
        return records[0] if count == 1 and records else records
