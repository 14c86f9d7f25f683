"""Numbered class folders of ImageNet, as ImageNet-V2 has them: `0/`, `1/`, … `999/`."""

from __future__ import annotations

from pathlib import Path

from vggrepro.data import synsets
from vggrepro.data.sources.base import VAL_ONLY
from vggrepro.data.sources.folders import FolderSource
from vggrepro.data.sources.listing import split_folder, subfolders
from vggrepro.errors import InputError
from vggrepro.system.progress import say


class NumberedSource(FolderSource):
    """Validation images in 1000 folders named by ImageNet's class indices, in the folder itself or in its `val/`.

    The class of folder N is the N-th wnid, from 0. Sorted as text, 10 would come before 2, and nearly every label
    would be wrong.
    """

    layout = "ImageNet-V2's folders 0, 1, … 999 of validation images"

    @classmethod
    def recognises(cls, folder: Path, val_only: bool = False) -> bool:
        numbers = {str(number) for number in range(len(synsets.table()))}
        places = [folder, split_folder(folder, "val") if val_only else None]
        return any(place is not None and {path.name for path in subfolders(place)} == numbers for place in places)

    def __init__(self, folder: Path, *, val_only: bool = False) -> None:
        if not val_only:
            raise InputError(f"prepare: {folder} holds validation images only; {VAL_ONLY}")
        super().__init__(folder, val_only=True)
        self.description = f"numbered folders {self.folder}"
        self.devkit_ids = synsets.devkit_ids(self.classes)
        say(
            f"prepare: the folders 0 to {len(self.classes) - 1} are taken for ImageNet's class indices in the order of "
            f"wnids (0 is {self.classes[0]}, {self.words[0]}), not sorted as text"
        )

    def _folders(self, split: str) -> dict[str, Path]:
        root = split_folder(self.folder, "val") or self.folder
        return {wnid: root / str(label) for label, wnid in enumerate(synsets.table())}

    def _count_beside(self) -> None:
        if split_folder(self.folder, "val"):
            super()._count_beside()
