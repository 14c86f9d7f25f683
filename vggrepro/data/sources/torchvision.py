"""Public data sets by name: torchvision downloads and reads them, then they are sources like any other.

Sets of image files are stored as these files: where a torchvision class takes a `loader`, the loader hands on the path
instead of pixels. Sets that come as arrays, and classes without `loader`, are stored as PNG: the exact pixels.
"""

from __future__ import annotations

import hashlib
import inspect
import io
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vggrepro.data.sources.base import Example, Source, digest
from vggrepro.errors import InputError
from vggrepro.system.progress import say

REDO = "remove its files and prepare it again"
PROBES = 16  # images of a split by which a changed set of arrays is told from the same


@dataclass(frozen=True, slots=True)
class NamedSet:
    """What torchvision calls a data set, and which of its parts serve as our splits.

    A published validation part is "val", and the test part beside it stays "test": training uses "val" to
    lower the rate, so "test" must not take its place. Only where no validation part was published, the test part is
    "val", as the validation images are in the paper.
    """

    kind: str  # of torchvision.datasets
    parts: dict[str, dict[str, Any]]  # arguments for each of our splits
    images: tuple[int, ...]  # published number in each split
    get: str  # what to fetch by hand, and the place of its contents in the downloads folder
    numbered: int = 0  # classes, where torchvision names none: their numbers are their names
    scipy: bool = False  # whether torchvision needs it, for .mat files


def _train_flag() -> dict[str, dict[str, Any]]:
    return {"train": {"train": True}, "val": {"train": False}}


def _parts(train: str = "train", val: str = "test", test: str = "", **more: Any) -> dict[str, dict[str, Any]]:
    parts = {"train": train, "val": val, "test": test}
    return {split: {"split": part, **more} for split, part in parts.items() if part}


def _imagenette(size: str, stem: str) -> NamedSet:
    get = f"https://s3.amazonaws.com/fast-ai-imageclas/{stem}.tgz, unpacked to {stem}/"
    return NamedSet("Imagenette", _parts(val="val", size=size), (9469, 3925), get)


def _mnist(kind: str, site: str) -> NamedSet:
    get = f"the four files *-ubyte.gz of {site}, gunzipped to {kind}/raw/"
    return NamedSet(kind, _train_flag(), (60000, 10000), get)


def _cifar(kind: str, archive: str, folder: str) -> NamedSet:
    get = f"https://www.cs.toronto.edu/~kriz/{archive}, unpacked to {folder}/"
    return NamedSet(kind, _train_flag(), (50000, 10000), get)


OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"

ENTRIES: dict[str, NamedSet] = {
    "imagenette": _imagenette("full", "imagenette2"),
    "imagenette-320": _imagenette("320px", "imagenette2-320"),
    "imagenette-160": _imagenette("160px", "imagenette2-160"),
    "cifar10": _cifar("CIFAR10", "cifar-10-python.tar.gz", "cifar-10-batches-py"),
    "cifar100": _cifar("CIFAR100", "cifar-100-python.tar.gz", "cifar-100-python"),
    "mnist": _mnist("MNIST", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
    "fashion-mnist": _mnist("FashionMNIST", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
    "kmnist": _mnist("KMNIST", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
    # Without its part "extra", 531,131 easier digits
    "svhn": NamedSet(
        "SVHN",
        _parts(),
        (73257, 26032),
        "train_32x32.mat and test_32x32.mat of http://ufldl.stanford.edu/housenumbers/, directly there",
        numbered=10,
        scipy=True,
    ),
    # Without its unlabelled part
    "stl10": NamedSet(
        "STL10",
        _parts(),
        (5000, 8000),
        "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz, unpacked to stl10_binary/",
    ),
    "food101": NamedSet(
        "Food101",
        _parts(),
        (75750, 25250),
        "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz, unpacked to food-101/",
    ),
    # The large part is the test part; each of the others has 10 images per class
    "flowers102": NamedSet(
        "Flowers102",
        _parts(val="val", test="test"),
        (1020, 1020, 6149),
        f"102flowers.tgz, imagelabels.mat and setid.mat of {OXFORD}/flowers/102/, unpacked to flowers-102/",
        scipy=True,
    ),
    "oxford-iiit-pet": NamedSet(
        "OxfordIIITPet",
        _parts("trainval"),
        (3680, 3669),
        f"images.tar.gz and annotations.tar.gz of {OXFORD}/pets/data/, unpacked to oxford-iiit-pet/",
    ),
    # The first of its ten partitions, as torchvision
    "dtd": NamedSet(
        "DTD",
        _parts(val="val", test="test"),
        (1880, 1880, 1880),
        f"{OXFORD}/dtd/download/dtd-r1.0.1.tar.gz, unpacked to dtd/dtd/",
    ),
    "gtsrb": NamedSet(
        "GTSRB",
        _parts(),
        (26640, 12630),
        "GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip of "
        "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/, unpacked to gtsrb/",
        numbered=43,
    ),
    "country211": NamedSet(
        "Country211",
        _parts(val="valid", test="test"),
        (31650, 10550, 21100),
        "https://openaipublic.azureedge.net/clip/data/country211.tgz, unpacked to country211/",
    ),
    # Classes are the 100 variants
    "fgvc-aircraft": NamedSet(
        "FGVCAircraft",
        _parts(val="val", test="test"),
        (3334, 3333, 3333),
        f"{OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz, unpacked to fgvc-aircraft-2013b/",
    ),
    "stanford-cars": NamedSet(
        "StanfordCars",
        _parts(),
        (8144, 8041),
        "cars_train/, cars_test/, devkit/ and cars_test_annos_withlabels.mat (no longer at Stanford) to stanford_cars/",
        scipy=True,
    ),
}
NAMES = tuple(ENTRIES)


def open_named(name: str, downloads: Path, *, val_only: bool = False) -> Source:
    """The data set of that name, downloaded to the folder `downloads` unless torchvision finds it there.

    Raises:
        InputError: unknown name, failed download, damaged files, no scipy where torchvision needs it.
    """
    if name not in ENTRIES:
        raise InputError(f"prepare: no data set '{name}'; known names: {', '.join(NAMES)}")
    return NamedSource(name, downloads, val_only=val_only)


class NamedSource(Source):
    """A data set as torchvision reads it. Memory: what torchvision itself keeps (arrays, or a list of paths)."""

    layout = "a torchvision data set by name (imagenette, cifar10, food101 …), which is downloaded"

    def __init__(self, name: str, downloads: Path, *, val_only: bool = False) -> None:
        entry = ENTRIES[name]
        self.name = name
        self.val_only = val_only
        self.root = downloads.resolve()
        self.description = f"torchvision's {name} in {self.root}"
        if entry.scipy and find_spec("scipy") is None:
            raise InputError(f"prepare: {name} comes in .mat files, which torchvision reads with scipy; install scipy")
        parts = {"val": entry.parts["val"]} if val_only else entry.parts
        self.data = {split: self._open(entry, arguments) for split, arguments in parts.items()}
        first = self.data[self.required[0]]
        if entry.numbered:
            self.classes = tuple(map(str, range(entry.numbered)))
        elif hasattr(first, "wnids"):  # Imagenette: its classes are tuples of synonyms
            self.classes = tuple(first.wnids)
            self.words = tuple(", ".join(words) for words in first.classes)
        else:
            self.classes = tuple(map(str, first.classes))
        for split, data in self.data.items():
            if getattr(data, "classes", None) != getattr(first, "classes", None):
                raise InputError(f"prepare: {name} in {self.root}: train and {split} hold different classes; {REDO}")
        published = dict(zip(entry.parts, entry.images, strict=True))
        there = [(split, published[split]) for split in self.data]
        missing = [f"{self.count(s):,} of {n:,} {s} images" for s, n in there if self.count(s) != n]
        self.subset = ", ".join(missing)
        if missing:
            say(f"prepare: {name} in {self.root} holds {self.subset}; if a download was cut off, {REDO}")

    def _open(self, entry: NamedSet, arguments: dict[str, Any]) -> Any:
        from torchvision import datasets  # here, as it takes a second

        kind = getattr(datasets, entry.kind)
        if "loader" in inspect.signature(kind).parameters:  # most since torchvision 0.22
            arguments = arguments | {"loader": Path}  # of whose images the path is enough
        try:
            try:  # look first: before 0.22 Imagenette refuses to download what is there
                return kind(self.root, **arguments)
            except (RuntimeError, OSError):
                return kind(self.root, download=True, **arguments)
        except Exception as error:  # torchvision raises whatever its parsers and the network do
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"prepare: torchvision cannot download or read {self.name} ({cause}); try again, or put it into "
                f"{self.root} by hand: {entry.get}"
            ) from None

    def contents(self) -> str:
        return digest(item for split in self.data for item in self._contents(split))

    def _contents(self, split: str) -> Iterator[tuple[str, int]]:
        count = self.count(split)
        if self._files(split):
            for path, _ in map(self.data[split].__getitem__, range(count)):
                yield f"{split} {path.relative_to(self.root).as_posix()}", path.stat().st_size if path.exists() else -1
        else:
            for index in sorted({probe * count // PROBES for probe in range(PROBES)} if count else ()):
                example = self._example(split, index)
                yield f"{split} {example.label} {hashlib.sha256(example.data).hexdigest()}", count

    def _files(self, split: str) -> bool:
        return getattr(self.data[split], "loader", None) is Path

    def count(self, split: str) -> int:
        return len(self.data[split]) if split in self.data else 0

    def examples(self, split: str, start: int) -> Iterator[Example]:
        for index in range(start, self.count(split)):
            yield self._example(split, index)

    def _example(self, split: str, index: int) -> Example:
        data = self.data[split]
        if self._files(split):
            path, label = data[index]
            try:
                return Example(path.relative_to(self.root).as_posix(), path.read_bytes(), int(label), str(path))
            except OSError as error:
                raise InputError(f"prepare: {path} cannot be read ({error.strerror}); {REDO}") from None
        key, buffer = f"{split}-{index:06}.png", io.BytesIO()
        place = f"{self.name} {split} image {index}"
        try:
            image, label = data[index]
        except FileNotFoundError as error:
            raise InputError(f"prepare: {error.filename} cannot be read ({error.strerror}); {REDO}") from None
        except (OSError, ValueError, SyntaxError):
            return Example(key, b"", -1, place)  # reported like any corrupt image
        image.save(buffer, "PNG")
        return Example(key, buffer.getvalue(), int(label), place)
