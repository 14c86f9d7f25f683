"""Files that are never half-written, and folders with one writer."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vggrepro.errors import InputError

LFS_POINTER = "a pointer of Git LFS; fetch the file itself with 'git lfs pull'"


def is_lfs_pointer(head: bytes) -> bool:
    """Whether a file that begins so is the pointer that a clone without `git lfs pull` has in place of a large file."""
    return head.startswith(b"version https://git-lfs")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; renames it to `path` when the block ends without an error.

    An interruption leaves the old `path` or none, never half of it. Concurrent writers must hold a lock.

    Raises:
        InputError: the folder cannot be made or takes no files, as in /proc.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        temporary.unlink()  # so that a block which writes nothing is still noticed
    except FileNotFoundError:
        raise InputError(f"{path}: its folder takes no files; give a path that can be written") from None
    except OSError as error:
        raise _of(path, temporary, error) from error
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and (renamed := _of(path, temporary, error)) is not error:
            raise renamed from error
        raise


def _of(path: Path, temporary: Path, error: OSError) -> OSError:
    """An error of the temporary file as one of `path`; any other as it is."""
    if error.errno and str(error.filename or temporary) == str(temporary):
        return OSError(error.errno, os.strerror(error.errno), str(path))
    return error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically; bytes of file names that are not UTF-8 become `\\udcXX`, which JSON reads back."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: the file is no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged JSON ({error}); restore the file or remove its folder") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds no JSON object; restore the file or remove its folder")
    return value


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Hashed(io.FileIO):
    """A new file that computes the SHA-256 of what is written to it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb")
        self._digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self._digest.update(data)
        view = memoryview(data).cast("B")
        written = 0
        while written < len(view):  # a raw file may write only a part at once
            written += super().write(view[written:])
        return written

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


@contextmanager
def lock(folder: Path, purpose: str) -> Iterator[None]:
    """Makes this process the folder's only writer; the lock goes with the process, even by SIGKILL.

    Raises:
        InputError: another process holds it (its host, process id and purpose are named), or the folder cannot be
            made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = open(folder / "lock", "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        reason = "a file is in the way" if isinstance(error, FileExistsError) else error.strerror
        raise InputError(f"{folder} cannot be written ({reason}); give a folder that can be written") from None
    with lock_file as file:
        for attempt in range(3, -1, -1):  # `locked_by` may hold it for an instant
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 0:
                    file.seek(0)
                    holder = file.read().strip() or "another process"
                    raise InputError(f"{folder} is being written by {holder}; wait for it or stop it") from None
                time.sleep(0.1)
        file.seek(0)
        file.truncate()
        file.write(f"{purpose} (process {os.getpid()} on {socket.gethostname()})")
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate()


def locked_by(folder: Path) -> str | None:
    """Who holds the folder's lock, or None."""
    try:
        with open(folder / "lock", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another process"
    except FileNotFoundError:
        pass
    return None
