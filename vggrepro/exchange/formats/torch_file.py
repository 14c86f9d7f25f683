"""Files that torch saved; no code in them is run."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vggrepro.errors import InputError
from vggrepro.exchange.formats import base, timm, torchvision
from vggrepro.exchange.formats.base import Foreign, WeightsFile, first_line
from vggrepro.exchange.formats.state_dict import Preprocessing, asked, bare

WRAPPERS = ("state_dict", "model", "model_state_dict")  # where training scripts put the weights in a checkpoint


def read(source: WeightsFile, net: str) -> Foreign:
    """A file that torch saved: torchvision's or timm's names, or ours.

    Raises:
        InputError: a pickle with anything but weights, no such names, batch normalisation, another net.
    """
    return by_names(_state(source), source, net, Preprocessing(exported=base.sidecar(source.path)))


def by_names(state: Mapping[str, Tensor], source: WeightsFile, net: str, how: Preprocessing) -> Foreign:
    """Weights whose names, without wrappers, say whether they are timm's or torchvision's."""
    state, how = bare(state, str(source.path)), asked(how, source)
    if any(name.startswith("pre_logits.") for name in state):
        return timm.foreign(state, str(source.path), net, how, {"sha256": source.sha256})
    return torchvision.foreign(state, source, net, how)


def _state(source: WeightsFile) -> dict[str, Tensor]:
    """The named tensors of a file that torch saved; no code in it is run."""
    path = source.path
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_stored(path)
        with warnings.catch_warnings(action="ignore"):  # of pickle protocols that torch does not write
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: holds more than weights: Python objects, which could run any code when loaded; save its "
            "state_dict() with torch.save, or as safetensors, and give that file"
        ) from None
    except InputError:
        raise
    except Exception as error:  # torch's readers raise all kinds for damaged files, AssertionError and IndexError too
        raise InputError(f"{path}: is damaged or cut ({first_line(error)}); download it again") from None
    for _ in range(2):
        if isinstance(loaded, dict):
            loaded = next((loaded[name] for name in WRAPPERS if isinstance(loaded.get(name), dict)), loaded)
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()) or not loaded:
        raise InputError(f"{path}: holds no state dict (names and tensors); save the net's state_dict() and give that")
    return {str(name): tensor for name, tensor in loaded.items()}


def _check_stored(path: Path) -> None:
    """Refuses compressed parts: torch writes none, cannot map them, and would unpack them to any size.

    Raises:
        InputError: a part is compressed.
    """
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise InputError(f"{path}: was packed again, compressed; give the file as torch.save wrote it")
