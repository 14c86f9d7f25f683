"""The Keras reader against files that h5py writes in the layouts of Keras 1 to 3."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from peers import SMALL, caffe_forward, image, our_scores, random_weights, relative

from vggrepro.errors import InputError
from vggrepro.exchange.formats import hdf5_file, read
from vggrepro.exchange.importing import import_weights
from vggrepro.paper import Architecture

h5py = pytest.importorskip("h5py")

SIDE = SMALL["crop"] // 32


def kernels(blobs: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Keras's layers from Caffe's blobs: (h, w, in, out) kernels, fc1's inputs flattened (h, w, channel)."""
    result = {}
    for name in dict.fromkeys(key.rpartition(".")[0] for key in blobs):
        weight, bias = blobs[f"{name}.weight"], blobs[f"{name}.bias"]
        if name.startswith("conv"):
            layer, kernel = f"block{name[4]}_conv{name[6]}", weight.transpose(2, 3, 1, 0)
        else:
            layer, kernel = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}[name], weight.T
        if name == "fc6":
            kernel = weight.reshape(len(weight), -1, SIDE, SIDE).transpose(2, 3, 1, 0).reshape(-1, len(weight))
        result[layer] = np.ascontiguousarray(kernel), bias
    return result


def write_legacy(path: Path, blobs: dict[str, np.ndarray], version: int = 1, model: bool = False) -> Path:
    """Weights as Keras 1 (`block1_conv1_W_1:0`) and 2 (`block1_conv1/kernel:0`) write them, or a whole model's."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if model else file
        layers = kernels(blobs)
        root.attrs["layer_names"] = [b"input_1", *(name.encode() for name in layers), b"flatten"]
        root.create_group("input_1").attrs["weight_names"] = []
        for layer, (kernel, bias) in layers.items():
            names = [f"{layer}_W_1:0", f"{layer}_b_1:0"] if version == 1 else [f"{layer}/kernel:0", f"{layer}/bias:0"]
            group = root.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in names]
            group[names[0]], group[names[1]] = kernel, bias
        if model:
            file.create_group("optimizer_weights")["block1_conv1/momentum"] = np.zeros((3, 3, 3, 1))
    return path


def write_keras3(path: Path | io.BytesIO, blobs: dict[str, np.ndarray], named: bool = True) -> None:
    """`model.weights.h5` of Keras 3: groups by kind, `vars/0` and `vars/1`, the layer's name as an attribute."""
    with h5py.File(path, "w") as file:
        counts = {"conv2d": 0, "dense": 0}
        for layer, (kernel, bias) in kernels(blobs).items():
            kind = "conv2d" if kernel.ndim == 4 else "dense"
            group = file.create_group(f"layers/{kind}_{counts[kind]}".removesuffix("_0") + "/vars")
            counts[kind] += 1
            group["0"], group["1"] = kernel, bias
            if named:
                group.attrs["name"] = layer


def write_zip(path: Path, blobs: dict[str, np.ndarray]) -> Path:
    data = io.BytesIO()
    write_keras3(data, blobs)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", data.getvalue())
    return path


@pytest.fixture(scope="module")
def small() -> dict[str, np.ndarray]:
    """D for 7 classes, in Caffe's layout (BGR)."""
    return random_weights("D", 7, **SMALL)


LAYOUTS = ("keras 1", "keras 2", "whole model", "keras 3", "keras 3, unnamed", ".keras")


def write(path: Path, blobs: dict[str, np.ndarray], layout: str) -> Path:
    if layout == ".keras":
        return write_zip(path, blobs)
    if layout.startswith("keras 3"):
        write_keras3(path, blobs, named=layout == "keras 3")
        return path
    return write_legacy(path, blobs, 1 if layout == "keras 1" else 2, model=layout == "whole model")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_bit_by_bit(small: dict[str, np.ndarray], tmp_path: Path, layout: str) -> None:
    foreign = read(write(tmp_path / "weights", small, layout), "D")
    assert (foreign.format, foreign.architecture) == ("Keras", Architecture("D", 7, 64, 1 / 64))
    assert foreign.mean_rgb == (123.68, 116.779, 103.939)
    for name, values in small.items():
        expected = np.ascontiguousarray(values[:, ::-1] if name == "conv1_1.weight" else values)
        assert foreign.tensors[name].numpy().tobytes() == expected.tobytes(), name
    by_order = "its layers have other names than Keras's VGG and were taken in their order"
    assert (by_order in foreign.notes) == (layout == "keras 3, unnamed")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("convs", ["block1_conv1", "conv2d"])
def test_a_net_in_a_sequential_is_read_from_h5(
    small: dict[str, np.ndarray], tmp_path: Path, version: int, convs: str
) -> None:
    """`Sequential([VGG16(include_top=False), Flatten(), Dense, Dense, Dense])`, saved as .h5 by Keras 2 or 3."""
    layers, path = kernels(small), tmp_path / "tuned.h5"
    heads = dict(zip(("fc1", "fc2", "predictions"), ("dense", "dense_1", "dense_2"), strict=True))
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = ["vgg16", "flatten", *heads.values()]
        names: dict[str, list[str]] = {"vgg16": [], "flatten": []}
        for number, (layer, parts) in enumerate(layers.items()):
            own = heads.get(layer, layer if convs != "conv2d" else f"conv2d_{100 - number}")
            group = root.require_group(heads.get(layer, "vgg16"))
            for name, values in zip(("kernel", "bias"), parts, strict=True):
                place = f"{own}/{name}:0" if version == 2 else f"sequential/{own}/{name}"
                names.setdefault(group.name.rpartition("/")[2], []).append(place)
                group[place] = values
        for group, places in names.items():
            root.require_group(group).attrs["weight_names"] = places
    foreign = read(path, "D")
    for name, values in small.items():
        expected = np.ascontiguousarray(values[:, ::-1] if name == "conv1_1.weight" else values)
        assert foreign.tensors[name].numpy().tobytes() == expected.tobytes(), name
    assert "its layers have other names than Keras's VGG and were taken in their order" in foreign.notes


@pytest.mark.parametrize("net", ["D", "E"])
def test_scores_are_those_of_an_independent_pass(tmp_path: Path, net: str) -> None:
    """With Keras's own preprocessing: BGR minus 103.939, 116.779, 123.68."""
    blobs = random_weights(net, 7, **SMALL, seed=8)
    path = write_legacy(tmp_path / "weights.h5", blobs)
    folder = import_weights(net, path, tmp_path / "runs", name="peer").path
    pixels = image(SMALL["crop"])
    bgr = pixels[:, :, ::-1].transpose(2, 0, 1) - np.array([103.939, 116.779, 123.68])[:, None, None]
    assert relative(our_scores(folder, pixels), caffe_forward(net, blobs, bgr)) < 1e-5


def test_what_is_not_the_net_is_named(small: dict[str, np.ndarray], tmp_path: Path) -> None:
    place = tmp_path / "x.h5"

    def complaint(net: str = "D") -> str:
        with pytest.raises(InputError) as error:
            read(place, net)
        assert "\n" not in str(error.value)
        return str(error.value).removeprefix(f"{place}: ")

    write_legacy(place, small)
    assert complaint("E") == "holds net D, not E; import it as D"
    write_legacy(place, {name: values for name, values in small.items() if name.startswith("conv")})
    assert complaint() == (
        "lacks fc6.weight (6 of net D's 32 tensors, which look like those without FC layers ('notop')); "
        "give a whole file of net D"
    )
    with h5py.File(write_legacy(place, small), "r+") as file:
        group = file["block2_conv1"]
        group["gamma"], group["beta"] = np.zeros(2), np.zeros(2)
    assert complaint() == (
        "block2_conv1 has 4 tensors instead of a kernel and a bias; batch normalisation is not the paper's"
    )
    with h5py.File(write_legacy(place, small), "r+") as file:
        kernel = file["block1_conv1/block1_conv1_W_1:0"][()]
        del file["block1_conv1/block1_conv1_W_1:0"]
        file["block1_conv1/block1_conv1_W_1:0"] = kernel.transpose(3, 2, 0, 1)
    assert complaint() == "is of Theano's ordering, whose convolutions are mirrored; give the 'tf_dim_ordering' file"
    with h5py.File(place, "w") as file:
        file["x"] = 1.0
    assert complaint().startswith("lacks conv1_1.weight (32 of net D's 32 tensors")


def test_numbers_of_other_files_are_refused(small: dict[str, np.ndarray], tmp_path: Path) -> None:
    """HDF5 can point at any file of the machine, by links, external storage and virtual data sets."""
    secret, place = tmp_path / "secret", tmp_path / "x.h5"
    secret.write_bytes(bytes(64))
    name = "block1_conv1/block1_conv1_b_1:0"
    with h5py.File(write_legacy(place, small), "r+") as file:
        del file[name]
        file.create_dataset(name, (1,), "f4", external=[(str(secret), 0, 4)])
    with pytest.raises(InputError) as error:
        read(place, "D")
    assert str(error.value) == f"{place}: {name} lies in another file; give a file that is whole"
    with h5py.File(write_legacy(place, small), "r+") as file:
        del file[name]
        file[name] = h5py.ExternalLink(str(write_legacy(tmp_path / "other.h5", small)), name)
    with pytest.raises(InputError, match=r"lacks conv1_1\.bias"):
        read(place, "D")


def test_shapes_that_would_fill_the_memory_are_refused(small: dict[str, np.ndarray], tmp_path: Path) -> None:
    place = tmp_path / "x.h5"
    name = "fc2/fc2_W_1:0"
    with h5py.File(write_legacy(place, small), "r+") as file:
        del file[name]
        file.create_dataset(name, (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))  # 4 TB that take no room
    with pytest.raises(InputError, match="weights are more than 400,000,000; it is no net of Table 1"):
        read(place, "D")


def test_a_zip_bomb_is_refused(small: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "x.keras"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10_000_000))
    assert place.stat().st_size < 20_000
    monkeypatch.setattr(hdf5_file, "MAX_BYTES", 1_000_000)
    with pytest.raises(InputError) as error:
        read(place, "D")
    assert str(error.value) == f"{place}: model.weights.h5 would have 10,000,000 bytes, more than any net of Table 1"


@pytest.mark.parametrize("layout", ["keras 1", ".keras"])
def test_cut_files_are_named(small: dict[str, np.ndarray], tmp_path: Path, layout: str) -> None:
    data, place = write(tmp_path / "whole", small, layout).read_bytes(), tmp_path / "x"
    for end in (100, 3000, len(data) // 2, len(data) - 10):
        place.write_bytes(data[:end])
        with pytest.raises(InputError, match=r"is a damaged or cut (HDF5|zip) file"):
            read(place, "D")


@pytest.mark.parametrize("length", [0, 8, 2**64 - 16])
@pytest.mark.parametrize("kind", [".keras", ".h5"])
def test_a_heap_that_the_library_would_read_without_end(
    small: dict[str, np.ndarray], tmp_path: Path, kind: str, length: int
) -> None:
    inner = io.BytesIO()
    write_keras3(inner, small)
    data = inner.getvalue()
    assert read(write_keras_bytes(tmp_path / f"sound{kind}", data), "D").format == "Keras"
    first = data.index(b"GCOL") + 16  # the heap's first object: number, references, zeros, length
    number = (1 if length > 8 else 0).to_bytes(2, "little")
    bad = data[:first] + number + data[first + 2 : first + 8] + length.to_bytes(8, "little") + data[first + 16 :]
    with pytest.raises(InputError, match=rf"damaged or cut HDF5 file \(a heap with an object of {length:,} bytes\)"):
        read(write_keras_bytes(tmp_path / f"w{kind}", bad), "D")


def write_keras_bytes(path: Path, data: bytes) -> Path:
    """The bytes of an HDF5 file as a file, or packed as `.keras`."""
    if path.suffix == ".h5":
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.weights.h5", data)
    return path


def test_a_damaged_address_and_a_damaged_packed_part_are_named(small: dict[str, np.ndarray], tmp_path: Path) -> None:
    path, inner = tmp_path / "w.keras", io.BytesIO()
    write_keras3(inner, small)
    data = inner.getvalue()
    damaged = data[:48] + (2**63 + 5).to_bytes(8, "little") + data[56:]  # where the file ends: h5py's OverflowError
    for content, packing in ((damaged, zipfile.ZIP_STORED), (data, zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(path, "w", packing) as archive:
            archive.writestr("model.weights.h5", content)
        if packing == zipfile.ZIP_DEFLATED:
            packed = bytearray(path.read_bytes())
            packed[30 + len("model.weights.h5")] = 0xFF  # the first byte of the stream: zlib's error
            path.write_bytes(packed)
        with pytest.raises(InputError, match=r"is a damaged or cut HDF5 file \(.*\); download it again"):
            read(path, "D")


def test_h5py_is_asked_for_where_it_is_missing(
    small: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write_legacy(tmp_path / "x.h5", small)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError) as error:
        read(place, "D")
    assert str(error.value) == f"{place}: needs h5py; install it with: pip install 'vggrepro[keras]'"
