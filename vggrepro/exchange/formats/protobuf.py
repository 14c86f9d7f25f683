"""Protobuf's wire format, read and written without a schema.

A message is read as numbered fields, whose values are numbers and slices of the file; nothing is copied.
Every length is compared with what is there before it is used, nesting and the number of fields are bounded, so that
any bytes at all end in fields or in `WireError`, in time proportional to the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

VARINT, FIXED64, LENGTH, GROUP, GROUP_END, FIXED32 = 0, 1, 2, 3, 4, 5
MAX_DEPTH = 64  # of groups within groups
MAX_FIELDS = 200_000  # of one file; repeated numbers in a row count as one
FIRST_RUN, LONGEST_RUN = 256, 1 << 20  # records compared at a time


class WireError(ValueError):
    """The bytes are no protobuf message; the error's text says why.

    `cut` is the number of the LENGTH field that announces more than there is, else None.
    """

    cut: int | None = None


@dataclass(slots=True)
class Budget:
    """Fields that may still be read, over all messages of a file."""

    left: int = MAX_FIELDS

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise WireError(f"more than {MAX_FIELDS:,} fields")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: its number, wire type and value.

    `value` is an int for VARINT, else the bytes: 4, 8, or those of a LENGTH field. A run of repeated fixed-size
    fields of one number is one field of type FIXED32 or FIXED64, with all its bytes; a GROUP's bytes are not kept.
    """

    number: int
    kind: int
    value: int | memoryview | np.ndarray


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """(value, where it ends) of the unsigned number of up to 64 bits at `at`; WireError if there is none."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise WireError("it is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise WireError("a number of more than 10 bytes")


def varints(data: memoryview, limit: int) -> list[int]:
    """The numbers of a packed field; more than `limit` are a WireError."""
    values, at = [], 0
    while at < len(data):
        value, at = varint(data, at)
        values.append(value)
        if len(values) > limit:
            raise WireError(f"more than {limit} dimensions")
    return values


def fields(data: memoryview, budget: Budget) -> Iterator[Field]:
    """The fields of a message, in the order of the file.

    Raises:
        WireError: no message, or one that is cut short.
    """
    at = 0
    while at < len(data):
        budget.spend()
        start = at
        number, kind, at = _tag(data, at)
        if kind == VARINT:
            value, at = varint(data, at)
            yield Field(number, kind, value)
        elif kind in (FIXED32, FIXED64):
            run, at = _run(data, start, at, 4 if kind == FIXED32 else 8)
            yield Field(number, kind, run)
        elif kind == LENGTH:
            size, at = varint(data, at)
            try:
                end = _step(data, at, size)
            except WireError as error:
                error.cut = number
                raise
            yield Field(number, kind, data[at:end])
            at = end
        elif kind == GROUP:
            at = _skip_group(data, at, number, budget)
            yield Field(number, kind, data[:0])
        else:
            raise WireError("the end of a group that did not begin")


def _tag(data: memoryview, at: int) -> tuple[int, int, int]:
    tag, at = varint(data, at)
    number, kind = tag >> 3, tag & 7
    if not 0 < number < 1 << 29:
        raise WireError(f"field number {number}")
    if kind > FIXED32:
        raise WireError(f"wire type {kind}")
    return number, kind, at


def _step(data: memoryview, at: int, size: int) -> int:
    if size > len(data) - at:
        raise WireError(f"it is cut short: {size:,} bytes are announced where {len(data) - at:,} are left")
    return at + size


def _run(data: memoryview, start: int, at: int, size: int) -> tuple[np.ndarray, int]:
    """The bytes of the fixed-size field whose tag is at `start` and of its direct repetitions, (n, size) uint8.

    Half a gigabyte of unpacked numbers has 10^8 fields, so that they are compared as arrays.
    """
    end = _step(data, at, size)
    tag = np.frombuffer(data[start:at], np.uint8)
    stride = len(tag) + size
    records = np.frombuffer(data[start:], np.uint8)
    records = records[: len(records) // stride * stride].reshape(-1, stride)
    count, length = 1, FIRST_RUN
    while count < len(records):
        same = (records[count : count + length, : len(tag)] == tag).all(1)
        alike = len(same) if same.all() else int(same.argmin())
        count += alike
        if alike < len(same):
            break
        length = min(2 * length, LONGEST_RUN)
    return records[:count, len(tag) :], end + (count - 1) * stride


def _skip_group(data: memoryview, at: int, number: int, budget: Budget) -> int:
    """The end of the group that began before `at`."""
    opened = [number]
    while opened:
        budget.spend()
        number, kind, at = _tag(data, at)
        if kind == VARINT:
            at = varint(data, at)[1]
        elif kind == LENGTH:
            size, at = varint(data, at)
            at = _step(data, at, size)
        elif kind == GROUP:
            opened.append(number)
            if len(opened) > MAX_DEPTH:
                raise WireError(f"groups nested more than {MAX_DEPTH} deep")
        elif kind == GROUP_END:
            if opened.pop() != number:
                raise WireError("a group that ends as another")
        else:
            at = _step(data, at, 4 if kind == FIXED32 else 8)
    return at


# Writing


def varint_bytes(value: int) -> bytes:
    """An unsigned number, seven bits in each byte, the lowest first."""
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])


def tag_bytes(number: int, length: int) -> bytes:
    """The bytes before the content of field `number`, which has `length` bytes."""
    return varint_bytes(number << 3 | LENGTH) + varint_bytes(length)


def field_bytes(number: int, content: bytes) -> bytes:
    """Field `number` with its tag and length."""
    return tag_bytes(number, len(content)) + content
