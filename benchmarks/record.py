"""What every benchmark needs: medians of alternating timings, and a result file that says where it comes from."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vggrepro import __version__
from vggrepro.system.commit import commit
from vggrepro.system.devices import HALVES, cpu_name
from vggrepro.system.files import write_text

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Machine, versions and commit, for a result file."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    cpu = {"cpu": cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu}
    versions = {"vggrepro": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {**cpu, **versions, "commit": commit(), "date": time.strftime("%Y-%m-%d")}


def product_side(device: torch.device, tiny: bool = False) -> int:
    """Of the matrices whose product is the measure of a machine: 8192 on a GPU, 2048 on a CPU; for a trial 64."""
    return 64 if tiny else 8192 if device.type == "cuda" else 2048


def product(precision: str, device: torch.device, tiny: bool = False) -> Callable[[], Any]:
    """One large matrix product, as the measure of the machine; on a GPU it is waited for elsewhere.

    fp32 and tf32 differ by torch's global choice, which the caller makes.
    """
    side = product_side(device, tiny)
    a = torch.randn(side, side, device=device).to(HALVES.get(precision, torch.float32))
    return lambda: a @ a


def clocks() -> tuple[float, float]:
    """Wall and processor seconds; the second is steadier on a machine shared with others."""
    return time.perf_counter(), time.process_time()


def alternate(functions: dict[str, Callable[[], Any]], rounds: int, repeat: int = 1) -> dict[str, float]:
    """Median seconds of each function, called turn by turn so that all see the same machine; one round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            for _ in range(repeat):
                function()
            if turn:
                seconds[name].append((time.perf_counter() - began) / repeat)
    return {name: statistics.median(values) for name, values in seconds.items()}


def store(name: str, results: Any) -> str:
    """Stores the results as results/<name>.json, whole or not at all, and gives its text."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), "results": results}, indent=2)
    write_text(RESULTS / f"{name}.json", text + "\n")
    return text


def write(name: str, results: Any) -> None:
    """Prints the results and stores them as results/<name>.json."""
    print(store(name, results))
