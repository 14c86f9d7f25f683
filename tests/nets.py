"""Finished runs of small random nets, and the passes of Sect. 3.2 by plain operators, one crop at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vggrepro.nets import weights
from vggrepro.nets.initialise import initialise
from vggrepro.nets.vgg import VGG
from vggrepro.runs.folder import RunFolder
from vggrepro.system.devices import Machine
from vggrepro.system.files import write_json

CPU = Machine(torch.device("cpu"), "fp32", workers=0)
CROP, SCALE = 64, 0.0172
MEAN = [110.0, 120.0, 90.0]
# What the order of sums may change here: 3.6e-6 at most for 300 random images. One grey level more in one pixel changes
# 6e-5. The test net's scores are stretched until images differ, and rounding with them; posteriors of the demo's nets
# differ by 5e-7 at most.
ROUNDING = 1e-5


def random_run(folder: Path, seed: int = 0, **changes: Any) -> RunFolder:
    """A finished run of net A with random weights: the least that `evaluate` needs."""
    config: dict[str, Any] = {"net": "A", "scale": "256", "crop": CROP, "width": 1 / 32, "classes": 6}
    config |= {"mean_rgb": MEAN, "input_scale": SCALE, **changes}
    model = VGG(config["net"], config["classes"], CROP, config["width"])
    initialise(model, "he", seed)
    with torch.inference_mode():  # scores of mean 0 and deviation 2 over images: posteriors neither uniform nor 0 or 1
        scores = model(torch.cat([net_input(image[:CROP, :CROP]) for image in images(30)]))
        model.fc8.weight.data *= 2 / scores.std(0)[:, None]
        model.fc8.bias.data -= (scores * 2 / scores.std(0)).mean(0)
    run = RunFolder(folder)
    write_json(run.config_path, config)
    weights.save(run.weights_path, dict(model.named_parameters()), {})
    return run


def images(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(64, 91), (80, 64), (64, 91)]
    blocks = [rng.integers(0, 256, (sizes[n % 3][0] // 8 + 1, sizes[n % 3][1] // 8 + 1, 3)) for n in range(count)]
    large = [b.repeat(8, 0).repeat(8, 1)[: sizes[n % 3][0], : sizes[n % 3][1]] for n, b in enumerate(blocks)]
    return [image.astype(np.uint8) for image in large]


def net_input(pixels: np.ndarray) -> torch.Tensor:
    """(RGB - mean) * scale, (1, 3, H, W)."""
    x = (pixels.astype(np.float32) - np.array(MEAN, np.float32)) * np.float32(SCALE)
    return torch.from_numpy(x.transpose(2, 0, 1)[None].copy())


def plain_model(run: RunFolder) -> VGG:
    model = VGG("A", 6, CROP, 1 / 32)
    model.load_state_dict(weights.load(run.weights_path)[0])
    return model.eval()


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def plain_scores(model: VGG, x: torch.Tensor) -> np.ndarray:
    """Sect. 3.2 to the letter, for one image: FC layers as 2x2 and 1x1 convolutions, the mean of the score map.

    Nothing of the model but its weights is used. An image of the crop's size has one position: it is a crop.
    """
    tensors = dict(model.named_parameters())
    names = sorted(name.removesuffix(".weight") for name in tensors if name.startswith("conv") and "weight" in name)
    for name, following in zip(names, [*names[1:], "end"], strict=True):
        x = torch.relu(torch.nn.functional.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=1))
        if following[:5] != name[:5]:  # the last layer of its block
            x = torch.nn.functional.max_pool2d(x, 2)
    for name, side in (("fc6", 2), ("fc7", 1), ("fc8", 1)):
        kernel = tensors[f"{name}.weight"].unflatten(1, (-1, side, side))
        x = torch.nn.functional.conv2d(x, kernel, tensors[f"{name}.bias"])
        x = torch.relu(x) if name != "fc8" else x
    return x.mean((2, 3))[0].double().numpy()


def by_hand(model: VGG, image: np.ndarray, method: str, flip: bool = True, grid: int = 5) -> np.ndarray:
    """One forward pass a crop and flip, posteriors summed in a loop."""
    flips = [image, image[:, ::-1]] if flip else [image]
    found = []
    with torch.inference_mode():
        for pixels in flips:
            if method == "dense":
                found.append(softmax(plain_scores(model, net_input(pixels))))
                continue
            for row in range(grid):
                for column in range(grid):
                    top = int(row * (image.shape[0] - CROP) / (grid - 1) + 0.5)
                    left = int(column * (image.shape[1] - CROP) / (grid - 1) + 0.5)
                    if pixels is not image:  # a grid is cut from the image, then flipped
                        left = image.shape[1] - CROP - left
                    crop = pixels[top : top + CROP, left : left + CROP]
                    found.append(softmax(plain_scores(model, net_input(crop))))
    assert len(found) == len(flips) * (1 if method == "dense" else grid**2)
    return np.mean(found, axis=0)
