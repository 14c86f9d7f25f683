"""Weights trained elsewhere become runs: names, marks, refusals, and the whole way to the tables."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import caffe_files
import numpy as np
import pytest
from conftest import Call
from peers import SMALL, image, our_scores, random_weights
from PIL import Image

from vggrepro.data import synsets
from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.exchange import importing
from vggrepro.exchange.formats import format_of, published
from vggrepro.exchange.formats.base import WeightsFile
from vggrepro.exchange.formats.published import Release
from vggrepro.exchange.importing import import_weights
from vggrepro.nets import weights
from vggrepro.paper import S256
from vggrepro.runs.folder import RunFolder
from vggrepro.runs.status import status as run_status
from vggrepro.system.files import read_json


def caffemodel(path: Path, net: str = "D", classes: int = 6, seed: int = 0) -> Path:
    return caffe_files.write(path, random_weights(net, classes, **SMALL, seed=seed))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """D for the 6 classes of `dataset`."""
    return caffemodel(tmp_path / "bird.caffemodel")


@pytest.fixture
def known(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`model` as if it were the authors' release."""
    file = Release(
        "D",
        "trained elsewhere: the authors' Caffe model VGG_ILSVRC_16_layers",
        md5=hashlib.md5(model.read_bytes()).hexdigest(),
    )
    monkeypatch.setattr(published, "FILES", (file,))
    return model


def test_a_published_file_is_the_papers_run(vggrepro: Call, known: Path) -> None:
    code, out, err = vggrepro("import", "d", str(known))
    assert (code, out) == (0, "runs/D-256-512\n")
    assert err == (
        "D-256-512: trained elsewhere: the authors' Caffe model VGG_ILSVRC_16_layers; "
        "next: vggrepro evaluate D-256-512\n"
    )
    run = RunFolder(Path("runs/D-256-512"))
    config = read_json(run.config_path)
    assert run.finished
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "lock", "weights.safetensors"]
    assert {name: config[name] for name in ("net", "scale", "crop", "width", "classes", "input_scale")} == {
        "net": "D",
        "scale": "256:512",
        "crop": 64,
        "width": 1 / 64,
        "classes": 6,
        "input_scale": 1.0,
    }
    assert config["mean_rgb"] == [123.68, 116.779, 103.939]
    imported = config["imported"]
    assert imported["sha256"] == hashlib.sha256(known.read_bytes()).hexdigest()
    assert imported["md5"] == hashlib.md5(known.read_bytes()).hexdigest()
    assert (imported["format"], imported["known"], imported["file"]) == ("Caffe", True, str(known))
    tensors, state = weights.load(run.weights_path, signed=True)
    assert (len(tensors), state) == (32, {"run": "D-256-512"})


def test_an_unknown_file_says_what_is_not_known(vggrepro: Call, model: Path) -> None:
    code, out, err = vggrepro("import", "D", str(model))
    assert (code, out) == (0, "runs/D-caffe\n")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()[:16]
    assert err.splitlines() == [
        "note: its mean and scale are not in the file: the authors' are taken (BGR 103.939, 116.779, 123.68; scale 1)",
        f"note: no published file has its hash (sha256 {digest}…): trained elsewhere: the Caffe model bird.caffemodel",
        "note: its training scale is not known: evaluate takes Q for S = 256; give it with --scale",
        "D-caffe: trained elsewhere: the Caffe model bird.caffemodel; next: vggrepro evaluate D-caffe",
    ]
    assert RunFolder(Path("runs/D-caffe")).config().scale == S256


def test_1000_classes_are_imagenets_in_the_order_of_wnids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = import_weights("A", caffemodel(tmp_path / "x", "A", 1000), tmp_path / "runs")
    assert run.config().class_names == tuple(synsets.table())
    assert (run.config().class_words or ("",))[0].startswith("tench")
    assert "note: its 1,000 classes are taken as ImageNet's in the order of wnids" in capsys.readouterr().err


def test_names_and_scales(model: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name, scale, expected in (
        (None, "384", ("D-384", "384")),
        ("mine", None, ("mine", "256")),
        ("mine-2", "256-512", ("mine-2", "256:512")),
        ("D-256-512", None, ("D-256-512", "256:512")),
        ("D-256-512-fc", None, ("D-256-512-fc", "256:512")),
    ):
        run = import_weights("D", model, runs, name, scale)
        config = run.config()
        assert (run.name, str(config.scale)) == expected
        assert config.fc_only == run.name.endswith("-fc")

    def complaint(name: str, scale: str | None = None) -> str:
        with pytest.raises(InputError) as error:
            import_weights("D", model, runs, name, scale)
        return str(error.value)

    assert complaint("E-256") == "--as E-256 is the paper's name for a run of net E, not D; give another"
    assert complaint("D-384", "256") == "--as D-384 has S = 384, --scale 256; give one of them"
    for name in ("a/b", "..", "-x"):
        assert complaint(name) == f"--as '{name}' is no name for a run; use letters, digits, '-', '_' and '.'"


def test_nothing_is_overwritten_unasked(vggrepro: Call, model: Path, tmp_path: Path) -> None:
    assert vggrepro("import", "D", str(model), "--as", "mine")[0] == 0
    path = Path("runs/mine/weights.safetensors")
    first = path.stat().st_mtime_ns
    code, out, err = vggrepro("import", "D", str(model), "--as", "mine")  # the same again
    assert (code, out) == (0, "runs/mine\n")
    assert err.splitlines()[-1] == "mine holds these weights already"
    assert path.stat().st_mtime_ns == first
    other = caffemodel(tmp_path / "other.caffemodel", seed=1)
    code, out, err = vggrepro("import", "D", str(other), "--as", "mine")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == (
        "vggrepro: runs/mine holds imported weights (trained elsewhere: the Caffe model bird.caffemodel); give another "
        "name with --as, or --replace"
    )
    assert path.stat().st_mtime_ns == first
    assert vggrepro("import", "D", str(other), "--as", "mine", "--replace")[0] == 0
    assert RunFolder(Path("runs/mine")).config().origin == "trained elsewhere: the Caffe model other.caffemodel"
    trained = Path("runs/D-384")
    trained.mkdir()
    own = {"net": "D", "scale": "384", "crop": 64, "width": 1, "classes": 6, "mean_rgb": [1, 2, 3], "input_scale": 1}
    (trained / "config.json").write_text(json.dumps(own))
    (trained / "checkpoint.safetensors").write_bytes(b"precious")
    code, _, err = vggrepro("import", "D", "nosuchfile", "--scale", "384")  # before the file is looked at
    assert (code, err) == (
        2,
        "vggrepro: runs/D-384 holds a run that was trained here; give another name with --as, or --replace\n",
    )
    assert (trained / "checkpoint.safetensors").read_bytes() == b"precious"


def test_replacing_keeps_the_former_run_until_the_new_one_is_finished(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, other = tmp_path / "runs", caffemodel(tmp_path / "other.caffemodel", seed=1)
    run = import_weights("D", model, runs, "mine")
    was = {path.name: path.read_bytes() for path in (run.config_path, run.weights_path)}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # at the worst moment: the old weights are gone, the new ones not there
        patch.setattr(importing, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            import_weights("D", other, runs, "mine", replace=True)
    assert not run.finished
    assert {path.name: path.read_bytes() for path in run.former_path.iterdir()} == was
    import_weights("D", other, runs, "mine", replace=True)
    assert run.finished
    assert run.config().origin == "trained elsewhere: the Caffe model other.caffemodel"
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "lock", "weights.safetensors"]


def test_a_folder_of_released_files(vggrepro: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is known by its hash, one by its name alone; another copy and other files are named."""
    folder = tmp_path / "released"
    folder.mkdir()
    by_hash = caffemodel(folder / "renamed.caffemodel")
    caffemodel(folder / "VGG_ILSVRC_19_layers.caffemodel", "E")
    caffemodel(folder / "vgg16_weights_tf_dim_ordering_tf_kernels.h5")
    (folder / "VGG_ILSVRC_19_layers_deploy.prototxt").write_text('name: "E"')
    caffemodel(folder / "mine.caffemodel", seed=3)
    ours = Release("D", "trained elsewhere: the authors' D", md5=hashlib.md5(by_hash.read_bytes()).hexdigest())
    monkeypatch.setattr(published, "FILES", (ours, *published.FILES))
    code, out, err = vggrepro("import", "released")
    assert (code, out) == (0, "runs/E-caffe\nruns/D-256-512\n")
    assert err.splitlines()[-2:] == [
        "left out, known neither by name nor by hash: VGG_ILSVRC_19_layers_deploy.prototxt, mine.caffemodel; give a "
        "net and one file: vggrepro import NET FILE",
        "left out, as the net was there already: vgg16_weights_tf_dim_ordering_tf_kernels.h5 (D); give one alone "
        "with --as",
    ]
    assert vggrepro("import", "released")[:2] == (0, "runs/E-caffe\nruns/D-256-512\n")  # again: nothing new
    for path in folder.glob("*_*"):
        path.unlink()
    by_hash.unlink()
    code, out, err = vggrepro("import", "released")
    assert (code, out) == (2, "")
    assert err == (
        "vggrepro: released: no released file of weights is known by its name or hash (there: mine.caffemodel); give a "
        "net and one file: vggrepro import NET FILE\n"
    )
    code, _, err = vggrepro("import", "D")
    assert (code, err) == (
        2,
        "vggrepro: D is no folder; give a net and a file of weights, or a folder of the authors' files\n",
    )
    code, _, err = vggrepro("import", "released", "--scale", "256")
    assert (code, err.splitlines()[-1]) == (
        2,
        "vggrepro: --as, --scale and --input are for one file of weights; leave them out for a folder",
    )


def test_a_failure_leaves_the_folder_as_it_was(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    import_weights("D", model, runs, "mine")
    before = {path.name: path.read_bytes() for path in (runs / "mine").iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(weights, "write", full)
        with pytest.raises(OSError, match="No space left"):
            import_weights("D", caffemodel(tmp_path / "y", seed=2), runs, "mine", replace=True)
        with pytest.raises(OSError, match="No space left"):
            import_weights("D", model, runs, "new")
    assert {path.name: path.read_bytes() for path in (runs / "mine").iterdir()} == before
    assert [path.name for path in (runs / "new").iterdir()] == ["lock"]
    (runs / "new" / "weights.safetensors.tmp").write_bytes(b"half")  # what a kill leaves
    assert import_weights("D", model, runs, "new").finished
    assert {path.name for path in (runs / "new").iterdir()} == {"config.json", "lock", "weights.safetensors"}


SLIPS = {
    b"": "is empty; download it again",
    bytes(100): "begins with zeros, as an unfinished download; download it again",
    b"\n<!DOCTYPE html><html>": (
        "is a web page, not weights; open the address in a browser and download the file itself"
    ),
    b"version https://git-lfs.github.com/spec/v1\n": (
        "is a pointer of Git LFS; fetch the file itself with 'git lfs pull'"
    ),
    b'name: "VGG_ILSVRC_16_layers"\ninput: "data"\n': (
        "is a prototxt, the net without its weights; give the .caffemodel"
    ),
    b"\x1f\x8b\x08" + bytes(50): "is an archive; unpack it and give the file of weights inside",
    b"PK\x03\x04" + bytes(50): "is a damaged or cut zip file (File is not a zip file); download it again",
    b"hello, world": (
        "its format is not known; give a .caffemodel, MatConvNet's .mat, Keras's .h5 or .keras, a state dict of "
        "torchvision or timm, ONNX or safetensors"
    ),
}


@pytest.mark.parametrize("content", SLIPS)
def test_files_that_are_no_weights_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "VGG_ILSVRC_16_layers.caffemodel"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        import_weights("D", path, tmp_path / "runs")
    assert str(error.value) == f"{path}: {SLIPS[content]}"
    assert not (tmp_path / "runs").exists()


def test_places_that_are_no_files(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path, "is a folder; give a file of weights"),
        (tmp_path / "x", "does not exist; give a file of weights, timm:NAME or torchvision:NAME"),
        ("https://host/x.pth", "is an address; download the file and give its path"),
    ):
        with pytest.raises(InputError) as error:
            import_weights("D", path, tmp_path / "runs")
        assert str(error.value) == f"{path} {message}"


def test_contents_and_not_names_tell_the_format(model: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "weights.h5"
    wrong.write_bytes(model.read_bytes())
    assert format_of(WeightsFile(wrong)) == "caffe"
    wrong.write_bytes(b"\x08\x07\x12\x02xy\x3a\x02\x08\x01")  # ir_version 7, producer_name, graph
    assert format_of(WeightsFile(wrong)) == "onnx"
    wrong.write_bytes(b"MATLAB 5.0 MAT-file".ljust(126) + b"IM")
    assert format_of(WeightsFile(wrong)) == "matconvnet"
    wrong.write_bytes(bytes(512) + b"\x89HDF\r\n\x1a\n")
    wrong.write_bytes(b"x" + bytes(511) + b"\x89HDF\r\n\x1a\n")
    assert format_of(WeightsFile(wrong)) == "hdf5"
    wrong.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert format_of(WeightsFile(wrong)) == "safetensors"
    with zipfile.ZipFile(wrong, "w") as archive:
        archive.writestr("vgg16/data.pkl", b"")
    assert format_of(WeightsFile(wrong)) == "torch_file"
    with zipfile.ZipFile(wrong, "w") as archive:
        archive.writestr("cat.jpg", b"")
    with pytest.raises(InputError, match="is a zip file without weights; unpack it"):
        format_of(WeightsFile(wrong))


def test_the_whole_way_to_the_tables(vggrepro: Call, dataset: Dataset, known: Path) -> None:
    assert vggrepro("import", "D", str(known))[0] == 0
    options = ("--data", str(dataset.folder), "--precision", "fp32", "--workers", "1")
    code, out, _ = vggrepro("evaluate", "--dense", *options)
    assert code == 0
    assert "D-256-512" in out
    assert "256,384,512" in out
    code, report, _ = vggrepro("report", "--data", str(dataset.folder))
    assert code == 0
    mark = "D-256-512: trained elsewhere: the authors' Caffe model VGG_ILSVRC_16_layers."
    tables = report.split("## Table ")
    for number in ("3", "4", "5"):
        text = next(table for table in tables if table.startswith(number))
        assert mark in text, f"Table {number}"
    code, fused, _ = vggrepro("fuse", "D-256-512", "--data", str(dataset.folder))
    assert code == 0
    assert "D-256-512" in fused
    code, status, _ = vggrepro("status", "--data", str(dataset.folder))
    line = next(line.split() for line in status.splitlines() if line.split()[0] == "D-256-512")
    assert line[1] == "finished"
    assert "\nD-256-512: imported\n" in status
    assert "0" not in line  # no epoch of ours
    row = run_status(RunFolder(Path("runs/D-256-512")))
    assert (row.epoch, row.note) == ("", "imported")


def test_validation_images_alone_are_enough(vggrepro: Call, photos: Path, known: Path, tmp_path: Path) -> None:
    """prepare --val-only, import, evaluate, report, doctor; all that trains is refused, with nothing left behind."""
    shutil.copytree(photos / "val", tmp_path / "mine" / "val")
    code, out, err = vggrepro("prepare", "mine", "--preset", "demo")
    assert (code, out) == (2, "")
    assert err == (
        "vggrepro: prepare: 'mine' has a validation folder but no train/; put training images there, or give "
        "--val-only, which is enough to evaluate nets trained elsewhere\n"
    )
    code, out, _ = vggrepro("prepare", "mine", "--val-only", "--preset", "demo")
    assert (code, out) == (0, "data: mine, 6 classes, 18 val images, preset demo\n")
    code, out, _ = vggrepro("dataset", "--sheet", "sheet.png", "--verify")
    assert code == 0
    assert "no training images (--val-only): mean and covariance are the validation images'; for evaluation\n" in out
    refusal = (
        "vggrepro: data was prepared with --val-only and has no training images; to train, prepare all of the data to "
        "another folder and give it with --data\n"
    )
    for command in (("train", "D"), ("finetune-scale", "D", "--scale", "384"), ("reproduce",)):
        for more in ((), ("--dry-run",)):
            assert vggrepro(*command, *more, "--device", "cpu") == (2, "", refusal), command
    assert not Path("runs").exists() and not Path("tables").exists()
    assert vggrepro("import", "D", str(known))[0] == 0
    assert vggrepro("train", "D", "--scale", "256:512", "--device", "cpu") == (2, "", refusal)
    options = ("--precision", "fp32", "--workers", "1")
    code, out, _ = vggrepro("evaluate", "--center", "--q", "256", *options)
    assert (code, out.split()[-1]) == (0, "18")
    assert vggrepro("evaluate", "--dense", *options)[0] == 0
    code, out, _ = vggrepro("report")
    assert code == 0
    assert "Data: mine, 6 classes, 18 validation images (fingerprint " in out
    assert "18 validation images (the paper: 50,000)" in out
    assert "training images" not in out
    code, out, _ = vggrepro("report", "--format", "html")
    assert "<b>mine</b>: 6 classes, 18 validation images. Guessing has a top-1 error of 83.3&nbsp;%. Nets: 1 of " in out
    assert vggrepro("claims")[0] == vggrepro("fuse")[0] == vggrepro("fuse", "D-256-512")[0] == 0
    code, out, _ = vggrepro("doctor")
    assert code == 0
    assert "ok       data set      mine: 18 val; 6 classes, preset demo; " in out
    assert any(line.split()[1:2] == ["D-256-512"] for line in out.splitlines())


def test_another_number_of_classes_is_one_line(vggrepro: Call, dataset: Dataset, tmp_path: Path) -> None:
    path = caffemodel(tmp_path / "x.caffemodel", classes=1000)
    assert vggrepro("import", "D", str(path), "--scale", "256")[0] == 0
    code, out, err = vggrepro("evaluate", "--data", str(dataset.folder), "--workers", "1")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == (
        f"vggrepro: D-256 was trained for 1000 classes, {dataset.folder} has 6; name the run's data set with --data"
    )


def test_predict_takes_an_imported_run(vggrepro: Call, tmp_path: Path) -> None:
    path = caffemodel(tmp_path / "x.caffemodel", "A", 1000)
    assert vggrepro("import", "A", str(path), "--scale", "256", "--resample", "bicubic")[0] == 0
    Image.fromarray(image(90)).save("cat.png")
    code, out, _ = vggrepro("predict", "cat.png", "--run", "A-256", "--precision", "fp32")
    assert code == 0
    best = out.splitlines()[1].split()
    assert best[0] == "cat.png"
    assert any(word in synsets.table() for word in best)
    assert RunFolder(Path("runs/A-256")).config().recipe.values == {"resample": "bicubic", "lrn": "krizhevsky"}


def test_what_export_wrote_beside_a_caffemodel_is_its_preprocessing(model: Path, tmp_path: Path) -> None:
    about = {
        "format": "vggrepro",
        "run": "D-384",
        "net": "D",
        "scale": "384",
        "crop": 64,
        "mean_rgb": [1.0, 2.0, 3.0],
        "input_scale": 0.5,
        "resample": "bicubic",
        "class_names": list("abcdef"),
    }
    beside = model.with_name(model.name + ".json")
    beside.write_text(json.dumps(about))
    config = read_json(import_weights("D", model, tmp_path / "runs").config_path)
    assert config["mean_rgb"] == [1.0, 2.0, 3.0]
    assert (config["input_scale"], config["scale"], config["class_names"]) == (0.5, "384", list("abcdef"))
    assert config["recipe"]["resample"] == "bicubic"
    assert config["origin"] == "trained elsewhere: vggrepro's run D-384"
    assert np.isfinite(our_scores(tmp_path / "runs" / "D-384", image(64))).all()
    del about["mean_rgb"]
    beside.write_text(json.dumps(about))
    with pytest.raises(InputError, match="lacks or damages 'mean_rgb'; restore it from the export, or remove it"):
        import_weights("D", model, tmp_path / "runs2")
