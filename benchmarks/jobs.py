"""Claim: two trainings side by side with a thread each train more images/s than one training with two threads.

python benchmarks/jobs.py [NET …] [--jobs 2] [--preset demo] [--epochs 1] [--rounds 3]

It is why `reproduce --jobs auto` gives each run one thread. The trainings are real, on generated images, turn by turn.
The rates are those of `metrics.jsonl`, decoding included, summed over the trainings that run at the same time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from busy import busy_processors
from record import write

from vggrepro.data.prepare import prepare
from vggrepro.data.sources.demo import DemoSource
from vggrepro.runs.folder import RunFolder


def rate(net: str, data: Path, runs: Path, jobs: int, threads: int, options: list[str]) -> float:
    """Images/s of `jobs` trainings of `net` at the same time, each with so many threads."""
    folders = [runs / f"{job}" for job in range(jobs)]
    words = [sys.executable, "-m", "vggrepro", "train", net, "--init", "delta", "--data", str(data), "--workers", "1"]
    processes = [
        subprocess.Popen(
            [*words, "--runs", str(folder), *options],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stderr=subprocess.DEVNULL,
        )
        for folder in folders
    ]
    assert [process.wait() for process in processes] == [0] * jobs
    return sum(
        epoch.images_per_second for folder in folders for epoch in RunFolder(folder / f"{net}-256").epochs()[-1:]
    )


def main() -> None:
    """Both ways for each net; results/jobs.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=["A", "D"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=4800)
    given = parser.parse_args()
    options, rows = ["--epochs", given.epochs, "--precision", "fp32"], []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        prepare(DemoSource(0, given.images, 32), work / "data", given.preset)
        busy = round(busy_processors(), 2)
        for net in given.nets:
            rates: dict[str, list[float]] = {"one": [], "side by side": []}
            for turn in range(given.rounds):
                for way, jobs in (("one", 1), ("side by side", given.jobs)):
                    runs = work / f"{net}-{turn}-{jobs}"
                    rates[way].append(rate(net, work / "data", runs, jobs, given.jobs // jobs, options))
            medians = {way: round(statistics.median(values), 1) for way, values in rates.items()}
            ratio = round(medians["side by side"] / medians["one"], 2)
            rows.append({"net": net, "images_per_second": medians, "ratio": ratio})
    write("jobs", {"preset": given.preset, "jobs": given.jobs, "processors_busy_before": busy, "rows": rows})


if __name__ == "__main__":
    main()
