"""Claim: preparing costs time in proportion to the images, and memory that does not depend on them.

python benchmarks/prepare.py [COUNT…]        (1000 10000 100000 generated images by default)

Each COUNT is written as a tar of tars of small JPEGs, as ILSVRC-2012 is downloaded, and prepared by a process of its
own, whose time and peak memory are taken. Preparing nothing but two images a class gives what starting costs.
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from record import write
from scipy.io import savemat

from vggrepro.data.sources import demo

CLASSES = 10


def jpegs(count: int) -> Iterator[bytes]:
    """`count` different small JPEGs: 100 drawn images, each with its number in a comment."""
    drawn = []
    for index in range(100):
        file = io.BytesIO()
        Image.open(io.BytesIO(demo.example(0, "train", index)[1])).convert("RGB").save(file, "JPEG", quality=90)
        drawn.append(file.getvalue())
    for index in range(count):
        data, note = drawn[index % 100], f"{index:08}".encode()
        yield data[:2] + b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note + data[2:]


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Adds a file made of `data`."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_source(folder: Path, count: int) -> None:
    """`count` training and `CLASSES` validation images in the official layout."""
    folder.mkdir()
    wnids = [f"n{number:08}" for number in range(1, 1001)]
    images = jpegs(count + 1000)
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for number, wnid in enumerate(wnids[:CLASSES]):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for index in range(count // CLASSES):
                    add(tar, f"{wnid}_{index}.JPEG", next(images))
            add(outer, f"{wnid}.tar", inner.getvalue())
            print(f"\r{count:,} images: class {number + 1} of {CLASSES} written", end="", file=sys.stderr)
    print(file=sys.stderr)
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as tar:
        for index in range(1, CLASSES + 1):
            add(tar, f"ILSVRC2012_val_{index:08}.JPEG", next(images))
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(float(number), wnid, f"thing {number}", "", 0.0) for number, wnid in enumerate(wnids, 1)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=kind)[:, None]})
    with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        add(tar, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        truth = "".join(f"{index}\n" for index in range(1, CLASSES + 1)).encode()
        add(tar, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth)


def run(source: Path, to: Path) -> tuple[float, float]:
    """Seconds and peak megabytes of `vggrepro prepare` as a process."""
    began = time.perf_counter()
    words = [sys.executable, "-m", "vggrepro", "prepare", str(source), "--to", str(to)]
    child = os.posix_spawn(sys.executable, words, os.environ)
    _, code, usage = os.wait4(child, 0)
    assert code == 0, f"prepare ended with {code}"
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def main() -> None:
    """Prints and stores seconds, images/s and peak memory for each count."""
    counts = [int(text) for text in sys.argv[1:]] or [1000, 10_000, 100_000]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for count in counts:
            write_source(work / f"in{count}", count)
            size = sum(path.stat().st_size for path in (work / f"in{count}").iterdir())
            seconds, peak = run(work / f"in{count}", work / f"out{count}")
            row = {"images": count, "input_mb": round(size / 1e6, 1), "seconds": round(seconds, 2)}
            rows.append(row | {"images_per_second": round(count / seconds), "peak_mb": round(peak)})
    first, last = rows[0], rows[-1]
    slope = (last["seconds"] - first["seconds"]) / max(1, last["images"] - first["images"])
    write("prepare", {"rows": rows, "milliseconds_per_further_image": 1e3 * slope})


if __name__ == "__main__":
    main()
