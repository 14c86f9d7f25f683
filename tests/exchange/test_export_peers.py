"""Exports for torchvision and timm, loaded by them."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from exports import NAMES, WORDS, pixels, small, snippet
from nets import CPU
from PIL import Image

from vggrepro.data.rescaling import rescale
from vggrepro.errors import InputError
from vggrepro.evaluation.evaluator import Evaluator
from vggrepro.exchange import exporting
from vggrepro.exchange.formats import read
from vggrepro.exchange.formats import timm as timm_format
from vggrepro.exchange.formats import torchvision as torchvision_format
from vggrepro.exchange.formats.state_dict import TWINS
from vggrepro.nets import weights
from vggrepro.nets.trained import Trained
from vggrepro.nets.vgg import VGG
from vggrepro.paper import Architecture
from vggrepro.posteriors.protocol import Method
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import write_json


@pytest.mark.parametrize("net", TWINS)
def test_names_and_shapes_are_the_peers(net: str) -> None:
    twin = TWINS[net]
    shapes = Architecture(net, 7).shapes()
    with torch.device("meta"):
        theirs = torchvision.models.get_model(twin, num_classes=7).state_dict()
        timms = timm.create_model(twin, num_classes=7).state_dict()
    names = torchvision_format.names(net)
    assert {names[own]: shape for own, shape in shapes.items()} == {n: tuple(t.shape) for n, t in theirs.items()}
    assert list(names.values()) == list(theirs)
    names = timm_format.names(net)
    assert list(names.values()) == list(timms)
    assert all(timms[names[own]].numel() == np.prod(shape) for own, shape in shapes.items())


@pytest.mark.parametrize("net", TWINS)
def test_convolutions_compute_what_torchvisions_do(net: str) -> None:
    """At a small width, by torchvision's own builder of VGG's features."""
    cfg = torchvision.models.vgg.cfgs[{"A": "A", "B": "B", "D": "D", "E": "E"}[net]]
    features = torchvision.models.vgg.make_layers([v if v == "M" else v // 32 for v in cfg]).eval()
    model = VGG(net, 6, 64, 1 / 32)
    names = torchvision_format.names(net)
    state = {names[own].removeprefix("features."): p for own, p in model.named_parameters() if own.startswith("conv")}
    features.load_state_dict(state)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(features(x), model.features(x.clone()))


@pytest.fixture(scope="module")
def full() -> Iterator[RunFolder]:
    """A run of net A at the paper's size, half a gigabyte, with a model card; gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "runs" / "A-256-512")
        config = {"net": "A", "scale": "256:512", "crop": 224, "width": 1.0, "classes": 6, "input_scale": 0.0172}
        config |= {"mean_rgb": [110.1, 120.2, 90.3], "class_names": NAMES, "class_words": WORDS}
        write_json(run.config_path, config)
        generator = torch.Generator().manual_seed(0)
        drawn = {}
        for name, shape in Architecture("A", 6).shapes().items():
            drawn[name] = torch.empty(shape).uniform_(-1, 1, generator=generator) * (6 / np.prod(shape[1:])) ** 0.5
        drawn["fc8.weight"] *= 3
        weights.save(run.weights_path, drawn, {})
        Image.fromarray(pixels(1, 400, 600)[0]).resize((450, 300)).save(run.path.parent / "cat.jpg")
        yield run


def evaluated(run: RunFolder) -> np.ndarray:
    """The posterior of `cat.jpg`'s central crop at Q = S, as evaluate computes it."""
    image = Image.open(run.path.parent / "cat.jpg").convert("RGB")
    return Evaluator(Trained.load(run), CPU).posteriors([rescale(image, 384)], Method("center", False, 1))[0]


@pytest.mark.slow
@pytest.mark.parametrize("to", ["torchvision", "timm"])
def test_peers_load_it_and_give_our_posterior(full: RunFolder, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    """By the documented lines: their loaders, their transforms, an image of another size; and back bit by bit."""
    files = exporting.export(full, to)
    (full.path / "export" / "cat.jpg").write_bytes((full.path.parent / "cat.jpg").read_bytes())
    monkeypatch.chdir(full.path / "export")
    found: dict[str, Any] = {}
    exec(snippet(to, full), found)
    posterior = found["posterior"][0].numpy()
    assert posterior.std() > 0.01
    # in logarithms, as the net has them: soft-max makes a score of 40 that is wrong in its last bits wrong by 1e-4
    np.testing.assert_allclose(np.log(posterior), np.log(evaluated(full)), rtol=0, atol=1e-3)
    del found
    back, was = read(files[0], "A"), weights.load(full.weights_path)[0]
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in was.items())
    assert (back.mean_rgb, back.input_scale, back.scale) == ((110.1, 120.2, 90.3), 0.0172, "256:512")
    assert back.class_names == tuple(NAMES)
    for file in files:
        file.unlink()


def test_timms_config(tmp_path: Path) -> None:
    run = small(tmp_path, scale="384", recipe={"resample": "bicubic"})
    config = timm_format.config(Trained.load(run))
    assert config["architecture"] == "vgg11"
    assert config["label_names"] == NAMES
    assert config["label_descriptions"]["cat"] == "a cat"
    described = config["pretrained_cfg"]
    assert (described["interpolation"], described["crop_pct"]) == ("bicubic", 64 / 110)
    np.testing.assert_allclose(described["mean"], [110 / 255, 120 / 255, 90 / 255])
    np.testing.assert_allclose(described["std"], [1 / (255 * 0.0172)] * 3)


def test_timm_rescales_to_our_side() -> None:
    for side in range(224, 1025):
        share = timm_format._crop_share(224, side)
        assert math.floor(224 / share) == side  # as timm computes it
        assert share == pytest.approx(224 / side, rel=1e-15)


@pytest.mark.parametrize(
    ("net", "changes", "reason"),
    [
        ("C", {}, "it has A, B, D and E only, not C"),
        ("A-LRN", {}, "it has A, B, D and E only, not A-LRN"),
        ("D", {}, "its nets have width 1, D-256 has 0.03125"),
    ],
)
def test_what_torchvision_and_timm_cannot_hold(tmp_path: Path, net: str, changes: dict[str, Any], reason: str) -> None:
    run = small(tmp_path, net, **changes)
    for to in ("torchvision", "timm"):
        with pytest.raises(InputError) as caught:
            exporting.export(run, to)
        expected = f"{run.name} cannot be written for {to}: {reason}; --to onnx, caffe and safetensors hold every net"
        assert str(caught.value) == expected
    assert not (run.path / "export").exists()


@pytest.mark.parametrize(("stride", "poolings"), [(16, 4), (8, 3), (4, 2)])
@pytest.mark.parametrize("to", ["torchvision", "timm"])
def test_an_exact_reduction_is_refused(tmp_path: Path, stride: int, poolings: int, to: str) -> None:
    """Its tensors have the shapes of the whole net, but torchvision's and timm's nets would pool too often."""
    trained = Trained.load(small(tmp_path, crop=7 * stride, stride=stride))
    wide = replace(trained, config=replace(trained.config, width=1.0))
    with pytest.raises(InputError) as caught:
        exporting.require_peer(wide, to)
    assert str(caught.value) == (
        f"A-256 cannot be written for {to}: its nets have five poolings, A-256 has {poolings}; --to onnx, caffe and "
        "safetensors hold every net"
    )


def test_a_crop_that_torchvision_cannot_hold(tmp_path: Path) -> None:
    trained = Trained.load(small(tmp_path))
    wide = replace(trained, config=replace(trained.config, width=1.0, crop=56))
    with pytest.raises(InputError, match="its first FC layer sees a crop of 224 pixels, A-256 has 56"):
        exporting.require_peer(wide, "timm")
