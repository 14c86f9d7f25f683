"""Posteriors against plain loops over single crops, and the files that `evaluate` writes, resumes and refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import write_photos
from hypothesis import given, settings
from hypothesis import strategies as st

from vggrepro import evaluate as stage
from vggrepro import evaluator as net_at_work
from vggrepro import paper, posteriors, views, weights
from vggrepro.dataset import Dataset, Split
from vggrepro.errors import InputError
from vggrepro.evaluate import evaluate
from vggrepro.evaluator import Batcher, Evaluator, crop_posteriors, dense_posteriors
from vggrepro.files import lock, sha256, write_json
from vggrepro.net import VGG, initialise
from vggrepro.prepare import prepare
from vggrepro.protocol import Method, Protocol, parse_qs
from vggrepro.runs import RunFolder
from vggrepro.sources import FolderSource
from vggrepro.train import Machine

MACHINE = Machine(torch.device("cpu"), "fp32", workers=0)
CROP, SCALE = 64, 0.0172
MEAN = [110.0, 120.0, 90.0]
# What the order of sums may change here. The test net's scores are stretched until images differ, and rounding with
# them; posteriors of the demo's trained nets differ by 5e-7 at most.
ROUNDING = 3e-6


def make_run(folder: Path, seed: int = 0, **changes: Any) -> RunFolder:
    """A finished run of net A with random weights: the least that `evaluate` needs."""
    config: dict[str, Any] = {"net": "A", "scale": "256", "crop": CROP, "width": 1 / 32, "classes": 6}
    config |= {"mean_rgb": MEAN, "input_scale": SCALE, **changes}
    model = VGG(config["net"], config["classes"], CROP, config["width"])
    initialise(model, "he", seed)
    with torch.inference_mode():  # scores of mean 0 and deviation 2 over images: posteriors neither uniform nor 0 or 1
        scores = model(torch.cat([net_input(image[:CROP, :CROP]) for image in images(30)]))
        model.fc8.weight.data *= 2 / scores.std(0)[:, None]
        model.fc8.bias.data -= (scores * 2 / scores.std(0)).mean(0)
    run = RunFolder(folder)
    write_json(run.config_path, config)
    weights.save(run.weights_path, dict(model.named_parameters()), {})
    return run


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "runs" / "A-256")


def plain_model(run: RunFolder) -> VGG:
    model = VGG("A", 6, CROP, 1 / 32)
    model.load_state_dict(weights.load(run.weights_path)[0])
    return model.eval()


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def net_input(pixels: np.ndarray) -> torch.Tensor:
    """(RGB - mean) * scale, (1, 3, H, W)."""
    x = (pixels.astype(np.float32) - np.array(MEAN, np.float32)) * np.float32(SCALE)
    return torch.from_numpy(x.transpose(2, 0, 1)[None].copy())


def plain_scores(model: VGG, x: torch.Tensor) -> np.ndarray:
    """Sect. 3.2 to the letter, for one image: FC layers as 2x2 and 1x1 convolutions, the mean of the score map.

    Nothing of the model but its weights is used. An image of the crop's size has one position: it is a crop.
    """
    tensors = dict(model.named_parameters())
    names = sorted(name.removesuffix(".weight") for name in tensors if name.startswith("conv") and "weight" in name)
    for name, following in zip(names, [*names[1:], "end"], strict=True):
        x = torch.relu(torch.nn.functional.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=1))
        if following[:5] != name[:5]:  # the last layer of its block
            x = torch.nn.functional.max_pool2d(x, 2)
    for name, side in (("fc6", 2), ("fc7", 1), ("fc8", 1)):
        kernel = tensors[f"{name}.weight"].unflatten(1, (-1, side, side))
        x = torch.nn.functional.conv2d(x, kernel, tensors[f"{name}.bias"])
        x = torch.relu(x) if name != "fc8" else x
    return x.mean((2, 3))[0].double().numpy()


def by_hand(model: VGG, image: np.ndarray, method: str, flip: bool = True, grid: int = 5) -> np.ndarray:
    """One forward pass a crop and flip, posteriors summed in a loop."""
    flips = [image, image[:, ::-1]] if flip else [image]
    found = []
    with torch.inference_mode():
        for pixels in flips:
            if method == "dense":
                found.append(softmax(plain_scores(model, net_input(pixels))))
                continue
            for row in range(grid):
                for column in range(grid):
                    top = int(row * (image.shape[0] - CROP) / (grid - 1) + 0.5)
                    left = int(column * (image.shape[1] - CROP) / (grid - 1) + 0.5)
                    if pixels is not image:  # a grid is cut from the image, then flipped
                        left = image.shape[1] - CROP - left
                    crop = pixels[top : top + CROP, left : left + CROP]
                    found.append(softmax(plain_scores(model, net_input(crop))))
    assert len(found) == len(flips) * (1 if method == "dense" else grid**2)
    return np.mean(found, axis=0)


def images(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(64, 91), (80, 64), (64, 91)]
    blocks = [rng.integers(0, 256, (sizes[n % 3][0] // 8 + 1, sizes[n % 3][1] // 8 + 1, 3)) for n in range(count)]
    large = [b.repeat(8, 0).repeat(8, 1)[: sizes[n % 3][0], : sizes[n % 3][1]] for n, b in enumerate(blocks)]
    return [image.astype(np.uint8) for image in large]


# Posteriors


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(("method", "grid"), [("dense", 5), ("multicrop", 5), ("multicrop", 3)])
def test_posteriors_equal_a_loop_over_single_crops(run: RunFolder, method: str, flip: bool, grid: int) -> None:
    model, evaluator = plain_model(run), Evaluator(run, MACHINE)
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
    evaluator = Evaluator(run, MACHINE)
    # 64 + 4 * n columns: the grid of the mirrored image is the mirrored grid
    pictures = [image[:, :88] if image.shape[1] > 88 else image for image in images()]
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in pictures]
    result = evaluator.posteriors(pictures, Method(method))
    np.testing.assert_allclose(evaluator.posteriors(mirrored, Method(method)), result, atol=1e-6)
    assert np.abs(evaluator.posteriors(mirrored, Method(method, False, 5)) - result).max() > 1e-4


@pytest.fixture(scope="module")
def shared_evaluator(tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    return Evaluator(make_run(tmp_path_factory.mktemp("runs") / "A-256"), MACHINE)


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
    result = Evaluator(run, MACHINE).posteriors([picture], Method("dense", False, 5))
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_few_images_wait_for_others_of_their_size(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator, pictures = Evaluator(run, MACHINE), images(9)
    expected = evaluator.posteriors(pictures, Method("dense"))
    passes: list[int] = []
    real = Evaluator.forward

    def noted(self: Evaluator, batch: torch.Tensor, *rest: Any) -> torch.Tensor:
        passes.append(len(batch))
        return real(self, batch, *rest)

    monkeypatch.setattr(Evaluator, "forward", noted)
    evaluator.posteriors(pictures, Method("dense"))
    assert sorted(passes) == [3, 6]
    monkeypatch.setattr(net_at_work, "WAITING_BYTES", 3 * 64 * 91 * 4)  # four images
    passes.clear()
    np.testing.assert_allclose(evaluator.posteriors(pictures, Method("dense")), expected, atol=1e-6)
    assert (sum(passes), max(passes)) == (9, 3)


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


@pytest.mark.parametrize("method", ["dense", "multicrop"])
def test_images_do_not_hang_on_their_batch(run: RunFolder, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = Evaluator(run, MACHINE)
    whole = evaluator.posteriors(images(7), Method(method))
    alone = np.concatenate([evaluator.posteriors([image], Method(method)) for image in images(7)])
    np.testing.assert_allclose(whole, alone, atol=ROUNDING)
    monkeypatch.setattr(net_at_work, "FORWARD_PIXELS", {"cpu": 1})  # one image a forward pass
    np.testing.assert_allclose(Evaluator(run, MACHINE).posteriors(images(7), Method(method)), whole, atol=ROUNDING)


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
        Evaluator(run, MACHINE).posteriors([image], Method("dense", flip=False, ceil_pool=ceil_pool))
        for ceil_pool in (True, False)
    )
    np.testing.assert_allclose(ceil[0], scores.softmax(1)[0], atol=1e-5)
    assert np.abs(ceil - floor).max() > 1e-3
    assert Protocol(ceil_pool=True).path(run.path, "dense", 256).name == "val-dense-ceil-q256.parquet"
    assert Protocol(ceil_pool=True).path(run.path, "multicrop", 256).name == "val-multicrop-q256.parquet"


def test_other_papers_crops_equal_a_loop_over_single_crops(run: RunFolder) -> None:
    model, evaluator = plain_model(run), Evaluator(run, MACHINE)
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
    evaluator, pictures = Evaluator(run, MACHINE), [image[:64, :80] for image in images(11)[1::3]]
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


def test_dense_and_multicrop_agree_on_a_crop_sized_image(run: RunFolder) -> None:
    evaluator = Evaluator(run, MACHINE)
    crops = [image[:64, :64] for image in images()]
    dense, multicrop = (evaluator.posteriors(crops, Method(method)) for method in ("dense", "multicrop"))
    np.testing.assert_allclose(dense, multicrop, atol=1e-6)


# Options


def test_test_scales_on_the_command_line() -> None:
    assert parse_qs("256") == (256,)
    assert parse_qs("512, 256,384") == (512, 256, 384)
    assert parse_qs("224:288:32") == (224, 256, 288)
    assert parse_qs("256,256,288") == (256, 288)
    for text in ("", "x", "256,", "224:512", "224:512:0", "512:224:32", "2.5", "1:2:3:4"):
        with pytest.raises(InputError, match="give test scales such as 256,384,512 or FIRST:LAST:STEP"):
            parse_qs(text)


def test_protocols_that_leave_no_map_or_no_crop_are_refused() -> None:
    with pytest.raises(InputError, match="--q 223: a shorter side below 224 leaves no map for the FC layers"):
        Protocol(qs=(256, 223))
    with pytest.raises(InputError, match="--grid 0: give 1 or more crops a side"):
        Protocol(grid=0)


# Files


BOTH = Protocol(methods=("dense", "multicrop"), qs=(224, 256), grid=2)


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Records the method and the number of images of each part that is computed."""
    calls: list[tuple[str, int]] = []
    real = Batcher.finish

    def counted(self: Batcher) -> np.ndarray:
        result = real(self)
        calls.append((self._method.name, len(result)))
        return result

    monkeypatch.setattr(Batcher, "finish", counted)
    return calls


def test_files_hold_what_the_contract_says(run: RunFolder, dataset: Dataset) -> None:
    frame = evaluate(run, dataset, BOTH, MACHINE)
    split = Split(dataset, "val")
    model = plain_model(run)
    for method in BOTH.methods:
        for q, pixels in ((224, 64), (256, 73)):  # 256 * 64 / 224 = 73.14
            variant = "-grid2" if method == "multicrop" else ""  # not the paper's 5x5: a file of its own
            file = run.path / "posteriors" / f"val-{method}{variant}-q{q}.parquet"
            table = pq.read_table(file)
            assert table.schema.names == ["key", "label", "posterior"]
            assert table.schema.types[:2] == [pa.string(), pa.int32()]
            kind = table.schema.types[2]
            assert pa.types.is_fixed_size_list(kind)
            assert (kind.list_size, kind.value_type) == (6, pa.float32())
            assert table["key"].to_pylist() == split.keys(0, 18)
            assert table["label"].to_pylist() == split.labels.tolist()
            about = json.loads(table.schema.metadata[b"vggrepro"])
            expected = {"run": "A-256", "weights": sha256(run.weights_path), "fingerprint": dataset.fingerprint}
            expected |= {"preset": "demo", "split": "val", "method": method, "q": q, "q_pixels": pixels, "flip": True}
            expected |= {"grid": 2 if method == "multicrop" else 0, "resample": "bilinear", "precision": "fp32"}
            assert expected.items() <= about.items()
            assert {"commit", "version", "dataset"} <= about.keys()
            values = np.array(table["posterior"].to_pylist())
            for row in (0, 7, 17):
                image = views.rescale(split.image(row), pixels)
                np.testing.assert_allclose(values[row], by_hand(model, image, method, grid=2), atol=1e-5)
            line = frame.set_index(["method", "Q"]).loc[method, str(q)]
            best = values.argmax(1)
            assert line.top1_error == pytest.approx(100 * np.mean(best != split.labels))
            assert line.images == 18
    assert frame.Q.tolist() == ["224", "256", "224,256"] * 2
    assert sorted(p.name for p in run.path.iterdir()) == ["config.json", "lock", "posteriors", "weights.safetensors"]
    assert len(list((run.path / "posteriors").iterdir())) == 4  # no part is left


def test_without_qs_the_papers_are_taken(run: RunFolder, dataset: Dataset, tmp_path: Path) -> None:
    names = [f"val-dense-q{q}.parquet" for q in (224, 256, 288)]
    evaluate(run, dataset, Protocol(), MACHINE)
    assert sorted(p.name for p in (run.path / "posteriors").iterdir()) == names
    jittered = make_run(tmp_path / "runs" / "A-256-512", scale="256:512")
    evaluate(jittered, dataset, Protocol(), MACHINE)
    found = sorted(p.name for p in (jittered.path / "posteriors").iterdir())
    assert found == [f"val-dense-q{q}.parquet" for q in (256, 384, 512)]


def test_other_papers_protocols_have_their_own_files(run: RunFolder, dataset: Dataset) -> None:
    frame = evaluate(run, dataset, Protocol(("center", "tencrop", "googlenet"), flip=True), MACHINE)
    names = sorted(p.name for p in (run.path / "posteriors").iterdir())
    google = [f"val-googlenet-q{q}.parquet" for q in (256, 288, 320, 352)]
    assert names == ["val-center-q256.parquet", *google, "val-tencrop-q256.parquet"]
    origin = posteriors.read_origin(run.path / "posteriors" / "val-center-q256.parquet")
    assert (origin.flip, origin.grid, origin.method) == (False, 1, "center")
    assert frame.Q.tolist() == ["256", "256", "256", "288", "320", "352", "256,288,320,352"]
    evaluate(run, dataset, Protocol(("center",), flip=False), MACHINE)
    assert sorted(p.name for p in (run.path / "posteriors").iterdir()) == names  # a centre crop is never mirrored


def test_what_is_up_to_date_is_not_computed_again(
    run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first = evaluate(run, dataset, BOTH, MACHINE)
    calls = count_calls(monkeypatch)
    second = evaluate(run, dataset, BOTH, MACHINE)
    assert not calls
    assert first.equals(second)
    evaluate(run, dataset, Protocol(("dense",), qs=(224, 288)), MACHINE)
    assert calls == [("dense", 18)]  # Q = 288 alone
    captured = capfd.readouterr()
    assert captured.out == ""


def test_a_killed_evaluation_goes_on_with_the_missing_parts(
    run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "PART_IMAGES", {"cpu": (5, 5)})  # 18 images: 5 5 5 3
    evaluate(run, dataset, BOTH, MACHINE)
    files = {path.name: path for path in (run.path / "posteriors").iterdir()}
    expected = {name: pq.read_table(path) for name, path in files.items()}
    for path in files.values():
        path.unlink()

    class KilledError(BaseException):
        pass

    calls = count_calls(monkeypatch)
    counted = Batcher.finish

    def kill(self: Batcher) -> np.ndarray:
        if len(calls) == 6:
            raise KilledError
        return counted(self)

    monkeypatch.setattr(Batcher, "finish", kill)
    with pytest.raises(KilledError):
        evaluate(run, dataset, BOTH, MACHINE)
    assert not list((run.path / "posteriors").glob("*.parquet"))  # parts only
    parts = list((run.path / "posteriors").rglob("*.parquet"))
    assert len(parts) == 6
    parts[0].write_bytes(b"damaged")
    monkeypatch.setattr(Batcher, "finish", counted)
    calls.clear()
    evaluate(run, dataset, BOTH, MACHINE)
    assert sum(count for _, count in calls) == 4 * 18 - 5 * 5  # five whole parts were kept
    for name, table in expected.items():
        assert pq.read_table(files[name]).equals(table)
    assert not (run.path / "posteriors" / "parts").exists()


def test_posteriors_of_other_weights_are_computed_again_and_said(
    run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    protocol = Protocol(qs=(224,))
    evaluate(run, dataset, protocol, MACHINE)
    path = run.path / "posteriors" / "val-dense-q224.parquet"
    before = pq.read_table(path)
    make_run(run.path, seed=1)
    capfd.readouterr()
    evaluate(run, dataset, protocol, MACHINE)
    assert "val-dense-q224.parquet is stale (other weights) and is computed again" in capfd.readouterr().err
    after = pq.read_table(path)
    assert posteriors.read_origin(path).weights == run.weights_hash()
    assert np.abs(np.array(before["posterior"].to_pylist()) - after["posterior"].to_pylist()).max() > 0.01
    kept = path.read_bytes()
    evaluate(run, dataset, Protocol(("multicrop", "dense"), (224,), flip=False, grid=2), MACHINE)
    assert "stale" not in capfd.readouterr().err  # a variant has a file of its own
    assert path.read_bytes() == kept
    names = {p.name for p in path.parent.iterdir()}
    assert names == {path.name, "val-dense-noflip-q224.parquet", "val-multicrop-grid2-noflip-q224.parquet"}


def test_parts_of_other_weights_are_not_mixed_in(
    run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "PART_IMAGES", {"cpu": (6, 6)})
    protocol = Protocol(qs=(224,))
    monkeypatch.setattr(stage, "_remove_parts", lambda paths: None)  # as if killed before the parts were removed
    evaluate(run, dataset, protocol, MACHINE)
    path = run.path / "posteriors" / "val-dense-q224.parquet"
    path.unlink()
    monkeypatch.undo()
    monkeypatch.setattr(stage, "PART_IMAGES", {"cpu": (6, 6)})
    make_run(run.path, seed=1)
    calls = count_calls(monkeypatch)
    evaluate(run, dataset, protocol, MACHINE)
    assert calls == [("dense", 6)] * 3
    fresh = make_run(run.path.parent / "fresh", seed=1)
    evaluate(fresh, dataset, protocol, MACHINE)
    values = pq.read_table(fresh.path / "posteriors" / path.name)["posterior"]
    assert pq.read_table(path)["posterior"].combine_chunks().equals(values.combine_chunks())


def test_parts_of_another_size_are_not_taken_for_other_images(
    run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed on a machine with parts of 3, continued on one with parts of 15: its second part has 3 images, too."""
    monkeypatch.setattr(stage, "PART_IMAGES", {"cpu": (3, 3)})
    protocol = Protocol(qs=(224,))
    evaluate(run, dataset, protocol, MACHINE)
    path = run.path / "posteriors" / "val-dense-q224.parquet"
    expected = pq.read_table(path)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "_remove_parts", lambda paths: None)
        path.unlink()
        evaluate(run, dataset, protocol, MACHINE)
    path.unlink()
    monkeypatch.setattr(stage, "PART_IMAGES", {"cpu": (15, 15)})
    calls = count_calls(monkeypatch)
    evaluate(run, dataset, protocol, MACHINE)
    assert calls == [("dense", 15)]  # the last three are what the part from image 15 holds
    after = pq.read_table(path)
    assert after["key"].equals(expected["key"])
    np.testing.assert_allclose(
        np.array(after["posterior"].to_pylist()), expected["posterior"].to_pylist(), rtol=0, atol=1e-6
    )


def test_what_a_kill_after_merging_leaves_is_removed(
    run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_remove_parts", lambda paths: None)
    evaluate(run, dataset, Protocol(qs=(224, 256)), MACHINE)
    parts = run.path / "posteriors" / "parts"
    assert {path.name for path in parts.iterdir()} == {"val-dense-q224", "val-dense-q256"}
    monkeypatch.undo()
    calls = count_calls(monkeypatch)
    evaluate(run, dataset, Protocol(qs=(224,)), MACHINE)
    assert [path.name for path in parts.iterdir()] == ["val-dense-q256"]  # of a protocol that was not asked for
    evaluate(run, dataset, Protocol(qs=(256,)), MACHINE)
    assert not parts.exists()
    assert not calls


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mean_rgb": [110.0, 120.0, 91.0]}, "another net input"),
        ({"input_scale": 0.0171}, "another net input"),
        ({"crop": 70}, "another crop size"),
        ({"recipe": {"resample": "bicubic"}}, "another resampling"),
    ],
)
def test_an_edited_config_makes_posteriors_stale(
    run: RunFolder, dataset: Dataset, capfd: pytest.CaptureFixture[str], changes: dict[str, Any], reason: str
) -> None:
    protocol = Protocol(qs=(224,))
    evaluate(run, dataset, protocol, MACHINE)
    write_json(run.config_path, run.config() | changes)
    evaluate(run, dataset, protocol, MACHINE)
    assert f"val-dense-q224.parquet is stale ({reason}) and is computed again" in capfd.readouterr().err
    evaluate(run, dataset, protocol, MACHINE)
    assert "dense is up to date" in capfd.readouterr().err


def test_files_that_do_not_know_their_input_stay_valid(
    run: RunFolder, dataset: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    protocol = Protocol(qs=(224,))
    evaluate(run, dataset, protocol, MACHINE)
    path = run.path / "posteriors" / "val-dense-q224.parquet"
    about = json.loads(pq.read_schema(path).metadata[b"vggrepro"])
    del about["input"]
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"vggrepro": json.dumps(about)}), path)
    evaluate(run, dataset, protocol, MACHINE)
    assert "dense is up to date" in capfd.readouterr().err


def test_posteriors_of_other_data_are_computed_again_and_said(
    run: RunFolder, dataset: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    protocol = Protocol(qs=(224,))
    evaluate(run, dataset, protocol, MACHINE)
    evaluate(run, replace(dataset, fingerprint="other"), protocol, MACHINE)
    said = capfd.readouterr().err
    assert "val-dense-q224.parquet is stale (another data set) and is computed again" in said
    assert posteriors.read_origin(run.path / "posteriors" / "val-dense-q224.parquet").fingerprint == "other"


def test_threads_change_nothing(run: RunFolder, dataset: Dataset, tmp_path: Path) -> None:
    protocol = Protocol(qs=(256,))
    evaluate(run, dataset, protocol, MACHINE)
    other = make_run(tmp_path / "other" / "A-256")
    evaluate(other, dataset, protocol, Machine(torch.device("cpu"), "fp32", workers=3))
    name = "posteriors/val-dense-q256.parquet"
    assert pq.read_table(run.path / name).equals(pq.read_table(other.path / name))


def test_a_net_in_the_devkits_order_of_classes_is_noticed(
    run: RunFolder, dataset: Dataset, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = (4, 3, 6, 1, 2, 5)

    def perfect(order: np.ndarray) -> None:
        split, seen = Split(dataset, "val"), iter(range(18))

        def answer(self: Batcher) -> np.ndarray:
            return np.eye(6, dtype=np.float32)[[order[split.labels[next(seen)]] for _ in range(self._images)]]

        monkeypatch.setattr(Batcher, "finish", answer)

    perfect(np.array(ids) - 1)
    evaluate(run, replace(dataset, devkit_ids=ids), Protocol(qs=(224,)), MACHINE)
    said = capfd.readouterr().err
    assert (
        "A-256 gets 0.0 % of the images right, but 100.0 % if its classes are in the order of the devkit's ids" in said
    )
    perfect(np.arange(6))
    evaluate(run, replace(dataset, devkit_ids=ids), Protocol(qs=(256,)), MACHINE)
    assert "devkit" not in capfd.readouterr().err


def test_images_without_labels(run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """As test they have files and no errors; as val they are refused before anything is computed."""

    def unlabelled(data: Dataset, name: str) -> Split:
        split = Split(data, "val")
        split.name, split.labels = name, np.where(np.arange(18) == 4, -1, split.labels).astype(np.int32)
        return split

    monkeypatch.setattr(stage, "Split", unlabelled)
    with pytest.raises(InputError, match=r"image 'bee/1\.jpg' of val has no label, which errors need; prepare unlab"):
        evaluate(run, dataset, BOTH, MACHINE)
    assert not (run.path / "posteriors").exists()
    frame = evaluate(run, dataset, Protocol(("dense", "center"), (224,), split="test"), MACHINE)
    assert frame.columns.tolist() == ["run", "method", "Q", "images", "file"]
    assert frame.images.tolist() == [18, 18]
    assert frame.file.tolist() == [str(run.path / f"posteriors/test-{m}-q224.parquet") for m in ("dense", "center")]
    assert pq.read_table(frame.file[0])["label"].to_pylist()[4] == -1


# Bad input


def test_bad_input_is_said_in_a_line(run: RunFolder, dataset: Dataset, tmp_path: Path) -> None:
    def message(run: RunFolder, protocol: Protocol = BOTH) -> str:
        with pytest.raises(InputError) as error:
            evaluate(run, dataset, protocol, MACHINE)
        assert "\n" not in str(error.value)
        assert not (run.path / "posteriors").exists()
        return str(error.value)

    unfinished = make_run(tmp_path / "runs" / "B-256", net="B")
    unfinished.weights_path.unlink()
    assert "B-256 is not finished; resume it with 'vggrepro train B --scale 256'" in message(unfinished)
    seven = make_run(tmp_path / "runs" / "seven", classes=7)
    assert f"seven was trained for 7 classes, {dataset.folder} has 6; name the run's data set" in message(seven)
    assert "has no split 'test' (there: train, val)" in message(run, Protocol(split="test"))
    with lock(run.path, "vggrepro train A"):
        assert "is being written by vggrepro train A" in message(run)
    wrong = make_run(tmp_path / "runs" / "wrong", net="A")
    write_json(wrong.config_path, {**wrong.config(), "net": "D"})
    assert "weights.safetensors: its tensors are not those of its config.json's net" in message(wrong)
    write_json(wrong.config_path, {"net": "A", "scale": "256"})
    assert "config.json: lacks crop, width, classes, mean_rgb, input_scale" in message(wrong)


def test_a_damaged_posterior_file_is_computed_again(
    run: RunFolder, dataset: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    evaluate(run, dataset, Protocol(qs=(224,)), MACHINE)
    path = run.path / "posteriors" / "val-dense-q224.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    evaluate(run, dataset, Protocol(qs=(224,)), MACHINE)
    assert "val-dense-q224.parquet is stale (damaged) and is computed again" in capfd.readouterr().err
    assert posteriors.read_origin(path).run == "A-256"


# Processes


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from test_evaluate import BOTH, MACHINE, RunFolder, evaluate, replace, stage
from vggrepro.dataset import load

torch.set_num_threads(1)  # a forked process has none of its parent's threads
stage.PART_IMAGES = {"cpu": (3, 3)}
chance, kills, code = random.Random(0), 0, None
while code is None:
    child = os.fork()
    if not child:
        code = 1
        try:
            evaluate(RunFolder(Path(sys.argv[2])), load(Path(sys.argv[1])), BOTH, replace(MACHINE, workers=2))
            code = 0
        finally:
            os._exit(code)
    until = time.monotonic() + chance.uniform(0, 0.1 + 0.03 * kills)
    while time.monotonic() < until and not (ended := os.waitpid(child, os.WNOHANG))[0]:
        time.sleep(0.002)
        ended = (0, 0)
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(ended[1])
    if code == -signal.SIGKILL:
        kills, code = kills + 1, None
assert code == 0, code
print(kills)
"""


@pytest.mark.slow
def test_sigkill_at_random_moments_leaves_the_same_files(run: RunFolder, dataset: Dataset, tmp_path: Path) -> None:
    """A process is killed again and again, a little later each time, until one comes to the end: the same bytes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, "-c", KILLED, str(dataset.folder)]
    other = make_run(tmp_path / "other" / "A-256")
    done = subprocess.run(
        [*words, str(other.path)],
        cwd=Path(__file__).parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the killed ones: sums of two threads may differ in the last bit
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage, "PART_IMAGES", {"cpu": (3, 3)})
            evaluate(run, dataset, BOTH, MACHINE)
    finally:
        torch.set_num_threads(threads)
    written = [{path.name: path.read_bytes() for path in (each.path / "posteriors").iterdir()} for each in (run, other)]
    assert len(written[0]) == 4
    assert written[0] == written[1]


@pytest.mark.slow
def test_any_number_of_processes_writes_the_same_file(photos: Path, tmp_path: Path) -> None:
    """600 images, three parts: one process, and two and three that torchrun starts, byte for byte."""
    source = tmp_path / "photos"
    write_photos(source, "val", 100)
    shutil.copytree(photos / "train", source / "train")
    prepare(FolderSource(source), tmp_path / "data", "demo", workers=0)
    written = []
    for processes in (1, 2, 3):
        run = make_run(tmp_path / f"runs{processes}" / "A-256")
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
        words = [*(launcher if processes > 1 else []), "vggrepro", "evaluate", "--dense", "--multicrop", "--q", "224"]
        words += ["--data", str(tmp_path / "data"), "--runs", str(run.path.parent), "--precision", "fp32"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", *words], env=environment, capture_output=True, text=True, check=False, timeout=180
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("A-256") == 2  # one table, from the first process
        written.append({path.name: path.read_bytes() for path in sorted((run.path / "posteriors").iterdir())})
    assert list(written[0]) == ["val-dense-q224.parquet", "val-multicrop-q224.parquet"]
    assert written[0] == written[1] == written[2]
