"""Weights on disk: safetensors files, no pickle. Checkpoints carry their state as JSON in the header."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vggrepro.errors import InputError
from vggrepro.files import atomic
from vggrepro.net import VGG


def save(path: Path, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """Writes tensors and a JSON-able `state` atomically."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(ready, temporary, metadata={"state": json.dumps(state)})
        except SafetensorError as error:
            if not (number := re.search(r"\(os error (\d+)\)", str(error))):
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None  # a full disk


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `save` wrote; a file without `state` (from elsewhere) gives an empty one.

    Raises:
        InputError: missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            state = json.loads((file.metadata() or {}).get("state", "{}"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"{path}: damaged ({error}); restore it, or train the run again with --retrain") from None
    return tensors, state


def into(model: VGG, tensors: dict[str, Tensor], place: str) -> None:
    """Copies a complete set of weights into the net.

    Raises:
        InputError: names or shapes that are not this net's; `place` is named.
    """
    own = dict(model.named_parameters())
    if own.keys() != tensors.keys():
        wrong = sorted(own.keys() ^ tensors.keys())[0]
        raise InputError(
            f"{place}: its tensors are not those of its config.json's net ('{wrong}' is on one side only); restore the "
            "file that was changed, or train again with --retrain"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            if parameter.shape != tensors[name].shape:
                raise InputError(
                    f"{place}: {name} has shape {tuple(tensors[name].shape)}, the net of its config.json has "
                    f"{tuple(parameter.shape)}; restore the file that was changed, or train again with --retrain"
                )
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
