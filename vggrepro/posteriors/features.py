"""Feature files: a row for each picture, a file for each test scale Q or for the average over several (Appendix B).

`runs/<run>/features/<set>-q<Q>.parquet` holds `key` (string) and `feature` (fixed_size_list<float32>[D], of unit
length) in the set's order; `-box` after the set's name marks boxes of persons, `-pooled` an average over several Q.
What made them is in the file's metadata (`FeatureOrigin`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vggrepro import __version__
from vggrepro.data.transfer_sets.base import TransferSet
from vggrepro.errors import InputError
from vggrepro.paper import real_pixels
from vggrepro.posteriors.files import METADATA_KEY, OTHER_DATA, READ_BYTES, WRITING, reading
from vggrepro.runs.folder import RunFolder
from vggrepro.system.commit import commit
from vggrepro.system.files import atomic

TOLERANCE = 1e-3  # of a row's length
RENEW = "delete the file and compute the features again"
COLUMNS = ["key", "feature"]
STALE = {  # reasons not to use a file, by the field that differs
    "weights": "other weights",
    "fingerprint": OTHER_DATA,
    "qs": "other test scales",
    "pixels": "another crop size",
    "flip": "other flips",
    "input": "another net input",
    "resample": "another resampling",
}


@dataclass(frozen=True, slots=True)
class FeatureOrigin:
    """What the features in a file depend on; a file is stale if this has changed."""

    run: str
    weights: str  # SHA-256 of the run's weights.safetensors
    dataset: str  # name of the transfer set
    view: str  # "image", or "box" of persons
    fingerprint: str  # of the pictures
    qs: tuple[int, ...]  # paper pixels; several are averaged
    pixels: tuple[int, ...]  # the same in real pixels
    flip: bool  # averaged with the mirrored picture
    input: str  # `RunConfig.net_input`
    resample: str
    precision: str
    version: str
    commit: str

    def stale(self, now: FeatureOrigin) -> str | None:
        """Why these features must not be used in place of `now`'s, or None if they may."""
        return next((why for name, why in STALE.items() if getattr(self, name) != getattr(now, name)), None)


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """Some rows in order: n keys, features (n, D) float32 of unit length."""

    keys: list[str]
    features: np.ndarray


def origin_of(folder: RunFolder, data: TransferSet, view: str, qs: Sequence[int], precision: str) -> FeatureOrigin:
    """What the features of a run, as it is now, depend on."""
    config = folder.config()
    return FeatureOrigin(
        run=folder.name,
        weights=folder.weights_hash(),
        dataset=data.name,
        view=view,
        fingerprint=data.pictures[view].fingerprint,
        qs=tuple(qs),
        pixels=tuple(real_pixels(q, config.crop) for q in qs),
        flip=True,
        input=config.net_input,
        resample=config.recipe.resample,
        precision=precision,
        version=__version__,
        commit=commit(),
    )


def file_path(run_folder: Path, dataset: str, view: str, qs: Sequence[int]) -> Path:
    """Where a run keeps the features of a set's view at Q, or averaged over several Q (paper pixels)."""
    box = "" if view == "image" else f"-{view}"
    pooled = "-pooled" if len(qs) > 1 else ""
    return run_folder / "features" / f"{dataset}{box}-q{'-'.join(map(str, qs))}{pooled}.parquet"


def normalised(features: np.ndarray) -> np.ndarray:
    """Rows of unit length, (n, D) -> float32; a row of zeros stays."""
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(features / np.where(lengths > 0, lengths, 1), np.float32)


def pooled(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The average of several Q, of unit length again: each (n, D) -> (n, D) float32."""
    return parts[0] if len(parts) == 1 else normalised(np.asarray(np.mean(parts, axis=0, dtype=np.float64)))


def write(path: Path, batches: Iterable[FeatureBatch], units: int, origin: FeatureOrigin) -> None:
    """Writes a feature file atomically, a row group for each batch; every page has a checksum."""
    metadata = {METADATA_KEY: json.dumps(dataclasses.asdict(origin), sort_keys=True).encode()}
    fields = [pa.field("key", pa.string(), False), pa.field("feature", pa.list_(pa.float32(), units), False)]
    schema = pa.schema(fields, metadata)
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema, **WRITING) as writer:
        for batch in batches:
            flat = pa.array(np.ascontiguousarray(batch.features, np.float32).reshape(-1))
            lists = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("feature").type)
            writer.write_table(pa.Table.from_arrays([pa.array(batch.keys, pa.string()), lists], schema=schema))


def _open(path: Path) -> pq.ParquetFile:
    with reading(path, "features", RENEW):
        file = pq.ParquetFile(path, buffer_size=READ_BYTES, page_checksum_verification=True)
    if file.schema_arrow.names != COLUMNS or not pa.types.is_fixed_size_list(file.schema_arrow.field("feature").type):
        raise InputError(f"{path}: its columns are not those of a feature file; {RENEW}")
    return file


def read_origin(path: Path) -> FeatureOrigin:
    """What a feature file was made of.

    Raises:
        InputError: no such file, damaged, or not a feature file.
    """
    with _open(path) as file:
        text = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
    try:
        values = json.loads(text or b"")
        lists = {name: tuple(values[name]) for name in ("qs", "pixels")}
        return FeatureOrigin(**values | lists)
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: has no valid 'vggrepro' metadata; {RENEW}") from None


def rows_of(path: Path) -> int:
    """The number of rows of a file, from its footer."""
    with _open(path) as file:
        return int(file.metadata.num_rows)


def read(path: Path, rows: int = 2048) -> Iterator[FeatureBatch]:
    """Streams a feature file in its own order.

    Raises:
        InputError: as `read_origin`; a row that is not of unit length.
    """
    with _open(path) as file, reading(path, "features", RENEW):
        start = 0
        for chunk in file.iter_batches(rows):
            lists = chunk["feature"]
            units = lists.type.list_size
            features = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, units)
            lengths = np.linalg.norm(features, axis=1)
            good = (np.abs(lengths - 1) <= TOLERANCE) | (lengths == 0)  # no NaN passes
            if not good.all():
                row = int(good.argmin())
                raise InputError(f"{path}: row {start + row} has length {lengths[row]:.4g}, not 1; {RENEW}")
            yield FeatureBatch(chunk["key"].to_pylist(), features)
            start += len(chunk)
