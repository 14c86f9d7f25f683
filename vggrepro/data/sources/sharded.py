"""What folders of parquet files and of WebDataset tars share: which files are of which split, and lists of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vggrepro.data.sources.base import TRAIN_NAMES, VAL_NAMES, VAL_ONLY, some
from vggrepro.errors import InputError

CLASS_TABLE = "classes.tsv"


def usable_splits(
    found: Mapping[str, list[Path]], required: Sequence[str], folder: Path, kind: str, there: list[str], naming: str
) -> dict[str, list[Path]]:
    """The files of each split that is to be read; without validation files, those of test serve.

    Args:
        found: the files of "train", "val" and "test"; none of a split: an empty list.
        required: the splits that must have files; with "val" alone no other is read.
        folder: where the files are, for messages; so are the next three.
        kind: what the files are.
        there: what was found instead.
        naming: how the files' names tell their split.

    Raises:
        InputError: no file of a required split.
    """
    splits = {"train": found["train"], "val": found["val"], "test": found["test"]}
    if not splits["val"]:
        splits["val"], splits["test"] = splits["test"], []
    for split, names in (("train", TRAIN_NAMES), ("val", (*VAL_NAMES, "test"))):
        if split in required and not splits[split]:
            without = f"; without any, {VAL_ONLY}" if split == "train" and splits["val"] else ""
            raise InputError(
                f"prepare: {folder}: no {' or '.join(names)} {kind} among {some(there)}; {naming}{without}"
            )
    read = required if "train" not in required else tuple(splits)
    return {split: paths for split, paths in splits.items() if paths and split in read}


def class_table(folder: Path) -> list[tuple[str, str]]:
    """The name and words of each class from `classes.tsv` (label, wnid, words; a heading may be there), if it is there.

    Raises:
        InputError: it cannot be read, or its labels are not 0, 1, 2, … in this order.
    """
    path = folder / CLASS_TABLE
    if not path.is_file():
        return []
    rows = [line.split("\t") for line in text_lines(path)]
    if not rows[0][0].isdecimal():  # a heading
        del rows[0]
    for label, row in enumerate(rows):
        if len(row) < 2 or row[0] != str(label):
            raise InputError(f"prepare: {path}: {some(row)!r} should be label {label}, wnid, words, tab-separated")
    if not rows:
        raise InputError(f"prepare: {path} has a heading and no classes; mend or remove it")
    return [(row[1], row[2] if len(row) > 2 else row[1]) for row in rows]


def text_lines(path: Path) -> list[str]:
    """A text file's lines.

    Raises:
        InputError: it cannot be read, or a line is empty.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"prepare: {path} cannot be read ({error}); mend or remove it") from None
    if not lines or "" in lines:
        line = lines.index("") + 1 if lines else 1
        raise InputError(f"prepare: {path}: line {line} is empty; give each class one line, in the order of labels")
    return lines
