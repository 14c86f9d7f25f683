"""Claim: commands that need no torch start little slower than Python with pandas and scipy.stats.

python benchmarks/start.py [TURNS]        (10 by default)

Each command runs on a data set of twelve images with one trained and tested net, so that nearly all of its time is the
start. The contenders take turns. Processor seconds are steadier than wall seconds on a machine that others use.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from record import write

BASE = "pandas and scipy.stats"
PROGRAM = (sys.executable, "-m", "vggrepro")
CONTENDERS = {
    "python": (sys.executable, "-c", ""),
    BASE: (sys.executable, "-c", "import pandas, scipy.stats"),
    "prepare": (*PROGRAM, "prepare", "photos", "--preset", "demo"),  # finds it done
    "status": (*PROGRAM, "status"),
    "report": (*PROGRAM, "report"),
    "claims": (*PROGRAM, "claims"),
}
TRAINING = ("--width", "0.02", "--epochs", "1", "--set", "batch=6", "--device", "cpu", "--precision", "fp32")


def prepared(folder: Path) -> None:
    """Makes the data set and the run in `folder`."""
    for number in range(12):
        image = folder / "photos" / ("train", "val")[number % 2] / f"class{number // 2}" / "image.png"
        image.parent.mkdir(parents=True)
        Image.fromarray(np.full((80, 80, 3), 20 * number, np.uint8)).save(image)
    for words in (
        CONTENDERS["prepare"],
        (*PROGRAM, "train", "A", *TRAINING),
        (*PROGRAM, "evaluate", "--device", "cpu"),
    ):
        subprocess.run(words, cwd=folder, check=True, capture_output=True)


def seconds(words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Wall and processor seconds of a process, its own children included."""
    began, before = time.perf_counter(), os.times()
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - began, used


def main() -> None:
    """Times the contenders in turns; the first turn only warms up."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as text:
        prepared(Path(text))
        for turn in range(turns + 1):
            for name, words in CONTENDERS.items():
                both = seconds(words, Path(text))
                found[name] += [both] if turn else []
    medians = {name: [statistics.median(each) for each in zip(*both, strict=True)] for name, both in found.items()}
    base = medians[BASE][1]
    write(
        "start",
        {
            name: {"wall": round(wall, 2), "processor": round(used, 2), "beyond_libraries": round(used - base, 2)}
            for name, (wall, used) in medians.items()
        },
    )


if __name__ == "__main__":
    main()
