"""Formats of other tools that import does not read: how they are recognised, and what to do."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

from vggrepro.errors import InputError
from vggrepro.exchange.formats.protobuf import LENGTH, VARINT

ARRAYS = (
    "save its arrays as safetensors, with torchvision's names and shapes (features.0.weight, …), and give that file"
)
KERAS = "save the net with Keras as .h5 (model.save('vgg.h5')) and give that file"
TORCH_TAR = (b"sys_info", b"pickle", b"tensors", b"storages")  # the parts of a file of torch 0.1
TABLE_END = bytes.fromhex("57fb808b247547db")  # of the tables that TensorFlow's checkpoints are
GRAPH_NODE = re.compile(rb"\x0a[\x80-\xff]{0,4}[\x00-\x7f]\x0a([\x01-\x7f])")  # field 1, whose field 1 is a name


def refuse(path: Path, head: bytes) -> None:
    """InputError if a file's first bytes, or its last ones, are another tool's."""
    if head.startswith((0x112).to_bytes(8, "little")):
        _refuse(path, "MXNet's .params", ARRAYS)
    if head.startswith(b"\x93NUMPY"):
        _refuse(path, "NumPy's .npy", ARRAYS)
    if head[4:8] == b"TFL3":
        _refuse(path, "TensorFlow Lite", KERAS)
    if head[257:262] == b"ustar" and head[:100].rstrip(b"\0") in TORCH_TAR:
        again = _again(path, 'torch.load({}, map_location="cpu", weights_only=False)')
        raise InputError(
            f"{path}: is a tar container of torch 0.1, which may hold code; if you trust it, torch 1.13 or newer can "
            f"{again}"
        )
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - len(TABLE_END)))
        if file.read() == TABLE_END:
            _refuse(path, "TensorFlow's checkpoint", KERAS)


def refuse_zip(path: Path, names: Sequence[str]) -> None:
    """InputError if the names in a zip file are another tool's."""
    if any(name.endswith("/constants.pkl") for name in names):
        _refuse(path, "TorchScript", _again(path, 'torch.jit.load({}, "cpu").state_dict()'))
    if any(name.endswith("archive_format") for name in names):
        _refuse(path, "torch.export", _again(path, "torch.export.load({}).state_dict"))
    if any(name.endswith(".npy") for name in names):
        _refuse(path, "NumPy's .npz", ARRAYS)


def refuse_protobuf(path: Path, head: bytes, fields: Collection[tuple[int, int]]) -> None:
    """InputError if a message's own fields, (number, wire type), are those of TensorFlow's."""
    if fields == {(1, VARINT), (2, LENGTH)}:  # SavedModel.saved_model_schema_version, .meta_graphs
        _refuse(path, "TensorFlow's saved_model.pb", KERAS)
    node = GRAPH_NODE.match(head)
    if node and head[node.end() + node[1][0] :][:1] == b"\x12":  # NodeDef.name, .op
        _refuse(path, "a frozen graph of TensorFlow", KERAS)


def refuse_folder(path: Path) -> None:
    """InputError if a folder is a model of TensorFlow."""
    if (path / "saved_model.pb").is_file():
        _refuse(path, "TensorFlow's SavedModel", KERAS)


def _refuse(path: Path, what: str, way_out: str) -> NoReturn:
    raise InputError(f"{path}: is not a format that import reads (looks like {what}); {way_out}")


def _again(path: Path, load: str) -> str:
    """Advice to run a command that saves what `load` gives as `<file>.state.pth`; `{}` in it is the file."""
    new = path.with_name(path.stem + ".state.pth")
    saving = f"torch.save({load.format(json.dumps(str(path)))}, {json.dumps(str(new))})"
    return "save its weights again: " + shlex.join(["python", "-c", f"import torch; {saving}"])
