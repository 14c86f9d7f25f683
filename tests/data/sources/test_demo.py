"""The demo's drawn images."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vggrepro.data.sources import demo
from vggrepro.data.sources.demo import CLASSES, DemoSource, draw


def test_an_image_depends_on_seed_split_and_index_alone() -> None:
    first, label = draw(3, "val", 37)
    draw(3, "val", 36)
    again, _ = draw(3, "val", 37)
    assert label == 37 % len(CLASSES)  # the classes come in turn
    assert np.array_equal(first, again)
    for seed, split, index in ((4, "val", 37), (3, "train", 37), (3, "val", 53)):
        other, same_label = draw(seed, split, index)
        assert same_label == label
        assert other.size != first.size or not np.array_equal(first, other)


def test_sizes_and_contrast_are_those_of_the_constants() -> None:
    images = [draw(0, "train", index)[0] for index in range(64)]
    short, long = zip(*(sorted(image.size) for image in images), strict=True)
    assert (min(short) >= demo.SHORT_SIDE[0], max(short) <= demo.SHORT_SIDE[1]) == (True, True)
    assert max(b / a for a, b in zip(short, long, strict=True)) <= demo.MAX_ASPECT + 1 / min(short)
    for image in images:  # the object is brighter than the usual pixel
        luma = np.asarray(image.convert("L"), dtype=float)
        assert np.quantile(luma, 0.995) - np.median(luma) > demo.MIN_CONTRAST / 2


@pytest.mark.parametrize("name", CLASSES)
def test_an_object_lies_wholly_inside_its_image(name: str) -> None:
    rng = np.random.Generator(np.random.Philox(key=1))
    for _ in range(40):
        mask = np.asarray(demo._mask(rng, demo._SHAPES[name], (200, 280), 200))
        assert mask.any()
        assert not (mask[[0, -1]].any() or mask[:, [0, -1]].any())


def test_no_class_becomes_another_when_mirrored() -> None:
    masks = {}
    for name, parts in demo._SHAPES.items():
        image = Image.new("1", (101, 101))
        for points, ink in parts:
            ImageDraw.Draw(image).polygon(demo._xy(50 + 50j + 48 * points), fill=bool(ink))
        masks[name] = np.asarray(image)
    for first, second in permutations(CLASSES, 2):
        mirrored, other = masks[first][:, ::-1], masks[second]
        assert (mirrored & other).sum() < 0.85 * (mirrored | other).sum(), (first, second)


def test_images_of_another_drawing_are_other_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    now, image = DemoSource(0).contents(), demo.example(0, "train", 3)
    assert now == DemoSource(0).contents() and image == demo.example(0, "train", 3)
    monkeypatch.setattr(demo, "DRAWING", demo.DRAWING - 1)
    assert DemoSource(0).contents() != now
    assert demo.example(0, "train", 3)[0] == image[0] and demo.example(0, "train", 3)[1] != image[1]
