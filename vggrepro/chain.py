"""Which runs to train in which order, what each starts from, and the folder each leaves (Sect. 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vggrepro import __version__, hardware, paper, runs, weights
from vggrepro.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.files import lock, write_json
from vggrepro.net import VGG, initialise
from vggrepro.paper import Run
from vggrepro.progress import say
from vggrepro.provenance import commit
from vggrepro.recipe import Recipe
from vggrepro.runs import RunFolder
from vggrepro.train import Machine, Plan, Stopped, Training

# Values of a config that say how or when a run was made, not which run it is.
NOT_IDENTITY = ("device", "versions")


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked to train, resolved: shared by all runs of a chain."""

    recipe: Recipe
    dataset: Dataset
    runs: Path
    machine: Machine
    seed: int = 0
    retrain: bool = False  # train the target again even if it is finished


def train_chain(target: Run, request: Request, start: str | None = None) -> None:
    """Trains `target` and, first, whatever it starts from that is not finished.

    Args:
        target: the run wanted.
        request: recipe, data and machine.
        start: overrides what the target starts from: an initialisation or the name of a finished run.

    Raises:
        InputError: a run folder of another configuration, an unfinished start, a locked run.
        Stopped: a signal asked to stop; progress is saved.
    """
    chain = paper.chain(target) if start is None else [target]
    states = []
    for run in chain:
        done = RunFolder(request.runs / run.name).finished and not (request.retrain and run == target)
        states.append(f"{run.name} ({'done' if done else 'to train'})")
    if hardware.rank() == 0:
        say(f"plan: {' → '.join(states)}")
    for run in chain:
        _train(run, request, start if run == target else None, is_target=run == target)


def _train(run: Run, request: Request, start: str | None, is_target: bool) -> None:
    folder = RunFolder(request.runs / run.name)
    parent = _parent(run, request, start)
    config = _config(run, request, start, parent)
    retrain = request.retrain and is_target
    with hardware.first_process(lock(folder.path, f"vggrepro train {run.name}")):
        if folder.config_path.is_file() and not retrain:
            _check_same(folder, config, is_target)
        if folder.finished and not retrain:
            if is_target and hardware.rank() == 0:
                say(f"{run.name} is finished already; --retrain trains it again")
            return
        hardware.barrier()  # all processes have looked before the first one writes
        if hardware.rank() == 0:
            if retrain:
                _remove_results(folder)
            write_json(folder.config_path, config)
        hardware.barrier()
        _fit(run, request, config, folder, parent)


def _fit(run: Run, request: Request, config: dict[str, Any], folder: RunFolder, parent: RunFolder | None) -> None:
    """Trains the run from its checkpoint or its start, and leaves the finished weights."""
    dataset, recipe = request.dataset, request.recipe
    model = VGG(run.net, len(dataset.classes), recipe.crop, recipe.width)
    scale, epochs, rate = run.scale, config["epochs"], config["learning_rate"]
    plan = Plan(run.name, scale, recipe, rate, epochs, request.seed, run.fc_only)
    training = Training(plan, model, dataset, folder, request.machine)
    if training.resume():
        state = training.progress
        if hardware.rank() == 0:
            say(f"{run.name}: resuming at epoch {len(state.history) + 1}, step {state.step}")
    else:
        text = _start_weights(model, run, config, parent, request)
        if hardware.rank() == 0:
            say(f"{run.name}: {text}")
            training.save()  # so that a kill at any later moment resumes and does not begin anew
    try:
        training.run()
    except Stopped:
        if hardware.rank() == 0:
            state = training.progress
            say(
                f"{run.name}: stopped and saved at epoch {len(state.history) + 1}, step {state.step}; "
                "run the same command to resume"
            )
        raise
    if hardware.rank() == 0:
        weights.save(folder.weights_path, model.state_dict(), {"run": run.name})
        folder.checkpoint_path.unlink(missing_ok=True)
        folder.progress_path.unlink(missing_ok=True)
    hardware.barrier()


def _parent(run: Run, request: Request, start: str | None) -> RunFolder | None:
    """The finished run that `run` starts from, None for random weights."""
    if start in paper.INITIALISERS:
        return None
    if start is not None:
        parent = runs.folder(request.runs, start)
    elif run.parent is None:
        return None
    else:
        parent = RunFolder(request.runs / run.parent.name)
    if not parent.finished:
        raise InputError(f"{parent.name} is not finished; finish it before training {run.name} from it")
    config = parent.config()
    structure = {
        "classes": len(request.dataset.classes),
        "crop": request.recipe.crop,
        "width": request.recipe.width,
    }
    for name, value in structure.items():
        if config[name] != value:
            raise InputError(
                f"{run.name} would start from {parent.path}, which has {name} {config[name]}, not {value}; "
                "give --runs another folder"
            )
    return parent


def _config(run: Run, request: Request, start: str | None, parent: RunFolder | None) -> dict[str, Any]:
    """Every resolved value of a run, as config.json holds it."""
    recipe, dataset = request.recipe, request.dataset
    origin: dict[str, Any]
    if parent is None:
        how = start if start in paper.INITIALISERS else recipe.initialisation
        origin = {"initialisation": how}
        epochs, rate = recipe.epochs, recipe.learning_rate
    else:
        origin = {"run": parent.name, "weights": parent.weights_hash()}
        same_net = parent.config()["net"] == run.net
        epochs = recipe.rescale_epochs if same_net else recipe.deeper_epochs
        rate = recipe.rescale_rate if same_net else recipe.learning_rate
    return {
        "net": run.net,
        "scale": str(run.scale),
        "fc_only": run.fc_only,
        "crop": recipe.crop,
        "width": recipe.width,
        "classes": len(dataset.classes),
        "mean_rgb": list(dataset.mean_rgb),
        "input_scale": recipe.input_scale,
        "start": origin,
        "epochs": epochs,
        "learning_rate": rate,
        "seed": request.seed,
        "precision": request.machine.precision,
        "recipe": recipe.as_dict(),
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "preset": dataset.preset,
            "train_images": dataset.counts["train"],
            "val_images": dataset.counts["val"],
        },
        "device": hardware.describe(request.machine.device),
        "versions": {"vggrepro": __version__, "commit": commit(), "torch": torch.__version__},
    }


def _check_same(folder: RunFolder, config: dict[str, Any], is_target: bool) -> None:
    """Refuses to resume, extend or start from a run of another configuration.

    A finished run that is only started from may have been trained with other options, on the same data.
    """
    was = folder.config()
    was.pop("origin", None)
    names = [name for name in config if name not in NOT_IDENTITY]
    if folder.finished and not is_target:
        names = ["net", "scale", "fc_only", "crop", "width", "classes", "dataset", "input_scale"]
    for name in names:
        if was.get(name) == config[name]:
            continue
        old, new = was.get(name), config[name]
        if isinstance(old, dict) and isinstance(new, dict):
            key = next(key for key in [*new, *old] if old.get(key) != new.get(key))
            name, old, new = f"{name}.{key}", old.get(key), new.get(key)
        remedy = "give --runs another folder, the same options as before"
        remedy += ", or --retrain" if is_target else ""
        raise InputError(f"{folder.path} is a run of another configuration: {name} is {old} there, now {new}; {remedy}")


def _start_weights(model: VGG, run: Run, config: dict[str, Any], parent: RunFolder | None, request: Request) -> str:
    """Fills the net as its config says and describes it in a line."""
    recipe = request.recipe
    how = config["start"].get("initialisation", recipe.initialisation)
    initialise(model, how, request.seed, recipe.initial_std, recipe.initial_fc8)
    if parent is None:
        return f"{config['epochs']} epochs at most from random weights ({how})"
    tensors, _ = weights.load(parent.weights_path)
    same_net = parent.config()["net"] == run.net
    copied, fresh = weights.copy_layers(model, tensors, None if same_net else paper.COPIED_FROM_A)
    text = f"{config['epochs']} epochs at most from {parent.name}: "
    text += "all layers copied" if not fresh else f"copied {', '.join(copied)}; fresh {', '.join(fresh)} ({how})"
    return text + ("; only the FC layers are trained" if run.fc_only else "")


def _remove_results(folder: RunFolder) -> None:
    """Before a run is trained again: its old end goes first, so that a kill cannot leave a mixture."""
    for path in (folder.weights_path, folder.checkpoint_path, folder.metrics_path, folder.progress_path):
        path.unlink(missing_ok=True)
