"""What export writes, read by the peers themselves and by our own readers; docs/exchange.md's snippets."""

from __future__ import annotations

import builtins
import importlib.util
import json
import math
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from conftest import ROOT
from google.protobuf.unknown_fields import UnknownFieldSet
from PIL import Image
from test_caffe import PACKED
from test_evaluate import MACHINE, make_run
from torch.nn import functional as F
from typer.testing import CliRunner

from vggrepro import card as cards
from vggrepro import exporting, paper, views, weights
from vggrepro.cli import app
from vggrepro.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.evaluate import evaluate
from vggrepro.evaluator import Evaluator
from vggrepro.files import sha256, write_json
from vggrepro.formats import caffe_writer, read
from vggrepro.formats import onnx as onnx_format
from vggrepro.formats import timm as timm_format
from vggrepro.formats import torchvision as torchvision_format
from vggrepro.net import VGG, to_input
from vggrepro.protocol import Method, Protocol
from vggrepro.runs import RunFolder

NAMES = ["ant", "bee", "cat", "dog", "eel", "fox"]
WORDS = ["an ant", "a bee", "a cat", "a dog", "an eel", "a fox"]


def small(folder: Path, net: str = "A", crop: int = 64, stride: int = 32, **more: Any) -> RunFolder:
    """A finished run of width 1/32, or, at another crop than `make_run`'s, with weights drawn for it."""
    known = {"class_names": NAMES, "class_words": WORDS} | more
    run = make_run(folder / "runs" / f"{net}-256", net=net, **known)
    if crop != 64:
        write_json(run.config_path, run.config() | {"crop": crop, "stride": stride})
        generator = torch.Generator().manual_seed(0)
        shapes = paper.shapes(net, 6, crop, 1 / 32, stride)
        drawn = {n: torch.randn(s, generator=generator) * (2 / np.prod(s[1:])) ** 0.5 for n, s in shapes.items()}
        weights.save(run.weights_path, drawn, {})
    return run


def pixels(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, height, width, 3), np.uint8)


def our_model(run: RunFolder) -> tuple[VGG, dict[str, Any]]:
    config = run.config()
    lrn = config.get("recipe", {}).get("lrn", "krizhevsky")
    model = VGG(config["net"], config["classes"], config["crop"], config["width"], lrn, config["stride"])
    weights.into(model, weights.load(run.weights_path)[0], run.name)
    return model.eval(), config


def ours(run: RunFolder, images: np.ndarray, dense: bool = False) -> np.ndarray:
    """Our posteriors of uint8 crops, or densely of one flip."""
    model, config = our_model(run)
    x = to_input(torch.from_numpy(images), torch.tensor(config["mean_rgb"]), config["input_scale"])
    with torch.inference_mode():
        return (model.dense_scores(x) if dense else model(x)).softmax(1).numpy()


# Round trips


@pytest.mark.parametrize("net", paper.NETS)
@pytest.mark.parametrize(("crop", "stride"), [(64, 32), (56, 32), (56, 8)])
@pytest.mark.parametrize("to", ["safetensors", "onnx", "caffe"])
def test_an_export_comes_back_bit_by_bit(tmp_path: Path, net: str, crop: int, stride: int, to: str) -> None:
    run = small(tmp_path, net, crop, stride, scale="256:512", recipe={"lrn": "caffe", "resample": "bicubic"})
    files = exporting.export(run, to)
    back, was = read(files[0], net), weights.load(run.weights_path)[0]
    assert back.tensors.keys() == was.keys()
    for name, tensor in was.items():
        assert torch.equal(back.tensors[name], tensor), name
    assert (back.mean_rgb, back.input_scale) == ((110.0, 120.0, 90.0), 0.0172)
    assert (back.crop, back.stride, back.width) == (crop, stride, 1 / 32)
    assert (back.classes, back.scale) == (6, "256:512")
    assert (back.resample, back.class_names) == ("bicubic", tuple(NAMES))
    if net == "A-LRN":
        assert back.lrn == "caffe"
    assert back.origin == f"trained elsewhere: vggrepro's run {net}-256"


def test_a_kill_between_the_weights_and_what_describes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new weights stand beside a description that is not theirs: refused, not read with it."""
    run = small(tmp_path)
    exporting.export(run, "caffe")
    monkeypatch.setattr(exporting, "sha256", lambda _: 1 / 0)  # after the weights, before their description
    with pytest.raises(ZeroDivisionError):
        exporting.export(run, "caffe", force=True)
    path = run.path / "export" / "A-256.caffemodel"
    with pytest.raises(InputError, match=rf"{path}.json: describes another file than A-256.caffemodel; export the run"):
        read(path, "A")
    monkeypatch.undo()
    assert read(exporting.export(run, "caffe", force=True)[0], "A").input_scale == 0.0172


def test_an_imported_runs_origin_is_passed_on(tmp_path: Path) -> None:
    run = small(tmp_path, origin="trained elsewhere: by somebody")
    assert read(exporting.export(run, "safetensors")[0], "A").origin == "trained elsewhere: by somebody"


# ONNX


@pytest.mark.parametrize(
    ("net", "crop", "stride"),
    [*((net, 64, 32) for net in paper.NETS), ("C", 80, 32), ("A-LRN", 56, 32), ("A-LRN", 56, 8), ("D", 112, 16)],
)
def test_onnxruntime_gives_our_posteriors(tmp_path: Path, net: str, crop: int, stride: int) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    changes = {"input_scale": 0.5} if net == "A-LRN" else {}  # so large that LRN does something
    run = small(tmp_path, net, crop, stride, **changes)
    plain, dense = (exporting.export(run, "onnx", dense=dense)[0] for dense in (False, True))
    onnx.checker.check_model(str(plain), full_check=True)
    session = onnxruntime.InferenceSession(plain)
    for count in (1, 3):
        images = pixels(count, crop, crop)
        posterior, scores = session.run(["posterior", "scores"], {"images": images})
        np.testing.assert_allclose(posterior, ours(run, images), atol=1e-5)
        np.testing.assert_allclose(torch.tensor(scores).softmax(1), posterior, atol=1e-6)
    session = onnxruntime.InferenceSession(dense)
    for height, width in ((crop, crop), (crop + 35, crop + 81)):
        images = pixels(2, height, width)
        (posterior,) = session.run(["posterior"], {"images": images})
        np.testing.assert_allclose(posterior, ours(run, images, dense=True), atol=1e-5)
    onnx.checker.check_model(str(dense), full_check=True)


def test_a_graph_that_gives_other_posteriors_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    run, good = small(tmp_path), onnx_format.graph

    def wrong(trained: exporting.Trained, dense: bool) -> Any:
        model = good(trained, dense)
        initializer = next(value for value in model.graph.initializer if value.name == "mean_rgb")
        initializer.raw_data = np.zeros(3, np.float32).tobytes()
        return model

    monkeypatch.setattr(onnx_format, "graph", wrong)
    with pytest.raises(InputError, match=r"A-256\.onnx: onnxruntime's posteriors differ from ours by 0\.\d+; nothing"):
        exporting.export(run, "onnx")
    assert list((run.path / "export").iterdir()) == []


def test_onnx_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "onnx":
            raise ImportError(name)
        return real(name, *rest)

    run = small(tmp_path)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        InputError, match=r"ONNX needs the package onnx; install it with pip install 'vggrepro\[onnx\]'"
    ):
        exporting.export(run, "onnx")


# Caffe


def interpreted(prototxt: str, blobs: dict[str, list[torch.Tensor]], x: torch.Tensor) -> torch.Tensor:
    """Runs a prototxt layer by layer with Caffe's rules: poolings round up unless told otherwise, LRN divides alpha."""
    values = {"data": x}
    for line in prototxt.splitlines():
        if not line.startswith("layer"):
            continue

        def number(key: str, default: float, line: str = line) -> float:
            match = re.search(rf"\b{key}: ([\d.e-]+)", line)
            return float(match[1]) if match else default

        kind, name, top = (re.search(rf'{key}: "(\w+)"', line)[1] for key in ("type", "name", "top"))  # type: ignore[index]
        if kind == "Input":
            assert [int(dim) for dim in re.findall(r"dim: (\d+)", line)] == list(x.shape)
            continue
        value = values[re.search(r'bottom: "(\w+)"', line)[1]]  # type: ignore[index]
        if kind == "Convolution":
            weight, bias = blobs[name]
            assert weight.shape[0] == number("num_output", 0) and weight.shape[2] == number("kernel_size", 0)
            value = F.conv2d(value, weight, bias, padding=int(number("pad", 0)))
        elif kind == "InnerProduct":
            value = F.linear(value.flatten(1), *blobs[name])
        elif kind == "ReLU":
            value = F.relu(value)
        elif kind == "Pooling":
            value = F.max_pool2d(value, 2, 2, ceil_mode="round_mode: FLOOR" not in line)
        elif kind == "LRN":
            size, alpha, beta, k = (number(key, 0) for key in ("local_size", "alpha", "beta", "k"))
            value = F.local_response_norm(value, int(size), alpha, beta, k)
        elif kind == "Softmax":
            value = value.softmax(1)
        else:
            assert kind == "Dropout"
        values[top] = value
    return values["prob"]


@pytest.mark.parametrize(("net", "crop"), [*((net, 64) for net in paper.NETS), ("C", 56), ("A-LRN", 80)])
def test_caffes_net_gives_our_posteriors(tmp_path: Path, net: str, crop: int) -> None:
    """The weights as protobuf's package reads them, in the net of the prototxt, on BGR."""
    run = small(tmp_path, net, crop, input_scale=0.5 if net == "A-LRN" else 0.0172)
    model, prototxt, _ = exporting.export(run, "caffe")
    message = PACKED["NetParameter"].FromString(model.read_bytes())  # type: ignore[attr-defined]
    assert len(UnknownFieldSet(message)) == 0
    blobs = {
        layer.name: [torch.tensor(blob.data).view(*blob.shape.dim) for blob in layer.blobs] for layer in message.layer
    }
    assert [layer.type for layer in message.layer if layer.name == "fc6"] == ["InnerProduct"]
    images, config = pixels(1, crop, crop), run.config()
    bgr = images[..., ::-1].astype(np.float32) - np.array(config["mean_rgb"][::-1], np.float32)
    x = torch.from_numpy((bgr * np.float32(config["input_scale"])).transpose(0, 3, 1, 2).copy())
    found = interpreted(prototxt.read_text(), blobs, x)
    np.testing.assert_allclose(found, ours(run, images), atol=1e-5)


def test_the_prototxt_says_the_preprocessing(tmp_path: Path) -> None:
    lines = exporting.export(small(tmp_path), "caffe")[1].read_text().splitlines()
    assert "# mean (B, G, R): 90.0, 120.0, 110.0" in lines
    assert "# scale: 0.0172" in lines


def test_lrn_stands_in_the_caffemodel(tmp_path: Path) -> None:
    model = exporting.export(small(tmp_path, "A-LRN"), "caffe")[0]
    message = PACKED["NetParameter"].FromString(model.read_bytes())  # type: ignore[attr-defined]
    (layer,) = [layer for layer in message.layer if layer.type == "LRN"]
    parameters = layer.lrn_param
    assert (parameters.local_size, parameters.beta, parameters.k) == (5, 0.75, 2)
    assert parameters.alpha == pytest.approx(5e-4)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**40])
def test_varints(value: int) -> None:
    encoded = caffe_writer._varint(value)
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded)) == value
    assert all(byte & 0x80 for byte in encoded[:-1]) and not encoded[-1] & 0x80


# torchvision and timm


@pytest.mark.parametrize("net", torchvision_format.TWINS)
def test_names_and_shapes_are_the_peers(net: str) -> None:
    twin = torchvision_format.TWINS[net]
    shapes = paper.shapes(net, 7)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(twin, num_classes=7).state_dict()
        timms = timm.create_model(twin, num_classes=7).state_dict()
    names = torchvision_format.names(net)
    assert {names[own]: shape for own, shape in shapes.items()} == {n: tuple(t.shape) for n, t in theirs.items()}
    assert list(names.values()) == list(theirs)
    names = timm_format.names(net)
    assert list(names.values()) == list(timms)
    assert all(timms[names[own]].numel() == np.prod(shape) for own, shape in shapes.items())


@pytest.mark.parametrize("net", torchvision_format.TWINS)
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
        for name, shape in paper.shapes("A", 6).items():
            drawn[name] = torch.empty(shape).uniform_(-1, 1, generator=generator) * (6 / np.prod(shape[1:])) ** 0.5
        drawn["fc8.weight"] *= 3
        weights.save(run.weights_path, drawn, {})
        Image.fromarray(pixels(1, 400, 600)[0]).resize((450, 300)).save(run.path.parent / "cat.jpg")
        yield run


def evaluated(run: RunFolder) -> np.ndarray:
    """The posterior of `cat.jpg`'s central crop at Q = S, as evaluate computes it."""
    image = Image.open(run.path.parent / "cat.jpg").convert("RGB")
    return Evaluator(run, MACHINE).posteriors([views.rescale(image, 384)], Method("center", False, 1))[0]


def snippet(title: str, run: RunFolder) -> str:
    """A code block of docs/exchange.md, for net A in the run's export folder."""
    text = (ROOT / "docs" / "exchange.md").read_text(encoding="utf-8")
    found = re.search(rf"## {title}\n.*?```python\n(.*?)```", text, re.DOTALL)
    assert found
    return found[1].replace("D-256-512", run.name).replace("vgg16", "vgg11")


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
    np.testing.assert_allclose(posterior, evaluated(full), rtol=1e-5, atol=1e-6)
    del found
    back, was = read(files[0], "A"), weights.load(full.weights_path)[0]
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in was.items())
    assert (back.mean_rgb, back.input_scale, back.scale) == ((110.1, 120.2, 90.3), 0.0172, "256:512")
    assert back.class_names == tuple(NAMES)
    for file in files:
        file.unlink()


def test_timms_config(tmp_path: Path) -> None:
    run = small(tmp_path, scale="384", recipe={"resample": "bicubic"})
    config = timm_format.config(exporting.load(run))
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


def test_documented_onnx_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    run = small(tmp_path)
    exporting.export(run, "onnx", dense=True)
    Image.fromarray(pixels(1, 110, 130)[0]).save(run.path / "export" / "cat.jpg", quality=95)
    monkeypatch.chdir(run.path / "export")
    found: dict[str, Any] = {}
    exec(snippet("ONNX", run), found)
    image = np.asarray(Image.open("cat.jpg"))
    expected = Evaluator(run, MACHINE).posteriors([image], Method("dense", True, 1))[0]
    np.testing.assert_allclose(found["posterior"][0], expected, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="OpenCV is not installed")
def test_documented_caffe_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small(tmp_path)
    exporting.export(run, "caffe")
    Image.fromarray(pixels(1, 64, 64)[0]).save(run.path / "export" / "cat.png")
    monkeypatch.chdir(run.path / "export")
    found: dict[str, Any] = {}
    exec(snippet("Caffe", run).replace("cat.jpg", "cat.png"), found)
    np.testing.assert_allclose(found["posterior"], ours(run, pixels(1, 64, 64)), atol=1e-5)


# What cannot be, and the command


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


def test_a_crop_that_torchvision_cannot_hold(tmp_path: Path) -> None:
    trained = exporting.load(small(tmp_path))
    wide = exporting.Trained(**{f: getattr(trained, f) for f in trained.__slots__} | {"width": 1.0, "crop": 56})
    with pytest.raises(InputError, match="its first FC layer sees a crop of 224 pixels, A-256 has 56"):
        exporting.require_peer(wide, "timm")


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    run = small(tmp_path)
    first = exporting.export(run, "caffe")
    before = [path.read_bytes() for path in first]
    with pytest.raises(InputError, match=r"A-256\.caffemodel is there already; give --force to overwrite it"):
        exporting.export(run, "caffe")
    first[0].unlink()
    with pytest.raises(InputError, match=r"A-256\.prototxt is there already"):
        exporting.export(run, "caffe")
    assert [path.read_bytes() for path in exporting.export(run, "caffe", force=True)] == before
    with pytest.raises(InputError, match=f"--out {run.path} is a folder; give the name of a file to write"):
        exporting.export(run, "onnx", run.path)
    with pytest.raises(InputError, match="is a file; timm's format is a folder: give the name of one"):
        exporting.export(run, "timm", run.config_path)
    with pytest.raises(InputError, match=r"net\.prototxt is also the name of what stands beside the weights; give"):
        exporting.export(run, "caffe", tmp_path / "net.prototxt")


def test_an_unfinished_run_a_wrong_format_and_dense_weights(tmp_path: Path) -> None:
    run = small(tmp_path)
    with pytest.raises(InputError, match="--to keras: choose one of torchvision, timm, safetensors, onnx, caffe"):
        exporting.export(run, "keras")
    with pytest.raises(InputError, match="--dense is for --to onnx; caffe holds weights"):
        exporting.export(run, "caffe", dense=True)
    write_json(run.config_path, run.config() | {"classes": 7})
    with pytest.raises(InputError, match=r"its tensors are not those of its config\.json's net; restore the file"):
        exporting.export(run, "caffe")
    run.weights_path.unlink()
    with pytest.raises(InputError, match="A-256 is not finished"):
        exporting.export(run, "caffe")


def test_the_command_prints_paths(tmp_path: Path) -> None:
    run = small(tmp_path)
    out = tmp_path / "elsewhere" / "net.caffemodel"
    command = ["export", "A-256", "--to", "caffe", "--out", str(out), "--card", "--runs", str(run.path.parent)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    endings = (".caffemodel", ".prototxt", ".caffemodel.json", ".caffemodel.md")
    assert result.stdout.split() == [str(out.with_name("net" + ending)) for ending in endings]
    assert "input: (BGR 0-255 - (90.000, 120.000, 110.000)) * 0.0172" in result.stderr
    assert json.loads((out.with_name("net.caffemodel.json")).read_text())["class_names"] == NAMES
    card = out.with_name("net.caffemodel.md").read_text()
    assert "- input: float32 BGR, (N, 3, 64, 64), (0–255 − (90, 120, 110)) · 0.0172\n" in card


def test_a_side_car_without_a_hash_is_read(tmp_path: Path) -> None:
    path = exporting.export(small(tmp_path), "caffe")[0]
    beside = path.with_name(path.name + ".json")
    about = json.loads(beside.read_text())
    assert about.pop("sha256") == sha256(path)
    write_json(beside, about)
    assert read(path, "A").mean_rgb == (110, 120, 90)


@pytest.mark.parametrize(
    ("to", "dense", "lines"),
    [
        (
            "onnx",
            False,
            [
                "- input: `images`, uint8 RGB, (N, 64, 64, 3): pixels as they are, neither centred nor scaled",
                "- in the graph: (0–255 − (110, 120, 90)) · 0.0172, the net, soft-max",
                "- output: `posterior` and, before the soft-max, `scores`: float32 (N, 6)",
                "- test image: shorter side 110 for Q = 384, the longer rounded down (bilinear, antialiased), then the "
                "central crop of 64 × 64",
            ],
        ),
        (
            "onnx",
            True,
            [
                "- input: `images`, uint8 RGB, (N, H, W, 3), H and W at least 64: pixels as they are, neither centred "
                "nor scaled",
                "- in the graph: (0–255 − (110, 120, 90)) · 0.0172, the net, the mean over positions, soft-max",
                "- test image: shorter side 110 for Q = 384, the longer rounded down (bilinear, antialiased), whole",
            ],
        ),
        (
            "torchvision",
            False,
            [
                "- input: float32 RGB from 0 to 1, (N, 3, 64, 64), then `Normalize`: mean (0.431373, 0.470588, "
                "0.352941), std (0.227998, 0.227998, 0.227998)",
                "- the same of pixels from 0 to 255: (0–255 − (110, 120, 90)) · 0.0172",
            ],
        ),
        ("safetensors", False, ["- input: float32 RGB, (N, 3, 64, 64), (0–255 − (110, 120, 90)) · 0.0172"]),
    ],
)
def test_the_card_describes_its_file(tmp_path: Path, to: str, dense: bool, lines: list[str]) -> None:
    run = small(tmp_path, scale="256:512")
    text = cards.card(run, exporting.load(run), to, tmp_path / "file", dense)
    assert f"Written by `vggrepro export A-256 --to {to}{' --dense' if dense else ''}` (" in text
    found = text.splitlines()
    assert [line for line in lines if line not in found] == []
    assert ("`Normalize`" in text) == (to != "onnx")  # nobody normalises twice


def test_the_card_follows_the_starts(tmp_path: Path) -> None:
    """Rate and epochs as they were trained, not the recipe's for random weights."""
    recipe = {"learning_rate": 0.01, "rescale_rate": 0.003, "initialisation": "glorot", "batch": 16}
    chain: list[RunFolder] = []
    for name, net, epochs, rate in (("A-256", "A", 7, 0.01), ("D-256", "D", 5, 0.01), ("D-384", "D", 3, 0.003)):
        start = {"run": chain[-1].name, "weights": chain[-1].weights_hash()} if chain else {"initialisation": "he"}
        run = make_run(tmp_path / name, net=net, start=start, learning_rate=rate, recipe=recipe)
        run.metrics_path.write_text('{"step": 1}\n{"epoch": 1}\n' * epochs)
        chain.append(run)
    first, second, run = chain

    def lines(name: str) -> str:
        text = cards.card(run, exporting.load(run), "onnx", tmp_path / "file")
        (line,) = [line for line in text.splitlines() if line.startswith(f"- {name}: ")]
        return line.partition(": ")[2]

    copied = "conv1_1, conv2_1, conv3_1, conv3_2, fc6, fc7, fc8; the others random, glorot"
    assert lines("start") == f"D-256 (all layers) ← A-256 ({copied}) ← random weights (he)"
    assert lines("epochs") == "7 (A-256) + 5 (D-256) + 3 (this run)"
    assert lines("learning rate") == "0.003 at first"
    assert "\n- initialisation" not in cards.card(run, exporting.load(run), "onnx", tmp_path / "file")
    make_run(first.path, seed=1)
    gone = "A-256, which is not there or was trained again"
    assert (lines("start"), lines("epochs")) == (f"D-256 (all layers) ← {gone}", "unknown + 5 (D-256) + 3 (this run)")
    write_json(first.path / "config.json", [])
    assert lines("start").endswith(gone)
    write_json(second.config_path, second.config() | {"origin": "trained elsewhere: by hand", "start": None})
    assert (lines("start"), lines("epochs")) == ("D-256 (all layers) ← trained elsewhere: by hand", "3")


def test_the_card_has_the_runs_errors(tmp_path: Path, dataset: Dataset) -> None:
    """Of files that these weights made, and of no others."""
    run = small(tmp_path, class_names=list(dataset.classes))
    frame = evaluate(run, dataset, Protocol(("dense", "multicrop"), qs=(256,)), MACHINE)
    error = {row.method: row.top1_error for row in frame.itertuples()}
    text = exporting.export(run, "safetensors", card=True)[-1].read_text()
    rows = [line for line in text.splitlines() if line.startswith("| photos |")]
    assert [row.split(" | ")[1:6] for row in rows] == [
        [method, "256", "yes", "18", f"{error[method]:.2f}"] for method in ("dense", "multicrop")
    ]
    evaluate(run, dataset, Protocol(("multicrop",), (256,), flip=False, grid=2), MACHINE)
    text = exporting.export(run, "safetensors", card=True, force=True)[-1].read_text()
    assert "| photos | multicrop-grid2-noflip | 256 | no | 18 |" in text  # not to be taken for the paper's
    weights.save(run.weights_path, weights.load(run.weights_path)[0], {"other": 1})
    text = exporting.export(run, "safetensors", card=True, force=True)[-1].read_text()
    assert "Not evaluated." in text
