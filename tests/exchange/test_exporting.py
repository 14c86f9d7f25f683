"""What export writes comes back bit by bit; what it refuses; its command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from exports import NAMES, small
from typer.testing import CliRunner

from vggrepro import paper
from vggrepro.cli import app
from vggrepro.errors import InputError
from vggrepro.exchange import exporting
from vggrepro.exchange.formats import read
from vggrepro.nets import weights
from vggrepro.paper import Architecture
from vggrepro.system.files import read_json, sha256, write_json


@pytest.mark.parametrize("net", paper.NETS)
@pytest.mark.parametrize(
    ("crop", "stride", "least"), [(64, 32, 1), (56, 32, 1), (56, 8, 1), (112, 16, 1), (28, 4, 1), (28, 4, 9)]
)
@pytest.mark.parametrize("to", ["safetensors", "onnx", "caffe"])
def test_an_export_comes_back_bit_by_bit(tmp_path: Path, net: str, crop: int, stride: int, least: int, to: str) -> None:
    recipe = {"lrn": "caffe", "resample": "bicubic"}
    run = small(tmp_path, net, crop, stride, scale="256:512", recipe=recipe, min_channels=least)
    files = exporting.export(run, to)
    back, was = read(files[0], net), weights.load(run.weights_path)[0]
    assert back.tensors.keys() == was.keys()
    for name, tensor in was.items():
        assert torch.equal(back.tensors[name], tensor), name
    assert (back.mean_rgb, back.input_scale) == ((110.0, 120.0, 90.0), 0.0172)
    assert back.architecture == Architecture(net, 6, crop, 1 / 32, stride, least)
    assert back.scale == "256:512"
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
    with pytest.raises(
        InputError, match=r"net\.prototxt is also the name of a file that goes beside the weights; give"
    ):
        exporting.export(run, "caffe", tmp_path / "net.prototxt")


def test_an_unfinished_run_a_wrong_format_and_dense_weights(tmp_path: Path) -> None:
    run = small(tmp_path)
    with pytest.raises(InputError, match="--to keras: choose one of torchvision, timm, safetensors, onnx, caffe"):
        exporting.export(run, "keras")
    with pytest.raises(InputError, match="--dense is for --to onnx; caffe holds weights"):
        exporting.export(run, "caffe", dense=True)
    write_json(run.config_path, read_json(run.config_path) | {"classes": 7})
    with pytest.raises(
        InputError, match=r"fc8\.weight has shape .*, the net of its config\.json has .*; restore the file"
    ):
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
