"""Records the GPU operators of a step once, as a CUDA graph, and then starts all of them with a single call.

With small images a GPU finishes an operator before the host can start the next one. A recorded step runs the same
operators on the same numbers, so its results have the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vggrepro.system.progress import say

# In a batch. With more pixels, each operator keeps a GPU busy, and a recording holds the memory of a step all the time.
PIXELS = 1 << 20
FIRST = 3  # calls that are not recorded: in these, libraries initialise and the optimiser allocates its memory


class Recorded:
    """A function that is recorded after its first calls; if recording fails, it runs operator by operator.

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
            say(f"note: a step cannot be recorded as a CUDA graph ({reason}); it runs operator by operator")


def record(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Records the function without running it; gives a function that runs it and the tensor that holds its result."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            result = function()
    finally:
        torch.cuda.set_stream(stream)  # a recording that fails leaves its own stream set
    return graph.replay, result
