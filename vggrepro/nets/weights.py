"""Weights on disk: safetensors files without pickle. The header has a JSON state and the hash of everything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vggrepro.errors import InputError
from vggrepro.nets.vgg import VGG
from vggrepro.system.files import atomic

# What safetensors calls the types. Its own writer puts tensors of the last type first.
KINDS = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}


class Damaged(InputError):
    """A file that has changed since it was written; `reason` says how that was found."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: damaged ({reason}); restore it, or train the run again with --retrain")
        self.reason = reason


def save(path: Path, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """Writes tensors, a JSON-able `state` and their hash atomically."""
    with atomic(path) as temporary:
        write(temporary, tensors, state)


def write(path: Path, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """As `save`, but writes to `path` itself and not to a temporary file first.

    The bytes are those that safetensors' own writers write. One of these writers leaves files of random names when it
    is killed; the other takes twice the tensors' memory.
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    order = list(KINDS)
    names = sorted(ready, key=lambda name: (-order.index(ready[name].dtype), name))
    # One entry of metadata: safetensors writes several in any order, and equal contents must give equal files.
    header: dict[str, Any] = {"__metadata__": {"state": json.dumps({**state, "sha256": _digest(ready, state)})}}
    end = 0
    for name in names:
        start, end = end, end + ready[name].nbytes
        header[name] = {
            "dtype": KINDS[ready[name].dtype],
            "shape": list(ready[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(_bytes(ready[name]))


def load(path: Path, *, signed: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads the tensors and the state that `save` wrote; a file without a state (from elsewhere) gives an empty one.

    Args:
        path: the file; a hash in it is always compared.
        signed: refuse a file without a hash.

    Raises:
        InputError: missing.
        Damaged: no safetensors file, or its contents do not have its hash.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            state = json.loads((file.metadata() or {}).get("state", "{}"))
        expected = state.pop("sha256", None)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (SafetensorError, ValueError, OSError, AttributeError) as error:
        raise Damaged(path, str(error)) from None
    if expected is None and signed:
        raise Damaged(path, "it has no hash")
    if expected is not None and expected != _digest(tensors, state):
        raise Damaged(path, "its contents do not have its hash")
    return tensors, state


def _digest(tensors: Mapping[str, Tensor], state: dict[str, Any]) -> str:
    """SHA-256 over the state and each tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(state).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    """A contiguous tensor's memory."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def check(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], place: str) -> None:
    """Refuses weights of another net.

    Raises:
        InputError: names or shapes that are not these; `place` is named.
    """
    if shapes.keys() != tensors.keys():
        wrong = sorted(shapes.keys() ^ tensors.keys())[0]
        raise InputError(
            f"{place}: its tensors are not those of its config.json's net ('{wrong}' is on one side only); restore the "
            "file that was changed, or train again with --retrain"
        )
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise InputError(
                f"{place}: {name} has shape {tuple(tensors[name].shape)}, the net of its config.json has {shape}; "
                "restore the file that was changed, or train again with --retrain"
            )


def into(model: VGG, tensors: Mapping[str, Tensor], place: str) -> None:
    """Copies a complete set of weights into the net.

    Raises:
        InputError: names or shapes that are not this net's; `place` is named.
    """
    check(tensors, model.architecture.shapes(), place)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])


def copy_layers(model: VGG, tensors: dict[str, Tensor], layers: tuple[str, ...] | None) -> tuple[list[str], list[str]]:
    """Copies the weights of `layers` (None: all) that have the same shape; gives (copied, fresh) layer names."""
    copied: list[str] = []
    fresh: list[str] = []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            layer = name.rpartition(".")[0]
            wanted = layers is None or layer in layers
            fits = wanted and name in tensors and tensors[name].shape == parameter.shape
            if fits:
                parameter.copy_(tensors[name])
            target = copied if fits else fresh
            if layer not in target:
                target.append(layer)
    return copied, fresh
