"""Receptive field, feature map, parameters and cost of each layer of a net, from Table 1 alone (Sect. 2)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vggrepro import paper
from vggrepro.nets import cost
from vggrepro.paper import Architecture


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a net, for one crop. Normalisations and poolings have no parameters, and their work is not counted."""

    name: str  # conv3_1, lrn1, pool3, fc6
    kernel: int  # side, in values of the map before it; fc6's is that whole map
    stride: int
    field: int  # receptive field: the side of the square of input pixels that one value depends on, away from borders
    side: int  # of its feature map
    channels: int
    parameters: int  # weights and biases
    multiply_adds: int

    @property
    def values(self) -> int:
        """Numbers in its feature map."""
        return self.side**2 * self.channels

    @property
    def fully_connected(self) -> bool:
        return self.name.startswith("fc")


def layers(net: Architecture) -> list[Layer]:
    """The layers of a net in their order, without ReLU, dropout and the soft-max.

    Raises:
        InputError: no such net, or a crop that leaves no map for fc6.
    """
    shapes, work = net.shapes(), cost.layer_macs(net, net.crop, net.crop)
    field, step, side = 1, 1, net.crop  # step: input pixels between two neighbours of the map
    result = []
    for name, kernel, stride, channels in _steps(net):
        field, step = field + (kernel - 1) * step, step * stride
        side = side - kernel + 1 if name.startswith("fc") else side // stride
        count = sum(math.prod(shapes.get(f"{name}.{part}", (0,))) for part in ("weight", "bias"))
        result.append(Layer(name, kernel, stride, field, side, channels, count, work.get(name, 0)))
    return result


def _steps(net: Architecture) -> Iterator[tuple[str, int, int, int]]:
    """Name, kernel, stride and channels of each layer."""
    channels = 3
    for number, (block, pooled) in enumerate(zip(paper.blocks(net.net), paper.poolings(net.stride), strict=True), 1):
        for layer in block:
            if isinstance(layer, paper.Conv):
                channels = net.channels(layer)
                yield layer.name, layer.kernel, 1, channels
            else:
                yield f"lrn{number}", 1, 1, channels
        if pooled:
            yield f"pool{number}", 2, 2, channels
    yield from (("fc6", net.map_side, 1, net.units), ("fc7", 1, 1, net.units), ("fc8", 1, 1, net.classes))


def field_before_fc6(net: Architecture) -> int:
    """The receptive field of a value of fc6's input, in pixels: at 224, A has 150, B and C 156, D 212, E 268."""
    return max(layer.field for layer in layers(net) if not layer.fully_connected)


def stacked_field(kernels: Iterable[int]) -> int:
    """The receptive field of convolutions with stride 1, one after another (Sect. 2.3)."""
    return 1 + sum(kernel - 1 for kernel in kernels)


def stacked_weights(kernels: Iterable[int]) -> int:
    """The number of their weights, as a multiple of C², with C channels in and out (Sect. 2.3)."""
    return sum(kernel**2 for kernel in kernels)
