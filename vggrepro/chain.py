"""Which runs to train in which order, what each starts from, and the folder each leaves (Sect. 3.1)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from vggrepro import __version__, advice, hardware, paper, runs, weights
from vggrepro.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.files import lock, write_json
from vggrepro.interrupt import Stopped
from vggrepro.loader import check_stored
from vggrepro.net import VGG, initialise
from vggrepro.paper import Run
from vggrepro.progress import say
from vggrepro.provenance import commit
from vggrepro.recipe import Recipe, recorded
from vggrepro.runs import RunFolder
from vggrepro.train import Machine, Plan, Training

# Values of a config that a run must share with its own continuation, and with a run that starts from it.
STRUCTURE = ("dataset", "net", "scale", "fc_only", "crop", "stride", "width", "classes", "input_scale", "lrn")
IDENTITY = (*STRUCTURE, "start", "epochs", "learning_rate", "seed", "precision", "compiled", "recipe")


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked to train, resolved: shared by all runs of a chain."""

    recipe: Recipe
    dataset: Dataset
    runs: Path
    machine: Machine
    seed: int = 0
    retrain: bool = False  # train the target again even if it is finished


@dataclass(frozen=True, slots=True)
class Link:
    """A run of a chain: what it is or will be trained as, and whether it still has to be."""

    run: Run
    folder: RunFolder
    start: str | None  # overrides what it starts from
    config: dict[str, Any]
    to_train: bool
    same_net: bool  # it continues a run of its own net, of which it takes all layers


def plan_chain(target: Run, request: Request, start: str | None = None) -> list[Link]:
    """`target` and what it starts from, in the order of training, each checked against its folder; only reads.

    Nothing is trained beyond the last finished run; what is finished there is still listed.

    Args:
        target: the run wanted.
        request: recipe, data and machine.
        start: overrides what the target starts from: an initialisation or the name of a finished run.

    Raises:
        InputError: a run folder of another configuration, data without training images, or whose stored copies are too
            small for a scale.
    """
    request.dataset.require_training()
    chain = paper.chain(target) if start is None else [target]
    done = {run for run in chain if RunFolder(request.runs / run.name).finished}
    if request.retrain:
        done.discard(target)
    last = max((place for place, run in enumerate(chain) if run in done), default=-1)
    links: list[Link] = []
    for place, run in enumerate(chain):
        if place < last and run not in done:
            continue
        folder, own = RunFolder(request.runs / run.name), start if run == target else None
        config, parent = _config(run, request, own), _parent(run, request, own)
        _check(folder, config, request, is_target=run == target)
        links.append(Link(run, folder, own, config, place > last, parent is not None and _same_net(run, parent)))
    check_stored(request.dataset, [link.run.scale for link in links if link.to_train], request.recipe.crop)
    return links


def train_chain(target: Run, request: Request, start: str | None = None, *, quiet: bool = False) -> None:
    """Trains `target` and, first, whatever it starts from that is not finished.

    Every run's configuration is checked before any work begins.

    Args:
        target: the run wanted.
        request: recipe, data and machine.
        start: overrides what the target starts from: an initialisation or the name of a finished run.
        quiet: says nothing of a target that is finished already.

    Raises:
        InputError: a run folder of another configuration, an unfinished start, a locked run.
        Stopped: a signal asked to stop; progress is saved.
    """
    links = plan_chain(target, request, start)
    if not links[-1].to_train:
        if not quiet:
            say(f"{target.name} is finished already; --retrain trains it again")
        return
    states = [f"{link.run.name} ({'to train' if link.to_train else _length(link.folder)})" for link in links]
    say(f"plan: {' → '.join(states)}")
    for link in links:
        if link.to_train:
            _train(link.run, request, link.start, anew=request.retrain and link.run == target)


def epochs_done(folder: RunFolder) -> int:
    """Epochs that a run has finished."""
    return len(folder.metrics())


def _length(folder: RunFolder) -> str:
    count = epochs_done(folder)
    return f"done, {count} epoch{'s' if count != 1 else ''}"


def _train(run: Run, request: Request, start: str | None, anew: bool) -> None:
    """Trains one run, from its checkpoint if it has one; `anew` drops what another configuration left."""
    folder = RunFolder(request.runs / run.name)
    with hardware.first_process(lock(folder.path, f"vggrepro train {run.name}")):
        parent = _parent(run, request, start)
        if parent is not None and not parent.finished:
            raise InputError(f"{parent.name} is not finished; finish it before training {run.name} from it")
        config = _config(run, request, start)
        recipe = request.recipe
        model = VGG(run.net, len(request.dataset.classes), recipe.crop, recipe.width, recipe.lrn, recipe.stride)
        epochs, rate = config["epochs"], config["learning_rate"]
        plan = Plan(run, recipe, rate, epochs, request.seed, start)
        training = Training(plan, model, request.dataset, folder, request.machine)
        changed = folder.config_path.is_file() and _difference(folder.config(), config, IDENTITY) is not None
        hardware.barrier()  # all processes have looked before the first one writes
        if hardware.rank() == 0:
            if anew and (folder.finished or changed):
                _set_aside(folder)
            write_json(folder.config_path, config)
        hardware.barrier()
        _fit(training, request, config, folder, parent)


def _fit(
    training: Training, request: Request, config: dict[str, Any], folder: RunFolder, parent: RunFolder | None
) -> None:
    """Trains from the checkpoint or the start, and leaves the finished weights."""
    name, state = folder.name, training.progress
    resumed = training.resume()
    hardware.barrier()  # all processes have read the checkpoint before the first one replaces or removes it
    if resumed:
        state = training.progress
        say(f"{name}: resuming at epoch {len(state.history) + 1}, step {state.step}")
    else:
        say(f"{name}: {_start_weights(training, config, parent, request)}")
        training.save()  # so that a kill at any later moment resumes and does not begin anew
    try:
        training.run()
    except Stopped:
        state = training.progress
        where = f"epoch {len(state.history) + 1}, step {state.step}"
        say(f"{name}: stopped and saved at {where}; run the same command to resume")
        raise
    if hardware.rank() == 0:
        weights.save(folder.weights_path, training.model.state_dict(), {"run": name})
        folder.remove_progress()
        shutil.rmtree(folder.former_path, ignore_errors=True)
    hardware.barrier()
    say(f"{name}: finished, {training.summary()}; next: {advice.command('evaluate', name)}")
    if stop := training.stop.agreed(request.machine.device):  # it came during the last validation
        raise Stopped(stop)


def _parent(run: Run, request: Request, start: str | None) -> RunFolder | None:
    """The run that `run` starts from, finished or not; None for random weights.

    Raises:
        InputError: no such run, the run itself, or one whose weights do not fit.
    """
    if start in paper.INITIALISERS or (start is None and run.parent is None):
        return None
    if start is not None:
        parent = runs.folder(request.runs, start)
    else:
        assert run.parent is not None
        parent = RunFolder(request.runs / run.parent.name)
    if parent.path.resolve() == (request.runs / run.name).resolve():
        raise InputError(f"{run.name} cannot start from itself; name another run or an initialisation")
    if not parent.config_path.is_file():
        return parent
    config, recipe = _complete(parent.config()), request.recipe
    structure: dict[str, Any] = {"classes": len(request.dataset.classes)}
    structure |= {name: getattr(recipe, name) for name in ("crop", "stride", "width", "input_scale")}
    if config["net"] == run.net and config["lrn"]:
        structure["lrn"] = recipe.lrn
    for name, value in structure.items():
        if config[name] != value:
            raise InputError(
                f"{run.name} would start from {parent.path}, which has {name} {config[name]}, not {value}; "
                "give --runs another folder"
            )
    return parent


def _same_net(run: Run, parent: RunFolder) -> bool:
    return bool(parent.config()["net"] == run.net) if parent.config_path.is_file() else run.is_rescaling


def _config(run: Run, request: Request, start: str | None) -> dict[str, Any]:
    """Every resolved value of a run, as config.json holds it; its start's weights are None while unfinished."""
    recipe, dataset = request.recipe, request.dataset
    parent = _parent(run, request, start)
    origin: dict[str, Any]
    if parent is None:
        how = start if start in paper.INITIALISERS else recipe.initialisation
        origin = {"initialisation": how}
        epochs, rate = recipe.epochs, recipe.learning_rate
    else:
        origin = {"run": parent.name, "weights": _weights_hash(parent) if parent.finished else None}
        epochs, rate = recipe.deeper_epochs, recipe.learning_rate
        if _same_net(run, parent):
            epochs, rate = recipe.rescale_epochs, recipe.rescale_rate
    return {
        "net": run.net,
        "scale": str(run.scale),
        "fc_only": run.fc_only,
        "crop": recipe.crop,
        "stride": recipe.stride,
        "width": recipe.width,
        "classes": len(dataset.classes),
        "class_names": list(dataset.classes),
        "class_words": list(dataset.words),
        "mean_rgb": list(dataset.mean_rgb),
        "input_scale": recipe.input_scale,
        "start": origin,
        "epochs": epochs,
        "learning_rate": rate,
        "seed": request.seed,
        "precision": request.machine.precision,
        **({"compiled": True} if request.machine.compile else {}),
        "recipe": recipe.as_dict(),
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "preset": dataset.preset,
            "train_images": recipe.training_images(dataset.counts["train"]),
            "val_images": dataset.counts["val"],
        },
        "device": hardware.describe(request.machine.device),
        "versions": {"vggrepro": __version__, "commit": commit(), "torch": torch.__version__},
    }


def _weights_hash(folder: RunFolder) -> str:
    """The finished weights' hash, taken once a command: D's are 550 MB."""
    there = folder.weights_path.stat()
    return _hash_of(folder, there.st_ino, there.st_mtime_ns, there.st_size)


@cache
def _hash_of(folder: RunFolder, inode: int, modified: int, size: int) -> str:
    return folder.weights_hash()


def _complete(config: dict[str, Any]) -> dict[str, Any]:
    """A config with its recipe's values as they were meant, and its net's LRN (None: it has none)."""
    recipe = recorded(config)
    has_lrn = any("LRN" in block for block in paper.blocks(config["net"]))
    return {**config, "recipe": recipe, "lrn": recipe["lrn"] if has_lrn else None}


def _check(folder: RunFolder, config: dict[str, Any], request: Request, is_target: bool) -> None:
    """Refuses to resume, extend or start from a run of another configuration.

    A finished run that is only started from may have been trained with other options, on the same data.

    Raises:
        InputError: the first value that differs is named; imported weights, which no training here goes on from.
    """
    if not folder.config_path.is_file() or (is_target and request.retrain):
        return
    was = folder.config()
    if was.get("imported"):
        remedy = ", or --retrain to replace them" if is_target else ""
        raise InputError(
            f"{folder.path} holds imported weights ({was.get('origin')}); give --runs another folder{remedy}"
        )
    only_start = folder.finished and not is_target
    difference = _difference(was, config, STRUCTURE if only_start else IDENTITY)
    if difference:
        remedy = "give --runs another folder, the same options as before"
        remedy += ", or --retrain" if is_target else ""
        raise InputError(f"{folder.path} is a run of another configuration: {difference}; {remedy}")
    old, new = (values["start"].get("weights") for values in (was, config))
    if only_start and old and new and old != new:
        say(f"note: {folder.name} started from an earlier {was['start']['run']}, which was trained again since")


def _difference(was: dict[str, Any], now: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of `names` whose values differ, in words; a start that is not finished yet fits any weights."""
    was, now = _complete(was), _complete(now)
    for name in names:
        old, new = was.get(name), now.get(name)
        if name == "start" and isinstance(old, dict) and isinstance(new, dict):
            before, after = (value.get("run") or value.get("initialisation") for value in (old, new))
            if before != after:
                return f"it started from {before}, now it would from {after}"
            if new.get("weights") and old.get("weights") != new["weights"]:
                return f"its start {before} was trained again since"
        elif isinstance(old, dict) and isinstance(new, dict):
            keys = [key for key in [*new, *old] if old.get(key) != new.get(key)]
            if keys:
                return f"{name}.{keys[0]} is {old.get(keys[0])} there, now {new.get(keys[0])}"
        elif old != new:
            return f"{name} is {old} there, now {new}"
    return None


def _start_weights(training: Training, config: dict[str, Any], parent: RunFolder | None, request: Request) -> str:
    """Fills the net as its config says and describes it in a line."""
    recipe, model = request.recipe, training.model
    how = config["start"].get("initialisation", recipe.initialisation)
    initialise(model, how, request.seed, recipe.initial_std, recipe.initial_fc8)
    epochs = f"at most {config['epochs']} epoch{'s' if config['epochs'] != 1 else ''}"
    if parent is None:
        return f"{epochs} from random weights ({how}), all layers fresh"
    tensors, _ = weights.load(parent.weights_path)
    same_net = parent.config()["net"] == config["net"]
    copied, fresh = weights.copy_layers(model, tensors, None if same_net else paper.COPIED_FROM_A)
    text = f"{epochs} from {parent.name}: "
    text += "all layers copied" if not fresh else f"copied {', '.join(copied)}; fresh {', '.join(fresh)} ({how})"
    return text + ("; only the FC layers are trained" if config["fc_only"] else "")


def _set_aside(folder: RunFolder) -> None:
    """Before a run is trained again: keeps the finished run in `former/`, and empties the folder for the new one.

    The copy is whole before the first file is removed. The weights are removed first, so that an interruption never
    leaves the old weights with the new config.
    """
    if folder.finished:
        folder.keep_former()
        say(f"{folder.name}: the former run stays in {folder.former_path} until the new one is finished")
    for path in (folder.weights_path, folder.metrics_path):
        path.unlink(missing_ok=True)
    folder.remove_progress()
