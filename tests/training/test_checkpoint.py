"""The two newest checkpoints: the previous one is kept, and a damaged one is named with what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vggrepro.errors import InputError
from vggrepro.runs.folder import RunFolder
from vggrepro.training import checkpoint
from vggrepro.training.checkpoint import Checkpoints


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"weights/a": torch.full((3, 2), value), "momentum/a": torch.full((3, 2), -value)}


def state(epochs: int, step: int) -> dict[str, Any]:
    return {"history": [{"epoch": epoch + 1} for epoch in range(epochs)], "step": step}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "A-256").mkdir()
    return RunFolder(tmp_path / "A-256")


@pytest.fixture
def saved(folder: RunFolder) -> RunFolder:
    """Three checkpoints were saved here, one after another."""
    checkpoints = Checkpoints(folder)
    for number in (1, 2, 3):
        checkpoints.save(tensors(number), state(number, 10 * number))
    checkpoints.wait()
    return folder


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def refused(folder: RunFolder) -> str:
    with pytest.raises(InputError) as error:
        Checkpoints(folder).load()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_any_there_is_nothing(folder: RunFolder) -> None:
    Checkpoints(folder).wait()
    assert Checkpoints(folder).load() is None


def test_the_newest_two_are_kept(saved: RunFolder) -> None:
    names = ["checkpoint.previous.safetensors", "checkpoint.safetensors"]
    assert sorted(path.name for path in saved.path.iterdir()) == names
    for name, number in zip(names, (2, 3), strict=True):  # as safetensors reads them
        found = load_file(saved.path / name)
        assert {key: value.unique().tolist() for key, value in found.items()} == {
            "weights/a": [number],
            "momentum/a": [-number],
        }
    contents = Checkpoints(saved).load()
    assert contents is not None
    assert contents[1] == state(3, 30)
    assert torch.equal(contents[0]["weights/a"], torch.full((3, 2), 3.0))


def test_what_is_trained_on_meanwhile_is_not_in_it(folder: RunFolder) -> None:
    checkpoints, weights = Checkpoints(folder), torch.zeros(1 << 20, requires_grad=True)
    checkpoints.save({"weights/a": weights}, state(0, 1))
    with torch.no_grad():
        weights += 1
    checkpoints.wait()
    assert not load_file(folder.checkpoint_path)["weights/a"].any()


def test_the_previous_one_stands_in_for_one_that_is_gone(saved: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    saved.checkpoint_path.unlink()
    contents = Checkpoints(saved).load()
    assert contents is not None
    assert contents[1] == state(2, 20)
    said = f"{saved.checkpoint_path} is missing: continuing from checkpoint.previous.safetensors\n"
    assert capsys.readouterr().err == said


def test_a_damaged_newest_offers_the_previous_one(saved: RunFolder) -> None:
    damage(saved.checkpoint_path)
    said = refused(saved)
    assert said.startswith(f"{saved.checkpoint_path}: damaged (")
    assert said.endswith(
        "); remove it to continue from the previous one (checkpoint.previous.safetensors: epoch 3, step 20)"
    )
    damage(saved.previous_checkpoint_path)
    assert refused(saved).endswith(
        "); checkpoint.previous.safetensors is damaged too; remove both to start this run again"
    )
    saved.previous_checkpoint_path.unlink()
    assert refused(saved).endswith("); there is no previous one; remove it to start this run again")


def test_a_damaged_previous_one_alone_is_named(saved: RunFolder) -> None:
    saved.checkpoint_path.unlink()
    damage(saved.previous_checkpoint_path)
    said = refused(saved)
    assert said.startswith(f"{saved.previous_checkpoint_path}: damaged (")
    assert said.endswith("); remove it to start this run again")


def test_a_save_that_fails_is_told_and_costs_no_checkpoint(saved: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in saved.path.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(saved)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        checkpoints.save(tensors(4), state(4, 40))
        with pytest.raises(OSError, match="No space left"):
            checkpoints.wait()
    assert {path.name: path.read_bytes() for path in saved.path.iterdir()} == before
    checkpoints.save(tensors(5), state(5, 50))
    checkpoints.wait()
    assert saved.previous_checkpoint_path.read_bytes() == before["checkpoint.safetensors"]


def test_a_kill_while_the_newest_moves_leaves_the_previous_one(
    saved: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = saved.checkpoint_path.read_bytes()

    class KilledError(BaseException):
        pass

    move = os.replace

    def killed_after_the_first_move(source: Path, target: Path) -> None:
        if target == saved.checkpoint_path:
            raise KilledError
        move(source, target)

    checkpoints = Checkpoints(saved)
    monkeypatch.setattr(checkpoint.os, "replace", killed_after_the_first_move)
    checkpoints.save(tensors(4), state(4, 40))
    with pytest.raises(KilledError):
        checkpoints.wait()
    monkeypatch.undo()
    assert not saved.checkpoint_path.exists()
    assert saved.previous_checkpoint_path.read_bytes() == newest
    contents = Checkpoints(saved).load()
    assert contents is not None
    assert contents[1] == state(3, 30)
