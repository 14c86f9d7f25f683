"""The options that commands of training share."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

from vggrepro.commands.training_options import TrainingOptions, with_training_options

FIELDS = {each.name: each.default for each in dataclasses.fields(TrainingOptions)}


def test_a_command_has_its_own_options_and_one_for_each_field_and_gets_the_fields_as_one_value() -> None:
    calls: list[tuple[TrainingOptions, str, bool]] = []

    @with_training_options
    def command(options: TrainingOptions, net: str, retrain: bool = False) -> None:
        """Trains."""
        calls.append((options, net, retrain))

    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["net", "retrain", *FIELDS]
    assert parameters["net"].default is inspect.Parameter.empty
    assert {name: parameters[name].default for name in FIELDS} == FIELDS
    assert (command.__name__, command.__doc__) == ("command", "Trains.")
    command(**FIELDS | {"runs": Path("mine"), "seed": 3}, net="D", retrain=True)
    assert calls == [(TrainingOptions(runs=Path("mine"), seed=3), "D", True)]


def test_epochs_stand_for_all_kinds_of_run_and_set_comes_last() -> None:
    options = TrainingOptions(epochs=2, width=0.5, set_=["deeper_epochs=7"])
    assert options.recipe_values == {"epochs": 2, "deeper_epochs": 7, "rescale_epochs": 2, "width": 0.5}
