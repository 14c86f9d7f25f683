"""A run's configuration: what is read, kept, compared and refused; which modules need no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vggrepro.errors import InputError
from vggrepro.paper import JITTER, S256, Architecture, Run
from vggrepro.runs.config import IDENTITY, STRUCTURE, Imported, RunConfig, Start, TrainedOn, UsedRecipe, read
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import read_json, write_json

LEAST: dict[str, Any] = {"net": "D", "scale": "256:512", "crop": 64, "width": 0.125, "classes": 6}
LEAST |= {"mean_rgb": [1, 2.5, 3], "input_scale": 1}
# As version 2d51eb6 wrote it.
TRAINED: dict[str, Any] = {
    "net": "B",
    "scale": "384",
    "fc_only": False,
    "crop": 64,
    "stride": 32,
    "width": 0.125,
    "classes": 2,
    "class_names": ["red", "blue"],
    "class_words": ["red things", "blue things"],
    "mean_rgb": [110.5, 120.25, 90.0],
    "input_scale": 0.0172,
    "start": {"run": "B-256", "weights": "abc"},
    "epochs": 4,
    "learning_rate": 0.001,
    "seed": 0,
    "precision": "bf16",
    "recipe": {"preset": "demo", "lrn": "caffe", "batch": 32, "held_out": 0.1},
    "dataset": {"name": "demo", "fingerprint": "print", "preset": "demo", "train_images": 100, "val_images": 20},
    "device": "a CPU",
    "versions": {"vggrepro": "1", "commit": None, "torch": "2"},
}
IMPORTED: dict[str, Any] = LEAST | {
    "fc_only": False,
    "stride": 32,
    "origin": "trained elsewhere: by hand",
    "imported": {"file": "x", "format": "Caffe", "known": True, "class_order": "wnid", "sha256": "1", "md5": "2"},
    "recipe": {"resample": "bicubic", "lrn": "krizhevsky"},
    "versions": {"vggrepro": "1", "commit": "c"},
}


NARROW: dict[str, Any] = TRAINED | {"min_channels": 16}


def written(folder: Path, values: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(values))
    return path


def test_the_least_config_has_what_was_meant_before_the_other_keys_existed(tmp_path: Path) -> None:
    config = read(written(tmp_path, LEAST))
    assert config == RunConfig(
        net="D", scale=JITTER, crop=64, width=0.125, classes=6, mean_rgb=(1, 2.5, 3), input_scale=1
    )
    assert config.architecture == Architecture("D", 6, 64, 0.125, 32, 1)
    assert config.run == Run("D", JITTER)
    assert (config.recipe.resample, config.recipe.lrn, config.recipe.held_out) == ("bilinear", "krizhevsky", 0.0)
    assert (config.start, config.dataset, config.epochs, config.origin) == (Start(), TrainedOn(), 0, None)


def test_a_trainings_config_is_typed(tmp_path: Path) -> None:
    config = read(written(tmp_path, TRAINED))
    assert config.start == Start(run="B-256", weights="abc")
    assert read(written(tmp_path, NARROW)).architecture == Architecture("B", 2, 64, 0.125, 32, 16)
    assert config.dataset == TrainedOn("demo", "print", "demo", 100, 20)
    assert config.class_names == ("red", "blue")
    assert (config.recipe.preset, config.recipe.batch, config.recipe.held_out) == ("demo", 32, 0.1)
    assert (config.epochs, config.learning_rate, config.seed, config.compiled) == (4, 0.001, 0, False)


@pytest.mark.parametrize(
    "values", [TRAINED, IMPORTED, NARROW, TRAINED | {"compiled": True, "start": {"initialisation": "he"}}]
)
def test_what_is_written_is_what_was_read_and_unknown_keys_survive(tmp_path: Path, values: dict[str, Any]) -> None:
    values = values | {"of_a_later_version": [1, {"a": None}]}
    config = read(written(tmp_path, values))
    write_json(tmp_path / "again.json", config.as_json())
    assert read_json(tmp_path / "again.json") == values
    assert read(tmp_path / "again.json") == config


def test_the_keys_keep_their_order(tmp_path: Path) -> None:
    values = TRAINED | {"later": 1}
    assert list(read(written(tmp_path, values)).as_json()) == list(values)


def test_an_imported_config_is_typed(tmp_path: Path) -> None:
    config = read(written(tmp_path, IMPORTED))
    assert config.imported == Imported("x", "Caffe", True, "wnid", {"sha256": "1", "md5": "2"})
    assert (config.origin, config.recipe.resample) == ("trained elsewhere: by hand", "bicubic")
    assert read(written(tmp_path, IMPORTED | {"imported": {"known": False}})).imported == Imported()


@pytest.mark.parametrize("preset", ["quarter", "demo"])
def test_before_the_stride_the_preset_coarse_was_called_quarter(tmp_path: Path, preset: str) -> None:
    values = TRAINED | {"recipe": {"preset": preset}, "dataset": {"preset": preset}}
    now = {"quarter": "coarse"}.get(preset, preset)
    older = {name: value for name, value in values.items() if name != "stride"}
    for given, expected in ((older, now), (values, preset)):
        config = read(written(tmp_path, given))
        assert (config.recipe.preset, config.dataset.preset, config.stride) == (expected, expected, 32)
        assert config.recipe.values["preset"] == expected


@pytest.mark.parametrize(
    ("word", "meaning"), [("glorot", "glorot-normal"), ("glorot-uniform", "glorot-uniform"), ("he", "he")]
)
def test_glorot_in_an_older_config_is_normal(tmp_path: Path, word: str, meaning: str) -> None:
    recipe = TRAINED["recipe"] | {"initialisation": word}
    older = {name: value for name, value in TRAINED.items() if name != "stride"}  # 2d51eb6 had no stride
    for values in (TRAINED, older):
        config = read(written(tmp_path, values | {"recipe": recipe, "start": {"initialisation": word}}))
        assert config.start == Start(initialisation=meaning)
        assert (config.recipe.initialisation, config.recipe.values["initialisation"]) == (meaning, meaning)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"crop": "64"}, "crop is no number; restore the file or remove its folder"),
        ({"mean_rgb": [1, None, 3]}, "mean_rgb is no number; restore the file or remove its folder"),
        ({"mean_rgb": 3}, "mean_rgb is no number; restore the file or remove its folder"),
        ({"stride": None}, "stride is no number; restore the file or remove its folder"),
        (
            {"scale": "large"},
            "damaged (--scale 'large' is not a scale; give S such as 256, or MIN:MAX such as 256:512)",
        ),
        ({"recipe": [1]}, "damaged ("),
        ({"start": "B-256"}, "damaged ("),
        ({"dataset": 3}, "damaged ("),
        ({"class_names": 3}, "damaged ("),
        ({"crop": float("inf")}, "damaged ("),
    ],
)
def test_a_damaged_config_is_one_line_with_a_remedy(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    path = written(tmp_path, TRAINED | change)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: {problem}")
    assert str(error.value).endswith("; restore the file or remove its folder")
    assert "\n" not in str(error.value)


def test_a_config_that_lacks_what_describes_the_net(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json: lacks crop, width, classes, mean_rgb, input_scale; restore"):
        read(written(tmp_path, {"net": "A", "scale": "256"}))
    with pytest.raises(InputError, match=r"is no run: it has no config\.json; 'vggrepro status' lists the runs"):
        RunFolder(tmp_path / "none").config()


def test_the_first_difference_is_named(tmp_path: Path) -> None:
    was = read(written(tmp_path, TRAINED))
    assert was.difference(was, IDENTITY) is None
    for change, names, words in (
        ({"seed": 1}, IDENTITY, "seed is 0 there, now 1"),
        ({"seed": 1}, STRUCTURE, None),
        ({"scale": S256, "seed": 1}, IDENTITY, "scale is 384 there, now 256"),
        ({"dataset": replace(was.dataset, fingerprint="x")}, STRUCTURE, "dataset.fingerprint is print there, now x"),
        ({"compiled": True}, IDENTITY, "compiled is None there, now True"),
        ({"start": Start(initialisation="he")}, IDENTITY, "it started from B-256, now it would from he"),
        ({"start": Start(run="B-256", weights="new")}, IDENTITY, "its start B-256 was trained again since"),
        ({"start": Start(run="B-256")}, IDENTITY, None),  # not finished yet: it fits any weights
        ({"device": "another", "versions": {}}, IDENTITY, None),
    ):
        assert was.difference(replace(was, **change), names) == words


def test_a_value_younger_than_the_run_is_compared_as_it_was_meant(tmp_path: Path) -> None:
    was = read(written(tmp_path, TRAINED))
    values = was.recipe.values
    assert was.difference(replace(was, recipe=UsedRecipe.of(values | {"decode": "pillow"})), IDENTITY) is None
    now = replace(was, recipe=UsedRecipe.of(values | {"decode": "region"}))
    assert was.difference(now, IDENTITY) == "recipe.decode is pillow there, now region"


def test_the_lrn_is_compared_of_nets_that_have_one(tmp_path: Path) -> None:
    for net, words in (("A", None), ("A-LRN", "lrn is caffe there, now krizhevsky")):
        was = read(written(tmp_path, TRAINED | {"net": net}))
        assert was.difference(replace(was, recipe=UsedRecipe.of({"lrn": "krizhevsky"})), STRUCTURE) == words


def test_posterior_files_record_the_input_as_ever(tmp_path: Path) -> None:
    for change, expected in (
        ({}, "[[110.5, 120.25, 90.0], 0.0172]"),
        ({"mean_rgb": [1, 2, 3], "input_scale": 1}, "[[1, 2, 3], 1]"),
        ({"net": "A-LRN"}, '[[110.5, 120.25, 90.0], 0.0172, "caffe"]'),
        ({"stride": 8}, "[[110.5, 120.25, 90.0], 0.0172, 8]"),
    ):
        assert read(written(tmp_path, TRAINED | change)).net_input == expected


def test_preparing_and_reporting_need_no_torch() -> None:
    names = (
        "data.prepare results.scores results.tables results.claims report posteriors.files runs.config data.rescaling"
    )
    imports = "".join(f"import vggrepro.{name}\n" for name in names.split())
    code = f"import sys\n{imports}assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_config_without_a_least_number_of_channels_has_one(tmp_path: Path) -> None:
    was, now = read(written(tmp_path, TRAINED)), read(written(tmp_path, NARROW))
    assert was.difference(now, IDENTITY) == "min_channels is 1 there, now 16"
    assert was.geometry._replace(min_channels=16) == now.geometry
