"""Training and validation crops, batch after batch, the same for any number of workers and processes.

Crops are cut where the images are decoded: in threads, straight from the memory-mapped shards, so that nothing is
pickled and only crops travel; small data lies decoded in the memory of a GPU and is cut there. Pixels stay uint8 until
the net's input is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vggrepro import augment, keyed, region
from vggrepro.dataset import CACHE_BYTES, Dataset, Split
from vggrepro.errors import InputError
from vggrepro.images import ordered
from vggrepro.paper import Scale, real_pixels
from vggrepro.recipe import Recipe
from vggrepro.rescaling import Window, centre_window, cut
from vggrepro.resident import Resident, fits

VALIDATION_PIXELS = 4 << 20  # in a batch of validation crops


@dataclass(frozen=True, slots=True)
class Batch:
    """A process's share of a global batch: n images."""

    crops: Tensor  # uint8 (n, crop, crop, 3), not yet mirrored; on the host, or on the device for resident data
    flip: Tensor  # bool (n,)
    shift: Tensor  # float32 (n, 3), RGB 0-255
    labels: Tensor  # int64 (n,)
    keys: Tensor  # int64 (n,), of the dropout masks


def mirror(crops: Tensor, flip: Tensor) -> Tensor:
    """Mirrors the crops, (n, H, W, 3), where `flip` (n,) is true; may change them in place."""
    if crops.device.type == "cpu":  # a quick copy for one image; a GPU would have to tell which
        for row in flip.nonzero().flatten().tolist():
            crops[row] = crops[row].flip(1)
        return crops
    return torch.where(flip[:, None, None, None], crops.flip(2), crops)


def check_stored(dataset: Dataset, scales: Sequence[Scale], crop: int) -> None:
    """Refuses training scales that the data set's smaller copies do not reach.

    Raises:
        InputError: the copies of `--store-side` have fewer pixels than the largest S asks for.
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
    """Positions in a training split of `count` images: those trained on, int64, and those held out, rising.

    The same for all runs of a data set whatever their seed: no net starts from one that has seen what judges it.
    """
    order = keyed.permutation(0, 0, count, keyed.HELD_OUT)
    trained = recipe.training_images(count)
    return order[:trained].sort().values, order[trained:].sort().values.numpy()


class Loader:
    """The crops of one run: `batches` to train on, `validation` to judge by.

    Args:
        dataset: the prepared data.
        recipe: crop, batch, resampling and colour shift.
        scale: S.
        seed: of all draws.
        device: where small data is kept when it is a GPU.
        workers: threads that decode and cut; 0 is the caller's own.
        share: this process's rows of each global batch; all by default.
        judging: what gives this process's part of so many validation images; all by default.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        scale: Scale,
        seed: int,
        device: torch.device,
        workers: int,
        share: range | None = None,
        judging: Callable[[int], range] = range,
    ) -> None:
        check_stored(dataset, [scale], recipe.crop)
        if recipe.decode == "region":
            region.require()
        self.recipe, self.scale, self.seed, self.workers = recipe, scale, seed, workers
        # A GPU keeps more images than the host would.
        self.train = Split(dataset, "train", cache=device.type != "cuda")
        self.members, held_out = members(len(self.train), recipe)
        self.judges = self.train if recipe.held_out else Split(dataset, "val")
        self.judging = held_out if recipe.held_out else np.arange(len(self.judges))  # positions in `judges`
        self.device = device
        share = range(recipe.batch) if share is None else share
        self.rows_in_batch = torch.arange(share.start, share.stop)
        self.steps = len(self.members) // recipe.batch  # the few images left over differ in each epoch
        self.basis = augment.colour_basis(
            np.array(dataset.rgb_eigenvectors),
            np.array(dataset.rgb_eigenvalues),
            recipe.colour_std,
            recipe.colour_scale,
        )
        self.resident = Resident(self.train, device) if device.type == "cuda" and fits(self.train) else None
        self._own = self.judging[list(judging(len(self.judging)))]
        self._validation_crops: list[Tensor] | None = None

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from step `start` on."""
        order = self.members[keyed.permutation(self.seed, epoch, len(self.members))]

        def load(step: int) -> Batch:
            images = order[step * self.recipe.batch + self.rows_in_batch]
            return self._batch(images, epoch, step)

        workers = 0 if self.resident else self.workers
        return ordered(load, range(start, self.steps), workers, workers + 2)

    def _batch(self, images: Tensor, epoch: int, step: int) -> Batch:
        """The crops of `images` (n,), positions in the split, as drawn for them in this epoch."""
        drawn = augment.draws(self.seed, epoch, images)
        crop, resample = self.recipe.crop, self.recipe.resample
        if self.resident:
            place = torch.from_numpy(drawn.place).to(self.device, non_blocking=True)
            crops = self.resident.crops(images.to(self.device), self.scale, crop, place, resample)
        else:
            pixels = np.empty((len(images), crop, crop, 3), np.uint8)
            for row, (image, place) in enumerate(zip(images.tolist(), drawn.place, strict=True)):
                window = augment.training_window(
                    int(self.train.widths[image]), int(self.train.heights[image]), self.scale, crop, place
                )
                pixels[row] = self._cut(image, window)
            crops = torch.from_numpy(pixels)
        return Batch(
            crops,
            torch.from_numpy(drawn.flip),
            torch.from_numpy((drawn.colour @ self.basis).astype(np.float32)),
            torch.from_numpy(self.train.labels[images.numpy()]).long(),
            keyed.key(self.seed, keyed.DROPOUT, epoch, step, self.rows_in_batch),
        )

    def _cut(self, image: int, window: Window) -> np.ndarray:
        if self.recipe.decode == "region" and not self.train.cached:
            width, height = int(self.train.widths[image]), int(self.train.heights[image])
            pixels = region.cut(self.train.image_bytes(image), width, height, window, self.recipe.resample)
            if pixels is not None:
                return pixels
        return cut(self.train.image(image), window, self.recipe.resample)

    def validation(self) -> Iterator[tuple[Tensor, np.ndarray]]:
        """Centre crops at Q = S (or its middle), uint8 (n, crop, crop, 3), and labels (n,), this process's share.

        Of the validation split, or of the training images held out. The crops are kept from one epoch to the next when
        they are small.
        """
        start = 0
        for crops in self._validation_crops or self._cut_validation():
            yield crops, self.judges.labels[self._own[start : start + len(crops)]]
            start += len(crops)

    def _cut_validation(self) -> Iterator[Tensor]:
        recipe, images = self.recipe, self._own.tolist()
        shorter, crop = real_pixels(self.scale.middle, recipe.crop), recipe.crop
        many = max(1, VALIDATION_PIXELS // crop**2)
        keep: list[Tensor] | None = [] if 3 * len(images) * crop**2 <= CACHE_BYTES else None

        def load(start: int) -> Tensor:
            decoded = [self.judges.image(index) for index in images[start : start + many]]
            windows = [centre_window(*image.size, shorter, crop) for image in decoded]
            cuts = [cut(*pair, recipe.resample) for pair in zip(decoded, windows, strict=True)]
            return torch.from_numpy(np.stack(cuts))

        for pixels in ordered(load, range(0, len(images), many), self.workers, self.workers + 1):
            if keep is not None:
                keep.append(pixels)
            yield pixels
        self._validation_crops = keep
