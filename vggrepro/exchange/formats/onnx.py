"""ONNX: the whole net as a graph, from uint8 RGB pixels to posteriors; written with the `onnx` package alone.

Tensors keep our names. Two forms: crops, (N, crop, crop, 3); dense, whole images of any size, FC layers as convolutions
whose scores are averaged over positions (Sect. 3.2).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.exchange.formats.base import Foreign, WeightsFile, first_line, stated
from vggrepro.exchange.formats.state_dict import Preprocessing, made
from vggrepro.nets.vgg import to_input
from vggrepro.system.files import atomic
from vggrepro.system.progress import say

if TYPE_CHECKING:
    from vggrepro.nets.trained import Trained

OPSET, IR_VERSION = 17, 8  # of 2022: older runtimes read it, and nothing newer is needed
INSTALL = "install it with pip install 'vggrepro[onnx]'"
ABOUT = "vggrepro"  # the key of our facts in the file's metadata
TOLERANCE = 1e-4  # of posteriors, against ours


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise InputError(f"ONNX needs the package onnx; {INSTALL}") from None
    return onnx


def write(path: Path, trained: Trained, dense: bool = False) -> None:
    """Writes the graph; where onnxruntime is installed, its posteriors are compared with ours first.

    Input `images`, uint8 (N, H, W, 3), RGB; outputs `posterior` and `scores`, (N, K).

    Raises:
        InputError: onnx is not installed, or the file does not give our posteriors.
    """
    onnx = _onnx()
    model = graph(trained, dense)
    with atomic(path) as temporary:
        onnx.save_model(model, str(temporary))
        del model
        if importlib.util.find_spec("onnxruntime") is None:
            say("note: not checked: onnxruntime is not installed")
            return
        try:
            difference = compare(temporary, trained, dense)
        except Exception as error:  # onnxruntime's own errors, of an old version or too little memory
            raise InputError(
                f"{path}: onnxruntime cannot run it ({first_line(error)}); install a newer onnxruntime"
            ) from None
        if not difference <= TOLERANCE:
            raise InputError(
                f"{path}: onnxruntime's posteriors differ from ours by {difference:.2g}; nothing is written, "
                "try another version of onnxruntime"
            )
        say(f"export {trained.run}: onnxruntime's posteriors are ours within {difference:.1g}")


def graph(trained: Trained, dense: bool) -> Any:
    """The model: preprocessing, the net's layers, soft-max."""
    onnx = _onnx()
    helper, kind = onnx.helper, onnx.TensorProto
    nodes: list[Any] = []
    constants = {
        "mean_rgb": np.array(trained.config.mean_rgb, np.float32).reshape(1, 3, 1, 1),
        "input_scale": np.array(trained.config.input_scale, np.float32),
    }
    last = "images"

    def add(operator: str, *inputs: str, output: str, **attributes: Any) -> None:
        nonlocal last
        nodes.append(helper.make_node(operator, [last, *inputs], [output], name=output, **attributes))
        last = output

    add("Transpose", output="planes", perm=[0, 3, 1, 2])
    add("Cast", output="pixels", to=kind.FLOAT)
    add("Sub", "mean_rgb", output="centred")
    add("Mul", "input_scale", output="input")
    poolings = paper.poolings(trained.config.stride)
    for number, block in enumerate(paper.blocks(trained.config.net), 1):
        for layer in block:
            if isinstance(layer, paper.Conv):
                pad = layer.kernel // 2
                add(
                    "Conv", *_parameters(layer.name), output=layer.name, kernel_shape=[layer.kernel] * 2, pads=[pad] * 4
                )
                add("Relu", output=f"{layer.name}_relu")
            else:  # ONNX, as Caffe, divides alpha by the number of channels summed
                values = paper.LRN_DEFINITIONS[trained.config.recipe.lrn]
                alpha, size = values["alpha"] * values["n"], int(values["n"])
                add("LRN", output="norm1", alpha=alpha, beta=values["beta"], bias=values["k"], size=size)
        if poolings[number - 1]:
            add("MaxPool", output=f"pool{number}", kernel_shape=[2, 2], strides=[2, 2])
    tensors = {name: tensor.numpy() for name, tensor in trained.tensors.items()}
    if dense:
        side = trained.config.crop // trained.config.stride
        tensors["fc6.weight"] = tensors["fc6.weight"].reshape(len(tensors["fc6.weight"]), -1, side, side)
        tensors["fc7.weight"] = tensors["fc7.weight"][:, :, None, None]
    else:
        add("Flatten", output="flat", axis=1)
    for name in ("fc6", "fc7"):
        add(*("Conv", *_parameters(name)), output=name) if dense else add(
            "Gemm", *_parameters(name), output=name, transB=1
        )
        add("Relu", output=f"{name}_relu")
    if dense:  # fc8 is linear: fc7 is averaged over positions first, which is the same
        add("GlobalAveragePool", output="mean")
        add("Flatten", output="flat", axis=1)
    add("Gemm", *_parameters("fc8"), output="scores", transB=1)
    add("Softmax", output="posterior", axis=1)
    return _model(trained, nodes, constants | tensors, dense)


def _model(trained: Trained, nodes: list[Any], values: dict[str, np.ndarray], dense: bool) -> Any:
    """The nodes with their tensors, inputs, outputs and our facts."""
    onnx = _onnx()
    helper, kind = onnx.helper, onnx.TensorProto
    sides: list[Any] = ["height", "width"] if dense else [trained.config.crop] * 2
    model = helper.make_model(
        helper.make_graph(
            nodes,
            trained.title,
            [helper.make_tensor_value_info("images", kind.UINT8, ["batch", *sides, 3])],
            [
                helper.make_tensor_value_info(name, kind.FLOAT, ["batch", trained.config.classes])
                for name in ("posterior", "scores")
            ],
            [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="vggrepro",
    )
    helper.set_model_props(model, {ABOUT: json.dumps(trained.about())})
    return model


def _parameters(layer: str) -> tuple[str, str]:
    return f"{layer}.weight", f"{layer}.bias"


def compare(path: Path, trained: Trained, dense: bool) -> float:
    """The largest difference between onnxruntime's posteriors and ours, on random images."""
    onnxruntime: Any = importlib.import_module("onnxruntime")
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    side = trained.config.crop
    shapes = [(1, side, side, 3), (1, side + 33, side + 70, 3)] if dense else [(2, side, side, 3)]
    random = np.random.default_rng(0)
    model = trained.model()
    worst = 0.0
    for shape in shapes:
        images = random.integers(0, 256, shape, np.uint8)
        (theirs,) = session.run(["posterior"], {"images": images})
        x = to_input(torch.from_numpy(images), torch.tensor(trained.config.mean_rgb), trained.config.input_scale)
        with torch.inference_mode():
            ours = (model.dense_scores(x) if dense else model(x)).softmax(1).numpy()
        worst = max(worst, float(np.abs(theirs - ours).max()))
    return worst


def read(source: WeightsFile, net: str) -> Foreign:
    """A file that `write` made; in other ONNX graphs no name says to which layer a tensor belongs.

    Raises:
        InputError: not ours, damaged, another net.
    """
    onnx, path = _onnx(), source.path
    try:
        model = onnx.load_model(str(path), load_external_data=False)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        about = json.loads(metadata.get(ABOUT, "{}"))
    except Exception as error:  # protobuf's errors are no common family over its versions
        raise InputError(f"{path}: damaged ({first_line(error)}); download or export it again") from None
    exported = stated(about, str(path))
    if not exported:
        raise InputError(
            f"{path}: is not a graph that 'vggrepro export' wrote; give the weights from which it was made instead"
        )
    if paper.check_net(net) != about.get("net"):
        raise InputError(f"{path}: holds net {about.get('net')}, not {net}; import it as {about.get('net')}")
    tensors = {}
    for initializer in model.graph.initializer:
        if initializer.name in paper.Architecture(net, 1).shapes():
            if initializer.data_location == onnx.TensorProto.EXTERNAL:  # would be read from wherever it says
                raise InputError(f"{path}: {initializer.name} lies in another file; give a file that is whole")
            try:
                values = torch.from_numpy(onnx.numpy_helper.to_array(initializer).copy())
            except Exception as error:  # onnx's, numpy's and torch's, of contradicting sizes or unknown types
                raise InputError(
                    f"{path}: damaged ({initializer.name}: {first_line(error)}); download or export it again"
                ) from None
            tensors[initializer.name] = (
                values.flatten(1) if initializer.name.startswith("fc") and values.ndim > 1 else values
            )
    hashes = {"sha256": source.sha256}
    return made(tensors, net, Preprocessing(exported=exported), "ONNX", "", str(path), hashes)
