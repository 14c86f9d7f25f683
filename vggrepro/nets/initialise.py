"""Random weights of a new net: the paper's, and other initialisations (Sect. 3.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

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
    centres (Xiao et al. 2018) and no filter with a mean (`_centred`). `fc8` multiplies the last layer's weights.

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
            rectified = how == "delta" and parameter.shape[1] > 3  # whether its input is rectified: all but conv1_1's
            rows = keyed.key(seed, keyed.WEIGHTS, *name.encode(), torch.arange(len(parameter)))
            if rectified and parameter.ndim == 4:
                middle = parameter.shape[2] // 2
                parameter.zero_()
                parameter[:, :, middle, middle] = _orthogonal(keyed.normal(rows, parameter.shape[1]))
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
            for start in range(0, len(rows), 64):  # fc6 has 103 million weights: a few rows at a time
                part = slice(start, start + 64)
                values = draw(rows[part], parameter[0].numel())
                if rectified:
                    values = _centred(values)
                parameter[part] = (values * scale).view(parameter[part].shape)


def _uniform(keys: Tensor, count: int) -> Tensor:
    """`count` uniform numbers of mean 0 and variance 1 for each key: (…) int64 -> (…, count) float32."""
    return (2 * keyed.uniform(keys, count) - 1) * math.sqrt(3)


def _orthogonal(values: Tensor) -> Tensor:
    """A random orthogonal matrix, then centred, of a rectified signal's gain: (out, in) normal numbers -> the same."""
    outgoing, incoming = values.shape
    tall = values.double() if outgoing >= incoming else values.double().T
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal().sign()  # uniform over all such matrices
    matrix = _centred(q if outgoing >= incoming else q.T).to(values.dtype)
    return matrix * math.sqrt(CENTRED_GAIN * max(1, outgoing / incoming))


def _centred(values: Tensor) -> Tensor:
    """Subtracts each row's mean, (rows, in) -> the same: what all rectified activations share is not passed on.

    With He's weights this common part grows from layer to layer: at the start, fc7's activations of any two images
    point the same way (a cosine of 0.97 in E), and the gradient is nearly all fc8's. Brock et al. 2021 take the means
    out in each step.
    """
    return values - values.mean(1, keepdim=True)
