"""torchvision's weights: `features.N` and `classifier.N`, as its VGG-11, 13, 16 and 19 (A, B, D, E) name them."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.files import atomic
from vggrepro.formats import base, published
from vggrepro.formats.base import Foreign, Source

if TYPE_CHECKING:
    from pathlib import Path

    from vggrepro.exporting import Trained

TWINS = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}  # our nets and theirs
WRAPPERS = ("state_dict", "model", "model_state_dict")  # where training scripts put the weights in a checkpoint
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What the weights' input is: ((RGB 0-1) - mean) / std, or what `base.stated` gives for our exports."""

    mean: Sequence[float] = base.IMAGENET_MEAN
    std: Sequence[float] = base.IMAGENET_STD
    said: bool = False  # by the file, or one beside it
    exported: Mapping[str, Any] = field(default_factory=dict)


def names(net: str) -> dict[str, str]:
    """Our tensor names and torchvision's: a conv. layer and its ReLU take two places in `features`, a pooling one."""
    result: dict[str, str] = {}
    place = 0
    for block in paper.blocks(net):
        for layer in block:
            if isinstance(layer, paper.Conv):
                result[layer.name] = f"features.{place}"
                place += 2
        place += 1
    result |= {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
    return {f"{own}.{part}": f"{theirs}.{part}" for own, theirs in result.items() for part in ("weight", "bias")}


def write(path: Path, trained: Trained) -> None:
    """Writes the state dict, as `torch.save` or, under a name that ends so, as safetensors; bits unchanged."""
    from vggrepro import weights

    state = OrderedDict((theirs, trained.tensors[own]) for own, theirs in names(trained.net).items())
    if path.suffix == ".safetensors":
        weights.save(path, state, trained.about())
        return
    with atomic(path) as temporary:
        torch.save(state, temporary)


def read(source: Source, net: str) -> Foreign:
    """A file that torch saved: torchvision's or timm's names, or ours.

    Raises:
        InputError: a pickle with anything but weights, no such names, batch normalisation, another net.
    """
    return by_names(_state(source), source, net, Preprocessing(exported=base.sidecar(source.path)))


def by_names(state: Mapping[str, Tensor], source: Source, net: str, how: Preprocessing) -> Foreign:
    """Weights whose names say whether they are timm's or torchvision's."""
    if any(name.startswith("pre_logits.") for name in state):
        from vggrepro.formats import timm

        return timm.foreign(state, str(source.path), net, how, {"sha256": source.sha256})
    return foreign(state, source, net, how)


def foreign(state: Mapping[str, Tensor], source: Source, net: str, how: Preprocessing) -> Foreign:
    """torchvision's weights as ours; those it publishes are known by their hash."""
    known, place = published.find(source), str(source.path)
    tensors = renamed(state, net, [names(twin) for twin in TWINS], place)
    origin = known.origin if known else f"trained elsewhere: {source.path.name} in torchvision's format"
    return made(tensors, net, how, "torchvision", origin, place, {"sha256": source.sha256}, known is not None)


def renamed(
    state: Mapping[str, Tensor], net: str, schemes: Sequence[Mapping[str, str]], place: str
) -> dict[str, Tensor]:
    """The weights in our names, as far as they are `net`'s; `schemes` has the names of each of `TWINS`.

    Raises:
        InputError: batch normalisation, another twin's names, or a net that has no twin.
    """
    net = paper.check_net(net)
    if net not in TWINS:
        raise InputError(f"{place}: torchvision and timm have A, B, D and E only, not {net}")
    state = {_bare(name): tensor for name, tensor in state.items()}
    _check_plain(state, place)
    if any("running_mean" in name for name in state):
        raise InputError(
            f"{place}: has batch normalisation, which the paper's nets have not; give the net without '_bn'"
        )
    twins = list(TWINS)
    found = next((twin for twin, scheme in zip(twins, schemes, strict=True) if set(scheme.values()) == set(state)), net)
    if found != net:
        raise InputError(f"{place}: holds net {found}, not {net}; import it as {found}")
    scheme = schemes[twins.index(net)]
    own = {theirs: ours for ours, theirs in scheme.items()}
    return {own.get(name, name): tensor for name, tensor in state.items()}


def _check_plain(tensors: Mapping[str, Tensor], place: str) -> None:
    """Refuses sparse, quantised, complex and absent numbers, which are no float32 when copied.

    Raises:
        InputError: the first of them.
    """
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
            raise InputError(f"{place}: {base.printable(name)} holds no plain numbers; save it as float32")


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def made(
    tensors: dict[str, Tensor],
    net: str,
    how: Preprocessing,
    format_: str,
    origin: str,
    place: str,
    hashes: dict[str, str],
    known: bool = False,
) -> Foreign:
    """The record, from tensors in our names: standard deviations folded into conv1_1 where they differ.

    Raises:
        InputError: another net's names or shapes.
    """
    net = paper.check_net(net)
    _check_plain(tensors, place)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    classes, crop, width = base.geometry(net, shapes, place)
    base.check_shapes(net, shapes, paper.shapes(net, classes, crop, width), place)
    tensors = {name: tensor.to(torch.float32).contiguous() for name, tensor in tensors.items()}
    values: dict[str, Any] = {"origin": origin, "crop": crop, **how.exported}
    notes: tuple[str, ...] = ()
    if not how.exported:
        values |= {"mean_rgb": tuple(255 * value for value in how.mean), "input_scale": 1 / 255}
        if len(set(how.std)) == 1:
            values["input_scale"] = 1 / (255 * how.std[0])
        else:
            tensors["conv1_1.weight"] = base.fold_std(tensors["conv1_1.weight"], how.std)
        if not known and not how.said:
            mean, std = (", ".join(f"{value:g}" for value in part) for part in (how.mean, how.std))
            notes = (f"the file does not say its preprocessing: RGB with mean {mean} and deviation {std} is taken",)
    return Foreign(
        net=net,
        tensors=tensors,
        classes=classes,
        format=format_,
        place=place,
        known=known,
        notes=notes,
        hashes=hashes,
        width=width,
        class_order=base.WNID_ORDER if classes == 1000 else "unknown",
        **values,
    )


def _state(source: Source) -> dict[str, Tensor]:
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
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
        MemoryError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        raise InputError(f"{path}: is damaged or cut ({_line(error)}); download it again") from None
    for _ in range(2):
        if isinstance(loaded, dict):
            loaded = next((loaded[name] for name in WRAPPERS if isinstance(loaded.get(name), dict)), loaded)
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()) or not loaded:
        raise InputError(f"{path}: holds no state dict (names and tensors); save the net's state_dict() and give that")
    return {str(name): tensor for name, tensor in loaded.items()}


def _check_stored(path: Path) -> None:
    """Refuses compressed parts: torch writes none, reads those of weights as they lie, and unpacks others to any size.

    Raises:
        InputError: a part is compressed.
    """
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise InputError(f"{path}: was packed again, compressed; give the file as torch.save wrote it")


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
