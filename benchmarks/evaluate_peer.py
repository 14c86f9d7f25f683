"""The peer of benchmarks/evaluate.py, in a process of its own: torchvision's vgg16 as its users turn it convolutional.

Nothing of vggrepro is imported, so that its memory settings do not help. Started by evaluate.py; reads one JSON object
a line, {"method", "q", "crop", "files", "exact"}, and answers with the path of a .npy of posteriors. On a GPU its
convolutions are in tf32, torch's default, but for "exact" requests, whose posteriors are compared.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.vgg import make_layers
from torchvision.transforms import functional as vision

MEAN = (123.68, 116.779, 103.939)
INPUT_SCALE = 0.017


class Peer:
    """torchvision's vgg16 with our weights, its FC layers as convolutions; an image, a Q and a flip at a time."""

    def __init__(self, weights: Path, device: str) -> None:
        tensors = load_file(weights)
        names = sorted(name for name in tensors if name.startswith("conv") and name.endswith("weight"))
        plan: list[int | str] = []
        for name, following in zip(names, [*names[1:], "end"], strict=True):
            plan += [len(tensors[name])] + (["M"] if following[:5] != name[:5] else [])
        features = make_layers(plan)  # those of vgg16, with as many channels as the weights have
        layers = [m for m in features if isinstance(m, nn.Conv2d)]
        for layer, name in zip(layers, names, strict=True):
            layer.weight.data, layer.bias.data = tensors[name], tensors[name.replace("weight", "bias")]
        fully: list[nn.Module] = []
        inputs = len(tensors[names[-1]])
        for name in ("fc6", "fc7", "fc8"):
            weight = tensors[f"{name}.weight"]
            side = round((weight.shape[1] / inputs) ** 0.5)
            conv = nn.Conv2d(inputs, len(weight), side)
            conv.weight.data, conv.bias.data = weight.view(conv.weight.shape), tensors[f"{name}.bias"]
            fully += [conv, nn.ReLU()]
            inputs = len(weight)
        self.net = nn.Sequential(*features, *fully[:-1]).eval().to(device)
        self.device = device
        self.mean = torch.tensor(MEAN)[:, None, None]

    def _image(self, path: str, q: int, flip: bool) -> Tensor:
        image = vision.resize(Image.open(path).convert("RGB"), q)
        image = vision.hflip(image) if flip else image
        return ((vision.pil_to_tensor(image).float() - self.mean) * INPUT_SCALE)[None]

    def dense(self, path: str, q: int, crop: int) -> np.ndarray:
        """A pass for each flip, which decodes the file again."""
        result = np.float64(0)
        for flip in (False, True):
            scores = self.net(self._image(path, q, flip).to(self.device)).mean((2, 3))
            result += scores.softmax(1)[0].cpu().numpy() / 2
        return result

    def multicrop(self, path: str, q: int, crop: int) -> np.ndarray:
        """Crop by crop, 5x5 from border to border, for each flip."""
        result = np.float64(0)
        for flip in (False, True):
            x = self._image(path, q, flip)
            tops, lefts = (np.linspace(0, length - crop, 5).round().astype(int) for length in x.shape[2:])
            for top in tops:
                for left in lefts:
                    cut = x[:, :, top : top + crop, left : left + crop].to(self.device)
                    result += self.net(cut)[:, :, 0, 0].softmax(1)[0].cpu().numpy() / 50
        return result


def main() -> None:
    """Serves requests until stdin ends."""
    weights, device, answer = sys.argv[1:]
    peer = Peer(Path(weights), device)
    print("ready", flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            asked = json.loads(line)
            torch.backends.cudnn.allow_tf32 = not asked["exact"]
            found = [getattr(peer, asked["method"])(path, asked["q"], asked["crop"]) for path in asked["files"]]
            np.save(answer, np.stack(found))
            print(answer, flush=True)


if __name__ == "__main__":
    main()
