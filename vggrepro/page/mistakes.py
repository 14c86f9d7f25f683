"""The most confident mistakes of a posterior file: images whose wrong first class has the largest posterior."""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vggrepro.dataset import Dataset, Split
from vggrepro.errors import InputError
from vggrepro.posteriors import Batch
from vggrepro.progress import say
from vggrepro.protocol import SPLIT

COUNT, ROW = 24, 6  # at most so many, in rows of six
SIDE = 160  # pixels: the longer side of a picture on the page


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image: its place in the data set's order, true and first class, and what the net gave to both."""

    posterior: float
    row: int
    key: str
    label: int
    predicted: int
    true_posterior: float


def most_confident(batches: Iterable[Batch], count: int = COUNT) -> list[Mistake]:
    """The `count` worst, the most confident first; equal ones in the data set's order. Holds one batch at a time."""
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
    """Without the least confident ones that would begin a row and not fill it."""
    return mistakes[: len(mistakes) // ROW * ROW or None]


def pictures(dataset: Dataset, mistakes: Iterable[Mistake]) -> list[str]:
    """Each mistake's image as a small `data:` address; empty where the image is not at hand."""
    wanted = list(mistakes)
    if not any(dataset.folder.glob(f"{SPLIT}-*.arrow")):
        return [""] * len(wanted)
    try:
        split = Split(dataset, SPLIT)
        return [_address(split.image(m.row)) if split.key(m.row) == m.key else "" for m in wanted]
    except InputError as error:
        say(f"the report goes without images of mistakes: {error}")
        return [""] * len(wanted)


def _address(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
