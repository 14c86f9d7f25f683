"""State dicts of torchvision's and timm's nets: what both have in common, from names to the record of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.exchange.formats import base
from vggrepro.exchange.formats.base import Foreign

# conv1_1's first filter at its first corner in the authors' D: blue, green, red. Fine-tuning moves it little.
AUTHORS_FIRST, FIRST_TOLERANCE = (0.42947057, 0.55037946, 0.4800154), 0.02
TWINS = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}  # our nets and theirs
# Parts of names that DataParallel, torch.compile and sharding add, and usual attributes that hold a net.
WRAPPERS = {
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_forward_module",
    "model",
    "net",
    "network",
    "backbone",
    "vgg",
}
OUTERMOST = {"features", "classifier", "pre_logits", "head"}  # parts that the names of torchvision and timm begin with


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What the weights' input is: ((RGB 0-1) - mean) / std, or what `base.stated` gives for our exports."""

    mean: Sequence[float] = base.IMAGENET_MEAN
    std: Sequence[float] = base.IMAGENET_STD
    said: bool = False  # by the file, or one beside it
    exported: Mapping[str, Any] = field(default_factory=dict)
    caffe: bool = False  # BGR 0-255 minus the authors' mean instead


INPUTS = {"caffe": Preprocessing(said=True, caffe=True), "torchvision": Preprocessing(said=True)}


def asked(how: Preprocessing, source: base.WeightsFile) -> Preprocessing:
    """The preprocessing that the user names, else `how`.

    Raises:
        InputError: the user names one, but the file says its own.
    """
    if source.input and how.exported:
        raise InputError(f"{source.path}: says itself what its input is; leave out --input")
    return INPUTS[source.input] if source.input else how


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
    missing, others = [name for name in own if name not in state], [name for name in state if name not in own]
    if missing and others:
        raise InputError(
            f"{place}: has {_first(others)} where net {net} has {_first(missing)}; give a file with torchvision's or "
            "timm's names, or rename them so"
        )
    return {own.get(name, name): tensor for name, tensor in state.items()}


def _check_plain(tensors: Mapping[str, Tensor], place: str) -> None:
    """Refuses sparse, quantised, complex and absent numbers, which are no float32 when copied.

    Raises:
        InputError: the first of them.
    """
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
            raise InputError(f"{place}: {base.printable(name)} holds no plain numbers; save it as float32")


def _first(names: Sequence[str], count: int = 3) -> str:
    """The first of many names, for messages."""
    return ", ".join(base.printable(name) for name in names[:count]) + (", …" if len(names) > count else "")


def bare(state: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """The tensors by their names without wrappers: known wrappers anywhere, others if all names begin with them.

    Raises:
        InputError: two tensors would have one name, as of two nets in one file.
    """
    parts = {name: [part for part in name.split(".") if part not in WRAPPERS] for name in state}
    columns = zip(*parts.values(), strict=False)  # the first part of each name, the second, …
    begin = sum(1 for _ in takewhile(lambda same: len(set(same)) == 1 and same[0] not in OUTERMOST, columns))
    result: dict[str, Tensor] = {}
    for name, part in parts.items():
        if (short := ".".join(part[begin:])) in result:
            raise InputError(
                f"{place}: has two tensors {base.printable(short)} under different prefixes; save the state_dict() of "
                "one net and give that"
            )
        result[short] = state[name]
    return result


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
    architecture = base.geometry(net, shapes, place)
    architecture, exported = base.sized(architecture, how.exported)
    tensors = {name: tensor.to(torch.float32).contiguous() for name, tensor in tensors.items()}
    values: dict[str, Any] = {"origin": origin, **exported}
    notes: tuple[str, ...] = ()
    if how.caffe:
        values |= {"mean_rgb": base.CAFFE_MEAN_RGB, "input_scale": 1.0}
        tensors["conv1_1.weight"] = base.bgr_to_rgb(tensors["conv1_1.weight"]).contiguous()
    elif not how.exported:
        first = tensors["conv1_1.weight"][0, :, 0, 0]
        values |= {"mean_rgb": tuple(255 * value for value in how.mean), "input_scale": 1 / 255}
        if len(set(how.std)) == 1:
            values["input_scale"] = 1 / (255 * how.std[0])
        else:
            tensors["conv1_1.weight"] = base.fold_std(tensors["conv1_1.weight"], how.std)
        if not known and not how.said:
            mean, std = (", ".join(f"{value:g}" for value in part) for part in (how.mean, how.std))
            notes = (f"the file does not say its preprocessing: RGB with mean {mean} and deviation {std} is taken",)
            if torch.allclose(first, torch.tensor(AUTHORS_FIRST), rtol=0, atol=FIRST_TOLERANCE):
                notes += (
                    "its first filter is that of the authors' net D, whose input is BGR 0-255 minus the mean: import "
                    "it with --input caffe",
                )
    return Foreign(
        architecture=architecture,
        tensors=tensors,
        format=format_,
        place=place,
        known=known,
        notes=notes,
        hashes=hashes,
        class_order=base.WNID_ORDER if architecture.classes == 1000 else "unknown",
        **values,
    )
