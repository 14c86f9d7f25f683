"""Packs runs without their weights into files of a chosen size, to share them or to copy them from another machine."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from vggrepro.data.dataset import DATASET_JSON, Dataset
from vggrepro.errors import InputError
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import atomic
from vggrepro.system.progress import Track

NAME = "runs.tar"
UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
LEAST = 10_000  # bytes of a part: tar's own blocks take as much
PARTS = 1000


def parse_size(text: str) -> int:
    """`16MB`, `1.5 GiB` or a number of bytes.

    Raises:
        InputError: no size, or less than `LEAST`.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([a-z]*)", text.strip().lower())
    if match is None or match[2] not in UNITS:
        raise InputError(f"--size {text}: give a size such as 16MB or 2GB")
    size = int(float(match[1]) * UNITS[match[2]])
    if size < LEAST:
        raise InputError(f"--size {text}: give {LEAST // 1000}kB or more")
    return size


def archive(folders: Sequence[RunFolder], dataset: Dataset, to: Path, size: int, *, force: bool = False) -> list[Path]:
    """Packs runs and the data set's description; gives the parts, which are one tar file when put together.

    The archive holds the configuration, metrics, posteriors and weights' hash of each run: tables and claims made of
    them are the same. The tar holds `data/dataset.json` and `runs/<name>/…`, of another seed `runs/seed1/<name>/…`; the
    same files give the same bytes.

    Args:
        folders: runs whose training is finished.
        dataset: the prepared data set that the posteriors are of.
        to: the folder for the parts `runs.tar.000`, `runs.tar.001` …
        size: bytes of a part, at most.
        force: replace the parts of an earlier archive.

    Raises:
        InputError: no runs, two of one place, a run that is not finished, an archive that is there already, too many
            parts.
    """
    if not folders:
        raise InputError("archive: there are no finished runs; 'vggrepro status' lists the runs")
    places = [_place(folder) for folder in folders]
    if twice := {place for place in places if places.count(place) > 1}:
        raise InputError(f"archive: two runs would be {min(twice)} in it; make an archive of each, with another --to")
    members: list[tuple[str, Path | bytes]] = [("data/" + DATASET_JSON, dataset.folder / DATASET_JSON)]
    for folder in folders:
        folder.require_trained()
        members += _members(folder)
    total = sum(len(content) if isinstance(content, bytes) else content.stat().st_size for _, content in members)
    if total > PARTS * size:
        raise InputError(
            f"archive: {total / 1e6:,.0f} MB are more than {PARTS} parts of this size; give a larger --size"
        )
    former = sorted(to.glob(f"{NAME}.[0-9][0-9][0-9]"))
    if former and not force:
        raise InputError(
            f"{to} holds an archive already ({former[0].name}); give another --to, or --force to replace it"
        )
    with ExitStack() as stack:
        parts = Parts(to, size, stack)
        with Track("archive", total >> 10, "kB") as track, tarfile.open(fileobj=parts, mode="w|") as tar:
            for name, content in members:
                track.advance(_add(tar, name, content) >> 10)
    for path in set(former) - set(parts.paths):
        path.unlink()
    return parts.paths


def unpacking(to: Path) -> str:
    """The command that unpacks the parts in the present folder."""
    return f"cat {shlex.quote(str(to))}/{NAME}.* | tar -x"


def _place(folder: RunFolder) -> str:
    """Where a run is in the archive: in `runs/`, or in `runs/seed1/` if it is in such a folder."""
    seed = re.fullmatch(r"seed\d+", folder.path.parent.name)
    return f"runs/{seed[0]}/{folder.name}" if seed else f"runs/{folder.name}"


def _members(folder: RunFolder) -> list[tuple[str, Path | bytes]]:
    """The files of a run that go into the archive, by their names there."""
    files = [folder.config_path, folder.metrics_path, *sorted(folder.posteriors_path.glob("*.parquet"))]
    place = _place(folder)
    result: list[tuple[str, Path | bytes]] = [
        (f"{place}/{path.relative_to(folder.path).as_posix()}", path) for path in files if path.is_file()
    ]
    line = f"{folder.weights_hash()}  {folder.weights_path.name}\n"  # as sha256sum writes it
    return [*result, (f"{place}/{folder.weights_hash_path.name}", line.encode())]


def _add(tar: tarfile.TarFile, name: str, content: Path | bytes) -> int:
    """Adds a file without what differs between machines (owner, time); gives its size in bytes."""
    entry = tarfile.TarInfo(name)
    entry.mode = 0o644
    file: IO[bytes] = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
    with file:
        entry.size = file.seek(0, io.SEEK_END)
        file.seek(0)
        tar.addfile(entry, file)
    return entry.size


class Parts(io.RawIOBase):
    """A file to write that is cut into parts of a size; each part appears when all are complete."""

    def __init__(self, folder: Path, size: int, stack: ExitStack) -> None:
        self.paths: list[Path] = []
        self._folder, self._size, self._stack = folder, size, stack
        self._file: IO[bytes] | None = None
        self._left = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        view = memoryview(data)
        while view:
            if not self._left:
                self._next()
            assert self._file is not None
            count = min(len(view), self._left)
            self._file.write(view[:count])
            self._left -= count
            view = view[count:]
        return len(data)

    def _next(self) -> None:
        path = self._folder / f"{NAME}.{len(self.paths):03d}"
        temporary = self._stack.enter_context(atomic(path))
        self._file = self._stack.enter_context(temporary.open("wb"))
        self.paths.append(path)
        self._left = self._size
