"""Time and memory of `fuse --search`: planted posteriors of nets that err alike, all subsets of them.

python benchmarks/search.py
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from record import write

from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors import means
from vggrepro.posteriors.files import Origin, Rows
from vggrepro.results import ensembles

BATCH, SIGNAL = 500, 7.0
SIZES = ((12, 5000, 100), (12, 2000, 1000))  # nets, images, classes: the demo's kind, and ILSVRC's with fewer images
ORIGIN = Origin("run", "weights", "data", "print", "paper", "val", "dense", 256, 256, True, 0, "floor", "bilinear",
                "fp32", "0", "commit")  # fmt: skip


def batches(labels: np.ndarray, classes: int, net: int, q: int) -> Iterator[Rows]:
    """Soft-max of noise that all nets, this net and this Q share, and a signal at the true class."""
    for start in range(0, len(labels), BATCH):
        part = labels[start : start + BATCH]
        scores = np.zeros((len(part), classes))
        for seed, spread in (([1, start], 1.6), ([2, start, net], 1.0), ([3, start, net, q], 0.4)):
            scores += np.random.default_rng(seed).normal(0, spread, scores.shape)
        scores[np.arange(len(part)), part] += SIGNAL
        values = np.exp(scores - scores.max(1, keepdims=True))
        keys = [f"ILSVRC2012_val_{start + row:08}.JPEG" for row in range(len(part))]
        yield Rows(keys, part, values / values.sum(1, keepdims=True))


def measure(nets: int, images: int, classes: int) -> dict[str, Any]:
    """One search over all subsets, after a first reading of the files."""
    labels = np.random.default_rng(0).integers(0, classes, images).astype(np.int32)
    every = [subset for size in range(1, nets + 1) for subset in combinations(range(nets), size)]
    with tempfile.TemporaryDirectory() as folder:
        files = [[Path(folder) / f"{net}" / f"val-dense-q{q}.parquet" for q in range(3)] for net in range(nets)]
        for net, paths in enumerate(files):
            for q, path in enumerate(paths):
                posterior_files.write(path, batches(labels, classes, net, q), classes, ORIGIN)
        for _ in means.sums(files):
            pass
        counter = ensembles.ErrorCounter(files)
        began, worked = time.perf_counter(), time.process_time()
        counter.count(every)
        result: dict[str, Any] = {"nets": nets, "images": images, "classes": classes, "files": 3 * nets}
        result |= {"subsets": len(every), "seconds": round(time.perf_counter() - began, 2)}
        result |= {"processor_seconds": round(time.process_time() - worked, 2)}
    result["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    errors = [float(counter.record((net,), "x" * nets)["all_top1_val_error"]) for net in range(nets)]
    return result | {"errors_of_single_nets": errors}


def main() -> None:
    """All sizes."""
    write("search", [measure(*size) for size in SIZES])


if __name__ == "__main__":
    main()
