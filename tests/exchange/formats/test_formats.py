"""Reading torchvision's, timm's, ONNX and our own files: against the peers' passes, and what is refused."""

from __future__ import annotations

import io
import os
import pickle
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from nets import random_run
from peers import SMALL, caffe_forward, image, random_weights, relative
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.exchange import exporting, formats
from vggrepro.exchange.formats import published, read
from vggrepro.exchange.formats import timm as timm_format
from vggrepro.exchange.formats import torchvision as torchvision_format
from vggrepro.exchange.formats.base import IMAGENET_MEAN, IMAGENET_STD, Foreign
from vggrepro.nets import weights
from vggrepro.nets.trained import Trained
from vggrepro.nets.vgg import VGG, to_input
from vggrepro.paper import Architecture
from vggrepro.system.files import write_json

GUESS = "the file does not say its preprocessing: RGB with mean 0.485, 0.456, 0.406 and deviation 0.229, 0.224, 0.225"


OLD = {"classifier.0": "classifier.1", "classifier.3": "classifier.4"}  # torchvision's FC layers before 2017


def drawn(net: str, width: float = 1.0, crop: int = 224, classes: int = 6) -> dict[str, Tensor]:
    """Random weights in our names that keep a signal alive."""
    generator, result = torch.Generator().manual_seed(0), {}
    for name, shape in Architecture(net, classes, crop, width).shapes().items():
        deviation = (2 / np.prod(shape[1:])) ** 0.5 if name.endswith("weight") else 0.1
        result[name] = torch.empty(shape).uniform_(-1, 1, generator=generator) * (3**0.5 * deviation)
    return result


def as_torchvision(tensors: dict[str, Tensor], net: str) -> dict[str, Tensor]:
    return {theirs: tensors[own] for own, theirs in torchvision_format.names(net).items()}


def as_timm(tensors: dict[str, Tensor], net: str) -> dict[str, Tensor]:
    result = {theirs: tensors[own] for own, theirs in timm_format.names(net).items()}
    fc6, fc7 = result["pre_logits.fc1.weight"], result["pre_logits.fc2.weight"]
    side = int((fc6.shape[1] // tensors[f"conv5_{len(paper.blocks(net)[4])}.bias"].numel()) ** 0.5)
    result["pre_logits.fc1.weight"] = fc6.view(len(fc6), -1, side, side)
    result["pre_logits.fc2.weight"] = fc7[:, :, None, None]
    return result


@pytest.fixture
def small() -> dict[str, Tensor]:
    return drawn("B", 1 / 32, 64)


def scores(foreign: Foreign, pixels: np.ndarray) -> Tensor:
    """Our scores of uint8 crops (N, H, W, 3) by an import's weights and preprocessing."""
    model = VGG.of(foreign.architecture, foreign.lrn)
    weights.into(model, foreign.tensors, foreign.place)
    with torch.inference_mode():
        return model(to_input(torch.from_numpy(pixels), torch.tensor(foreign.mean_rgb), foreign.input_scale))


# Against the peers at full size


@pytest.fixture(scope="module")
def large() -> Iterator[tuple[Path, dict[str, Tensor]]]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder), drawn("A")


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["torchvision", "timm"])
def test_scores_are_the_peers(large: tuple[Path, dict[str, Tensor]], peer: str) -> None:
    """Their nets and their own test transforms, on an image; ours on the crop that those see."""
    folder, tensors = large
    with torch.device("meta"):
        theirs = torchvision.models.vgg11(num_classes=6) if peer == "torchvision" else timm.create_model("vgg11")
        if peer == "timm":
            theirs.reset_classifier(6)
    state = (as_torchvision if peer == "torchvision" else as_timm)(tensors, "A")
    theirs.load_state_dict(state, assign=True)
    theirs.eval()
    path = folder / "weights.pth"
    if peer == "torchvision":
        torch.save(theirs.state_dict(), path)
        transform = torchvision.models.VGG11_Weights.IMAGENET1K_V1.transforms()
    else:
        path = path.with_suffix(".safetensors")
        save_file(theirs.state_dict(), path)
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)).resize((341, 256))
    with torch.inference_mode():
        expected = theirs(transform(image)[None])
    foreign = read(path, "A")
    path.unlink()
    left = round((341 - 224) / 2)
    crop = np.asarray(image)[16:240, left : left + 224][None].copy()
    difference = (scores(foreign, crop) - expected).abs().max() / expected.abs().max()
    assert difference < 1e-5
    assert (foreign.architecture, foreign.known) == (Architecture("A", 6), False)
    assert foreign.notes == (GUESS + " is taken",)
    assert foreign.format == peer


# Layouts and wrappers, at a small size


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"model": {f"_orig_mod.{name}": value for name, value in state.items()}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"state_dict": {f"_orig_mod.module.module.{name}": value for name, value in state.items()}},
        lambda state: {name.replace("features.", "features.module."): value for name, value in state.items()},
        lambda state: {f"model.net.{name.replace('features.', 'features.module.')}": v for name, v in state.items()},
        lambda state: {f"{'backbone.' * name.startswith('features')}{name}": value for name, value in state.items()},
        lambda state: {f"learner.vgg16.{name}": value for name, value in state.items()},
        lambda state: {OLD.get(name[:12], name[:12]) + name[12:]: value for name, value in state.items()},
    ],
    ids=[
        "plain",
        "DataParallel",
        "compiled",
        "nested",
        "compiled twice parallel",
        "features parallel",
        "Lightning",
        "a backbone",
        "prefixes that nobody knows",
        "torchvision before 2017",
    ],
)
def test_every_way_of_saving(tmp_path: Path, small: dict[str, Tensor], wrap: Any, zipped: bool) -> None:
    torch.save(wrap(as_torchvision(small, "B")), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    foreign = read(tmp_path / "w.pth", "b")
    assert (foreign.architecture, foreign.format) == (Architecture("B", 6, 64, 1 / 32), "torchvision")
    for name, tensor in small.items():
        if name != "conv1_1.weight":
            assert torch.equal(foreign.tensors[name], tensor), name


@pytest.mark.parametrize(("net", "twin"), [("A", "vgg11"), ("B", "vgg13"), ("D", "vgg16"), ("E", "vgg19")])
def test_each_nets_tensors_go_to_the_layers_that_torchvision_gives_them(tmp_path: Path, net: str, twin: str) -> None:
    """The order of torchvision's own modules, without our table of names: all values, and scores by its layers."""
    tensors = drawn(net, 1 / 32, 64)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(twin)
    names = list(theirs.state_dict())
    assert len(names) == len(tensors)
    torch.save(dict(zip(names, tensors.values(), strict=True)), tmp_path / "w.pth")
    foreign = read(tmp_path / "w.pth", net)
    deviation = torch.tensor(IMAGENET_STD, dtype=torch.float64)[:, None, None]
    tensors["conv1_1.weight"] = (tensors["conv1_1.weight"].double() / deviation).float()
    assert list(foreign.tensors) == list(tensors)
    assert all(torch.equal(foreign.tensors[name], tensor) for name, tensor in tensors.items())
    pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8)
    x = to_input(torch.from_numpy(pixels), torch.tensor(foreign.mean_rgb), foreign.input_scale)
    values = iter(tensors.values())
    for layer in theirs.features:
        x = nn.functional.conv2d(x, next(values), next(values), padding=1) if hasattr(layer, "weight") else layer(x)
    for layer in theirs.classifier:
        x = nn.functional.linear(x.flatten(1), next(values), next(values)) if hasattr(layer, "weight") else x.relu()
    torch.testing.assert_close(scores(foreign, pixels), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("kind", [".pth", ".safetensors"])
def test_timms_layout(tmp_path: Path, small: dict[str, Tensor], kind: str, prefix: str) -> None:
    path = tmp_path / f"w{kind}"
    state = {prefix + name: tensor for name, tensor in as_timm(small, "B").items()}
    (torch.save if kind == ".pth" else save_file)(state, path)
    foreign = read(path, "B")
    assert foreign.format == "timm"
    assert all(torch.equal(foreign.tensors[n], tensor) for n, tensor in small.items() if n != "conv1_1.weight")


def test_the_deviation_is_folded(tmp_path: Path, small: dict[str, Tensor]) -> None:
    """By hand, in numpy: w / std, on pixels of 0 to 1."""
    torch.save(as_torchvision(small, "B"), tmp_path / "w.pth")
    foreign = read(tmp_path / "w.pth", "B")
    expected = small["conv1_1.weight"].double().numpy() / np.array(IMAGENET_STD)[:, None, None]
    np.testing.assert_array_equal(foreign.tensors["conv1_1.weight"], expected.astype(np.float32))
    assert foreign.input_scale == 1 / 255
    np.testing.assert_allclose(foreign.mean_rgb, 255 * np.array(IMAGENET_MEAN))


def test_timms_config_beside_the_file_is_used(tmp_path: Path, small: dict[str, Tensor]) -> None:
    save_file(as_timm(small, "B"), tmp_path / "model.safetensors")
    described = {"architecture": "vgg13", "pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}}
    write_json(tmp_path / "config.json", described)
    foreign = read(tmp_path / "model.safetensors", "B")
    assert foreign.mean_rgb == (127.5, 102.0, 76.5)
    assert foreign.input_scale == 1 / (255 * 0.2)
    assert torch.equal(foreign.tensors["conv1_1.weight"], small["conv1_1.weight"])  # equal deviations: a scale does it
    assert foreign.notes == ()


def test_half_precision_becomes_float32(tmp_path: Path, small: dict[str, Tensor]) -> None:
    torch.save({name: value.half() for name, value in as_torchvision(small, "B").items()}, tmp_path / "w.pth")
    foreign = read(tmp_path / "w.pth", "B")
    assert torch.equal(foreign.tensors["fc8.weight"], small["fc8.weight"].half().float())


def test_published_files_are_known_by_their_hash(
    tmp_path: Path, small: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(as_torchvision(small, "B"), tmp_path / "w.pth")
    digest = formats.WeightsFile(tmp_path / "w.pth").sha256
    assert {file.sha256 for file in published.FILES} >= {"8a719046", "19584684", "397923af", "dcbb9e9d"}
    known = published.Release("B", "trained elsewhere: torchvision's vgg13", digest[:8], scale=None)
    monkeypatch.setattr(published, "FILES", (known,))
    foreign = read(tmp_path / "w.pth", "B")
    assert (foreign.known, foreign.origin, foreign.notes) == (True, known.origin, ())
    assert foreign.hashes == {"sha256": digest}


# Refusals


def refused(path: Path, net: str = "B") -> str:
    with pytest.raises(InputError) as caught:
        read(path, net)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


def test_pickles_are_not_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    expected = (
        "FILE: holds more than weights: Python objects, which could run any code when loaded; save its state_dict() "
        "with torch.save, or as safetensors, and give that file"
    )
    for number, zipped in enumerate((True, False)):
        torch.save({"features.0.weight": Bomb()}, tmp_path / f"{number}.pth", _use_new_zipfile_serialization=zipped)
        assert refused(tmp_path / f"{number}.pth") == expected
    torch.save(VGG("A", 2, 32, 1 / 64), tmp_path / "whole.pth")
    assert refused(tmp_path / "whole.pth") == expected
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Bomb()))
    assert "FILE: " in refused(tmp_path / "plain.pkl")
    assert not (tmp_path / "executed").exists()


def test_batch_normalisation_and_other_nets(tmp_path: Path, small: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        bn = torchvision.models.vgg11_bn(num_classes=2).state_dict()
    torch.save({name: torch.zeros(1) for name in bn}, tmp_path / "bn.pth")
    expected = "FILE: has batch normalisation, which the paper's nets have not; give the net without '_bn'"
    assert refused(tmp_path / "bn.pth") == expected
    torch.save(as_torchvision(small, "B"), tmp_path / "w.pth")
    assert refused(tmp_path / "w.pth", "D") == "FILE: holds net B, not D; import it as B"
    for net in ("A-LRN", "C", "B-5x5"):
        assert refused(tmp_path / "w.pth", net) == f"FILE: torchvision and timm have A, B, D and E only, not {net}"
    assert refused(tmp_path / "w.pth", "F").startswith("unknown net 'F'")


def test_parts_wrong_shapes_and_no_state_dict(tmp_path: Path, small: dict[str, Tensor]) -> None:
    state, path = as_torchvision(small, "B"), tmp_path / "w.pth"
    torch.save({name: value for name, value in state.items() if name.startswith("features")}, path)
    assert refused(path) == (
        "FILE: lacks fc6.weight (6 of net B's 26 tensors, which look like those without FC layers ('notop')); "
        "give a whole file of net B"
    )
    torch.save(state | {"classifier.3.bias": torch.zeros(3)}, path)
    assert refused(path).startswith("FILE: fc7.bias ")
    expanded = torch.zeros(1).expand(10**6, 10**6)  # a terabyte, were it copied
    torch.save(state | {"classifier.0.weight": expanded}, path)
    assert refused(path).startswith("FILE: 1,000,000,026,740 weights are more than")
    torch.save([1, 2], path)
    assert refused(path).startswith("FILE: holds no state dict (names and tensors)")
    torch.save(state | {"classifier.6.bias": torch.full((6,), torch.nan)}, path)
    assert refused(path) == "FILE: fc8.bias holds values that are no finite numbers; download the file again"


def test_other_names_stand_beside_the_expected_ones(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = tmp_path / "w.pth"
    torch.save({f"conv_{number}": tensor for number, tensor in enumerate(small.values())}, path)
    assert refused(path) == (
        "FILE: has conv_0, conv_1, conv_2, … where net B has features.0.weight, features.0.bias, features.2.weight, …; "
        "give a file with torchvision's or timm's names, or rename them so"
    )
    state = as_torchvision(small, "B")
    state["classifier.6.1.weight"] = state.pop("classifier.6.weight")
    torch.save(state, path)
    assert refused(path).startswith("FILE: has classifier.6.1.weight where net B has classifier.6.weight; give a file")
    torch.save({f"{net}.{name}": value for net in ("model", "net") for name, value in state.items()}, path)
    assert refused(path) == (
        "FILE: has two tensors features.0.weight under different prefixes; save the state_dict() of one net and give "
        "that"
    )


def test_features_without_their_classifier(tmp_path: Path, small: dict[str, Tensor]) -> None:
    """torchvision's IMAGENET1K_FEATURES has FC layers that are NaN."""
    state = as_torchvision(small, "B")
    nan = {name: torch.full_like(value, torch.nan) for name, value in state.items() if name.startswith("classifier")}
    torch.save(state | nan, tmp_path / "w.pth")
    assert refused(tmp_path / "w.pth") == (
        "FILE: holds the features only: its FC layers are no numbers (NaN), as in torchvision's IMAGENET1K_FEATURES; "
        "give a whole file of net B"
    )


@pytest.mark.parametrize(
    "odd", [torch.zeros(6).to_sparse(), torch.zeros(6, dtype=torch.complex64), torch.zeros(6, device="meta")]
)
def test_tensors_without_plain_numbers(tmp_path: Path, small: dict[str, Tensor], odd: Tensor) -> None:
    torch.save(as_torchvision(small, "B") | {"classifier.6.bias": odd}, tmp_path / "w.pth")
    expected = "FILE: classifier.6.bias holds no plain numbers; save it as float32"
    assert refused(tmp_path / "w.pth") == expected


def test_a_zip_that_was_compressed_is_refused(tmp_path: Path, small: dict[str, Tensor]) -> None:
    """Its weights would be read as the compressed bytes, and a megabyte may unpack to gigabytes."""
    torch.save(as_torchvision(small, "B"), tmp_path / "w.pth")
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(tmp_path / "w.pth") as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert refused(packed) == "FILE: was packed again, compressed; give the file as torch.save wrote it"


def test_timms_kernels_of_other_shapes(tmp_path: Path, small: dict[str, Tensor]) -> None:
    state, path = as_timm(small, "B"), tmp_path / "w.pth"
    for shape in ((3,), ()):
        torch.save(state | {"pre_logits.fc1.weight": torch.zeros(shape)}, path)
        assert refused(path) == "FILE: its tensors have shapes that are no net's; give a whole file of net B"
    repeated = torch.zeros(2, 1).as_strided((10**6, 2, 10**6), (0, 1, 0))  # eight terabytes, were it flattened
    torch.save(state | {"pre_logits.fc1.weight": repeated}, path)
    assert " weights are more than 400,000,000; it is no net of Table 1" in refused(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"resample": "nearest"}, "resample is none of bilinear, bicubic; restore it from the export"),
        ({"lrn": "none"}, "lrn is none of krizhevsky, caffe; restore it from the export"),
        ({"scale": "large"}, "lacks or damages --scale 'large' is not a scale; give S such as 256, or MIN:MAX"),
        ({"stride": 0}, "lacks or damages stride = 0; choose"),
        ({"crop": 20}, "lacks or damages crop = 20; the poolings need at least"),
        ({"crop": float("inf")}, "lacks or damages cannot convert float infinity to integer; restore it"),
    ],
)
def test_side_cars_that_say_what_cannot_be(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    run = random_run(tmp_path / "A-256")
    path, beside, *_ = exporting.export(run, "caffe")[::2]
    write_json(beside, Trained.load(run).about() | change)
    assert refused(path, "A").startswith(f"FILE.json: {expected}")


def test_texts_nested_too_deep(tmp_path: Path) -> None:
    run = random_run(tmp_path / "A-256")
    path, beside, *_ = exporting.export(run, "caffe")[::2]
    beside.write_text("[" * 100_000)
    assert refused(path, "A").startswith("FILE.json: damaged JSON (maximum recursion depth exceeded")
    save_file({"conv1_1.weight": torch.zeros(1)}, tmp_path / "w.safetensors", {"state": "[" * 100_000})
    assert refused(tmp_path / "w.safetensors").startswith("FILE: damaged (maximum recursion depth exceeded")


@pytest.mark.parametrize("zipped", [True, False])
def test_cut_files(tmp_path: Path, small: dict[str, Tensor], zipped: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save(as_torchvision(small, "B"), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        assert refused(path).startswith("FILE: ")


def test_every_error_of_torchs_old_reader_is_a_line(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path, buffer = tmp_path / "w.pth", io.BytesIO()
    path.write_bytes(b"\x80\x02.")  # a pickle that takes from an empty stack: IndexError
    assert refused(path).endswith("is damaged or cut (pop from empty list); download it again")
    torch.save({"x": small["fc8.bias"]}, buffer, _use_new_zipfile_serialization=False)
    *_, key = re.findall(rb"[0-9]{6,}", buffer.getvalue())  # the storage's, in the list of those that follow
    at = buffer.getvalue().rindex(key)
    path.write_bytes(buffer.getvalue()[:at] + b"7" * len(key) + buffer.getvalue()[at + len(key) :])
    with pytest.raises(AssertionError):
        torch.load(path, weights_only=True)
    assert re.search(r"is damaged or cut \(.*\); download it again$", refused(path))


def test_cut_safetensors(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = tmp_path / "w.safetensors"
    save_file(as_torchvision(small, "B"), path)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        assert refused(path).startswith("FILE: damaged (")


# Our own


def test_a_runs_weights_take_its_config(tmp_path: Path) -> None:
    run = random_run(tmp_path / "A-LRN-384", net="A-LRN", scale="384", recipe={"lrn": "caffe", "resample": "bicubic"})
    foreign = read(run.weights_path, "A-LRN")
    assert (foreign.mean_rgb, foreign.input_scale, foreign.scale) == ((110.0, 120.0, 90.0), 0.0172, "384")
    assert (foreign.lrn, foreign.resample) == ("caffe", "bicubic")
    assert refused(run.weights_path, "A") == "FILE: holds net A-LRN, not A; import it as A-LRN"
    run.config_path.unlink()
    assert refused(run.weights_path, "A-LRN") == (
        "FILE: does not say its preprocessing (mean_rgb, input_scale); put the run's config.json beside it, or give a "
        "file that 'vggrepro export' wrote"
    )


def test_changed_contents_and_facts_are_named(tmp_path: Path) -> None:
    run = random_run(tmp_path / "A-256")
    (path,) = exporting.export(run, "safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert refused(path, "A").startswith("FILE: damaged (its contents do not have its hash); copy or download it")
    tensors, about = weights.load(run.weights_path)[0], Trained.load(run).about()
    weights.save(path, tensors, about | {"input_scale": "large"})
    assert refused(path, "A").startswith("FILE: lacks or damages could not convert string to float")
    weights.save(path, tensors, about | {"mean_rgb": [1, 2]})
    assert refused(path, "A").startswith("FILE: mean_rgb and input_scale are not finite numbers")


def test_onnx_graphs_of_others_and_damaged_ones(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    run = random_run(tmp_path / "A-256")
    (path,) = exporting.export(run, "onnx")
    assert refused(path, "D") == "FILE: holds net A, not D; import it as A"
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    expected = "FILE: is not a graph that 'vggrepro export' wrote; give the weights from which it was made instead"
    assert refused(path, "A") == expected
    path.write_bytes(path.read_bytes()[:-1000])
    assert refused(path, "A").startswith("FILE: ")


def test_onnx_tensors_that_are_damaged_or_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx")
    (path,) = exporting.export(random_run(tmp_path / "A-256"), "onnx")
    monkeypatch.chdir(tmp_path)  # onnx itself would look for other files here
    whole = path.read_bytes()

    def changed(**fields: Any) -> str:
        model = onnx.load_model_from_string(whole)
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "fc8.bias")
        for name, value in fields.items():
            setattr(tensor, name, value)
        tensor.external_data.add(key="location", value="weights.bin")
        path.write_bytes(model.SerializeToString())
        return refused(path, "A")

    assert changed(raw_data=b"1234").startswith("FILE: damaged (fc8.bias: ")
    assert changed(data_type=99).startswith("FILE: damaged (fc8.bias: 99")
    (tmp_path / "weights.bin").write_bytes(bytes(100))
    expected = "FILE: fc8.bias lies in another file; give a file that is whole"
    assert changed(data_location=onnx.TensorProto.EXTERNAL) == expected


# timm by name


def test_timm_by_name(monkeypatch: pytest.MonkeyPatch, small: dict[str, Tensor]) -> None:
    """All but the download: timm's own description, its state dict."""
    real, asked = timm.create_model, {}

    class Loaded:
        def __init__(self, name: str, pretrained: bool) -> None:
            asked[name] = pretrained
            with torch.device("meta"):
                self.pretrained_cfg = real(name, pretrained=False).pretrained_cfg

        def state_dict(self) -> dict[str, Tensor]:
            return as_timm(small, "B")

    monkeypatch.setattr(timm, "create_model", Loaded)
    foreign = read("timm:vgg13.tv_in1k", "B")
    assert asked == {"vgg13.tv_in1k": True}
    assert foreign.origin == "trained elsewhere: timm's vgg13.tv_in1k, not the paper's training"
    assert (foreign.place, foreign.notes, foreign.input_scale) == ("timm:vgg13.tv_in1k", (), 1 / 255)
    with pytest.raises(InputError, match=r"^timm:vgg13: holds net B, not E; import it as B$"):
        read("timm:vgg13", "E")
    for wrong in ("vgg16_bn.tv_in1k", "resnet18", "vgg16.unknown"):
        with pytest.raises(
            InputError, match=f"^timm:{wrong}: not one of timm's VGGs without batch normalisation; choose"
        ):
            read(f"timm:{wrong}", "D")


def test_timm_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, pretrained: bool) -> None:
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError) as caught:
        read("timm:vgg16.tv_in1k", "D")
    assert str(caught.value) == (
        "timm:vgg16.tv_in1k: could not be downloaded (We couldn't connect); download its model.safetensors where there "
        "is a network and give that file"
    )


# What a state dict's input is, and torchvision by name


def caffe_state(net: str = "B") -> tuple[dict[str, np.ndarray], dict[str, Tensor]]:
    """Weights for Caffe's input, as Caffe and as torchvision of 2016 name them."""
    blobs = random_weights(net, 6, **SMALL, seed=5)
    state = as_torchvision({name: torch.from_numpy(values) for name, values in blobs.items()}, net)
    return blobs, {OLD.get(name[:12], name[:12]) + name[12:]: value for name, value in state.items()}


def test_the_authors_net_converted_for_pytorch(tmp_path: Path) -> None:
    """With --input caffe it gives the scores of Caffe's own pass, from BGR 0-255 minus the mean."""
    blobs, state = caffe_state()
    torch.save(state, tmp_path / "vgg13.pth")
    pixels = image(SMALL["crop"])
    bgr = pixels[:, :, ::-1].transpose(2, 0, 1) - np.array([103.939, 116.779, 123.68])[:, None, None]
    expected = caffe_forward("B", blobs, bgr)
    foreign = read(tmp_path / "vgg13.pth", "B", "caffe")
    assert relative(scores(foreign, pixels[None])[0].numpy(), expected) < 1e-5
    assert (foreign.mean_rgb, foreign.input_scale, foreign.notes) == ((123.68, 116.779, 103.939), 1.0, ())
    foreign = read(tmp_path / "vgg13.pth", "B", "torchvision")
    assert relative(scores(foreign, pixels[None])[0].numpy(), expected) > 0.1
    assert foreign.notes == ()


def test_a_conversion_that_is_published_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(caffe_state()[1], tmp_path / "vgg13.pth")
    assert {file.sha256 for file in published.FILES if file.caffe} == {"00b39a1b", "d01eb7cb"}
    digest = formats.WeightsFile(tmp_path / "vgg13.pth").sha256
    known = published.Release("B", "trained elsewhere: the authors' converted", digest[:8], caffe=True)
    monkeypatch.setattr(published, "FILES", (known,))
    foreign = read(tmp_path / "vgg13.pth", "B")
    assert (foreign.known, foreign.scale, foreign.input_scale) == (True, "256:512", 1.0)
    assert foreign.mean_rgb == (123.68, 116.779, 103.939)


def test_the_authors_first_filter_warns(tmp_path: Path, small: dict[str, Tensor]) -> None:
    state, path = as_torchvision(small, "B"), tmp_path / "w.pth"
    state["features.0.weight"][0, :, 0, 0] = torch.tensor([0.43, 0.54, 0.49])  # fine-tuned a little
    torch.save(state, path)
    assert read(path, "B").notes[1:] == (
        "its first filter is that of the authors' net D, whose input is BGR 0-255 minus the mean: import it with "
        "--input caffe",
    )
    assert read(path, "B", "caffe").notes == read(path, "B", "torchvision").notes == ()


def test_input_is_for_state_dicts_that_do_not_say_it(tmp_path: Path) -> None:
    def complaint(path: Path | str) -> str:
        with pytest.raises(InputError) as caught:
            read(path, "A", "caffe")
        return str(caught.value).removeprefix(str(path))

    run = random_run(tmp_path / "A-256")
    for path in (exporting.export(run, "safetensors")[0], run.weights_path):
        assert complaint(path) == ": says itself what its input is; leave out --input"
    expected = ": --input is for state dicts of PyTorch, which this is not; leave it out"
    assert complaint(exporting.export(run, "caffe")[0]) == expected
    assert complaint("timm:vgg11.tv_in1k") == ": its input is known; leave out --input"


def test_torchvision_by_name(tmp_path: Path, small: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the download: torchvision's own address, the place in torch's cache, what fails."""
    asked = []

    def download(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        asked.append((url.rpartition("/")[2], hash_prefix))
        torch.save(as_torchvision(small, "B"), path)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):  # the second time it is there
        assert torch.equal(read("torchvision:vgg13", "B").tensors["fc8.bias"], small["fc8.bias"])
    assert asked == [("vgg13-19584684.pth", "19584684")]

    def complaint(name: str, net: str) -> str:
        with pytest.raises(InputError) as caught:
            read(name, net)
        return str(caught.value)

    assert complaint("torchvision:vgg16", "E") == "torchvision:vgg16: holds net D, not E; import it as D"
    assert complaint("torchvision:vgg16_bn", "D") == (
        "torchvision:vgg16_bn: not one of torchvision's VGGs without batch normalisation: vgg11, vgg13, vgg16, vgg19"
    )

    def fails(*_: object, **__: object) -> None:
        raise OSError("no network\nat all")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fails)
    assert complaint("torchvision:vgg16", "D") == (
        "torchvision:vgg16: could not be downloaded (no network); download vgg16-397923af.pth where there is a network "
        "and give that file"
    )
