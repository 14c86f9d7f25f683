"""The loader: one stream of crops however the work is spread; small data on a device gives the same crops."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from operators import Operators
from torch import Tensor

from vggrepro import recipe
from vggrepro.data import rescaling
from vggrepro.data.dataset import Dataset, Split
from vggrepro.data.prepare import prepare
from vggrepro.data.rescaling import centre_window, cut
from vggrepro.data.sources import FolderSource
from vggrepro.errors import InputError
from vggrepro.nets import keyed, resampling
from vggrepro.nets.resampling import Resampler
from vggrepro.paper import Scale
from vggrepro.training.loader import Batch, Loader, check_stored
from vggrepro.training.resident import Resident

CPU = torch.device("cpu")
JITTER = Scale(256, 512)
RECIPE = recipe.load("demo", {"crop": 32, "batch": 8})


def loader(
    dataset: Dataset,
    workers: int = 0,
    share_of: Callable[[int], range] = range,
    recipe: recipe.Recipe = RECIPE,
    seed: int = 3,
) -> Loader:
    return Loader(dataset, recipe, JITTER, seed, CPU, workers, share_of)


def together(batches: list[Batch]) -> list[Tensor]:
    return [torch.cat([getattr(b, name) for b in batches]) for name in ("crops", "flip", "shift", "labels", "keys")]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(dataset: Dataset, workers: int) -> None:
    for epoch in (0, 1):
        expected = together(list(loader(dataset).batches(epoch)))
        assert equal(together(list(loader(dataset, workers).batches(epoch))), expected)
        assert len(expected[3]) == 24  # three batches of 8 out of 30 images


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_see_the_batches_of_one(dataset: Dataset, ranks: int) -> None:
    def share_of(rank: int) -> Callable[[int], range]:
        return lambda count: range(count * rank // ranks, count * (rank + 1) // ranks)

    parts = [list(loader(dataset, 1, share_of(rank)).batches(2)) for rank in range(ranks)]
    for step, batch in enumerate(loader(dataset).batches(2)):
        assert equal(together([part[step] for part in parts]), together([batch]))
    halves = [loader(dataset, 1, lambda _: range(0, 7)), loader(dataset, 0, lambda n: range(7, n))]
    seen = [pair for half in halves for pair in half.validation()]
    (crops, labels), = loader(dataset).validation()  # fmt: skip
    assert torch.equal(torch.cat([pair[0] for pair in seen]), crops)
    assert np.concatenate([pair[1] for pair in seen]).tolist() == labels.tolist()


def test_an_epoch_can_be_entered_at_any_step(dataset: Dataset) -> None:
    whole = list(loader(dataset, 2).batches(1))
    for start in range(4):
        rest = list(loader(dataset, 2).batches(1, start))
        assert len(rest) == 3 - start
        assert all(equal(together([a]), together([b])) for a, b in zip(rest, whole[start:], strict=True))


def test_each_epoch_draws_anew_and_shows_each_image_once(dataset: Dataset) -> None:
    first, second = (together(list(loader(dataset).batches(epoch))) for epoch in (0, 1))
    assert not torch.equal(first[0], second[0])
    labels = Split(dataset, "train").labels
    assert torch.bincount(first[3], minlength=6).le(torch.from_numpy(np.bincount(labels))).all()


def test_validation_crops_are_cut_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    own = loader(dataset)
    before = [crops for crops, _ in own.validation()]
    monkeypatch.setattr(rescaling, "centre_window", lambda *_: pytest.fail("cut again"))
    assert all(torch.equal(a, b) for a, (b, _) in zip(before, own.validation(), strict=True))


def test_held_out_images_judge_and_are_never_trained_on(dataset: Dataset) -> None:
    some = replace(RECIPE, held_out=0.2)
    first, other = loader(dataset, recipe=some), loader(dataset, recipe=some, seed=4)
    assert np.array_equal(
        first.validation_rows, other.validation_rows
    )  # whatever the seed: D starts from an A that never saw them
    assert len(first.validation_rows) == 6 and first.steps == 3  # 24 of 30 images in batches of 8
    assert sorted([*first.validation_rows.tolist(), *first.members.tolist()]) == list(range(30))
    crops, labels = next(iter(first.validation()))
    assert labels.tolist() == first.train.labels[first.validation_rows].tolist()
    window = centre_window(*first.train.image(int(first.validation_rows[0])).size, 55, 32)
    assert np.array_equal(crops[0], cut(first.train.image(int(first.validation_rows[0])), window, "bilinear"))
    shown: set[int] = set()
    for epoch in range(4):
        order = first.members[keyed.permutation(first.seed, epoch, len(first.members))]
        batches = together(list(first.batches(epoch)))
        assert np.array_equal(batches[3].numpy(), first.train.labels[order.numpy()])
        shown |= set(order.tolist())
    assert not shown & set(first.validation_rows.tolist())


def test_small_copies_are_not_enlarged(photos: Path, tmp_path: Path) -> None:
    """Photographs of shorter sides 50 to 80 kept at 73: enough for S = 256 at crop 64, not for 384."""
    made = prepare(FolderSource(photos), tmp_path / "data", "coarse", store_side=73, workers=0)
    check_stored(made, [Scale(256, 256)], 56)
    check_stored(replace(made, store_side=0), [JITTER], 56)
    with pytest.raises(InputError, match="of shorter side 73, scale 256:512 needs 146; prepare the data again"):
        Loader(made, recipe.load("coarse"), JITTER, 0, CPU, 0)


# Resident data


def test_resident_crops_are_those_of_the_host(dataset: Dataset) -> None:
    """Both filters, enlarged and shrunk, batches cut together or one at a time, an epoch entered in its middle."""
    for resample, crop in itertools.product(("bilinear", "bicubic"), (32, 56)):
        chosen = replace(RECIPE, resample=resample, crop=crop)
        own, plain = loader(dataset, recipe=chosen), loader(dataset, recipe=chosen)
        own.resident = Resident(own.train, CPU)
        for epoch in range(3):
            expected = together(list(plain.batches(epoch)))
            assert equal(together(list(own.batches(epoch))), expected)
        assert equal(together(list(own.batches(2, 1))), [part[8:] for part in expected])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu_are_those_of_the_host(dataset: Dataset) -> None:
    """Crops, and the random numbers of which dropout masks are made."""
    plain = loader(dataset)
    own = Loader(dataset, RECIPE, JITTER, 3, torch.device("cuda:0"), 0)
    assert own.resident
    found, expected = (together(list(each.batches(1))) for each in (own, plain))
    assert equal([part.cpu() for part in found], expected)
    assert torch.equal(keyed.uniform(found[4], 100).cpu(), keyed.uniform(expected[4], 100))


def test_few_crops_are_cut_at_once_where_memory_is_small(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one batch: a crop of a large photograph is made of a hundred times its own pixels."""
    own, plain = loader(dataset), loader(dataset)
    own.resident = Resident(own.train, CPU, workers=2)
    counts, shrinks, cut_many = [], set[float](), Resampler._cut

    def counted(self: Resampler, pixels: Tensor, starts: Tensor, places: Tensor) -> Tensor:
        counts.append(len(starts))
        shrinks.add(self.shrink)
        return cut_many(self, pixels, starts, places)

    monkeypatch.setattr(resampling, "WORK_BYTES", 1)
    monkeypatch.setattr(Resampler, "_cut", counted)
    assert equal(together(list(own.batches(1))), together(list(plain.batches(1))))
    assert counts == [1] * 24
    assert len(shrinks) == 3  # batches: a large image makes only its own one slower


def test_a_batch_of_resident_crops_costs_few_operators(dataset: Dataset) -> None:
    own = loader(dataset, recipe=replace(RECIPE, batch=1))
    own.resident = Resident(own.train, CPU)
    with Operators() as done:
        batches = sum(1 for _ in own.batches(0))
    assert batches == 30
    assert done.count < 20 * batches  # with all random draws of the epoch


def test_resident_batches_copy_nothing_from_the_host_after_the_first(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device, which like a GPU is none of the host's; there, reading a number would be an error."""
    monkeypatch.setattr(resampling, "WORK_BYTES", 1)
    own = loader(dataset)
    own.device = torch.device("meta")
    own.resident = Resident(own.train, own.device)
    batches = own.batches(0)
    next(batches)
    with Operators() as done:
        assert len(list(batches)) == 2
    assert done.devices == {"meta"}


def test_runs_of_a_process_share_the_training_images(dataset: Dataset) -> None:
    one, other = loader(dataset), loader(dataset, seed=4)
    assert one.train is other.train
    assert loader(replace(dataset, fingerprint="another")).train is not one.train
