"""The MatConvNet reader against files that scipy writes in MatConvNet's structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import SMALL, caffe_forward, image, our_scores, random_weights, relative
from scipy.io import savemat

from vggrepro.data import mat5, synsets
from vggrepro.errors import InputError
from vggrepro.exchange.formats import matconvnet, read
from vggrepro.exchange.formats.base import WeightsFile
from vggrepro.exchange.importing import import_weights
from vggrepro.paper import Architecture

MEAN = np.array([123.68, 116.779, 103.939], np.float32)  # RGB


def write(
    path: Path,
    ours: dict[str, np.ndarray],
    crop: int,
    *,
    old: bool = False,
    compress: bool = False,
    classes: list[str] | None = None,
    average: np.ndarray | None = MEAN[None, None],
    names: dict[str, str] | None = None,
    lrn: list[float] | None = None,
) -> Path:
    """A SimpleNN file: filters (h, w, in, out), fc6 as a convolution, a cell of layers of different kinds."""
    layers: list[dict[str, Any]] = []
    for name in dict.fromkeys(key.rpartition(".")[0] for key in ours):
        weight, bias = ours[f"{name}.weight"], ours[f"{name}.bias"]
        if weight.ndim == 2:
            side = crop // 32 if name == "fc6" else 1
            weight = weight.reshape(len(weight), -1, side, side)
        filters, biases = weight.transpose(2, 3, 1, 0), bias[None]
        layer: dict[str, Any] = {"name": (names or {}).get(name, name), "type": "conv", "stride": 1.0, "pad": 1.0}
        if old:
            layer |= {"filters": filters, "biases": biases}
        else:
            cell = np.empty((1, 2), object)
            cell[0, 0], cell[0, 1] = filters, biases
            layer["weights"] = cell
        layers += [layer, {"name": f"relu{name}", "type": "relu"}]
        if lrn and name == "conv1_1":
            layers.append({"name": "norm1", "type": "lrn", "param": np.array([lrn])})
    layers.append({"name": "prob", "type": "softmax"})
    cell = np.empty((1, len(layers)), object)
    for place, layer in enumerate(layers):
        cell[0, place] = layer
    normalization = {"imageSize": np.array([[crop, crop, 3.0]]), "interpolation": "bicubic"}
    if average is not None:
        normalization["averageImage"] = average
    names_cell = np.array(classes or [], object)[None]
    meta = {"normalization": normalization, "classes": {"name": names_cell, "description": names_cell}}
    savemat(path, {"layers": cell, **(meta if old else {"meta": meta})}, do_compression=compress, oned_as="column")
    return path


@pytest.fixture(scope="module")
def small() -> dict[str, np.ndarray]:
    return random_weights("D", 7, **SMALL)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("compress", [False, True])
def test_weights_are_read_bit_by_bit(small: dict[str, np.ndarray], tmp_path: Path, old: bool, compress: bool) -> None:
    names = [f"bird {number}" for number in range(7)]
    path = write(tmp_path / "net.mat", small, SMALL["crop"], old=old, compress=compress, classes=names)
    foreign = read(path, "D")
    assert (foreign.format, foreign.architecture) == ("MatConvNet", Architecture("D", 7, 64, 1 / 64))
    assert foreign.mean_rgb == (123.68, 116.779, 103.939)
    assert foreign.class_names == tuple(names)
    assert foreign.notes == ()
    for name, values in small.items():
        assert foreign.tensors[name].numpy().tobytes() == values.tobytes(), name


def test_scores_are_those_of_matconvnets_own_pass(tmp_path: Path) -> None:
    """RGB minus the average image, correlation, no mirrored filters."""
    for net in ("A", "C", "E"):
        weights = random_weights(net, 7, **SMALL, seed=2)
        path = write(tmp_path / f"{net}.mat", weights, SMALL["crop"])
        folder = import_weights(net, path, tmp_path / "runs", name=f"peer-{net}").path
        pixels = image(SMALL["crop"])
        theirs = caffe_forward(net, weights, (pixels.astype(np.float32) - MEAN).transpose(2, 0, 1))
        assert relative(our_scores(folder, pixels), theirs) < 1e-5


def test_imagenets_classes_are_joined_by_name(tmp_path: Path) -> None:
    """A file in the order of the devkit's ids, as deep_eval's nets are, gives rows in the order of wnids."""
    weights = random_weights("A", 1000, **SMALL)
    by_id = sorted(synsets.table().values())
    path = write(tmp_path / "devkit.mat", weights, SMALL["crop"], classes=[synset.wnid for synset in by_id])
    foreign = read(path, "A")
    assert foreign.class_names == tuple(synsets.table())
    assert "its classes are not in the order of wnids: fc8 was sorted" in foreign.notes
    for place in (0, 1, 500, 999):
        row = synsets.table()[foreign.class_names[place]].id - 1
        assert (foreign.tensors["fc8.weight"][place].numpy() == weights["fc8.weight"][row]).all()
        assert foreign.tensors["fc8.bias"][place] == weights["fc8.bias"][row]
    sorted_ = write(tmp_path / "wnid.mat", weights, SMALL["crop"], classes=list(synsets.table()))
    foreign = read(sorted_, "A")
    assert foreign.notes == ()
    assert (foreign.tensors["fc8.weight"].numpy() == weights["fc8.weight"]).all()


def test_an_average_image_gives_its_mean_colour(small: dict[str, np.ndarray], tmp_path: Path) -> None:
    whole = np.broadcast_to(MEAN, (64, 64, 3)).copy()
    foreign = read(write(tmp_path / "x.mat", small, 64, average=whole), "D")
    assert foreign.mean_rgb == pytest.approx((123.68, 116.779, 103.939), abs=1e-6)
    assert foreign.notes == ()
    whole[:32] += 10
    foreign = read(write(tmp_path / "x.mat", small, 64, average=whole), "D")
    assert foreign.mean_rgb == pytest.approx((128.68, 121.779, 108.939), abs=1e-4)
    assert foreign.notes == ("its average image is not one colour: its mean colour is taken",)
    foreign = read(write(tmp_path / "x.mat", small, 64, average=None), "D")
    assert foreign.mean_rgb == (123.68, 116.779, 103.939)
    assert foreign.notes == ("it has no average image: the authors' mean is taken",)


def test_what_is_not_the_net_is_named(small: dict[str, np.ndarray], tmp_path: Path) -> None:
    place = tmp_path / "x.mat"

    def complaint(net: str = "D") -> str:
        with pytest.raises(InputError) as error:
            read(place, net)
        assert "\n" not in str(error.value)
        return str(error.value).removeprefix(f"{place}: ")

    write(place, small, 64)
    assert complaint("E") == "holds net D, not E; import it as D"
    savemat(place, {"x": np.ones(3)})
    assert complaint() == "has no 'layers' of a SimpleNN net (it has x); give MatConvNet's imagenet-vgg-verydeep"
    savemat(place, {"layers": np.ones(3), "meta": {"a": 1}})
    assert complaint().startswith("has no 'layers' of a SimpleNN net (it has layers, meta)")
    place.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n")
    assert complaint() == "is of MATLAB 7.3, which is not read; save it again in MATLAB with -v7"
    write(place, small, 64, lrn=[5, 1, 1e-4 / 5, 0.75])
    assert complaint() == "has 1 LRN layers, net D has 0; give a file of net D"
    names = {name: f"layer{number}" for number, name in enumerate(dict.fromkeys(k.rpartition(".")[0] for k in small))}
    write(place, small, 64, names=names)
    assert read(place, "D").notes == ("its layers have other names than the authors' and were taken in their order",)


def test_lrn_is_not_divided(tmp_path: Path) -> None:
    weights = random_weights("A-LRN", 7, **SMALL)
    assert read(write(tmp_path / "x.mat", weights, 64, lrn=[5, 2, 1e-4, 0.75]), "A-LRN").lrn == "krizhevsky"
    assert read(write(tmp_path / "x.mat", weights, 64, lrn=[5, 1, 1e-4 / 5, 0.75]), "A-LRN").lrn == "caffe"


def test_cut_files_are_named(small: dict[str, np.ndarray], tmp_path: Path) -> None:
    for compress in (False, True):
        data = write(tmp_path / "whole.mat", small, 64, compress=compress).read_bytes()
        place = tmp_path / "x.mat"
        for end in (130, 140, 1000, len(data) // 2, len(data) - 1):
            place.write_bytes(data[:end])
            with pytest.raises(InputError, match="is a damaged or cut MATLAB file"):
                read(place, "D")


def test_a_bomb_is_refused_before_it_unpacks(
    small: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.mat"
    savemat(path, {"layers": np.zeros(4_000_000)}, do_compression=True)  # 32 MB in 31 kB
    assert path.stat().st_size < 40_000
    monkeypatch.setattr(matconvnet, "MAX_BYTES", 8_000_000)
    with pytest.raises(InputError) as error:
        read(path, "D")
    assert str(error.value) == (
        f"{path}: is a damaged or cut MATLAB file (it unpacks to more than 8,000,000 bytes); download it again"
    )


def test_a_bomb_of_empty_matrices_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight bytes each, of which a thousandfold is packed away, would each become an array."""
    path, cell = tmp_path / "bomb.mat", np.empty((1, 3000), object)
    cell[:] = [[np.zeros((0, 0))] * 3000]
    savemat(path, {"layers": cell}, do_compression=True)
    monkeypatch.setattr(mat5, "MAX_ELEMENTS", 2000)
    with pytest.raises(InputError) as error:
        read(path, "D")
    assert str(error.value) == (
        f"{path}: is a damaged or cut MATLAB file (more than 2,000 elements); download it again"
    )


def test_damaged_structures_end_in_a_line(small: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Bytes changed in the file's structure; scipy's reader would end the process at some of these."""
    data = write(tmp_path / "whole.mat", small, 64).read_bytes()
    rng, place = np.random.default_rng(4), tmp_path / "x.mat"
    refused = 0
    for _ in range(300):
        changed = bytearray(data)
        for at in rng.integers(128, 3000, 3):
            changed[at] = rng.integers(256)
        place.write_bytes(changed)
        try:
            matconvnet.read(WeightsFile(place), "D")
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert 0 < refused <= 300


def test_every_net_of_table_1_has_a_reading(tmp_path: Path) -> None:
    for net in ("A", "B", "B-5x5", "C", "D", "E"):
        weights = random_weights(net, 7, **SMALL)
        foreign = read(write(tmp_path / "x.mat", weights, 64), net)
        assert {name: tuple(t.shape) for name, t in foreign.tensors.items()} == Architecture(
            net, 7, 64, 1 / 64
        ).shapes()
