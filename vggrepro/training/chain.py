"""Trains a run and the runs that it starts from, in order, each in a folder of its own (Sect. 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from vggrepro import __version__, paper
from vggrepro.data.dataset import Dataset
from vggrepro.data.images import decoders
from vggrepro.errors import InputError
from vggrepro.nets import weights
from vggrepro.nets.initialise import initialise
from vggrepro.nets.vgg import VGG
from vggrepro.paper import Run
from vggrepro.recipe import Recipe
from vggrepro.runs import folder as run_folders
from vggrepro.runs.config import IDENTITY, STRUCTURE, RunConfig, Start, TrainedOn, UsedRecipe
from vggrepro.runs.folder import RunFolder
from vggrepro.system import advice, devices, processes
from vggrepro.system.commit import commit
from vggrepro.system.devices import Machine
from vggrepro.system.files import lock, write_json
from vggrepro.system.interrupt import Stopped
from vggrepro.system.progress import say
from vggrepro.training.loader import check_stored
from vggrepro.training.train import Goal, Training


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked to train, resolved: shared by all runs of a chain."""

    recipe: Recipe
    dataset: Dataset
    runs: Path
    machine: Machine
    seed: int = 0
    retrain: bool = False  # train the target again even if it is finished
    init: str | None = None  # an initialisation of every net's first run, in place of A's layers (Sect. 3.1)


@dataclass(frozen=True, slots=True)
class Link:
    """A run of a chain: what it is or will be trained as, and whether it still has to be."""

    run: Run
    folder: RunFolder
    start: str | None  # overrides what it starts from
    config: RunConfig
    to_train: bool
    same_net: bool  # it continues a run of the same net and takes all of its layers


def plan_chain(target: Run, request: Request, start: str | None = None) -> list[Link]:
    """`target` and what it starts from, in the order of training, each checked against its folder; only reads.

    Runs before the last finished one are not trained; those of them that are finished are still listed.

    Args:
        target: the run wanted.
        request: recipe, data and machine.
        start: overrides what the target starts from: an initialisation or the name of a finished run.

    Raises:
        InputError: a run folder of another configuration, data without training images, or whose stored copies are too
            small for a scale.
    """
    request.dataset.require_training()
    chain = _chain(target, request) if start is None else [target]
    done = {run for run in chain if RunFolder(request.runs / run.name).finished}
    if request.retrain:
        done.discard(target)
    else:
        _refuse_archived(RunFolder(request.runs / target.name))
    last = max((place for place, run in enumerate(chain) if run in done), default=-1)
    links: list[Link] = []
    for place, run in enumerate(chain):
        if place < last and run not in done:
            continue
        folder, own = RunFolder(request.runs / run.name), _own_start(run, target, request, start)
        config, parent = _config(run, request, own), _parent(run, request, own)
        _check(folder, config, request, is_target=run == target)
        links.append(Link(run, folder, own, config, place > last, parent is not None and _same_net(run, parent)))
    check_stored(request.dataset, [link.run.scale for link in links if link.to_train], request.recipe.crop)
    return links


def _chain(target: Run, request: Request) -> list[Run]:
    """`target` and what it starts from; with `request.init` no net starts from another one."""
    chain = paper.chain(target)
    return chain if request.init is None else [run for run in chain if run.net == target.net]


def _own_start(run: Run, target: Run, request: Request, start: str | None) -> str | None:
    """What overrides the start of a run of the chain to `target`."""
    if run == target and start is not None:
        return start
    return None if run.is_rescaling else request.init


def _refuse_archived(folder: RunFolder) -> None:
    """InputError for a run from an archive: it would be trained again, and its posteriors would be lost."""
    if folder.trained and not folder.finished:
        raise InputError(
            f"{folder.path} is a finished run from an archive, without its weights; give --runs another folder, or "
            "--retrain to train it again"
        )


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
    return len(folder.epochs())


def _length(folder: RunFolder) -> str:
    count = epochs_done(folder)
    return f"done, {count} epoch{'s' if count != 1 else ''}"


def _train(run: Run, request: Request, start: str | None, anew: bool) -> None:
    """Trains one run, from its checkpoint if it has one; `anew` removes the results of another configuration."""
    folder = RunFolder(request.runs / run.name)
    with processes.first_process(lock(folder.path, f"vggrepro train {run.name}")):
        parent = _parent(run, request, start)
        if parent is not None and not parent.finished:
            raise InputError(f"{parent.name} is not finished; finish it before training {run.name} from it")
        config = _config(run, request, start)
        model = VGG.of(config.architecture, request.recipe.lrn)
        goal = Goal(run, request.recipe, config.learning_rate, config.epochs, request.seed, start)
        training = Training(goal, model, request.dataset, folder, request.machine)
        changed = folder.config_path.is_file() and folder.config().difference(config, IDENTITY) is not None
        processes.barrier()  # no process writes before all have read
        if processes.is_first():
            if anew and (folder.finished or changed):
                _set_aside(folder)
            write_json(folder.config_path, config.as_json())
        processes.barrier()
        _fit(training, request, config, folder, parent)


def _fit(training: Training, request: Request, config: RunConfig, folder: RunFolder, parent: RunFolder | None) -> None:
    """Trains from the checkpoint or the start, and leaves the finished weights."""
    name, state = folder.name, training.state
    resumed = training.resume()
    processes.barrier()  # no process replaces or removes the checkpoint before all have read it
    if resumed:
        state = training.state
        say(f"{name}: resuming at epoch {len(state.history) + 1}, step {state.step}")
    else:
        say(f"{name}: {_start_weights(training, config, parent, request)}")
        training.save()  # from here on, an interrupted training resumes instead of starting over
    try:
        training.run()
    except Stopped:
        state = training.state
        where = f"epoch {len(state.history) + 1}, step {state.step}"
        say(f"{name}: stopped and saved at {where}; run the same command to resume")
        raise
    if processes.is_first():
        weights.save(folder.weights_path, training.model.state_dict(), {"run": name})
        folder.remove_progress()
        folder.remove_former()
    processes.barrier()
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
        parent = _named_start(start, request.runs)
    else:
        assert run.parent is not None
        parent = RunFolder(request.runs / run.parent.name)
    if parent.path.resolve() == (request.runs / run.name).resolve():
        raise InputError(f"{run.name} cannot start from itself; name another run or an initialisation")
    if not parent.config_path.is_file():
        return parent
    config, recipe = parent.config(), request.recipe
    structure: dict[str, Any] = {"classes": len(request.dataset.classes)}
    structure |= {name: getattr(recipe, name) for name in ("crop", "stride", "width", "input_scale")}
    structure["min_channels"] = recipe.geometry.min_channels
    if config.net == run.net and config.lrn:
        structure["lrn"] = recipe.lrn
    for name, value in structure.items():
        if (its := getattr(config, name)) != value:
            raise InputError(
                f"{run.name} would start from {parent.path}, which has {name} {its}, not {value}; "
                "give --runs another folder"
            )
    return parent


def _named_start(name: str, runs: Path) -> RunFolder:
    """The run of this name, which is no initialisation's.

    Raises:
        InputError: no such run; the initialisations and the runs that exist are listed.
    """
    try:
        return run_folders.find_run(runs, name)
    except InputError as error:
        raise InputError(f"--init {name}: no initialisation ({', '.join(paper.INITIALISERS)}), and {error}") from None


def _same_net(run: Run, parent: RunFolder) -> bool:
    return parent.config().net == run.net if parent.config_path.is_file() else run.is_rescaling


def _config(run: Run, request: Request, start: str | None) -> RunConfig:
    """The configuration of a run to be trained; its start's weights are None while that is unfinished."""
    recipe, dataset, machine = request.recipe, request.dataset, request.machine
    origin, epochs, rate = _start(run, request, start)
    return RunConfig(
        net=run.net,
        scale=run.scale,
        fc_only=run.fc_only,
        crop=recipe.crop,
        stride=recipe.stride,
        width=recipe.width,
        min_channels=recipe.geometry.min_channels,
        classes=len(dataset.classes),
        class_names=dataset.classes,
        class_words=dataset.words,
        mean_rgb=dataset.mean_rgb,
        input_scale=recipe.input_scale,
        start=origin,
        epochs=epochs,
        learning_rate=rate,
        seed=request.seed,
        precision=machine.precision,
        compiled=machine.compile,
        fast=machine.fast,
        recipe=UsedRecipe.of(recipe.as_dict()),
        dataset=TrainedOn(
            dataset.name,
            dataset.fingerprint,
            dataset.preset,
            recipe.training_images(dataset.counts["train"]),
            dataset.counts["val"],
        ),
        device=devices.describe(machine.device),
        versions={"vggrepro": __version__, "commit": commit(), "torch": torch.__version__, **decoders()},
    )


def _start(run: Run, request: Request, start: str | None) -> tuple[Start, int, float]:
    """What a run starts from, its most epochs and its first learning rate."""
    recipe, parent = request.recipe, _parent(run, request, start)
    if parent is None:
        how = paper.INITIALISERS.get(start or "", recipe.initialisation)
        return Start(initialisation=how), recipe.epochs, recipe.learning_rate
    origin = Start(run=parent.name, weights=_weights_hash(parent) if parent.finished else None)
    if _same_net(run, parent):
        return origin, recipe.rescale_epochs, recipe.rescale_rate
    return origin, recipe.deeper_epochs, recipe.learning_rate


def _weights_hash(folder: RunFolder) -> str:
    """The finished weights' hash, computed once in each command: D's weights are 550 MB."""
    there = folder.weights_path.stat()
    return _hash_of(folder, there.st_ino, there.st_mtime_ns, there.st_size)


@cache
def _hash_of(folder: RunFolder, inode: int, modified: int, size: int) -> str:
    return folder.weights_hash()


def _check(folder: RunFolder, config: RunConfig, request: Request, is_target: bool) -> None:
    """Refuses to resume, extend or start from a run of another configuration.

    A finished run that is only started from may have been trained with other options, on the same data.

    Raises:
        InputError: the first value that differs is named; or the folder holds imported weights, which no training
            continues.
    """
    if not folder.config_path.is_file() or (is_target and request.retrain):
        return
    was = folder.config()
    if was.imported:
        remedy = ", or --retrain to replace them" if is_target else ""
        raise InputError(f"{folder.path} holds imported weights ({was.origin}); give --runs another folder{remedy}")
    only_start = folder.finished and not is_target
    difference = was.difference(config, STRUCTURE if only_start else IDENTITY)
    if difference:
        remedy = "give --runs another folder, the same options as before"
        remedy += ", or --retrain" if is_target else ""
        raise InputError(f"{folder.path} is a run of another configuration: {difference}; {remedy}")
    old, new = was.start.weights, config.start.weights
    if only_start and old and new and old != new:
        say(f"note: {folder.name} started from an earlier {was.start.run}, which was trained again since")


def _start_weights(training: Training, config: RunConfig, parent: RunFolder | None, request: Request) -> str:
    """Fills the net as its config says and describes it in a line."""
    recipe, model = request.recipe, training.model
    how = config.start.initialisation or recipe.initialisation
    initialise(model, how, request.seed, recipe.initial_std, recipe.initial_fc8)
    epochs = f"at most {config.epochs} epoch{'s' if config.epochs != 1 else ''}"
    if parent is None:
        return f"{epochs}; all layers start from random weights ({how})"
    tensors, _ = weights.load(parent.weights_path)
    same_net = parent.config().net == config.net
    copied, fresh = weights.copy_layers(model, tensors, None if same_net else paper.COPIED_FROM_A)
    text = f"{epochs}; {', '.join(copied) if fresh else 'all layers'} start from the weights of {parent.name}"
    text += f"; {', '.join(fresh)} from random weights ({how})" if fresh else ""
    return text + ("; only the FC layers are trained" if config.fc_only else "")


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
