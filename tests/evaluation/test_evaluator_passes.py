"""Forward passes of many images: their order, size and memory change nothing."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import (
    CPU,
    ROUNDING,
    images,
)
from PIL import Image

from vggrepro.errors import InputError
from vggrepro.evaluation import evaluator as net_at_work
from vggrepro.evaluation.evaluator import Batcher, Evaluator
from vggrepro.evaluation.features import FeatureNet
from vggrepro.evaluation.images import SHRINK
from vggrepro.nets.trained import Trained
from vggrepro.posteriors.protocol import Method
from vggrepro.runs.folder import RunFolder
from vggrepro.system.devices import Machine


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["dense", "multicrop", "googlenet"]), st.integers(1, 1 << 18))
def test_the_order_of_images_and_the_size_of_passes_change_nothing(
    shared_evaluator: Evaluator, random: Random, method: str, budget: int
) -> None:
    pictures, usual = images(7), shared_evaluator._budget
    expected = shared_evaluator.posteriors(pictures, Method(method, True, 3))
    order = random.sample(range(7), 7)
    shared_evaluator._budget = budget
    result = shared_evaluator.posteriors([pictures[place] for place in order], Method(method, True, 3))
    shared_evaluator._budget = usual
    np.testing.assert_allclose(result, expected[order], atol=ROUNDING)


def test_few_images_wait_for_others_of_their_size(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator, pictures = Evaluator(Trained.load(run), CPU), images(9)
    expected = evaluator.posteriors(pictures, Method("dense"))
    passes: list[int] = []
    real = Evaluator.forward

    def noted(self: Evaluator, batch: torch.Tensor, *rest: Any) -> torch.Tensor:
        passes.append(len(batch))
        return real(self, batch, *rest)

    monkeypatch.setattr(Evaluator, "forward", noted)
    evaluator.posteriors(pictures, Method("dense"))
    assert sorted(passes) == [3, 6]
    evaluator.waiting_bytes = 3 * 64 * 91 * 4  # four images
    passes.clear()
    np.testing.assert_allclose(evaluator.posteriors(pictures, Method("dense")), expected, atol=1e-6)
    assert (sum(passes), max(passes)) == (9, 3)


@pytest.mark.parametrize("method", ["dense", "multicrop"])
def test_images_do_not_hang_on_their_batch(run: RunFolder, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = Evaluator(Trained.load(run), CPU)
    whole = evaluator.posteriors(images(7), Method(method))
    alone = np.concatenate([evaluator.posteriors([image], Method(method)) for image in images(7)])
    np.testing.assert_allclose(whole, alone, atol=ROUNDING)
    monkeypatch.setitem(net_at_work.FORWARD_PIXELS, "cpu", 1)  # one image a forward pass
    np.testing.assert_allclose(
        Evaluator(Trained.load(run), CPU).posteriors(images(7), Method(method)), whole, atol=ROUNDING
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["gpu", "cpu"],
)
def test_a_pass_that_does_not_fit_the_memory_is_split(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: RuntimeError
) -> None:
    evaluator, pictures = Evaluator(Trained.load(run), CPU), [image[:64, :80] for image in images(11)[1::3]]
    expected = evaluator.posteriors(pictures, Method("dense"))
    real, sizes = Evaluator.forward, []

    def small(self: Evaluator, batch: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > limit:
            raise error
        return real(self, batch, *rest)

    monkeypatch.setattr(Evaluator, "forward", small)
    limit = 1
    np.testing.assert_allclose(evaluator.posteriors(pictures, Method("dense")), expected, atol=1e-6)
    assert sizes == [4, 2, 1, 1, 1, 1]
    assert "4 images of 64x64 do not fit the memory; going on with 2" in capfd.readouterr().err
    limit = 0
    with pytest.raises(InputError, match="an image of 64x64 pixels does not fit the memory of cpu; use a smaller Q"):
        evaluator.posteriors(pictures, Method("dense"))


def test_answers_that_overflow_fp16_are_refused(run: RunFolder) -> None:
    trained = Trained.load(run)
    large = replace(trained, tensors=trained.tensors | {"conv1_1.weight": 1e5 * trained.tensors["conv1_1.weight"]})
    with pytest.raises(InputError, match="not finite at --precision fp16; use --precision fp32"):
        Evaluator(large, replace(CPU, precision="fp16")).posteriors(images(), Method("center"))


# As on a GPU: images of several sizes in a pass


@pytest.fixture
def padded(run: RunFolder) -> Evaluator:
    """An evaluator that pads dense passes to multiples of 32, as on a GPU."""
    evaluator = Evaluator(Trained.load(run), CPU)
    evaluator.padded_to = 32
    return evaluator


def at_256(evaluator: Evaluator, method: str) -> Batcher:
    """Seven images at Q = 256, as evaluation gives them to the net."""
    batcher = Batcher(evaluator, Method(method))
    for image in images(7):
        batcher.add(evaluator.rescaler.at_each(Image.fromarray(image), [256])[256])
    return batcher


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["dense", "multicrop"])
def test_posteriors_of_a_gpu_are_those_of_a_cpu(run: RunFolder, method: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    machines = (Machine(torch.device("cuda:0"), "fp32", workers=0), CPU)
    found, expected = (at_256(Evaluator(Trained.load(run), machine), method).finish() for machine in machines)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("method", [Method("dense"), Method("dense", ceil_pool=True), Method("dense", False)])
def test_padded_passes_change_nothing(run: RunFolder, padded: Evaluator, method: Method) -> None:
    rng = np.random.default_rng(0)
    sizes = [(64, 91), (64, 96), (70, 64), (91, 64), (64, 64), (96, 96)]
    pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    expected = Evaluator(Trained.load(run), CPU).posteriors(pictures, method)
    np.testing.assert_allclose(padded.posteriors(pictures, method), expected, atol=ROUNDING)


def test_a_feature_net_pads_too(run: RunFolder) -> None:
    pictures, nets = images(5), [FeatureNet(Trained.load(run), CPU) for _ in range(2)]
    nets[1].padded_to = 32
    plain, padded = (net.posteriors(pictures, Method("dense")) for net in nets)
    np.testing.assert_allclose(padded, plain, rtol=1e-4, atol=1e-5)


def test_few_shapes_of_padded_passes_come_again(padded: Evaluator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full passes of 4 images and, at the end, powers of two; 13 sizes have one shape."""
    shapes: list[tuple[int, ...]] = []
    real = Evaluator.forward

    def noted(self: Evaluator, batch: torch.Tensor, *rest: Any) -> torch.Tensor:
        shapes.append(tuple(batch.shape[:3]))
        return real(self, batch, *rest)

    monkeypatch.setattr(Evaluator, "forward", noted)
    padded._budget = 4 * 64 * 96 * 2
    padded.posteriors([np.zeros((64, width, 3), np.uint8) for width in range(80, 91)], Method("dense"))
    assert shapes == [(4, 64, 96), (4, 64, 96), (2, 64, 96), (1, 64, 96)]


@pytest.mark.parametrize("method", ["dense", "multicrop"])
def test_the_host_never_waits_for_a_pass(run: RunFolder, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """With a GPU it then decodes meanwhile. On the meta device, reading a number would be an error."""
    meta = torch.device("meta")
    monkeypatch.setitem(SHRINK, "meta", 2.0)
    evaluator = Evaluator(Trained.load(run), Machine(meta, "fp32", workers=0))
    evaluator.padded_to = 32
    evaluator.model.take_channels_last()
    batcher = at_256(evaluator, method)
    batcher._compute_all()
    assert sum(len(found) for found in batcher._found) == 7
    assert all(found.is_meta for found in batcher._found)


def test_crops_are_cut_from_images_as_they_are(run: RunFolder, padded: Evaluator) -> None:
    plain = Evaluator(Trained.load(run), CPU)
    for method in (Method("multicrop"), Method("center")):
        np.testing.assert_array_equal(padded.posteriors(images(), method), plain.posteriors(images(), method))
