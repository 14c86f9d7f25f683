"""Writes and reads a run's two newest checkpoints, in the background, complete or not at all, each with its hash."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from vggrepro.errors import InputError
from vggrepro.nets import weights
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import atomic
from vggrepro.system.progress import say

Saved = tuple[dict[str, Tensor], dict[str, Any]]


class Checkpoints:
    """Saves and loads a run's checkpoints; training continues while one is hashed and written."""

    def __init__(self, folder: RunFolder) -> None:
        self.newest, self.previous = folder.checkpoint_path, folder.previous_checkpoint_path
        self._snapshot: dict[str, Tensor] = {}  # reused by each save: allocating memory takes longer than copying
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def save(self, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Waits for the previous save, copies the tensors, then writes the copy in the background."""
        self.wait()
        for name, tensor in tensors.items():
            if name not in self._snapshot:
                self._snapshot[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._snapshot[name].copy_(tensor.detach())
        self._writing = self._writer.submit(self._write, state)

    def wait(self) -> None:
        """Waits until the last checkpoint is on disk.

        Raises:
            OSError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, state: dict[str, Any]) -> None:
        with atomic(self.newest) as temporary:
            weights.write(temporary, self._snapshot, state)
            if self.newest.exists():
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())  # before the renames: between them only the previous one exists
                os.replace(self.newest, self.previous)

    def load(self) -> Saved | None:
        """The newest checkpoint, or the previous one if the newest is missing; None if there is none.

        Raises:
            InputError: the newest is damaged; the message says how to use the previous one.
        """
        if self.newest.is_file():
            try:
                return weights.load(self.newest, signed=True)
            except weights.Damaged as error:
                raise InputError(f"{self.newest}: damaged ({error.reason}); {self._offer()}") from None
        if not self.previous.is_file():
            return None
        try:
            contents = weights.load(self.previous, signed=True)
        except weights.Damaged as error:
            raise InputError(f"{self.previous}: damaged ({error.reason}); remove it to start this run again") from None
        say(f"{self.newest} is missing: continuing from {self.previous.name}")
        return contents

    def _offer(self) -> str:
        """What to do when the newest checkpoint is damaged."""
        if not self.previous.is_file():
            return "there is no previous one; remove it to start this run again"
        try:
            _, state = weights.load(self.previous, signed=True)
            where = f"epoch {len(state['history']) + 1}, step {state['step']}"
        except weights.Damaged:
            return f"{self.previous.name} is damaged too; remove both to start this run again"
        return f"remove it to continue from the previous one ({self.previous.name}: {where})"
