"""Random numbers computed from a key, so that they do not depend on what was drawn before.

A key is made of integers such as (seed, purpose, epoch, image). A training run is therefore the same with any number of
loader threads, processes or micro-batches, and after any interruption (Sect. 3.3: the result is "exactly the same").
The generator is SplitMix64 used as a hash; it gives the same numbers on every torch device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# The purpose of a random number: the second part of every key, so that no two purposes share numbers.
ORDER, CROP, DROPOUT, WEIGHTS, HELD_OUT = range(5)


def _signed(constant: int) -> int:
    """An unsigned 64-bit constant as the torch.int64 with the same bits."""
    return constant - (1 << 64) if constant >= 1 << 63 else constant


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift (torch's is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser: (…) int64 -> (…) int64; each bit of the result depends on all bits of x."""
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def key(*parts: int | Tensor) -> Tensor:
    """Hashes integers, or int64 tensors that broadcast together, to int64 keys of the broadcast shape."""
    result = torch.zeros((), dtype=torch.int64)
    for part in parts:
        part = torch.as_tensor(part, dtype=torch.int64)
        result = _mix(result.to(part.device) + part + _GOLDEN)
    return result


def uniform(keys: Tensor, count: int) -> Tensor:
    """`count` numbers in [0, 1) for each key: (…) int64 -> (…, count) float32, with 24 random bits each."""
    counter = torch.arange(1, count + 1, device=keys.device) * _GOLDEN
    return _shift(_mix(keys[..., None] + counter), 40).to(torch.float32) * 2.0**-24


def normal(keys: Tensor, count: int) -> Tensor:
    """`count` standard normal numbers for each key (Box-Muller): (…) int64 -> (…, count) float32."""
    pairs = uniform(keys, 2 * count)
    radius = torch.sqrt(-2 * torch.log(1 - pairs[..., :count]))  # 1 - u lies in (0, 1]
    return radius * torch.cos(2 * math.pi * pairs[..., count:])


def permutation(seed: int, epoch: int, count: int, purpose: int = ORDER) -> Tensor:
    """A random order of `count` images in an epoch: (count,) int64."""
    bits = _mix(key(seed, purpose, epoch) + torch.arange(1, count + 1) * _GOLDEN)
    return torch.argsort(bits, stable=True)
