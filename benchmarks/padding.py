"""Claim: at a small crop and a large Q, most of what dense evaluation loses to crops is zero padding (Sect. 3.2).

python benchmarks/padding.py D-256:256 D-384:384     (run and Q; in a folder with data/ and runs/)

A position of dense evaluation sees the same window as a crop cut there; only what lies around the window differs: the
image, or zeros. So every window at a multiple of the net's stride is also cut out and scored alone, the scores averaged
over the windows as dense evaluation averages its positions, and both give an error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import write

from vggrepro import paper
from vggrepro.data import dataset
from vggrepro.data.rescaling import rescale
from vggrepro.evaluation.evaluator import dense_posteriors
from vggrepro.nets import weights
from vggrepro.nets.vgg import VGG, to_input
from vggrepro.runs import folder as run_folders
from vggrepro.system import devices

AT_A_TIME = 100  # images


def compare(name: str, q: int) -> dict[str, Any]:
    """Top-1 errors (%) of a run's dense evaluation at Q and of the same windows cut out, over the validation images."""
    folder = run_folders.find_run(Path("runs"), name)
    config, split = folder.config(), dataset.Split(dataset.load(Path("data")), "val")
    crop, side = config.crop, paper.real_pixels(q, config.crop)
    model = VGG.of(config.architecture, config.recipe.lrn)
    model.load_state_dict(weights.load(folder.weights_path)[0])
    model.eval().to(memory_format=torch.channels_last)
    offsets = range(0, side - crop + 1, paper.STRIDE)
    wrong = np.zeros(2, int)
    for start in range(0, len(split), AT_A_TIME):
        places = range(start, min(start + AT_A_TIME, len(split)))
        images = np.stack([rescale(split.image(place), side, config.recipe.resample) for place in places])
        labels = torch.from_numpy(split.labels[start : places.stop].astype(np.int64))
        with torch.inference_mode():
            x = to_input(torch.from_numpy(images), torch.tensor(config.mean_rgb), config.input_scale)
            flipped = torch.cat([x, x.flip(3)])
            cut = [flipped[:, :, top : top + crop, left : left + crop] for top in offsets for left in offsets]
            scores = torch.stack([model(window) for window in cut]).mean(0)
            alone = torch.softmax(scores, 1).view(2, len(x), -1).mean(0)
            both = (dense_posteriors(model, x), alone)
        wrong += [int((posterior.argmax(1) != labels).sum()) for posterior in both]
    dense, cut_out = (100 * wrong / len(split)).round(2).tolist()
    return {"run": name, "Q": q, "pixels": side, "windows": len(offsets) ** 2, "dense": dense, "cut_out": cut_out}


def main() -> None:
    """The runs and Q of the command line."""
    devices.keep_memory()
    asked = [word.rpartition(":") for word in sys.argv[1:] or ["D-384:384"]]
    write("padding", {"top1_errors": [compare(name, int(q)) for name, _, q in asked]})


if __name__ == "__main__":
    main()
