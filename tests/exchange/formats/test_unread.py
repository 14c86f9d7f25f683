"""Formats of other tools: named, with a way out; the printed commands are run."""

from __future__ import annotations

import io
import pickle
import shlex
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peers import SMALL, random_weights
from torch import Tensor, nn

from vggrepro.errors import InputError
from vggrepro.exchange.formats import read, torchvision
from vggrepro.exchange.formats.protobuf import field_bytes

NODE = field_bytes(1, field_bytes(1, b"conv1_1/W") + field_bytes(2, b"Const"))  # GraphDef.node: name, op
GRAPH = NODE * 4 + field_bytes(4, b"\x08\x18")
META = field_bytes(2, field_bytes(1, b"\x22\x05serve") + field_bytes(2, GRAPH))
TABLE_END = bytes.fromhex("57fb808b247547db")


def refused(path: Path, net: str = "A") -> str:
    with pytest.raises(InputError) as caught:
        read(path, net)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "what", "way_out"),
    [
        (struct.pack("<QQQ", 0x112, 0, 2) + bytes(200), "MXNet's .params", "save its arrays as safetensors"),
        (b"\x93NUMPY\x01\0", "NumPy's .npy", "save its arrays as safetensors"),
        (b"\x1c\0\0\0TFL3" + bytes(50), "TensorFlow Lite", "save the net with Keras"),
        (b"\x08\x01" + META, "TensorFlow's saved_model.pb", "save the net with Keras"),
        (GRAPH, "a frozen graph of TensorFlow", "save the net with Keras"),
        (NODE * 3, "a frozen graph of TensorFlow", "save the net with Keras"),
        (b"\0\x11vgg_16/conv1" + bytes(40) + TABLE_END, "TensorFlow's checkpoint", "save the net with Keras"),
    ],
)
def test_files_of_other_tools_are_named(tmp_path: Path, content: bytes, what: str, way_out: str) -> None:
    path = tmp_path / "vgg16"
    path.write_bytes(content)
    message = refused(path)
    assert message.startswith(f"is not a format that import reads (looks like {what}); {way_out}"), message


def test_a_folder_of_tensorflow_and_a_zip_of_numpy(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01" + META)
    assert refused(tmp_path).startswith("is not a format that import reads (looks like TensorFlow's SavedModel); ")
    np.savez(tmp_path / "vgg16_weights.npz", conv1_1_W=np.zeros(3))
    assert refused(tmp_path / "vgg16_weights.npz").startswith(
        "is not a format that import reads (looks like NumPy's .npz); save its arrays as safetensors, with "
        "torchvision's names and shapes (features.0.weight, …)"
    )


class Holder(nn.Module):
    """A net that has parameters of these names."""

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in parameters.items():
            *modules, last = name.split(".")
            place: nn.Module = self
            for module in modules:
                if module not in place._modules:
                    place.add_module(module, nn.Module())
                place = place.get_submodule(module)
            place.register_parameter(last, nn.Parameter(tensor))

    def forward(self, x: Tensor) -> Tensor:
        return x * 2


@pytest.fixture
def state() -> dict[str, Tensor]:
    """A's weights under torchvision's names."""
    own = random_weights("A", 6, **SMALL)
    return {theirs: torch.from_numpy(own[name]) for name, theirs in torchvision.names("A").items()}


def obeyed(path: Path, message: str) -> dict[str, Tensor]:
    """The tensors that the printed command saves, by our import; here, as a new Python would take seconds to start."""
    python, option, program = shlex.split(message[message.index("python -c") :])
    assert (python, option) == ("python", "-c")
    exec(program, {})
    return read(path.with_name(path.stem + ".state.pth"), "A").tensors


@pytest.mark.filterwarnings("ignore")  # torch says that TorchScript is old
def test_torchscript_is_saved_again_by_the_printed_command(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "vgg's jit.pt"
    torch.jit.trace(Holder(state), torch.zeros(1)).save(str(path))
    message = refused(path)
    assert message.startswith("is not a format that import reads (looks like TorchScript); save its weights again: ")
    assert torch.equal(obeyed(path, message)["fc8.weight"], state["classifier.6.weight"])


def test_an_exported_program_is_saved_again_by_the_printed_command(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "vgg.pt2"
    torch.export.save(torch.export.export(Holder(state), (torch.zeros(1),)), path)
    message = refused(path)
    assert message.startswith("is not a format that import reads (looks like torch.export); save its weights again: ")
    assert torch.equal(obeyed(path, message)["fc8.weight"], state["classifier.6.weight"])


def write_torch01(path: Path, state: dict[str, Tensor]) -> None:
    """A tar container as torch 0.1 wrote it: all storages, then all tensors, then the objects that refer to them."""
    storages, tensors = io.BytesIO(), io.BytesIO()
    pickle.dump(len(state), storages, 2)
    pickle.dump(len(state), tensors, 2)
    keys = {}
    for key, (name, tensor) in enumerate(state.items(), 1):
        keys[name] = 1000 + key
        pickle.dump((key, "cpu", torch.FloatStorage), storages, 2)
        storages.write(struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes())
        pickle.dump((1000 + key, key, torch.FloatTensor), tensors, 2)
        tensors.write(struct.pack("<ii", tensor.ndim, 0))
        tensors.write(struct.pack(f"<{2 * tensor.ndim + 1}q", *tensor.shape, *tensor.stride(), 0))
    pickle.dump([], storages, 2)

    class Reference(pickle.Pickler):
        def persistent_id(self, item: Any) -> Any:
            return str(item.key) if isinstance(item, Key) else None

    objects = io.BytesIO()
    Reference(objects, 2).dump({name: Key(key) for name, key in keys.items()})
    parts = {"sys_info": pickle.dumps({}, 2), "pickle": objects, "tensors": tensors, "storages": storages}
    with tarfile.open(path, "w:", format=tarfile.GNU_FORMAT) as tar:
        for name, part in parts.items():
            data = part if isinstance(part, bytes) else part.getvalue()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


class Key:
    """Stands for a tensor in the pickle."""

    def __init__(self, key: int) -> None:
        self.key = key


def test_torch_01_is_saved_again_by_the_printed_command(tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "vgg19-legacy.pth"
    write_torch01(path, state)
    message = refused(path)
    assert message.startswith(
        "is a tar container of torch 0.1, which may hold code; if you trust it, torch 1.13 or newer can save its "
        "weights again: python -c 'import torch; torch.save("
    )
    assert torch.equal(obeyed(path, message)["fc8.weight"], state["classifier.6.weight"])


def test_other_archives_are_still_to_be_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "vgg.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("pickles/readme"))
    assert refused(tmp_path / "vgg.tar") == "is an archive; unpack it and give the file of weights inside"
    with zipfile.ZipFile(tmp_path / "vgg.zip", "w") as archive:
        archive.writestr("vgg16.caffemodel", b"")
    assert refused(tmp_path / "vgg.zip").startswith("is a zip file without weights; unpack it")
