"""Argument: a weights file. Saves two tensors there and is killed after the first is written."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from vggrepro.nets import weights

whole, seen = weights._bytes, []


def die(tensor: torch.Tensor) -> object:
    seen.append(1)
    if len(seen) == 4:  # two for the hash, two to write
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(tensor)


weights._bytes = die
weights.save(Path(sys.argv[1]), {"a": torch.ones(1 << 16), "b": torch.ones(3)}, {})
