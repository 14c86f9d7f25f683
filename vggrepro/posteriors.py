"""Posterior files: one row an image, one file a protocol; their averages and errors (Sect. 3.2, 4).

`runs/<run>/posteriors/<split>-<method>-q<Q>.parquet` holds `key` (string), `label` (int32, -1 unknown) and
`posterior` (fixed_size_list<float32>[K], rows summing to 1) in the data set's order. What made them is in the
file's metadata (`Origin`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vggrepro.errors import InputError
from vggrepro.files import atomic

METADATA_KEY = b"vggrepro"
TOP_K = 5  # ILSVRC's second measure (Sect. 4)
BATCH_ROWS = 2048
FORMER = {"pooling": "floor"}  # what was meant by files written before a value had its name


@dataclass(frozen=True, slots=True)
class Origin:
    """What a file's posteriors depend on; a file whose origin differs from today's is stale."""

    run: str
    weights: str  # SHA-256 of the run's weights.safetensors
    dataset: str
    fingerprint: str  # of the data set's content
    preset: str
    split: str
    method: str  # dense, multicrop or center
    q: int  # paper pixels
    q_pixels: int  # real pixels
    flip: bool
    grid: int  # crops a side; 0 for dense, 1 for center
    pooling: str  # "floor": maps are rounded down, as torch does; "ceil": up, as Caffe does
    resample: str
    precision: str
    version: str
    commit: str

    def stale(self, now: Origin) -> str | None:
        """Why this origin's posteriors cannot stand for `now`'s, or None if they can."""
        names = {"weights": "other weights", "fingerprint": "another data set", "flip": "other flips"}
        names |= {
            "pooling": "another rounding of pooling",
            "grid": "another grid",
            "q_pixels": "another crop size",
            "resample": "another resampling",
        }
        for field, words in names.items():
            if getattr(self, field) != getattr(now, field):
                return words
        return None


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows in order: n keys, labels (n,) int32, posteriors (n, K) float."""

    keys: list[str]
    labels: np.ndarray
    posteriors: np.ndarray


@dataclass(frozen=True, slots=True)
class Score:
    """Errors over `images` labelled images, in per cent; `top5` is None where K <= 5 leaves it no meaning."""

    images: int
    top1: float
    top5: float | None


def file_path(run_folder: Path, split: str, method: str, q: int, variant: str = "") -> Path:
    """Where a run keeps the posteriors of a split by a method at Q (paper pixels).

    A `variant` of the paper's protocol, such as `-noflip` or `-grid3`, has a file of its own, which no table uses.
    """
    return run_folder / "posteriors" / f"{split}-{method}{variant}-q{q}.parquet"


def _schema(classes: int, origin: Origin) -> pa.Schema:
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            pa.field("label", pa.int32(), nullable=False),
            pa.field("posterior", pa.list_(pa.float32(), classes), nullable=False),
        ],
        metadata={METADATA_KEY: json.dumps(dataclasses.asdict(origin), sort_keys=True).encode()},
    )


def write(path: Path, batches: Iterator[Batch] | Sequence[Batch], classes: int, origin: Origin) -> None:
    """Writes a posterior file atomically, a row group a batch; posteriors are stored as float32."""
    schema = _schema(classes, origin)
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema, compression="none") as writer:
        for batch in batches:
            flat = pa.array(np.ascontiguousarray(batch.posteriors, dtype=np.float32).reshape(-1))
            lists = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("posterior").type)
            columns = [pa.array(batch.keys, pa.string()), pa.array(batch.labels, pa.int32()), lists]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _open(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run 'vggrepro evaluate'") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: damaged parquet file ({error}); delete it and evaluate again") from None
    if names != ["key", "label", "posterior"] or not pa.types.is_fixed_size_list(file.schema_arrow.field(2).type):
        raise InputError(f"{path}: columns {names} are not key, label, posterior (a fixed-size list per row)")
    return file


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


def read(path: Path, rows: int = BATCH_ROWS) -> Iterator[Batch]:
    """Streams a posterior file, checking that each row is a distribution.

    Raises:
        InputError: damaged file, or a row with a negative or non-finite number or a sum that is not 1.
    """
    start = 0
    with _open(path) as file:
        classes = file.schema_arrow.field("posterior").type.list_size
        try:
            for chunk in file.iter_batches(rows):
                if any(column.null_count for column in chunk.columns):
                    raise InputError(f"{path}: an empty cell after row {start}; delete the file and evaluate again")
                values = chunk.column(2).flatten().to_numpy(zero_copy_only=False).reshape(-1, classes)
                sums = values.sum(axis=1, dtype=np.float64)
                good = (np.abs(sums - 1) <= 1e-3) & (values >= 0).all(axis=1)
                if not good.all():
                    row = int(np.argmin(good))
                    raise InputError(
                        f"{path}: row {start + row} is no distribution (sum {sums[row]:.4f}, smallest "
                        f"{values[row].min():.4g}); delete the file and evaluate again"
                    )
                start += len(values)
                yield Batch(chunk.column(0).to_pylist(), chunk.column(1).to_numpy(), values)
        except (pa.ArrowInvalid, OSError) as error:
            error_text = " ".join(str(error).split())  # Arrow's messages may have several lines
            raise InputError(f"{path}: damaged near row {start} ({error_text}); delete it, evaluate again") from None


def average(paths: Sequence[Path]) -> Iterator[Batch]:
    """Streams the mean posterior of several files with equal weights (Sect. 3.2, 4.4), in float64.

    Raises:
        InputError: no files; files of other images, labels, order or number of classes.
    """
    if not paths:
        raise InputError("nothing to average: no posterior files")
    streams = [read(path) for path in paths]
    while True:
        parts = [next(stream, None) for stream in streams]
        first = parts[0]
        if first is None and all(part is None for part in parts):
            return
        for path, part in zip(paths, parts, strict=True):
            _check_alike(paths[0], first, path, part)
        assert first is not None
        total = np.zeros(first.posteriors.shape)
        for part in parts:
            assert part is not None
            total += part.posteriors
        yield Batch(first.keys, first.labels, total / len(parts))


def _check_alike(path_a: Path, a: Batch | None, path_b: Path, b: Batch | None) -> None:
    if a is None or b is None:
        raise InputError(f"{path_a} and {path_b} hold different numbers of images; evaluate both on one split")
    if a.posteriors.shape[1] != b.posteriors.shape[1]:
        raise InputError(
            f"{path_a} has {a.posteriors.shape[1]} classes, {path_b} {b.posteriors.shape[1]}; "
            "only posteriors of one data set can be averaged"
        )
    if a.keys != b.keys:
        pairs = zip(a.keys, b.keys, strict=False)
        key = next(((x, y) for x, y in pairs if x != y), ("fewer rows", "more rows"))
        raise InputError(f"{path_a} and {path_b} differ in their images ('{key[0]}' against '{key[1]}')")
    if not np.array_equal(a.labels, b.labels):
        raise InputError(
            f"{path_a} and {path_b} give different labels to image '{a.keys[int(np.argmax(a.labels != b.labels))]}'"
        )


def ranks(posteriors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rank of the true class, 0 is best: (n, K), (n,) -> (n,) int. Ties are broken by class order."""
    true = np.take_along_axis(posteriors, labels[:, None].astype(np.int64), axis=1)
    earlier = np.arange(posteriors.shape[1]) < labels[:, None]
    return ((posteriors > true) | ((posteriors == true) & earlier)).sum(axis=1)


def score(batches: Iterator[Batch], name: str = "posteriors") -> Score:
    """Top-1 and top-5 error in per cent of images.

    Raises:
        InputError: an image without a label (or one outside the classes), or no image at all.
    """
    images = wrong1 = wrong5 = classes = 0
    for batch in batches:
        classes = batch.posteriors.shape[1]
        bad = (batch.labels < 0) | (batch.labels >= classes)
        if bad.any():
            raise InputError(
                f"{name}: image '{batch.keys[int(bad.argmax())]}' has no label among {classes} classes; "
                "errors need a labelled split"
            )
        rank = ranks(batch.posteriors, batch.labels)
        images += len(rank)
        wrong1 += int((rank >= 1).sum())
        wrong5 += int((rank >= TOP_K).sum())
    if not images:
        raise InputError(f"{name}: no images")
    return Score(images, 100 * wrong1 / images, 100 * wrong5 / images if classes > TOP_K else None)
