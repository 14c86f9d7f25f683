"""Plain means of posteriors over many files, one streaming pass for many groups of files (Sect. 3.2, 4.4).

Every file is read once, all of them side by side by batches of images, so memory does not grow with the images.
Rows are joined by key: a file in another order than the others is first copied, row by row, into a temporary file.

Sums are float64: exact where the float32 posteriors of a class are within a factor of 2^24, so that ties stay ties, and
off by 1e-14 of themselves at most. A group's sum has a fixed order, over the sorted files of each folder and
then over the folders. So the same files give the same bits, in whatever order they are given and with any other groups.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pyarrow.compute as pc

from vggrepro.errors import InputError
from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors.files import Images, Rows
from vggrepro.posteriors.ranks import Score, score_of, true_ranks
from vggrepro.system.progress import Track

BATCH_BYTES = 32 << 20  # of posteriors held at a time, of all files; as much again is read ahead
BLOCK_NUMBERS = 1 << 16  # images x classes summed at a time: what fits a processor's cache
THREADS = min(8, os.cpu_count() or 1)

Group = frozenset[Path]
FilesByFolder = tuple[tuple[Path, ...], ...]  # a group's files by folder, all sorted


@dataclass(frozen=True, slots=True)
class Ranks:
    """What `rank_classes` found.

    `ranks[group]` (images,) is the rank of each image's true class under the group's mean, 0 is best, in the order of
    `images`; groups with a bad file are not in it. `bad[path]` says what is wrong with a file.
    """

    images: Images | None
    ranks: dict[Group, np.ndarray]
    bad: dict[Path, InputError]


def rank_classes(groups: Iterable[Iterable[Path]], images: Images | None = None) -> Ranks:
    """Ranks of the true classes under the mean posterior of each group of files, every file read once.

    Args:
        groups: sets of posterior files.
        images: the images that every file must hold; by default, those of the first file that is whole.

    Raises:
        InputError: an image without a label.
    """
    wanted = list(dict.fromkeys(frozenset(group) for group in groups))
    everything = sorted(frozenset[Path]().union(*wanted))
    found = _Files(everything, images)
    with found:
        images = found.images
        if images is None:
            return Ranks(None, {}, found.bad)
        if (unknown := images.labels < 0).any():
            key = images.keys[int(unknown.argmax())].as_py()
            raise InputError(f"{images.source}: image '{key}' has no label; errors need a labelled split")
        kind = np.min_scalar_type(images.classes)
        result = {group: np.empty(len(images.labels), kind) for group in wanted}
        plans = sorted((_by_folder(group), group) for group in wanted)

        def compute(adder: _Adder, start: int, values: Mapping[Path, np.ndarray]) -> None:
            labels = images.labels[start : start + len(next(iter(values.values())))]
            for group, total in adder.totals(plans, values):
                result[group][start : start + len(total)] = true_ranks(total, labels)

        for start, values in found.batches():
            plans = [(plan, group) for plan, group in plans if not group & found.bad.keys()]
            found.blocks(compute, start, values)
        return Ranks(images, {group: result[group] for group in wanted if not group & found.bad.keys()}, found.bad)


def score(paths: Iterable[Path]) -> Score:
    """Errors of the files' plain mean.

    Raises:
        InputError: as `scores`.
    """
    return scores([list(paths)])[0]


def scores(groups: Sequence[Sequence[Path]], images: Images | None = None) -> list[Score]:
    """Errors of the plain mean of each group of files, all read once.

    Raises:
        InputError: a bad file, files of different images, an image without a label.
    """
    found = rank_classes(groups, images)
    raise_first(found.bad, (path for group in groups for path in group))
    assert found.images is not None
    return [score_of(found.ranks[frozenset(group)], found.images.classes) for group in groups]


def raise_first(bad: Mapping[Path, InputError], paths: Iterable[Path]) -> None:
    """Raises what is wrong with the first of these files that is bad, if any is."""
    for path in paths:
        if path in bad:
            raise bad[path]


def average(paths: Iterable[Path], images: Images | None = None) -> Iterator[Rows]:
    """Streams the mean posterior of the files with equal weights, float64, in the order of `images`.

    Raises:
        InputError: no files, a bad one, files of different images.
    """
    group = frozenset(paths)
    for batch in sums([group], images):
        yield Rows(batch.keys, batch.labels, np.divide(batch.posteriors[0], len(group), dtype=np.float64))


def sums(groups: Iterable[Iterable[Path]], images: Images | None = None) -> Iterator[Rows]:
    """Streams the sums of several groups of files, (groups, n, K) float64, every file read once.

    Raises:
        InputError: no files, a bad one, files of different images.
    """
    wanted = [frozenset(group) for group in groups]
    everything = frozenset[Path]().union(*wanted)
    if not all(wanted) or not wanted:
        raise InputError("nothing to average: no posterior files")
    with _Files(sorted(everything), images) as found:
        raise_first(found.bad, sorted(everything))
        assert found.images is not None
        plans = sorted((_by_folder(group), group) for group in set(wanted))
        adder = _Adder()
        for start, values in found.batches():
            raise_first(found.bad, sorted(everything))
            totals = {group: total.copy() for group, total in adder.totals(plans, values)}
            result = np.stack([totals[group] for group in wanted]).astype(np.float64, copy=False)
            stop = start + result.shape[1]
            yield Rows(found.images.keys[start:stop].to_pylist(), found.images.labels[start:stop], result)


def _by_folder(group: Group) -> FilesByFolder:
    return tuple(tuple(paths) for _, paths in groupby(sorted(group), key=lambda path: path.parent))


class _Adder:
    """Sums over groups of files, a block of images after another. Not for two threads at once.

    Its arrays are kept from block to block: fresh memory from the system would cost more than the additions.
    """

    def __init__(self) -> None:
        self._arrays: dict[object, np.ndarray] = {}

    def totals(
        self, plans: Sequence[tuple[FilesByFolder, Group]], values: Mapping[Path, np.ndarray]
    ) -> Iterator[tuple[Group, np.ndarray]]:
        """Each group's sum over its files (n, K), valid until the next one is asked for; for one file its own numbers.

        Groups are sorted, and what neighbours have in common is added once: first files of a folder, first folders.
        """
        folders: dict[tuple[Path, ...], np.ndarray] = {}
        done: list[tuple[tuple[Path, ...], np.ndarray]] = []  # the folders of the last plan and the sums so far
        for plan, group in plans:
            same = 0
            while same < min(len(done), len(plan)) and done[same][0] == plan[same]:
                same += 1
            del done[same:]
            for paths in plan[same:]:
                part = self._folder(folders, paths, values)
                done.append((paths, self._add(len(done), done[-1][1], part) if done else part))
            yield group, done[-1][1]

    def _folder(
        self, known: dict[tuple[Path, ...], np.ndarray], paths: tuple[Path, ...], values: Mapping[Path, np.ndarray]
    ) -> np.ndarray:
        if len(paths) == 1:
            return values[paths[0]]
        if paths not in known:
            known[paths] = self._add(paths, self._folder(known, paths[:-1], values), values[paths[-1]])
        return known[paths]

    def _add(self, name: object, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """a + b in the array of that name, float64."""
        if name not in self._arrays or self._arrays[name].shape[1] != a.shape[1] or len(self._arrays[name]) < len(a):
            self._arrays[name] = np.empty(a.shape)
        return np.add(a, b, out=self._arrays[name][: len(a)], dtype=np.float64)


class _Files:
    """Posterior files read side by side in the order of `images`; `bad` grows as damage is found."""

    def __init__(self, paths: Sequence[Path], images: Images | None) -> None:
        self.images = images
        self.bad: dict[Path, InputError] = {}
        self._adders: SimpleQueue[_Adder] = SimpleQueue()
        for _ in range(THREADS):
            self._adders.put(_Adder())
        self._pool = ThreadPoolExecutor(THREADS)
        found = dict(zip(paths, self._pool.map(_attempt(posterior_files.images_of), paths), strict=True))
        self.bad |= {path: mine for path, mine in found.items() if isinstance(mine, InputError)}
        self._orders: dict[Path, np.ndarray | None] = {}
        for path, mine in found.items():
            if isinstance(mine, Images):
                self.images = self.images or mine
                try:
                    self._orders[path] = order_of(path, mine, self.images)
                except InputError as error:
                    self.bad[path] = error
        row_bytes = 4 * (self.images.classes if self.images else 1) * max(1, len(self._orders))
        self._rows = min(posterior_files.BATCH_ROWS, max(1, BATCH_BYTES // row_bytes))

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def batches(self) -> Iterator[tuple[int, dict[Path, np.ndarray]]]:
        """(first image, the rows (n, K) of each file that is still good); the next batch is read meanwhile.

        A file that proves bad is missing from then on.
        """
        assert self.images is not None
        streams = {path: self._stream(path, order) for path, order in self._orders.items()}
        images = len(self.images.labels)
        ahead: dict[Path, Future[np.ndarray | InputError]] = {}
        with Track("average posteriors", images) as track:
            for start in range(0, images, self._rows):
                ahead = ahead or self._read(streams)
                values: dict[Path, np.ndarray] = {}
                for path, future in ahead.items():
                    got = future.result()
                    if isinstance(got, InputError):
                        self.bad[path] = got
                        del streams[path]
                    else:
                        values[path] = got
                ahead = self._read(streams)
                if values:
                    yield start, values
                track.advance(min(self._rows, images - start))

    def _read(self, streams: Mapping[Path, Iterator[np.ndarray]]) -> dict[Path, Future[np.ndarray | InputError]]:
        return {path: self._pool.submit(_attempt(next), stream, None) for path, stream in streams.items()}

    def _stream(self, path: Path, order: np.ndarray | None) -> Iterator[np.ndarray]:
        if order is None:
            return posterior_files.values(path, self._rows)
        return _reordered(path, order, self._rows)

    def blocks(self, compute: Callable[..., None], start: int, values: Mapping[Path, np.ndarray]) -> None:
        """Calls `compute(adder, first image, values)` for every few images of a batch, in threads."""
        count, classes = next(iter(values.values())).shape
        step = max(1, BLOCK_NUMBERS // classes)

        def block(first: int) -> None:
            adder = self._adders.get()
            try:
                compute(adder, start + first, {path: rows[first : first + step] for path, rows in values.items()})
            finally:
                self._adders.put(adder)

        list(self._pool.map(block, range(0, count, step)))


def _attempt(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function's result, or the InputError that it raises."""

    def attempt(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except InputError as error:
            return error

    return attempt


def order_of(path: Path, mine: Images, images: Images) -> np.ndarray | None:
    """The row of a file (whose images are `mine`) for each of `images`, (n,); None if the orders are the same.

    Raises:
        InputError: an image too many or too few, another label than -1 or the same, another number of classes.
    """
    if mine.classes != images.classes:
        raise InputError(
            f"{path} has {mine.classes} classes, {images.source} {images.classes}; only posteriors of one data set can "
            "be averaged"
        )
    order: np.ndarray | None = None
    if not mine.keys.equals(images.keys):
        place = pc.index_in(mine.keys, value_set=images.keys)
        if place.null_count:
            row = pc.index(place.is_null(), True).as_py()
            raise InputError(f"{path}: row {row} is image '{mine.keys[row]}', which is not in {images.source}")
        order = np.full(len(images.keys), -1)
        order[place.to_numpy()] = np.arange(len(mine.keys))
        if (missing := order < 0).any():
            row = int(missing.argmax())
            raise InputError(f"{path} lacks image '{images.keys[row]}', which is row {row} of {images.source}")
    labels = mine.labels if order is None else mine.labels[order]
    other = (labels != images.labels) & (labels != -1)
    if other.any():
        row = int(other.argmax())
        here = row if order is None else int(order[row])
        raise InputError(
            f"{path}: row {here} gives image '{images.keys[row]}' label {labels[row]}, {images.source} gives it "
            f"{images.labels[row]}"
        )
    return order


def _reordered(path: Path, order: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """Streams a file's posteriors in another order, from a temporary copy as large as the file."""
    with tempfile.TemporaryFile() as copy:
        for part in posterior_files.values(path):
            kind, size = part.dtype, part[0].nbytes
            copy.write(part.tobytes())
        copy.flush()
        for start in range(0, len(order), rows):
            bits = b"".join(os.pread(copy.fileno(), size, int(row) * size) for row in order[start : start + rows])
            yield np.frombuffer(bits, kind).reshape(-1, size // kind.itemsize)
