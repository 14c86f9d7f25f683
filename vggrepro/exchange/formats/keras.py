"""Keras's weights: `.h5` of all its versions and `.keras`.

Kernels are (h, w, in, out), matrices (in, out), fc1 sees (h, w, channel) flattened. Keras's VGG16 and VGG19 are the
authors' Caffe models, so that their input is BGR, 0-255 minus the mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vggrepro.errors import InputError
from vggrepro.exchange.formats import published
from vggrepro.exchange.formats.base import (
    CAFFE_MEAN_RGB,
    Foreign,
    WeightsFile,
    bgr_to_rgb,
    geometry,
    names_by_order,
    printable,
)

if TYPE_CHECKING:
    import h5py

BLOCK = re.compile(r"block(\d)_conv(\d)")
FC = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}
MAX_PARTS = 100  # of a list of names


def foreign(file: h5py.File, held: Mapping[str, h5py.Dataset], source: WeightsFile, net: str) -> Foreign:
    """The weights of an open file, whose data sets are `held`: BGR folded into conv1_1, the authors' mean.

    Raises:
        InputError: another net, no FC layers, Theano's ordering, or too large.
    """
    place = str(source.path)
    named, by_order = _named(_layers(file, held), net, place)
    shapes = {name: _shape(name, data.shape, place) for name, data in named.items()}
    architecture = geometry(net, shapes, place)
    maps = shapes["fc6.weight"][1] // architecture.map_side**2
    tensors = {
        name: _tensor(named[name], shape, maps if name == "fc6.weight" else 0)
        for name, shape in architecture.shapes().items()
    }
    tensors["conv1_1.weight"] = bgr_to_rgb(tensors["conv1_1.weight"]).contiguous()
    about = published.origin_of(source, "the Keras weights")
    notes = ["its layers have other names than Keras's VGG and were taken in their order"] if by_order else []
    if not about["known"]:
        notes.append("Keras's preprocessing for VGG ('caffe': BGR, minus the mean) is taken for its own")
    return Foreign(
        architecture=architecture,
        tensors=tensors,
        mean_rgb=CAFFE_MEAN_RGB,
        input_scale=1.0,
        format="Keras",
        notes=tuple(notes),
        **about,
    )


def _layers(file: h5py.File, tensors: Mapping[str, h5py.Dataset]) -> dict[str, list[h5py.Dataset]]:
    """The tensors of each layer, in the model's order, as far as the file says it."""
    root = file.get("model_weights", file)
    written = _texts(root.attrs, "layer_names")
    places: dict[str, tuple[Any, ...]] = {}
    found: dict[str, list[h5py.Dataset]] = {}
    for path, item in tensors.items():
        if "optimizer" in path or not item.ndim:
            continue
        name = _layer_name(path, item)
        found.setdefault(name, []).append(item)
        places.setdefault(name, (*_written(path, root, written), *_order(name)))
    return dict(sorted(found.items(), key=lambda entry: places[entry[0]]))


def _written(path: str, root: h5py.Group, layers: Sequence[str]) -> tuple[int, int]:
    """Where the file lists a tensor: its layer, which may be a whole net in a net, and the tensor in it."""
    top, _, rest = path.removeprefix(f"{root.name}/".lstrip("/")).partition("/")
    group = root.get(top)
    if top not in layers or group is None:
        return len(layers), 0
    tensors = _texts(group.attrs, "weight_names")
    return layers.index(top), tensors.index(rest) if rest in tensors else len(tensors)


def _texts(attributes: Mapping[str, Any], name: str) -> list[str]:
    """A list of names; a long one is in parts, `name0`, `name1`, as HDF5 limits its size."""
    parts = [attributes[name]] if name in attributes else []
    while (part := f"{name}{len(parts)}") in attributes and len(parts) < MAX_PARTS:
        parts.append(attributes[part])
    return [_text(value) for part in parts for value in np.ravel(part)]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _layer_name(path: str, item: h5py.Dataset) -> str:
    """The layer of a tensor: a name of Keras's VGG in its path, else the group it is in.

    Keras 3 calls groups by their kind (`conv2d_1`) and keeps the layer's own name beside the tensors.
    """
    parts = path.split("/")
    groups = parts[:-1]
    if groups[-1:] == ["vars"]:
        groups = [*groups[:-1], *([_text(item.parent.attrs["name"])] if "name" in item.parent.attrs else [])]
    usual = (part for part in reversed(groups) if BLOCK.fullmatch(part) or part in FC)
    return next(usual, printable(groups[-1] if groups else path))


def _order(name: str) -> tuple[bool, str, int]:
    """Where the file lists no layers: convolutions before FC layers, each kind by its number."""
    kind, _, number = name.rpartition("_")
    if not number.isdecimal():
        kind, number = name, "0"
    return kind.startswith(("dense", "fc", "pred")), kind, int(number[:9])


def _named(layers: Mapping[str, Sequence[h5py.Dataset]], net: str, place: str) -> tuple[dict[str, h5py.Dataset], bool]:
    """The tensors by our names, and whether their layers were taken in their order."""
    ours = {name: _our_name(name) for name in layers}
    by_order = not all(ours.values())
    if by_order:
        kinds = "".join("c" if any(item.ndim == 4 for item in items) else "f" for items in layers.values())
        if names := names_by_order(kinds, net):
            ours = dict(zip(layers, names, strict=True))
    result: dict[str, h5py.Dataset] = {}
    for layer, items in layers.items():
        if len(items) > 2:
            raise InputError(
                f"{place}: {layer} has {len(items)} tensors instead of a kernel and a bias; batch normalisation is not "
                "the paper's"
            )
        for item in items:
            result[f"{ours[layer] or layer}.{'weight' if item.ndim > 1 else 'bias'}"] = item
    return result, by_order


def _our_name(layer: str) -> str | None:
    match = BLOCK.fullmatch(layer)
    return f"conv{match[1]}_{match[2]}" if match else FC.get(layer)


def _shape(name: str, shape: tuple[int, ...], place: str) -> tuple[int, ...]:
    """A tensor's shape in our layout."""
    if name == "conv1_1.weight" and shape[1:] == (3, 3, 3) and shape[0] != 3:
        raise InputError(
            f"{place}: is of Theano's ordering, whose convolutions are mirrored; give the 'tf_dim_ordering' file"
        )
    if len(shape) == 4:
        return (shape[3], shape[2], shape[0], shape[1])
    return shape[::-1]


def _tensor(data: h5py.Dataset, shape: tuple[int, ...], channels: int) -> Tensor:
    """A tensor in our layout and `shape`: convolutions (h, w, in, out) -> (out, in, h, w), matrices transposed.

    fc6's inputs are flattened (h, w, channel) there and (channel, h, w) here; `channels` is 0 for other tensors.
    """
    values = torch.from_numpy(np.asarray(data[()], np.float32))
    if channels:
        side = math.isqrt(shape[1] // channels)
        values = values.view(side, side, channels, shape[0]).permute(3, 2, 0, 1).flatten(1)
    elif values.ndim == 4:
        values = values.permute(3, 2, 0, 1)
    return (values.T if values.ndim == 2 and not channels else values).contiguous()
