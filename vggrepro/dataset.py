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

from vggrepro.errors import InputError
from vggrepro.files import read_json
from vggrepro.images import BadImage, decode

DATASET_JSON = "dataset.json"
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
    """What `dataset.json` says; colours are on the 0-255 scale, computed on the training split."""

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
        raise InputError(
            f"no data set in {folder}; make one with 'vggrepro prepare' (the demo) or "
            f"'vggrepro prepare FOLDER --to {folder}', or name one with --data"
        )
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
            str(values["preset"]),
            str(values["fingerprint"]),
            str(values.get("subset", "")),
            tuple(values.get("words") or values["classes"]),
            tuple(values.get("devkit_ids", ())),
            int(values.get("store_side", 0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: lacks or garbles {error}; prepare the data set again") from None


def _three(values: Any) -> tuple[float, ...]:
    """Three numbers, for R, G, B."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


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
        self._columns: dict[str, list[pa.Array]] = {field: [] for field in SCHEMA.names}
        paths = sorted(dataset.folder.glob(f"{name}-*.arrow"))
        for path in paths:
            try:
                table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
                for field in SCHEMA.names:
                    self._columns[field].extend(table[field].chunks)
            except (pa.ArrowInvalid, OSError, KeyError) as error:
                raise InputError(f"{path}: damaged shard ({error}); prepare the data set again") from None
        self._ends = np.cumsum([len(chunk) for chunk in self._columns["label"]])
        count = int(self._ends[-1]) if len(self._ends) else 0
        if count != dataset.counts[name]:
            raise InputError(
                f"{dataset.folder}: {name} shards hold {count} images, dataset.json says "
                f"{dataset.counts[name]}; prepare the data set again"
            )
        self.labels = np.concatenate([c.to_numpy() for c in self._columns["label"]])
        self.widths = np.concatenate([c.to_numpy() for c in self._columns["width"]])
        self.heights = np.concatenate([c.to_numpy() for c in self._columns["height"]])
        pixels = int((self.widths.astype(np.int64) * self.heights).sum())
        self._cache: list[Image.Image | None] | None = None
        if cache and 3 * pixels <= CACHE_BYTES:
            self._cache = [None] * count

    @property
    def cached(self) -> bool:
        """Whether decoded images are kept."""
        return self._cache is not None

    def __len__(self) -> int:
        return len(self.labels)

    def _at(self, field: str, index: int) -> pa.Scalar:
        chunk = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[chunk - 1]) if chunk else 0
        return self._columns[field][chunk][index - start]

    def key(self, index: int) -> str:
        return str(self._at("key", index).as_py())

    def keys(self, start: int, stop: int) -> list[str]:
        return [self.key(index) for index in range(start, stop)]

    def image_bytes(self, index: int) -> memoryview:
        """The original image file, without a copy."""
        return memoryview(self._at("image", index).as_buffer())

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
