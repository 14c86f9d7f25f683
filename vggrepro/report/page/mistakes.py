"""The most confident mistakes of a posterior file: images whose wrong first class has the largest posterior."""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vggrepro.data import synsets
from vggrepro.data.dataset import Dataset, Split
from vggrepro.errors import InputError
from vggrepro.posteriors.files import Rows
from vggrepro.posteriors.protocol import SPLIT
from vggrepro.system.progress import say

COUNT, ROW = 24, 6  # at most 24 mistakes are shown, 6 in a row
SIDE = 160  # pixels: the longer side of a picture on the page


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong answer: the image's place in the data set, its true class, the answered class, the posteriors of both."""

    posterior: float
    row: int
    key: str
    label: int
    predicted: int
    true_posterior: float


def most_confident(batches: Iterable[Rows], count: int = COUNT) -> list[Mistake]:
    """The `count` most confident mistakes, the most confident first. Holds one batch at a time in memory.

    Mistakes of equal posteriors are in the data set's order.
    """
    worst: list[Mistake] = []
    start = 0
    for batch in batches:
        predicted = batch.posteriors.argmax(axis=1)
        largest = batch.posteriors.max(axis=1)
        wrong = np.flatnonzero((predicted != batch.labels) & (batch.labels >= 0))
        for place in wrong[np.argsort(-largest[wrong], kind="stable")][:count].tolist():
            label, first = int(batch.labels[place]), int(predicted[place])
            given, true = float(largest[place]), float(batch.posteriors[place, label])
            worst.append(Mistake(given, start + place, batch.keys[place], label, first, true))
        worst = heapq.nsmallest(count, worst, key=lambda mistake: (-mistake.posterior, mistake.row))
        start += len(batch.keys)
    return worst


def whole_rows(mistakes: list[Mistake]) -> list[Mistake]:
    """Leaves out the mistakes after the last full row of the page; fewer than a row are all kept."""
    return mistakes[: len(mistakes) // ROW * ROW or None]


def class_words(dataset: Dataset) -> list[str]:
    """What people call each class: the first of its words. ILSVRC's classes have words even if the data has none."""
    words = synsets.words(dataset.classes) if dataset.words == dataset.classes else dataset.words
    return [(word or name).split(",")[0] for word, name in zip(words, dataset.classes, strict=True)]


def pictures(dataset: Dataset, mistakes: Iterable[Mistake]) -> list[str]:
    """Each mistake's image as a small `data:` address; empty if the image is not there."""
    wanted = list(mistakes)
    if not any(dataset.folder.glob(f"{SPLIT}-*.arrow")):
        return [""] * len(wanted)
    try:
        split = Split(dataset, SPLIT)
        return [_address(split.image(m.row)) if split.key(m.row) == m.key else "" for m in wanted]
    except InputError as error:
        say(f"the report lacks the images of mistakes: {error}")
        return [""] * len(wanted)


def _address(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
