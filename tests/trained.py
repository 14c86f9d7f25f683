"""Small trainings on a prepared data set."""

from __future__ import annotations

from pathlib import Path

from nets import CPU
from torch import Tensor

from vggrepro import recipe
from vggrepro.data.dataset import Dataset
from vggrepro.nets import weights
from vggrepro.paper import Run, Scale
from vggrepro.runs.folder import RunFolder
from vggrepro.system.devices import Machine
from vggrepro.training.chain import Request, train_chain

SMALL = {"crop": 32, "width": 1 / 16, "batch": 8, "epochs": 2, "deeper_epochs": 2, "rescale_epochs": 1}
SMALL |= {"schedule": "plateau", "drops": 3}


def train(dataset: Dataset, runs: Path, machine: Machine = CPU, seed: int = 0, **values: object) -> RunFolder:
    """A-256 trained on `dataset`, with recipe values replaced."""
    request = Request(recipe.load("demo", SMALL | values), dataset, runs, machine, seed)
    train_chain(Run("A", Scale(256, 256)), request)
    return RunFolder(runs / "A-256")


def tensors(run: RunFolder) -> dict[str, Tensor]:
    return weights.load(run.weights_path)[0]


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference of any tensor, relative to that tensor's largest value."""
    assert a.keys() == b.keys()
    return max(float((a[n] - b[n]).abs().max() / b[n].abs().max().clamp_min(1e-12)) for n in a)


def request(dataset: Dataset, folder: Path, **values: object) -> Request:
    chosen = recipe.load("demo", SMALL | {"epochs": 1, "deeper_epochs": 1, "rescale_rate": 0.001} | values)
    return Request(chosen, dataset, folder, CPU)
