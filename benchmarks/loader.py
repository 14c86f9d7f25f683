"""Claim: crops come out of our loader faster than out of torchvision's ImageFolder with Resize, RandomCrop and flip.

python benchmarks/loader.py PHOTOS             (a folder with ILSVRC-2012's tars as downloaded, or a part of them)
python benchmarks/loader.py PHOTOS --limit     (S = 256 only: how fast any resampling of decoded regions could be)

Real photographs, read over and over; one core and one thread for both, in turns, batches of uint8 as result; then
two workers each (threads of ours, processes of a DataLoader). Pixels are compared with resizing the whole image and
cutting the same window. `pillow` and `region` are the values of --decode; the photographs do not fit the cache here.
`region, only decoded` leaves out the resampling: none can be faster than that; --limit counts processor time.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from record import write
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import datasets, transforms
from torchvision.transforms import functional as vision

from vggrepro import recipe
from vggrepro.data import dataset
from vggrepro.data.dataset import Split
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import FolderSource, IlsvrcSource
from vggrepro.paper import Scale, real_pixels
from vggrepro.training import augment, region
from vggrepro.training.loader import Loader, mirror

ROUNDS = 7
BATCH = 50


def unpack(photos: Path, folder: Path) -> None:
    """All photographs as class folders (two made-up classes), train and val alike."""
    source = IlsvrcSource(photos)
    for number, example in enumerate([*source.examples("train", 0), *source.examples("val", 0)]):
        for split in ("train", "val"):
            path = folder / split / f"class{number % 2}" / f"{number:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(example.data)


class Theirs:
    """torchvision, as its users write it; uint8 crops of 224."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.scale = scale
        self.images = datasets.ImageFolder(str(folder), self.transform)
        self.rest = transforms.Compose(
            [transforms.RandomCrop(224), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
        )

    def transform(self, image: Any) -> torch.Tensor:
        shorter = int(torch.randint(self.scale.low, self.scale.high + 1, ()))
        return self.rest(vision.resize(image, shorter))

    def one_epoch(self) -> int:
        order = torch.randperm(len(self.images)).tolist()
        for start in range(0, len(order), BATCH):
            torch.stack([self.images[index][0] for index in order[start : start + BATCH]])
        return len(order)


def ours(loader: Loader, epochs: Iterator[int]) -> int:
    """One epoch of batches, mirrored where drawn (training does that on the device)."""
    count = 0
    for batch in loader.batches(next(epochs)):
        mirror(batch.crops, batch.flip)
        count += len(batch.labels)
    return count


def decoded_only(loader: Loader, epochs: Iterator[int]) -> int:
    """As `ours`, if resampling took no time: the regions are decoded, and the crops are blank."""
    blank = np.zeros((loader.recipe.crop, loader.recipe.crop, 3), np.uint8)

    def cut(*part: Any) -> np.ndarray:
        assert region.decoded(*part) is not None
        return blank

    with patch.object(region, "cut", cut):
        return ours(loader, epochs)


def rates(functions: dict[str, Callable[[], int]], clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Median images/s of each function, called turn by turn, by a clock that gives seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    counts: dict[str, int] = {}
    for turn in range(ROUNDS + 1):
        for name, function in functions.items():
            began = clock()
            counts[name] = function()
            if turn:
                seconds[name].append(clock() - began)
    return {name: counts[name] / statistics.median(values) for name, values in seconds.items()}


def difference(loader: Loader, original: Split) -> dict[str, float]:
    """Mean and greatest absolute difference to cutting the same windows out of the whole resized original."""
    recipe_, scale = loader.recipe, loader.scale
    drawn = loader.draw(0)
    crops = torch.cat([batch.crops for batch in loader.batches(0)]).numpy().astype(int)
    place = augment.draws(0, 0, drawn.images).place
    windows = augment.training_windows(original.sizes[:, drawn.images.numpy()], scale, recipe_.crop, place)
    differences = []
    for row, position in enumerate(drawn.images.tolist()):
        image, window = original.image(position), windows[row]
        shorter = round(min(image.size) / min(window.ratio))
        assert real_pixels(scale.low, 224) <= shorter <= real_pixels(scale.high, 224)
        whole = np.asarray(vision.resize(image, shorter))
        cut = whole[window.top : window.top + 224, window.left : window.left + 224]
        differences.append(np.abs(cut - crops[row]))
    return {"mean": float(np.mean(differences)), "max": int(np.max(differences))}


class Endless(Dataset[torch.Tensor]):
    """ImageFolder for DataLoader's workers."""

    def __init__(self, theirs: Theirs) -> None:
        self.theirs = theirs

    def __len__(self) -> int:
        return len(self.theirs.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.theirs.images[index][0]


def main() -> None:
    """Prints and stores images/s, ratios and pixel differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset.CACHE_BYTES = 0  # as with data that does not fit
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        unpack(options.photos, work / "photos")
        source = FolderSource(work / "photos")
        whole = prepare(source, work / "whole", "paper", allow_few_classes=True)
        original = Split(whole, "train")
        kinds = [("256", whole, 0)]
        if not options.limit:
            small = prepare(source, work / "small", "paper", allow_few_classes=True, store_side=256)
            kinds += [("256:512", whole, 0), ("256", small, 256)]
        for text, data, stored in kinds:
            scale = Scale.parse(text)
            theirs = Theirs(work / "photos" / "train", scale)
            loaders = {
                decode: Loader(data, recipe.load("paper", {"batch": BATCH, "decode": decode}), scale, 0,
                               torch.device("cpu"), 0) for decode in ("pillow", "region")
            }  # fmt: skip
            epochs = iter(range(10**6))
            functions: dict[str, Callable[[], int]] = {"torchvision": theirs.one_epoch}
            functions |= {key: partial(ours, own, epochs) for key, own in loaders.items()}
            if options.limit:
                functions["region, only decoded"] = partial(decoded_only, loaders["region"], epochs)
            found = rates(functions, time.process_time if options.limit else time.perf_counter)
            row: dict[str, Any] = {"scale": text, "store_side": stored, "images_per_second_a_core": found}
            row["ratio"] = {key: rate / found["torchvision"] for key, rate in found.items()}
            row["difference"] = {key: difference(own, original) for key, own in loaders.items()}
            rows.append(row)
        if options.limit:
            write("loader-limit", {"photographs": len(original), "rows": rows})
            return
        scale = Scale(256, 512)
        sampler = RandomSampler(range(len(original)), num_samples=10 * len(original), replacement=True)
        batches = DataLoader(Endless(Theirs(work / "photos" / "train", scale)), BATCH, sampler=sampler, num_workers=2)
        own = Loader(
            whole, recipe.load("paper", {"batch": BATCH, "decode": "region"}), scale, 0, torch.device("cpu"), 2
        )
        epochs = iter(range(10**6))
        found = rates(
            {
                "torchvision, 2 processes": lambda: sum(len(batch) for batch in batches),
                "region, 2 threads": lambda: sum(ours(own, epochs) for _ in range(10)),
            }
        )
    write("loader", {"photographs": len(original), "rows": rows, "two_workers_at_256_to_512": found})


if __name__ == "__main__":
    main()
