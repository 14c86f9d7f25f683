"""HDF5 files of strangers, opened and listed; h5py's errors become a line."""

from __future__ import annotations

import io
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
            with h5py.File(source.path, "r") as file:
                yield file
            return
        with zipfile.ZipFile(source.path) as archive:
            size = archive.getinfo(WEIGHTS).file_size
            if size > MAX_BYTES:
                raise InputError(f"{place}: {WEIGHTS} would have {size:,} bytes, more than any net of Table 1")
            with archive.open(WEIGHTS) as member:
                data = io.BytesIO(member.read(size))
        with h5py.File(data, "r") as file:
            yield file
    except InputError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{place}: is a damaged or cut HDF5 file ({reason}); download it again") from None


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
