"""Posteriors of images, each against a plain loop over single crops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import (
    CPU,
    CROP,
    ROUNDING,
    by_hand,
    images,
    net_input,
    plain_model,
    plain_scores,
    softmax,
)

from vggrepro import paper
from vggrepro.evaluation import views
from vggrepro.evaluation.evaluator import Evaluator, crop_posteriors, dense_posteriors
from vggrepro.nets.trained import Trained
from vggrepro.posteriors.protocol import Method, Protocol
from vggrepro.runs.folder import RunFolder


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(("method", "grid"), [("dense", 5), ("multicrop", 5), ("multicrop", 3)])
def test_posteriors_equal_a_loop_over_single_crops(run: RunFolder, method: str, flip: bool, grid: int) -> None:
    model, evaluator = plain_model(run), Evaluator(Trained.load(run), CPU)
    result = evaluator.posteriors(images(), Method(method, flip, grid))
    expected = [by_hand(model, image, method, flip, grid) for image in images()]
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_allclose(result.sum(1), 1, atol=1e-6)
    assert np.ptp(result, axis=0).max() > 0.1  # the images do differ


def test_the_mean_over_flips_is_taken_after_the_softmax(run: RunFolder) -> None:
    model = plain_model(run)
    x = torch.cat([net_input(image[:64, :64]) for image in images()])
    with torch.inference_mode():
        for scores, result in ((model, crop_posteriors(model, x)), (model.dense_scores, dense_posteriors(model, x))):
            a, b = scores(x).softmax(1), scores(x.flip(3)).softmax(1)
            torch.testing.assert_close(result, (a + b) / 2)
            assert not torch.allclose(a, b, atol=1e-3)
        torch.testing.assert_close(dense_posteriors(model, x, flip=False), model(x).softmax(1))


@pytest.mark.parametrize("method", ["dense", "multicrop"])
def test_mirrored_images_have_the_same_posteriors(run: RunFolder, method: str) -> None:
    evaluator = Evaluator(Trained.load(run), CPU)
    # 64 + 4 * n columns: the grid of the mirrored image is the mirrored grid
    pictures = [image[:, :88] if image.shape[1] > 88 else image for image in images()]
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in pictures]
    result = evaluator.posteriors(pictures, Method(method))
    np.testing.assert_allclose(evaluator.posteriors(mirrored, Method(method)), result, atol=1e-6)
    assert np.abs(evaluator.posteriors(mirrored, Method(method, False, 5)) - result).max() > 1e-4


sides = st.tuples(st.integers(CROP, 160), st.integers(CROP, 8 * CROP)).flatmap(lambda pair: st.permutations(pair))


@settings(max_examples=40, deadline=None)
@given(sides, st.integers(0, 2**31), st.sampled_from(["dense", "multicrop", "center", "tencrop", "googlenet"]))
def test_any_size_gives_a_distribution(shared_evaluator: Evaluator, size: list[int], seed: int, method: str) -> None:
    """Odd sizes, aspect ratios up to 1:8, windows of a single position: posteriors, alone as in company."""
    picture = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    other = np.random.default_rng(seed + 1).integers(0, 256, (*size, 3), dtype=np.uint8)
    alone = shared_evaluator.posteriors([picture], Method(method))
    assert alone.shape == (1, 6)
    assert (alone >= 0).all()
    np.testing.assert_allclose(alone.sum(), 1, atol=1e-5)
    company = shared_evaluator.posteriors([other, images()[0], picture], Method(method))
    np.testing.assert_allclose(company[2], alone[0], atol=ROUNDING)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 8), st.integers(0, 24), st.integers(0, 2**31), st.sampled_from(["multicrop", "tencrop"]))
def test_crops_of_a_mirrored_image(
    shared_evaluator: Evaluator, rows: int, columns: int, seed: int, method: str
) -> None:
    """Where the grid is on whole pixels: (side - crop) divides by 4. Else a crop may be cut a pixel aside."""
    picture = np.random.default_rng(seed).integers(0, 256, (CROP + 4 * rows, CROP + 4 * columns, 3), dtype=np.uint8)
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    result, other = (shared_evaluator.posteriors([p], Method(method)) for p in (picture, mirrored))
    np.testing.assert_allclose(other, result, atol=ROUNDING)


@pytest.mark.parametrize("size", [(64, 64), (64, 95), (95, 64), (64, 96), (96, 64), (64, 512), (512, 64), (65, 519)])
def test_score_maps_of_one_row_or_column(shared_evaluator: Evaluator, size: tuple[int, int]) -> None:
    """Q = 224, where fc6 sees the whole of the shorter side; up to 1:8."""
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = shared_evaluator.posteriors([picture], Method("dense"))
    np.testing.assert_allclose(result[0], by_hand(shared_evaluator.model, picture, "dense"), atol=1e-5)


def test_a_square_image_is_timms_vgg(run: RunFolder) -> None:
    """Whose head averages fc7 over the positions of a larger image before the classifier."""
    from timm.models import vgg

    tensors = plain_model(run).state_dict()
    plan: list[Any] = []
    for block in paper.blocks("A"):
        plan += [*(tensors[f"{layer.name}.weight"].shape[0] for layer in block if isinstance(layer, paper.Conv)), "M"]
    fc = len(tensors["fc6.bias"])
    public = vgg.VGG(plan, num_classes=6)
    public.pre_logits, public.head.fc = vgg.ConvMlp(plan[-2], fc, 2), torch.nn.Linear(fc, 6)
    shapes = public.state_dict()
    public.load_state_dict(
        {name: tensor.view(shapes[name].shape) for name, tensor in zip(shapes, tensors.values(), strict=True)}
    )
    picture = images()[0].repeat(3, 0)[:160, :].repeat(2, 1)[:, :160]
    with torch.inference_mode():
        expected = public.eval()(net_input(picture)).softmax(1)
    result = Evaluator(Trained.load(run), CPU).posteriors([picture], Method("dense", False, 5))
    np.testing.assert_allclose(result, expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(sides, st.integers(0, 2**31), st.booleans())
def test_dense_posteriors_of_a_mirrored_image(
    shared_evaluator: Evaluator, size: list[int], seed: int, ceil_pool: bool
) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    result, mirrored = (
        shared_evaluator.posteriors([p], Method("dense", ceil_pool=ceil_pool))
        for p in (picture, np.ascontiguousarray(picture[:, ::-1]))
    )
    np.testing.assert_allclose(mirrored, result, atol=ROUNDING)


def test_pooling_that_rounds_up_sees_the_last_rows_and_columns(run: RunFolder) -> None:
    """Against torch's max_pool2d with ceil_mode, layer by layer, and FC layers as convolutions."""
    model, image = plain_model(run), images()[0]  # 64 x 91: maps of 2 x 2 rounding down, 2 x 3 rounding up
    x = net_input(image)
    with torch.inference_mode():
        maps = x
        for block in model.blocks:
            for layer in block:
                maps = model.get_submodule(layer.name)(maps).relu()
            maps = torch.nn.functional.max_pool2d(maps, 2, ceil_mode=True)
        assert maps.shape[2:] == (2, 3)
        kernel = model.fc6.weight.view(-1, maps.shape[1], 2, 2)
        hidden = torch.nn.functional.conv2d(maps, kernel, model.fc6.bias).relu()
        hidden = torch.nn.functional.conv2d(hidden, model.fc7.weight[..., None, None], model.fc7.bias).relu()
        scores = torch.nn.functional.conv2d(hidden, model.fc8.weight[..., None, None], model.fc8.bias).mean((2, 3))
    ceil, floor = (
        Evaluator(Trained.load(run), CPU).posteriors([image], Method("dense", flip=False, ceil_pool=ceil_pool))
        for ceil_pool in (True, False)
    )
    np.testing.assert_allclose(ceil[0], scores.softmax(1)[0], atol=1e-5)
    assert np.abs(ceil - floor).max() > 1e-3
    assert Protocol(ceil_pool=True).path(run.path, "dense", 256).name == "val-dense-ceil-q256.parquet"
    assert Protocol(ceil_pool=True).path(run.path, "multicrop", 256).name == "val-multicrop-q256.parquet"


def test_other_papers_crops_equal_a_loop_over_single_crops(run: RunFolder) -> None:
    model, evaluator = plain_model(run), Evaluator(Trained.load(run), CPU)
    for method, count in (("center", 1), ("tencrop", 10), ("googlenet", 36)):
        flip = Method(method).flip
        result = evaluator.posteriors(images(), Method(method))
        for image, posterior in zip(images(), result, strict=True):
            cut = views.crops(torch.from_numpy(image.copy())[None], CROP, Method(method)).numpy()
            both = [*cut, *(cut[:, :, ::-1] if flip else [])]
            assert len(both) == count
            with torch.inference_mode():
                each = [softmax(plain_scores(model, net_input(crop))) for crop in both]
            np.testing.assert_allclose(posterior, np.mean(each, axis=0), atol=1e-5)


def test_dense_and_multicrop_agree_on_a_crop_sized_image(run: RunFolder) -> None:
    evaluator = Evaluator(Trained.load(run), CPU)
    crops = [image[:64, :64] for image in images()]
    dense, multicrop = (evaluator.posteriors(crops, Method(method)) for method in ("dense", "multicrop"))
    np.testing.assert_allclose(dense, multicrop, atol=1e-6)
