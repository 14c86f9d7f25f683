"""The options that train, finetune-scale and reproduce share, as one value."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, get_type_hints

from vggrepro.commands.options import (
    DEFAULT_DATA,
    DEFAULT_RUNS,
    WORKERS,
    CheckpointMinutes,
    Compile,
    Data,
    DecodeOption,
    Device,
    DryRun,
    Epochs,
    Fast,
    MicroBatch,
    Precision,
    Runs,
    Seed,
    Set,
    TensorBoard,
    Width,
    Workers,
    machine_of,
)

if TYPE_CHECKING:
    from vggrepro.data.dataset import Dataset
    from vggrepro.recipe import Recipe
    from vggrepro.system.devices import Machine
    from vggrepro.training.chain import Request


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """What, from what and how to train; `with_training_options` gives a command an option for each field."""

    data: Data = DEFAULT_DATA
    runs: Runs = DEFAULT_RUNS
    epochs: Epochs = None
    width: Width = None
    set_: Set = None
    decode: DecodeOption = None
    device: Device = "auto"
    precision: Precision = "auto"
    workers: Workers = WORKERS
    micro_batch: MicroBatch = 0
    checkpoint_minutes: CheckpointMinutes = 10.0
    tensorboard: TensorBoard = False
    compile_: Compile = False
    fast: Fast = False
    dry_run: DryRun = False
    seed: Seed = 0

    @cached_property
    def recipe_values(self) -> dict[str, Any]:
        """The recipe's values that are given; --epochs stands for the three kinds of run."""
        from vggrepro.recipe import parse_overrides

        values: dict[str, Any] = {}
        if self.epochs is not None:
            values |= {"epochs": self.epochs, "deeper_epochs": self.epochs, "rescale_epochs": self.epochs}
        if self.width is not None:
            values["width"] = self.width
        if self.decode is not None:
            values["decode"] = self.decode.value
        return values | parse_overrides(self.set_ or [])

    def machine(self) -> Machine:
        """How to compute."""
        return machine_of(
            self.device,
            self.precision,
            self.workers,
            self.micro_batch,
            self.checkpoint_minutes,
            self.tensorboard,
            self.compile_,
            self.fast,
        )

    def resolve(self) -> tuple[Dataset, Recipe]:
        """The data set and its preset's recipe with the given values; needs no torch, so that mistakes show at once."""
        from vggrepro import recipe
        from vggrepro.data.dataset import load

        values, dataset = self.recipe_values, load(self.data)
        return dataset, recipe.load(dataset.preset, values)

    def request(self, retrain: bool = False, init: str | None = None) -> Request:
        """What is asked of `training.chain`."""
        dataset, recipe = self.resolve()
        machine = self.machine()
        from vggrepro.training.chain import Request

        return Request(recipe, dataset, self.runs, machine, self.seed, retrain, init)


def with_training_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of `TrainingOptions` in place of its parameter `options`."""
    hints = get_type_hints(TrainingOptions, include_extras=True)
    shared = {each.name: (hints[each.name], each.default) for each in dataclasses.fields(TrainingOptions)}
    own = inspect.signature(command, eval_str=True).parameters.values()
    each = {parameter.name: (parameter.annotation, parameter.default) for parameter in own} | shared
    del each["options"]

    @wraps(command)
    def called(**values: Any) -> None:
        command(options=TrainingOptions(**{name: values.pop(name) for name in shared}), **values)

    called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for name, (kind, default) in each.items()
        ]
    )
    called.__annotations__ = {name: kind for name, (kind, _) in each.items()}
    return called
