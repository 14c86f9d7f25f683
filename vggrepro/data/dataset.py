"""The dataset folder: `dataset.json` and Arrow shards, opened by every stage after `prepare`.

Shards `<split>-NNNNN.arrow` hold the columns of `SCHEMA`, memory-mapped for random access: the original image
bytes, no decoded pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from vggrepro.data.images import BadImage, decode
from vggrepro.errors import InputError
from vggrepro.system.advice import command
from vggrepro.system.files import read_json

DATASET_JSON = "dataset.json"
DATASET_VERSION = 2  # 1, unwritten, called the preset `coarse` `quarter`
CACHE_BYTES = 1 << 30  # splits whose decoded pixels fit are decoded once and kept

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("image", pa.large_binary(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """What `dataset.json` says; colours are on the 0-255 scale, computed on the split `statistics`."""

    folder: Path
    name: str
    classes: tuple[str, ...]
    counts: dict[str, int]  # images by split
    mean_rgb: tuple[float, ...]
    rgb_eigenvectors: tuple[tuple[float, ...], ...]  # [i] is the i-th unit eigenvector, over R, G, B
    rgb_eigenvalues: tuple[float, ...]  # of the RGB covariance, largest first
    preset: str
    fingerprint: str  # SHA-256 over classes, keys, labels and image bytes
    subset: str = ""  # why this is only a part of the data set that its name says
    words: tuple[str, ...] = ()  # what people call each class; the class's own name where nothing better is known
    devkit_ids: tuple[int, ...] = ()  # each class's number in ILSVRC submissions; empty for other data
    store_side: int = 0  # training images are kept as copies of at most this shorter side (pixels); 0: as they were
    statistics: str = "train"  # "val": prepared with --val-only, without training images

    def __hash__(self) -> int:
        return hash((self.folder, self.fingerprint))

    @property
    def trainable(self) -> bool:
        """Whether it has training images, and its colours were measured on them."""
        return self.statistics == "train"

    def require_training(self) -> None:
        """Raises an InputError unless nets can be trained on it."""
        if not self.trainable:
            raise InputError(
                f"{self.folder} was prepared with --val-only and has no training images; to train, prepare all of the "
                "data to another folder and give it with --data"
            )


def load(folder: Path) -> Dataset:
    """Opens a prepared data set.

    Raises:
        InputError: none there, unfinished or damaged.
    """
    path = folder / DATASET_JSON
    if folder.is_file():
        raise InputError(f"--data {folder} is a file; give the folder that 'vggrepro prepare' wrote")
    if not path.is_file():
        if (folder / "prepare.json").is_file():
            raise InputError(f"{folder}: its preparation was interrupted; run the same 'vggrepro prepare' again")
        demo, own = (command("prepare", source, "--data", str(folder)) for source in ("demo", "FOLDER"))
        raise InputError(f"no data set in {folder}; make one with '{demo}' or '{own}', or name one with --data")
    values = read_json(path)
    try:
        return Dataset(
            folder,
            str(values["name"]),
            tuple(values["classes"]),
            {split: int(count) for split, count in values["counts"].items()},
            _three(values["mean_rgb"]),
            tuple(_three(vector) for vector in values["rgb_eigenvectors"]),
            _three(values["rgb_eigenvalues"]),
            "coarse" if values["preset"] == "quarter" and "version" not in values else str(values["preset"]),
            str(values["fingerprint"]),
            str(values.get("subset", "")),
            tuple(values.get("words") or values["classes"]),
            tuple(values.get("devkit_ids", ())),
            int(values.get("store_side", 0)),
            str(values.get("statistics", "train")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: lacks or garbles {error}; prepare the data set again") from None


def left_out(about: dict[str, Any]) -> str:
    """One line that says what was left out of the source, and why (from `dataset.json`)."""
    reasons = {"unreadable": len(about.get("bad", []))} | about.get("left_out", {})
    parts = [f"{count:,} {why}" for why, count in reasons.items() if count]
    return f"left out {', '.join(parts)}" if parts else "no image was left out"


def turned(about: dict[str, Any]) -> str:
    """One line that says how many images have an EXIF orientation, and what is done with them; "" if none has."""
    counts = [f"{count:,} of {split}" for split, count in about.get("turned", {}).items() if count]
    return f"EXIF asks to turn {', '.join(counts)}: they stay as stored, as in the paper's tools" if counts else ""


def _three(values: Any) -> tuple[float, ...]:
    """Three numbers, for R, G, B."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def read_shard(path: Path) -> list[pa.RecordBatch]:
    """A shard's rows, memory-mapped. All offsets are checked to lie within the file; no file stays open.

    Raises:
        InputError: it is damaged or cannot be read.
    """
    try:
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            if not reader.schema.equals(SCHEMA):
                raise pa.ArrowInvalid(f"its columns are not {', '.join(SCHEMA.names)}")
            batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate(full=True)
            if any(column.null_count for column in batch.columns):
                raise pa.ArrowInvalid("it lacks values")
    except (pa.ArrowException, OSError) as error:
        what = " ".join(str(error).split())
        raise InputError(f"{path}: damaged shard ({what}); prepare the data set again") from None
    return batches


class Split:
    """Random access to a split's images, by position in the data set's order. Safe to share between threads.

    Args:
        dataset: the prepared data set.
        name: "train", "val" or "test".
        cache: whether decoded images are kept in memory when all of them fit `CACHE_BYTES`.
    """

    def __init__(self, dataset: Dataset, name: str, cache: bool = False) -> None:
        if not dataset.counts.get(name):
            present = ", ".join(split for split, count in dataset.counts.items() if count)
            raise InputError(f"{dataset.folder} has no split '{name}' (there: {present})")
        self.folder, self.name = dataset.folder, name
        batches = [rows for path in sorted(dataset.folder.glob(f"{name}-*.arrow")) for rows in read_shard(path)]
        self._keys = [rows["key"] for rows in batches]
        self._images = [_values(rows["image"]) for rows in batches]
        self._ends = np.cumsum([len(rows) for rows in batches])
        count = int(self._ends[-1]) if len(self._ends) else 0
        if count != dataset.counts[name]:
            raise InputError(
                f"{dataset.folder}: {name} shards hold {count} images, dataset.json says "
                f"{dataset.counts[name]}; prepare the data set again"
            )
        self.labels, self.widths, self.heights = (
            np.concatenate([rows[field].to_numpy() for rows in batches]) for field in ("label", "width", "height")
        )
        self._check_rows(len(dataset.classes))
        pixels = int(self.sizes.prod(0).sum())
        self._cache: list[Image.Image | None] | None = None
        if cache and 3 * pixels <= CACHE_BYTES:
            self._cache = [None] * count

    @property
    def sizes(self) -> np.ndarray:
        """Widths and heights: int64 (2, n)."""
        return np.stack([self.widths, self.heights]).astype(np.int64)

    @property
    def cached(self) -> bool:
        """Whether decoded images are kept."""
        return self._cache is not None

    def __len__(self) -> int:
        return len(self.labels)

    def _check_rows(self, classes: int) -> None:
        """Refuses labels and sizes that `prepare` never writes."""
        if self.labels.min() < -1 or self.labels.max() >= classes or min(self.widths.min(), self.heights.min()) < 1:
            raise InputError(
                f"{self.folder}: {self.name} shards hold labels outside the {classes} classes or images without "
                "pixels; they are damaged, prepare the data set again"
            )

    def _at(self, index: int) -> tuple[int, int]:
        """An image's batch and its row there."""
        batch = int(np.searchsorted(self._ends, index, side="right"))
        return batch, index - (int(self._ends[batch - 1]) if batch else 0)

    def key(self, index: int) -> str:
        batch, row = self._at(index)
        return str(self._keys[batch][row].as_py())

    def keys(self, start: int, stop: int) -> list[str]:
        return [self.key(index) for index in range(start, stop)]

    def image_bytes(self, index: int) -> memoryview:
        """The stored image file.

        A copy, since numpy makes it outside Python's global lock: no thread waits while another's comes from the disk.
        """
        batch, row = self._at(index)
        offsets, values = self._images[batch]
        return values[offsets[row] : offsets[row + 1]].copy().data

    def image(self, index: int) -> Image.Image:
        """The decoded RGB image, not to be written to.

        Raises:
            InputError: the stored bytes do not decode, which `prepare` had checked: a damaged shard.
        """
        if self._cache is not None and (kept := self._cache[index]) is not None:
            return kept
        try:
            image = decode(self.image_bytes(index))
        except BadImage as error:
            raise InputError(
                f"{self.folder}: image '{self.key(index)}' ({self.name} row {index}) does not decode ({error}); "
                "the shard is damaged, prepare the data set again"
            ) from None
        if self._cache is not None:
            self._cache[index] = image
        return image


def _values(column: pa.LargeBinaryArray) -> tuple[np.ndarray, np.ndarray]:
    """Where each value begins and the last one ends, and the bytes of all of them: views of the shard."""
    _, offsets, values = column.buffers()
    starts = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return starts, np.frombuffer(values or b"", np.uint8)
