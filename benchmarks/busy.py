"""Claim: a training on a CPU that others use keeps its share of the processors, where timm's step collapses.

python benchmarks/busy.py [--others 2] [--net D] [--size coarse-narrow] [--rounds 5]

Ours is measured as it is (waiting threads soon sleep, their number follows the load) and as it was before (`ours
spinning`: the libraries' defaults, a thread for each processor), beside timm's step. They step turn by turn, first with
what else runs here, then with so many processes more that only count. Before a turn of ours is timed, it steps for as
long as it needs to see who is busy: while the other contenders have their turns, they are other programs to it. The
rows say how busy the machine was before each part: "others: 0" is a quiet figure only on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from record import write
from train_step import CPU_BATCH, Contender

from vggrepro.system import threads

SPINNING = {"OMP_WAIT_POLICY": "", "KMP_BLOCKTIME": "200", "OMP_NUM_THREADS": str(round(threads.processors()))}
# name: contender of train_step, environment
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "ours": ("ours", {}),
    "ours spinning": ("ours", SPINNING),
    "timm": ("timm", SPINNING),
}
SETTLE = {"ours": 2.2 * threads.SECONDS}  # the first look at the load still sees the others' turns


def busy_processors(seconds: float = 2.0) -> float:
    """How many processors other processes keep busy now."""
    before = threads.Sample.take()
    time.sleep(seconds)
    now = threads.Sample.take()
    assert before and now
    return ((now.all - before.all) - (now.own - before.own)) / (now.moment - before.moment)


def measure(contenders: dict[str, Contender], batch: int, rounds: int, steps: int) -> dict[str, float]:
    """Median images/s of each, turn by turn."""
    for _ in range(rounds):
        for name, contender in contenders.items():
            contender.turn(steps, SETTLE.get(name, 0.0))
    rates = {name: batch / statistics.median(each.seconds[-rounds:]) for name, each in contenders.items()}
    return {name: round(rate, 1) for name, rate in rates.items()}


def main() -> None:
    """Both parts; results/busy.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--others", type=int, default=2)
    parser.add_argument("--net", default="D")
    parser.add_argument("--size", default="coarse-narrow")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of a turn")
    parser.add_argument("--no-store", action="store_true")
    given = parser.parse_args()
    batch, rows = given.batch or CPU_BATCH[given.size], list[dict[str, Any]]()
    os.environ.pop("OMP_NUM_THREADS", None)
    threads.shorten_waits(WAYS["ours"][1])  # as the command line does
    contenders = {
        name: Contender(kind, given.net, given.size, batch, environment) for name, (kind, environment) in WAYS.items()
    }
    others: list[subprocess.Popen[bytes]] = []
    try:
        for count in (0, given.others):
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
            busy = round(busy_processors(), 2)
            rates = measure(contenders, batch, given.rounds, given.steps)
            rows.append({"others": count, "processors_busy_before": busy, "images_per_second": rates})
            print(json.dumps(rows[-1]), file=sys.stderr)
    finally:
        for process in others:
            process.kill()
        for contender in contenders.values():
            contender.end()
    results = {"net": given.net, "size": given.size, "batch": batch, "rows": rows}
    if given.no_store:
        print(json.dumps(results, indent=2))
    else:
        write("busy", results)


if __name__ == "__main__":
    main()
