"""Measures what a training step costs on this machine, in time and in memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vggrepro.nets.initialise import initialise
from vggrepro.nets.vgg import VGG
from vggrepro.paper import Architecture


@dataclass(frozen=True, slots=True)
class Cost:
    """A training step of a net, per image."""

    net: str
    milliseconds: float  # of the forward and the backward pass, the median of some steps
    kept_bytes: int  # the values of the forward pass that the backward pass needs


def costs(nets: Sequence[Architecture], device: torch.device, batch: int, steps: int = 5) -> list[Cost]:
    """The cost of one training step of each net, on the same random images.

    The nets take turns, so that a change of the machine's load affects all of them. The first turn is not counted.
    """
    models = []
    for net in nets:
        model = VGG.of(net)
        initialise(model, "he", seed=0)
        models.append(model.to(device))
    size = nets[0].crop
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    times: list[list[float]] = [[] for _ in nets]
    for turn in range(steps + 1):
        for model, own in zip(models, times, strict=True):
            seconds = _step(model, images, labels)
            if turn:
                own.append(seconds)
    return [
        Cost(net.net, 1000 * statistics.median(own) / batch, _kept(model, images) // batch)
        for net, model, own in zip(nets, models, times, strict=True)
    ]


def _step(model: VGG, images: Tensor, labels: Tensor) -> float:
    """Seconds of a forward and a backward pass."""
    model.zero_grad()
    _wait(images.device)
    start = time.perf_counter()
    torch.autograd.backward(F.cross_entropy(model(images), labels))
    _wait(images.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _kept(model: VGG, images: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, beside the weights and the images."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), images)}
    kept: dict[int, Tensor] = {}  # holds them, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = model(images)
    sizes = {place: tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in known}
    del scores
    return sum(sizes.values())
