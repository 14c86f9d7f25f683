"""Random weights of a new net: the paper's, and other initialisations (Sect. 3.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.init import dirac_

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.nets import keyed
from vggrepro.nets.vgg import VGG

# He's gain is 2. Removing each filter's mean keeps 1 - 1/π of a ReLU's mean square, so 2 / (1 - 1/π) = 2.93 would
# preserve it; max-pooling raises it a little. With 2.6, E's signal after fc7 has the size of its input.
CENTRED_GAIN = 2.6


def initialise(model: VGG, how: str, seed: int, std: float = 0.01, fc8: float = 1.0) -> None:
    """Fills all layers with random weights and zero biases, each layer keyed by (seed, its name).

    `random` is N(0, std²), the paper's (Sect. 3.1, with Caffe's reading of its "10^-2 variance"); `glorot`
    (Glorot & Bengio 2010, Sect. 3.1) is uniform with variance 2/(in+out), `glorot-normal` normal with the same
    variance; `he` (He et al. 2015) is normal with variance 2/in; `delta` has random orthogonal matrices at the kernels'
    centres (Xiao et al. 2018) and no filter with a mean (`_centred`); `looks-linear` (Balduzzi et al. 2017) makes a net
    that is linear at the start, but for its poolings and LRN (`_looks_linear`); `dirac` does so, too, and a conv. layer
    with as many channels as the layer before changes nothing at the start (Zagoruyko & Komodakis 2017), so that nets of
    all depths start as the same function. `fc8` multiplies the last layer's weights.

    Raises:
        InputError: `how` is no initialisation.
    """
    if how not in paper.INITIALISERS:
        raise InputError(f"unknown initialisation '{how}'; choose one of {', '.join(paper.INITIALISERS)}")
    how = paper.INITIALISERS[how]
    draw = _uniform if how == "glorot-uniform" else keyed.normal
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.zero_()
                continue
            rows = keyed.key(seed, keyed.WEIGHTS, *name.encode(), torch.arange(len(parameter)))
            if how == "dirac" and name != "conv1_1.weight" and parameter.ndim == 4 and len(rows) == parameter.shape[1]:
                dirac_(parameter)  # rectified inputs pass on unchanged
                continue
            if how in ("looks-linear", "dirac"):
                _looks_linear(name, parameter, rows, model.architecture.map_side**2)
                parameter.mul_(fc8 if name == "fc8.weight" else 1)
                continue
            rectified = how == "delta" and parameter.shape[1] > 3  # whether its input is rectified: all but conv1_1's
            if rectified and parameter.ndim == 4:
                middle = parameter.shape[2] // 2
                parameter.zero_()
                centres = _centred(_orthogonal(keyed.normal(rows, parameter.shape[1])))
                gain = CENTRED_GAIN * max(1, parameter.shape[0] / parameter.shape[1])
                parameter[:, :, middle, middle] = centres.to(parameter.dtype) * math.sqrt(gain)
                continue
            area = math.prod(parameter.shape[2:])
            outgoing, incoming = parameter.shape[0] * area, parameter.shape[1] * area
            scale = {
                "random": std,
                "glorot-uniform": math.sqrt(2 / (incoming + outgoing)),
                "glorot-normal": math.sqrt(2 / (incoming + outgoing)),
                "he": math.sqrt(2 / incoming),
                "delta": math.sqrt((CENTRED_GAIN if rectified else 2) / incoming),
            }[how] * (fc8 if name == "fc8.weight" else 1)
            for part in _parts(len(rows)):
                values = draw(rows[part], parameter[0].numel())
                if rectified:
                    values = _centred(values)
                parameter[part] = (values * scale).view(parameter[part].shape)


def _parts(rows: int) -> Iterator[slice]:
    """64 rows at a time: fc6 has 103 million weights."""
    return (slice(start, min(start + 64, rows)) for start in range(0, rows, 64))


def _uniform(keys: Tensor, count: int) -> Tensor:
    """`count` uniform numbers of mean 0 and variance 1 for each key: (…) int64 -> (…, count) float32."""
    return (2 * keyed.uniform(keys, count) - 1) * math.sqrt(3)


def _looks_linear(name: str, parameter: Tensor, rows: Tensor, positions: int) -> None:
    """Fills a layer's weights so that it passes on all that the layer before computed before its ReLU.

    The second half of a layer's channels is the first half with the other sign: z and -z. After ReLU one has the
    positive part of z and the other its negative part. The next layer's weights, V and -V, give V z. So the signal
    keeps its size and its directions. Behind other random weights, each ReLU brings all images closer together.

    Args:
        name: of the weights; conv1_1's input and fc8's output have no halves.
        parameter: conv. weights (out, in, k, k), or (out, in); filled. V is orthogonal at a kernel's centre and zero
            elsewhere; in conv1_1 and the FC layers it is normal.
        rows: a key for each row.
        positions: of the map that fc6 sees, which makes so many columns of each channel.
    """
    area = positions if name == "fc6.weight" else math.prod(parameter.shape[2:])
    weights = parameter.view(len(parameter), -1, area)
    channels = weights.shape[1]
    incoming = channels if name == "conv1_1.weight" else (channels + 1) // 2
    outgoing = len(weights) if name == "fc8.weight" else (len(weights) + 1) // 2
    if parameter.ndim == 4 and name != "conv1_1.weight":
        weights.zero_()
        centres = _orthogonal(keyed.normal(rows[:outgoing], incoming)) * math.sqrt(max(1, outgoing / incoming))
        weights[:outgoing, :incoming, area // 2] = centres.to(weights.dtype)
    else:
        for part in _parts(outgoing):
            values = keyed.normal(rows[part], incoming * area) / math.sqrt(incoming * area)
            weights[part, :incoming] = values.view(-1, incoming, area)
    weights[:outgoing, incoming:] = -weights[:outgoing, : channels - incoming]
    weights[outgoing:] = -weights[: len(weights) - outgoing]


def _orthogonal(values: Tensor) -> Tensor:
    """A random matrix with orthonormal rows or columns: (out, in) normal numbers -> the same, float64."""
    tall = values.double() if len(values) >= values.shape[1] else values.double().T
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal().sign()  # uniform over all such matrices
    return q if len(values) >= values.shape[1] else q.T


def _centred(values: Tensor) -> Tensor:
    """Subtracts each row's mean, (rows, in) -> the same: what all rectified activations share is not passed on.

    With He's weights this common part grows from layer to layer: at the start, fc7's activations of any two images
    point the same way (a cosine of 0.97 in E), and the gradient is nearly all fc8's. Brock et al. 2021 take the means
    out in each step.
    """
    return values - values.mean(1, keepdim=True)
