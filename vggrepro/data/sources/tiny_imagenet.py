"""Tiny ImageNet as Stanford's CS231n gives it out: validation images in one folder, their labels in a list."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from vggrepro.data.sources.folders import FolderSource
from vggrepro.data.sources.listing import Listing, Part, image_files, split_folder
from vggrepro.errors import InputError

ANNOTATIONS = "val_annotations.txt"  # name, wnid and box of each validation image, tab-separated


class TinyImageNetSource(FolderSource):
    """`train/<wnid>/images/*.JPEG`, `val/images/*.JPEG` with `val/val_annotations.txt`, `test/images/*.JPEG`.

    Classes are the wnids of `wnids.txt`, sorted; their words are those of `words.txt`.
    """

    lists = ("wnids.txt", "words.txt")
    layout = "Tiny ImageNet as downloaded (train/<wnid>/images/, val/images/, val/val_annotations.txt)"

    @classmethod
    def recognises(cls, folder: Path, val_only: bool = False) -> bool:
        root = split_folder(folder, "val")
        there = root is not None and (root / ANNOTATIONS).is_file() and (root / "images").is_dir()
        return there and (val_only or split_folder(folder, "train") is not None)

    def __init__(self, folder: Path, *, val_only: bool = False) -> None:
        super().__init__(folder, val_only=val_only)
        self.description = f"Tiny ImageNet {self.folder}"
        known = self._lists.get("words.txt", {})
        self.words = tuple(
            known.get(name, old) for name, old in zip(self.classes, self.words or self.classes, strict=True)
        )

    @cached_property
    def _lists(self) -> dict[str, dict[str, str]]:
        """The lines of each list that is there: the first column, and the second or nothing."""
        root = split_folder(self.folder, "val")
        assert root is not None
        paths = [*(self.folder / name for name in self.lists), root / ANNOTATIONS]
        return {path.name: _pairs(path) for path in paths if path.is_file()}

    def _folders(self, split: str) -> dict[str, Path]:
        """The classes of a split; those of val have no folders of their own."""
        if split == "train":
            return super()._folders(split)
        if split == "test":
            return {}
        root = split_folder(self.folder, "val")
        assert root is not None
        listed = self._lists.get("wnids.txt") or (None if self.val_only else super()._folders("train"))
        return dict.fromkeys(listed or self._lists[ANNOTATIONS].values(), root / "images")

    def _list(self) -> dict[str, Listing]:
        result = {"val": Listing(self._val())}
        if not self.val_only:
            result["train"] = Listing(self._labelled(self._places["train"]))
            if (folder := split_folder(self.folder, "test")) is not None:
                result["test"] = Listing(self._test(folder))
            self._count_loose("train")
        self._count_beside()
        return result

    def _val(self) -> Iterator[Part]:
        """The validation images by name, labelled by the list."""
        root, wnids = split_folder(self.folder, "val"), self._lists[ANNOTATIONS]
        assert root is not None
        index = {name: label for label, name in enumerate(self.classes)}
        files = image_files(root / "images", self._left, deep=False)
        if not len(files):
            raise InputError(f"prepare: {root / 'images'} holds no image; unpack it again")
        labels = np.empty(len(files), np.int32)
        for row in range(len(files)):
            name = files.name(row)
            if name not in wnids:
                raise InputError(
                    f"prepare: {files.path(row)} has no line in {root / ANNOTATIONS}; add one or remove it"
                )
            if wnids[name] not in index:
                raise InputError(
                    f"prepare: {root / ANNOTATIONS}: '{wnids[name][:40]}' of {name} is none of the {len(index)} "
                    "classes; mend the line, or remove the image"
                )
            labels[row] = index[wnids[name]]
        yield Part(files, labels)


def _pairs(path: Path) -> dict[str, str]:
    """The first two columns of a tab-separated list; the second is "" where there is one column."""
    try:
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"prepare: {path} cannot be read ({error}); unpack it again") from None
    if not rows or (path.name == ANNOTATIONS and min(map(len, rows)) < 2):
        raise InputError(f"prepare: {path} is empty or has a line without a tab; unpack it again")
    return {row[0].strip(): row[1].strip() if len(row) > 1 else "" for row in rows}
