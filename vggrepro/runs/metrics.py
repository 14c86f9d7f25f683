"""What a training records: the lines of metrics.jsonl (`Epoch`, `Steps`) and progress.json (`Progress`).

A value that a file does not hold is NaN or 0.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

Record = TypeVar("Record", "Epoch", "Steps", "Progress")


@dataclass(frozen=True, slots=True)
class Epoch:
    """A finished epoch, and the validation after it."""

    epoch: int = 0  # from 1
    learning_rate: float = math.nan  # the schedule's
    loss: float = math.nan  # mean over the epoch's images
    top1_error: float = math.nan  # %, on centre crops
    top5_error: float | None = None  # %; None for five classes or fewer
    images_per_second: float = math.nan
    data_wait: float = math.nan  # share of the time in which training waited for data
    seconds: float = 0.0
    micro_batch: int = 0  # images at a time on each device, since memory was short; 0: it was not


@dataclass(frozen=True, slots=True)
class Steps:
    """Some steps within an epoch, about a tenth of it."""

    epoch: int = 0  # from 1
    step: int = 0  # the last of these steps, counted from the run's start
    learning_rate: float = math.nan  # of that step
    loss: float = math.nan  # mean over the images of these steps
    gradient_norm: float = math.nan  # the largest, before clipping
    images_per_second: float = math.nan
    data_wait: float = math.nan
    micro_batch: int = 0  # at the last of these steps


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running or interrupted training is."""

    epoch: float = math.nan  # epochs done, with the fraction of the current one
    epochs: int = 0  # at most
    learning_rate: float = math.nan
    images_per_second: float = math.nan
    seconds_left: float | None = None
    time: int = 0  # seconds since 1970, when this was written


def record(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """The values that `kind` has; keys of other versions are left out.

    Raises:
        ValueError: a value is no number.
    """
    names = [each.name for each in dataclasses.fields(kind) if each.name in values]
    wrong = [name for name in names if not isinstance(values[name], int | float | None)]
    if wrong:
        raise ValueError(f"{wrong[0]} is no number")
    return kind(**{name: values[name] for name in names})


def parsed(line: str) -> Epoch | Steps:
    """A line of metrics.jsonl.

    Raises:
        ValueError: it is no JSON object, or a value is no number.
    """
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("a line is no JSON object")
    return record(Steps, values) if "step" in values else record(Epoch, values)
