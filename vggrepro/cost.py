"""What nets cost: multiply-adds and bytes, counted exactly from Table 1.

A multiply-add (MAC) is two FLOPs. Counted are conv. and FC layers; biases, ReLU, LRN, pooling and soft-max, under 1 %
together, are not. Training is three forward passes: the forward one, and gradients of weights and of inputs.
"""

from __future__ import annotations

import math

from vggrepro import paper
from vggrepro.errors import InputError

FLOPS = 2  # of a multiply-add
FLOAT_BYTES = 4  # of a stored weight or momentum


def layer_macs(
    net: str,
    height: int,
    width_px: int,
    classes: int = 1000,
    crop: int = paper.CROP,
    width: float = 1.0,
    stride: int = paper.STRIDE,
) -> dict[str, int]:
    """Multiply-adds of one forward pass by layer name, for one image of `height` x `width_px` real pixels.

    FC layers act as convolutions over the whole image (Sect. 3.2), fc6 as k x k with k = floor(crop / stride); for an
    image of the crop's size that is the plain net. Poolings round down.

    Args:
        net: A, A-LRN, B, B-5x5, C, D or E.
        height, width_px: of the image, in real pixels.
        classes: K.
        crop: side of the net's training crop, in real pixels.
        width: multiplies channels and FC units.
        stride: of the net, in real pixels.

    Raises:
        InputError: no such net, or an image that leaves no map for fc6.
    """
    shapes = paper.shapes(net, classes, crop, width, stride)
    side = crop // stride
    result: dict[str, int] = {}
    h, w = height, width_px
    for block, pooled in zip(paper.blocks(net), paper.poolings(stride), strict=True):
        for layer in block:
            if isinstance(layer, paper.Conv):  # padded so that the map keeps its size
                out, incoming, kernel, _ = shapes[f"{layer.name}.weight"]
                result[layer.name] = h * w * out * incoming * kernel * kernel
        if pooled:
            h, w = h // 2, w // 2
    if side < 1 or min(h, w) < side:
        raise InputError(f"an image of {width_px}x{height} pixels leaves no {side}x{side} map for fc6; use a larger Q")
    positions = (h - side + 1) * (w - side + 1)
    for name in ("fc6", "fc7", "fc8"):
        out, incoming = shapes[f"{name}.weight"]
        result[name] = positions * out * incoming
    return result


def crop_macs(
    net: str, classes: int = 1000, crop: int = paper.CROP, width: float = 1.0, stride: int = paper.STRIDE
) -> int:
    """Multiply-adds of one crop's forward pass; at 224, width 1: A 7.61, B 11.31, D 15.47, E 19.63 * 10^9."""
    return sum(layer_macs(net, crop, crop, classes, crop, width, stride).values())


def dense_macs(
    net: str,
    height: int,
    width_px: int,
    classes: int = 1000,
    crop: int = paper.CROP,
    width: float = 1.0,
    stride: int = paper.STRIDE,
) -> int:
    """Multiply-adds of one dense forward pass of `height` x `width_px` real pixels, FC layers included."""
    return sum(layer_macs(net, height, width_px, classes, crop, width, stride).values())


def training_flops(
    net: str,
    classes: int = 1000,
    crop: int = paper.CROP,
    width: float = 1.0,
    stride: int = paper.STRIDE,
    fc_only: bool = False,
) -> int:
    """FLOPs of one training image, forward and backward; `fc_only` trains fc6 to fc8 and passes the rest forward."""
    layers = layer_macs(net, crop, crop, classes, crop, width, stride)
    return FLOPS * sum(macs * (1 if fc_only and name.startswith("conv") else 3) for name, macs in layers.items())


def weight_bytes(
    net: str, classes: int = 1000, crop: int = paper.CROP, width: float = 1.0, stride: int = paper.STRIDE
) -> int:
    """Size of a finished run's weights on disk, without the file's header."""
    return FLOAT_BYTES * paper.parameter_count(net, classes, crop, width, stride)


def checkpoint_bytes(
    net: str,
    classes: int = 1000,
    crop: int = paper.CROP,
    width: float = 1.0,
    stride: int = paper.STRIDE,
    fc_only: bool = False,
) -> int:
    """Size of a checkpoint, weights and the momentum of what is trained, without its header."""
    trained = sum(
        math.prod(shape)
        for name, shape in paper.shapes(net, classes, crop, width, stride).items()
        if not fc_only or name.startswith("fc")
    )
    return weight_bytes(net, classes, crop, width, stride) + FLOAT_BYTES * trained
