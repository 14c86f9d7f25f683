"""ILSVRC-2012 as people have it: the official tars as downloaded, unpacked folders, Kaggle's copy, mixtures.

Whatever the layout, keys, labels and order are the same: train by wnid, then by name; val and test by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vggrepro.data import synsets
from vggrepro.data.sources import devkit
from vggrepro.data.sources.archives import Members, members, nested
from vggrepro.data.sources.base import VAL_ONLY, LeftOut, digest, is_hidden
from vggrepro.data.sources.listing import (
    Files,
    ListedSource,
    Listing,
    Part,
    image_files,
    image_members,
    is_image,
    split_folder,
    subfolders,
)
from vggrepro.errors import InputError
from vggrepro.system.progress import Track

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
TEST_TARS = "ILSVRC2012_img_test*.tar"  # that of 2012; that of 2019 without faulty images; the patch to get there

MD5 = {
    TRAIN_TAR: "1d675b47d978889d74fa0da5fadfb00e",
    VAL_TAR: "29b22e2961454d5413ddabcf34fc5622",
    devkit.TAR: "fa75699e90414af021442c21a62c3abf",
    "ILSVRC2012_img_test_v10102019.tar": "e1b8681fff3d63731c599df9b4b6fc02",
    "ILSVRC2012_img_test.tar": "fe64ceb247e473635708aed23ab6d839",
}


class IlsvrcSource(ListedSource):
    """ILSVRC-2012: classes are the devkit's 1000 leaf synsets, sorted by wnid.

    Where both a tar and a folder hold a split or a class, the tar counts: a folder may be half unpacked.
    """

    layout = (
        f"ILSVRC-2012 as downloaded ({TRAIN_TAR}, {VAL_TAR}, {devkit.TAR}), unpacked (train/<wnid>/, val/ and the "
        "devkit) or from Kaggle"
    )
    name = "imagenet"

    @classmethod
    def recognises(cls, folder: Path, val_only: bool = False) -> bool:
        if (data := _data_folder(folder)) != folder or any((folder / name).is_file() for name in (TRAIN_TAR, VAL_TAR)):
            return True
        validation = split_folder(data, "val")
        if val_only and validation is not None and any(_of_ilsvrc(path) for path in validation.iterdir()):
            return True  # flat
        if (classes := validation if val_only else split_folder(data, "train")) is None:
            return False
        present = {path.name for path in classes.iterdir()}  # 1000 names, or some more
        wnids = present & synsets.table().keys()
        tars = present & {f"{wnid}.tar" for wnid in synsets.table()}
        if tars or (wnids and any((folder / name).exists() for name in (devkit.TAR, devkit.FOLDER, devkit.SOLUTION))):
            return True
        flat = validation is not None and any(is_image(path.name) for path in validation.iterdir())
        return bool(wnids) and (flat or len(wnids) == devkit.CLASSES)

    def __init__(self, folder: Path, *, val_only: bool = False) -> None:
        self.folder = folder.resolve()
        self.val_only = val_only
        self.data = _data_folder(self.folder)
        self.description = f"ILSVRC-2012 {self.folder}"
        above = self.data.parents[2:3] if self.data.parts[-3:] == ("ILSVRC", "Data", "CLS-LOC") else ()
        self.devkit = devkit.find(dict.fromkeys((self.folder, self.data, *above)))
        self.classes = tuple(synset.wnid for synset in self.devkit.synsets)
        self.words = tuple(synset.words for synset in self.devkit.synsets)
        self.devkit_ids = tuple(synset.id for synset in self.devkit.synsets)
        self._index = {wnid: label for label, wnid in enumerate(self.classes)}
        if len(self.devkit.truth) == synsets.VAL_IMAGES:
            synsets.check_first_images(self.devkit.truth, str(self.devkit.path))
        self.subset = synsets.subset(None if val_only else self.count("train"), self.count("val"))

    def _list(self) -> dict[str, Listing]:
        if self.val_only:
            return {"val": self._val()}
        return {"val": self._val(), "test": self._test(), "train": self._train()}  # the longest last

    def _tar(self, name: str) -> Path | None:
        return next((path for path in (self.folder / name, self.data / name) if path.is_file()), None)

    def _train(self) -> Listing:
        tar, root = self._tar(TRAIN_TAR), split_folder(self.data, "train")
        if (place := tar or root) is None:
            near = sorted(path.name for path in self.data.glob("ILSVRC2012_img_train*"))
            found = f" ({near[0]} is no such file: rename or gunzip it)" if near else ""
            raise InputError(
                f"prepare: {self.data} has no {TRAIN_TAR} and no train/ folder{found}; put one there, or {VAL_ONLY}"
            )
        parts: dict[str, Part] = {}
        with Track(f"index {place.name}", devkit.CLASSES, "classes") as track:
            for name, images in _inner_tars(tar, self._left) if tar else _class_places(place, self._left):
                label = self._label(name, place)
                if name in parts:
                    raise InputError(f"prepare: {place}: two tars of class {name}; download it again")
                parts[name] = Part.of(images, label, f"{name}/")
                track.advance(1)
        if not any(len(part) for part in parts.values()):
            what = f"no inner tars <wnid>.tar with images; take {TRAIN_TAR} as downloaded"
            raise InputError(f"prepare: {place}: {what if tar else 'no images in train/<wnid>/; put them there'}")
        return Listing(part for _, part in sorted(parts.items()))

    def _val(self) -> Listing:
        tar, root = self._tar(VAL_TAR), split_folder(self.data, "val")
        if (place := tar or root) is None:
            raise InputError(
                f"prepare: {self.data} has no {VAL_TAR} and no val/ folder; the paper's errors need a validation set"
            )
        flat = image_members(members(tar), self._left) if tar else image_files(place, self._left, deep=False)
        parts = [Part(flat, self._by_number(flat, place))] if len(flat) else []
        folders = [] if tar else subfolders(place)
        parts += [
            Part.of(image_files(path, self._left), self._label(path.name, place), f"{path.name}/") for path in folders
        ]
        if not sum(map(len, parts)):
            raise InputError(f"prepare: {place} holds no validation image; put them there")
        return Listing(self._checked(parts, len(flat), place), by_name=True)

    def _by_number(self, images: Files | Members, place: Path) -> np.ndarray:
        """The labels of validation images that lie in no class folder."""
        if self.devkit.path is None:
            raise InputError(
                f"prepare: {place} holds images without class folders, and no {devkit.TAR} is beside it: the labels of "
                f"the flat val images are there; put it in {self.folder} (Kaggle's {devkit.SOLUTION} serves as well)"
            )
        labels = np.empty(len(images), np.int32)
        for row in range(len(images)):
            number = synsets.val_number(images.name(row))
            if number not in self.devkit.truth:
                raise InputError(
                    f"prepare: {place}: '{images.name(row)}' has no line in the ground truth of {self.devkit.path} "
                    f"({len(self.devkit.truth):,} lines); remove it, or take the devkit that belongs to the images"
                )
            labels[row] = self.devkit.truth[number]
        return labels

    def _checked(self, parts: list[Part], flat: int, place: Path) -> list[Part]:
        """The parts of val with their final keys, if all is as the ground truth says."""
        count, truth = sum(map(len, parts)), self.devkit.truth
        if flat and count != len(truth):
            raise InputError(
                f"prepare: {place} holds {count:,} images, but the ground truth of {self.devkit.path} has "
                f"{len(truth):,} lines; unpack or download the images again"
            )
        found: dict[int, int] = {}
        for part in parts:
            for row in range(len(part)):
                if (number := synsets.val_number(part.images.name(row))) is None:
                    return parts  # file names of one's own are unique in their class folders only
                label = int(part.labels[row])
                if number in found:
                    raise InputError(f"prepare: {place} holds validation image {number} twice; remove one of them")
                if truth and truth.get(number) != label:
                    raise InputError(
                        f"prepare: {place}: '{part.key(row)}' is not in the class folder that the ground truth of "
                        f"{self.devkit.path} says; sort the images again"
                    )
                found[number] = label
        if count == synsets.VAL_IMAGES:
            synsets.check_first_images(found, str(place))
        return [Part(part.images, part.labels) for part in parts]

    def _test(self) -> Listing:
        tars = sorted({path for folder in (self.folder, self.data) for path in folder.glob(TEST_TARS)})
        held: Files | Members
        if base := [path for path in tars if "patch" not in path.name]:
            held = image_members(members(base[-1]), self._left)  # that of 2019, if both are there
        elif root := split_folder(self.data, "test"):
            held = image_files(root, self._left, deep=False)
        else:
            return Listing(())
        parts: list[Files | Members] = [held]
        for patch in (image_members(members(path), self._left) for path in tars if "patch" in path.name):
            parts = [images.select(~np.isin(images.names, patch.names)) for images in parts] + [patch]
        return Listing((Part.of(images, -1) for images in parts), by_name=True)

    def _label(self, wnid: str, place: Path) -> int:
        if wnid not in self._index:
            raise InputError(
                f"prepare: {place}: '{wnid}' is no wnid of ILSVRC-2012's {devkit.CLASSES} classes; remove it, or take "
                "the devkit that belongs to the images"
            )
        return self._index[wnid]

    def contents(self) -> str:
        truth = hashlib.sha256(json.dumps([self.classes, sorted(self.devkit.truth.items())]).encode()).hexdigest()
        found = [(f"{split}/{name}", n) for split, images in self._images.items() for name, n in images.digests()]
        return digest([*found, (truth, len(self.devkit.truth))])

    def checksums(self) -> list[tuple[Path, str]]:
        names = (VAL_TAR, devkit.TAR) if self.val_only else tuple(MD5)
        tars = [(path, MD5[name]) for name in names if (path := self._tar(name)) is not None]
        if self.devkit.path is not None and self.devkit.path.name == devkit.TAR:  # in Kaggle's folder, it is above
            tars = [*(pair for pair in tars if pair[0].name != devkit.TAR), (self.devkit.path, MD5[devkit.TAR])]
        return tars


def _data_folder(folder: Path) -> Path:
    """The folder with train/ and val/: the one given, or that of Kaggle's copy in it."""
    kaggle = (folder / inner for inner in ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC"))
    return next((path for path in kaggle if path.is_dir()), folder)


def _of_ilsvrc(path: Path) -> bool:
    """Whether a file is one of ILSVRC-2012's validation images by its name."""
    return is_image(path.name) and synsets.val_number(path.name) is not None


def _inner_tars(tar: Path, left: LeftOut) -> Iterator[tuple[str, Files | Members]]:
    for name, held in nested(tar):
        yield name.rpartition("/")[2].removesuffix(".tar"), image_members(held, left)


def _class_places(root: Path, left: LeftOut) -> Iterator[tuple[str, Files | Members]]:
    """The classes in a train folder; some may still be in tars."""
    names = {path.name for path in subfolders(root)}
    tars = {path.stem: path for path in root.glob("*.tar") if synsets.WNID.fullmatch(path.stem)}
    for name in sorted(names | tars.keys()):
        yield name, image_members(members(tars[name]), left) if name in tars else image_files(root / name, left)
    loose = [path for path in root.iterdir() if path.name not in names and path.stem not in tars]
    left.hidden += sum(is_hidden(path.name) for path in loose)
    left.others[f"in {root.name}/ without a class"] += sum(not is_hidden(path.name) for path in loose)
