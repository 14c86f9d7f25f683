"""Claim: at quarter scale nets start faster from `delta` than from He's weights, deep ones most.

python benchmarks/initialisation.py     (in a folder with data/ of the preset coarse; 8 minutes of one core)

At the start: how alike the fc7 activations of two images are, and fc8's share of the gradient. After 2 epochs: the
loss and the held-out error of A, of D started from it, and of E from random weights. Runs stay in runs-he/ and
runs-delta/; the same command goes on with them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import write
from torch.nn import functional

from vggrepro import recipe
from vggrepro.data import dataset, rescaling
from vggrepro.nets.initialise import initialise
from vggrepro.nets.vgg import VGG, to_input
from vggrepro.runs.folder import RunFolder
from vggrepro.system import devices

WIDTH, EPOCHS, IMAGES = 0.125, 2, 64
NETS = ("A", "D", "E")
SETS: tuple[str, ...] = ()  # further values of the recipe


def at_the_start(net: str, how: str) -> dict[str, float]:
    """Cosine of two images' fc7 activations, and fc8's share of the gradient's squared norm, by a batch of images."""
    data = dataset.load(Path("data"))
    split, values = dataset.Split(data, "train"), recipe.load("coarse")
    places = np.linspace(0, len(split) - 1, IMAGES).astype(int)
    pixels = np.stack([rescaling.rescale(split.image(int(place)), values.crop) for place in places])
    x = to_input(torch.from_numpy(pixels), torch.tensor(data.mean_rgb), values.input_scale)
    model = VGG(net, len(data.classes), values.crop, WIDTH)
    initialise(model, how, 0, fc8=values.initial_fc8)
    hidden = functional.relu(model.fc7(functional.relu(model.fc6(model.features(x).flatten(1)))))
    functional.cross_entropy(model.fc8(hidden), torch.from_numpy(split.labels[places]).long()).backward()
    unit = functional.normalize(hidden.detach(), dim=1)
    cosine = ((unit @ unit.T).sum().item() - IMAGES) / (IMAGES * (IMAGES - 1))
    squares = {name: p.grad.square().sum().item() for name, p in model.named_parameters() if p.grad is not None}
    return {"cosine": round(cosine, 3), "fc8_share": round(squares["fc8.weight"] / sum(squares.values()), 3)}


def after_training(net: str, how: str) -> dict[str, float]:
    """Mean training loss of the last epoch and held-out top-1 error (%)."""
    init = ["--init", how] if net == "E" else []  # without A's layers
    command = [sys.executable, "-m", "vggrepro", "train", net, *init, "--runs", f"runs-{how}"]
    sets = [f"epochs={EPOCHS}", f"deeper_epochs={EPOCHS}", f"initialisation={how}", *SETS]
    subprocess.run([*command, "--width", str(WIDTH), *(f"--set={value}" for value in sets)], check=True)
    last = RunFolder(Path(f"runs-{how}") / f"{net}-256").epochs()[-1]
    return {"loss": round(last.loss, 3), "held_out_top1": round(last.top1_error, 1)}


def main() -> None:
    """All nets, both initialisations."""
    devices.keep_memory()
    rows: list[dict[str, Any]] = [
        {"net": net, "initialisation": how, **at_the_start(net, how), **after_training(net, how)}
        for net in NETS
        for how in ("he", "delta")
    ]
    write("initialisation", {"width": WIDTH, "epochs": EPOCHS, "start": rows})


if __name__ == "__main__":
    main()
