"""The package from Python: nets, runs, scores of images, posteriors, tables, claims, figures (docs/python.md).

A run is named by its folder, such as "runs/D-256-512"; several by the folder that holds them, such as "runs".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from vggrepro import paper
from vggrepro.data import dataset as datasets
from vggrepro.data.dataset import Dataset
from vggrepro.data.rescaling import centre_window, cut, rescale
from vggrepro.errors import InputError
from vggrepro.evaluation import evaluate, predict
from vggrepro.evaluation.evaluator import Evaluator
from vggrepro.exchange.importing import import_weights
from vggrepro.nets.initialise import initialise
from vggrepro.nets.trained import Trained
from vggrepro.nets.vgg import VGG, to_input
from vggrepro.posteriors import files
from vggrepro.posteriors.protocol import Protocol
from vggrepro.report.page import write_figures
from vggrepro.results import claims
from vggrepro.results.scores import over_seeds
from vggrepro.results.tables import Table, tables_of
from vggrepro.runs.folder import RunFolder
from vggrepro.system import devices
from vggrepro.system.devices import Machine

__all__ = [
    "InputError",
    "check_claims",
    "draw_figures",
    "evaluate_run",
    "import_weights",
    "load_data",
    "load_net",
    "load_run",
    "make_tables",
    "new_net",
    "predict_files",
    "preprocess",
    "read_posteriors",
    "score_image",
]


def new_net(
    net: str,
    classes: int = 1000,
    crop: int = paper.CROP,
    width: float = 1.0,
    *,
    stride: int = paper.STRIDE,
    min_channels: int = 1,
    initialisation: str = "he",
    seed: int = 0,
) -> VGG:
    """A net of Table 1 with random weights, in train mode, with the paper's dropout of 0.5 (Sect. 3.1).

    Args:
        net: A, A-LRN, B, B-5x5, C, D or E.
        classes: size of the last layer.
        crop: side of a training crop in pixels.
        width: multiplies channels and FC units; 1 is the paper.
        stride: pixels between two positions of the score map; 32 is the paper.
        min_channels: of each conv. layer, however small the width.
        initialisation: random (the paper's), glorot (uniform), glorot-normal, he, delta, looks-linear or dirac.
        seed: of the weights.

    Raises:
        InputError: an unknown net or initialisation, or a crop that leaves no position.
    """
    model = VGG(paper.check_net(net), classes, crop, width, stride=stride, min_channels=min_channels)
    initialise(model, initialisation, seed)
    model.dropout = paper.DROPOUT
    return model


def load_run(run: str | Path) -> Trained:
    """A finished run: `config`, `tensors`, `model()`, `mean` and `std` of its input.

    Raises:
        InputError: no such run, an unfinished or a damaged one.
    """
    return Trained.load(RunFolder(Path(run)))


def load_net(run: str | Path) -> VGG:
    """A finished run's net in eval mode; `.train()` switches the run's dropout on.

    Raises:
        InputError: as `load_run`.
    """
    return load_run(run).model()


def preprocess(run: str | Path) -> Callable[[Image.Image], Tensor]:
    """A function that makes an image the net's input, (3, crop, crop): rescaled to Q = S, central crop, minus the mean.

    Raises:
        InputError: as `load_run`.
    """
    trained = load_run(run)
    config, mean = trained.config, torch.tensor(trained.config.mean_rgb)

    def prepared(image: Image.Image) -> Tensor:
        image = image.convert("RGB")
        pixels = cut(image, centre_window(*image.size, trained.test_side, config.crop), config.recipe.resample)
        return to_input(torch.from_numpy(pixels.copy())[None], mean, config.input_scale)[0]

    return prepared


def score_image(run: str | Path, image: Image.Image, method: str = "dense", q: int | None = None) -> pd.Series:
    """An image's posteriors by class (Sect. 3.2).

    Args:
        run: a finished run's folder.
        image: of any size.
        method: dense, multicrop, center or tencrop.
        q: the test scale in the paper's pixels; None: the training scale S.

    Raises:
        InputError: as `load_run`; an image that is too small at Q.
    """
    trained = load_run(run)
    side = paper.real_pixels(q, trained.config.crop) if q else trained.test_side
    pixels = rescale(image.convert("RGB"), side, trained.config.recipe.resample)
    found = Evaluator(trained, _machine()).posteriors([pixels], Protocol((method,)).method(method))[0]
    return pd.Series(found, index=predict.names(trained.config)[0], name=method)


def predict_files(run: str | Path, images: Sequence[str | Path], methods: Sequence[str] = ("dense",)) -> pd.DataFrame:
    """The five best classes of image files: image, method, rank, class, words, posterior.

    Raises:
        InputError: as `load_run`; a file that is no image.
    """
    return predict.predict(RunFolder(Path(run)), [Path(path) for path in images], Protocol(tuple(methods)), _machine())


def load_data(folder: str | Path) -> Dataset:
    """A data set that `vggrepro prepare` wrote.

    Raises:
        InputError: there is none, or it is damaged.
    """
    return datasets.load(Path(folder))


def evaluate_run(
    run: str | Path, data: str | Path | Dataset, methods: Sequence[str] = ("dense",), qs: Sequence[int] | None = None
) -> pd.DataFrame:
    """Writes the run's missing posteriors; gives the errors in per cent of each Q and of their mean.

    Raises:
        InputError: as `load_run`; a data set of other classes.
    """
    protocol = Protocol(tuple(methods), tuple(qs) if qs else None)
    return evaluate.evaluate(RunFolder(Path(run)), _data(data), protocol, _machine())


def read_posteriors(file: str | Path) -> pd.DataFrame:
    """A posterior file as a frame: one row per image (its key is the index), `label`, a column for each class number.

    Raises:
        InputError: no such file, or a damaged one.
    """
    parts = [
        pd.DataFrame(batch.posteriors, index=pd.Index(batch.keys, name="image")).assign(label=batch.labels)
        for batch in files.read(Path(file))
    ]
    frame = pd.concat(parts)
    return frame[["label", *(name for name in frame if name != "label")]]


def make_tables(runs: str | Path, data: str | Path | Dataset) -> list[Table]:
    """Tables 1-7 with the paper's numbers, over all seeds as `report` has them; each has `frame`, `caption`, `notes`.

    Raises:
        InputError: no data set, files of different images.
    """
    return tables_of(over_seeds(Path(runs), _data(data)))


def check_claims(runs: str | Path, data: str | Path | Dataset) -> pd.DataFrame:
    """The paper's claims, one line for each comparison and measure (columns: `vggrepro.results.claims.frame`).

    Raises:
        InputError: no data set, files of different images.
    """
    return claims.frame(claims.evaluate_claims(over_seeds(Path(runs), _data(data))))


def draw_figures(runs: str | Path, data: str | Path | Dataset, folder: str | Path) -> list[Path]:
    """Writes every figure of the report as PNG and SVG; gives their paths.

    Raises:
        InputError: no data set.
    """
    return write_figures(Path(runs), _data(data), Path(folder))


def _data(data: str | Path | Dataset) -> Dataset:
    """A data set that is given itself or by its folder."""
    return data if isinstance(data, Dataset) else load_data(data)


def _machine() -> Machine:
    """This machine, as `--device auto --precision auto` takes it."""
    chosen = devices.device()
    return Machine(chosen, devices.precision("auto", chosen))
