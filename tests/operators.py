"""Counts what torch is asked to do: on a GPU, each operator costs the host about as much as a small kernel takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Operators(TorchDispatchMode):
    """Counts the operators inside a `with` statement, and those of them that only view a tensor differently."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.views = 0
        self.devices: set[str] = set()  # of all tensors that operators were given

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        self.views += func.is_view
        self.devices |= {value.device.type for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        return func(*args, **(kwargs or {}))
