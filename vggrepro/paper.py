"""The paper as data: nets, scales, protocols, published numbers. Facts only; no torch, no files of ours.

Legend: S is the training scale, Q the test scale, both the shorter image side in pixels *of the paper*,
that is for a 224-pixel crop (Sect. 3); K is the number of classes.
"""

from __future__ import annotations

import csv
import math
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from vggrepro.errors import InputError

CROP = 224  # side of the net's input during training (Sect. 2.1)
FC_WIDTH = 4096  # Sect. 2.1
FEWEST_CHANNELS = 64  # of Table 1's conv. layers: conv1_1 of every net
# How first weights are drawn: what a user may say, and the name that a run's config.json records.
# N(0, std²) and Glorot & Bengio 2010 (Sect. 3.1), He et al. 2015, delta-orthogonal without filters' means (Xiao et
# al. 2018), looks-linear (Balduzzi et al. 2017), and that with Dirac kernels (Zagoruyko & Komodakis 2017).
INITIALISERS = {
    "random": "random",
    "glorot": "glorot-uniform",  # as Glorot & Bengio have it; a config.json with "glorot" is older and means normal
    "glorot-uniform": "glorot-uniform",
    "glorot-normal": "glorot-normal",
    "he": "he",
    "delta": "delta",
    "looks-linear": "looks-linear",
    "dirac": "dirac",
}
MAX_SCALE = 4096  # ours, against slips: eight times the paper's largest
STRIDE = 32  # pixels between two positions of the score map: five poolings (Sect. 2.1)
STRIDES = (32, 16, 8, 4)  # ours: at crop 112, 56 or 28 the first one to three poolings are left out; fc6 sees 7 x 7
GOOGLENET_QS = (256, 288, 320, 352)  # of GoogLeNet's 144 crops (Szegedy et al. 2014, Sect. 7)
TOP_K = 5  # ILSVRC's second measure (Sect. 4)
DROPOUT = 0.5  # of fc6 and fc7 in training, Sect. 3.1
GRID = 5  # multi-crop: 5 x 5 positions, 2 flips, 50 crops at each scale (Sect. 3.2)

# Table 1, a column for each net: blocks of conv. layers "kernel-channels", each block ended by a max-pooling.
# B-5x5 is the shallow net of Sect. 4.1: B with each pair of 3x3 layers replaced by one 5x5 layer.
NETS: dict[str, tuple[tuple[str, ...], ...]] = {
    "A": (("3-64",), ("3-128",), ("3-256",) * 2, ("3-512",) * 2, ("3-512",) * 2),
    "A-LRN": (("3-64", "LRN"), ("3-128",), ("3-256",) * 2, ("3-512",) * 2, ("3-512",) * 2),
    "B": (("3-64",) * 2, ("3-128",) * 2, ("3-256",) * 2, ("3-512",) * 2, ("3-512",) * 2),
    "B-5x5": (("5-64",), ("5-128",), ("5-256",), ("5-512",), ("5-512",)),
    "C": (
        ("3-64",) * 2,
        ("3-128",) * 2,
        ("3-256", "3-256", "1-256"),
        ("3-512", "3-512", "1-512"),
        ("3-512", "3-512", "1-512"),
    ),
    "D": (("3-64",) * 2, ("3-128",) * 2, ("3-256",) * 3, ("3-512",) * 3, ("3-512",) * 3),
    "E": (("3-64",) * 2, ("3-128",) * 2, ("3-256",) * 4, ("3-512",) * 4, ("3-512",) * 4),
}

# Sect. 3.1: deeper nets take the first four conv. layers of A (by block and place) and its FC layers.
COPIED_FROM_A = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")

# Used by A-LRN: b = a / (k + alpha * sum over n channels of a^2)^beta. Sect. 2.1 cites Krizhevsky et al. 2012, who do
# not divide alpha by n; Caffe's layer does, and its AlexNet leaves k = 1: a fifth of the effect.
LRN = {"n": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75}
LRN_DEFINITIONS = {"krizhevsky": LRN, "caffe": LRN | {"k": 1.0, "alpha": 1e-4 / 5}}


@dataclass(frozen=True, slots=True)
class Conv:
    """One conv. layer of Table 1: its Caffe-style name (`conv3_2`), kernel side and channels at width 1."""

    name: str
    kernel: int
    channels: int


def blocks(net: str) -> list[list[Conv | str]]:
    """Table 1's column for `net`: five blocks, each a list of `Conv` (and "LRN" where it stands).

    Raises:
        InputError: no such net.
    """
    result: list[list[Conv | str]] = []
    for number, block in enumerate(NETS[check_net(net)], 1):
        layers: list[Conv | str] = []
        place = 0
        for item in block:
            if item == "LRN":
                layers.append(item)
                continue
            place += 1
            kernel, channels = map(int, item.split("-"))
            layers.append(Conv(f"conv{number}_{place}", kernel, channels))
        result.append(layers)
    return result


def check_net(net: str) -> str:
    """Table 1's spelling of `net`, in capitals or not; InputError if it has no such net."""
    spellings = {name.casefold(): name for name in NETS}
    if net.casefold() in spellings:
        return spellings[net.casefold()]
    raise InputError(f"unknown net '{net}'; choose one of {', '.join(NETS)}")


def check_geometry(crop: int, stride: int) -> None:
    """Refuses a stride that no net has, and a crop that leaves fc6 no position.

    Raises:
        InputError: the stride or the crop is refused.
    """
    if stride not in STRIDES:
        raise InputError(f"stride = {stride}; choose {', '.join(map(str, STRIDES))}")
    if crop < stride:
        raise InputError(f"crop = {crop}; the poolings need at least {stride} pixels")


def poolings(stride: int = STRIDE) -> tuple[bool, ...]:
    """Which of the five blocks end in a max-pooling: all (stride 32), all but the first (16), two (8) or three (4)."""
    count = stride.bit_length() - 1
    return tuple(block >= 5 - count for block in range(5))


class Geometry(NamedTuple):
    """The sizes in which a whole reproduction may differ from the paper: nets of different sizes are not compared."""

    crop: int = CROP  # side of a training crop, in real pixels
    width: float = 1.0  # times channels and FC units
    stride: int = STRIDE  # real pixels between two positions of the score map
    min_channels: int = 1  # of each conv. layer; 1 also where all have more

    @property
    def widths(self) -> str:
        """The width in words: "width 0.125", or "width 0.0625 (at least 16 channels)"."""
        least = f" (at least {self.min_channels} channels)" if self.min_channels > 1 else ""
        return f"width {self.width:g}{least}"


@dataclass(frozen=True, slots=True)
class Architecture:
    """What decides the layers of a net and the shapes of their weights.

    `width` multiplies channels and FC units; no conv. layer has fewer than `min_channels`. `stride` is the real pixels
    between two positions of the score map: 32 is the paper's; 16, 8 and 4 leave out the first one, two or three
    poolings (`poolings`).
    """

    net: str  # a column of Table 1
    classes: int = 1000
    crop: int = CROP  # side of a training crop, in real pixels
    width: float = 1.0
    stride: int = STRIDE
    min_channels: int = 1

    @property
    def geometry(self) -> Geometry:
        """The sizes alone."""
        return Geometry(self.crop, self.width, self.stride, self.min_channels)

    def channels(self, conv: Conv) -> int:
        """Channels of a layer of Table 1 at this width."""
        return max(1, self.min_channels, round(conv.channels * self.width))

    @property
    def units(self) -> int:
        """Units of fc6 and fc7."""
        return max(1, round(FC_WIDTH * self.width))

    @property
    def map_side(self) -> int:
        """Positions along a side of the map that fc6 sees."""
        return self.crop // self.stride

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all weights by name (`conv1_1.weight` … `fc8.bias`), in the order of the layers.

        Convolutions are (out, in, k, k); fc6 is (FC, channels * m * m) with m = `map_side`.

        Raises:
            InputError: no such net.
        """
        result: dict[str, tuple[int, ...]] = {}
        incoming = 3
        for block in blocks(self.net):
            for layer in block:
                if isinstance(layer, Conv):
                    out = self.channels(layer)
                    result[f"{layer.name}.weight"] = (out, incoming, layer.kernel, layer.kernel)
                    result[f"{layer.name}.bias"] = (out,)
                    incoming = out
        incoming *= self.map_side**2
        for name, out in (("fc6", self.units), ("fc7", self.units), ("fc8", self.classes)):
            result[f"{name}.weight"] = (out, incoming)
            result[f"{name}.bias"] = (out,)
            incoming = out
        return result

    @property
    def parameters(self) -> int:
        """Number of weights and biases (Table 2)."""
        return sum(math.prod(shape) for shape in self.shapes().values())


def real_pixels(length: int, crop: int) -> int:
    """A length in paper pixels as real pixels of a run whose crop is `crop` (224: the same)."""
    return round(length * crop / CROP)


@dataclass(frozen=True, slots=True, order=True)
class Scale:
    """A training scale S: fixed (`low == high`) or jittered over [low; high] (Sect. 3.1)."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> Scale:
        """`256` or `256:512` (also the paper's `[256;512]` and the run names' `256-512`).

        Raises:
            InputError: not a scale, MIN > MAX, or smaller than the 224-pixel crop.
        """
        parts = text.strip("[] ").replace(";", ":").replace("-", ":").split(":")
        if len(parts) > 2 or not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
            raise InputError(f"--scale '{text}' is not a scale; give S such as 256, or MIN:MAX such as 256:512")
        low, high = int(parts[0]), int(parts[-1])
        if low > high:
            raise InputError(f"--scale {text}: MIN {low} is larger than MAX {high}; give MIN:MAX such as 256:512")
        if high > MAX_SCALE:
            raise InputError(f"--scale {text}: S = {high} is too large; give {MAX_SCALE} or less")
        if low < CROP:
            raise InputError(
                f"--scale {text}: S = {low} is below the crop of {CROP} (scales are in the paper's pixels); "
                f"give {CROP} or more"
            )
        return cls(low, high)

    @property
    def jittered(self) -> bool:
        return self.low != self.high

    @property
    def middle(self) -> int:
        """0.5 (Smin + Smax): Table 3's Q for jittered S; S itself when fixed."""
        return (self.low + self.high) // 2

    @property
    def test_scales(self) -> tuple[int, ...]:
        """Table 4's Q set: {S-32, S, S+32}, or {Smin, 0.5 (Smin + Smax), Smax} (Sect. 4.2)."""
        if self.jittered:
            return (self.low, self.middle, self.high)
        return tuple(q for q in (self.low - 32, self.low, self.low + 32) if q >= CROP)

    def __str__(self) -> str:
        return f"{self.low}:{self.high}" if self.jittered else str(self.low)

    @property
    def slug(self) -> str:
        """As in run names: `256` or `256-512`."""
        return f"{self.low}-{self.high}" if self.jittered else str(self.low)

    @property
    def label(self) -> str:
        """As the paper prints it: `256` or `[256;512]`."""
        return f"[{self.low};{self.high}]" if self.jittered else str(self.low)


S256, S384, JITTER = Scale(256, 256), Scale(384, 384), Scale(256, 512)


@dataclass(frozen=True, slots=True)
class Run:
    """One trained net of the paper: a column of Table 1 at a training scale.

    `fc_only` marks a fine-tuning of the FC layers alone, as the submitted multi-scale D (Sect. 4.4).
    """

    net: str
    scale: Scale
    fc_only: bool = False

    @property
    def name(self) -> str:
        """`D-256-512`, `D-256-512-fc`: the run's folder."""
        return f"{self.net}-{self.scale.slug}" + ("-fc" if self.fc_only else "")

    @classmethod
    def parse(cls, name: str) -> Run | None:
        """The run that `name` gives this name; None for the name of no run, such as `mine` or `D-100`."""
        if found := _RUN_NAME.fullmatch(name):
            with suppress(InputError):  # a scale below the crop, or MIN > MAX
                run = cls(found[1], Scale.parse(found[2]), found[3] is not None)
                return run if run.name == name else None
        return None

    @property
    def parent(self) -> Run | None:
        """The run whose weights this one starts from (Sect. 3.1); None: from random weights.

        The nets deeper than A start from A-256; A itself, A-LRN, which is as deep, and the shallow B-5x5 (no layer of
        which has A's shape before the FC layers), from random. Another fixed S starts from S = 256; a jittered S from
        S = 384.
        """
        if self.fc_only or self.scale.jittered:
            return Run(self.net, S384)
        if self.scale != S256:
            return Run(self.net, S256)
        return None if self.net in ("A", "A-LRN", "B-5x5") else Run("A", S256)

    @property
    def is_rescaling(self) -> bool:
        """Whether the run continues the same net at another scale (with a tenth of the learning rate)."""
        return self.parent is not None and self.parent.net == self.net


_RUN_NAME = re.compile(rf"({'|'.join(NETS)})-(\d+(?:-\d+)?)(-fc)?", re.ASCII)

SHALLOW = Run("B-5x5", S256)  # Sect. 4.1's net of 5x5 layers, compared with B on the centre crop


def chain(run: Run) -> list[Run]:
    """`run` and everything it starts from, in the order of training."""
    result = [run]
    while (parent := result[0].parent) is not None:
        result.insert(0, parent)
    return result


@dataclass(frozen=True, slots=True)
class View:
    """One set of posteriors that enters a table row: a run seen at one Q by one method."""

    run: Run
    q: int
    method: str  # "dense", "multicrop" or "center"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of Tables 3-6: its label cells, the posteriors it averages, and the published errors (%)."""

    labels: dict[str, str]
    views: tuple[View, ...]
    top1: float | None
    top5: float | None
    test_top5: float | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """How Appendix B tests features on a data set.

    `train` and `test` are images of each class in a random split (None: all others); the paper draws three of them.
    Without `train` the data set's own split is used.
    """

    qs: tuple[int, ...]
    pooled: bool  # averaged over Q, or one after another ("stacking")
    measure: str  # the column of Table 11 or 12
    train: int | None = None
    test: int | None = None


CALTECH_QS, VOC_QS = (256, 384, 512), (256, 384, 512, 640, 768)
TRANSFER = {  # by the names of `data.transfer_sets`
    "voc2007": Transfer(VOC_QS, True, "voc2007_map"),
    "voc2012": Transfer(VOC_QS, True, "voc2012_map"),
    "caltech-101": Transfer(CALTECH_QS, False, "caltech101_mean_recall", 30, 50),
    "caltech-256": Transfer(CALTECH_QS, False, "caltech256_mean_recall", 60),
    "voc2012-action": Transfer(VOC_QS, True, "voc2012_action_map"),
}

# Table 5's words, and the methods whose posteriors each averages.
METHODS = {"dense": ("dense",), "multi-crop": ("multicrop",), "multi-crop & dense": ("multicrop", "dense")}


def tables_folder() -> Path:
    """Where the published numbers lie: in the wheel beside this module, in a checkout in tables/paper."""
    packaged = Path(__file__).with_name("paper_tables")
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "tables" / "paper"


@cache
def published(table: int) -> tuple[dict[str, str], ...]:
    """The rows of the paper's Table `table` (2-7, 11, 12) as printed, by column name."""
    with open(tables_folder() / f"table{table}.csv", newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _views(run: Run, qs: tuple[int, ...], method: str) -> tuple[View, ...]:
    return tuple(View(run, q, kind) for kind in METHODS[method] for q in qs)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


@cache
def rows(table: int) -> tuple[Row, ...]:
    """The rows of Table 3, 4, 5 or 6 in the paper's order, each with the posteriors it needs.

    Table 6's submission holds the multi-scale D whose FC layers alone were fine-tuned (Sect. 4.4).
    """
    result = []
    for line in published(table):
        errors = _number(line["top1_val_error"]), _number(line["top5_val_error"])
        if table in (3, 4):
            run = Run(line["net"], Scale.parse(line["S"]))
            labels = {"net": line["net"], "S": run.scale.label, "Q": line["Q"].replace(",", ", ")}
            result.append(Row(labels, _views(run, _integers(line["Q"]), "dense"), *errors))
        elif table == 5:
            run = Run(line["net"], JITTER)
            labels = {"net": line["net"], "method": line["method"]}
            result.append(Row(labels, _views(run, JITTER.test_scales, line["method"]), *errors))
        elif table == 6:
            submission = line["group"] == "ILSVRC submission"
            views: list[View] = []
            names = []
            for model in line["models"].split("; "):
                net, scale_text, qs = model.split("/")
                scale = Scale.parse(scale_text)
                run = Run(net, scale, fc_only=submission and scale.jittered)
                views.extend(_views(run, _integers(qs), line["method"]))
                names.append(f"{net}/{scale.label}/{qs}")
            labels = {"group": line["group"], "models": "; ".join(names), "method": line["method"]}
            result.append(Row(labels, tuple(views), *errors, _number(line["top5_test_error"])))
        else:
            raise ValueError(f"Table {table} has no rows of posteriors")
    return tuple(result)


@cache
def all_runs() -> tuple[Run, ...]:
    """Every run that Tables 3-6 and Sect. 4.1's comparison with a shallow net need, ancestors first."""
    result: dict[Run, None] = {SHALLOW: None}
    for table in (3, 4, 5, 6):
        for row in rows(table):
            for view in row.views:
                result.update(dict.fromkeys(chain(view.run)))
    return tuple(sorted(result, key=lambda run: (len(chain(run)), list(NETS).index(run.net), run.scale, run.fc_only)))
