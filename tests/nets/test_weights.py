"""Weight files: what goes in comes out, and wrong files are named."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import program
import pytest
import torch
from safetensors.torch import load_file, save, save_file

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.nets import weights
from vggrepro.nets.initialise import initialise
from vggrepro.nets.vgg import VGG
from vggrepro.paper import Architecture


def net(kind: str = "A", classes: int = 7, seed: int = 0) -> VGG:
    model = VGG(kind, classes, 64, 1 / 32)
    initialise(model, "he", seed)
    return model


def tensors(model: VGG) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


def test_weights_and_state_survive_whatever_the_memory_format(tmp_path: Path) -> None:
    model = net().to(memory_format=torch.channels_last)
    state = {"step": 3, "history": [{"loss": 0.1 + 0.2}], "none": None}
    weights.save(tmp_path / "w.safetensors", tensors(model), state)
    loaded, was = weights.load(tmp_path / "w.safetensors")
    assert was == state
    other = net(seed=1)
    weights.into(other, loaded, "w.safetensors")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name
    public = load_file(tmp_path / "w.safetensors")  # any other program reads the same under Caffe's names
    assert torch.equal(public["conv1_1.weight"], model.conv1_1.weight)
    assert public["fc6.weight"].shape == (128, 16 * 2 * 2)
    assert list(public) == sorted(Architecture("A", 7, 64, 1 / 32).shapes())


def test_saving_replaces_the_old_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights.save(path, {"a": torch.zeros(3)}, {})
    weights.save(path, {"a": torch.ones(3)}, {})
    assert weights.load(path)[0]["a"].tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_the_bytes_are_those_of_safetensors_own_writer(tmp_path: Path) -> None:
    """Of each type, of no dimension, of no element; names and a state that JSON escapes."""
    torch.manual_seed(0)
    shapes = {"b": (3,), "a": (2, 3), "scalar": (), "none": (0, 4), 'é"\n': (5,)}
    mixed = {f"{kind} {name}": torch.randn(shape).to(kind) for kind in weights.KINDS for name, shape in shapes.items()}
    state = {"step": 3, "name": "ü\n", "loss": 0.1 + 0.2}
    weights.save(tmp_path / "w", mixed, state)
    data = (tmp_path / "w").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert save(mixed, metadata=header["__metadata__"]) == data
    loaded, was = weights.load(tmp_path / "w", signed=True)
    assert was == state
    assert all(
        torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype for name, tensor in mixed.items()
    )


def test_a_kill_leaves_one_file_that_the_next_save_replaces(tmp_path: Path) -> None:
    """Killed after the first tensor: nothing of another name lies there, and the old weights are whole."""
    path = tmp_path / "w.safetensors"
    os.umask(mask := os.umask(0))
    weights.save(path, {"a": torch.zeros(3)}, {})
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask  # as any other file, also for a web server or a colleague
    killed = program.run("killed_save", path)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.safetensors", "w.safetensors.tmp"]
    assert weights.load(path, signed=True)[0]["a"].tolist() == [0, 0, 0]
    weights.save(path, {"a": torch.ones(3)}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    assert weights.load(path, signed=True)[0]["a"].tolist() == [1, 1, 1]


def test_a_file_from_elsewhere_has_no_state(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    assert weights.load(tmp_path / "w.safetensors")[1] == {}


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match=r"w\.safetensors does not exist"):
        weights.load(path)
    weights.save(path, {"a": torch.zeros(1000)}, {})
    whole = path.read_bytes()
    for content in (b"", b"no weights at all", whole[:50], whole[:-100]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"w\.safetensors: damaged .*restore it, or train the run again"):
            weights.load(path)


def test_each_damaged_bit_shows(tmp_path: Path) -> None:
    """Whichever byte of the file changes, be it of the header or of the tensors."""
    path = tmp_path / "w.safetensors"
    weights.save(path, {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, {"step": 3})
    whole = path.read_bytes()
    assert weights.load(path, signed=True)[1] == {"step": 3}
    for place in range(len(whole)):
        if whole[place : place + 1] == b" ":
            continue  # between the header's parts, or padding
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match="damaged"):
            weights.load(path, signed=True)


def test_equal_contents_are_equal_files(tmp_path: Path) -> None:
    tensors = {"b": torch.zeros(2), "a": torch.ones(3)}
    weights.save(tmp_path / "x", tensors, {"run": "A-256"})
    weights.save(tmp_path / "y", dict(sorted(tensors.items())), {"run": "A-256"})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_an_unsigned_file_is_no_checkpoint(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors", metadata={"state": "{}"})
    with pytest.raises(weights.Damaged, match=r"damaged \(it has no hash\)"):
        weights.load(tmp_path / "w.safetensors", signed=True)


def test_weights_of_another_net_are_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"runs/B: its tensors are not those of its config.json's net \('conv1_2.bias' is on one side only\)",
    ):
        weights.into(net("A"), tensors(net("B")), "runs/B")
    with pytest.raises(
        InputError, match=r"x: fc8.weight has shape \(9, 128\), the net of its config.json has \(7, 128\)"
    ):
        weights.into(net("A"), tensors(net("A", classes=9)), "x")


def test_deeper_nets_take_seven_layers_of_a() -> None:
    a, d = net("A"), net("D", seed=1)
    before = {name: parameter.clone() for name, parameter in d.named_parameters()}
    copied, fresh = weights.copy_layers(d, tensors(a), paper.COPIED_FROM_A)
    assert copied == ["conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8"]
    assert fresh == ["conv1_2", "conv2_2", "conv3_3", *(f"conv{b}_{n}" for b in (4, 5) for n in (1, 2, 3))]
    for name, parameter in d.named_parameters():
        expected = a.get_parameter(name) if name.rpartition(".")[0] in copied else before[name]
        assert torch.equal(parameter, expected), name


def test_layers_of_another_shape_stay_fresh() -> None:
    copied, fresh = weights.copy_layers(net("A", classes=9), tensors(net("A")), None)
    assert fresh == ["fc8"]
    assert "fc7" in copied
