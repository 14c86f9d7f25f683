"""Classifying image files: the posteriors of `evaluate`, words of the classes, the score map's place on the image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import CPU, ROUNDING, images, net_input, plain_model, random_run
from PIL import Image

from vggrepro.data.rescaling import rescale
from vggrepro.errors import InputError
from vggrepro.evaluation import predict as stage
from vggrepro.evaluation.evaluator import Evaluator
from vggrepro.nets.trained import Trained
from vggrepro.posteriors.protocol import Protocol
from vggrepro.runs.folder import RunFolder

NAMES = ["n01440764", "n01443537", "n01484850", "bee", "cat", "dog"]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return random_run(tmp_path / "runs" / "A-256", class_names=NAMES)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path, pixels in zip(paths, images(), strict=False):
        Image.fromarray(pixels).save(path)
    return paths


def test_top_classes_with_words(run: RunFolder, files: list[Path]) -> None:
    frame = stage.predict(run, files, Protocol(("dense", "center"), qs=(224,)), CPU)
    assert len(frame) == 2 * 2 * 5
    model = plain_model(run)
    dense = frame[(frame.image == str(files[0])) & (frame.method == "dense")]
    with torch.inference_mode():
        x = net_input(images()[0])
        expected = sum(model.dense_scores(v).softmax(1)[0] for v in (x, x.flip(3))) / 2
    order = expected.argsort(descending=True)[:5].tolist()
    assert dense["class"].tolist() == [NAMES[label] for label in order]
    np.testing.assert_allclose(dense.posterior, expected[order], atol=1e-5)
    words = dict(zip(frame["class"], frame.words, strict=True))
    assert {"n01440764": "tench", "n01443537": "goldfish", "bee": "bee"}.items() >= {
        name: word for name, word in words.items() if name in ("n01440764", "n01443537", "bee")
    }.items()


def test_posteriors_are_averaged_over_q(run: RunFolder, files: list[Path]) -> None:
    both, *single = (
        stage.predict(run, files[:1], Protocol(qs=qs), CPU).set_index("class").posterior
        for qs in ((224, 256), (224,), (256,))
    )
    shared = both.index.intersection(single[0].index).intersection(single[1].index)
    assert len(shared) >= 4
    np.testing.assert_allclose(both[shared], (single[0][shared] + single[1][shared]) / 2, atol=1e-6)


def test_the_mean_of_the_score_map_is_the_dense_score(run: RunFolder) -> None:
    model = plain_model(run)
    x = torch.cat([net_input(images()[0]), net_input(images()[0][::-1])]).repeat(1, 1, 2, 2)
    with torch.inference_mode():
        scores = model.score_map(x)
        assert scores.shape == (2, 6, 3, 4)  # 128 x 182 pixels: maps of 4 x 5, two by two of which fc6 sees
        torch.testing.assert_close(scores.mean((2, 3)), model.dense_scores(x))
        corner = model(x[:, :, :64, :64])
        assert not torch.allclose(scores[:, :, 0, 0], corner)  # a crop's border is padded with zeros


def test_many_files_are_read_in_batches(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[Path]
) -> None:
    """However many at once: the same table, and never more than two batches of decoded images."""
    protocol = Protocol(("dense", "center"), qs=(224,))
    many = [files[number % 2] for number in range(7)]
    expected = stage.predict(run, many, protocol, CPU)
    assert expected.image.tolist() == [str(path) for path in many for _ in range(10)]
    monkeypatch.setattr(stage, "BATCH", 2)
    read: list[Path] = []
    real, before = stage.read, Evaluator.posteriors

    def noted(path: Path) -> Image.Image:
        read.append(path)
        return real(path)

    done: list[int] = []

    def computed(self: Evaluator, pictures: list[np.ndarray], *how: Any) -> np.ndarray:
        done.append(len(pictures))
        assert len(read) - sum(done) // 2 <= 4
        return before(self, pictures, *how)

    monkeypatch.setattr(stage, "read", noted)
    monkeypatch.setattr(Evaluator, "posteriors", computed)
    for workers in (0, 2):
        read.clear()
        done.clear()
        frame = stage.predict(run, many, protocol, replace(CPU, workers=workers))
        assert done == [2, 2, 2, 2, 2, 2, 1, 1]
        assert frame.drop(columns="posterior").equals(expected.drop(columns="posterior"))
        np.testing.assert_allclose(frame.posterior, expected.posterior, atol=ROUNDING)


def test_the_heatmap_is_a_picture_of_the_class_asked_for(
    run: RunFolder, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    real = stage.class_map

    def noted(trained: Trained, image: Image.Image, label: int, *rest: Any) -> np.ndarray:
        drawn.append(label)
        return real(trained, image, label, *rest)

    monkeypatch.setattr(stage, "class_map", noted)
    protocol = Protocol(("center",), qs=(256, 512))
    first = stage.predict(run, files[:1], protocol, CPU)["class"][0]
    stage.heatmap(run, files[0], first, protocol, CPU, tmp_path / "map.png")
    assert [NAMES[label] for label in drawn] == [first]
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture).std() > 20
    with pytest.raises(InputError, match=r"at Q = 224 dense evaluation has one position on .*; give a larger --q"):
        stage.heatmap(run, files[0], "bee", Protocol(qs=(224,)), CPU, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_map_of_a_class_is_its_scores(run: RunFolder, files: list[Path]) -> None:
    with Image.open(files[0]) as image:
        found = [stage.class_map(Trained.load(run), image.convert("RGB"), label, 512, CPU) for label in (0, 4)]
        x = net_input(rescale(image.convert("RGB"), 146))
    with torch.inference_mode():
        scores = plain_model(run).score_map(x)[0]
    for label, each in zip((0, 4), found, strict=True):
        np.testing.assert_allclose(each, scores[label], atol=1e-4)


@pytest.mark.parametrize("size", [(100, 9000), (9000, 100)])
def test_heatmaps_of_images_that_are_90_times_as_long_as_wide(
    run: RunFolder, tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(
        tmp_path / "long.png"
    )
    stage.heatmap(run, tmp_path / "long.png", "cat", Protocol(qs=(224,)), CPU, tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as picture:
        assert max(picture.size) <= 28 * 150


@pytest.mark.parametrize("crop", [32, 56, 64, 80, 224])
def test_the_map_lies_in_the_middle_of_an_image_whose_sides_are_multiples_of_32(crop: int) -> None:
    """Whatever the crop: a mirrored image has the mirrored map."""
    cells, seen = (9, 12), crop // 32
    left, right, bottom, top = stage.extent((cells[0] - seen + 1, cells[1] - seen + 1), crop, stride=32, unit=2.0)
    assert (left, top) == (2.0 * 32 * cells[1] - right, 2.0 * 32 * cells[0] - bottom)
    assert right - left == 2.0 * 32 * (cells[1] - seen + 1)


def test_files_that_are_no_images(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    for name, message in (("text.jpg", "is no readable image"), ("none.jpg", "cannot be read"), ("runs", "cannot be")):
        with pytest.raises(InputError, match=f"{name} {message}"):
            stage.predict(run, [tmp_path / name], Protocol(), CPU)


def test_a_photograph_is_turned_as_its_exif_says_and_one_without_scale_is_refused(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = images(1)[0]
    Image.fromarray(pixels).save(tmp_path / "side.png", exif=exif.tobytes())
    np.testing.assert_array_equal(np.asarray(stage.read(tmp_path / "side.png")), np.rot90(pixels, -1))
    Image.fromarray((pixels[..., 0] / 255).astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(
        InputError, match=r"float.tif is no readable image \(TIFF F with values from 0.*scale them to 0"
    ):
        stage.read(tmp_path / "float.tif")
