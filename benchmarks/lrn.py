"""Claim: our LRN (a banded 1x1 convolution) is faster than torch's and gives the same numbers.

python benchmarks/lrn.py
"""

from __future__ import annotations

import torch
from record import alternate, write
from torch import Tensor
from torch.nn import functional as F

from vggrepro.nets.vgg import local_response_norm

SIZES = ((16, 8, 64), (4, 64, 224))  # images, channels, side: the demo's and the paper's
ROUNDS = 7


def theirs(x: Tensor) -> Tensor:
    """torch divides alpha by n."""
    return F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)


def main() -> None:
    """Forward and backward of A-LRN's layer at the demo's size and at the paper's."""
    rows = []
    for batch, channels, side in SIZES:
        x = (torch.randn(batch, channels, side, side) * 50).to(memory_format=torch.channels_last).requires_grad_()
        expected = theirs(x).detach()
        difference = float((local_response_norm(x).detach() - expected).abs().max() / expected.abs().max())
        assert difference < 1e-5, difference

        def step(layer: object, x: Tensor = x) -> None:
            torch.autograd.grad(layer(x).sum(), x)  # type: ignore[operator]

        medians = alternate(
            {"ours": lambda f=step: f(local_response_norm), "torch": lambda f=step: f(theirs)}, ROUNDS, 3
        )
        size = f"{batch}x{channels}x{side}x{side}"
        row = {"size": size, "ours_ms": 1e3 * medians["ours"], "torch_ms": 1e3 * medians["torch"]}
        rows.append(row | {"ratio": medians["torch"] / medians["ours"], "largest_relative_difference": difference})
    write("lrn", rows)


if __name__ == "__main__":
    main()
