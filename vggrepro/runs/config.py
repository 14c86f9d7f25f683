"""A run's configuration, config.json: what was trained, how and on what data; or what was imported."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.paper import Architecture, Geometry, Run, Scale
from vggrepro.recipe import FORMER
from vggrepro.system.files import read_json

# Values that a run must share with its own continuation (IDENTITY), and with a run that starts from it (STRUCTURE).
SIZES = ("crop", "stride", "width", "min_channels", "input_scale")  # of a net, whichever it is
STRUCTURE = ("dataset", "net", "scale", "fc_only", *SIZES, "classes", "lrn")
IDENTITY = (*STRUCTURE, "start", "epochs", "learning_rate", "seed", "precision", "compiled", "fast", "recipe")
NEEDED = ("net", "scale", "crop", "width", "classes", "mean_rgb", "input_scale")
REMEDY = "restore the file or remove its folder"


@dataclass(frozen=True, slots=True)
class UsedRecipe:
    """The recipe of a run, as far as its config.json holds it: of imported weights only `resample` and `lrn`."""

    values: dict[str, Any] = field(default_factory=dict)  # as in config.json
    preset: str | None = None
    batch: int | None = None
    held_out: float = 0.0
    initialisation: str | None = None
    resample: str = str(FORMER["resample"])
    lrn: str = str(FORMER["lrn"])

    @classmethod
    def of(cls, values: dict[str, Any]) -> UsedRecipe:
        """From the table of config.json; values that the run's version did not have are taken from `FORMER`."""
        known: dict[str, Any] = {name: (FORMER | values).get(name) for name in cls._names()}
        return cls(values, **known)

    @classmethod
    def _names(cls) -> list[str]:
        return [each.name for each in dataclasses.fields(cls) if each.name != "values"]

    @property
    def complete(self) -> dict[str, Any]:
        """The values, completed with those that the run's version did not have."""
        return FORMER | self.values


@dataclass(frozen=True, slots=True)
class Start:
    """What a run starts from: random weights, or another run, whose weights' hash is None while it is unfinished."""

    initialisation: str | None = None
    run: str | None = None
    weights: str | None = None

    def as_json(self) -> dict[str, Any] | None:
        if self.run is not None:
            return {"run": self.run, "weights": self.weights}
        return {"initialisation": self.initialisation} if self.initialisation is not None else None


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """The data set of a training; a value that is not recorded is None."""

    name: str | None = None
    fingerprint: str | None = None
    preset: str | None = None
    train_images: int | None = None
    val_images: int | None = None

    def as_json(self) -> dict[str, Any] | None:
        values = _without_none(dataclasses.asdict(self))
        return values or None


@dataclass(frozen=True, slots=True)
class Imported:
    """Where imported weights come from."""

    file: str | None = None  # or timm:NAME
    format: str | None = None
    known: bool = False  # the file is a published one
    class_order: str | None = None
    hashes: dict[str, str] = field(default_factory=dict)  # sha256 and md5 of the file, or `tensors`

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Imported:
        names = ("file", "format", "known", "class_order")
        hashes = {name: str(value) for name, value in values.items() if name not in names}
        return cls(**{name: values[name] for name in names if name in values}, hashes=hashes)

    def as_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return _without_none(values | values.pop("hashes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """All of a run's config.json, in the file's order.

    A value that the file does not hold is None, or the one that older versions used. Keys that this version does not
    know are kept in `others`.
    """

    net: str  # of Table 1
    scale: Scale
    fc_only: bool = False
    crop: int  # real pixels
    stride: int = paper.STRIDE  # real pixels between two positions of the score map
    width: float
    min_channels: int = 1
    classes: int
    class_names: tuple[str, ...] | None = None
    class_words: tuple[str, ...] | None = None
    mean_rgb: tuple[float, ...]  # the net's input is (RGB 0-255 - mean_rgb) * input_scale
    input_scale: float
    origin: str | None = None  # of imported weights, for tables
    imported: Imported | None = None
    start: Start = Start()
    epochs: int = 0  # at most; 0: not recorded
    learning_rate: float = 0.0  # the first; 0: not recorded
    seed: int | None = None
    precision: str | None = None
    compiled: bool = False
    fast: bool = False  # its bits may differ from one training to the next
    recipe: UsedRecipe = field(default_factory=UsedRecipe)
    dataset: TrainedOn = TrainedOn()
    device: str | None = None
    versions: dict[str, Any] | None = None
    others: dict[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> Architecture:
        return Architecture(self.net, self.classes, *self.geometry)

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.crop, self.width, self.stride, self.min_channels)

    @property
    def run(self) -> Run:
        """The run of the paper with this net, scale and trained layers; the folder's name does not count."""
        return Run(self.net, self.scale, self.fc_only)

    @property
    def lrn(self) -> str | None:
        """The normalisation's formula, of a net that has one."""
        has_one = any("LRN" in block for block in paper.blocks(self.net))
        return self.recipe.lrn if has_one else None

    @property
    def net_input(self) -> str:
        """What, beyond the weights, the posteriors depend on; posterior files record it.

        These are the mean, the input scale, A-LRN's formula, and a stride that is not the paper's.
        """
        lrn = [self.recipe.lrn] if self.net == "A-LRN" else []
        stride = [self.stride] if self.stride != paper.STRIDE else []
        return json.dumps([list(self.mean_rgb), self.input_scale, *lrn, *stride])

    def as_json(self) -> dict[str, Any]:
        """The values as config.json holds them."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "others"}
        values |= {
            "scale": str(self.scale),
            "mean_rgb": list(self.mean_rgb),
            "class_names": _list(self.class_names),
            "class_words": _list(self.class_words),
            "imported": self.imported and self.imported.as_json(),
            "start": self.start.as_json(),
            "min_channels": self.min_channels if self.min_channels > 1 else None,
            "epochs": self.epochs or None,
            "learning_rate": self.learning_rate or None,
            "compiled": self.compiled or None,
            "fast": self.fast or None,
            "recipe": self.recipe.values or None,
            "dataset": self.dataset.as_json(),
        }
        return _without_none(values) | self.others

    def difference(self, now: RunConfig, names: Sequence[str]) -> str | None:
        """The first of `names` whose values differ, in words; a start that is not finished yet fits any weights."""
        was, will = self._compared(), now._compared()
        for name in names:
            old, new = was.get(name), will.get(name)
            if name == "start":
                if words := _other_start(self.start, now.start):
                    return words
            elif isinstance(old, dict) and isinstance(new, dict):
                keys = [key for key in [*new, *old] if old.get(key) != new.get(key)]
                if keys:
                    return f"{name}.{keys[0]} is {old.get(keys[0])} there, now {new.get(keys[0])}"
            elif old != new:
                return f"{name} is {old} there, now {new}"
        return None

    def _compared(self) -> dict[str, Any]:
        return self.as_json() | {"recipe": self.recipe.complete, "lrn": self.lrn, "min_channels": self.min_channels}


def _other_start(was: Start, now: Start) -> str | None:
    before, after = (start.run or start.initialisation for start in (was, now))
    if before != after:
        return f"it started from {before}, now it would from {after}"
    if now.weights and was.weights != now.weights:
        return f"its start {before} was trained again since"
    return None


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _list(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)


# Reading


def read(path: Path) -> RunConfig:
    """A run's config.json.

    Raises:
        InputError: it is damaged, or lacks what describes the net.
    """
    values = _with_present_names(read_json(path))
    missing = [name for name in NEEDED if name not in values]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; {REMEDY}")
    for name in (*SIZES, "classes"):
        if name in values and not _is_number(values[name]):
            raise InputError(f"{path}: {name} is no number; {REMEDY}")
    if not isinstance(values["mean_rgb"], list) or not all(map(_is_number, values["mean_rgb"])):
        raise InputError(f"{path}: mean_rgb is no number; {REMEDY}")
    try:
        return _parsed(values)
    except (TypeError, ValueError, OverflowError, AttributeError, InputError) as error:
        raise InputError(f"{path}: damaged ({error}); {REMEDY}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _parsed(values: dict[str, Any]) -> RunConfig:
    known = {each.name for each in dataclasses.fields(RunConfig)} - {"others"}
    given = {name: value for name, value in values.items() if name in known and value is not None}
    tables = {"start": Start, "dataset": TrainedOn}
    given |= {name: _table(kind, given.get(name) or {}) for name, kind in tables.items()}
    given |= {name: tuple(given[name]) for name in ("mean_rgb", "class_names", "class_words") if name in given}
    given |= {name: int(values[name]) for name in ("crop", "classes", "stride", "min_channels") if name in values}
    given |= {
        "net": str(values["net"]),
        "scale": Scale.parse(str(values["scale"])),
        "imported": Imported.of(given["imported"]) if given.get("imported") else None,
        "recipe": UsedRecipe.of(given.get("recipe") or {}),
    }
    return RunConfig(**given, others={name: value for name, value in values.items() if name not in known})


def _table(kind: type[Any], values: Mapping[str, Any]) -> Any:
    return kind(**{each.name: values.get(each.name) for each in dataclasses.fields(kind)})


def _with_present_names(values: dict[str, Any]) -> dict[str, Any]:
    """The values of an older config by the names of this version.

    `glorot` was normal; what is uniform is recorded as `glorot-uniform`. Before the net had a stride, it was the
    paper's 32, and the preset `coarse` was called `quarter`.
    """
    values = _renamed(values, ("recipe", "start"), "initialisation", "glorot", "glorot-normal")
    if "stride" in values:
        return values
    return _renamed(values, ("recipe", "dataset"), "preset", "quarter", "coarse") | {"stride": paper.STRIDE}


def _renamed(values: dict[str, Any], parts: Sequence[str], name: str, was: str, now: str) -> dict[str, Any]:
    changed = [part for part in parts if isinstance(values.get(part), dict) and values[part].get(name) == was]
    return values | {part: values[part] | {name: now} for part in changed}
