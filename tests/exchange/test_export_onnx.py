"""Exported ONNX graphs, run by onnxruntime."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import ours, pixels, small, snippet
from nets import CPU
from PIL import Image

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.evaluation.evaluator import Evaluator
from vggrepro.exchange import exporting
from vggrepro.exchange.formats import onnx as onnx_format
from vggrepro.nets.trained import Trained
from vggrepro.posteriors.protocol import Method


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

    def wrong(trained: Trained, dense: bool) -> Any:
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


def test_documented_onnx_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    run = small(tmp_path)
    exporting.export(run, "onnx", dense=True)
    Image.fromarray(pixels(1, 110, 130)[0]).save(run.path / "export" / "cat.jpg", quality=95)
    monkeypatch.chdir(run.path / "export")
    found: dict[str, Any] = {}
    exec(snippet("ONNX", run), found)
    image = np.asarray(Image.open("cat.jpg"))
    expected = Evaluator(Trained.load(run), CPU).posteriors([image], Method("dense", True, 1))[0]
    np.testing.assert_allclose(found["posterior"][0], expected, atol=1e-5)
