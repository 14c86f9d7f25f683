"""Folders of Hugging Face parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vggrepro.errors import InputError
from vggrepro.sources.base import TRAIN_NAMES, VAL_NAMES, Example, Source, digest, some


class ParquetSource(Source):
    """Hugging Face parquet files: `image: struct{bytes, path}`, `label: int`, class names in the footer.

    A file's split is the first word of its name (`train-00000-of-00003.parquet`) or its folder's name
    (`train/0000.parquet`). Without a validation split, `test` serves as one.
    """

    layout = "a folder of Hugging Face parquet files (train-*.parquet, validation-*.parquet)"

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any(folder.rglob("*.parquet"))

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.name = self.folder.name
        self.description = f"parquet files {self.folder}"
        self.files = self._find_files()
        self.image, self.label, names = self._columns(self.files["train"][0])
        for path in (path for files in self.files.values() for path in files):
            image, label, others = self._columns(path)
            if (image, label) != (self.image, self.label):
                raise InputError(f"prepare: {path}: columns '{image}', '{label}' differ from the first file's")
            if others != names:
                raise InputError(f"prepare: {path}: its class names differ from {self.files['train'][0].name}'s")
        found = self._label_range()
        if names is None:
            names = [str(label) for label in range(found[1] + 1)]
        if found[0] < 0 or found[1] >= len(names):
            raise InputError(
                f"prepare: {self.folder}: label {found[0] if found[0] < 0 else found[1]} is outside the "
                f"{len(names)} classes"
            )
        self.classes = tuple(names)
        self._check_classes()

    def _find_files(self) -> dict[str, list[Path]]:
        by_word: dict[str, list[Path]] = {}
        for path in sorted(self.folder.rglob("*.parquet")):
            word = path.name.removesuffix(".parquet").split("-")[0].split(".")[0].lower()
            if (parent := path.parent.name.lower()) in (*TRAIN_NAMES, *VAL_NAMES, "test"):
                word = parent  # train/0000.parquet
            by_word.setdefault(word, []).append(path)
        splits = {
            "train": next((by_word[name] for name in TRAIN_NAMES if name in by_word), []),
            "val": next((by_word[name] for name in VAL_NAMES if name in by_word), []),
            "test": by_word.get("test", []),
        }
        if not splits["val"]:
            splits["val"], splits["test"] = splits["test"], []
        for split, names in (("train", TRAIN_NAMES), ("val", (*VAL_NAMES, "test"))):
            if not splits[split]:
                raise InputError(
                    f"prepare: {self.folder}: no {' or '.join(names)} parquet files among "
                    f"{some(sorted(by_word))}; names start with their split, such as train-00000-of-00001.parquet"
                )
        del splits["test"]  # unlabelled test images enter with the evaluation of the test split
        return splits

    def _columns(self, path: Path) -> tuple[str, str, list[str] | None]:
        """Names of the image and label columns, and the class names if the footer has them."""
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"prepare: {path}: damaged parquet file ({error}); download it again") from None
        image = next((name for name in ("image", "img") if name in schema.names), None)
        if image is None or not _is_image(schema.field(image).type):
            raise InputError(f"prepare: {path}: no column 'image' of struct{{bytes, path}}; it has {schema.names}")
        label = next((name for name in ("label", "labels", "fine_label") if name in schema.names), None)
        if label is None:
            raise InputError(f"prepare: {path}: no column 'label', 'labels' or 'fine_label'; it has {schema.names}")
        if not pa.types.is_integer(kind := schema.field(label).type):
            raise InputError(f"prepare: {path}: column '{label}' is {kind}; integer class numbers are needed")
        try:
            info: Any = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
            names = info.get("info", {}).get("features", {}).get(label, {}).get("names")
        except (ValueError, AttributeError):
            names = None
        return image, label, names

    def _label_range(self) -> tuple[int, int]:
        low, high = 0, 0
        for values in self._labels.values():
            bounds = pc.min_max(values).as_py()
            low, high = min(low, bounds["min"] or 0), max(high, bounds["max"] or 0)
            if values.null_count:
                raise InputError(f"prepare: {self.folder}: {values.null_count} rows have no label")
        return low, high

    def _check_classes(self) -> None:
        for split, values in self._labels.items():
            present = set(pc.unique(values).to_pylist())
            empty = [name for label, name in enumerate(self.classes) if label not in present]
            if empty:
                raise InputError(f"prepare: {self.folder}: {split} has no image of class {some(empty)}")

    @cached_property
    def _labels(self) -> dict[str, pa.ChunkedArray]:
        return {
            split: pa.chunked_array([chunk for path in files for chunk in _column(path, self.label).chunks])
            for split, files in self.files.items()
        }

    @cached_property
    def _named(self) -> dict[str, bool]:
        """Whether the images of a split carry distinct paths, which then are their keys."""
        result = {}
        for split, files in self.files.items():
            paths = pa.chunked_array(
                [
                    pc.struct_field(chunk, "path").cast(pa.string())
                    for path in files
                    for chunk in _column(path, f"{self.image}.path").chunks
                ]
            )
            result[split] = paths.null_count == 0 and len(pc.unique(paths)) == len(paths)
        return result

    def contents(self) -> str:
        return digest((str(p.relative_to(self.folder)), p.stat().st_size) for f in self.files.values() for p in f)

    def count(self, split: str) -> int:
        return sum(pq.read_metadata(path).num_rows for path in self.files.get(split, ()))

    def examples(self, split: str, start: int) -> Iterator[Example]:
        for path in self.files[split]:
            with pq.ParquetFile(path) as file:
                row = 0
                for group in range(file.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    if start >= rows:  # finished before an interruption
                        start, row = start - rows, row + rows
                        continue
                    for batch in file.iter_batches(256, row_groups=[group], columns=[self.image, self.label]):
                        for image, label in zip(batch.column(0), batch.column(1), strict=True):
                            if start:
                                start -= 1
                            else:
                                yield self._example(path, split, row, image.as_py(), label.as_py())
                            row += 1

    def _example(self, path: Path, split: str, row: int, image: dict[str, Any] | None, label: int) -> Example:
        place = f"{path} row {row}"
        data = (image or {}).get("bytes") or b""  # an empty image is reported like any corrupt one
        key = image["path"] if image and self._named[split] else f"{path.relative_to(self.folder).as_posix()}#{row}"
        return Example(key, data, label, place)


def _column(path: Path, name: str) -> pa.ChunkedArray:
    """One column of a parquet file; of a nested name such as `image.path`, the struct with that field alone."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=[name]).column(0)


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}
