"""What every reader of other tools' weights returns (`Foreign`), and the checks that they share.

A reader module has `read(source, net) -> Foreign`. It brings the weights into our names, layout and input:
float32; convolutions (out, in, h, w); RGB; fc6 (FC, channels * k * k), channel first; and no other preprocessing
than (RGB 0-255 - mean_rgb) * input_scale with one scalar, so that colour order and a standard deviation for each
channel are folded into conv1_1.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.paper import Architecture
from vggrepro.recipe import CHOICES
from vggrepro.system.files import read_json, sha256
from vggrepro.system.progress import Track

CAFFE_MEAN_RGB = (123.68, 116.779, 103.939)  # of the authors' models, published as BGR 103.939, 116.779, 123.68
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of torchvision's weights, of pixels from 0 to 1
IMAGENET_STD = (0.229, 0.224, 0.225)
WNID_ORDER = "wnid"  # classes sorted by WordNet id, as the data sets that `prepare` makes of ImageNet
NOT_THE_PAPERS = "not the paper's training"
CHUNK = 1 << 22  # bytes hashed at a time
MAX_PARAMETERS = 400_000_000  # E with ImageNet's 21,841 classes has 229 million
MAX_BYTES = 8 * MAX_PARAMETERS


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights; its hashes are computed once, when asked for."""

    path: Path
    input: str | None = None  # what the user says of a state dict's input, of `state_dict.INPUTS`

    @cached_property
    def size(self) -> int:
        return self.path.stat().st_size

    @cached_property
    def _hashes(self) -> tuple[str, str]:
        sha, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        with open(self.path, "rb") as file, Track(f"hash {self.path.name}", self.size >> 20, "MB") as track:
            while chunk := file.read(CHUNK):
                sha.update(chunk)
                md5.update(chunk)
                track.advance(len(chunk) >> 20)
        return sha.hexdigest(), md5.hexdigest()

    @property
    def sha256(self) -> str:
        return self._hashes[0]

    @property
    def md5(self) -> str:
        return self._hashes[1]


@dataclass(frozen=True)
class Foreign:
    """Weights trained elsewhere, as our nets take them; `check`ed when built.

    Raises:
        InputError: names, shapes or values that are not `net`'s.
    """

    architecture: Architecture
    tensors: dict[str, Tensor]  # our names and layout, float32
    mean_rgb: tuple[float, float, float]  # 0-255
    input_scale: float
    format: str  # "Caffe", "MatConvNet", "Keras", "torchvision", "timm", "vggrepro", "ONNX"
    origin: str  # for tables: "trained elsewhere: the authors' Caffe model VGG_ILSVRC_16_layers"
    place: str  # the file or name, for messages
    class_order: str = WNID_ORDER  # or what is known of it
    class_names: tuple[str, ...] | None = None  # wnids where the file holds them
    known: bool = False  # the hash is that of a published file
    scale: str | None = None  # the training scale S where it is known, as `paper.Scale` writes it
    notes: tuple[str, ...] = ()  # for the user, a sentence each
    hashes: dict[str, str] = field(default_factory=dict)  # sha256, md5 of the file, where there is one
    lrn: str = "krizhevsky"  # A-LRN's, of `paper.LRN_DEFINITIONS`
    resample: str = "bilinear"  # with which evaluate rescales images for it

    def __post_init__(self) -> None:
        check(self.architecture, self.tensors, self.place)
        classes = self.architecture.classes
        if self.class_names is not None and len(self.class_names) != classes:
            raise InputError(
                f"{self.place}: {len(self.class_names)} classes are named, but fc8 has {classes}; restore what "
                "names them"
            )


def sidecar(path: Path) -> dict[str, Any]:
    """What `export` wrote beside a file that cannot hold it (`<file>.json`), as arguments of `Foreign`; else empty.

    Raises:
        InputError: it is damaged, or describes another file.
    """
    beside = path.with_name(path.name + ".json")
    if not beside.is_file():
        return {}
    about = read_json(beside)
    if "sha256" in about and about["sha256"] != sha256(path):
        raise InputError(f"{beside}: describes another file than {path.name}; export the run again with --force")
    return stated(about, str(beside))


def stated(about: Mapping[str, Any], place: str) -> dict[str, Any]:
    """What `export` says of the weights, in a side-car or a file's own metadata, as arguments of `Foreign`.

    Empty if it is not `export`'s.

    Raises:
        InputError: it is damaged.
    """
    if about.get("format") != "vggrepro":
        return {}
    try:
        mean, factor = tuple(float(value) for value in about["mean_rgb"]), float(about["input_scale"])
        result = {
            "mean_rgb": mean,
            "input_scale": factor,
            "crop": int(about["crop"]),  # crops from 224 to 255 give tensors of the same shapes
            "stride": int(about.get("stride", paper.STRIDE)),
            "origin": str(about.get("origin") or f"trained elsewhere: vggrepro's run {about['run']}"),
            "scale": str(paper.Scale.parse(str(about["scale"]))),
            "resample": str(about.get("resample", "bilinear")),
            "lrn": str(about.get("lrn", "krizhevsky")),
            "class_names": tuple(map(str, about["class_names"])) if about.get("class_names") else None,
        }
        if "width" in about:  # else both are taken from the shapes
            result |= {"width": float(about["width"]), "min_channels": int(about.get("min_channels", 1))}
        paper.check_geometry(int(about["crop"]), int(about.get("stride", paper.STRIDE)))
    except (KeyError, TypeError, ValueError, OverflowError, InputError) as error:
        raise InputError(f"{place}: lacks or damages {error}; restore it from the export, or remove it") from None
    if len(mean) != 3 or not all(math.isfinite(value) for value in (*mean, factor)):
        raise InputError(f"{place}: mean_rgb and input_scale are not finite numbers; restore it from the export")
    for name in ("resample", "lrn"):
        if result[name] not in CHOICES[name]:
            raise InputError(f"{place}: {name} is none of {', '.join(CHOICES[name])}; restore it from the export")
    return result


def check(architecture: Architecture, tensors: Mapping[str, Tensor], place: str) -> None:
    """Refuses weights that are not exactly a net's: names, float32, shapes and finite values.

    Raises:
        InputError: the first difference, in one line.
    """
    expected, net = architecture.shapes(), architecture.net
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_names(net, shapes, place)
    check_shapes(net, shapes, expected, place)
    for name in expected:
        tensor = tensors[name]
        if tensor.dtype != torch.float32:
            raise TypeError(f"{place}: {name} is {tensor.dtype}: a reader gives float32")
        # A sum needs no memory. It may overflow although all values are finite, so a second check follows.
        if not bool(tensor.sum().isfinite()) and not bool(tensor.isfinite().all()):
            if name == "fc6.weight" and bool(tensor.isnan().all()):
                raise InputError(
                    f"{place}: holds the features only: its FC layers are no numbers (NaN), as in torchvision's "
                    f"IMAGENET1K_FEATURES; give a whole file of net {net}"
                )
            raise InputError(f"{place}: {name} holds values that are no finite numbers; download the file again")


def check_shapes(
    net: str, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], place: str
) -> None:
    """Refuses shapes that are not the net's, before anything is read.

    Raises:
        InputError: the first that differs.
    """
    for name, shape in expected.items():
        if tuple(shapes[name]) != shape:
            raise InputError(
                f"{place}: {name} is {_times(shapes[name])}, where net {net} has {_times(shape)}; give a whole file of "
                f"net {net}"
            )


def _times(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "a single number"


def sized(architecture: Architecture, exported: Mapping[str, Any]) -> tuple[Architecture, dict[str, Any]]:
    """The architecture with the sizes that `stated` gives, if it gives any, and what else it gives."""
    values = dict(exported)
    size = {name: values.pop(name) for name in paper.Geometry._fields if name in values}
    return replace(architecture, **size), values


def check_names(net: str, shapes: Mapping[str, Sequence[int]], place: str) -> None:
    """Refuses tensors of another net, by names and kernels (ours) alone, before any is read.

    Raises:
        InputError: the net whose tensors they are, or the first that is missing or too many.
    """
    net, own = paper.check_net(net), Architecture(net, 1).shapes()
    if shapes.keys() == own.keys():
        return
    if fits := [other for other in paper.NETS if _same_kernels(Architecture(other, 1).shapes(), shapes)]:
        raise InputError(f"{place}: holds net {' or '.join(fits)}, not {net}; import it as {fits[0]}")
    if missing := [name for name in own if name not in shapes]:
        whole = ", which look like those without FC layers ('notop')" if not _has_fc(shapes) else ""
        raise InputError(
            f"{place}: lacks {missing[0]} ({len(missing)} of net {net}'s {len(own)} tensors{whole}); "
            f"give a whole file of net {net}"
        )
    extra = sorted(shapes.keys() - own.keys())[0]
    raise InputError(f"{place}: has {extra}, which net {net} has not; give a file of net {net}")


def _same_kernels(own: Mapping[str, Sequence[int]], shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether names and the sides of kernels are the same: C has D's names, but some kernels of 1 x 1."""
    return own.keys() == shapes.keys() and all(tuple(own[name][2:]) == tuple(shapes[name][2:]) for name in own)


def _has_fc(names: Iterable[str]) -> bool:
    return any(name.startswith("fc") for name in names)


def geometry(net: str, shapes: Mapping[str, Sequence[int]], place: str) -> Architecture:
    """The architecture of a net whose tensors have these shapes (names and layout ours), with the paper's stride.

    1000 classes, crop 224 and width 1 for the published nets. Nothing but names and shapes is read for it.

    Raises:
        InputError: names of another net, or shapes that are no net's at any crop, width or least number of channels;
            where some fit, the first that does not is named.
    """
    check_names(net, shapes, place)
    try:
        classes, units = shapes["fc8.weight"][0], shapes["fc7.weight"][0]
        last = paper.blocks(net)[-1][-1]
        assert isinstance(last, paper.Conv)
        channels, inputs = shapes[f"{last.name}.weight"][0], shapes["fc6.weight"][1]
        side = max(1, math.isqrt(inputs // channels))
        first = shapes["conv1_1.weight"][0]
        widths = [units / paper.FC_WIDTH, channels / last.channels, first / paper.FEWEST_CHANNELS]
    except (IndexError, ZeroDivisionError):
        raise InputError(
            f"{place}: its tensors have shapes that are no net's; give a whole file of net {net}"
        ) from None
    own = {name: tuple(shape) for name, shape in shapes.items()}
    check_count(own, place)
    found = [  # no layer has fewer channels than conv1_1, so that one shows a least number if there is one
        Architecture(net, classes, side * paper.STRIDE, width, min_channels=least)
        for least in (1, max(1, first))
        for width in widths
    ]
    nearest = max(found, key=lambda one: sum(own[name] == shape for name, shape in one.shapes().items()))
    check_shapes(net, own, nearest.shapes(), place)
    return nearest


def check_count(shapes: Mapping[str, Sequence[int]], place: str) -> None:
    """Refuses more weights than any net has: a file may repeat a few numbers to fill any shape.

    Raises:
        InputError: there are more.
    """
    if (count := sum(math.prod(shape) for shape in shapes.values())) > MAX_PARAMETERS:
        raise InputError(f"{place}: {count:,} weights are more than {MAX_PARAMETERS:,}; it is no net of Table 1")


def usual_layers() -> set[str]:
    """The names of the nets' layers with weights, ours and the authors'."""
    return {name.rpartition(".")[0] for net in paper.NETS for name in Architecture(net, 1).shapes()}


def names_by_order(kinds: str, net: str) -> list[str] | None:
    """`net`'s layer names for a file whose layers have other names, if it has as many conv. and FC layers in order.

    `kinds` is a "c" for each convolution and an "f" for each FC layer.
    """
    own = list(dict.fromkeys(name.rpartition(".")[0] for name in Architecture(net, 1).shapes()))
    return own if kinds == "".join(name[0] for name in own) else None


def lrn_definition(values: Mapping[str, float], place: str) -> str:
    """The name in `paper.LRN_DEFINITIONS` of n, k, alpha (not divided by n) and beta.

    Raises:
        InputError: none of them.
    """
    for name, wanted in paper.LRN_DEFINITIONS.items():
        if all(math.isclose(values[key], wanted[key], rel_tol=1e-5) for key in wanted):
            return name
    text = ", ".join(f"{key} {value:g}" for key, value in values.items())
    raise InputError(f"{place}: its LRN ({text}) is none of {', '.join(paper.LRN_DEFINITIONS)}: it cannot be imported")


def check_lrn(net: str, count: int, place: str) -> None:
    """Refuses a file whose number of LRN layers, `count`, is not that of `net`.

    Raises:
        InputError: the numbers differ.
    """
    own = sum(block.count("LRN") for block in paper.blocks(net))
    if count != own:
        other = {"A": "A-LRN", "A-LRN": "A"}.get(net)
        advice = f"import it as {other}" if other and count < 2 else f"give a file of net {net}"
        raise InputError(f"{place}: has {count} LRN layers, net {net} has {own}; {advice}")


def printable(text: str) -> str:
    """A name from a file, for messages: at most 60 characters, none that would break the line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:60])


def first_line(error: BaseException) -> str:
    """What an error of another library says, for messages: its first line, at most 200 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def not_downloaded(name: str, file: str, error: BaseException) -> InputError:
    """What to do when weights named `name` cannot be downloaded; `file` is what to get where there is a network."""
    return InputError(
        f"{name}: could not be downloaded ({first_line(error)}); download {file} where there is a network and give "
        "that file"
    )


def bgr_to_rgb(weight: Tensor) -> Tensor:
    """conv1_1's weights for RGB input, from those for BGR: (out, 3, k, k) -> the same, exact."""
    return weight[:, [2, 1, 0]]


def fold_std(weight: Tensor, std: Sequence[float]) -> Tensor:
    """conv1_1's weights for an input that is not divided by `std`: (out, 3, k, k) -> the same, via float64.

    `std` has a number for each channel. The zero padding is the mean either way, so the outputs are the same up to one
    rounding of each weight.
    """
    divisor = torch.tensor(std, dtype=torch.float64)[None, :, None, None]
    return (weight.to(torch.float64) / divisor).to(torch.float32)
