"""Classifying image files with a run: top classes by each method, and the map of scores that dense evaluation makes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from vggrepro import hardware, synsets, views
from vggrepro.errors import InputError
from vggrepro.evaluate import Protocol
from vggrepro.evaluator import Evaluator
from vggrepro.files import atomic
from vggrepro.images import BadImage, decode
from vggrepro.net import to_input
from vggrepro.paper import STRIDE, Scale, real_pixels
from vggrepro.posteriors import TOP_K
from vggrepro.runs import RunFolder
from vggrepro.train import Machine


def read(path: Path) -> Image.Image:
    """An image file as RGB.

    Raises:
        InputError: no such file, or no image.
    """
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise InputError(f"predict: {path} cannot be read ({error.strerror}); give an image file") from None
    except BadImage as error:
        raise InputError(f"predict: {path} is no readable image ({error})") from None


def names(run: RunFolder) -> tuple[list[str], list[str]]:
    """The run's class names, and what people call them."""
    config = run.config()
    classes = config.get("class_names") or [str(number) for number in range(int(config["classes"]))]
    known = config.get("class_words") or synsets.words(classes)
    return classes, [(word or name).split(",")[0] for word, name in zip(known, classes, strict=True)]


def predict(run: RunFolder, files: Sequence[Path], protocol: Protocol, machine: Machine) -> pd.DataFrame:
    """The best classes of each image by each method, posteriors averaged over the method's Q.

    Columns: image, method, rank, class, words, posterior.

    Raises:
        InputError: unfinished run, a file that is no image.
    """
    run.require_finished()
    images = [read(path) for path in files]  # all of them before the first is computed
    evaluator, scale = Evaluator(run, machine), Scale.parse(str(run.config()["scale"]))
    classes, words = names(run)
    rows = []
    for path, image in zip(files, images, strict=True):
        for method in protocol.methods:
            found = [
                evaluator.posteriors([_at(image, q, evaluator)], method, protocol.flips(method), protocol.grid)[0]
                for q in protocol.scales(method, scale)
            ]
            posterior = np.stack(found).mean(0, dtype=np.float64)
            for rank, label in enumerate(np.argsort(-posterior, kind="stable")[:TOP_K].tolist(), 1):
                row = {"image": str(path), "method": method, "rank": rank, "class": classes[label]}
                rows.append(row | {"words": words[label], "posterior": posterior[label]})
    return pd.DataFrame(rows)


def _at(image: Image.Image, q: int, evaluator: Evaluator) -> np.ndarray:
    return views.rescale(image, real_pixels(q, evaluator.crop), evaluator.resample)


def class_map(run: RunFolder, image: Image.Image, q: int, machine: Machine) -> tuple[int, np.ndarray]:
    """The class with the best dense score at Q, and its scores at each position: (rows, columns) float32."""
    evaluator = Evaluator(run, machine)
    batch = torch.from_numpy(_at(image, q, evaluator).copy())[None].to(machine.device)
    with torch.inference_mode(), hardware.autocast(machine.precision, machine.device):
        scores = evaluator.model.score_map(to_input(batch, evaluator.mean, evaluator.input_scale))[0].float()
    best = int(scores.mean((1, 2)).argmax())
    return best, scores[best].cpu().numpy()


def extent(shape: tuple[int, ...], crop: int, unit: float) -> tuple[float, float, float, float]:
    """Where a score map of `shape` lies on the image: left, right, bottom and top edge, in original pixels.

    A position stands at the centre of the cells that fc6 sees, with half a stride around it.

    Args:
        shape: rows, columns.
        crop: side of the net's training crop, in real pixels.
        unit: original pixels for one at Q.
    """
    rows, columns = shape
    first = (crop // STRIDE - 1) * STRIDE / 2 * unit
    return first, first + columns * STRIDE * unit, first + rows * STRIDE * unit, first


def heatmap(run: RunFolder, path: Path, protocol: Protocol, machine: Machine, to: Path) -> None:
    """Overlays the score map of the best class on the image, where each position looks, and writes a PNG.

    The map is that of the largest of the protocol's Q, which has the most positions.

    Raises:
        InputError: unfinished run, no image, an image so small at Q that there is one position alone.
    """
    run.require_finished()
    image, q = read(path), max(protocol.scales("dense", Scale.parse(str(run.config()["scale"]))))
    label, scores = class_map(run, image, q, machine)
    if scores.size < 2:
        raise InputError(f"--heatmap: at Q = {q} dense evaluation has one position on {path}; give a larger --q")
    import matplotlib
    from matplotlib.figure import Figure

    crop = int(run.config()["crop"])
    place = extent(scores.shape, crop, min(image.size) / real_pixels(q, crop))
    width, height = image.size
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(7, 7 * height / width * 0.9 + 0.6), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(np.asarray(image))
        drawn = axes.imshow(scores, cmap="magma", alpha=0.55, extent=place, interpolation="bicubic")
        axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
        axes.set_title(f"{names(run)[1][label]}: class score, {run.name}, dense, Q = {q}")
        figure.colorbar(drawn, ax=axes, shrink=0.8)
        with atomic(to) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
