"""What nets cost: multiply-adds and bytes, counted exactly from Table 1.

A multiply-add (MAC) is two FLOPs. Convolutional and FC layers are counted; biases, ReLU, LRN, pooling and soft-max
are not (together under 1 %). Training costs three forward passes: one forward, one for the gradients of the weights,
one for the gradients of the inputs.
"""

from __future__ import annotations

import math

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.paper import Architecture

FLOPS = 2  # of a multiply-add
FLOAT_BYTES = 4  # of a stored weight or momentum


def layer_macs(net: Architecture, height: int, width: int) -> dict[str, int]:
    """Multiply-adds of one forward pass by layer name, for one image of `height` x `width` real pixels.

    FC layers act as convolutions over the whole image (Sect. 3.2); for an image of the crop's size that is the plain
    net. Poolings round down.

    Raises:
        InputError: no such net, or an image that leaves no map for fc6.
    """
    shapes, side = net.shapes(), net.map_side
    result: dict[str, int] = {}
    h, w = height, width
    for block, pooled in zip(paper.blocks(net.net), paper.poolings(net.stride), strict=True):
        for layer in block:
            if isinstance(layer, paper.Conv):  # padded so that the map keeps its size
                out, incoming, kernel, _ = shapes[f"{layer.name}.weight"]
                result[layer.name] = h * w * out * incoming * kernel * kernel
        if pooled:
            h, w = h // 2, w // 2
    if side < 1 or min(h, w) < side:
        raise InputError(f"an image of {width}x{height} pixels leaves no {side}x{side} map for fc6; use a larger Q")
    positions = (h - side + 1) * (w - side + 1)
    for name in ("fc6", "fc7", "fc8"):
        out, incoming = shapes[f"{name}.weight"]
        result[name] = positions * out * incoming
    return result


def crop_macs(net: Architecture) -> int:
    """Multiply-adds of one crop's forward pass; at 224, width 1: A 7.61, B 11.31, D 15.47, E 19.63 * 10^9."""
    return dense_macs(net, net.crop, net.crop)


def dense_macs(net: Architecture, height: int, width: int) -> int:
    """Multiply-adds of one dense forward pass of `height` x `width` real pixels, FC layers included."""
    return sum(layer_macs(net, height, width).values())


def training_flops(net: Architecture, fc_only: bool = False) -> int:
    """FLOPs of one training image, forward and backward; `fc_only` trains fc6 to fc8 and passes the rest forward."""
    layers = layer_macs(net, net.crop, net.crop)
    return FLOPS * sum(macs * (1 if fc_only and name.startswith("conv") else 3) for name, macs in layers.items())


def weight_bytes(net: Architecture) -> int:
    """Size of a finished run's weights on disk, without the file's header."""
    return FLOAT_BYTES * net.parameters


def checkpoint_bytes(net: Architecture, fc_only: bool = False) -> int:
    """Size of a checkpoint, weights and the momentum of what is trained, without its header."""
    trained = sum(math.prod(s) for name, s in net.shapes().items() if not fc_only or name.startswith("fc"))
    return weight_bytes(net) + FLOAT_BYTES * trained
