"""The features stage: fc7 of a run's net over the pictures of a transfer set, dense, at each Q (Appendix B).

As in `evaluate`, a picture is decoded once for all its Q, and parts of some pictures each are merged at the end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vggrepro.data.transfer_sets.base import Pictures, TransferSet
from vggrepro.errors import InputError
from vggrepro.evaluation.evaluate import decoded, part_images, part_path, parts_folder, remove_parts
from vggrepro.evaluation.evaluator import Batcher, Evaluator, with_mirrored
from vggrepro.nets.trained import Trained
from vggrepro.nets.vgg import Extent, to_input
from vggrepro.posteriors import features as files
from vggrepro.posteriors.features import FeatureBatch, FeatureOrigin
from vggrepro.posteriors.protocol import Method
from vggrepro.runs.folder import RunFolder
from vggrepro.system import devices, processes
from vggrepro.system.devices import Machine
from vggrepro.system.files import lock
from vggrepro.system.progress import Track, say

DENSE = Method("dense")


class FeatureNet(Evaluator):
    """A finished run's net without its last layer, ready for pictures."""

    @property
    def outputs(self) -> int:
        """Units of fc7."""
        return self.model.fc7.out_features

    def forward(self, batch: Tensor, method: Method, extent: Extent | None = None) -> Tensor:
        """fc7 averaged over positions and over the mirrored picture: uint8 (n, H, W, 3) -> (n, FC) float32."""
        with torch.inference_mode(), devices.autocast(self.machine.precision, self.machine.device):
            x = to_input(batch, self.mean, self.input_scale)
            both, extent = with_mirrored(x, extent=extent)
            return self.model.dense_features(both, extent=extent).float().view(2, len(batch), -1).mean(0)


def compute(
    folder: RunFolder, data: TransferSet, qs: Sequence[int], machine: Machine, *, pool: bool = False
) -> list[Path]:
    """Writes the run's missing or stale feature files of all views: one for each Q, or with `pool` one for all Q.

    Returns:
        the paths of the files.

    Raises:
        InputError: unfinished run; a picture that cannot be read or decoded.
    """
    folder.require_finished()
    with processes.first_process(lock(folder.path, f"vggrepro features {folder.name}")):
        return [path for view in data.pictures for path in _view(folder, data, view, tuple(qs), machine, pool)]


def _view(
    folder: RunFolder, data: TransferSet, view: str, qs: tuple[int, ...], machine: Machine, pool: bool
) -> list[Path]:
    """The files of one view; a pooled file is made from the files of its Q where they exist."""
    whole = files.origin_of(folder, data, view, qs, machine.precision)
    each = {q: dataclasses.replace(whole, qs=(q,), pixels=(side,)) for q, side in zip(qs, whole.pixels, strict=True)}
    pool = pool and len(qs) > 1
    wanted = [whole] if pool else list(each.values())
    paths = [files.file_path(folder.path, data.name, view, origin.qs) for origin in wanted]
    if all(_fresh(path, origin) for path, origin in zip(paths, wanted, strict=True)):
        say(f"features {folder.name}: {', '.join(path.name for path in paths)} up to date")
    else:
        missing = {q: o for q, o in each.items() if not _fresh(_single(folder, o), o)}
        net = FeatureNet(Trained.load(folder), machine)
        starts = _compute(folder, net, data.pictures[view], missing)
        if processes.is_first():
            _merge(folder, net.outputs, missing, starts, whole if pool else None)
        processes.barrier()
    if processes.is_first():
        remove_parts([_single(folder, origin) for origin in each.values()])
    return paths


def _single(folder: RunFolder, origin: FeatureOrigin) -> Path:
    return files.file_path(folder.path, origin.dataset, origin.view, origin.qs)


def _fresh(path: Path, origin: FeatureOrigin) -> bool:
    """Whether a file is there and was made from `origin`; says why if it was not."""
    if not path.is_file():
        return False
    try:
        reason = files.read_origin(path).stale(origin)
    except InputError:
        reason = "damaged"
    if reason:
        say(f"features {origin.run}: {path.name} is stale ({reason}) and is computed again")
    return reason is None


def _compute(folder: RunFolder, net: FeatureNet, pictures: Pictures, tasks: dict[int, FeatureOrigin]) -> list[int]:
    """Computes the parts of all Q, decoding each picture once; gives the first picture of each part."""
    size = part_images(folder.config().architecture, net.machine.device)
    bounds = [(start, min(start + size, len(pictures))) for start in range(0, len(pictures), size)]
    folders = {q: parts_folder(_single(folder, origin)) for q, origin in tasks.items()}
    todo = {
        (start, stop): [q for q in tasks if not _part_done(part_path(folders[q], start), tasks[q], stop - start)]
        for number, (start, stop) in enumerate(bounds)
        if number % processes.world() == processes.rank()
    }
    total = sum(stop - start for start, stop in todo) * len(tasks)
    left = sum((stop - start) * len(qs) for (start, stop), qs in todo.items())
    work = [(range(*part), [("dense", q) for q in qs]) for part, qs in todo.items()]
    stream = decoded(pictures, work, net)
    with Track(f"features {folder.name}", total, "views", done=total - left) as track:
        for (start, stop), qs in todo.items():
            batchers = {q: Batcher(net, DENSE) for q in qs}
            for scales in islice(stream, stop - start):
                for q, batcher in batchers.items():
                    batcher.add(scales[q])
                track.advance(len(qs))
            for q, batcher in batchers.items():
                part = FeatureBatch(pictures.keys(start, stop), files.normalised(batcher.finish()))
                files.write(part_path(folders[q], start), [part], net.outputs, tasks[q])
    processes.barrier()
    return [start for start, _ in bounds]


def _part_done(path: Path, origin: FeatureOrigin, pictures: int) -> bool:
    """Whether a part of exactly this origin and size was written before; other parts are overwritten."""
    if not path.is_file():
        return False
    try:
        was, rows = files.read_origin(path), files.rows_of(path)
    except InputError:
        return False
    return rows == pictures and dataclasses.replace(was, commit=origin.commit, version=origin.version) == origin


def _merge(
    folder: RunFolder, units: int, made: dict[int, FeatureOrigin], starts: list[int], whole: FeatureOrigin | None
) -> None:
    """Makes files of the parts: one for each Q, or their average over all Q; a Q that has a file needs no parts."""

    def rows(q: int, origin: FeatureOrigin) -> Iterator[FeatureBatch]:
        paths = [part_path(parts_folder(_single(folder, origin)), start) for start in starts]
        for path in paths if q in made else [_single(folder, origin)]:
            yield from files.read(path)

    if whole is None:
        for q, origin in made.items():
            files.write(_single(folder, origin), rows(q, origin), units, origin)
        return
    streams = [_rebatched(rows(q, dataclasses.replace(whole, qs=(q,)))) for q in whole.qs]
    joined = (
        FeatureBatch(parts[0].keys, files.pooled([part.features for part in parts]))
        for parts in zip(*streams, strict=True)
    )
    files.write(_single(folder, whole), joined, units, whole)


def _rebatched(batches: Iterator[FeatureBatch], rows: int = 1024) -> Iterator[FeatureBatch]:
    """The same rows in batches of equal size, as parts and files have different ones."""
    keys: list[str] = []
    features: list[np.ndarray] = []
    for batch in batches:
        keys, features = keys + batch.keys, [*features, batch.features]
        while len(keys) >= rows:
            whole = np.concatenate(features)
            yield FeatureBatch(keys[:rows], whole[:rows])
            keys, features = keys[rows:], [whole[rows:]]
    if keys:
        yield FeatureBatch(keys, np.concatenate(features))
