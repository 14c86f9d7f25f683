"""What an evaluation would cost, before it begins: FLOPs, images/s and time of each method and Q."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from vggrepro.data.dataset import Dataset, Split
from vggrepro.data.rescaling import rescaled_size
from vggrepro.evaluation import views
from vggrepro.evaluation.evaluate import decoded, missing_files, say_stale, wanted_files
from vggrepro.evaluation.evaluator import Batcher, Evaluator
from vggrepro.nets import cost
from vggrepro.nets.trained import Trained
from vggrepro.paper import real_pixels
from vggrepro.posteriors.protocol import Method, Protocol
from vggrepro.runs.folder import RunFolder
from vggrepro.system.devices import Machine
from vggrepro.system.progress import Track, duration, say

MEASURE_SECONDS = 2.0  # how long each method and Q is timed, about
SAMPLE = 64  # images whose FLOPs are averaged; also the most images that are timed


def forecast(folders: Sequence[RunFolder], dataset: Dataset, protocol: Protocol, machine: Machine) -> pd.DataFrame:
    """One row for each run, method and Q not yet done, one for decoding, and a total; empty if all is done.

    Columns: run, method, Q, passes (forward passes per image: distinct crops times flips), GFLOP (per image),
    images/s and GFLOP/s (measured here on the split's own images), time (of one process for the whole split).
    An image is decoded once for all methods and Q: on a CPU by the cores that the net runs on, else while it runs.

    Raises:
        InputError: an unfinished run, one of other classes, no such split.
    """
    todo = {
        folder: missing_files(folder, protocol, wanted_files(folder, dataset, protocol, machine)) for folder in folders
    }
    for folder, missing in todo.items():
        say_stale(folder, protocol, missing)
    split = Split(dataset, protocol.split)
    sample = _sample(split)
    rows: list[dict[str, object]] = []
    if not any(todo.values()):
        return pd.DataFrame(rows)
    total, count = 0.0, sum(map(len, todo.values()))
    say(f"measuring every run, method and Q: {count} times, a few seconds each")
    with Track("measure", count, "measurements") as track:
        for folder, keys in todo.items():
            if not keys:
                say(f"{folder.name}: {', '.join(protocol.methods)} is up to date")
                continue
            more, seconds = _forecast_run(folder, keys, split, sample, protocol, machine, track)
            rows += more
            total += seconds
    return pd.DataFrame(
        [*rows, {"run": "total", "method": f"{len(split):,} images", "Q": "", "passes": "", "time": duration(total)}]
    )


def _forecast_run(
    folder: RunFolder,
    keys: Collection[tuple[str, int]],
    split: Split,
    sample: Sequence[int],
    protocol: Protocol,
    machine: Machine,
    track: Track,
) -> tuple[list[dict[str, object]], float]:
    """A run's rows, and the seconds that it takes."""
    rows: list[dict[str, object]] = []
    evaluator, net_seconds = Evaluator(Trained.load(folder), machine), 0.0
    for name, q in keys:
        method = protocol.method(name)
        flops = image_flops(folder, split, sample, method, q)
        rate = _measured(evaluator, split, sample, method, q)
        passes = image_passes(folder, split, sample, method, q)
        net_seconds += len(split) / rate
        row = {"run": folder.name, "method": name, "Q": str(q), "passes": f"{passes:.3g}", "GFLOP": flops / 1e9}
        rows.append(row | {"images/s": rate, "GFLOP/s": flops * rate / 1e9, "time": duration(len(split) / rate)})
        track.advance(1, folder.name)
    rate = _decoded(evaluator, split, sample, keys)
    row = {"run": folder.name, "method": "decoding", "Q": ", ".join(map(str, sorted({q for _, q in keys})))}
    rows.append(row | {"passes": "", "images/s": rate, "time": duration(len(split) / rate)})
    both = net_seconds, len(split) / rate
    return rows, sum(both) if machine.device.type == "cpu" else max(both)


def _sample(split: Split) -> list[int]:
    return np.linspace(0, len(split) - 1, min(SAMPLE, len(split))).round().astype(int).tolist()


def image_passes(folder: RunFolder, split: Split, sample: Sequence[int], method: Method, q: int) -> float:
    """Forward passes per image, over a sample's sizes: its distinct crops times flips, or only flips if dense."""
    crop = folder.config().crop
    if method.name == "dense":
        return method.flips
    shapes = _shapes(split, sample, real_pixels(q, crop))
    return method.flips * float(np.mean([len(views.distinct(*shape, crop, method)[0]) for shape in shapes]))


def image_flops(folder: RunFolder, split: Split, sample: Sequence[int], method: Method, q: int) -> float:
    """FLOPs per image, over a sample's sizes. Crops count the whole net each; dense counts its maps' real sizes."""
    net = folder.config().architecture
    passes = image_passes(folder, split, sample, method, q)
    if method.name != "dense":
        return cost.FLOPS * passes * cost.crop_macs(net)
    shapes = _shapes(split, sample, real_pixels(q, net.crop))
    return cost.FLOPS * passes * float(np.mean([cost.dense_macs(net, *shape) for shape in shapes]))


def _shapes(split: Split, sample: Sequence[int], shorter: int) -> list[tuple[int, int]]:
    """(height, width) of a sample's images, rescaled."""
    sizes = [rescaled_size(int(split.widths[i]), int(split.heights[i]), shorter) for i in sample]
    return [(height, width) for width, height in sizes]


def _measured(evaluator: Evaluator, split: Split, sample: Sequence[int], method: Method, q: int) -> float:
    """Images/s of the net on as many of the sample's images as take about `MEASURE_SECONDS`."""

    def timed(indices: Sequence[int]) -> float:
        images = [evaluator.rescaler.at_each(split.image(index), [q])[q] for index in indices]
        began, batcher = time.perf_counter(), Batcher(evaluator, method)
        for image in images:
            batcher.add(image)
        batcher.finish()
        return time.perf_counter() - began

    timed(sample[:1])  # warms up
    count, seconds = 1, 0.0
    while seconds < MEASURE_SECONDS / 2 and count < 2 * len(sample):
        seconds, done = timed(sample[:count]), min(count, len(sample))
        count *= 2
    return done / seconds


def _decoded(evaluator: Evaluator, split: Split, sample: Sequence[int], keys: Collection[tuple[str, int]]) -> float:
    """Images/s that an evaluation's threads decode and, on a CPU, rescale to all Q."""
    began, done = time.perf_counter(), 0
    for done, _ in enumerate(decoded(split, [(sample, keys)], evaluator), 1):
        if time.perf_counter() - began > MEASURE_SECONDS and done > evaluator.machine.workers:
            break
    return done / (time.perf_counter() - began)
