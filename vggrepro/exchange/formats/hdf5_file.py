"""Opens HDF5 files of unknown origin and lists their contents; h5py's errors become one line."""

from __future__ import annotations

import io
import mmap
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vggrepro.errors import InputError
from vggrepro.exchange.formats.base import MAX_BYTES, WeightsFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py

MAX_OBJECTS = 20_000  # of one file
WEIGHTS = "model.weights.h5"  # in a .keras file
HEAP = b"GCOL\x01\0\0\0"  # a global heap's first bytes
# What h5py and zipfile raise for damaged files
DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    EOFError,
    OverflowError,
    zlib.error,
    zipfile.BadZipFile,
)


@contextmanager
def opened(source: WeightsFile) -> Iterator[h5py.File]:
    """The HDF5 file, of a .keras file the one inside; h5py's errors in a line."""
    try:
        import h5py
    except ImportError:
        raise InputError(f"{source.path}: needs h5py; install it with: pip install 'vggrepro[keras]'") from None
    place = str(source.path)
    try:
        if not zipfile.is_zipfile(source.path):
            with open(source.path, "rb") as whole, mmap.mmap(whole.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                _check_heaps(mapped)
            with h5py.File(source.path, "r") as file:
                yield file
            return
        with zipfile.ZipFile(source.path) as archive:
            size = archive.getinfo(WEIGHTS).file_size
            if size > MAX_BYTES:
                raise InputError(f"{place}: {WEIGHTS} would have {size:,} bytes, more than any net of Table 1")
            with archive.open(WEIGHTS) as member:
                data = member.read(size)
        _check_heaps(data)
        with h5py.File(io.BytesIO(data), "r") as file:
            yield file
    except InputError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{place}: is a damaged or cut HDF5 file ({reason}); download it again") from None


def _check_heaps(data: bytes | mmap.mmap) -> None:
    """Refuses damaged global heaps, which hold long texts: the HDF5 library may read such a heap without end.

    A heap has a header of 16 bytes, then objects of 16 bytes and their padded contents; object 0 is the space left.

    Raises:
        ValueError: an object has no length, or a greater one than the heap.
    """
    at = data.find(HEAP)
    while at >= 0:
        place, end = at + 16, min(len(data), at + int.from_bytes(data[at + 8 : at + 16], "little"))
        while place + 16 <= end:
            number, size = int.from_bytes(data[place : place + 2], "little"), data[place + 8 : place + 16]
            length = int.from_bytes(size, "little")
            whole = 16 + -(-length // 8) * 8 if number else length
            if not 16 <= whole <= end - place:
                raise ValueError(f"a heap with an object of {length:,} bytes")
            place += whole
        at = data.find(HEAP, at + len(HEAP))


def datasets(file: h5py.File, place: str) -> dict[str, h5py.Dataset]:
    """All data sets by their paths; links to other files are not followed.

    Raises:
        InputError: too many objects, or numbers that lie in other files.
    """
    import h5py

    found: dict[str, h5py.Dataset] = {}
    count = 0

    def visit(path: str, item: Any) -> None:
        nonlocal count
        count += 1
        if count > MAX_OBJECTS:
            raise InputError(f"{place}: holds more than {MAX_OBJECTS:,} objects; it is no net of Table 1")
        if not isinstance(item, h5py.Dataset):
            return
        if item.external or item.is_virtual:
            raise InputError(f"{place}: {path} lies in another file; give a file that is whole")
        found[path] = item

    file.visititems(visit)
    return found
