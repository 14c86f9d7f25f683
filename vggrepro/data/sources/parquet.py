"""Folders of Hugging Face parquet files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pandas.util import hash_array

from vggrepro.data import synsets
from vggrepro.data.sources.base import (
    TRAIN_NAMES,
    VAL_NAMES,
    Example,
    Source,
    digest,
    is_hidden,
    refuse_lfs_pointer,
    some,
)
from vggrepro.data.sources.listing import subfolders
from vggrepro.data.sources.sharded import CLASS_TABLE, class_table, usable_splits
from vggrepro.errors import InputError

# `n01440764_10026.JPEG`; at the end: `n01440764_10026_n01440764.JPEG`, `ILSVRC2012_val_00000001_n01751748.JPEG`
_WNID = r"(?:^|[/_])(?P<wnid>n[0-9]{8})(?:_[0-9]+)?\.[A-Za-z]+$"
_VAL = r"(?:^|/)ILSVRC2012_val_[0-9]{8}(?:_(?P<wnid>n[0-9]{8}))?\.[A-Za-z]+$"


# Puts the images that a file's paths name into the file; a line of shell.
EMBED = (
    'python -c "import sys, pyarrow as pa, pyarrow.parquet as pq; f = sys.argv[1]; t = pq.read_table(f); '
    "n = t.schema.get_field_index('{image}'); "
    "v = [dict(bytes=open(r['path'], 'rb').read(), path=r['path']) for r in t['{image}'].to_pylist()]; "
    'c = t.schema.field(n); pq.write_table(t.set_column(n, c, pa.array(v, c.type)), f)" {path}'
)


class ParquetSource(Source):
    """Hugging Face parquet files: `image: struct{bytes, path}`, `label: int`, class names in the footer.

    A file's split is the first word of its name (`train-00000-of-00003.parquet`) or its folder's name
    (`train/0000.parquet`). Without a validation split, `test` serves as one; beside one, its labels may all be
    missing (-1). Where the images' paths carry wnids that go with the labels one to one, as in ILSVRC/imagenet-1k,
    these are the classes, and the names in the footer are for people. `val_only` asks for validation files alone.
    """

    layout = "a folder of Hugging Face parquet files (train-*.parquet, validation-*.parquet)"

    @classmethod
    def recognises(cls, folder: Path, val_only: bool = False) -> bool:
        return bool(_parquet_files(folder))

    def __init__(self, folder: Path, *, val_only: bool = False) -> None:
        self.folder = folder.resolve()
        self.val_only = val_only
        self.name = self.folder.name
        self.description = f"parquet files {self.folder}"
        self.files = self._find_files()
        first = self.files[self.required[0]][0]
        self.image, self.label, names = self._columns(first)
        for path in (path for files in self.files.values() for path in files):
            image, label, others = self._columns(path)
            if (image, label) != (self.image, self.label):
                raise InputError(f"prepare: {path}: columns '{image}', '{label}' differ from the first file's")
            if others != names:
                raise InputError(f"prepare: {path}: its class names differ from {first.name}'s")
        if names is None and val_only and self._is_imagenets:
            names = list(synsets.table())
        if names is None:
            highest, most = max(self._label_bounds(split)[1] for split in self.required), self.count(self.required[0])
            if highest >= most:
                raise InputError(f"prepare: {self.folder}: label {highest}, but only {most} {self.required[0]} images")
            names = [str(n) for n in range(1 + highest)]
            self._set_classes(names, [])
        else:
            self._set_classes(names, names)
        for split in self.files:
            low, high = self._label_bounds(split)
            if (low < 0 or high >= len(names)) and not (split == "test" and low == high == -1):
                raise InputError(
                    f"prepare: {self.folder}: label {low if low < 0 else high} of {split} is outside the "
                    f"{len(names)} classes"
                )
        self._check_imagenet()
        self._check_classes()
        for files in self.files.values():
            self._check_bytes(files[0])

    def _check_bytes(self, path: Path) -> None:
        """Refuses files that hold paths in place of images; it reads only the first image."""
        with _reading(path), pq.ParquetFile(path) as file:
            first = next(file.iter_batches(1, columns=[self.image]), None)
        image = first.column(0)[0].as_py() if first is not None and len(first) else None
        if image and image["path"] and image["bytes"] is None:
            raise InputError(
                f"prepare: {path}: its images are paths ({image['path'][:60]}), not bytes; in the folder where these "
                f"paths begin, embed them in each file: {EMBED.format(image=self.image, path=shlex.quote(str(path)))}"
            )

    def _find_files(self) -> dict[str, list[Path]]:
        by_word: dict[str, list[Path]] = {}
        paths = _parquet_files(self.folder)
        for path in paths:
            word = path.name.removesuffix(".parquet").split("-")[0].split(".")[0].lower()
            if (parent := path.parent.name.lower()) in (*TRAIN_NAMES, *VAL_NAMES, "test"):
                word = parent  # train/0000.parquet
            by_word.setdefault(word, []).append(path)
        splits = {
            "train": next((by_word[name] for name in TRAIN_NAMES if name in by_word), []),
            "val": next((by_word[name] for name in VAL_NAMES if name in by_word), []),
            "test": by_word.get("test", []),
        }
        self._unused = len(paths) - sum(map(len, splits.values()))
        naming = "names start with their split, such as train-00000-of-00001.parquet"
        return usable_splits(splits, self.required, self.folder, "parquet files", sorted(by_word), naming)

    def left_out(self) -> dict[str, int]:
        return {"parquet files of no split": self._unused} if self._unused and not self.val_only else {}

    def _columns(self, path: Path) -> tuple[str, str, list[str] | None]:
        """Names of the image and label columns, and the class names if the footer has them."""
        with _reading(path):
            schema = pq.read_schema(path)
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
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise InputError(f"prepare: {path}: the class names in its footer are no list of names; download it again")
        return image, label, names

    def _set_classes(self, names: list[str], words: list[str]) -> None:
        """Sets the classes: wnids where they can be known, else `names`; `words` are what people call them."""
        if all(synsets.WNID.fullmatch(name) for name in names):
            wnids, words = names, []
        else:
            wnids = self._wnids(len(names))
        if listed := class_table(self.folder):
            if len(listed) != len(names) or (wnids and wnids != [wnid for wnid, _ in listed]):
                path = self.folder / CLASS_TABLE
                raise InputError(f"prepare: {path} lists other classes than the parquet files have; mend or remove it")
            wnids, words = [wnid for wnid, _ in listed], [text for _, text in listed]
        self.classes = tuple(wnids or names)
        known = words if wnids and words else synsets.words(self.classes)
        self.words = tuple(word or name for word, name in zip(known, self.classes, strict=True)) if any(known) else ()
        self.devkit_ids = synsets.devkit_ids(self.classes)

    def _wnids(self, count: int) -> list[str]:
        """Each label's wnid, if all training and validation images carry one and the two correspond one to one."""
        if self.val_only and count == len(synsets.table()) and self._is_imagenets:
            return list(synsets.table())  # of which a part of the validation images may not show all
        files = (path for split in self.required for path in self.files[split])
        found = synsets.one_to_one(pair for path in files for pair in self._pairs(path, _WNID))
        return [found[label] for label in range(count)] if sorted(found) == list(range(count)) else []

    def _pairs(self, path: Path, pattern: str) -> Iterator[tuple[int, str | None]]:
        """The different pairs of label and wnid in a file; `pattern` finds the wnids in its images' paths."""
        wnids = pc.struct_field(pc.extract_regex(self._paths(path), pattern), "wnid")
        table = pa.table({"label": _column(path, self.label), "wnid": wnids})
        for pair in table.group_by(["label", "wnid"]).aggregate([]).to_pylist():
            yield pair["label"], pair["wnid"]

    def _check_imagenet(self) -> None:
        """Checks by the first validation images of ImageNet that labels are in the order of wnids."""
        whole = self.count("val") == synsets.VAL_IMAGES
        if len(self.classes) != len(synsets.table()) or not (whole or self.val_only):
            return
        if whole:
            synsets.check_first_images(self._first_images, str(self.folder))
        shown = self._is_imagenets if self.val_only else self._first_images.keys() == synsets.FIRST_IMAGES.keys()
        if shown and self.classes == tuple(synsets.table()):
            train = None if self.val_only else self.count("train")
            self.name, self.subset = "imagenet", synsets.subset(train, self.count("val"))

    @cached_property
    def _first_images(self) -> dict[int, int]:
        """The labels of ImageNet's first four validation images by their numbers, where they are."""
        first: dict[int, int] = {}
        for path in self.files["val"]:
            paths = self._paths(path)
            mask = pc.match_substring_regex(paths, "ILSVRC2012_val_0000000[1-4][._]")
            labels = _column(path, self.label).filter(mask).to_pylist()
            for name, label in zip(paths.filter(mask).to_pylist(), labels, strict=True):
                if (number := synsets.val_number(name.rpartition("/")[2])) is not None:
                    first[number] = label
        return first

    @cached_property
    def _is_imagenets(self) -> bool:
        """Whether val is ImageNet's or a part of it: names say so, and by wnids or first images its order is known."""
        pairs = (pair for path in self.files["val"] for pair in self._pairs(path, _VAL))
        return synsets.is_validation(pairs, self._first_images)

    def _label_bounds(self, split: str) -> tuple[int, int]:
        values = self._labels[split]
        if values.null_count:
            raise InputError(f"prepare: {self.folder}: {values.null_count} rows of {split} have no label")
        bounds = pc.min_max(values).as_py()
        return bounds["min"] or 0, bounds["max"] or 0

    def _check_classes(self) -> None:
        if self.val_only and self.subset:
            return  # ImageNet's 1000, whichever are shown
        for split in self.required:
            present = set(pc.unique(self._labels[split]).to_pylist())
            empty = [name for label, name in enumerate(self.classes) if label not in present]
            if empty:
                raise InputError(f"prepare: {self.folder}: {split} has no image of class {some(empty)}")

    def _paths(self, path: Path) -> pa.ChunkedArray:
        column = _column(path, f"{self.image}.path")
        chunks = [pc.struct_field(chunk, "path").cast(pa.string()) for chunk in column.chunks]
        return pa.chunked_array(chunks, pa.string())

    @cached_property
    def _labels(self) -> dict[str, pa.ChunkedArray]:
        labels = {
            split: pa.chunked_array([chunk for path in files for chunk in _column(path, self.label).chunks])
            for split, files in self.files.items()
        }
        if "test" in labels:
            labels["test"] = labels["test"].cast(pa.int64()).fill_null(-1)
        return labels

    @cached_property
    def _named(self) -> dict[str, bool]:
        """Whether the images of a split carry distinct paths, which then are their keys."""
        return {split: self._distinct(files) for split, files in self.files.items()}

    def _distinct(self, files: list[Path]) -> bool:
        """Whether all paths are there and differ, told by hashes: of a million paths, these take 10 MB."""
        hashes = [np.empty(0, np.uint64)]
        for path in files:
            for chunk in self._paths(path).chunks:
                if chunk.null_count:
                    return False
                for start in range(0, len(chunk), 10_000):
                    names = chunk.slice(start, 10_000).to_numpy(zero_copy_only=False)
                    hashes.append(hash_array(names, categorize=False))
        joined = np.concatenate(hashes)
        return len(np.unique(joined)) == len(joined)

    def contents(self) -> str:
        return digest((str(p.relative_to(self.folder)), p.stat().st_size) for f in self.files.values() for p in f)

    def count(self, split: str) -> int:
        return len(self._labels.get(split, ()))

    def examples(self, split: str, start: int) -> Iterator[Example]:
        for path in self.files[split]:
            with _reading(path), pq.ParquetFile(path) as file:
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

    def _example(self, path: Path, split: str, row: int, image: dict[str, Any] | None, label: int | None) -> Example:
        place = f"{path} row {row}"
        data = (image or {}).get("bytes") or b""  # an empty image is reported like any corrupt one
        key = image["path"] if image and self._named[split] else f"{path.relative_to(self.folder).as_posix()}#{row}"
        return Example(key, data, -1 if label is None else label, place)


def _parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder as on the Hub: in it, in `data/` or a configuration's folder, or in a split's."""
    inner = {"data", "default", "plain_text", *TRAIN_NAMES, *VAL_NAMES, "test"}
    near = [entry for entry in subfolders(folder) if entry.name.lower() in inner]
    deep = [entry for parent in near for entry in subfolders(parent) if entry.name.lower() in inner]
    found = (path for place in (folder, *near, *deep) for path in place.glob("*.parquet"))
    return sorted(path for path in found if not is_hidden(path.name))


def _column(path: Path, name: str) -> pa.ChunkedArray:
    """One column of a parquet file; of a nested name such as `image.path`, the struct with that field alone."""
    with _reading(path), pq.ParquetFile(path) as file:
        column = file.read(columns=[name]).column(0)
        if len(column) != file.metadata.num_rows:
            raise pa.ArrowInvalid(f"column {name} has {len(column):,} of {file.metadata.num_rows:,} rows")
        return column


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what Arrow's readers and Python's decoder raise for a damaged file into an InputError that names it."""
    try:
        yield
    except (pa.ArrowException, pa.ArrowMemoryError, UnicodeDecodeError, OSError) as error:
        refuse_lfs_pointer(path)
        what = " ".join(str(error).split())
        raise InputError(f"prepare: {path}: damaged parquet file ({what}); download it again") from None


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}
