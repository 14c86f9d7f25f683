"""Classifies image files with a run: the best classes by each method, and the map of scores of dense evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from vggrepro.data import rescaling, synsets
from vggrepro.data.images import BadImage, decode_new, ordered
from vggrepro.errors import InputError
from vggrepro.evaluation.evaluator import Evaluator
from vggrepro.nets.trained import Trained
from vggrepro.nets.vgg import to_input
from vggrepro.paper import TOP_K, real_pixels
from vggrepro.posteriors.protocol import Protocol
from vggrepro.runs.config import RunConfig
from vggrepro.runs.folder import RunFolder
from vggrepro.system import devices
from vggrepro.system.devices import Machine
from vggrepro.system.files import atomic

BATCH = 32  # images in memory at once; as many again are rescaled ahead
LONGEST_FIGURE = 28.0  # inches of a heat map; matplotlib draws 2^16 pixels at most


def read(path: Path) -> Image.Image:
    """An image file as RGB, rotated as its EXIF data say: cameras store photographs on their side.

    Raises:
        InputError: no such file, no image, or one whose scale is not known.
    """
    try:
        return decode_new(path.read_bytes()).upright()
    except OSError as error:
        raise _unreadable(path, error) from None
    except BadImage as error:
        raise InputError(f"predict: {path} is no readable image ({error}); give an image file") from None


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"predict: {path} cannot be read ({error.strerror}); give an image file")


def _require_files(files: Sequence[Path]) -> None:
    """InputError for a file that cannot be opened, before the first is computed."""
    for path in files:
        try:
            path.open("rb").close()
        except OSError as error:
            raise _unreadable(path, error) from None


def names(config: RunConfig) -> tuple[list[str], list[str]]:
    """A run's class names, and what people call them."""
    classes = list(config.class_names or map(str, range(config.classes)))
    known = config.class_words or synsets.words(classes)
    return classes, [(word or name).split(",")[0] for word, name in zip(known, classes, strict=True)]


def predict(folder: RunFolder, files: Sequence[Path], protocol: Protocol, machine: Machine) -> pd.DataFrame:
    """The best classes of each image by each method, posteriors averaged over the method's Q.

    Columns: image, method, rank, class, words, posterior.

    Raises:
        InputError: unfinished run, a file that is no image.
    """
    folder.require_finished()
    _require_files(files)
    trained = Trained.load(folder)
    evaluator, config = Evaluator(trained, machine), trained.config
    classes, words = names(config)
    qs = {method: protocol.scales(method, config.scale) for method in protocol.methods}

    def load(path: Path) -> dict[int, np.ndarray]:
        image = read(path)
        return {q: _at(image, q, evaluator) for q in {q for several in qs.values() for q in several}}

    def averaged(images: list[dict[int, np.ndarray]], method: str) -> np.ndarray:
        seen = protocol.method(method)
        found = [evaluator.posteriors([scales[q] for scales in images], seen) for q in qs[method]]
        return np.stack(found).mean(0, dtype=np.float64)

    rows = []
    rescaled = ordered(load, files, machine.workers, BATCH)
    for start in range(0, len(files), BATCH):
        images = list(islice(rescaled, BATCH))
        found = {method: averaged(images, method) for method in protocol.methods}
        for number, path in enumerate(files[start : start + BATCH]):
            for method, posteriors in found.items():
                best = np.argsort(-posteriors[number], kind="stable")[:TOP_K].tolist()
                for place, label in enumerate(best, 1):
                    row = {"image": str(path), "method": method, "rank": place, "class": classes[label]}
                    rows.append(row | {"words": words[label], "posterior": posteriors[number, label]})
    return pd.DataFrame(rows)


def _at(image: Image.Image, q: int, evaluator: Evaluator) -> np.ndarray:
    return rescaling.rescale(image, real_pixels(q, evaluator.crop), evaluator.resample)


def class_map(trained: Trained, image: Image.Image, label: int, q: int, machine: Machine) -> np.ndarray:
    """A class's dense scores at Q at each position: (rows, columns) float32."""
    evaluator = Evaluator(trained, machine)
    batch = torch.from_numpy(_at(image, q, evaluator).copy())[None].to(machine.device)
    with torch.inference_mode(), devices.autocast(machine.precision, machine.device):
        scores = evaluator.model.score_map(to_input(batch, evaluator.mean, evaluator.input_scale))[0].float()
    return scores[label].cpu().numpy()


def extent(shape: tuple[int, ...], crop: int, stride: int, unit: float) -> tuple[float, float, float, float]:
    """Where a score map of `shape` lies on the image: left, right, bottom and top edge, in original pixels.

    A position stands at the centre of the cells that fc6 sees, with half a stride around it.

    Args:
        shape: rows, columns.
        crop: side of the net's training crop, in real pixels.
        stride: real pixels between two positions.
        unit: original pixels for one at Q.
    """
    rows, columns = shape
    first = (crop // stride - 1) * stride / 2 * unit
    return first, first + columns * stride * unit, first + rows * stride * unit, first


def heatmap(folder: RunFolder, path: Path, best: str, protocol: Protocol, machine: Machine, to: Path) -> None:
    """Draws the dense score map of a class over the image, each score at its place, and writes a PNG.

    It uses the largest of the protocol's Q, which has the most positions.

    Args:
        folder: a finished run.
        path: the image.
        best: the class, such as the first of `predict`.
        protocol: whose Q are taken.
        machine: how to compute.
        to: the PNG.

    Raises:
        InputError: unfinished run, no image, an image that has only one position at Q.
    """
    folder.require_finished()
    trained = Trained.load(folder)
    config = trained.config
    image, q = read(path), max(protocol.scales("dense", config.scale))
    classes, words = names(config)
    label = classes.index(best)
    scores = class_map(trained, image, label, q, machine)
    if scores.size < 2:
        raise InputError(f"--heatmap: at Q = {q} dense evaluation has one position on {path}; give a larger --q")
    import matplotlib
    from matplotlib.figure import Figure

    place = extent(scores.shape, config.crop, config.stride, min(image.size) / real_pixels(q, config.crop))
    width, height = image.size
    with matplotlib.rc_context({"font.size": 9}):
        inches = min(max(7 * height / width * 0.9 + 0.6, 1.5), LONGEST_FIGURE)
        figure = Figure(figsize=(7, inches), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(np.asarray(image))
        drawn = axes.imshow(scores, cmap="magma", alpha=0.55, extent=place, interpolation="bicubic")
        axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
        axes.set_title(f"{words[label]}: class score, {folder.name}, dense, Q = {q}")
        figure.colorbar(drawn, ax=axes, shrink=0.8)
        with atomic(to) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
