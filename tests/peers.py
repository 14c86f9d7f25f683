"""Random weights of a net and an independent forward pass, for the tests of other people's formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vggrepro import paper
from vggrepro.nets import weights
from vggrepro.nets.vgg import VGG, to_input
from vggrepro.paper import Architecture
from vggrepro.runs.folder import RunFolder

SMALL = {"crop": 64, "width": 1 / 64}  # 4 to 8 channels, FC layers of 64 units that see 2 x 2 positions


def random_weights(net: str, classes: int, crop: int = 224, width: float = 1.0, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights that keep a signal of 0-255 images alive, in (out, in, h, w); fc6 in the peer's own order."""
    rng = np.random.default_rng(seed)
    result = {}
    for name, shape in Architecture(net, classes, crop, width).shapes().items():
        std = np.sqrt(2 / np.prod(shape[1:])) if name.endswith("weight") else 0.1
        result[name] = rng.standard_normal(shape, np.float32) * np.float32(std)
    return result


def image(side: int, seed: int = 1) -> np.ndarray:
    """uint8 RGB (side, side, 3), smooth and of three different channels."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 5, 5)).astype(np.float32))
    smooth = F.interpolate(coarse, (side, side), mode="bilinear", align_corners=True)[0]
    return smooth.permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()


def caffe_forward(net: str, blobs: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Scores by plain operators as Caffe computes them: (3, h, w) float32 in the file's channel order -> (K,).

    Poolings round up; ReLU follows each layer but the last; FC layers flatten channel first.
    """
    value = torch.from_numpy(np.ascontiguousarray(x, np.float32))[None]
    for block in paper.blocks(net):
        for layer in block:
            assert isinstance(layer, paper.Conv)
            weight, bias = (torch.from_numpy(blobs[f"{layer.name}.{part}"]) for part in ("weight", "bias"))
            value = F.relu(F.conv2d(value, weight, bias, padding=layer.kernel // 2))
        value = F.max_pool2d(value, 2, 2, ceil_mode=True)
    value = value.flatten(1)
    for name in ("fc6", "fc7", "fc8"):
        weight, bias = (torch.from_numpy(blobs[f"{name}.{part}"]) for part in ("weight", "bias"))
        value = F.linear(value, weight.reshape(len(bias), -1), bias)
        value = value if name == "fc8" else F.relu(value)
    return value[0].numpy()


def our_scores(folder: Path, pixels: np.ndarray) -> np.ndarray:
    """Scores of an imported run for a crop, uint8 RGB (h, w, 3): what evaluate computes before the soft-max."""
    run = RunFolder(folder)
    config = run.config()
    model = VGG.of(config.architecture)
    weights.into(model, weights.load(run.weights_path)[0], str(folder))
    x = to_input(torch.from_numpy(pixels.copy())[None], torch.tensor(config.mean_rgb), config.input_scale)
    with torch.inference_mode():
        scores: Tensor = model(x)[0]
    return scores.numpy()


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference over the largest value."""
    return float(np.abs(a - b).max() / np.abs(b).max())
