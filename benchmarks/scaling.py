"""Claim: two processes with a core each train about as fast as one with both, their sums made during the backward pass.

python benchmarks/scaling.py [SIZE] [BATCH]      (`quarter-narrow` and 64: net D, crop 56, a quarter of the width)

Each arrangement trains the same global batch, in processes of its own, again and again in turn. The least disturbed
turn counts: other work on the machine only adds. Overlapping is compared with one message after the backward pass.

python benchmarks/scaling.py --plan [TFLOPS]     the tables of docs/scaling.md, from a GPU's measured matrix rate
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from record import write
from train_step import clocks, ours

from vggrepro import paper
from vggrepro.nets import cost
from vggrepro.paper import Architecture
from vggrepro.system import processes

STEPS, TURNS = 10, 2
ARRANGEMENTS = {  # processes, threads each, overlapped
    "1 process, 1 thread": (1, 1, True),
    "1 process, 2 threads": (1, 2, True),
    "2 processes, 1 thread each, one message after backward": (2, 1, False),
    "2 processes, 1 thread each, overlapped": (2, 1, True),
}


def worker(size: str, batch: int, overlapped: bool) -> None:
    """One process's part; the first prints the seconds of the quickest step."""
    import torch

    device = torch.device("cpu")
    processes.join_processes(device)
    if not overlapped:
        processes.LARGE = sys.maxsize
    step = ours("ours", "D", size, batch)
    step()
    steps = []
    for _ in range(STEPS):
        processes.barrier()
        before = clocks()
        step()
        processes.barrier()
        steps.append([now - then for now, then in zip(clocks(), before, strict=True)])
    if processes.is_first():
        wall, busy = (min(column) for column in zip(*steps, strict=True))
        print(json.dumps({"seconds": wall, "cpu_seconds": busy}))
    processes.leave_processes()


def run(size: str, batch: int, processes: int, threads: int, overlapped: bool) -> dict[str, float]:
    """An arrangement's quickest step."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), __file__, "--worker", size, str(batch)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OVERLAPPED": str(int(overlapped))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# The plan: assumptions for H200s. Replace the first by what train_step.py measures.
MATRIX_RATE = 750e12  # bf16 FLOPs/s of a large product (989 on paper)
SHARE = 0.55  # of it that a step reaches on one GPU
MEMORY = 3.8e12  # bytes/s of the GPU's own memory (4.8 on paper)
NVLINK, NETWORK = 350e9, 50e9  # bytes/s of a GPU to its node's others (450), to other nodes (400 Gbit/s)
NODE = 8  # GPUs
BATCH, STEPS_A_RUN = 256, 370_000


def step_seconds(net: str, gpus: int, rate: float, overlapped: bool = True, number: int = 4) -> float:
    """A step at batch 256 spread over GPUs: arithmetic / n + update + the part of the sums that nothing hides.

    Args:
        net: of Table 1.
        gpus: n.
        rate: FLOPs/s of one.
        overlapped: sums travel during backward, two thirds of the arithmetic; else after it, with two copies.
        number: bytes of a gradient's element on its way.
    """
    parameters = Architecture(net).parameters
    update = 24 * parameters / MEMORY  # weight, momentum and gradient read, two of them written, and the norm's reading
    arithmetic = BATCH * cost.training_flops(Architecture(net)) / rate - update  # `rate` is that of whole steps
    size, local = number * parameters, min(gpus, NODE)
    nodes = gpus // local
    message = 2 * (local - 1) / local * size / NVLINK + 2 * (nodes - 1) / nodes * size / local / NETWORK
    late = max(0.05 * message, message - 2 / 3 * arithmetic / gpus)  # the last bucket has nothing to hide behind
    exposed = late if overlapped else message + 4 * size / MEMORY
    return arithmetic / gpus + update + (exposed if gpus > 1 else 0.0)


def plan(rate: float) -> None:
    """Prints efficiency by number of GPUs, and the cost of the whole paper."""
    alone = step_seconds("D", 1, rate)
    print("| GPUs | images each | ms a step, sums after backward | speed-up | ms, overlapped | speed-up | efficiency |")
    print("|---|---|---|---|---|---|---|")
    for gpus in (1, 2, 4, 8, 16, 32, 64):
        after, beside = (step_seconds("D", gpus, rate, overlapped) for overlapped in (False, True))
        columns = [gpus, BATCH // gpus, f"{1e3 * after:.1f}", f"{alone / after:.2f}", f"{1e3 * beside:.1f}"]
        print(f"| {' | '.join(map(str, columns))} | {alone / beside:.2f} | {100 * alone / beside / gpus:.0f} % |")
    print()
    print("| run | million images | PFLOPs | hours on 1 | on 4 | on 8 | images/s on 8 |")
    print("|---|---|---|---|---|---|---|")
    hours: dict[str, dict[int, float]] = {}
    images = STEPS_A_RUN * BATCH
    runs = [run for run in paper.all_runs() if run != paper.SHALLOW]  # those of Tables 3-6
    for run in runs:
        flops = cost.training_flops(Architecture(run.net), fc_only=run.fc_only)
        part = flops / cost.training_flops(Architecture(run.net))
        hours[run.name] = {n: part * STEPS_A_RUN * step_seconds(run.net, n, rate) / 3600 for n in (1, 4, 8)}
        speed = images / hours[run.name][8] / 3600
        columns = [run.name, f"{images / 1e6:.1f}", f"{flops * images / 1e15:,.0f}"]
        columns += [f"{value:.1f}" if value >= 1 else f"{value:.2f}" for value in hours[run.name].values()]
        print(f"| {' | '.join(columns)} | {speed:,.0f} |")
    total = {n: sum(run[n] for run in hours.values()) for n in (1, 4, 8)}
    flops = sum(cost.training_flops(Architecture(run.net), fc_only=run.fc_only) * images for run in runs)
    columns = [
        "all",
        f"{images * len(hours) / 1e6:,.0f}",
        f"{flops / 1e15:,.0f}",
        *(f"{v:.1f}" for v in total.values()),
    ]
    print(f"| {' | '.join(columns)} | |")
    critical = max(sum(hours[run.name][8] for run in paper.chain(end)) for end in runs)
    print(f"\n64 GPUs as 8 groups of 8, runs beside each other: at least {critical:.1f} hours, the longest chain.")


def main() -> None:
    """All arrangements in turn."""
    words = sys.argv[1:]
    if words[:1] == ["--plan"]:
        plan(SHARE * (float(words[1]) * 1e12 if words[1:] else MATRIX_RATE))
        return
    if words[:1] == ["--worker"]:
        worker(words[1], int(words[2]), os.environ["OVERLAPPED"] == "1")
        return
    size, batch = words[0] if words else "quarter-narrow", int(words[1]) if words[1:] else 64
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in ARRANGEMENTS}
    for _ in range(TURNS):
        for name, (count, threads, overlapped) in ARRANGEMENTS.items():
            turns[name].append(run(size, batch, count, threads, overlapped))
    best = {name: min(turn["seconds"] for turn in found) for name, found in turns.items()}
    rows: list[dict[str, Any]] = [
        {
            "arrangement": name,
            "images_per_second": round(batch / best[name], 1),
            "over_1_thread": round(best["1 process, 1 thread"] / best[name], 2),
            "cpu_ms_a_step_and_process": round(1e3 * min(turn["cpu_seconds"] for turn in turns[name]), 1),
        }
        for name in ARRANGEMENTS
    ]
    write("scaling", {"net": "D", "size": size, "batch": batch, "rows": rows})


if __name__ == "__main__":
    main()
