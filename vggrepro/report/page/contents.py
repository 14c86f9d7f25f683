"""Reads what the page shows: the report's document, runs with their curves, errors by Q, mistakes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.posteriors.means import average
from vggrepro.report import documents
from vggrepro.report.documents import Document
from vggrepro.report.header import Header, header_of
from vggrepro.report.page.mistakes import Mistake, most_confident, pictures, whole_rows
from vggrepro.results import beyond, comparison
from vggrepro.results.answers import Answers
from vggrepro.results.beyond import BeyondTable
from vggrepro.results.scores import Scores, over_seeds
from vggrepro.results.tables import Table
from vggrepro.runs.config import RunConfig
from vggrepro.runs.folder import RunFolder, existing
from vggrepro.runs.metrics import Epoch, Steps
from vggrepro.runs.status import Status, counted, status, statuses_of_seeds
from vggrepro.system.progress import say

FIRST_LAYER = "conv1_1.weight"
CURVES = ("epoch", "learning_rate", "loss", "top1_error", "top5_error")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run: its state, its configuration, and its curves by epoch and between epochs (`training_figures.training`).

    `other_seeds` has the curves by epoch of the same run trained with other seeds.
    """

    folder: RunFolder
    status: Status
    config: RunConfig
    epochs: Sequence[Epoch]
    curve: pd.DataFrame
    between: pd.DataFrame
    other_seeds: Sequence[pd.DataFrame] = ()

    @property
    def name(self) -> str:
        """The folder's name; bytes of it that are no UTF-8 become `\\udcXX`."""
        return self.folder.name.encode("utf-8", "backslashreplace").decode()

    @property
    def net(self) -> str:
        return self.config.net

    @property
    def scale(self) -> str:
        """S as the paper prints it."""
        return self.config.scale.label

    @property
    def measured_on(self) -> str:
        """Which images gave the error while training: "validation", or "held-out" training images."""
        return "held-out" if self.config.recipe.held_out else "validation"

    @property
    def seconds(self) -> float:
        """Seconds spent in the finished epochs."""
        return sum(epoch.seconds for epoch in self.epochs)

    @property
    def finished_on(self) -> str:
        """The date in UTC at which the weights file was written; empty for an unfinished run."""
        if not self.folder.finished:
            return ""
        return datetime.fromtimestamp(self.folder.weights_path.stat().st_mtime, UTC).date().isoformat()

    def filters(self) -> np.ndarray | None:
        """The first layer's weights, (channels, 3, k, k) float32.

        None if the run is not finished, or, with a warning, if they cannot be read.
        """
        if not self.folder.finished:
            return None
        try:
            with safe_open(self.folder.weights_path, framework="np") as file:
                return np.asarray(file.get_tensor(FIRST_LAYER), np.float32)
        except (SafetensorError, OSError, ValueError) as error:
            say(f"the report lacks the first layer of {self.name}: {self.folder.weights_path}: {error}")
            return None


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that the page shows. `answers`, `mistakes` and their pictures are of the best posterior file.

    `states` says how many runs of all seeds are finished.
    `by_test_scale` has a row for each posterior file: run, net, S, method, Q, images and the measures of the tables.
    """

    scores: Scores
    document: Document
    runs: Sequence[RunFacts]
    states: str
    by_test_scale: pd.DataFrame
    answers: Answers | None
    mistakes: Sequence[Mistake]
    pictures: Sequence[str]
    beside: Sequence[BeyondTable]  # the tables of both reproductions side by side, if there is another one

    @property
    def dataset(self) -> Dataset:
        return self.scores.dataset

    @property
    def header(self) -> Header:
        return header_of(self.document.tables, self.dataset)

    def table(self, number: int) -> Table:
        return next(table for table in self.document.tables if table.number == number)


def contents_of(runs: Path, dataset: Dataset, *, other: Path | None = None, images: bool = True) -> Contents:
    """Reads everything.

    Args:
        runs: the folder of run folders.
        dataset: the data set whose `val` split was scored.
        other: a second folder of runs to compare with.
        images: find the mistakes too; for them one posterior file is read again.

    Raises:
        InputError: no images or no labels to score.
    """
    scores = over_seeds(runs, dataset)
    document = documents.document_of(scores)
    by_test_scale, _ = beyond.score(scores, beyond.curve_rows(beyond.available(scores)))
    answers = document.read_answers()
    path = scores.file(answers.view).path if answers else None
    worst = most_confident(average([path], scores.images)) if path and images else []
    mistakes = whole_rows(worst)
    facts = _runs_of(scores)
    beside = comparison.side_by_side(scores.alone, Scores(other, dataset)) if other else []
    states = counted(statuses_of_seeds(runs))
    shown = pictures(dataset, mistakes)
    return Contents(scores, document, facts, states, by_test_scale, answers, mistakes, shown, beside)


def _runs_of(scores: Scores) -> list[RunFacts]:
    """The runs of the first seed, each with the curves that it has with the other seeds."""
    first, *others = (
        {made.name: made for folder in existing(each.runs) if (made := readable_facts(folder)) is not None}
        for each in (scores, *scores.seeds)
    )
    return [
        dataclasses.replace(run, other_seeds=[other[name].curve for other in others if name in other])
        for name, run in first.items()
    ]


def readable_facts(folder: RunFolder) -> RunFacts | None:
    """`run_facts`; None, with a warning, if the run's configuration or metrics are damaged."""
    try:
        return run_facts(folder)
    except InputError as error:
        say(f"the report lacks the training of {folder.name}: {error}")
        return None


def run_facts(folder: RunFolder) -> RunFacts:
    """A run's state, configuration and curves."""
    config, lines = folder.config(), folder.metrics()
    epochs = [line for line in lines if isinstance(line, Epoch)]
    frame = pd.DataFrame(epochs, columns=list(CURVES), dtype=float)
    between = _between([line for line in lines if isinstance(line, Steps)], config)
    return RunFacts(folder, status(folder), config, epochs, frame, between)


def _between(lines: Sequence[Steps], config: RunConfig) -> pd.DataFrame:
    """Losses between the ends of epochs; steps are turned into epochs."""
    batch, images = config.recipe.batch, config.dataset.train_images
    if not batch or not images:
        return pd.DataFrame(columns=["epoch", "loss"])
    return pd.DataFrame([(line.step * batch / images, line.loss) for line in lines], columns=["epoch", "loss"])
