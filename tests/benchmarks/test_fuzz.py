"""The driver of the fuzzing: each outcome, children that are replaced, inputs that are the same again."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vggrepro.errors import InputError

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def fuzz(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    return importlib.import_module("fuzz")


def misbehave(number: int) -> None:
    """What a reader may do to its process."""
    match number % 8:
        case 1:
            raise InputError("refused in one line")
        case 2:
            raise InputError("two\nlines")
        case 3:
            raise KeyError("x")
        case 4:
            os.kill(os.getpid(), signal.SIGKILL)
        case 5:
            time.sleep(60)
        case 6:
            np.ones(3 << 27)  # 3 GB


def test_every_outcome_is_counted_and_the_child_replaced(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fuzz.READERS, "bad", lambda folder: [])
    monkeypatch.setattr(fuzz, "taken", lambda sound, reader, seed, number: misbehave(number))
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    first = fuzz.measured("bad", 0, {}, 6)
    assert {name: first[name] for name in first.keys() - {"seconds", "first_faults"}} == {
        "inputs": 6,
        "read": 1,
        "refused": 1,
        "several lines": 1,
        "KeyError: 'x'": 1,
        "died (-9)": 1,
        "longer than 1 s": 1,
    }
    both = fuzz.measured("bad", 0, first, 8)
    assert (both["inputs"], both["read"], both["more than 2 GB"]) == (8, 2, 1)
    assert both["first_faults"] == {
        "several lines": 2,
        "KeyError: 'x'": 3,
        "died (-9)": 4,
        "longer than 1 s": 5,
        "more than 2 GB": 6,
    }


def test_inputs_are_fixed_by_their_number_and_the_sound_file_is_put_back(fuzz: ModuleType, tmp_path: Path) -> None:
    path, seen = tmp_path / "x", []
    path.write_bytes(bytes(range(100)))
    inputs = importlib.import_module("fuzz_inputs")
    sound = [inputs.at(path, lambda: seen.append(path.read_bytes()))]
    for number in (7, 8, 7):
        fuzz.taken(sound, "x", 0, number)
    assert seen[0] == seen[2] != seen[1]
    assert path.read_bytes() == bytes(range(100))


@pytest.mark.parametrize("reader", ["image", "tiny", "voc"])
def test_sound_files_are_read(fuzz: ModuleType, tmp_path: Path, reader: str) -> None:
    for sound in fuzz.READERS[reader](tmp_path):
        assert sound.pack(sound.data) == sound.path.read_bytes()
        sound.read()
