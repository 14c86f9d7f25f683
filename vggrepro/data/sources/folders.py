"""Class folders: `train/<class>/*` and `val/<class>/*` image files."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from vggrepro.data import synsets
from vggrepro.data.sources.base import IMAGE_SUFFIXES, digest, is_hidden, some
from vggrepro.data.sources.listing import ListedSource, Listing, Part, image_files, is_image, split_folder, subfolders
from vggrepro.errors import InputError


class FolderSource(ListedSource):
    """`train/<class>/*` and `val/<class>/*` image files; classes are the folder names, sorted.

    Names are taken in Unicode's composed form (NFC): macOS writes `é` as two characters, other systems as one.
    Images in `test/<class>/` are a test split, those in `test/` one without labels. `val_only` asks for no `train/`.
    """

    lists: ClassVar[tuple[str, ...]] = ()  # files beside the splits that are read
    layout = "a folder with train/<class>/ and val/<class>/ image folders"

    @classmethod
    def recognises(cls, folder: Path, val_only: bool = False) -> bool:
        root = (split_folder(folder, "val") if val_only else None) or split_folder(folder, "train")
        return root is not None and not any(e.suffix in {".parquet", ".tar"} for e in root.iterdir())

    def __init__(self, folder: Path, *, val_only: bool = False) -> None:
        self.folder = folder.resolve()
        self.val_only = val_only
        self.name = self.folder.name
        self.description = f"class folders {self.folder}"
        self._places = {split: self._folders(split) for split in self.required}
        names = sorted(self._places[self.required[0]])
        if not names and not val_only:
            raise InputError(f"prepare: {folder}/train has no class folders; put images in train/<class>/")
        if not (validation := sorted(self._places["val"])):
            raise InputError(
                f"prepare: {folder} has no val/<class>/ folders; put images apart there: the paper's errors need a "
                "validation set"
            )
        if validation != names:
            only_train = sorted(set(names) - set(validation))
            only_val = sorted(set(validation) - set(names))
            what = f"only in train: {some(only_train)}; only in val: {some(only_val)}"
            raise InputError(f"prepare: {folder}: train and val hold different classes ({what}); give both the same")
        if odd := [name for name in names if not name.isprintable()]:
            raise InputError(f"prepare: {folder}: class folder {odd[0]!r} has a name that cannot be shown; rename it")
        self.classes = tuple(names)
        if any(words := synsets.words(names)):
            self.words = tuple(word or name for word, name in zip(words, names, strict=True))

    def _folders(self, split: str) -> dict[str, Path]:
        """The folder of each class in a split."""
        result: dict[str, Path] = {}
        for path in subfolders(root) if (root := split_folder(self.folder, split)) else []:
            name = unicodedata.normalize("NFC", path.name)
            if name in result:
                raise InputError(
                    f"prepare: {path.parent} has two folders '{name}' that differ in their Unicode form only (composed "
                    "and decomposed letters); put their images into one"
                )
            result[name] = path
        return result

    def _list(self) -> dict[str, Listing]:
        result = {split: Listing(self._labelled(self._places[split])) for split in self.required}
        if not self.val_only and (folder := split_folder(self.folder, "test")) is not None:
            result["test"] = Listing(self._test(folder))
        for split in result:
            self._count_loose(split)
        self._count_beside()
        return result

    def _count_loose(self, split: str) -> None:
        """Counts the files beside the class folders of a split, unless these are the images of test."""
        root = split_folder(self.folder, split)
        if root is None or (split == "test" and not self._folders(split).keys() & set(self.classes)):
            return
        for path in root.iterdir():
            if is_hidden(path.name):
                self._left.hidden += 1
            elif not path.is_dir():
                self._left.others[f"in {root.name}/ itself, without a class"] += 1

    def _count_beside(self) -> None:
        """Counts what lies beside the splits and is not read."""
        splits = [split_folder(self.folder, split) for split in ("train", "val", "test")]
        beside = [path for path in self.folder.iterdir() if path not in splits and path.name not in self.lists]
        self._left.hidden += sum(is_hidden(path.name) for path in beside)
        if names := sorted(path.name for path in beside if not is_hidden(path.name)):
            self._left.others[f"beside the splits ({some(names)})"] = len(names)

    def _labelled(self, places: dict[str, Path], may_be_empty: bool = False) -> Iterator[Part]:
        for name, place in sorted(places.items()):
            files = image_files(place, self._left)
            if not len(files) and not may_be_empty:
                everywhere = " and ".join(self.required)
                raise InputError(
                    f"prepare: class folder {place} holds no image "
                    f"({', '.join(sorted(IMAGE_SUFFIXES))}); fill it, or remove the class from {everywhere}"
                )
            yield Part.of(files, self.classes.index(name), f"{name}/")

    def _test(self, folder: Path) -> Iterator[Part]:
        places = self._folders("test")
        if not places.keys() & set(self.classes):
            yield Part.of(image_files(folder, self._left), -1)
            return
        loose = sorted(path.name for path in folder.iterdir() if is_image(path.name) and not path.is_dir())
        if odd := sorted(places.keys() - set(self.classes)) or loose[:1]:
            raise InputError(
                f"prepare: {folder} holds class folders but also {some(odd)}; put every test image into a class "
                "folder of train, or none of them"
            )
        yield from self._labelled(places, may_be_empty=True)

    def contents(self) -> str:
        return digest((f"{split}/{name}", n) for split, images in self._images.items() for name, n in images.digests())
