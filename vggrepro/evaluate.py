"""The evaluate stage: posteriors of a run's net over a split, dense or multi-crop, at each Q (Sect. 3.2).

An image is decoded once for all its Q, methods and flips. Posteriors are written in parts, which are merged at the
end: a kill costs at most the part in work.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from torch import Tensor

from vggrepro import __version__, hardware, paper, posteriors, views, weights
from vggrepro.dataset import Dataset, Split
from vggrepro.errors import InputError
from vggrepro.files import lock
from vggrepro.images import ordered
from vggrepro.net import VGG, to_input
from vggrepro.paper import Scale, real_pixels
from vggrepro.posteriors import Batch, Origin
from vggrepro.progress import Track, say
from vggrepro.provenance import commit
from vggrepro.runs import RunFolder
from vggrepro.train import Machine

PART_IMAGES = 256  # a kill costs at most so many images' work
FORWARD_PIXELS = {"cpu": 1 << 20, "cuda": 32 << 20}  # input pixels of a forward pass, flips included


@dataclass(frozen=True, slots=True)
class Protocol:
    """What to compute: methods, test scales (None: the paper's for the run's S), flips, crops a side, split."""

    methods: tuple[str, ...] = ("dense",)
    qs: tuple[int, ...] | None = None
    flip: bool = True
    grid: int = paper.GRID
    split: str = "val"
    exact_precision: bool = False  # posteriors of another precision are computed again

    def variant(self, method: str) -> str:
        """What file names add where the protocol is not the paper's."""
        grid = f"-grid{self.grid}" if method == "multicrop" and self.grid != paper.GRID else ""
        return grid + ("" if self.flip else "-noflip")

    def path(self, run: RunFolder, method: str, q: int) -> Path:
        """The run's posterior file of a method at Q."""
        return posteriors.file_path(run.path, self.split, method, q, self.variant(method))

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise InputError(f"--grid {self.grid}: give 1 or more crops a side")
        for q in self.qs or ():
            if q > paper.MAX_SCALE:
                raise InputError(f"--q {q}: larger than any image here needs; give {paper.MAX_SCALE} or less")
            if q < paper.CROP:
                raise InputError(
                    f"--q {q}: a shorter side below {paper.CROP} leaves no map for the FC layers (Q is in the "
                    f"paper's pixels); give {paper.CROP} or more"
                )


def parse_qs(text: str) -> tuple[int, ...]:
    """`256,384,512`, or FIRST:LAST:STEP such as `224:512:32`.

    Raises:
        InputError: neither.
    """
    try:
        if ":" in text:
            first, last, step = (int(part) for part in text.split(":"))
            values = tuple(range(first, min(last, paper.MAX_SCALE + 1) + 1, step))
        else:
            values = tuple(int(part) for part in text.split(","))
        if not values:
            raise ValueError
    except ValueError:
        raise InputError(f"--q '{text}': give test scales such as 256,384,512 or FIRST:LAST:STEP") from None
    return tuple(dict.fromkeys(values))


def dense_posteriors(model: VGG, x: Tensor, flip: bool = True) -> Tensor:
    """Dense posteriors (Sect. 3.2): the mean over flips of the soft-max of spatially averaged scores.

    (N, 3, H, W) net input -> (N, K) float32.
    """
    return _mean_over_flips(model.dense_scores, x, flip)


def crop_posteriors(model: VGG, x: Tensor, flip: bool = True) -> Tensor:
    """Posteriors of crops, the mean over flips: (N, 3, crop, crop) -> (N, K) float32."""
    return _mean_over_flips(model, x, flip)


def _mean_over_flips(scores: Any, x: Tensor, flip: bool) -> Tensor:
    views_of_x = torch.cat([x, x.flip(3)]) if flip else x
    result = torch.softmax(scores(views_of_x).float(), dim=1)
    return result.view(-1, len(x), result.shape[1]).mean(0)


class Evaluator:
    """A finished run's net on a device, ready for images."""

    def __init__(self, run: RunFolder, machine: Machine) -> None:
        config = run.config()
        self.crop, self.machine = int(config["crop"]), machine
        self.classes = int(config["classes"])
        self.input_scale = float(config["input_scale"])
        self.resample = config.get("recipe", {}).get("resample", "bilinear")
        self.mean = torch.tensor(config["mean_rgb"], dtype=torch.float32, device=machine.device)
        self.model = VGG(config["net"], self.classes, self.crop, float(config["width"]))
        tensors, _ = weights.load(run.weights_path)
        weights.into(self.model, tensors, str(run.weights_path))
        self.model.to(machine.device).to(memory_format=torch.channels_last).eval()

    def posteriors(self, images: Sequence[np.ndarray], method: str, flip: bool, grid: int) -> np.ndarray:
        """Posteriors of rescaled images, each uint8 (H, W, 3), of any sizes: (n, K) float32.

        Images of equal size share forward passes.
        """
        result = np.empty((len(images), self.classes), np.float32)
        by_size: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(place)
        for size, places in by_size.items():
            pixels = size[0] * size[1] if method == "dense" else (grid * self.crop) ** 2
            budget = FORWARD_PIXELS.get(self.machine.device.type, FORWARD_PIXELS["cpu"])
            many = max(1, budget // (pixels * (1 + flip)))
            for start in range(0, len(places), many):
                part = places[start : start + many]
                batch = torch.from_numpy(np.stack([images[place] for place in part])).to(self.machine.device)
                result[part] = self._forward(batch, method, flip, grid).cpu().numpy()
        return result

    def _forward(self, batch: Tensor, method: str, flip: bool, grid: int) -> Tensor:
        with torch.inference_mode(), hardware.autocast(self.machine.precision, self.machine.device):
            if method == "dense":
                return dense_posteriors(self.model, to_input(batch, self.mean, self.input_scale), flip)
            crops = views.crops(batch, self.crop, grid)
            result = crop_posteriors(self.model, to_input(crops, self.mean, self.input_scale), flip)
            return result.view(len(batch), grid * grid, -1).mean(1)


def evaluate(run: RunFolder, dataset: Dataset, protocol: Protocol, machine: Machine) -> pd.DataFrame:
    """Writes the run's missing or stale posterior files; gives the errors of each Q and of their average.

    Columns: run, method, Q, top1_error, top5_error (%), images.

    Raises:
        InputError: unfinished run, another number of classes, no such split, a Q too small.
    """
    run.require_finished()
    config = run.config()
    if int(config["classes"]) != len(dataset.classes):
        raise InputError(
            f"{run.name} was trained for {config['classes']} classes, {dataset.folder} has {len(dataset.classes)}; "
            "name the run's data set with --data"
        )
    if (names := config.get("class_names")) is not None and names != list(dataset.classes):
        raise InputError(
            f"{run.name} was trained for other classes or another order of them than {dataset.folder} has; name the "
            "run's data set with --data"
        )
    if config.get("dataset", {}).get("fingerprint", dataset.fingerprint) != dataset.fingerprint:
        say(f"note: {run.name} was trained on another data set than {dataset.folder}")
    scale = Scale.parse(str(config["scale"]))
    qs = protocol.qs or scale.test_scales
    keys = [(method, q) for q in qs for method in protocol.methods]
    weights_hash = run.weights_hash()
    wanted = {key: _origin(run, config, weights_hash, dataset, protocol, machine, *key) for key in keys}
    with hardware.first_process(lock(run.path, f"vggrepro evaluate {run.name}")):
        missing = [
            key for key in wanted if not _fresh(protocol.path(run, *key), run, wanted[key], protocol.exact_precision)
        ]
        if missing:
            _compute(run, dataset, protocol, machine, {key: wanted[key] for key in missing})
        else:
            say(f"evaluate {run.name}: {', '.join(protocol.methods)} at Q = {', '.join(map(str, qs))} is up to date")
        hardware.barrier()
    return errors(run, qs, protocol)


def _origin(
    run: RunFolder,
    config: dict[str, Any],
    weights_hash: str,
    dataset: Dataset,
    protocol: Protocol,
    machine: Machine,
    method: str,
    q: int,
) -> Origin:
    return Origin(
        run=run.name,
        weights=weights_hash,
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        preset=dataset.preset,
        split=protocol.split,
        method=method,
        q=q,
        q_pixels=real_pixels(q, int(config["crop"])),
        flip=protocol.flip,
        grid=protocol.grid if method == "multicrop" else 0,
        pooling="floor",
        resample=config.get("recipe", {}).get("resample", "bilinear"),
        precision=machine.precision,
        version=__version__,
        commit=commit(),
    )


def _fresh(path: Path, run: RunFolder, origin: Origin, exact_precision: bool) -> bool:
    """Whether the final file is there and stands for `origin`; says why if it does not."""
    if not path.is_file():
        return False
    try:
        was = posteriors.read_origin(path)
        reason = was.stale(origin)
        if exact_precision and was.precision != origin.precision:
            reason = reason or f"{was.precision}, not {origin.precision}"
    except InputError:
        reason = "damaged"
    if reason:
        say(f"evaluate {run.name}: {path.name} is stale ({reason}) and is computed again")
    return reason is None


def _compute(
    run: RunFolder, dataset: Dataset, protocol: Protocol, machine: Machine, tasks: dict[tuple[str, int], Origin]
) -> None:
    """Computes the parts of all tasks, an image decoded once, then merges each task's parts into its file."""
    split = Split(dataset, protocol.split)
    evaluator = Evaluator(run, machine)
    bounds = [(start, min(start + PART_IMAGES, len(split))) for start in range(0, len(split), PART_IMAGES)]
    folders = {key: run.path / "posteriors" / "parts" / protocol.path(run, *key).stem for key in tasks}
    todo = {
        number: [key for key in tasks if not _part_done(folders[key], number, tasks[key], stop - start)]
        for number, (start, stop) in enumerate(bounds)
        if number % hardware.world() == hardware.rank()
    }
    total = sum((bounds[number][1] - bounds[number][0]) * len(tasks) for number in todo)
    left = sum((bounds[number][1] - bounds[number][0]) * len(keys) for number, keys in todo.items())
    label = f"evaluate {run.name} ({', '.join(protocol.methods)})"
    with Track(label, total, "views", done=total - left) as track:
        for number, keys in todo.items():
            start, stop = bounds[number]
            images = _rescaled(split, range(start, stop), evaluator, sorted({q for _, q in keys}), machine.workers)
            for method, q in keys:
                values = evaluator.posteriors(images[q], method, protocol.flip, protocol.grid)
                part = Batch(split.keys(start, stop), split.labels[start:stop], values)
                posteriors.write(_part_path(folders[method, q], number), [part], evaluator.classes, tasks[method, q])
                track.advance(stop - start)
    hardware.barrier()
    if hardware.rank() == 0:
        for key, origin in tasks.items():
            paths = [_part_path(folders[key], number) for number in range(len(bounds))]
            posteriors.write(protocol.path(run, *key), _chained(paths), evaluator.classes, origin)
            shutil.rmtree(folders[key])
        parts = run.path / "posteriors" / "parts"
        if parts.is_dir() and not any(parts.iterdir()):
            parts.rmdir()


def _rescaled(
    split: Split, images: range, evaluator: Evaluator, qs: list[int], workers: int
) -> dict[int, list[np.ndarray]]:
    """The images at each Q; a decoded original is dropped at once, so that large photographs do not pile up."""

    def load(image: int) -> list[np.ndarray]:
        decoded = split.image(image)
        return [views.rescale(decoded, real_pixels(q, evaluator.crop), evaluator.resample) for q in qs]

    columns = list(ordered(load, images, workers, 4 * workers + 1)) if qs else []
    return {q: [scales[place] for scales in columns] for place, q in enumerate(qs)}


def _part_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.parquet"


def _part_done(folder: Path, number: int, origin: Origin, images: int) -> bool:
    """Whether a part of exactly this origin and size was written before; other parts are overwritten."""
    path = _part_path(folder, number)
    if not path.is_file():
        return False
    try:
        was = posteriors.read_origin(path)
    except InputError:
        return False
    if pq.read_metadata(path).num_rows != images:
        return False
    return dataclasses.replace(was, commit="", version="") == dataclasses.replace(origin, commit="", version="")


def _chained(paths: list[Path]) -> Iterator[Batch]:
    for path in paths:
        yield from posteriors.read(path, PART_IMAGES)


def errors(run: RunFolder, qs: Sequence[int], protocol: Protocol) -> pd.DataFrame:
    """Errors of posterior files that exist, a row a method and Q, then the average over Q. Labelled splits only."""
    rows: list[dict[str, Any]] = []
    if protocol.split == "test":
        return pd.DataFrame(rows)
    for method in protocol.methods:
        paths = {str(q): [protocol.path(run, method, q)] for q in qs}
        if len(qs) > 1:
            paths[",".join(map(str, qs))] = [path for part in paths.values() for path in part]
        for label, files in paths.items():
            score = posteriors.score(posteriors.average(files), run.name)
            row = {"run": run.name, "method": method, "Q": label}
            rows.append(row | {"top1_error": score.top1, "top5_error": score.top5, "images": score.images})
    return pd.DataFrame(rows)
