"""How much larger the validation error is than the training error: runs whose training images were evaluated too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pandas as pd

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.paper import View
from vggrepro.posteriors import means
from vggrepro.posteriors.protocol import LABELS, FileName, file_path
from vggrepro.results import freshness
from vggrepro.results.beyond import BeyondTable
from vggrepro.results.columns import MEASURES, TOP1, Kind, interval, labels_of, numbers
from vggrepro.results.comparison import newcombe
from vggrepro.results.scores import Scores, split_images
from vggrepro.results.tables import setting

NAME, TRAIN = "fit", "train"


def fit(scores: Scores) -> BeyondTable | None:
    """The errors of the same protocol on training and validation images; None if no training image was evaluated.

    Columns: `run`, `method`, `Q`; `train`, `val` (top-1 errors, %), `gap` (validation - training, points), `low`,
    `high` (its 95 % interval, Newcombe's for independent errors), `train_images`, `val_images`.
    """
    records = [record for view in _views(scores) if (record := _record(scores, view)) is not None]
    if not records:
        return None
    frame = pd.DataFrame.from_records(records)
    top = MEASURES[TOP1].heading.replace(" val.", "")
    columns = [
        *labels_of(frame, ("run", "method", "Q")),
        numbers(Kind.NUMBER, top, "training", "training", frame["train"]),
        numbers(Kind.OURS, top, "validation", "validation", frame["val"]),
        numbers(Kind.DIFFERENCE, top, "gap", "gap", frame["gap"]),
        interval(top, "gap 95 %", frame["low"], frame["high"]),
    ]
    caption = (
        "The same net and protocol on the training images and on the validation images. A large gap means that the net "
        f"knows its training images much better than other images. {setting(scores)}"
    )
    return BeyondTable(NAME, "Training and validation error", caption, frame, tuple(columns), tuple(frame["run"]),
                       _notes(scores, frame))  # fmt: skip


def _views(scores: Scores) -> Iterator[View]:
    """The views that have a file of training images, in the paper's order of the runs."""
    for run in paper.all_runs():
        for path in sorted((scores.runs / run.name / "posteriors").glob(f"{TRAIN}-*.parquet")):
            name = FileName.parse(path.name)
            if name is not None and not name.variant:
                yield View(run, name.q, name.method)


def _record(scores: Scores, view: View) -> dict[str, Any] | None:
    """A line, if both files are there and may be used."""
    path, file = file_path(scores.runs / view.run.name, TRAIN, view.method, view.q), scores.file(view)
    if not file.present or file.refused:
        return None
    with suppress(InputError):
        shape, _, reason = freshness.checked(path, scores.facts(view.run), view, TRAIN, scores.dataset)
        if reason or freshness.misfit(shape, scores.dataset, TRAIN):
            return None
        of_train = means.scores([[path]], split_images(scores.dataset, TRAIN))[0]
        of_val = scores.score([file.path])
        train, val = (round(score.top1 * score.images / 100) for score in (of_train, of_val))
        ends = newcombe(val, of_val.images, train, of_train.images)
        labels = {"run": view.run.name, "method": LABELS[view.method], "Q": view.q}
        errors = {"train": of_train.top1, "val": of_val.top1, "gap": of_val.top1 - of_train.top1}
        images = {"train_images": of_train.images, "val_images": of_val.images}
        return labels | errors | {"low": ends.low, "high": ends.high} | images
    return None


def _notes(scores: Scores, frame: pd.DataFrame) -> tuple[str, ...]:
    """A note if a run held training images out: here they count as training images."""
    configs = [scores.facts(run).config for run in paper.all_runs() if run.name in set(frame["run"])]
    held_out = any(config and config.recipe.held_out for config in configs)
    return ("Training images that were held out for validation count as training images here.",) * held_out
