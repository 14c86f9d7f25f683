"""Caffe models written by protobuf's own package, by a schema from Caffe's field table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Caffe's caffe.proto: message -> field: (number, type, repeated, packed or not).
FLOAT, DOUBLE, INT32, INT64, STRING, MESSAGE, ENUM = 2, 1, 5, 3, 9, 11, 5
SCHEMA: dict[str, dict[str, tuple[int, int | str, bool, bool]]] = {
    "BlobShape": {"dim": (1, INT64, True, True)},
    "BlobProto": {
        "num": (1, INT32, False, False),
        "channels": (2, INT32, False, False),
        "height": (3, INT32, False, False),
        "width": (4, INT32, False, False),
        "data": (5, FLOAT, True, True),
        "diff": (6, FLOAT, True, True),
        "shape": (7, "BlobShape", False, False),
        "double_data": (8, DOUBLE, True, True),
        "double_diff": (9, DOUBLE, True, True),
    },
    "LRNParameter": {
        "local_size": (1, INT32, False, False),
        "alpha": (2, FLOAT, False, False),
        "beta": (3, FLOAT, False, False),
        "k": (5, FLOAT, False, False),
    },
    "V1LayerParameter": {
        "bottom": (2, STRING, True, False),
        "top": (3, STRING, True, False),
        "name": (4, STRING, False, False),
        "type": (5, ENUM, False, False),
        "blobs": (6, "BlobProto", True, False),
        "blobs_lr": (7, FLOAT, True, False),
        "weight_decay": (8, FLOAT, True, False),
        "lrn_param": (18, "LRNParameter", False, False),
    },
    "LayerParameter": {
        "name": (1, STRING, False, False),
        "type": (2, STRING, False, False),
        "bottom": (3, STRING, True, False),
        "top": (4, STRING, True, False),
        "blobs": (7, "BlobProto", True, False),
        "lrn_param": (118, "LRNParameter", False, False),
    },
    "NetParameter": {
        "name": (1, STRING, False, False),
        "layers": (2, "V1LayerParameter", True, False),
        "input": (3, STRING, True, False),
        "input_dim": (4, INT32, True, False),
        "layer": (100, "LayerParameter", True, False),
    },
}


def _classes(package: str, packed: bool) -> dict[str, type]:
    """Message classes of the schema, built at run time."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind, repeated, may_pack) in fields.items():
            field = message.field.add(name=field_name, number=number, label=3 if repeated else 1)
            field.type = MESSAGE if isinstance(kind, str) else kind
            if isinstance(kind, str):
                field.type_name = f".{package}.{kind}"
            if may_pack and packed:
                field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in SCHEMA}


PACKED, UNPACKED = _classes("caffe_packed", True), _classes("caffe_unpacked", False)
TYPES = {"Convolution": 4, "InnerProduct": 14, "ReLU": 18, "LRN": 15}


def write(
    path: Path,
    blobs: dict[str, np.ndarray],
    *,
    v1: bool = True,
    packed: bool = True,
    legacy: bool = True,
    double: bool = False,
    names: dict[str, str] | None = None,
    diff: bool = False,
    lrn: dict[str, float] | None = None,
) -> Path:
    """A caffemodel of these weights, layers in the order of `blobs`, between them ones without weights."""
    types = PACKED if packed else UNPACKED
    net = types["NetParameter"](name="VGG", input=["data"], input_dim=[10, 3, 224, 224])

    def add(name: str, kind: str) -> object:
        layer = (net.layers if v1 else net.layer).add(name=(names or {}).get(name, name), bottom=["x"], top=[name])
        layer.type = TYPES[kind] if v1 else kind
        return layer

    for name in dict.fromkeys(key.rpartition(".")[0] for key in blobs):
        layer = add(name, "InnerProduct" if name.startswith("fc") else "Convolution")
        for part in ("weight", "bias"):
            values = blobs[f"{name}.{part}"]
            blob = layer.blobs.add()
            if legacy:
                shape = (1,) * (4 - values.ndim) + values.shape
                blob.num, blob.channels, blob.height, blob.width = shape
            else:
                blob.shape.dim.extend(values.shape)
            (blob.double_data if double else blob.data).extend(values.reshape(-1).tolist())
            if diff:
                blob.diff.extend([0.5] * values.size)
        add(f"relu{name}", "ReLU")
        if lrn and name == "conv1_1":
            layer = add("norm1", "LRN")
            for key, value in lrn.items():
                setattr(layer.lrn_param, key, value)
    path.write_bytes(net.SerializeToString())
    return path


def write_large(path: Path, blobs: dict[str, np.ndarray]) -> Path:
    """As `write`, where a list of 10^8 Python floats would not fit: protobuf's messages are merged from bytes."""
    with open(path, "wb") as file:
        file.write(PACKED["NetParameter"](name="VGG_ILSVRC_16_layers", input_dim=[10, 3, 224, 224]).SerializeToString())
        for name in dict.fromkeys(key.rpartition(".")[0] for key in blobs):
            kind = "InnerProduct" if name.startswith("fc") else "Convolution"
            layer = PACKED["V1LayerParameter"](name=name, type=TYPES[kind]).SerializeToString()
            for part in ("weight", "bias"):
                values = blobs[f"{name}.{part}"]
                n, c, h, w = (1,) * (4 - values.ndim) + values.shape
                head = PACKED["BlobProto"](num=n, channels=c, height=h, width=w).SerializeToString()
                data = b"\x2a" + length(values.nbytes) + values.tobytes()
                layer += b"\x32" + length(len(head) + len(data)) + head + data
            file.write(b"\x12" + length(len(layer)) + layer)
    return path


def length(value: int) -> bytes:
    """A varint."""
    result = b""
    while value >= 128:
        result, value = result + bytes([value & 127 | 128]), value >> 7
    return result + bytes([value])
