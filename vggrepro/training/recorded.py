"""Records what a step asks of a GPU once, as a CUDA graph, and repeats it with a single request.

With small images a GPU has done an operator's work before the host can ask for the next one. A recorded step does the
same work on the same numbers, so its results have the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vggrepro.system.progress import say

PIXELS = (
    1 << 20
)  # in a batch; with more, each operator keeps a GPU busy, and a recording keeps a step's memory for itself
FIRST = 3  # calls that are not recorded: libraries make themselves ready, the optimiser takes its memory


class Recorded:
    """A function that is recorded at a GPU, once its first calls are made; where that fails it goes on as it is.

    Args:
        function: of tensors on the GPU, with the same shapes at each call; it never waits for the GPU.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._plain_calls: float = FIRST  # still to be made
        self._repeat: Callable[[], None] | None = None
        self._inputs: list[Tensor] = []
        self._result = torch.empty(0)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's result; the next call overwrites it."""
        if not self._plain_calls and self._repeat is None:
            self._record(inputs)
        if self._repeat is None:
            self._plain_calls -= 1
            return self._function(*inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._repeat()
        return self._result

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        try:
            self._repeat, self._result = record(lambda: self._function(*self._inputs))
        except RuntimeError as error:
            self._plain_calls = float("inf")
            reason = str(error).partition("\n")[0]
            say(f"note: a step cannot be recorded as a CUDA graph ({reason}); it goes on operator by operator")


def record(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Records the function without running it: what repeats it, and the tensor that then holds its result."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            result = function()
    finally:
        torch.cuda.set_stream(stream)  # a recording that fails leaves its own in place
    return graph.replay, result
