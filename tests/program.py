"""Runs a file of tests/programs/ in a process of its own, which can find the tests' modules and the package."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent


def start(
    name: str, *words: object, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """The process of `programs/<name>.py` with these arguments, on one thread and without a GPU."""
    paths = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(TESTS / "programs" / f"{name}.py"), *map(str, words)]
    return subprocess.Popen(command, env=os.environ | settings | (environment or {}), text=True, **options)


def run(name: str, *words: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """The same, ended: its exit code, stdout and stderr."""
    with start(name, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def together(name: str, *words: object, processes: int) -> list[str]:
    """The same in several processes that torchrun's variables join: what each prints, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(processes)}
    workers = [
        start(name, *words, environment=place | {"RANK": str(rank)}, stdout=subprocess.PIPE)
        for rank in range(processes)
    ]
    printed = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * processes
    return printed
