"""Photographs for benchmarks: those of a folder, or drawn ones of the usual sizes, and a data set made of them."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from vggrepro.data.dataset import DATASET_JSON, SCHEMA, Dataset, load
from vggrepro.data.images import decode
from vggrepro.system.files import write_json

SIZES = (
    (500, 375),
    (500, 333),
    (375, 500),
    (500, 375),
    (500, 400),
    (333, 500),
    (500, 375),
    (400, 300),
)  # width, height
MEAN = (123.68, 116.779, 103.939)


def photographs(folder: Path, count: int) -> list[bytes]:
    """The first image files of a folder or of the validation tar in it."""
    tar = folder / "ILSVRC2012_img_val.tar"
    if tar.is_file():
        with tarfile.open(tar) as file:
            members = [file.extractfile(member) for member in list(file)[:count]]
            return [member.read() for member in members if member]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        sys.exit(f"--photos {folder}: no *.jpg, *.jpeg or ILSVRC2012_img_val.tar there; give a folder of photographs")
    return [path.read_bytes() for path in paths[:count]]


def drawn(count: int) -> list[bytes]:
    """JPEG files of coloured waves under noise, about as large as photographs of these sizes."""
    files = []
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        random = np.random.default_rng(number)
        y, x = np.mgrid[0:height, 0:width] / 40
        waves = np.stack([np.sin(x * a + b) * np.cos(y * b + a) for a, b in random.uniform(0.3, 2, (3, 2))], 2)
        pixels = 128 + 70 * waves + random.normal(0, 10, waves.shape)
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def make_dataset(folder: Path, images: list[bytes], classes: int) -> Dataset:
    """A prepared data set whose `val` are these images, with labels that mean nothing."""
    folder.mkdir()
    sizes = [decode(image).size for image in images]
    columns: list[Any] = [
        [f"{number:05}.jpg" for number in range(len(images))],
        [number % classes for number in range(len(images))],
        images,
    ]
    columns += [[width for width, _ in sizes], [height for _, height in sizes]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    with pa.OSFile(str(folder / "val-00000.arrow"), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
    about: dict[str, Any] = {"name": "photographs", "classes": [str(k) for k in range(classes)], "mean_rgb": MEAN}
    about |= {"counts": {"val": len(images)}, "rgb_eigenvectors": np.eye(3).tolist(), "rgb_eigenvalues": [3, 2, 1]}
    write_json(folder / DATASET_JSON, about | {"preset": "paper", "fingerprint": "photographs"})
    return load(folder)
