"""Posterior files: a row for each image, a file for each protocol (Sect. 3.2, 4); `means` averages them.

`runs/<run>/posteriors/<split>-<method>-q<Q>.parquet` holds `key` (string), `label` (int32, -1 unknown) and
`posterior` (fixed_size_list<float32>[K], rows summing to 1) in the data set's order. What made them is in the
file's metadata (`Origin`). Files of other tools may have their rows and columns in any order, further columns,
any list of floats and any compression.
"""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vggrepro.errors import InputError
from vggrepro.system.files import atomic

METADATA_KEY = b"vggrepro"
SUM_TOLERANCE = 1e-3
BATCH_ROWS = 2048
READ_BYTES = 1 << 20  # a column is read piece by piece: another tool's row group may be the whole file
WRITING = {"compression": "none", "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
COLUMNS = ("key", "label", "posterior")
RENEW = "delete the file and evaluate again"
OTHER_DATA = "another data set"
STALE = {  # reasons not to use a file, by the field that differs
    "weights": "other weights",
    "fingerprint": OTHER_DATA,
    "flip": "other flips",
    "pooling": "another rounding of pooling",
    "grid": "another grid",
    "q_pixels": "another crop size",
    "input": "another net input",
    "resample": "another resampling",
}
FORMER = {"pooling": "floor", "input": ""}  # values of files that were written before these fields existed


@dataclass(frozen=True, slots=True)
class Origin:
    """What the posteriors in a file depend on; a file is stale if this has changed."""

    run: str
    weights: str  # SHA-256 of the run's weights.safetensors
    dataset: str
    fingerprint: str  # of the data set's content
    preset: str
    split: str
    method: str  # dense, multicrop, center, tencrop or googlenet
    q: int  # paper pixels
    q_pixels: int  # real pixels
    flip: bool
    grid: int  # crops along a side of multicrop; 1 for center, 0 for the others
    pooling: str  # "floor": maps are rounded down, as torch does; "ceil": up, as Caffe does
    resample: str
    precision: str
    version: str
    commit: str
    input: str = ""  # `RunConfig.net_input`; empty: not known

    def stale(self, expected: Mapping[str, Any]) -> str | None:
        """Why these posteriors must not be used in place of those with the `expected` values, or None if they may.

        Args:
            expected: field -> value; a field that is not in it, or not in `STALE`, may have any value.
        """
        mine = dataclasses.asdict(self)
        if any(mine[name] != expected.get(name, mine[name]) for name in ("split", "method", "q")):
            return f"{self.split}, {self.method}, Q = {self.q} by its metadata"
        if not self.input:  # not known
            expected = {**expected, "input": ""}
        differ = (reason for name, reason in STALE.items() if mine[name] != expected.get(name, mine[name]))
        return next(differ, None)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows in order: n keys, labels (n,) int32, posteriors (n, K) float."""

    keys: list[str]
    labels: np.ndarray
    posteriors: np.ndarray


def _schema(classes: int, origin: Origin) -> pa.Schema:
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("label", pa.int32(), nullable=False),
            pa.field("posterior", pa.list_(pa.float32(), classes), nullable=False),
        ],
        metadata={METADATA_KEY: json.dumps(dataclasses.asdict(origin), sort_keys=True).encode()},
    )


def write(path: Path, batches: Iterable[Rows], classes: int, origin: Origin) -> None:
    """Writes a posterior file atomically, with a row group for each batch; posteriors are stored as float32.

    Every page has a checksum, so that damage is noticed. There is no dictionary, as floats hardly repeat.
    """
    schema = _schema(classes, origin)
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema, **WRITING) as writer:
        for batch in batches:
            flat = pa.array(np.ascontiguousarray(batch.posteriors, dtype=np.float32).reshape(-1))
            lists = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("posterior").type)
            columns = [pa.array(batch.keys, pa.string()), pa.array(batch.labels, pa.int32()), lists]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


@contextmanager
def reading(path: Path, maker: str = "evaluate", renew: str = RENEW) -> Iterator[None]:
    """Turns pyarrow's errors about a file, which may have several lines, into an InputError of one line.

    Args:
        path: the file.
        maker: the command that writes such files.
        renew: what to do with a damaged one.
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run 'vggrepro {maker}'") from None
    except PermissionError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
            raise  # not the file's fault
        text = " ".join(str(error).split())
        raise InputError(f"{path}: damaged parquet file ({text}); {renew}") from None


def _open(path: Path) -> pq.ParquetFile:
    """A parquet file with the three columns, of types that can be read.

    Raises:
        InputError: no such file, damaged, other columns.
    """
    with reading(path):
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES, page_checksum_verification=True)
        schema = file.schema_arrow
    if any(schema.names.count(name) != 1 for name in COLUMNS):
        names = ", ".join(schema.names)
        raise InputError(f"{path}: its columns ({names}) are not key, label and posterior, once each")
    key, label, posterior = (schema.field(name).type for name in COLUMNS)
    text = key.value_type if pa.types.is_dictionary(key) else key
    if not any(is_text(text) for is_text in _TEXTS):
        raise InputError(f"{path}: keys are {key}, not strings")
    if not pa.types.is_integer(label):
        raise InputError(f"{path}: labels are {label}, not integers")
    if not any(is_list(posterior) for is_list in _LISTS) or not pa.types.is_floating(posterior.value_type):
        raise InputError(f"{path}: posteriors are {posterior}, not a list of floats per row")
    return file


_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary)
_LISTS = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)


@dataclass(frozen=True, slots=True)
class Shape:
    """Rows and classes of a posterior file; `foreign` if another tool wrote it, without an `Origin`."""

    rows: int
    classes: int
    foreign: bool


def shape_of(path: Path) -> Shape:
    """A posterior file's size; at most its first row is read.

    Raises:
        InputError: no such file, damaged, other columns, no rows or no classes.
    """
    with _open(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        kind = schema.field("posterior").type
        if not rows:
            raise InputError(f"{path}: holds no images; {RENEW}")
        if pa.types.is_fixed_size_list(kind):
            classes = kind.list_size
        else:
            with reading(path):
                first = next(file.iter_batches(1, columns=["posterior"], use_threads=False))
                classes = len(first.column(0)[0].as_py() or ())
        if not classes:
            raise InputError(f"{path}: row 0 has no posteriors; {RENEW}")
        return Shape(rows, classes, METADATA_KEY not in (schema.metadata or {}))


def read_origin(path: Path) -> Origin:
    """What a posterior file was made of.

    Raises:
        InputError: no such file, damaged, or not a posterior file of this project.
    """
    with _open(path) as file:
        text = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
    try:
        values: dict[str, Any] = FORMER | json.loads(text or b"")
        return Origin(**{field.name: values[field.name] for field in dataclasses.fields(Origin)})
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: has no valid 'vggrepro' metadata; delete it and evaluate again") from None


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a split in order; posteriors of several files are joined by them.

    `keys` are n different strings, `labels` (n,) int32 in [-1, classes); `source` names their origin in messages.
    """

    source: str
    keys: pa.Array
    labels: np.ndarray
    classes: int


def images_of(path: Path) -> Images:
    """The images of a file, in its order, without its posteriors.

    Raises:
        InputError: as `shape_of`; a missing or repeated key, a label outside the classes.
    """
    classes = shape_of(path).classes
    with _open(path) as file, reading(path):
        table = file.read(columns=["key", "label"], use_threads=False)
        _check_end(path, len(table), file)
        keys, labels = _keys(path, 0, table.column("key")), _labels(path, 0, table.column("label"), classes)
    if len(pc.unique(keys)) < len(keys):
        seen: dict[str, int] = {}
        for row, key in enumerate(keys.to_pylist()):
            if key in seen:
                raise InputError(f"{path}: rows {seen[key]} and {row} are both image '{key}'; {RENEW}")
            seen[key] = row
    return Images(str(path), keys, labels, classes)


def values(path: Path, rows: int = BATCH_ROWS) -> Iterator[np.ndarray]:
    """Streams the posteriors alone: arrays (n, K) of exactly `rows` rows but the last, float32 (float64 if stored so).

    Raises:
        InputError: as `read`.
    """
    classes, start = shape_of(path).classes, 0
    with _open(path) as file:
        rest: list[np.ndarray] = []
        with reading(path):
            for chunk in file.iter_batches(rows, columns=["posterior"], use_threads=False):
                if start + len(chunk) > file.metadata.num_rows:
                    break
                rest.append(_distributions(path, start, chunk.column(0), classes))
                start += len(chunk)
                while sum(map(len, rest)) >= rows:  # pyarrow's batches may be smaller than asked for
                    merged = rest[0] if len(rest) == 1 else np.concatenate(rest)
                    yield merged[:rows]
                    rest = [merged[rows:]] if len(merged) > rows else []
        _check_end(path, start, file)
        if rest:
            yield np.concatenate(rest)


def read(path: Path, rows: int = BATCH_ROWS) -> Iterator[Rows]:
    """Streams a posterior file in its own order, checking that each row is a distribution.

    Raises:
        InputError: as `shape_of`; an empty cell, a label outside the classes, a row of another length, or one with
            a negative or non-finite number or a sum that is not 1.
    """
    classes, start = shape_of(path).classes, 0
    with _open(path) as file:
        with reading(path):
            for chunk in file.iter_batches(rows, columns=list(COLUMNS), use_threads=False):
                keys = _keys(path, start, chunk["key"]).to_pylist()
                labels = _labels(path, start, chunk["label"], classes)
                yield Rows(keys, labels, _distributions(path, start, chunk["posterior"], classes))
                start += len(chunk)
        _check_end(path, start, file)


def _check_end(path: Path, rows: int, file: pq.ParquetFile) -> None:
    if rows != file.metadata.num_rows:
        raise InputError(f"{path}: damaged parquet file (not {file.metadata.num_rows} rows, as it says); {RENEW}")


def _present(path: Path, start: int, column: pa.Array, name: str) -> None:
    """Refuses a column with nulls; `start` is the row of its first value."""
    if column.null_count:
        row = start + pc.index(column.is_null(), True).as_py()
        raise InputError(f"{path}: row {row} has no {name}; {RENEW}")


def _keys(path: Path, start: int, column: pa.Array | pa.ChunkedArray) -> pa.Array:
    _present(path, start, column, "key")
    keys = column.cast(pa.string())
    keys = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    keys.validate(full=True)  # UTF-8
    return keys


def _labels(path: Path, start: int, column: pa.Array | pa.ChunkedArray, classes: int) -> np.ndarray:
    _present(path, start, column, "label")
    labels = column.to_numpy()
    bad = (labels < -1) | (labels >= classes)
    if bad.any():
        row = int(bad.argmax())
        raise InputError(f"{path}: row {start + row} has label {labels[row]} of {classes} classes; {RENEW}")
    return labels.astype(np.int32, copy=False)


def _distributions(path: Path, start: int, column: pa.Array, classes: int) -> np.ndarray:
    """(n, K) float32 or float64 from a list column, after the checks that `read` promises."""
    _present(path, start, column, "posterior")
    column.validate(full=True)
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if (lengths != classes).any():
        row = int((lengths != classes).argmax())
        raise InputError(f"{path}: row {start + row} has {lengths[row]} posteriors, row 0 {classes}; {RENEW}")
    if pa.types.is_fixed_size_list(column.type):  # as flatten, which copies
        flat = column.values.slice(column.offset * classes, len(column) * classes)
    else:
        flat = column.flatten()
    if flat.null_count:
        row = pc.index(flat.is_null(), True).as_py() // classes
        raise InputError(f"{path}: row {start + row} lacks a posterior; {RENEW}")
    found = flat.to_numpy(zero_copy_only=False).reshape(-1, classes)
    if found.dtype == np.float16:
        found = found.astype(np.float32)
    sums = found.sum(axis=1)
    fine = np.abs(sums - 1) <= SUM_TOLERANCE  # no NaN passes
    if not fine.all() or found.min(initial=0) < 0:
        fine &= (found >= 0).all(axis=1)
        row = int(fine.argmin())
        raise InputError(
            f"{path}: row {start + row} is no distribution (sum {sums[row]:.4f}, smallest {found[row].min():.4g}); "
            f"{RENEW}"
        )
    return found
