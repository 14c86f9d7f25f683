"""Small fixtures shared by all tests: a folder of photographs, a prepared data set, the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pages
import pytest
import torch
from nets import CPU, random_run
from PIL import Image

from vggrepro import cli
from vggrepro.data.dataset import Dataset
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import FolderSource
from vggrepro.evaluation.evaluator import Evaluator
from vggrepro.nets.trained import Trained
from vggrepro.runs.folder import RunFolder

# Tests compare bits, which depend on the number of threads: it does not follow the load.
os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))

Result = tuple[int, str, str]
Call = Callable[..., Result]

ROOT = Path(__file__).parent.parent
CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")  # one more than top-5 needs

# Weights and biases at crop 224, width 1, 1000 classes (Table 2 rounds them to millions).
PARAMETERS = {
    "A": 132_863_336,
    "A-LRN": 132_863_336,
    "B": 133_047_848,
    "C": 133_638_952,
    "D": 138_357_544,
    "E": 143_667_240,
}


def photo(label: int, seed: int, width: int, height: int) -> np.ndarray:
    """A colourful picture, uint8 (H, W, 3): gradients in the class's colour under some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    colour = np.random.default_rng(1000 + label).uniform(0, 255, (2, 3))
    waves = (np.sin(x / (5 + label)) * np.cos(y / (9 + seed % 7)) + 1)[..., None] / 2
    return np.clip(waves * colour[0] + (1 - waves) * colour[1] + rng.normal(0, 12, waves.shape), 0, 255).astype(
        np.uint8
    )


def write_photos(folder: Path, split: str, per_class: int, seed: int = 0) -> None:
    """`folder/<split>/<class>/<n>.jpg`, `per_class` images each, of aspect ratios from 1:3 to 3:1."""
    sides = [(96, 72), (72, 96), (150, 50), (50, 150), (80, 80), (131, 67)]
    for label, name in enumerate(CLASSES):
        (folder / split / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = photo(label, seed + 100 * label + number, *sides[(label + number) % len(sides)])
            Image.fromarray(pixels).save(folder / split / name / f"{number}.jpg", quality=90)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders train/ (5 images a class) and val/ (3) of the 6 `CLASSES`. Read-only: copy it to change it."""
    folder = tmp_path_factory.mktemp("source") / "photos"
    write_photos(folder, "train", 5)
    write_photos(folder, "val", 3, seed=50)
    return folder


@pytest.fixture
def dataset(photos: Path, tmp_path: Path) -> Dataset:
    """`photos` prepared with preset "demo" (crop 64) in `tmp_path/data`: 30 training, 18 validation images."""
    return prepare(FolderSource(photos), tmp_path / "data", "demo", workers=0)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run A-256 of random weights, in `tmp_path/runs`."""
    return random_run(tmp_path / "runs" / "A-256")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread, as in processes with OMP_NUM_THREADS=1: two threads may give sums another last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_evaluator(tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    """An evaluator of such a run, for many examples."""
    return Evaluator(Trained.load(random_run(tmp_path_factory.mktemp("runs") / "A-256")), CPU)


@pytest.fixture(scope="session")
def page_data(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The data set of the HTML report's tests."""
    return pages.evil_data(photos, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="session")
def page_runs(page_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several runs on it, to be read only."""
    return pages.several_runs(page_data, tmp_path_factory.mktemp("page") / "runs")


@pytest.fixture(scope="session")
def page_run(page_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one run on it, to be read only."""
    return pages.one_run(page_data, tmp_path_factory.mktemp("page") / "small")


@pytest.fixture(scope="session")
def page_text(page_runs: Path, page_data: Dataset) -> str:
    """The HTML report of `page_runs`."""
    from vggrepro.report import page  # here, as matplotlib takes a second that other tests need not wait for

    return page.page(page_runs, page_data)


@pytest.fixture
def vggrepro(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the console script's entry point in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["vggrepro", *words])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
