"""Class folders: `train/<class>/*` and `val/<class>/*` image files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from vggrepro.data import synsets
from vggrepro.data.sources.base import IMAGE_SUFFIXES, Example, Source, digest, some
from vggrepro.data.sources.listing import Images, Part, image_files, split_folder
from vggrepro.errors import InputError
from vggrepro.system.progress import say


class FolderSource(Source):
    """`train/<class>/*` and `val/<class>/*` image files; classes are the folder names, sorted.

    Images in `test/<class>/` are a test split, those in `test/` one without labels. `val_only` asks for no `train/`.
    """

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
        names = self._class_names(self.required[0])
        if not names and not val_only:
            raise InputError(f"prepare: {folder}/train has no class folders; put images in train/<class>/")
        if not (validation := self._class_names("val")):
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

    def _class_names(self, split: str) -> list[str]:
        folder = split_folder(self.folder, split)
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".") if folder else []

    @cached_property
    def _images(self) -> dict[str, Images]:
        skipped = Counter[str]()
        result = {split: Images(self._labelled(split, self.classes, skipped)) for split in self.required}
        if not self.val_only and (folder := split_folder(self.folder, "test")) is not None:
            result["test"] = Images(self._test(folder, skipped))
        for split in self.required:
            root = split_folder(self.folder, split)
            if root is not None and len(loose := image_files(root, deep=False)):
                say(f"prepare: left out {len(loose):,} images that lie in {root} itself, without a class")
        if skipped:
            kinds = some([f"{count:,} {suffix}" for suffix, count in skipped.most_common()])
            say(f"prepare: left out {skipped.total():,} files that are no images by their suffix: {kinds}")
        return result

    def _labelled(self, split: str, names: tuple[str, ...], skipped: Counter[str]) -> Iterator[Part]:
        root = split_folder(self.folder, split)
        assert root is not None
        for name in names:
            files = image_files(root / name, skipped)
            if not len(files) and split != "test":
                everywhere = " and ".join(self.required)
                raise InputError(
                    f"prepare: class folder {root / name} holds no image "
                    f"({', '.join(sorted(IMAGE_SUFFIXES))}); fill it, or remove the class from {everywhere}"
                )
            yield Part.of(files, self.classes.index(name), f"{name}/")

    def _test(self, folder: Path, skipped: Counter[str]) -> Iterator[Part]:
        found = self._class_names("test")
        if not set(found) & set(self.classes):
            yield Part.of(image_files(folder, skipped), -1)
            return
        loose = image_files(folder, deep=False)
        if len(loose) or not set(found) <= set(self.classes):
            odd = sorted(set(found) - set(self.classes)) or [loose.path(0).name]
            raise InputError(
                f"prepare: {folder} holds class folders but also {some(odd)}; give all test images a class folder of "
                "train, or none"
            )
        yield from self._labelled("test", tuple(found), skipped)

    def contents(self) -> str:
        return digest((f"{split}/{name}", n) for split, images in self._images.items() for name, n in images.digests())

    def count(self, split: str) -> int:
        return len(self._images.get(split, ()))

    def examples(self, split: str, start: int) -> Iterator[Example]:
        return self._images[split].examples(start)
