"""The text above the tables of a report. Markdown, HTML and LaTeX show the same `Header`, each in its own way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vggrepro.posteriors.protocol import SPLIT
from vggrepro.results.conditions import ILSVRC, reductions
from vggrepro.results.tables import Table

if TYPE_CHECKING:
    from vggrepro.data.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Header:
    """The data that the numbers were measured on, and how all runs differ from the paper's.

    `reductions`: how the data and nets are smaller than the paper's; `training`: how the training differs.
    """

    dataset: Dataset
    reductions: tuple[str, ...]
    training: tuple[str, ...] = ()
    precisions: bool = False  # whether Tables 11 or 12 are among the tables
    seeds: bool = False  # whether the numbers are means over several seeds

    @property
    def title(self) -> str:
        return f"VGG's tables on {self.dataset.name}"

    @property
    def size(self) -> str:
        """How many classes and images. A data set without training images is for evaluation alone."""
        data = self.dataset
        train, val = data.counts.get("train", 0), data.counts[SPLIT]
        images = f"{train:,} training and {val:,}" if data.trainable else f"{val:,}"
        return f"{len(data.classes):,} classes, {images} validation images"

    @property
    def data(self) -> str:
        """The data set in a line."""
        data = self.dataset
        return f"Data: {data.name}, {self.size} (fingerprint {data.fingerprint[:12]}); preset {data.preset}."

    @property
    def chance(self) -> float:
        """The top-1 error of guessing, in per cent."""
        return 100 * (1 - 1 / len(self.dataset.classes))

    @property
    def comparable(self) -> bool:
        """Whether errors can be compared with the paper's: on all its validation images and classes."""
        data = self.dataset
        sizes = {"classes": len(data.classes), "val": data.counts[SPLIT]}
        return not data.subset and all(sizes[name] == ILSVRC[name] for name in sizes)

    def reading(self, bold: str = "bold", *, ranks: bool = False) -> str:
        """How to read the numbers.

        Args:
            bold: that word as the format sets it.
            ranks: the tables show ranks in place of differences (`layout.columns`).
        """
        beside = (
            "; rank: the place of the row by its error, 1 is the smallest, among the rows that have both numbers"
            if ranks
            else " and Δ = ours - the paper's"
        )
        others = " (in Tables 11 and 12 precision and recall, the larger the better)" if self.precisions else ""
        spread = (
            "± is the standard deviation of ours over n seeds"
            if self.seeds
            else "[low; high] is the 95 % interval of ours over images (Wilson)"
        )
        return (
            f"Numbers: ours, the paper's (arXiv 1409.1556v6){beside}, errors in per cent{others}; "
            f"{spread}, – not run (or not published), {bold} the best."
        )

    @property
    def lead(self) -> str:
        """The text above `differences`; empty if nothing differs."""
        if not self.differences:
            return ""
        reduced = "This is a reduced reproduction. " if self.reductions else ""
        return f"{reduced}How all runs differ from the paper's:"

    @property
    def differences(self) -> tuple[str, ...]:
        """How all runs differ from the paper's, a line each."""
        return (*(f"{text[0].upper()}{text[1:]}." for text in self.reductions), *self.training)

    @property
    def caution(self) -> str:
        """How to compare the numbers of a reduced reproduction with the paper's; empty for a full one."""
        if not self.reductions:
            return ""
        images = self.dataset.counts[SPLIT]
        margin = 98 / math.sqrt(
            max(images, 1)
        )  # the widest 95 % interval of a share p: 1.96 sqrt(p (1 - p) / n), p = 1/2
        return (
            "Compare the order of the rows with the paper's, not the errors themselves. With "
            f"{images:,} images, an error near 50 % is uncertain by ±{margin:.1f} points (95 %)."
        )


def header_of(tables: Sequence[Table], dataset: Dataset) -> Header:
    """The header of a report of these tables."""
    training = dict.fromkeys(line for table in tables for line in table.training)
    reduced = reductions(dataset, [table.geometry for table in tables])
    precisions, seeds = any(table.precisions for table in tables), any("n" in table.frame for table in tables)
    return Header(dataset, reduced, tuple(training), precisions, seeds)
