"""Training recipes: the paper's Sect. 3.1 as one checked dataclass, filled from a preset and options."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggrepro.errors import InputError
from vggrepro.paper import FEWEST_CHANNELS, INITIALISERS, LRN_DEFINITIONS, STRIDE, Geometry, check_geometry

PRESETS = ("paper", "half", "quarter", "eighth", "coarse", "demo")
CHOICES = {  # values that are words; docs/recipe.md explains each
    "initialisation": tuple(dict.fromkeys(INITIALISERS.values())),
    "lrn": tuple(LRN_DEFINITIONS),
    "momentum_form": ("caffe", "torch"),
    "resample": ("bilinear", "bicubic"),
    "decode": ("pillow", "region"),
    "colour_scale": ("eigenvalue", "deviation"),
    "schedule": ("plateau", "fixed"),
}
FORMER = {  # defaults for recipes saved before these values existed
    "stride": STRIDE,
    "min_channels": 1,
    "resample": "bilinear",
    "lrn": "krizhevsky",
    "momentum_form": "torch",
    "decode": "pillow",
    "colour_scale": "eigenvalue",
    "schedule": "plateau",
    "held_out": 0.0,
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """All choices of a training run that are not its net, scale or data. Presets comment each value."""

    preset: str
    crop: int  # real pixels; 224 is the paper
    stride: int  # real pixels between positions of the score map; 32 is the paper; exact at crop 7 * stride
    width: float  # multiplies channels and FC units; 1 is the paper
    min_channels: int  # of each conv. layer, however small the width
    lrn: str  # krizhevsky: k = 2, alpha = 1e-4, summed; caffe: k = 1, alpha divided by n
    resample: str  # bilinear or bicubic
    decode: str  # pillow, or region: only what a crop shows is decoded, faster and with slightly other pixels
    batch: int  # images in a step, over all processes
    learning_rate: float  # from random weights, and of deeper nets that start from A
    rescale_rate: float  # of a net continued at another scale (S = 384 from 256, [256;512] from 384)
    momentum: float
    momentum_form: str  # caffe: the rate is inside the buffer, v = mu v + rate g; torch: outside, w -= rate v
    weight_decay: float  # L2, of weights
    bias_rate: float  # the biases' learning rate, as a multiple
    bias_decay: float  # the biases' weight decay, as a multiple
    dropout: float
    warmup_steps: int  # the learning rate rises linearly over so many first steps
    clip_norm: float  # largest norm of the gradient; 0 is no limit
    initialisation: str  # random, glorot-uniform, glorot-normal, he, delta, looks-linear or dirac
    initial_std: float  # of `random`
    initial_fc8: float  # multiplies fc8's random weights: a small one starts at even scores
    input_scale: float  # the net's input is (RGB 0-255 - mean) * input_scale
    colour_std: float  # of the RGB shift's three draws
    colour_scale: str  # eigenvalue: of the covariance of RGB in [0, 1]; deviation: its square root, in any unit
    epochs: int  # at most, from random weights
    deeper_epochs: int  # at most, of a net that starts from A
    rescale_epochs: int  # at most, of a net continued at another scale
    held_out: float  # share of the training images used for validation in place of the validation split; 0: none
    schedule: str  # plateau: the rate drops when the validation error stalls; fixed: after drop_by's shares alone
    drops: int  # how often the learning rate is divided by 10
    patience: int  # epochs without improvement of the validation top-1 error before a drop
    min_improvement: float  # of that error, in points
    drop_by: tuple[float, ...]  # shares of the epochs after which each drop comes, on a plateau at the latest

    def __post_init__(self) -> None:
        positive = {"crop", "width", "batch", "learning_rate", "rescale_rate", "input_scale", "initial_std"}
        positive |= {"min_channels", "initial_fc8", "epochs", "deeper_epochs", "rescale_epochs", "patience"}
        for name, value in self.as_dict().items():
            if not isinstance(value, int | float):
                continue
            if not math.isfinite(value) or value < 0 or (value == 0 and name in positive):
                bound = "above 0" if name in positive else "0 or more"
                raise InputError(f"recipe: {name} = {value} must be a number {bound}")
        check_geometry(self.crop, self.stride)
        if self.min_channels > FEWEST_CHANNELS:
            raise InputError(f"recipe: min_channels = {self.min_channels} must be at most {FEWEST_CHANNELS}, conv1_1's")
        if self.dropout >= 1:
            raise InputError(f"recipe: dropout = {self.dropout} must be below 1")
        if self.momentum >= 1:
            raise InputError(f"recipe: momentum = {self.momentum} must be below 1")
        if self.held_out >= 1:
            raise InputError(f"recipe: held_out = {self.held_out} must be below 1")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"recipe: {name} '{getattr(self, name)}'; choose {', '.join(choices)}")
        shares = self.drop_by
        if len(shares) > self.drops or list(shares) != sorted(shares) or not all(0 < share <= 1 for share in shares):
            raise InputError("recipe: drop_by needs rising shares of the epochs in (0, 1], at most one for each drop")
        if self.schedule == "fixed" and len(shares) != self.drops:
            raise InputError(
                f"recipe: schedule 'fixed' with drops = {self.drops} and {len(shares)} shares in drop_by; give one a "
                "drop, such as --set drop_by=[0.5,0.75,0.9]"
            )

    def as_dict(self) -> dict[str, Any]:
        """The values as JSON holds them."""
        return {**dataclasses.asdict(self), "drop_by": list(self.drop_by)}

    @property
    def geometry(self) -> Geometry:
        """The sizes of its nets; `min_channels` is 1 where it changes nothing, so that equal nets have equal sizes."""
        least = self.min_channels if self.min_channels > round(FEWEST_CHANNELS * self.width) else 1
        return Geometry(self.crop, self.width, self.stride, least)

    def training_images(self, count: int) -> int:
        """How many of a training split's `count` images are trained on; the others are held out."""
        return count - round(self.held_out * count)

    def rate_after(self, errors: Sequence[float], base: float, epochs: int) -> tuple[float, bool]:
        """`learning_rate` with this recipe's schedule: rate of the next epoch, and whether to stop.

        Args:
            errors: the top-1 error (%) of each epoch so far, on the validation split or what is held out.
            base: the first learning rate.
            epochs: the most epochs.
        """
        return learning_rate(
            errors,
            base,
            epochs,
            drops=self.drops,
            patience=self.patience if self.schedule == "plateau" else epochs + 1,  # never reached: fixed drops
            min_improvement=self.min_improvement,
            drop_by=self.drop_by,
        )


def load(preset: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """The preset's recipe (`presets/<preset>.toml`) with some values replaced.

    Raises:
        InputError: unknown preset or value name, a value of the wrong type or out of range.
    """
    if preset not in PRESETS:
        raise InputError(f"unknown preset '{preset}'; choose one of {', '.join(PRESETS)}")
    values = {name: value for section in tomllib.loads(_text(preset)).values() for name, value in section.items()}
    if "preset" in (overrides or {}):
        raise InputError("--set preset=…: the preset is the data set's; prepare the data with another --preset")
    values |= {"preset": preset, **(overrides or {})}
    values["initialisation"] = INITIALISERS.get(values["initialisation"], values["initialisation"])
    known = {field.name: field.type for field in dataclasses.fields(Recipe)}
    for name in values:
        if name not in known:
            raise InputError(f"--set: no value '{name}' in a recipe; the names are {', '.join(known)}")
    return Recipe(**{name: _cast(name, str(known[name]), value) for name, value in values.items()})


def reasons(preset: str) -> dict[str, str]:
    """The comment beside each value of a preset: its section of the paper, or why it is open or differs."""
    return dict(re.findall(r"^(\w+) = .*?# (.+)$", _text(preset), re.MULTILINE))


def presets() -> list[str]:
    """The names of the presets."""
    return sorted(path.stem for path in Path(__file__).with_name("presets").glob("*.toml"))


def _text(preset: str) -> str:
    return Path(__file__).with_name("presets").joinpath(f"{preset}.toml").read_text(encoding="utf-8")


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """`["dropout=0.2", "initialisation=he"]` as a dict of TOML values.

    Raises:
        InputError: not NAME=VALUE.
    """
    result: dict[str, Any] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise InputError(f"--set {text}: give NAME=VALUE, such as --set dropout=0.2")
        try:
            result[name.strip()] = tomllib.loads(f"value = {value.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            result[name.strip()] = value.strip()  # a bare word
    return result


def _cast(name: str, kind: str, value: Any) -> Any:
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    numbers = isinstance(value, list | tuple) and all(isinstance(item, int | float) for item in value)
    if kind.startswith("tuple") and numbers:
        return tuple(float(item) for item in value)
    expected = {"str": "a word", "int": "a whole number", "float": "a number"}.get(kind, "a list of numbers")
    raise InputError(f"--set {name}={value}: expected {expected}")


def learning_rate(
    errors: Sequence[float],
    base: float,
    epochs: int,
    *,
    drops: int = 3,
    patience: int = 1,
    min_improvement: float = 0.0,
    drop_by: Sequence[float] = (),
) -> tuple[float, bool]:
    """The plateau rule of Sect. 3.1 as a function of history: rate of the next epoch, and whether to stop.

    The rate is divided by 10 when the validation error has not improved by more than `min_improvement` points
    for `patience` epochs, `drops` times in all, drop i at the latest after the share `drop_by[i]` of the
    epochs. Training stops after `epochs` epochs, or on the plateau that follows the last drop.

    Args:
        errors: the validation top-1 error (%) of each epoch so far.
        base: the first learning rate.
        epochs: the most epochs.
    """
    best, waited, dropped = float("inf"), 0, 0
    for epoch, error in enumerate(errors, 1):
        if error < best - min_improvement:
            best, waited = error, 0
        else:
            waited += 1
        if waited >= patience:
            if dropped == drops:
                return base * 0.1**dropped, True
            dropped, waited = dropped + 1, 0
        while dropped < len(drop_by) and epoch >= round(drop_by[dropped] * epochs):
            dropped, waited = dropped + 1, 0
    return base * 0.1**dropped, len(errors) >= epochs
