"""Claim: the demo takes 6 to 9 minutes on two quiet CPU cores, and seconds when it is done.

python benchmarks/demo.py [SEED] [OPTIONS of reproduce]     (in a folder that is removed afterwards)
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import write

from vggrepro import paper
from vggrepro.runs.folder import RunFolder


def main() -> None:
    """Runs what `make demo` runs, twice, and stores times, memory and Table 3."""
    seed, *options = sys.argv[1:] or ["0"]
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "vggrepro", "reproduce", "--preset", "demo"]
        words += ["--init", "dirac", "--jobs", "auto", "--seed", seed, *options]
        seconds, tables = [], []
        for _ in range(2):
            began = time.perf_counter()
            done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
            seconds.append(round(time.perf_counter() - began, 1))
            tables.append(done.stdout)
        assert tables[0] == tables[1]
        training = {
            run.name: round(sum(epoch.seconds for epoch in RunFolder(Path(folder) / "runs" / run.name).epochs()), 1)
            for run in paper.all_runs()
        }
        section = tables[0].split("## Table 3")[1].split("## Table 4")[0]
        result: dict[str, Any] = {
            "seed": int(seed),
            "first_seconds": seconds[0],
            "second_seconds": seconds[1],
            "training_seconds": round(sum(training.values()), 1),
            "training_seconds_by_run": training,
            "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2),
            "table3": [line for line in section.splitlines() if line.startswith("|")],
        }
        write("demo" if seed == "0" else f"demo-seed{seed}", result)


if __name__ == "__main__":
    main()
