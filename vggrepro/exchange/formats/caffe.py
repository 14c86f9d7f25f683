"""Caffe models (`.caffemodel`), of Caffe's old `layers` and its new `layer`; the authors' releases are of the old kind.

Field numbers are those of Caffe's `caffe.proto`. Caffe's convolutions are ours; its input is BGR, 0-255 minus the mean.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.exchange.formats import published
from vggrepro.exchange.formats.base import (
    CAFFE_MEAN_RGB,
    Foreign,
    WeightsFile,
    bgr_to_rgb,
    check_lrn,
    geometry,
    lrn_definition,
    names_by_order,
    printable,
    sidecar,
    sized,
    usual_layers,
)
from vggrepro.exchange.formats.protobuf import (
    FIXED32,
    FIXED64,
    GROUP,
    LENGTH,
    VARINT,
    Budget,
    Field,
    WireError,
    fields,
    varints,
)

if TYPE_CHECKING:
    import h5py

NET_V1, NET_LAYER = 2, 100  # NetParameter.layers, .layer
V1_V0, V1_NAME, V1_TYPE, V1_BLOBS, V1_LRN = 1, 4, 5, 6, 18
LAYER_NAME, LAYER_TYPE, LAYER_BLOBS, LAYER_LRN = 1, 2, 7, 118
BLOB_LEGACY, BLOB_DATA, BLOB_SHAPE, BLOB_DOUBLES = (1, 2, 3, 4), 5, 7, 8
SHAPE_DIM = 1
V1_TYPES = {4: "Convolution", 14: "InnerProduct", 15: "LRN"}
MAX_AXES = 32  # Caffe's own limit
MAX_LAYERS = 1000


@dataclass(slots=True)
class Blob:
    """A tensor of the file, not read yet: its numbers are slices of the file."""

    legacy: dict[int, int] = field(default_factory=dict)  # num, channels, height, width
    dims: list[int] = field(default_factory=list)
    floats: list[np.ndarray] = field(default_factory=list)  # little-endian bytes
    doubles: list[np.ndarray] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """The legacy four dimensions win if any is there, as in Caffe."""
        return tuple(self.legacy.get(number, 0) for number in BLOB_LEGACY) if self.legacy else tuple(self.dims)

    @property
    def count(self) -> int:
        """Numbers there are."""
        return sum(part.size for part in self.doubles) // 8 or sum(part.size for part in self.floats) // 4

    def read(self) -> np.ndarray:
        """The numbers, float32 (count,): one copy, whether packed or not."""
        parts, kind = (self.doubles, "<f8") if self.doubles else (self.floats, "<f4")
        result, at = np.empty(self.count, np.float32), 0
        with np.errstate(over="ignore"):  # a double beyond float32 is infinite, which `check` refuses
            for part in parts:
                step = 1 << 20  # rows: unpacked numbers are copied twice, a little at a time
                for start in range(0, len(part), step):
                    values = np.ascontiguousarray(part[start : start + step]).reshape(-1).view(kind)
                    result[at : at + len(values)] = values
                    at += len(values)
        return result


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of a snapshot in HDF5, not read yet."""

    data: h5py.Dataset

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def count(self) -> int:
        return math.prod(self.data.shape)

    def read(self) -> np.ndarray:
        """The numbers, float32 (count,)."""
        with np.errstate(over="ignore"):  # as above
            return np.asarray(self.data[()], np.float32).reshape(-1)


@dataclass(slots=True)
class FileLayer:
    """A layer of the file."""

    name: str = ""
    type: str = ""
    blobs: list[Blob | Stored] = field(default_factory=list)
    lrn: dict[int, float] = field(default_factory=dict)  # LRNParameter: local_size, alpha, beta, norm_region, k


def read(source: WeightsFile, net: str) -> Foreign:
    """The weights of a caffemodel: BGR folded into conv1_1, input 0-255 minus the authors' mean.

    Raises:
        InputError: damaged, cut short, an older format, or not `net`'s.
    """
    net, place = paper.check_net(net), str(source.path)
    if source.size == 0:
        raise InputError(f"{place}: is empty; download it again")
    with open(source.path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        layers = parse(memoryview(mapped))
    except WireError as error:
        raise InputError(f"{place}: is a damaged or cut caffemodel ({error}); {_advice(source)}") from None
    return foreign(layers, source, net)


def foreign(layers: Sequence[FileLayer], source: WeightsFile, net: str) -> Foreign:
    """The weights of a model's layers, of a caffemodel or a snapshot in HDF5.

    Raises:
        InputError: not `net`'s.
    """
    place = str(source.path)
    named, by_order = _named(layers, net, place)
    shapes = {name: _shape(name, blob, place) for name, blob in named.items()}
    architecture = geometry(net, shapes, place)
    tensors = {name: torch.from_numpy(named[name].read()).view(shape) for name, shape in architecture.shapes().items()}
    tensors["conv1_1.weight"] = bgr_to_rgb(tensors["conv1_1.weight"]).contiguous()
    about, exported = published.origin_of(source, "the Caffe model"), sidecar(source.path)
    notes = ["its layers have other names than the authors' and were taken in their order"] if by_order else []
    if not about["known"] and not exported:
        notes.append(
            "its mean and scale are not in the file: the authors' are taken (BGR 103.939, 116.779, 123.68; scale 1)"
        )
    about |= {"mean_rgb": CAFFE_MEAN_RGB, "input_scale": 1.0, "lrn": _lrn(layers, net, place)}
    architecture, exported = sized(architecture, exported)
    return Foreign(
        architecture=architecture,
        tensors=tensors,
        format="Caffe",
        notes=tuple(notes),
        **(about | exported),
    )


def _advice(source: WeightsFile) -> str:
    """What to do about a damaged file; the authors' files have their names at the beginning."""
    if source.path.with_name(source.path.name + ".json").is_file():
        return "copy it or export the run again"
    with open(source.path, "rb") as file:
        head = file.read(64)
    for released in published.FILES:
        if released.size and released.origin.rpartition(" ")[2].encode() in head and source.size != released.size:
            return f"it has {source.size:,} bytes, the authors' has {released.size:,}: download it again"
    return "copy or download it again"


def top_fields(source: WeightsFile) -> set[tuple[int, int]]:
    """(number, wire type) of a message's own fields, as far as it can be read; a field that is cut off counts."""
    found: set[tuple[int, int]] = set()
    if source.size == 0:
        return found
    with open(source.path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        for entry in fields(memoryview(mapped), Budget(10_000)):
            found.add((entry.number, entry.kind))
    except WireError as error:
        if error.cut is not None:
            found.add((error.cut, LENGTH))
    return found


def parse(data: memoryview) -> list[FileLayer]:
    """All layers of a NetParameter, whose numbers stay where they are.

    Raises:
        WireError: no such message.
    """
    budget, layers = Budget(), list[FileLayer]()
    for entry in fields(data, budget):
        if entry.number in (NET_V1, NET_LAYER):
            layers.append(_layer(_message(entry), entry.number == NET_V1, budget))
            if len(layers) > MAX_LAYERS:
                raise WireError(f"more than {MAX_LAYERS} layers")
    return layers


def _message(entry: Field) -> memoryview:
    if entry.kind != LENGTH or not isinstance(entry.value, memoryview):
        raise WireError(f"field {entry.number} is no message")
    return entry.value


def _layer(data: memoryview, v1: bool, budget: Budget) -> FileLayer:
    """A V1LayerParameter or LayerParameter."""
    name, kind, blobs, lrn = (
        (V1_NAME, V1_TYPE, V1_BLOBS, V1_LRN) if v1 else (LAYER_NAME, LAYER_TYPE, LAYER_BLOBS, LAYER_LRN)
    )
    result = FileLayer()
    for entry in fields(data, budget):
        if v1 and entry.number == V1_V0 and entry.kind == LENGTH:
            raise WireError("it is of Caffe's first format; convert it with Caffe's upgrade_net_proto_binary")
        if entry.number == name:
            result.name = _text(entry)
        elif entry.number == kind:
            result.type = V1_TYPES.get(entry.value, "") if isinstance(entry.value, int) else _text(entry)
        elif entry.number == blobs:
            result.blobs.append(_blob(_message(entry), budget))
        elif entry.number == lrn:
            result.lrn |= _numbers(_message(entry), budget)
    return result


def _text(entry: Field) -> str:
    return printable(bytes(_message(entry)[:200]).decode("utf-8", "replace"))


def _numbers(data: memoryview, budget: Budget) -> dict[int, float]:
    """The numbers of an LRNParameter, by field."""
    result: dict[int, float] = {}
    for entry in fields(data, budget):
        if isinstance(entry.value, int):
            result[entry.number] = entry.value
        elif entry.kind == FIXED32:
            result[entry.number] = float(np.ascontiguousarray(entry.value[-1]).view("<f4")[0])
    return result


def _blob(data: memoryview, budget: Budget) -> Blob:
    """A BlobProto; its diff and unknown fields are passed over."""
    blob = Blob()
    for entry in fields(data, budget):
        if entry.number in BLOB_LEGACY and entry.kind == VARINT:
            assert isinstance(entry.value, int)
            blob.legacy[entry.number] = entry.value
        elif entry.number == BLOB_SHAPE:
            blob.dims += _dims(_message(entry), budget)
            if len(blob.dims) > MAX_AXES:
                raise WireError(f"a blob of more than {MAX_AXES} dimensions")
        elif entry.number == BLOB_DATA:
            _add(blob.floats, entry, FIXED32, 4)
        elif entry.number == BLOB_DOUBLES:
            _add(blob.doubles, entry, FIXED64, 8)
    return blob


def _add(parts: list[np.ndarray], entry: Field, kind: int, size: int) -> None:
    """Keeps the bytes of packed or unpacked numbers, as rows of `size` bytes."""
    if entry.kind not in (kind, LENGTH) or isinstance(entry.value, int):
        raise WireError(f"numbers of wire type {entry.kind}")
    data = np.frombuffer(entry.value, np.uint8) if isinstance(entry.value, memoryview) else entry.value
    if data.size % size:
        raise WireError(f"{data.size:,} bytes of numbers of {size} bytes each")
    if data.size:
        parts.append(data.reshape(-1, size))


def _dims(data: memoryview, budget: Budget) -> list[int]:
    """A BlobShape's dimensions, packed or not."""
    result: list[int] = []
    for entry in fields(data, budget):
        if entry.number != SHAPE_DIM or entry.kind == GROUP:
            continue
        if isinstance(entry.value, int):
            result.append(entry.value)
        else:
            result += varints(_message(entry), MAX_AXES)
        if len(result) > MAX_AXES:
            raise WireError(f"a blob of more than {MAX_AXES} dimensions")
    return result


def _named(layers: Sequence[FileLayer], net: str, place: str) -> tuple[dict[str, Blob | Stored], bool]:
    """The blobs by our tensors' names, and whether layers of unknown names were taken in their order."""
    full = [layer for layer in layers if layer.blobs]
    if not full:
        raise InputError(f"{place}: holds no weights; give the .caffemodel of a trained net")
    in_order = names_by_order(_kinds(full), net) if {layer.name for layer in full} - usual_layers() else None
    names = in_order or [layer.name for layer in full]
    result: dict[str, Blob | Stored] = {}
    for name, layer in zip(names, full, strict=True):
        if len(layer.blobs) > 2:
            raise InputError(f"{place}: {layer.name} has {len(layer.blobs)} blobs instead of weights and biases")
        if f"{name}.weight" in result:
            raise InputError(f"{place}: has two layers '{name}'; give a whole file of net {net}")
        result |= {f"{name}.{part}": blob for part, blob in zip(("weight", "bias"), layer.blobs, strict=False)}
    return result, in_order is not None


def _kinds(layers: Sequence[FileLayer]) -> str:
    """c for a conv. layer, f for a FC one, ? for others, in the file's order; FC layers may be convolutions."""
    kinds = "".join({"Convolution": "c", "InnerProduct": "f"}.get(layer.type, "?") for layer in layers)
    return kinds[:-3] + kinds[-3:].replace("c", "f")


def _shape(name: str, blob: Blob | Stored, place: str) -> tuple[int, ...]:
    """A blob's shape in our layout: biases (out,), FC weights (out, in), convolutions (out, in, k, k).

    Raises:
        InputError: the file holds more or fewer numbers than the shape asks for.
    """
    shape = blob.shape
    if any(side >= 1 << 31 for side in shape) or math.prod(shape) != blob.count:
        text = " × ".join(map(str, shape)) or "no shape"
        raise InputError(
            f"{place}: is a damaged or cut caffemodel ({name}: {text}, but {blob.count:,} numbers); download it again"
        )
    if name.endswith(".bias"):
        return (math.prod(shape),)
    if name.startswith("fc"):
        if len(shape) == 4 and shape[:2] == (1, 1):  # Caffe's legacy form of a matrix
            return shape[2:]
        return (shape[0], math.prod(shape[1:])) if shape else shape
    return shape


def _lrn(layers: Sequence[FileLayer], net: str, place: str) -> str:
    """A-LRN's definition by the file's LRN layer (Caffe divides alpha by n); for other nets there must be none.

    A file that lists only layers with weights does not say it.
    """
    found = [layer for layer in layers if layer.type == "LRN"]
    if found or not all(layer.blobs for layer in layers):
        check_lrn(net, len(found), place)
    if not found:
        return "krizhevsky"
    given = found[0].lrn
    values = {"n": given.get(1, 5), "k": given.get(5, 1.0), "alpha": given.get(2, 1.0), "beta": given.get(3, 0.75)}
    return lrn_definition(values | {"alpha": values["alpha"] / (values["n"] or 1)}, place)
