"""Weights of other tools, with one module for each format. A file's format is told by its contents, not by its name."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from vggrepro.errors import InputError
from vggrepro.exchange.formats import unread
from vggrepro.exchange.formats.base import Foreign, WeightsFile
from vggrepro.system.files import LFS_POINTER, is_lfs_pointer

HEAD = 4096  # bytes from a file's beginning that tell its format
MAX_HEADER = 100_000_000  # of safetensors files
LIBRARIES = ("timm", "torchvision")  # whose weights are read by name
STATE_DICTS = ("torch_file", "safetensors")
HDF5 = b"\x89HDF\r\n\x1a\n"
NOTHING_READABLE = (
    "give a .caffemodel, MatConvNet's .mat, Keras's .h5 or .keras, a state dict of torchvision or timm, ONNX or "
    "safetensors"
)


def read(path_or_name: Path | str, net: str, input_: str | None = None) -> Foreign:
    """Weights from a file of any known format, or by name (`timm:vgg16.tv_in1k`, `torchvision:vgg16`), checked.

    Args:
        path_or_name: a file, `timm:NAME` or `torchvision:NAME`.
        net: whose weights they must be.
        input_: what a state dict's input is, where it does not say so: a name of `state_dict.INPUTS`.

    Raises:
        InputError: an address, no such file, no known format, damaged, another net, too large, `input_` for a file
            that says it itself.
    """
    text = str(path_or_name)
    library, colon, name = text.partition(":")
    if input_ and colon and library in LIBRARIES:
        raise InputError(f"{text}: its input is known; leave out --input")
    if library == "timm" and colon:
        from vggrepro.exchange.formats import timm

        return timm.read_name(name, net)
    if library == "torchvision" and colon:
        from vggrepro.exchange.formats import torchvision

        path_or_name = torchvision.downloaded(name, net)
    if re.match("(https?|ftp|s3|hf)://", text):
        raise InputError(f"{text} is an address; download the file and give its path")
    source = WeightsFile(Path(path_or_name), input_)
    kind = format_of(source)
    if input_ and kind not in STATE_DICTS:
        raise InputError(f"{source.path}: --input is for state dicts of PyTorch, which this is not; leave it out")
    return importlib.import_module(f"vggrepro.exchange.formats.{kind}").read(source, net)


def format_of(source: WeightsFile) -> str:
    """The module that reads a file: caffe, matconvnet, hdf5, onnx, torch_file (all that torch saved) or safetensors.

    torch's and safetensors' files differ in their tensors' names only, which those modules look at.

    Raises:
        InputError: no such file, or no format that is read; where it is a known one or a known slip, it is named.
    """
    path = source.path
    if path.is_dir():
        unread.refuse_folder(path)
        raise InputError(f"{path} is a folder; give a file of weights")
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give a file of weights, timm:NAME or torchvision:NAME") from None
    except PermissionError:
        raise InputError(f"{path} cannot be read; change its permissions") from None
    unread.refuse(path, head)
    if slip := _slip(head):
        raise InputError(f"{path}: {slip}")
    if head.startswith(b"MATLAB "):
        return "matconvnet"
    if head.startswith(HDF5) or HDF5 in (head[offset : offset + 8] for offset in (512, 1024, 2048)):
        return "hdf5"
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if head.startswith(b"\x80") and head[1:2] in b"\x02\x03\x04\x05":
        return "torch_file"  # torch's format before 1.6, a pickle
    length = int.from_bytes(head[:8], "little")
    if 2 <= length < MAX_HEADER and head[8:9] == b"{":
        return "safetensors"
    if kind := _protobuf_kind(source, head):
        return kind
    raise InputError(f"{path}: its format is not known; {NOTHING_READABLE}")


def _slip(head: bytes) -> str | None:
    """What a file is that was given as weights by mistake, and what to do."""
    start = head.lstrip()[:200].lower()
    if not head:
        return "is empty; download it again"
    if not head.strip(b"\0"):
        return "begins with zeros, as an unfinished download; download it again"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not weights; open the address in a browser and download the file itself"
    if is_lfs_pointer(head):
        return f"is {LFS_POINTER}"
    if start.startswith((b"name:", b"layer", b"input:", b"input_dim")) and b"\0" not in head:
        return "is a prototxt, the net without its weights; give the .caffemodel"
    if head.startswith(b"MATLAB 7.3"):
        return "is of MATLAB 7.3, which is not read; save it again in MATLAB with -v7"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf")) or head[257:262] == b"ustar":
        return "is an archive; unpack it and give the file of weights inside"
    return None


def _zip_kind(path: Path) -> str:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise InputError(f"{path}: is a damaged or cut zip file ({error}); download it again") from None
    if "model.weights.h5" in names:
        return "hdf5"
    unread.refuse_zip(path, names)
    if any(name.endswith("data.pkl") for name in names):
        return "torch_file"
    raise InputError(f"{path}: is a zip file without weights; unpack it and give the file of weights inside")


def _protobuf_kind(source: WeightsFile, head: bytes) -> str | None:
    """caffe or onnx, by the numbers of the message's own fields; None if it is no protobuf message."""
    from vggrepro.exchange.formats import caffe, protobuf

    fields = caffe.top_fields(source)
    if {(1, protobuf.VARINT), (7, protobuf.LENGTH)} <= fields:  # ModelProto.ir_version, .graph
        return "onnx"
    unread.refuse_protobuf(source.path, head, fields)
    if fields & {(caffe.NET_V1, protobuf.LENGTH), (caffe.NET_LAYER, protobuf.LENGTH)}:
        return "caffe"
    return None
