"""The Caffe reader against files that protobuf's own package writes, by a schema from Caffe's field table."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
from caffe_files import PACKED, length, write, write_large
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import SMALL, caffe_forward, image, our_scores, random_weights, relative

from vggrepro.errors import InputError
from vggrepro.exchange.formats import caffe, read
from vggrepro.exchange.formats.base import WeightsFile
from vggrepro.exchange.formats.protobuf import MAX_FIELDS, WireError
from vggrepro.exchange.importing import import_weights
from vggrepro.paper import Architecture


@pytest.fixture(scope="module")
def small() -> dict[str, np.ndarray]:
    """D for 7 classes, as Caffe has it (BGR)."""
    return random_weights("D", 7, **SMALL)


@pytest.fixture(scope="module")
def model(small: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("caffe") / "small.caffemodel", small)


VARIANTS = {
    "authors": {},
    "unpacked": {"packed": False, "diff": True},
    "new": {"v1": False, "legacy": False},
    "new, unpacked, doubles": {"v1": False, "packed": False, "legacy": False, "double": True},
    "doubles": {"double": True},
    "other names": {"names": {"fc8": "fc8_birds", "conv1_1": "first"}},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layout_is_read_bit_by_bit(small: dict[str, np.ndarray], tmp_path: Path, variant: str) -> None:
    foreign = read(write(tmp_path / "x", small, **VARIANTS[variant]), "D")
    assert (foreign.format, foreign.architecture) == ("Caffe", Architecture("D", 7, 64, 1 / 64))
    assert foreign.mean_rgb == (123.68, 116.779, 103.939)
    assert foreign.input_scale == 1.0
    for name, values in small.items():
        expected = values[:, ::-1] if name == "conv1_1.weight" else values
        assert foreign.tensors[name].numpy().tobytes() == np.ascontiguousarray(expected).tobytes(), name
    assert any("their order" in note for note in foreign.notes) == (variant == "other names")


def write_snapshot(path: Path, blobs: dict[str, np.ndarray]) -> Path:
    """As Caffe's Net::ToHDF5 writes it: a group a layer, also of layers without blobs, a data set a blob."""
    import h5py

    with h5py.File(path, "w") as file:
        for name, values in blobs.items():
            layer, _, part = name.rpartition(".")
            for root in ("data", "diff"):
                file[f"{root}/{layer}/{int(part == 'bias')}"] = values
        file.create_group("data/relu1_1")
    return path


@pytest.mark.parametrize("net", ["A", "D"])
def test_a_snapshot_in_hdf5_is_read_bit_by_bit(tmp_path: Path, net: str) -> None:
    h5py = pytest.importorskip("h5py")
    blobs = random_weights(net, 7, **SMALL, seed=4)
    path = write_snapshot(tmp_path / "VGG_iter_370000.caffemodel.h5", blobs)
    foreign = read(path, net)
    assert (foreign.format, foreign.architecture) == ("Caffe", Architecture(net, 7, 64, 1 / 64))
    assert (foreign.mean_rgb, foreign.input_scale) == ((123.68, 116.779, 103.939), 1.0)
    for name, values in blobs.items():
        expected = values[:, ::-1] if name == "conv1_1.weight" else values
        assert foreign.tensors[name].numpy().tobytes() == np.ascontiguousarray(expected).tobytes(), name
    with h5py.File(path, "r+") as file:
        file.move("data/conv1_1", "data/first")  # groups have no order that could tell which layer it is
    with pytest.raises(InputError, match=r"lacks conv1_1\.weight"):
        read(path, net)


def test_unknown_fields_of_every_wire_type_are_passed_over(model: Path, tmp_path: Path) -> None:
    group = b"\xbb\x3e" + b"\x0b\x08\x05\x0d1234\x0912345678\x12\x01x\x0c" + b"\xbc\x3e"  # a group in group 999
    unknown = b"\xb8\x3e\x05" + b"\xb9\x3e12345678" + b"\xba\x3e\x03abc" + b"\xbd\x3e1234" + group
    data = model.read_bytes()
    (tmp_path / "x").write_bytes(unknown + data + unknown)
    whole, more = read(model, "D"), read(tmp_path / "x", "D")
    assert all((more.tensors[name] == tensor).all() for name, tensor in whole.tensors.items())
    layer = caffe.parse(memoryview(b"\x12" + length(len(unknown) + 9) + unknown + b"\x22\x07conv1_1"))[0]
    assert (layer.name, layer.blobs) == ("conv1_1", [])


@pytest.mark.parametrize("net", ["A", "B", "C", "D", "E"])
def test_scores_are_those_of_caffes_own_pass(tmp_path: Path, net: str) -> None:
    blobs = random_weights(net, 7, **SMALL, seed=3)
    path = write(tmp_path / "net.caffemodel", blobs)
    folder = import_weights(net, path, tmp_path / "runs", name="peer").path
    pixels = image(SMALL["crop"])
    bgr = pixels[:, :, ::-1].transpose(2, 0, 1) - np.array([103.939, 116.779, 123.68])[:, None, None]
    theirs, ours = caffe_forward(net, blobs, bgr), our_scores(folder, pixels)
    assert relative(ours, theirs) < 1e-5
    swapped = caffe_forward(net, blobs, bgr[::-1])
    assert relative(ours, swapped) > 1e-2  # the test would notice the wrong order


@pytest.mark.slow
def test_full_size_d_gives_caffes_scores(tmp_path: Path) -> None:
    """The authors' layout at full size: V1 layers, packed floats, legacy shapes."""
    blobs = random_weights("D", 1000)
    path = write_large(tmp_path / "VGG_ILSVRC_16_layers.caffemodel", blobs)
    folder = import_weights("D", path, tmp_path / "runs", scale="256:512").path
    assert folder.name == "D-256-512"
    pixels = image(224)
    bgr = pixels[:, :, ::-1].transpose(2, 0, 1) - np.array([103.939, 116.779, 123.68])[:, None, None]
    assert relative(our_scores(folder, pixels), caffe_forward("D", blobs, bgr)) < 1e-5


def test_lrn_is_read_and_must_be_the_nets(tmp_path: Path) -> None:
    blobs = random_weights("A-LRN", 7, **SMALL)
    exact = {"local_size": 5, "alpha": 5e-4, "beta": 0.75, "k": 2.0}
    for v1 in (True, False):
        assert read(write(tmp_path / "x", blobs, v1=v1, lrn=exact), "A-LRN").lrn == "krizhevsky"
        alexnet = {"local_size": 5, "alpha": 1e-4, "beta": 0.75}
        assert read(write(tmp_path / "x", blobs, v1=v1, lrn=alexnet), "A-LRN").lrn == "caffe"
    place = tmp_path / "x"
    with pytest.raises(InputError) as error:
        read(place, "A")
    assert str(error.value) == f"{place}: has 1 LRN layers, net A has 0; import it as A-LRN"
    with pytest.raises(InputError) as error:
        read(write(place, blobs), "A-LRN")
    assert str(error.value) == f"{place}: has 0 LRN layers, net A-LRN has 1; import it as A"
    with pytest.raises(InputError, match=r"its LRN .n 5, k 9, alpha 0.0001, beta 0.75. is none of krizhevsky, caffe"):
        read(write(place, blobs, lrn=exact | {"k": 9.0}), "A-LRN")


def test_another_net_a_part_and_other_shapes_are_named(small: dict[str, np.ndarray], tmp_path: Path) -> None:
    place = tmp_path / "x"

    def complaint(blobs: dict[str, np.ndarray], net: str = "D") -> str:
        with pytest.raises(InputError) as error:
            read(write(place, blobs), net)
        return str(error.value).removeprefix(f"{place}: ")

    assert complaint(small, "E") == "holds net D, not E; import it as D"
    assert complaint(small, "B") == "holds net D, not B; import it as D"
    convs = {name: values for name, values in small.items() if name.startswith("conv")}
    assert complaint(convs) == (
        "lacks fc6.weight (6 of net D's 32 tensors, which look like those without FC layers ('notop')); "
        "give a whole file of net D"
    )
    assert (
        complaint(small, "C")
        == "conv3_3.weight is 4 × 4 × 3 × 3, where net C has 4 × 4 × 1 × 1; give a whole file of net C"
    )
    wide = small | {"fc7.weight": np.zeros((64, 65), np.float32)}
    assert complaint(wide) == "fc7.weight is 64 × 65, where net D has 64 × 64; give a whole file of net D"
    bad = small | {"conv2_1.bias": np.full_like(small["conv2_1.bias"], np.nan)}
    assert complaint(bad) == "conv2_1.bias holds values that are no finite numbers; download the file again"
    extra = small | {"conv5_9.weight": small["conv5_3.weight"], "conv5_9.bias": small["conv5_3.bias"]}
    assert complaint(extra) == "has conv5_9.bias, which net D has not; give a file of net D"


def test_cut_and_damaged_files_are_named(model: Path, tmp_path: Path) -> None:
    data, place = model.read_bytes(), tmp_path / "x"
    for end in (10, 60, len(data) // 2, len(data) - 1):
        place.write_bytes(data[:end])
        with pytest.raises(InputError) as error:
            read(place, "D")
        assert str(error.value).count("\n") == 0
        if end > 10:
            assert "is a damaged or cut caffemodel (it is cut short" in str(error.value)
    lying = PACKED["NetParameter"].FromString(data)
    lying.layers[0].blobs[0].num = 1 << 30
    place.write_bytes(lying.SerializeToString())
    with pytest.raises(InputError) as error:
        read(place, "D")
    assert str(error.value) == (
        f"{place}: is a damaged or cut caffemodel (conv1_1.weight: 1073741824 × 3 × 3 × 3, but 27 numbers); "
        "download it again"
    )
    empty = PACKED["NetParameter"]()
    empty.layers.add(name="conv1_1", type=4)
    place.write_bytes(empty.SerializeToString())
    with pytest.raises(InputError, match=r"holds no weights; give the .caffemodel of a trained net"):
        read(place, "D")
    place.write_bytes(b"\x12\x0c\x0a\x0a\x0a\x08conv1_1 ")  # layers { layer { ... } }
    with pytest.raises(InputError, match="of Caffe's first format; convert it with Caffe's upgrade_net_proto_binary"):
        read(place, "D")


def test_advice_for_a_damaged_file_is_that_for_its_maker(model: Path, tmp_path: Path) -> None:
    """The authors' sizes are named for files that say they are the authors', whatever their length."""

    def complaint(data: bytes, name: str) -> str:
        place = tmp_path / name
        place.write_bytes(data)
        with pytest.raises(InputError) as error:
            read(place, "D")
        text = str(error.value)
        return text.removeprefix(f"{place}: is a damaged or cut caffemodel (").partition("); ")[2]

    message = PACKED["NetParameter"].FromString(model.read_bytes())
    message.name = "mine"
    data = message.SerializeToString() + b"x"
    assert complaint(data, "x") == "copy or download it again"
    (tmp_path / "own.json").write_text("{}")
    assert complaint(data, "own") == "copy it or export the run again"
    message.name = "VGG_ILSVRC_19_layers"
    data = message.SerializeToString()[:-1]
    assert complaint(data, "x") == f"it has {len(data):,} bytes, the authors' has 574,671,192: download it again"


def test_nesting_and_numbers_of_fields_are_bounded() -> None:
    with pytest.raises(WireError, match="nested more than 64 deep"):
        caffe.parse(memoryview(b"\x0b" * 1_000_000))
    with pytest.raises(WireError, match=f"more than {MAX_FIELDS:,} fields"):
        caffe.parse(memoryview(b"\x18\x01\x20\x01" * MAX_FIELDS))
    with pytest.raises(WireError, match="more than 32 dimensions"):
        dims = b"\x0a\x28" + b"\x01" * 40
        blob = b"\x3a" + bytes([len(dims)]) + dims
        layer = b"\x32" + bytes([len(blob)]) + blob
        caffe.parse(memoryview(b"\x12" + bytes([len(layer)]) + layer))


def test_half_a_gigabyte_of_unpacked_numbers_is_quick() -> None:
    """10^7 fields of 5 bytes, compared as arrays."""
    numbers = np.zeros((10_000_000, 5), np.uint8)
    numbers[:, 0] = 0x2D
    blob = numbers.tobytes()
    layer = b"\x32" + length(len(blob)) + blob
    began = time.monotonic()
    (found,) = caffe.parse(memoryview(b"\x12" + length(len(layer)) + layer))
    assert found.blobs[0].count == 10_000_000
    assert not found.blobs[0].read().any()
    assert time.monotonic() - began < 5


# Fuzzing: whatever the bytes, the reader ends in a Foreign or in one line.


def attempt(path: Path, data: bytes) -> bool:
    """Whether these bytes are a whole D; anything but an InputError of one line is the test's failure."""
    path.write_bytes(data)
    try:
        caffe.read(WeightsFile(path), "D")
    except InputError as error:
        assert "\n" not in str(error)
        return False
    return True


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A caffemodel with some bytes changed, taken out, doubled or put in, half of them in its first layers."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        if not result:
            break
        at = rng.randrange(len(result) if rng.random() < 0.5 else min(400, len(result)))
        size = rng.randint(1, 40)
        kind = rng.randrange(6)
        if kind == 0:
            result[at] = rng.randrange(256)
        elif kind == 1:
            result[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del result[at : at + size]
        elif kind == 3:
            result[at:at] = result[at : at + size]
        elif kind == 4:
            result[at:at] = length(rng.getrandbits(rng.randint(1, 64)))
        else:
            del result[at + 1 :]
    return bytes(result)


LEVELS = ((2, 100), (1, 4, 5, 6, 6, 7, 7, 18, 118), (1, 2, 3, 4, 5, 5, 7, 7, 8), (1, 1, 2))  # nets, layers, blobs, dims


def nested(rng: random.Random, depth: int = 0) -> bytes:
    """A random message of Caffe's field numbers, level by level, with types and lengths that mostly fit."""
    result = b""
    for _ in range(rng.randint(1, 6)):
        likely = rng.random() < 0.9
        number = rng.choice(LEVELS[min(depth, 3)]) if likely else rng.randint(1, (1 << 29) - 1)
        kind = rng.choice((0, 2, 2, 2)) if rng.random() < 0.9 else rng.choice((0, 1, 3, 4, 5))
        body = nested(rng, depth + 1) if depth < 4 and rng.random() < 0.8 else rng.randbytes(4 * rng.randrange(8))
        size = len(body) if rng.random() < 0.99 else rng.getrandbits(40)
        value = length(rng.getrandbits(rng.randint(1, 64)))
        contents = {0: value, 1: rng.randbytes(8), 2: length(size) + body, 5: rng.randbytes(4)}
        result += length(number << 3 | kind) + contents.get(kind, b"")
    return result


@pytest.mark.parametrize("variant", ["authors", "new, unpacked, doubles"])
def test_mutated_files_end_in_a_line(small: dict[str, np.ndarray], tmp_path: Path, variant: str) -> None:
    data = write(tmp_path / "whole", small, **VARIANTS[variant]).read_bytes()
    rng = random.Random(5)
    whole = sum(attempt(tmp_path / "x", mutated(data, rng)) for _ in range(250))
    assert whole < 250  # a changed weight is still a weight, a changed structure is not


def parsed(data: bytes) -> bool:
    """Whether these bytes are a NetParameter to us; its numbers must be in the file."""
    try:
        layers = caffe.parse(memoryview(data))
    except WireError as error:
        assert str(error)
        return False
    assert sum(4 * blob.count for layer in layers for blob in layer.blobs) <= len(data)
    return True


def test_random_messages_are_layers_or_an_error() -> None:
    rng = random.Random(6)
    outcomes = [parsed(nested(rng)) for _ in range(300)]
    assert 0.05 < np.mean(outcomes) < 0.95  # both ends are reached


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_layers_or_an_error(data: bytes) -> None:
    parsed(data)


edits = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["set", "put", "cut"]), st.binary(max_size=12)), max_size=6)


def edited(data: bytes, changes: list[tuple[float, str, bytes]]) -> bytes:
    """Bytes set, put in or cut out, each at a share of the length squared, that is mostly near the front."""
    for share, how, new in changes:
        at = int(share**2 * len(data))
        data = data[:at] + (b"" if how == "cut" else new) + data[at + (0 if how == "put" else len(new)) :]
    return data


HEADS: list[bytes] = []  # the structure of a whole model with a number a blob, written once


@given(edits)
@settings(max_examples=200, deadline=None)
def test_any_edits_of_a_model_are_layers_or_an_error(changes: list[tuple[float, str, bytes]]) -> None:
    if not HEADS:
        net = PACKED["NetParameter"](name="VGG", input_dim=[10, 3, 224, 224])
        for name in ("conv1_1", "fc8"):
            layer = net.layers.add(name=name, type=4, bottom=["x"])
            layer.blobs.add(num=1, channels=1, height=1, width=2, data=[1, 2], diff=[3])
            layer.blobs.add(double_data=[1, 2, 3]).shape.dim.extend([3])
        HEADS.append(net.SerializeToString())
    parsed(edited(HEADS[0], changes))


def test_the_schema_is_what_protobuf_reads_back(small: dict[str, np.ndarray], model: Path) -> None:
    """Our reader and protobuf's find the same numbers."""
    theirs = PACKED["NetParameter"].FromString(model.read_bytes())
    ours = {layer.name: layer for layer in caffe.parse(memoryview(model.read_bytes()))}
    for layer in theirs.layers:
        assert ours[layer.name].type == {4: "Convolution", 14: "InnerProduct"}.get(layer.type, "")
        for blob, mine in zip(layer.blobs, ours[layer.name].blobs, strict=True):
            assert mine.shape == (blob.num, blob.channels, blob.height, blob.width)
            assert mine.read().tolist() == list(blob.data)
    assert set(ours) >= {name.rpartition(".")[0] for name in Architecture("D", 1).shapes()}
