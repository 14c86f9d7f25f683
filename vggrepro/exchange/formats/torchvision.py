"""torchvision's weights: `features.N` and `classifier.N`, as its VGG-11, 13, 16 and 19 (A, B, D, E) name them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.exchange.formats import published
from vggrepro.exchange.formats.base import Foreign, WeightsFile, not_downloaded
from vggrepro.exchange.formats.state_dict import INPUTS, TWINS, Preprocessing, made, renamed
from vggrepro.system.files import atomic
from vggrepro.system.progress import say

if TYPE_CHECKING:
    from vggrepro.nets.trained import Trained

BEFORE_2017 = {"classifier.1": "classifier.0", "classifier.4": "classifier.3"}  # the FC layers' names, and today's


def names(net: str) -> dict[str, str]:
    """Our tensor names and torchvision's: a convolution and its ReLU have two numbers in `features`, a pooling one."""
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


def _as_today(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with today's names. Until 2017, dropout stood before the FC layers, now it stands after them."""
    if not BEFORE_2017.keys() <= {name.rpartition(".")[0] for name in state}:
        return dict(state)
    return {
        ".".join([BEFORE_2017.get(layer, layer), part]): tensor
        for name, tensor in state.items()
        for layer, _, part in [name.rpartition(".")]
    }


def write(path: Path, trained: Trained) -> None:
    """Writes the state dict, as `torch.save` or, under a name that ends so, as safetensors; bits unchanged."""
    from vggrepro.nets import weights

    state = OrderedDict((theirs, trained.tensors[own]) for own, theirs in names(trained.config.net).items())
    if path.suffix == ".safetensors":
        weights.save(path, state, trained.about())
        return
    with atomic(path) as temporary:
        torch.save(state, temporary)


def downloaded(name: str, net: str) -> Path:
    """The file of torchvision's own weights by name, such as `vgg16`, in torch's cache.

    Raises:
        InputError: no such VGG, no network, another net.
    """
    from torchvision.models import get_model_weights

    twin = next((own for own, theirs in TWINS.items() if theirs == name), None)
    if twin is None:
        known = ", ".join(TWINS.values())
        raise InputError(f"torchvision:{name}: not one of torchvision's VGGs without batch normalisation: {known}")
    if paper.check_net(net) != twin:
        raise InputError(f"torchvision:{name}: holds net {twin}, not {net}; import it as {twin}")
    url = get_model_weights(name)["IMAGENET1K_V1"].url
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not path.is_file():
        say(f"torchvision:{name}: downloading to {path}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), path.stem.partition("-")[2], progress=False)
        except Exception as error:  # whatever its network, its cache or its hash runs into
            raise not_downloaded(f"torchvision:{name}", path.name, error) from None
    return path


def foreign(state: Mapping[str, Tensor], source: WeightsFile, net: str, how: Preprocessing) -> Foreign:
    """torchvision's weights as ours; those it publishes are known by their hash."""
    known, place = published.find(source), str(source.path)
    tensors = renamed(_as_today(state), net, [names(twin) for twin in TWINS], place)
    origin = known.origin if known else f"trained elsewhere: {source.path.name} in torchvision's format"
    if known and known.caffe:
        how = INPUTS["caffe"]
    result = made(tensors, net, how, "torchvision", origin, place, {"sha256": source.sha256}, known is not None)
    return replace(result, scale=known.scale) if known else result
