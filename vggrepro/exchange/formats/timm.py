"""timm's weights: `features.N` as torchvision's, `pre_logits.fc1`, `fc2` as convolutions, `head.fc`.

Written as a folder of the form that timm loads by itself: `config.json` and `model.safetensors`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.exchange.formats import base, torchvision
from vggrepro.exchange.formats.base import Foreign
from vggrepro.exchange.formats.state_dict import TWINS, Preprocessing, made, renamed
from vggrepro.system.files import write_json
from vggrepro.system.progress import say

if TYPE_CHECKING:
    from vggrepro.nets.trained import Trained

HEAD = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}


def names(net: str) -> dict[str, str]:
    """Our tensor names and timm's."""
    return {
        own: HEAD.get(name.rpartition(".")[0], name.rpartition(".")[0]) + "." + name.rpartition(".")[2]
        for own, name in torchvision.names(net).items()
    }


def write(folder: Path, trained: Trained) -> None:
    """Writes `model.safetensors` and then `config.json`, which timm reads first."""
    from vggrepro.nets import weights

    state = {}
    for own, theirs in names(trained.config.net).items():
        tensor = trained.tensors[own]
        if own == "fc6.weight":
            tensor = tensor.view(len(tensor), -1, *[trained.config.crop // paper.STRIDE] * 2)
        elif own == "fc7.weight":
            tensor = tensor[:, :, None, None]
        state[theirs] = tensor
    weights.save(folder / "model.safetensors", state, trained.about())
    write_json(folder / "config.json", config(trained))


def config(trained: Trained) -> dict[str, Any]:
    """timm's description of a model; its test transform takes the centre crop at Q = S."""
    classes, words = trained.config.class_names, trained.config.class_words
    return {
        "architecture": TWINS[trained.config.net],
        "num_classes": trained.config.classes,
        "num_features": 512,
        **({"label_names": list(classes)} if classes else {}),
        **({"label_descriptions": dict(zip(classes, words, strict=True))} if classes and words else {}),
        "pretrained_cfg": {
            "tag": "vggrepro",
            "custom_load": False,
            "input_size": [3, trained.config.crop, trained.config.crop],
            "fixed_input_size": False,
            "pool_size": [7, 7],
            "interpolation": trained.config.recipe.resample,
            "crop_pct": _crop_share(trained.config.crop, trained.test_side),
            "crop_mode": "center",
            "mean": trained.mean,
            "std": trained.std,
            "first_conv": "features.0",
            "classifier": "head.fc",
        },
    }


def _crop_share(crop: int, side: int) -> float:
    """The share crop / side, for which timm computes `side` again.

    timm rounds crop / share down; without the correction it would be 353 for 354.
    """
    share = crop / side
    return share if int(crop / share) == side else math.nextafter(share, 0)


def foreign(
    state: Mapping[str, Tensor], place: str, net: str, how: Preprocessing, hashes: dict[str, str], origin: str = ""
) -> Foreign:
    """timm's weights as ours: the FC layers' kernels become rows, channel first."""
    tensors = renamed(state, net, [names(twin) for twin in TWINS], place)
    base.check_count({name: tensor.shape for name, tensor in tensors.items()}, place)  # before any is copied
    for name in ("fc6.weight", "fc7.weight"):
        if name in tensors and tensors[name].ndim > 1:
            tensors[name] = tensors[name].flatten(1)
    origin = origin or f"trained elsewhere: {Path(place).name} in timm's format"
    return made(tensors, net, how, "timm", origin, place, hashes, known=False)


def preprocessing(path: Path) -> tuple[Any, Any] | None:
    """(mean, std) of the `config.json` beside a file of timm's hub; None if there is none."""
    from vggrepro.system.files import read_json

    beside = path.with_name("config.json")
    if not beside.is_file():
        return None
    values = read_json(beside)
    described = values.get("pretrained_cfg", values)
    try:
        mean, std = ([float(value) for value in described[name]] for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError):
        return None
    fine = len(mean) == len(std) == 3 and all(map(math.isfinite, [*mean, *std])) and min(std) > 0
    return (mean, std) if fine else None


def read_name(name: str, net: str) -> Foreign:
    """Weights that timm has by name, such as `vgg16.tv_in1k`; timm downloads them.

    Raises:
        InputError: no such VGG, no network, another net.
    """
    import timm

    base_name = name.partition(".")[0]
    if base_name not in TWINS.values() or name not in [*timm.list_models("vgg*", pretrained=True), base_name]:
        known = ", ".join(model for model in timm.list_models("vgg*", pretrained=True) if "_bn" not in model)
        raise InputError(f"timm:{name}: not one of timm's VGGs without batch normalisation; choose one of {known}")
    twin = next(own for own, theirs in TWINS.items() if theirs == base_name)
    if paper.check_net(net) != twin:
        raise InputError(f"timm:{name}: holds net {twin}, not {net}; import it as {twin}")
    say(f"timm:{name}: downloading, if it is not in the cache (without a network this takes a minute to fail)")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries, two lines each
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # whatever its download, its cache or its files run into
        raise base.not_downloaded(f"timm:{name}", "its model.safetensors", error) from None
    described: Any = model.pretrained_cfg
    how = Preprocessing(tuple(described["mean"]), tuple(described["std"]), said=True)
    origin = f"trained elsewhere: timm's {described.get('architecture', base_name)}.{described.get('tag', '')}"
    origin = origin.rstrip(".") + f", {base.NOT_THE_PAPERS}"
    return foreign(model.state_dict(), f"timm:{name}", net, how, {}, origin)
