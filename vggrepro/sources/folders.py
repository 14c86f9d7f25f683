"""Class folders: `train/<class>/*` and `val/<class>/*` image files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from vggrepro.errors import InputError
from vggrepro.sources.base import IMAGE_SUFFIXES, TRAIN_NAMES, VAL_NAMES, Example, Source, digest, some


class FolderSource(Source):
    """`train/<class>/*` and `val/<class>/*` image files; classes are the folder names, sorted."""

    layout = "a folder with train/<class>/ and val/<class>/ image folders"

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        training = next((folder / name for name in TRAIN_NAMES if (folder / name).is_dir()), None)
        return training is not None and not any(e.suffix in {".parquet", ".tar"} for e in training.iterdir())

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
            what = f"only in train: {some(only_train)}; only in val: {some(only_val)}"
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
        return digest((str(p.relative_to(self.folder)), p.stat().st_size) for f in self._files.values() for p, _ in f)

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
