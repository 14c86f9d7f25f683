"""Detects common mistakes in imported weights by running the net on a few images.

A net with wrong weights, colours, mean or class order still runs and gives numbers. A few images show it: the scores
are the same for all classes, no better than chance, or better with red and blue swapped.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vggrepro.data import rescaling
from vggrepro.data.dataset import Split
from vggrepro.doctor.diagnosis import OK, WARNING, Diagnosis
from vggrepro.evaluation import views
from vggrepro.nets.vgg import to_input
from vggrepro.posteriors.protocol import Method
from vggrepro.runs.folder import RunFolder
from vggrepro.system import devices

if TYPE_CHECKING:
    from vggrepro.data.dataset import Dataset
    from vggrepro.nets.trained import Trained

IMAGES, PART = 32, 4  # at most; a forward pass
SECONDS = 6.0  # after which no further part is begun
UNIFORM = 0.99  # mean entropy of posteriors, as a share of ln K: nothing was learnt, or another scale of the input
CHANCE = 0.05  # a net that guesses is right so often with this probability
SLIPS = {
    "as it is": "",
    "with red and blue swapped": "conv1_1 takes BGR: import it as the format its author used",
    "without the mean": "its mean is wrong: mean_rgb in config.json",
    "with the data set's mean": "its mean is wrong: mean_rgb in config.json",
}


def check(folder: RunFolder, trained: Trained, dataset: Dataset) -> Diagnosis:
    """What the net does with central crops of some validation images at Q = S, also with its input wrong on purpose."""
    config = trained.config
    if config.classes != len(dataset.classes) or config.class_names not in (None, dataset.classes):
        return Diagnosis(OK, folder.name, f"not tried on images: its classes are not those of {dataset.folder}")
    if not dataset.counts.get("val"):
        return Diagnosis(OK, folder.name, "not tried on images: no validation images")
    split = Split(dataset, "val")
    labelled = np.flatnonzero(split.labels >= 0)
    chosen = labelled[np.linspace(0, len(labelled) - 1, min(IMAGES, len(labelled))).round().astype(int)]
    chosen = np.random.default_rng(0).permutation(chosen)  # so that an early stop still has images of many classes
    posteriors = measure(trained, split, chosen, dataset.mean_rgb)
    return diagnosis_of(folder.name, posteriors, split.labels[chosen[: posteriors.shape[1]]], dataset.devkit_ids)


def measure(trained: Trained, split: Split, chosen: np.ndarray, usual: tuple[float, ...]) -> np.ndarray:
    """Posteriors of as many of the images as the time allows: (slips, n, K); `usual` is the data set's mean."""
    config, device = trained.config, devices.device("auto")
    kind = devices.precision("auto", device)
    model = trained.model().to(device)
    means = [torch.tensor(mean, device=device) for mean in (config.mean_rgb, (0.0, 0.0, 0.0), usual)]
    parts: list[np.ndarray] = []
    began = time.monotonic()
    for start in range(0, len(chosen), PART):
        if parts and time.monotonic() - began > SECONDS:
            break
        images = [split.image(int(place)) for place in chosen[start : start + PART]]
        pixels = [rescaling.rescale(image, trained.test_side, config.recipe.resample) for image in images]
        crops = torch.cat(
            [views.crops(torch.from_numpy(view.copy())[None], config.crop, Method("center")) for view in pixels]
        )
        x, *others = (to_input(crops.to(device), mean, config.input_scale) for mean in means)
        inputs = [x, x.flip(1), *others]
        with torch.inference_mode(), devices.autocast(kind, device):
            parts.append(torch.stack([_posteriors(model, each) for each in inputs]).cpu().numpy())
    return np.concatenate(parts, axis=1)


def _posteriors(model: torch.nn.Module, x: Tensor) -> Tensor:
    return model(x).float().softmax(1)


def diagnosis_of(name: str, posteriors: np.ndarray, labels: np.ndarray, devkit_ids: tuple[int, ...] = ()) -> Diagnosis:
    """The diagnosis: (slips, n, K) posteriors in the order of `SLIPS`, (n,) labels."""
    plain = posteriors[0]
    images, classes = plain.shape
    best = plain.argmax(1)
    right = int((best == labels).sum())
    result = f"{right} of {images} images right (chance: {images / classes:.2g})"
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(plain > 0, plain * np.log(plain), 0).sum(1).mean() / math.log(classes)
    if entropy > UNIFORM:
        return Diagnosis(
            WARNING,
            name,
            f"{result}; nearly the same posterior for all classes",
            "compare mean and scale, or import it with --input caffe",
        )
    for (slip, advice), other in list(zip(SLIPS.items(), posteriors, strict=True))[1:]:
        gained = int((other.argmax(1) == labels).sum())
        if gained > right + 1 and better(other, plain, labels):
            return Diagnosis(WARNING, name, f"{result}, but {gained} {slip}", advice)
    if devkit_ids:
        moved = int((best == np.array(devkit_ids)[labels] - 1).sum())
        if moved >= 3 and moved > 2 * right:
            return Diagnosis(
                WARNING, name, f"{result}, but {moved} if its classes are in the devkit's order", "reorder its fc8"
            )
    if at_least(right, images, 1 / classes) > CHANCE:
        return Diagnosis(WARNING, name, f"{result}: no better than guessing", "compare class order, mean and colours")
    return Diagnosis(OK, name, result)


def better(other: np.ndarray, plain: np.ndarray, labels: np.ndarray) -> bool:
    """Whether the true classes are clearly likelier in `other`: by two standard errors of the paired difference.

    `other` and `plain` are posteriors (n, K), `labels` (n,).
    """
    rows = np.arange(len(labels))
    gain = np.log(np.maximum(other[rows, labels], 1e-30)) - np.log(np.maximum(plain[rows, labels], 1e-30))
    return bool(gain.mean() > 2 * gain.std(ddof=1) / math.sqrt(len(gain))) if len(gain) > 1 else False


def at_least(right: int, images: int, chance: float) -> float:
    """The probability that guessing gets `right` images or more."""
    return sum(math.comb(images, k) * chance**k * (1 - chance) ** (images - k) for k in range(right, images + 1))
