"""Claim: the same run for any number of processes, micro-batches and workers, and however often it is killed.

python benchmarks/exactness.py [--kills 50] [--part table|growth|killed] [--device cuda]

Every row is a real training by the command line (torchrun where there are several ranks), fp32 on the CPU with one
thread each or, by --device cuda, at --precision on a GPU for each rank (rows of more ranks than GPUs are left out). It
has dropout, jittered S, flips, the RGB shift, warm-up and a drop of the rate, and is compared with the training of one
process: parameters, and the lines of metrics.jsonl without their times. Where the order of sums is the same the two are
equal to the last bit; where it is not they differ by rounding, which training amplifies with time: `growth` shows how
fast.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, write
from torch import Tensor

from vggrepro.data.prepare import prepare
from vggrepro.data.sources.demo import DemoSource
from vggrepro.nets import weights
from vggrepro.runs.folder import RunFolder
from vggrepro.training.checkpoint import Checkpoints

RUN = "A-256-512"
BATCH, IMAGES = 16, 256
RECIPE = {"crop": 32, "width": 0.125, "batch": BATCH, "dropout": 0.2, "learning_rate": 0.01, "warmup_steps": 8}
RECIPE |= {"drops": 1, "drop_by": [0.5], "patience": 99, "momentum_form": "caffe", "colour_std": 0.1, "clip_norm": 0}
TIMES = ("images_per_second", "data_wait", "seconds")
TOLERANCES = {"fp32": 1e-5}  # of sums in another order; with less exact numbers a difference soon grows
EPOCHS = 2  # 32 steps
LONG_EPOCHS, LONG_IMAGES = 40, 1024  # of the run that is killed
KILLS_A_RUN = 10
LIFE = 6.0  # seconds of training until a kill, at most


class Bench:
    """Trainings over one small data set, each in a folder of its own."""

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        self.folder, self.device, self.precision = folder, device, precision
        self.start_seconds = 0.0  # of Python, torch and a training of few steps
        self.environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
        self.most_ranks = torch.cuda.device_count() if device == "cuda" else 4

    def prepare(self, images: int) -> None:
        """A data set of so many generated training images."""
        prepare(DemoSource(0, images, 70), self.folder / f"data{images}", "demo", workers=0)

    def words(
        self, name: str, ranks: int = 1, micro: int = 1, workers: int = 0, epochs: int = EPOCHS, restarts: int = 0
    ) -> list[str]:
        """The command that trains run `name`; `micro` is the number of micro-batches of each rank."""
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        launcher += ["--max-restarts", str(restarts), "--monitor-interval", "0.1"]
        images = IMAGES if epochs < LONG_EPOCHS else LONG_IMAGES
        words = [sys.executable, *(launcher if ranks > 1 or restarts else ())]
        words += ["-m", "vggrepro", "train", "A", "--scale", "256:512", "--init", "he"]
        words += ["--device", self.device, "--precision", self.precision]
        words += ["--data", str(self.folder / f"data{images}"), "--runs", str(self.folder / name)]
        words += ["--epochs", str(epochs), "--workers", str(workers)]
        words += ["--micro-batch", str(BATCH // ranks // micro if micro > 1 else 0)]
        return words + [word for key, value in RECIPE.items() for word in ("--set", f"{key}={json.dumps(value)}")]

    def start(self, words: list[str], threads: int = 1) -> subprocess.Popen[str]:
        """The process of a training; what it says is kept for errors."""
        environment = self.environment | {"OMP_NUM_THREADS": str(threads)}
        return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)

    def train(self, name: str, threads: int = 1, **options: int) -> RunFolder:
        """A training from start to end."""
        finish(self.start(self.words(name, **options), threads))
        return RunFolder(self.folder / name / RUN)

    def kill_and_resume(self, name: str, kills: int, seed: int) -> tuple[RunFolder, dict[str, Any]]:
        """A long training killed at random moments; each kill's checkpoint must be whole."""
        random, run = np.random.default_rng(seed), RunFolder(self.folder / name / RUN)
        lives, stands = 0, {(-1, -1)}
        for life in range(kills):
            # each step, or every second: kills fall into writing, or lose some work
            process = self.start([*self.words(name, epochs=LONG_EPOCHS), "--checkpoint-minutes", str(life % 2 / 60)])
            try:
                process.wait(self.start_seconds * 0.6 + random.uniform(0, LIFE))
            except subprocess.TimeoutExpired:
                process.kill()
            if process.wait() != -signal.SIGKILL:
                assert process.returncode == 0, process.communicate()[1]
                break
            process.communicate()
            lives += 1
            if contents := Checkpoints(run).load():
                stands.add((len(contents[1]["history"]), contents[1]["step"]))
        self.train(name, epochs=LONG_EPOCHS)
        return run, {"kills": lives, "kills_after_progress": len(stands) - 1}

    def kill_workers(self, name: str, kills: int, ranks: int) -> tuple[RunFolder, dict[str, Any]]:
        """A long torchrun training one of whose workers is killed now and then: torchrun starts them all again."""
        random = np.random.default_rng(kills)
        words = self.words(name, ranks=ranks, epochs=LONG_EPOCHS, restarts=kills)
        process, done = self.start([*words, "--checkpoint-minutes", str(0.5 / 60)]), 0
        for _ in range(kills):
            time.sleep(1.3 * self.start_seconds + random.uniform(0, LIFE))
            if process.poll() is None and len(workers := children(process.pid)) == ranks:
                os.kill(int(random.choice(workers)), signal.SIGKILL)
                done += 1
        finish(process)
        return RunFolder(self.folder / name / RUN), {"kills": done}


def children(process: int) -> list[int]:
    """Process ids (Linux)."""
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def finish(process: subprocess.Popen[str]) -> None:
    """Waits for a training that must succeed."""
    _, talk = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(process.args)}\n{talk}")  # type: ignore[arg-type]


def compare(run: RunFolder, reference: RunFolder) -> dict[str, Any]:
    """Whether two runs ended in the same bits, else their largest difference relative to a tensor's largest value."""
    own, other = (weights.load(folder.weights_path)[0] for folder in (run, reference))
    assert own.keys() == other.keys()
    difference = max(relative(own[name], other[name]) for name in own)
    identical = run.weights_path.read_bytes() == reference.weights_path.read_bytes()
    return {
        "identical": identical,
        "largest_relative_difference": difference,
        "same_metrics": lines(run) == lines(reference),
    }


def relative(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))


def lines(run: RunFolder) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    return [{name: value for name, value in asdict(line).items() if name not in TIMES} for line in run.metrics()]


SETTINGS: dict[str, dict[str, int]] = {
    "again": {},
    "1 worker": {"workers": 1},
    "4 workers": {"workers": 4},
    "2 micro-batches": {"micro": 2},
    "4 micro-batches": {"micro": 4},
    "2 ranks": {"ranks": 2},
    "4 ranks": {"ranks": 4},
    "2 ranks, 2 micro-batches, 1 worker": {"ranks": 2, "micro": 2, "workers": 1},
}


def table(bench: Bench, reference: RunFolder) -> list[dict[str, Any]]:
    """Each setting against one plain process, after a few dozen steps."""
    rows = []
    for name, options in SETTINGS.items():
        if options.get("ranks", 1) > bench.most_ranks:
            continue
        steps = EPOCHS * IMAGES // BATCH
        row = {"setting": name, "steps": steps, **compare(bench.train(name, **options), reference)}
        rows.append(row)
        show(row)
        sums_alike = "ranks" not in options and "micro" not in options
        tolerance = TOLERANCES.get(bench.precision, math.inf)
        assert row["identical"] if sums_alike else row["largest_relative_difference"] < tolerance, row
    return rows


def growth(bench: Bench) -> list[dict[str, Any]]:
    """How rounding grows with the steps; torch's own, of two threads against one, is the measure of ours."""
    rows = []
    rounded = {"4 micro-batches": {"micro": 4}}
    rounded |= {"one process, 2 threads": {"threads": 2}} if bench.device == "cpu" else {}
    for epochs in (1, 2, 4, 8):
        one = bench.train(f"one{epochs}", epochs=epochs)
        for name, options in rounded.items():
            run = bench.train(f"{name}{epochs}", epochs=epochs, **options)
            row = {"setting": name, "steps": epochs * IMAGES // BATCH, **compare(run, one)}
            rows.append(row)
            show(row)
    return rows


def killed(bench: Bench, kills: int) -> list[dict[str, Any]]:
    """Long runs killed at random moments, and one by torchrun that loses workers."""
    steps = LONG_EPOCHS * LONG_IMAGES // BATCH
    began = time.monotonic()
    whole = bench.train("whole", epochs=LONG_EPOCHS)
    seconds, rows = round(time.monotonic() - began), list[dict[str, Any]]()
    while (left := kills - sum(row["kills"] for row in rows)) > 0:
        run, record = bench.kill_and_resume(f"killed{len(rows)}", min(left, KILLS_A_RUN), len(rows))
        row = {"setting": "killed and resumed", "steps": steps, "seconds_whole": seconds}
        rows.append(row | record | compare(run, whole))
        show(rows[-1])
    if bench.most_ranks > 1:
        two = bench.train("two whole", epochs=LONG_EPOCHS, ranks=2)
        run, record = bench.kill_workers("two killed", 3, ranks=2)
        row = {"setting": "2 ranks, a worker killed, torchrun restarts", "steps": steps}
        rows.append(row | record | compare(run, two))
        show(rows[-1])
    assert all(row["identical"] and row["same_metrics"] for row in rows), rows
    return rows


def main() -> None:
    """All parts, or one whose place in the stored results is renewed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="by SIGKILL, spread over runs of a minute or so")
    parser.add_argument("--part", choices=("table", "growth", "killed"), help="only this one")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    name = "exactness" if options.device == "cpu" else f"exactness-cuda-{options.precision}"
    stored = RESULTS / f"{name}.json"
    results = json.loads(stored.read_text())["results"] if options.part and stored.exists() else {}
    with tempfile.TemporaryDirectory(prefix="exactness") as folder:
        bench = Bench(Path(folder), options.device, options.precision)
        for images in (IMAGES, LONG_IMAGES):
            bench.prepare(images)
        began = time.monotonic()
        reference = bench.train("reference")
        bench.start_seconds = time.monotonic() - began
        if options.part in (None, "table"):
            results["table"] = table(bench, reference)
        if options.part in (None, "growth"):
            results["growth"] = growth(bench)
        if options.part in (None, "killed"):
            results["killed"] = killed(bench, options.kills)
    write(name, results)


def show(row: dict[str, Any]) -> None:
    """A line of the table on stderr."""
    verdict = "identical" if row["identical"] else f"{row['largest_relative_difference']:.1e}"
    kills = f"{row['kills']} kills, " if "kills" in row else ""
    metrics = "the same metrics" if row["same_metrics"] else "metrics within rounding"
    print(f"{row['setting']:<45} {kills}{row['steps']:>5} steps: {verdict:<10} {metrics}", file=sys.stderr)


if __name__ == "__main__":
    main()
