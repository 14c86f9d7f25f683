"""Claim: dense and multi-crop evaluation cost a fraction of what they cost as users write them today.

python benchmarks/evaluate.py [--images N] [--device cuda] [--rounds N] [--photos FOLDER]

Net D with the same weights on the same real photographs, turn by turn in one run. The peer is torchvision's vgg16
turned convolutional, an image at a time, each Q and flip a pass that decodes the file again; for multi-crop, crop by
crop. Ours is what `vggrepro evaluate` does. Posteriors are compared; the best classes must agree in fp32.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from record import alternate, write
from torch import Tensor, nn
from torchvision.models import vgg16
from torchvision.transforms import functional as vision

from vggrepro import evaluate as stage
from vggrepro import hardware, weights
from vggrepro.dataset import Split
from vggrepro.evaluate import Protocol
from vggrepro.evaluator import Evaluator
from vggrepro.files import write_json
from vggrepro.net import VGG, initialise
from vggrepro.prepare import prepare
from vggrepro.runs import RunFolder
from vggrepro.sources import IlsvrcSource
from vggrepro.train import Machine

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "ilsvrc-mini"
MEAN = (123.68, 116.779, 103.939)
CLASSES = 1000


def make_run(folder: Path) -> RunFolder:
    """A finished run of net D whose weights are random, but whose posteriors are not uniform."""
    model = VGG("D", CLASSES, 224, 1.0)
    initialise(model, "he", 0)
    with torch.no_grad():
        model.fc8.weight *= 0.2
    run = RunFolder(folder)
    config = {"net": "D", "scale": "256:512", "crop": 224, "width": 1.0, "classes": CLASSES}
    write_json(run.config_path, config | {"mean_rgb": MEAN, "input_scale": 0.017, "recipe": {"resample": "bilinear"}})
    weights.save(run.weights_path, dict(model.named_parameters()), {})
    return run


class Peer:
    """torchvision's vgg16 with our weights, its FC layers as convolutions."""

    def __init__(self, run: RunFolder, device: torch.device) -> None:
        net, (tensors, _) = vgg16(num_classes=CLASSES), weights.load(run.weights_path)
        layers = [m for m in net.features if isinstance(m, nn.Conv2d)]
        names = [name.removesuffix(".weight") for name in tensors if name.startswith("conv") and "weight" in name]
        for layer, name in zip(layers, sorted(names), strict=True):
            layer.weight.data, layer.bias.data = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        fully = []
        for name, shape in (("fc6", (4096, 512, 7, 7)), ("fc7", (4096, 4096, 1, 1)), ("fc8", (CLASSES, 4096, 1, 1))):
            conv = nn.Conv2d(shape[1], shape[0], shape[2])
            conv.weight.data, conv.bias.data = tensors[f"{name}.weight"].view(shape), tensors[f"{name}.bias"]
            fully += [conv, nn.ReLU()]
        self.net = nn.Sequential(*net.features, *fully[:-1]).eval().to(device)
        self.device = device
        self.mean = torch.tensor(MEAN)[:, None, None]

    def _image(self, data: bytes, q: int, flip: bool) -> Tensor:
        image = vision.resize(Image.open(io.BytesIO(data)).convert("RGB"), q)
        image = vision.hflip(image) if flip else image
        return ((vision.pil_to_tensor(image).float() - self.mean) * 0.017)[None]

    @torch.inference_mode()
    def dense(self, files: list[bytes], q: int) -> np.ndarray:
        result = np.zeros((len(files), CLASSES))
        for row, data in enumerate(files):
            for flip in (False, True):
                x = self._image(data, q, flip).to(self.device)
                result[row] += self.net(x).mean((2, 3)).softmax(1)[0].cpu().numpy() / 2
        return result

    @torch.inference_mode()
    def multicrop(self, files: list[bytes], q: int) -> np.ndarray:
        result = np.zeros((len(files), CLASSES))
        for row, data in enumerate(files):
            for flip in (False, True):
                x = self._image(data, q, flip)
                tops, lefts = (np.linspace(0, length - 224, 5).round().astype(int) for length in x.shape[2:])
                for top in tops:
                    for left in lefts:
                        crop = x[:, :, top : top + 224, left : left + 224].to(self.device)
                        result[row] += self.net(crop)[:, :, 0, 0].softmax(1)[0].cpu().numpy() / 50
        return result


def ours(run: RunFolder, split: Split, count: int, precision: str, device: torch.device) -> Callable[..., np.ndarray]:
    """What `vggrepro evaluate` does with `count` images: decode and rescale in threads, batches by size."""
    machine = Machine(device, precision, workers=2)
    evaluator = Evaluator(run, machine)

    def posteriors(method: str, qs: list[int]) -> np.ndarray:
        keys = [(method, q) for q in qs]
        images = list(islice(stage._rescaled(split, [(range(count), keys)], evaluator, machine), count))
        protocol = Protocol((method,))
        found = [evaluator.posteriors([scales[q] for scales in images], method, True, protocol.grid) for q in qs]
        return np.mean(found, axis=0)

    return posteriors


def compare(name: str, functions: dict[str, Callable[[], np.ndarray]], images: int, rounds: int) -> dict[str, Any]:
    """Images/s of each function, ratios to the peer, differences of posteriors."""
    found = {key: function() for key, function in functions.items()}
    medians = alternate(functions, rounds)
    row: dict[str, Any] = {"protocol": name, "images": images}
    row["images_per_second"] = {key: images / seconds for key, seconds in medians.items()}
    row["ratio"] = {key: medians["torchvision"] / seconds for key, seconds in medians.items() if key != "torchvision"}
    row["mean_difference"] = {
        key: float(np.abs(values - found["torchvision"]).mean())
        for key, values in found.items()
        if key != "torchvision"
    }
    if name.startswith("dense"):
        assert np.abs(found["fp32"] - found["torchvision"]).max() < 1e-4
    assert (found["fp32"].argmax(1) == found["torchvision"].argmax(1)).mean() > 0.9
    return row


def main() -> None:
    """Prints and stores images/s and ratios for dense and multi-crop evaluation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    options = parser.parse_args()
    device = hardware.device(options.device)
    with tempfile.TemporaryDirectory() as name:
        source = IlsvrcSource(options.photos)
        data = prepare(source, Path(name) / "data", "paper")
        split = Split(data, "val")
        files = [bytes(split.image_bytes(index)) for index in range(options.images)]
        run = make_run(Path(name) / "runs" / "D-256-512")
        peer = Peer(run, device)
        nets = {kind: ours(run, split, options.images, kind, device) for kind in ("fp32", "bf16")}
        rows = []
        for q in (256, 384, 512):
            functions = {"torchvision": lambda q=q: peer.dense(files, q)}
            functions |= {kind: (lambda net=net, q=q: net("dense", [q])) for kind, net in nets.items()}
            rows.append(compare(f"dense, Q = {q}", functions, options.images, options.rounds))
            print(rows[-1])
        functions = {"torchvision": lambda: np.mean([peer.dense(files, q) for q in (256, 384, 512)], axis=0)}
        functions |= {kind: (lambda net=net: net("dense", [256, 384, 512])) for kind, net in nets.items()}
        rows.append(compare("dense, Q = 256, 384, 512", functions, options.images, options.rounds))
        few = max(1, options.images // 4)
        nets = {kind: ours(run, split, few, kind, device) for kind in ("fp32", "bf16")}
        functions = {"torchvision": lambda: peer.multicrop(files[:few], 256)}
        functions |= {kind: (lambda net=net: net("multicrop", [256])) for kind, net in nets.items()}
        rows.append(compare("multi-crop, Q = 256", functions, few, options.rounds))
    write("evaluate", rows)


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"{time.monotonic() - began:.0f} s")
