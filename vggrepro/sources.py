"""Where images come from: each source is a class list and, for each split, a sequence of examples.

Sources know file layouts and nothing else; `prepare` decodes, measures and stores. An example is read when its
turn comes, so memory does not grow with the number of images, and a split can be entered at any position.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vggrepro.errors import InputError

IMAGE_SUFFIXES = {".jpeg", ".jpg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}
TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("validation", "valid", "val")

LAYOUTS = """known layouts: 'demo'; a folder with train/<class>/ and val/<class>/ image folders; \
a folder of Hugging Face parquet files (train-*.parquet, validation-*.parquet)"""


@dataclass(frozen=True, slots=True)
class Example:
    """An image as the source holds it: unique key in its split, original bytes, class index, where it is."""

    key: str
    data: bytes
    label: int
    place: str  # file, or file and row: for messages


class Source(Protocol):
    """What `prepare` needs of a source."""

    name: str  # of the data set, as in tables/<name>/
    description: str  # identifies the source when a preparation is resumed
    classes: tuple[str, ...]

    def contents(self) -> str:
        """Hash of its files' names and sizes, by which a changed source is told from the same."""

    def count(self, split: str) -> int:
        """Number of examples of split "train", "val" or "test" (0: no such split)."""

    def examples(self, split: str, start: int) -> Iterator[Example]:
        """The split's examples from position `start` on, always in the same order."""


def open_source(text: str, seed: int = 0) -> Source:
    """The source that SOURCE names on the command line.

    Raises:
        InputError: nothing there, or no known layout.
    """
    if text == "demo":
        return DemoSource(seed)
    folder = Path(text)
    if not folder.exists():
        raise InputError(f"prepare: '{text}' does not exist; give 'demo' or a folder ({LAYOUTS})")
    if not folder.is_dir():
        raise InputError(f"prepare: '{text}' is a file; give the folder that holds it ({LAYOUTS})")
    training = [folder / name for name in TRAIN_NAMES if (folder / name).is_dir()]
    if training and not any(training[0].glob("*.parquet")):
        return FolderSource(folder)
    if any(folder.rglob("*.parquet")):
        return ParquetSource(folder)
    raise InputError(f"prepare: '{text}' has no known layout; {LAYOUTS}")


class DemoSource:
    """The generated data set of `vggrepro prepare demo`."""

    name = "demo"
    counts: ClassVar = {"train": 4800, "val": 560}

    def __init__(self, seed: int) -> None:
        from vggrepro import demo

        self.seed = seed
        self.classes = demo.CLASSES
        self.description = f"demo, seed {seed}"

    def contents(self) -> str:
        return _digest((split, count) for split, count in self.counts.items())

    def count(self, split: str) -> int:
        return self.counts.get(split, 0)

    def examples(self, split: str, start: int) -> Iterator[Example]:
        from vggrepro import demo

        for index in range(start, self.count(split)):
            key, data, label = demo.example(self.seed, split, index)
            yield Example(key, data, label, f"demo image {key}")


class FolderSource:
    """`train/<class>/*` and `val/<class>/*` image files; classes are the folder names, sorted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.name = self.folder.name
        self.description = f"class folders {self.folder}"
        names = self._class_names("train")
        if not names:
            raise InputError(f"prepare: {folder}/train has no class folders; put images in train/<class>/")
        if not (validation := self._class_names("val")):
            raise InputError(f"prepare: {folder} has no val/<class>/ folders; the paper's errors need a validation set")
        if validation != names:
            only_train = sorted(set(names) - set(validation))
            only_val = sorted(set(validation) - set(names))
            what = f"only in train: {_some(only_train)}; only in val: {_some(only_val)}"
            raise InputError(f"prepare: {folder}: train and val hold different classes ({what})")
        self.classes = tuple(names)

    def _split_folder(self, split: str) -> Path | None:
        names = {"train": TRAIN_NAMES, "val": VAL_NAMES, "test": ("test",)}[split]
        return next((self.folder / name for name in names if (self.folder / name).is_dir()), None)

    def _class_names(self, split: str) -> list[str]:
        folder = self._split_folder(split)
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".") if folder else []

    @cached_property
    def _files(self) -> dict[str, list[tuple[Path, int]]]:
        result: dict[str, list[tuple[Path, int]]] = {}
        for split in ("train", "val"):
            folder = self._split_folder(split)
            assert folder is not None
            files: list[tuple[Path, int]] = []
            for label, name in enumerate(self.classes):
                found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
                if not found:
                    raise InputError(
                        f"prepare: class folder {folder / name} holds no image "
                        f"({', '.join(sorted(IMAGE_SUFFIXES))}); fill it, or remove the class from train and val"
                    )
                files.extend((path, label) for path in found)
            result[split] = files
        return result

    def contents(self) -> str:
        return _digest((str(p.relative_to(self.folder)), p.stat().st_size) for f in self._files.values() for p, _ in f)

    def count(self, split: str) -> int:
        return len(self._files.get(split, ()))

    def examples(self, split: str, start: int) -> Iterator[Example]:
        root = self._split_folder(split)
        assert root is not None
        for path, label in self._files[split][start:]:
            try:
                data = path.read_bytes()
            except OSError as error:  # such as a link to nowhere
                raise InputError(f"prepare: {path} cannot be read ({error.strerror}); mend or remove it") from None
            yield Example(path.relative_to(root).as_posix(), data, label, str(path))


class ParquetSource:
    """Hugging Face parquet files: `image: struct{bytes, path}`, `label: int`, class names in the footer.

    A file's split is the first word of its name (`train-00000-of-00003.parquet`) or its folder's name
    (`train/0000.parquet`). Without a validation split, `test` serves as one.
    """

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
                    f"{_some(sorted(by_word))}; names start with their split, such as train-00000-of-00001.parquet"
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
                raise InputError(f"prepare: {self.folder}: {split} has no image of class {_some(empty)}")

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
        return _digest((str(p.relative_to(self.folder)), p.stat().st_size) for f in self.files.values() for p in f)

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


def _digest(files: Iterable[tuple[str, int]]) -> str:
    """Hash of (name, size) pairs in any order."""
    return hashlib.sha256(json.dumps(sorted(files)).encode()).hexdigest()


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}


def _some(names: list[str], most: int = 5) -> str:
    """The first few names, for messages."""
    if not names:
        return "none"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
