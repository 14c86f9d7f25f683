"""Loads batches of training crops and the validation crops; the number of workers and processes changes no pixel.

Threads decode images from the memory-mapped shards and cut the crops at once. Nothing is pickled, and only crops are
copied to the device. A small data set is decoded once into the memory of a GPU, which then cuts the crops (`resident`).
Pixels stay uint8 until they become the net's input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from vggrepro.data.dataset import CACHE_BYTES, Dataset, Split
from vggrepro.data.images import ordered
from vggrepro.data.rescaling import Window, Windows, centre_window, cut
from vggrepro.errors import InputError
from vggrepro.nets import keyed
from vggrepro.nets.resampling import Resampler
from vggrepro.paper import Scale, real_pixels
from vggrepro.recipe import Recipe
from vggrepro.system import devices, processes
from vggrepro.training import augment, region
from vggrepro.training.resident import Resident, fits

VALIDATION_PIXELS = 4 << 20  # at most, in a batch of validation crops


@dataclass(frozen=True, slots=True)
class Batch:
    """This process's share of a global batch: n images."""

    crops: Tensor  # uint8 (n, crop, crop, 3), not yet mirrored; on the device if the data is, else on the host
    flip: Tensor  # bool (n,), which crops to mirror
    shift: Tensor  # float32 (n, 3), colour shift to add, RGB 0-255
    labels: Tensor  # int64 (n,)
    keys: Tensor  # int64 (n,), from which dropout masks are drawn

    def tensors(self) -> tuple[Tensor, ...]:
        """The fields, in their order."""
        return self.crops, self.flip, self.shift, self.labels, self.keys


@dataclass(frozen=True, slots=True)
class EpochShare:
    """This process's share of an epoch: its n images, batch after batch, and all random choices for them."""

    images: Tensor  # int64 (n,), positions in the training split
    windows: Windows
    rest: tuple[Tensor, Tensor, Tensor, Tensor]  # flip, shift, labels and keys, as in `Batch`


def mirror(crops: Tensor, flip: Tensor) -> Tensor:
    """Mirrors the crops (n, H, W, 3) left to right where `flip` (n,) is true; `crops` stay as they are."""
    if crops.device.type == "cpu":  # turns only the mirrored crops; a GPU would make the host wait for `flip`
        crops = crops.clone()
        for row in flip.nonzero().flatten().tolist():
            crops[row] = crops[row].flip(1)
        return crops
    return torch.where(flip[:, None, None, None], crops.flip(2), crops)


def check_stored(dataset: Dataset, scales: Sequence[Scale], crop: int) -> None:
    """Checks that the data set's images are large enough for these training scales.

    Raises:
        InputError: `prepare --store-side` kept copies whose shorter side is below the largest S.
    """
    largest = max(scales, key=lambda scale: scale.high, default=None)
    if largest is None or not dataset.store_side:
        return
    needed = real_pixels(largest.high, crop)
    if dataset.store_side < needed:
        raise InputError(
            f"{dataset.folder} keeps training images of shorter side {dataset.store_side}, scale {largest} needs "
            f"{needed}; prepare the data again, with --store-side {needed} or without it"
        )


def members(count: int, recipe: Recipe) -> tuple[Tensor, np.ndarray]:
    """Splits a training set of `count` images into those to train on and those held out for validation.

    The seed of a run has no influence: a net that starts from another net is validated on images that neither has seen.

    Returns:
        positions in the training split, each sorted: trained (int64 tensor), held out (int64 array).
    """
    order = keyed.permutation(0, 0, count, keyed.HELD_OUT)
    trained = recipe.training_images(count)
    return order[:trained].sort().values, order[trained:].sort().values.numpy()


@lru_cache(maxsize=1)
def training_images(dataset: Dataset, device: torch.device, workers: int) -> tuple[Split, Resident | None]:
    """The training split, and its decoded images if the device is a GPU whose memory they fit.

    The last ones are kept for the next run: what is decoded serves all runs of a process.
    """
    # With a GPU the host keeps no decoded images: more of them fit the GPU's memory.
    split = Split(dataset, "train", cache=device.type != "cuda")
    on_gpu = device.type == "cuda" and fits(split, device)
    return split, Resident(split, device, workers) if on_gpu else None


class Loader:
    """Loads the crops of one run: training `batches` and `validation` crops.

    Args:
        dataset: the prepared data.
        recipe: crop, batch, resampling and colour shift.
        scale: S.
        seed: of all random choices.
        device: if it is a GPU, it keeps a small data set in its memory.
        workers: number of threads that decode and cut; with 0 the calling thread does it.
        share_of: gives this process's part of a number of images, in a batch or in the validation set.

    Raises:
        InputError: images too small for `scale`, or `--decode region` cannot be used here.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        scale: Scale,
        seed: int,
        device: torch.device,
        workers: int,
        share_of: Callable[[int], range] = processes.share,
    ) -> None:
        check_stored(dataset, [scale], recipe.crop)
        if recipe.decode == "region":
            region.require()
        self.recipe, self.scale, self.seed, self.workers = recipe, scale, seed, workers
        self.train, self.resident = training_images(dataset, device, workers)
        self.members, held_out = members(len(self.train), recipe)
        self.validation_split = self.train if recipe.held_out else Split(dataset, "val")
        self.validation_rows = held_out if recipe.held_out else np.arange(len(self.validation_split))
        self.device = device
        share = share_of(recipe.batch)
        self.rows_in_batch = torch.arange(share.start, share.stop)
        self.steps = len(self.members) // recipe.batch  # the remainder is left out: other images in each epoch
        self.basis = augment.colour_basis(
            np.array(dataset.rgb_eigenvectors),
            np.array(dataset.rgb_eigenvalues),
            recipe.colour_std,
            recipe.colour_scale,
        )
        self._own_rows = self.validation_rows[list(share_of(len(self.validation_rows)))]
        self._validation_crops: list[Tensor] | None = None

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This process's share of the epoch's batches, from step `start` on."""
        drawn = self.draw(epoch)
        if self.resident:
            return self._cut_on_device(self.resident, drawn, start)

        def load(step: int) -> Batch:
            rows = self._rows(step, step + 1)
            shape = (rows.stop - rows.start, self.recipe.crop, self.recipe.crop, 3)
            # Pinned memory, from which a GPU copies while the host goes on.
            crops = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
            pixels = crops.numpy()
            for place, row in enumerate(range(rows.start, rows.stop)):
                pixels[place] = self._cut(int(drawn.images[row]), drawn.windows[row])
            return Batch(crops, *(part[rows] for part in drawn.rest))

        return ordered(load, range(start, self.steps), self.workers, self.workers + 2)

    def draw(self, epoch: int) -> EpochShare:
        """This process's share of the epoch's images, and all random choices for them."""
        order = self.members[keyed.permutation(self.seed, epoch, len(self.members))]
        steps = torch.arange(self.steps)[:, None]
        images = order[steps * self.recipe.batch + self.rows_in_batch].flatten()
        drawn, rows = augment.draws(self.seed, epoch, images), images.numpy()
        return EpochShare(
            images,
            augment.training_windows(self.train.sizes[:, rows], self.scale, self.recipe.crop, drawn.place),
            (
                torch.from_numpy(drawn.flip),
                torch.from_numpy((drawn.colour @ self.basis).astype(np.float32)),
                torch.from_numpy(self.train.labels[rows]).long(),
                keyed.key(self.seed, keyed.DROPOUT, epoch, steps, self.rows_in_batch).flatten(),
            ),
        )

    def _rows(self, first: int, end: int) -> slice:
        """The rows of an `EpochShare` that belong to the steps from `first` to before `end`."""
        share = len(self.rows_in_batch)
        return slice(first * share, end * share)

    def _cut_on_device(self, resident: Resident, drawn: EpochShare, start: int) -> Iterator[Batch]:
        """Batches of resident data. The random choices of an epoch are copied at once; several batches are cut at once.

        Their number fits images of a usual size. A larger image slows down only the batches cut with it.
        """
        crop, resample, shrinks = self.recipe.crop, self.recipe.resample, drawn.windows.shrinks
        places = devices.upload(torch.from_numpy(drawn.windows.places), self.device)
        images, *rest = (devices.upload(part, self.device) for part in (drawn.images, *drawn.rest))
        share = len(self.rows_in_batch)
        steps = max(1, Resampler(crop, float(np.median(shrinks)), resample).at_once // share)
        for first in range(start, self.steps, steps):
            rows = self._rows(first, min(first + steps, self.steps))
            resampler = Resampler(crop, float(shrinks[rows].max()), resample)
            crops = resident.crops(images[rows], places[:, :, rows], resampler)
            fields = (part.view(-1, share, *part.shape[1:]) for part in (crops, *(part[rows] for part in rest)))
            yield from map(Batch, *(field.unbind() for field in fields))

    def _cut(self, image: int, window: Window) -> np.ndarray:
        if self.recipe.decode == "region" and not self.train.cached:
            width, height = int(self.train.widths[image]), int(self.train.heights[image])
            pixels = region.cut(self.train.image_bytes(image), width, height, window, self.recipe.resample)
            if pixels is not None:
                return pixels
        return cut(self.train.image(image), window, self.recipe.resample)

    def validation(self) -> Iterator[tuple[Tensor, np.ndarray]]:
        """This process's share of the validation images, batch after batch.

        The images are those of the validation split or, with `held_out`, of the training images held out. Crops that
        take little memory are kept for the next epoch.

        Yields:
            centre crops at Q = S, or at the middle of a range S, uint8 (n, crop, crop, 3) on the device; labels (n,).
        """
        start = 0
        for crops in self._validation_crops or self._cut_validation():
            yield crops, self.validation_split.labels[self._own_rows[start : start + len(crops)]]
            start += len(crops)

    def _cut_validation(self) -> Iterator[Tensor]:
        recipe, images = self.recipe, self._own_rows.tolist()
        shorter, crop = real_pixels(self.scale.middle, recipe.crop), recipe.crop
        count = max(1, VALIDATION_PIXELS // crop**2)
        keep: list[Tensor] | None = [] if 3 * len(images) * crop**2 <= CACHE_BYTES else None

        def load(start: int) -> Tensor:
            decoded = [self.validation_split.image(index) for index in images[start : start + count]]
            windows = [centre_window(*image.size, shorter, crop) for image in decoded]
            cuts = [cut(*pair, recipe.resample) for pair in zip(decoded, windows, strict=True)]
            return torch.from_numpy(np.stack(cuts))

        for pixels in ordered(load, range(0, len(images), count), self.workers, self.workers + 1):
            pixels = devices.upload(pixels, self.device)
            if keep is not None:
                keep.append(pixels)
            yield pixels
        self._validation_crops = keep
