"""Exported Caffe models, read by protobuf's own package and run by the prototxt."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from caffe_files import PACKED
from exports import ours, pixels, small, snippet
from google.protobuf.unknown_fields import UnknownFieldSet
from PIL import Image
from torch.nn import functional as F

from vggrepro import paper
from vggrepro.exchange import exporting
from vggrepro.exchange.formats import protobuf


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


SIZES = [("C", 56, 32), ("A-LRN", 80, 32), ("D", 112, 16), ("A-LRN", 56, 8), ("B", 60, 8)]


@pytest.mark.parametrize(("net", "crop", "stride"), [*((net, 64, 32) for net in paper.NETS), *SIZES])
def test_caffes_net_gives_our_posteriors(tmp_path: Path, net: str, crop: int, stride: int) -> None:
    """The weights as protobuf's package reads them, in the net of the prototxt, on BGR."""
    run = small(tmp_path, net, crop, stride, input_scale=0.5 if net == "A-LRN" else 0.0172)
    model, prototxt, _ = exporting.export(run, "caffe")
    message = PACKED["NetParameter"].FromString(model.read_bytes())  # type: ignore[attr-defined]
    assert len(UnknownFieldSet(message)) == 0
    blobs = {
        layer.name: [torch.tensor(blob.data).view(*blob.shape.dim) for blob in layer.blobs] for layer in message.layer
    }
    assert [layer.type for layer in message.layer if layer.name == "fc6"] == ["InnerProduct"]
    images, config = pixels(1, crop, crop), run.config()
    bgr = images[..., ::-1].astype(np.float32) - np.array(config.mean_rgb[::-1], np.float32)
    x = torch.from_numpy((bgr * np.float32(config.input_scale)).transpose(0, 3, 1, 2).copy())
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
    encoded = protobuf.varint_bytes(value)
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded)) == value
    assert all(byte & 0x80 for byte in encoded[:-1]) and not encoded[-1] & 0x80


@pytest.mark.skipif(importlib.util.find_spec("cv2") is None, reason="OpenCV is not installed")
def test_documented_caffe_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small(tmp_path)
    exporting.export(run, "caffe")
    Image.fromarray(pixels(1, 64, 64)[0]).save(run.path / "export" / "cat.png")
    monkeypatch.chdir(run.path / "export")
    found: dict[str, Any] = {}
    exec(snippet("Caffe", run).replace("cat.jpg", "cat.png"), found)
    np.testing.assert_allclose(found["posterior"], ours(run, pixels(1, 64, 64)), atol=1e-5)
