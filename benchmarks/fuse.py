"""Claim: averaging posteriors takes little longer than reading them, in memory that does not grow with the images.

python benchmarks/fuse.py                (7 nets x 3 Q x 5,000 images x 1000 classes, about a minute)
python benchmarks/fuse.py --full         (7 nets x 3 Q x 50,000 images: 4.2 GB in the temporary folder)

Drawn posteriors are written and read by processes of their own, turn by turn: by pyarrow alone (one file after another,
and in as many threads as there are cores), by `posteriors.means` for the mean of all files, the same for the 50 means
of every file, net, pair of nets and all, and by numpy, which holds all files at once. All must give the same ranks.
Seconds are the work's alone, without starting Python; "cold" takes the files out of the page cache before, "warm" finds
them there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # noqa: F401  (pyarrow imports it at its first conversion: not a part of the work)
import pyarrow.parquet as pq

from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors import means, protocol
from vggrepro.posteriors.files import Origin, Rows

QS = (256, 384, 512)
PART = 256  # images that are drawn, and written as a row group, at a time
BATCH = 1024  # rows that pyarrow alone reads at a time
NAIVE_BYTES = 4  # numpy's way needs about so many times the files


def draw(net: int, q: int, images: int, classes: int) -> list[Rows]:
    """Posteriors that agree in part with the labels and with other nets; the same for each (net, q)."""

    def part(start: int) -> Rows:
        count = min(PART, images - start)
        shared, own = np.random.default_rng(start), np.random.default_rng((start, net, q))
        labels = shared.integers(0, classes, count)
        logits = shared.standard_normal((count, classes), np.float32) * 1.5
        logits += own.standard_normal((count, classes), np.float32)
        logits[np.arange(count), labels] += 6
        values = np.exp(logits - logits.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
        return Rows([f"ILSVRC2012_val_{i:08}.JPEG" for i in range(start, start + count)], labels, values)

    return (part(start) for start in range(0, images, PART))  # type: ignore[return-value]


def write_files(folder: Path, nets: int, images: int, classes: int) -> None:
    """The files of `nets` runs at three Q."""
    for net in range(nets):
        for q in QS:
            made = Origin(
                run=f"net{net}", weights="", dataset="drawn", fingerprint="", preset="paper", split="val",
                method="dense", q=q, q_pixels=q, flip=True, grid=0, pooling="floor", resample="bilinear",
                precision="fp32", version="0", commit="",
            )  # fmt: skip
            path = protocol.file_path(folder / f"net{net}", "val", "dense", q)
            posterior_files.write(path, draw(net, q, images, classes), classes, made)
            print(f"\r{images:,} images: {net * len(QS) + QS.index(q) + 1} files", end="", file=sys.stderr)
    print(file=sys.stderr)


def files_of(folder: Path) -> list[list[Path]]:
    """The files of each net."""
    return [sorted(net.glob("posteriors/*.parquet")) for net in sorted(folder.iterdir())]


def read_one(path: Path) -> int:
    """Plain reading of a file: every column, nothing checked."""
    return sum(len(batch) for batch in pq.ParquetFile(path).iter_batches(BATCH))


def read_threads(paths: list[Path]) -> None:
    """Plain reading of several files at a time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(read_one, paths))


def naive(paths: list[Path]) -> np.ndarray:
    """Ranks under the mean, with all files in memory."""
    tables = [pq.read_table(path) for path in paths]
    rows = [table["posterior"].combine_chunks().flatten().to_numpy().reshape(len(table), -1) for table in tables]
    mean = np.mean(rows, axis=0, dtype=np.float64)
    labels = tables[0]["label"].to_numpy()
    true = mean[np.arange(len(mean)), labels][:, None]
    ties = (mean == true) & (np.arange(mean.shape[1]) < labels[:, None])
    return ((mean > true) | ties).sum(axis=1)


def groups_of(nets: list[list[Path]]) -> list[list[Path]]:
    """Every file, every net, every two nets and all of them: what tables and claims ask for."""
    groups = [[path] for net in nets for path in net] + nets + [a + b for a, b in combinations(nets, 2)]
    return [*groups, [path for net in nets for path in net]]


def child(way: str, nets: list[list[Path]], output: Path) -> dict[str, float]:
    """Does one thing; its seconds, processor seconds and peak megabytes."""
    paths = [path for net in nets for path in net]
    began, worked = time.perf_counter(), time.process_time()
    if way == "read":
        for path in paths:
            read_one(path)
    elif way == "read_threads":
        read_threads(paths)
    elif way == "naive":
        np.save(output, naive(paths))
    else:
        groups = groups_of(nets) if way == "fuse_many" else [paths]
        np.save(output, means.rank_classes(groups).ranks[frozenset(paths)])
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}


def forget(paths: list[Path]) -> None:
    """Takes the files out of the page cache."""
    for path in paths:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: Path, ways: list[str], nets: int, rounds: int, cold: bool = False) -> dict[str, Any]:
    """Medians of each way over the first nets, each call a process; checks that all ranks are the same."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    ranks: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for way in ways:
            if cold:
                forget([path for net in files_of(folder)[:nets] for path in net])
            output = folder.with_name(f"{way}.npy")
            words = [sys.executable, __file__, "--child", way, str(folder), str(nets), str(output)]
            answer = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            found[way].append(answer)
            if not way.startswith("read"):
                ranks[way] = np.load(output)
                np.testing.assert_array_equal(ranks[way], next(iter(ranks.values())))
    names = ("seconds", "cpu_seconds", "peak_mb")
    median = {
        way: {name: statistics.median(one[name] for one in each) for name in names} for way, each in found.items()
    }
    for way in ranks:
        median[way]["times_reading"] = median[way]["seconds"] / median["read"]["seconds"]
        median[way]["times_threaded_reading"] = median[way]["seconds"] / median["read_threads"]["seconds"]
        median[way]["times_reading_cpu"] = median[way]["cpu_seconds"] / median["read"]["cpu_seconds"]
    result: dict[str, Any] = {
        way: {name: round(value, 2) for name, value in values.items()} for way, values in median.items()
    }
    result["load"] = round(os.getloadavg()[0], 1)  # of the machine: with more than its cores, trust processor seconds
    return result


def main() -> None:
    """Prints and stores seconds, ratios and peak memory, and their growth with nets and images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--nets", type=int, default=7)
    parser.add_argument("--images", type=int)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=4, metavar="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        way, folder, nets, output = given.child
        print(json.dumps(child(way, files_of(Path(folder))[: int(nets)], Path(output))))
        return
    from record import write  # here, since it imports torch, which the processes that are measured do not need

    images = given.images or (50_000 if given.full else 5000)
    reading, ours = ["read", "read_threads"], ["fuse", "fuse_many"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "runs"
        write_files(folder, given.nets, images, given.classes)
        size = sum(path.stat().st_size for net in files_of(folder) for path in net)
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        ways = reading + ours + (["naive"] if NAIVE_BYTES * size < available else [])
        result = {"nets": given.nets, "files": given.nets * len(QS), "images": images, "classes": given.classes}
        result |= {"gigabytes": round(size / 1e9, 2)}
        result["warm"] = measure(folder, ways, given.nets, given.rounds)
        result["cold"] = measure(folder, reading + ours, given.nets, given.rounds, cold=True)
        result["by_nets"] = {nets: measure(folder, [*reading, "fuse"], nets, 1) for nets in (1, 3) if nets < given.nets}
    result["by_images"] = {}
    for part in (images // 4, images // 2):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "runs"
            write_files(folder, given.nets, part, given.classes)
            result["by_images"][part] = measure(folder, [*reading, "fuse"], given.nets, 1)
    write("fuse-full" if given.full else "fuse", result)


if __name__ == "__main__":
    main()
