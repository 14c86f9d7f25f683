"""Atomic files and folders with one writer, across real processes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import program
import pytest

from vggrepro.errors import InputError
from vggrepro.system import files


def test_names_that_are_no_unicode_go_through_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xc3\xa9")
    files.write_json(tmp_path / "a.json", {"bad": [name]})
    assert files.read_json(tmp_path / "a.json") == {"bad": [name]}


def test_an_error_inside_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.atomic(path) as temporary:
        temporary.write_text("half a new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    files.write_text(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        files.write_text(tmp_path / "folder", "text")
    assert caught.value.filename == str(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_folders_that_take_no_files(tmp_path: Path) -> None:
    """Linux says "not found" of what cannot be made in /proc; a file that the block misses is a bug and stays one."""
    if sys.platform != "linux":
        pytest.skip("/proc is Linux's")
    for path in (Path("/proc/x.onnx"), Path("/proc/nope/x.onnx")):
        with pytest.raises(InputError) as caught:
            files.write_text(path, "text")
        assert str(caught.value) == f"{path}: its folder takes no files; give a path that can be written"
    with pytest.raises(FileNotFoundError), files.atomic(tmp_path / "a"):
        (tmp_path / "missing").read_text()
    with pytest.raises(FileNotFoundError), files.atomic(tmp_path / "a"):
        pass  # writes nothing
    assert list(tmp_path.iterdir()) == []


def test_the_file_appears_only_when_the_block_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with files.atomic(path) as temporary:
        temporary.write_bytes(b"x")
        assert not path.exists()
        assert temporary.parent == path.parent  # renaming must not cross file systems
    assert path.read_bytes() == b"x"


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    assert program.run("killed_write", path).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    files.write_text(path, "new")  # what the dead process left does not disturb the next writer
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_json_goes_there_and_back(tmp_path: Path) -> None:
    value = {"name": "café ✓", "numbers": [1, 0.1, None], "inner": {"x": True}}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    assert "café ✓" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "damaged JSON"), (b"\xff\xfe", "damaged JSON"), (b"", "damaged JSON"), (b"[1]", "holds no JSON object")],
)
def test_damaged_json_names_the_file(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"config.json: {message}"):
        files.read_json(path)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_one_writer_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert files.locked_by(folder) is None
    with files.lock(folder, "vggrepro train A"):
        with pytest.raises(InputError) as error, files.lock(folder, "vggrepro evaluate A"):
            pass
        message = str(error.value)
        assert "is being written by vggrepro train A" in message
        assert f"process {os.getpid()} on " in message
        assert "wait for it or stop it" in message
        assert str(files.locked_by(folder)).startswith("vggrepro train A")
    assert files.locked_by(folder) is None
    with files.lock(folder, "again"):
        pass


def test_an_error_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), files.lock(tmp_path, "first"):
        raise RuntimeError
    with files.lock(tmp_path, "second"):
        assert str(files.locked_by(tmp_path)).startswith("second")


def test_a_killed_writers_lock_goes_with_it(tmp_path: Path) -> None:
    with program.start("holds_a_lock", tmp_path, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            with pytest.raises(InputError, match=f"vggrepro train E .process {process.pid} on"):
                files.lock(tmp_path, "second").__enter__()
        finally:
            process.kill()
    assert files.locked_by(tmp_path) is None
    with files.lock(tmp_path, "second"):
        pass
