"""Claim: dense and multi-crop evaluation cost a fraction of what they cost as users write them today.

python benchmarks/evaluate.py [--images N] [--device cuda] [--rounds N] [--photos FOLDER]

Net D with the same weights on the same real photographs, turn by turn in one run. The peer is torchvision's vgg16
turned convolutional, in a process of its own, an image at a time, each Q and flip a pass that decodes the file again;
for multi-crop, crop by crop. Ours is what `vggrepro evaluate` does. Posteriors are compared; the best classes must
agree in fp32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluate_peer import CLASSES, INPUT_SCALE, MEAN
from record import alternate, write
from torch import Tensor

from vggrepro import evaluate as stage
from vggrepro import hardware, views, weights
from vggrepro.dataset import Split
from vggrepro.evaluate import Protocol
from vggrepro.evaluator import Evaluator
from vggrepro.files import write_json
from vggrepro.net import VGG, initialise, to_input
from vggrepro.prepare import prepare
from vggrepro.runs import RunFolder
from vggrepro.sources import IlsvrcSource
from vggrepro.train import Machine

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "ilsvrc-mini"


def make_run(folder: Path, crops: Tensor) -> RunFolder:
    """A finished run of net D with random weights whose scores have mean 0 and deviation 3 over photographs."""
    model = VGG("D", CLASSES, 224, 1.0)
    initialise(model, "he", 0)
    with torch.no_grad():
        scores = model(crops)
        scale = 3 / scores.std(0)
        model.fc8.weight *= scale[:, None]
        model.fc8.bias -= (scores * scale).mean(0)
    run = RunFolder(folder)
    config = {"net": "D", "scale": "256:512", "crop": 224, "width": 1.0, "classes": CLASSES}
    write_json(
        run.config_path, config | {"mean_rgb": MEAN, "input_scale": INPUT_SCALE, "recipe": {"resample": "bilinear"}}
    )
    weights.save(run.weights_path, dict(model.named_parameters()), {})
    return run


class Peer:
    """torchvision's vgg16 in a process of its own (evaluate_peer.py)."""

    def __init__(self, run: RunFolder, device: torch.device, folder: Path) -> None:
        script, answer = Path(__file__).with_name("evaluate_peer.py"), folder / "peer.npy"
        words = [sys.executable, str(script), str(run.weights_path), str(device), str(answer)]
        plain = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=plain)
        self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, method: str, q: int, files: list[Path]) -> np.ndarray:
        """Posteriors of the files by a method at Q."""
        assert self.process.stdin is not None
        request = {"method": method, "q": q, "files": [str(path) for path in files]}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return np.load(self._answer())


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
        files = [Path(name) / f"{index}.jpg" for index in range(options.images)]
        for index, file in enumerate(files):
            file.write_bytes(split.image_bytes(index))
        centre = [views.rescale(split.image(index), 256)[:224, :224].copy() for index in range(min(32, len(split)))]
        crops = to_input(torch.from_numpy(np.stack(centre)), torch.tensor(MEAN), INPUT_SCALE)
        run = make_run(Path(name) / "runs" / "D-256-512", crops)
        peer = Peer(run, device, Path(name))
        nets = {kind: ours(run, split, options.images, kind, device) for kind in ("fp32", "bf16")}
        rows = []
        for q in (256, 384, 512):
            functions = {"torchvision": lambda q=q: peer.ask("dense", q, files)}
            functions |= {kind: (lambda net=net, q=q: net("dense", [q])) for kind, net in nets.items()}
            rows.append(compare(f"dense, Q = {q}", functions, options.images, options.rounds))
            print(rows[-1])
        functions = {"torchvision": lambda: np.mean([peer.ask("dense", q, files) for q in (256, 384, 512)], axis=0)}
        functions |= {kind: (lambda net=net: net("dense", [256, 384, 512])) for kind, net in nets.items()}
        rows.append(compare("dense, Q = 256, 384, 512", functions, options.images, options.rounds))
        few = max(1, options.images // 4)
        nets = {kind: ours(run, split, few, kind, device) for kind in ("fp32", "bf16")}
        functions = {"torchvision": lambda: peer.ask("multicrop", 256, files[:few])}
        functions |= {kind: (lambda net=net: net("multicrop", [256])) for kind, net in nets.items()}
        rows.append(compare("multi-crop, Q = 256", functions, few, options.rounds))
    write("evaluate", rows)


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"{time.monotonic() - began:.0f} s")
