"""Caffe's files: the weights (`.caffemodel`, protobuf's wire format, new `layer`) and the net (`deploy.prototxt`).

Fields of BVLC's caffe.proto: NetParameter has name = 1, layer = 100; LayerParameter name = 1, type = 2, bottom = 3,
top = 4, blobs = 7; BlobProto data = 5 (packed floats), shape = 7; BlobShape dim = 1 (packed integers).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vggrepro import paper
from vggrepro.exchange.formats.protobuf import field_bytes, tag_bytes, varint_bytes
from vggrepro.system.files import atomic

if TYPE_CHECKING:
    from torch import Tensor

    from vggrepro.nets.trained import Trained

CHUNK = 1 << 22  # floats written at a time
FC = ("fc6", "fc7", "fc8")


def write(path: Path, trained: Trained) -> None:
    """Writes the weights as float32, bits unchanged; conv1_1 takes BGR, as all Caffe models do."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        file.write(field_bytes(1, trained.title.encode()))
        if "LRN" in trained.config.net:
            formula = field_bytes(118, _lrn_wire(trained.config.recipe.lrn))
            file.write(field_bytes(100, _texts("norm1", "LRN") + formula))
        for bottom, name in _weighted(trained.config.net):
            blobs = [_array(trained.tensors[f"{name}.{part}"], name) for part in ("weight", "bias")]
            head = _texts(name, "InnerProduct" if name in FC else "Convolution", bottom, name)
            shapes = [field_bytes(7, field_bytes(1, b"".join(map(varint_bytes, blob.shape)))) for blob in blobs]
            tags = [tag_bytes(5, blob.nbytes) for blob in blobs]
            sizes = [len(shape) + len(tag) + blob.nbytes for shape, tag, blob in zip(shapes, tags, blobs, strict=True)]
            fronts = [tag_bytes(7, size) for size in sizes]
            file.write(tag_bytes(100, len(head) + sum(map(len, fronts)) + sum(sizes)) + head)
            for front, shape, tag, blob in zip(fronts, shapes, tags, blobs, strict=True):
                file.write(front + shape + tag)
                flat = blob.reshape(-1)
                for start in range(0, len(flat), CHUNK):
                    file.write(flat[start : start + CHUNK].tobytes())


def _texts(*values: str) -> bytes:
    """The first fields of a LayerParameter, in order: name, type, bottom, top."""
    return b"".join(field_bytes(number, value.encode()) for number, value in enumerate(values, 1))


def _array(tensor: Tensor, layer: str) -> np.ndarray:
    """A blob as little-endian floats; conv1_1's input channels in the order B, G, R."""
    values = tensor.numpy()
    if layer == "conv1_1" and values.ndim == 4:
        values = values[:, ::-1]
    return np.ascontiguousarray(values, "<f4")


def _weighted(net: str) -> Iterator[tuple[str, str]]:
    """(the blob it reads, its name) of each layer with weights, as `prototxt` names them."""
    bottom = "data"
    for block in paper.blocks(net):
        for layer in block:
            if isinstance(layer, paper.Conv):
                yield bottom, layer.name
                bottom = layer.name
            else:
                bottom = "norm1"
        bottom = f"pool{_last(block).name[4]}"
    for name in FC:
        yield bottom, name
        bottom = name


def _last(block: list[paper.Conv | str]) -> paper.Conv:
    return next(layer for layer in reversed(block) if isinstance(layer, paper.Conv))


def prototxt(trained: Trained) -> str:
    """The net for Caffe's loaders, with the preprocessing as a comment; poolings round down as in training.

    Caffe's poolings round up by default. Where the crop is a multiple of the stride nothing is rounded, and the default
    is left, which older Caffes know.
    """
    side = trained.config.crop
    mean = ", ".join(repr(value) for value in reversed(trained.config.mean_rgb))
    lines = [
        f'name: "{trained.title}"',
        "# Input: (N, 3, H, W), BGR, (0-255 minus the mean) * scale:",
        f"# mean (B, G, R): {mean}",
        f"# scale: {trained.config.input_scale!r}",
        _layer("data", "Input", [], "data", f"input_param {{ shape {{ dim: 1 dim: 3 dim: {side} dim: {side} }} }}"),
    ]
    floor = "" if side % trained.config.stride == 0 else " round_mode: FLOOR"
    bottom = "data"
    for block, pooled in zip(paper.blocks(trained.config.net), paper.poolings(trained.config.stride), strict=True):
        for layer in block:
            if isinstance(layer, paper.Conv):
                channels = len(trained.tensors[f"{layer.name}.bias"])
                size = f"num_output: {channels} kernel_size: {layer.kernel} pad: {layer.kernel // 2}"
                lines.append(_layer(layer.name, "Convolution", [bottom], layer.name, f"convolution_param {{ {size} }}"))
                bottom = layer.name
                lines.append(_layer(f"relu{bottom[4:]}", "ReLU", [bottom], bottom))
            else:
                lines.append(_layer("norm1", "LRN", [bottom], "norm1", _lrn_text(trained.config.recipe.lrn)))
                bottom = "norm1"
        if not pooled:
            continue
        pool = f"pool{_last(block).name[4]}"
        lines.append(
            _layer(pool, "Pooling", [bottom], pool, f"pooling_param {{ pool: MAX kernel_size: 2 stride: 2{floor} }}")
        )
        bottom = pool
    for name in FC:
        units = len(trained.tensors[f"{name}.bias"])
        lines.append(_layer(name, "InnerProduct", [bottom], name, f"inner_product_param {{ num_output: {units} }}"))
        bottom = name
        if name != "fc8":
            lines.append(_layer(f"relu{name[2]}", "ReLU", [name], name))
            lines.append(_layer(f"drop{name[2]}", "Dropout", [name], name, "dropout_param { dropout_ratio: 0.5 }"))
    lines.append(_layer("prob", "Softmax", ["fc8"], "prob"))
    return "\n".join(lines) + "\n"


def _layer(name: str, kind: str, bottoms: list[str], top: str, more: str = "") -> str:
    words = [f'name: "{name}"', f'type: "{kind}"', *(f'bottom: "{bottom}"' for bottom in bottoms), f'top: "{top}"']
    return f"layer {{ {' '.join([*words, *([more] if more else [])])} }}"


def _lrn(definition: str) -> tuple[int, float, float, float]:
    """(local_size, alpha, beta, k): Caffe divides alpha by n, `paper.LRN_DEFINITIONS` do not."""
    values = paper.LRN_DEFINITIONS[definition]
    return int(values["n"]), values["alpha"] * values["n"], values["beta"], values["k"]


def _lrn_text(definition: str) -> str:
    size, alpha, beta, k = _lrn(definition)
    return f"lrn_param {{ local_size: {size} alpha: {alpha:.6g} beta: {beta:g} k: {k:g} }}"


def _lrn_wire(definition: str) -> bytes:
    """LRNParameter: local_size = 1, alpha = 2, beta = 3, k = 5."""
    size, *floats = _lrn(definition)
    numbers = zip((2, 3, 5), floats, strict=True)
    return bytes([1 << 3, size]) + b"".join(bytes([number << 3 | 5]) + struct.pack("<f", v) for number, v in numbers)
