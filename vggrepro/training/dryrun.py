"""`--dry-run` of training: what a command would do and cost (recipe, chain, FLOPs, time, disk). It writes nothing."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vggrepro import paper, recipe
from vggrepro.errors import InputError
from vggrepro.nets import cost, keyed
from vggrepro.nets.vgg import VGG
from vggrepro.system import devices
from vggrepro.system.files import locked_by
from vggrepro.system.progress import duration, say
from vggrepro.training.chain import Link, Request, epochs_done
from vggrepro.training.loader import Batch, Loader
from vggrepro.training.resident import fits
from vggrepro.training.train import Goal, Training

RATE = 1e-6  # learning rate of measured steps, small so that the loss stays finite
MEASURE_SECONDS = 2.0  # how long steps of a net are timed, about
PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")
CHECKPOINTS = 3  # at most on disk: the newest, the previous, and the one being written


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a rehearsal: a title, rows of cells under their headings (none if empty), and remarks."""

    title: str
    heads: tuple[str, ...]
    rows: list[list[str]]
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        table = [list(self.heads)] * bool(self.heads) + self.rows
        return "\n".join([self.title, *_indented(table), *(f"  {remark}" for remark in self.remarks)])


def rehearse(links: Sequence[Link], request: Request, given: Mapping[str, Any]) -> list[Section]:
    """What training `links` would do and cost: recipe, chain, cost.

    Measures a training step of each net to be trained, a few seconds each, on synthetic images. Takes no lock.

    Args:
        links: the runs, in the order of training.
        request: recipe, data and machine.
        given: the recipe's values that options set.

    Raises:
        InputError: the batch is larger than the data set, an image alone larger than the memory; or torchrun started
            several processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--dry-run measures one process; run it without torchrun")
    todo = [link for link in links if link.to_train]
    seconds = {}
    for link in todo:
        kind = (link.run.net, link.run.fc_only)
        if kind not in seconds:
            say(f"measuring a training step of net {link.run.net} on synthetic images, a few seconds")
            seconds[kind] = step_seconds(link, request)
    parts = [
        _recipe(*_with_start(request.recipe, given, links)),
        Section("chain", (), [_chain_row(link) for link in links]),
    ]
    return [*parts, _cost(todo, request, seconds), _disk(todo)] if todo else parts


# Recipe and chain: the same on every machine


def _with_start(
    chosen: recipe.Recipe, given: Mapping[str, Any], links: Sequence[Link]
) -> tuple[recipe.Recipe, Mapping[str, Any]]:
    """The recipe and the values given, with an initialisation that `--init` put in place of the recipe's."""
    starts = {link.config.start.initialisation for link in links if link.config.start.run is None}
    if len(starts) != 1 or (start := starts.pop()) in (None, chosen.initialisation):
        return chosen, given
    return dataclasses.replace(chosen, initialisation=start), {**given, "initialisation": start}


def _recipe(chosen: recipe.Recipe, given: Mapping[str, Any]) -> Section:
    preset = recipe.load(chosen.preset).as_dict()
    reasons = recipe.reasons(chosen.preset)
    rows = []
    for name, value in chosen.as_dict().items():
        if name == "preset":
            continue
        note = f"preset: {_word(preset[name])}" if name in given else reasons[name]
        rows.append([name, _word(value), "option" if name in given else "preset", note])
    return Section(f"recipe of preset {chosen.preset} (reasons and sources: docs/recipe.md)", (), rows)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _chain_row(link: Link) -> list[str]:
    done = epochs_done(link.folder)
    epochs = f"{done} epoch{'s' if done != 1 else ''}"
    if not link.to_train:
        state = f"done, {epochs}"
    elif holder := locked_by(link.folder.path):
        state = f"{epochs} done, held by {holder}"
    elif link.folder.checkpoint_path.is_file() and not link.folder.finished:
        state = f"to resume after {epochs}"
    else:
        state = "to train"
    start = link.config.start
    if start.run is None:
        return [link.run.name, state, f"from random weights ({start.initialisation})"]
    text = f"from {start.run}: "
    if link.same_net:
        text += "all layers"
    else:
        text += f"{', '.join(paper.COPIED_FROM_A)}; the others random ({link.config.recipe.initialisation})"
    return [link.run.name, state, text + ("; only the FC layers are trained" if link.run.fc_only else "")]


# Cost


def _cost(links: Sequence[Link], request: Request, seconds: Mapping[tuple[str, bool], float]) -> Section:
    dataset, chosen = request.dataset, request.recipe
    trained = chosen.training_images(dataset.counts["train"])
    per_epoch = trained // chosen.batch * chosen.batch
    validated = dataset.counts["train"] - trained if chosen.held_out else dataset.counts["val"]
    heads = ("run", "rate", "epochs", "images", "FLOP/image", "FLOP", "time")
    rows = []
    images_sum = flops_sum = 0
    seconds_sum = 0.0
    for link in links:
        run, net = link.run, link.config.architecture
        fresh = request.retrain and link.folder.finished
        epochs = max(0, link.config.epochs - (0 if fresh else epochs_done(link.folder)))
        images = epochs * per_epoch
        flops = cost.training_flops(net, run.fc_only)
        an_image = seconds[run.net, run.fc_only] / chosen.batch
        needed = images * an_image + epochs * validated * an_image / 3  # validation has a forward pass only
        row = [run.name, f"{link.config.learning_rate:g}", str(epochs), f"{images:,}", si(flops), si(images * flops)]
        rows.append([*row, duration(needed)])
        images_sum, flops_sum, seconds_sum = images_sum + images, flops_sum + images * flops, seconds_sum + needed
    rows.append(["total", "", "", f"{images_sum:,}", "", si(flops_sum), duration(seconds_sum)])
    device = f"{devices.describe(request.machine.device)}, {request.machine.precision}"
    remarks = (
        "FLOP: a multiply-add counts as two; a training step costs three forward passes.",
        f"Time: from measured steps on synthetic images ({device}), without decoding images.",
    )
    return Section("cost, at most (a plateau may end a run earlier)", heads, rows, remarks)


def _disk(links: Sequence[Link]) -> Section:
    """The files of each run, and the most that all of them take at the same time."""
    weights = [cost.weight_bytes(link.config.architecture) for link in links]
    checkpoints = [cost.checkpoint_bytes(link.config.architecture, link.run.fc_only) for link in links]
    rows = [[link.run.name, *(si(size) + "B" for size in sizes)]
            for link, *sizes in zip(links, weights, checkpoints, strict=True)]  # fmt: skip
    most = si(sum(weights) + CHECKPOINTS * max(checkpoints))
    remarks = (f"At most {most}B at the same time: all weights and {CHECKPOINTS} checkpoints.",)
    return Section("disk", ("run", "weights", "checkpoint"), rows, remarks)


def si(value: float) -> str:
    """A number with three digits and an SI prefix: `92.8 G`, `8.79 E`."""
    power = 0
    while value >= 999.5 and power < len(PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {PREFIXES[power]}"


def _indented(rows: Any) -> list[str]:
    """Rows of text as aligned columns, two spaces apart and indented by two."""
    table = [list(row) for row in rows]
    columns = max(map(len, table))
    table = [row + [""] * (columns - len(row)) for row in table]
    widths = [max(len(row[place]) for row in table) for place in range(columns)]
    return [("  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))).rstrip() for row in table]


# The measurement


def step_seconds(link: Link, request: Request) -> float:
    """Seconds of a training step with the recipe's batch, measured here on synthetic images.

    On a GPU the whole batch is timed. On a CPU two smaller batches are timed and their times extrapolated.

    Raises:
        InputError: the batch is larger than the data set, or an image alone larger than the memory.
    """
    chosen, machine, run = request.recipe, request.machine, link.run
    classes = len(request.dataset.classes)
    loader = Loader(request.dataset, chosen, run.scale, request.seed, torch.device("cpu"), 0)  # nothing is decoded
    model = VGG.of(link.config.architecture, chosen.lrn)
    goal = Goal(run, chosen, link.config.learning_rate, link.config.epochs, request.seed)
    training = Training(goal, model, request.dataset, link.folder, machine, loader)

    # Then `train` keeps the images there.
    on_device = machine.device.type == "cuda" and fits(loader.train, machine.device)

    def timed(count: int) -> float:
        crops = torch.randint(0, 256, (count, chosen.crop, chosen.crop, 3), dtype=torch.uint8)
        batch = Batch(
            crops.to(machine.device) if on_device else crops,
            torch.arange(count) % 2 == 0,
            torch.zeros(count, 3),
            torch.arange(count) % classes,
            keyed.key(request.seed, keyed.DROPOUT, 0, 0, torch.arange(count)),
        )
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            training.step(RATE, 0, batch).cpu()  # waits for the device
            taken.append(time.perf_counter() - began)
        return min(taken)

    if machine.device.type != "cpu":
        return timed(chosen.batch)
    return extrapolated(timed, chosen.batch)


def extrapolated(timed: Callable[[int], float], batch: int) -> float:
    """Seconds for `batch` images, as overhead + images * slope, from two measurements.

    Args:
        timed: gives the seconds of a step with so many images.
        batch: the number of images wanted. One image and about `MEASURE_SECONDS` of images are measured.
    """
    one = timed(1)
    count = min(batch, max(2, int(MEASURE_SECONDS / one)))
    if batch == 1:
        return one
    many = timed(count)
    slope = (many - one) / (count - 1)
    return many + slope * (batch - count) if slope > 0 else many * batch / count
