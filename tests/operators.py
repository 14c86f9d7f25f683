"""Counts what torch is asked to do: on a GPU, each operator costs the host about as much as a small kernel takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """Counts the operators inside a `with` statement, and those of them that only view a tensor differently."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.views = 0

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        self.views += func.is_view
        return func(*args, **(kwargs or {}))
