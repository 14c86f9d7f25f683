"""Keyed random numbers against SplitMix64 in plain integers, its published vectors, and statistics."""

from __future__ import annotations

import math

import pytest
import torch

from vggrepro.nets import keyed

MASK = (1 << 64) - 1
GOLDEN_GAMMA = 0x9E3779B97F4A7C15
# The first outputs of Vigna's splitmix64.c from the state 1234567, as printed on rosettacode.org
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def plain_key(*parts: int) -> int:
    result = 0
    for part in parts:
        result = mix((result + part + GOLDEN_GAMMA) & MASK)
    return result


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def test_uniform_numbers_are_the_published_splitmix64() -> None:
    expected = [(value >> 40) / 2**24 for value in PUBLISHED]
    assert keyed.uniform(torch.tensor(1234567), 5).tolist() == expected


@pytest.mark.parametrize("parts", [(0,), (1, 2, 3), (7, keyed.CROP, 73, 1_281_166), (-1, 5), (2**62, 3)])
def test_keys_are_hashed_as_in_plain_integers(parts: tuple[int, ...]) -> None:
    assert keyed.key(*parts).item() == signed(plain_key(*parts))


def test_the_stream_never_changes() -> None:
    """A change here changes every training that anyone has run: never edit these numbers."""
    assert keyed.key(0, keyed.CROP, 1, 2).item() == -2843835289694849608
    assert keyed.permutation(0, 0, 10).tolist() == [7, 2, 3, 5, 1, 9, 0, 8, 4, 6]
    assert keyed.uniform(keyed.key(1, 2), 3).tolist() == [
        0.9006108641624451,
        0.28014254570007324,
        0.0075571537017822266,
    ]
    assert keyed.normal(keyed.key(1, 2), 3).tolist() == pytest.approx([1.094673, 0.7860976, -0.0397327], abs=1e-6)


def test_keys_broadcast_and_all_differ() -> None:
    keys = keyed.key(torch.arange(10)[:, None, None], keyed.DROPOUT, torch.arange(20)[:, None], torch.arange(500))
    assert keys.shape == (10, 20, 500)
    assert keys[3, 4, 5] == keyed.key(3, keyed.DROPOUT, 4, 5)
    assert len(keys.unique()) == keys.numel()
    assert keyed.key(1, 2) != keyed.key(2, 1)
    assert keyed.key(1) != keyed.key(1, 0)


def test_draws_do_not_hang_on_their_company() -> None:
    keys = keyed.key(0, torch.arange(50))
    order = torch.arange(49, -1, -1)
    for draw in (keyed.uniform, keyed.normal):
        whole = draw(keys, 6)
        assert torch.equal(torch.cat([draw(part, 6) for part in keys.split(7)]), whole)
        assert torch.equal(draw(keys[order], 6), whole[order])
    assert torch.equal(keyed.uniform(keys, 3), keyed.uniform(keys, 6)[:, :3])


def test_uniform_numbers_are_uniform() -> None:
    values = keyed.uniform(keyed.key(0, torch.arange(1000)), 200).double()
    assert values.min() >= 0
    assert values.max() < 1
    bins = 100
    counts = torch.histc(values.flatten(), bins, 0, 1)
    expected = values.numel() / bins
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi_square - (bins - 1)) < 4 * math.sqrt(2 * (bins - 1))
    # neighbours, along the stream of a key and between successive keys, do not follow each other
    centred = values - 0.5
    for a, b in ((centred[:, :-1], centred[:, 1:]), (centred[:-1], centred[1:])):
        assert abs(float((a * b).mean()) * 12) < 4 / math.sqrt(a.numel())


def test_normal_numbers_have_the_moments_of_the_normal_distribution() -> None:
    values = keyed.normal(keyed.key(1, torch.arange(2000)), 100).double()
    n = values.numel()
    assert torch.isfinite(values).all()
    assert abs(float(values.mean())) < 4 / math.sqrt(n)
    assert abs(float((values**2).mean()) - 1) < 4 * math.sqrt(2 / n)
    assert abs(float((values**3).mean())) < 4 * math.sqrt(15 / n)
    assert abs(float((values**4).mean()) - 3) < 4 * math.sqrt(96 / n)
    within = float((values.abs() < 1.96).double().mean())
    assert abs(within - 0.95) < 4 * math.sqrt(0.95 * 0.05 / n)


def test_an_epochs_order_is_a_permutation_of_its_own() -> None:
    orders = [keyed.permutation(seed, epoch, 1000) for seed in (0, 1) for epoch in (0, 1, 2)]
    for order in orders:
        assert order.sort().values.tolist() == list(range(1000))
    for a, b in ((a, b) for i, a in enumerate(orders) for b in orders[:i]):
        assert (a == b).sum() < 10  # two random orders agree in about one place
    assert keyed.permutation(0, 0, 1).tolist() == [0]
    ranks = torch.stack([keyed.permutation(0, epoch, 12).argsort() for epoch in range(2000)]).double()
    assert ((ranks.mean(0) - 5.5).abs() < 4 * math.sqrt((12**2 - 1) / 12 / 2000)).all()  # every place is as likely
