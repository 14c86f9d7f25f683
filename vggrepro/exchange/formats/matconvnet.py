"""MatConvNet's SimpleNN files (`imagenet-vgg-verydeep-16.mat`): MATLAB 5 files of nested structs.

Filters are (h, w, in, out), FC layers are convolutions, the input is RGB, 0-255 minus the file's average image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vggrepro import paper
from vggrepro.data import mat5, synsets
from vggrepro.errors import InputError
from vggrepro.exchange.formats import published
from vggrepro.exchange.formats.base import (
    CAFFE_MEAN_RGB,
    MAX_BYTES,
    WNID_ORDER,
    Foreign,
    WeightsFile,
    check_lrn,
    geometry,
    lrn_definition,
    names_by_order,
    printable,
    usual_layers,
)


def read(source: WeightsFile, net: str) -> Foreign:
    """The weights of a .mat file; fc8's rows are sorted by wnid where the file names its classes so.

    Raises:
        InputError: damaged, MATLAB 7.3, no SimpleNN, or not `net`'s.
    """
    net, place = paper.check_net(net), str(source.path)
    contents = _load(source.path)
    layers, meta = _parts(contents, place)
    arrays, by_order = _named(layers, net, place)
    shapes = {name: _shape(name, array) for name, array in arrays.items()}
    architecture = geometry(net, shapes, place)
    tensors = {}
    for name, shape in architecture.shapes().items():
        array = _four(arrays[name]).transpose(3, 2, 0, 1) if name.endswith("weight") else arrays[name]
        tensors[name] = torch.from_numpy(np.array(array, np.float32, order="C")).view(shape)
    notes = ["its layers have other names than the authors' and were taken in their order"] if by_order else []
    mean, said = _mean(meta, place)
    names, order = _class_names(meta, architecture.classes)
    if order is not None:
        notes.append("its classes are not in the order of wnids: fc8 was sorted")
        tensors |= {name: tensors[name][order].contiguous() for name in ("fc8.weight", "fc8.bias")}
    return Foreign(
        architecture=architecture,
        tensors=tensors,
        mean_rgb=mean,
        input_scale=1.0,
        format="MatConvNet",
        class_order=WNID_ORDER,
        class_names=names,
        notes=(*notes, *said),
        lrn=_lrn(layers, net, place),
        **published.origin_of(source, "the MatConvNet model"),
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        return mat5.load(path, MAX_BYTES)
    except mat5.MatError as error:
        raise InputError(f"{path}: is a damaged or cut MATLAB file ({error}); download it again") from None


def _parts(contents: dict[str, Any], place: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The layers and the meta information, of a file that holds the net or its fields.

    Raises:
        InputError: none of them.
    """
    if "layers" not in contents:
        contents = _fields(contents.get("net")) or contents
    layers = contents.get("layers")
    if not isinstance(layers, list):
        held = ", ".join(contents) or "nothing"
        raise InputError(
            f"{place}: has no 'layers' of a SimpleNN net (it has {held[:80]}); give MatConvNet's imagenet-vgg-verydeep"
        )
    meta = _fields(contents.get("meta")) | {k: contents[k] for k in ("classes", "normalization") if k in contents}
    return [_fields(layer) for layer in layers], meta


def _fields(value: Any) -> dict[str, Any]:
    """A struct's fields; none of anything else."""
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return printable(value) if isinstance(value, str) else ""


def _named(layers: Sequence[dict[str, Any]], net: str, place: str) -> tuple[dict[str, np.ndarray], bool]:
    """Filters and biases by our names, and whether layers of other names were taken in their order."""
    full: list[tuple[str, list[np.ndarray]]] = []
    for layer in layers:
        weights = layer.get("weights")
        parts = [layer["filters"], layer["biases"]] if {"filters", "biases"} <= layer.keys() else []
        parts = weights if isinstance(weights, list) else parts
        parts = [part for part in parts if isinstance(part, np.ndarray) and part.size]
        if not parts:
            continue
        name = _text(layer.get("name"))
        if len(parts) != 2:
            raise InputError(
                f"{place}: layer '{name}' ({_text(layer.get('type'))}) has other weights than filters and biases; give "
                f"a file of net {net}"
            )
        full.append((name, parts))
    kinds = "c" * (len(full) - 3) + "f" * min(3, len(full))  # FC layers are convolutions there
    in_order = names_by_order(kinds, net) if {name for name, _ in full} - usual_layers() else None
    result: dict[str, np.ndarray] = {}
    for name, (written, parts) in zip(in_order or [name for name, _ in full], full, strict=True):
        result |= {f"{name or written}.weight": parts[0], f"{name or written}.bias": parts[1]}
    return result, in_order is not None


def _four(array: np.ndarray) -> np.ndarray:
    """The array with MATLAB's last dimensions of 1, which its files leave out."""
    return array.reshape(*array.shape, *[1] * (4 - array.ndim)) if array.ndim < 4 else array


def _shape(name: str, array: np.ndarray) -> tuple[int, ...]:
    """An array's shape in our layout."""
    if name.endswith("bias"):
        return (array.size,)
    if array.ndim > 4:
        return array.shape
    height, width, incoming, out = _four(array).shape
    return (out, incoming * height * width) if name.startswith("fc") else (out, incoming, height, width)


def _mean(meta: dict[str, Any], place: str) -> tuple[tuple[float, float, float], list[str]]:
    """The mean RGB of the average image, and what there is to say of it."""
    average = _fields(meta.get("normalization")).get("averageImage")
    if not isinstance(average, np.ndarray) or average.size % 3 or not average.size:
        return CAFFE_MEAN_RGB, ["it has no average image: the authors' mean is taken"]
    if average.size > 3 and (average.ndim != 3 or average.shape[2] != 3):
        raise InputError(f"{place}: its average image is {' × '.join(map(str, average.shape))}, not an RGB image's")
    pixels = average.reshape(-1, 3, order="F").astype(np.float64)
    if not np.isfinite(pixels).all():
        raise InputError(f"{place}: its average image holds values that are no finite numbers; download it again")
    # Single precision has 7 digits: 123.68 is meant where 123.68000030517578 is stored.
    red, green, blue = (float(f"{value:.7g}") for value in pixels.mean(0))
    varied = np.ptp(pixels, axis=0).max() > 1e-3
    return (red, green, blue), ["its average image is not one colour: its mean colour is taken"] if varied else []


def _class_names(meta: dict[str, Any], classes: int) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    """The classes' names if the file has them, and the order that sorts them if they are ImageNet's unsorted wnids."""
    held = _fields(meta.get("classes")).get("name")
    names = tuple(_text(name) for name in held) if isinstance(held, list) else ()
    if len(names) != classes or not all(names):
        return None, None
    if set(names) == synsets.table().keys() and list(names) != sorted(names):
        return tuple(sorted(names)), np.argsort(np.array(names))
    return names, None


def _lrn(layers: Sequence[dict[str, Any]], net: str, place: str) -> str:
    """A-LRN's definition; MatConvNet does not divide alpha by n."""
    found = [layer for layer in layers if _text(layer.get("type")) in ("lrn", "normalize")]
    check_lrn(net, len(found), place)
    if not found:
        return "krizhevsky"
    values = found[0].get("param")
    if not isinstance(values, np.ndarray) or values.size != 4:
        raise InputError(f"{place}: its LRN layer lacks n, k, alpha and beta")
    return lrn_definition(dict(zip(("n", "k", "alpha", "beta"), map(float, values.flat), strict=True)), place)
