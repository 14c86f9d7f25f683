"""ILSVRC-2012 in miniature: 1000 classes, images of six, in the layouts that people have."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
from examples import jpeg
from scipy.io import savemat

from vggrepro.data import synsets
from vggrepro.data.sources import devkit

WNIDS = ("n01440764", "n01443537", "n02119789", "n03888257", "n04557648", "n15075141")
TRUTH = (4, 0, 5, 1, 2, 3, 0)  # of the validation images, by position in WNIDS
Listed = list[tuple[str, bytes]]
# Numbers are not in the order of names: n01440764_10.JPEG comes before n01440764_2.JPEG.
TRAIN = {w: [(f"{w}_{n}.JPEG", jpeg(i, n, size=(24, 20))) for n in (2, 10, 7)] for i, w in enumerate(WNIDS)}
VAL = [(f"ILSVRC2012_val_{n:08}.JPEG", jpeg(i, 50 + n, size=(24, 20))) for n, i in enumerate(TRUTH, 1)]
TEST = [(f"ILSVRC2012_test_{n:08}.JPEG", jpeg(n, 80 + n, size=(24, 20))) for n in (1, 2, 3)]


def tar_bytes(files: Listed) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def meta_mat(known: list[synsets.Synset], order: str = "as published") -> bytes:
    """`meta.mat` of these leaves and some synsets above them; fields in any order."""
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children"]
    rows = [(synset.id, synset.wnid, synset.words, "gloss", 0) for synset in sorted(known)]
    rows += [(len(known) + 1 + n, f"n0000000{n}", "entity", "gloss", 2) for n in range(3)]
    if order == "reversed":
        fields, rows = fields[::-1], [row[::-1] for row in rows]
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": np.array(rows, dtype=[(name, object) for name in fields])[:, None]})
    return buffer.getvalue()


META = meta_mat(list(synsets.table().values()))


def truth_text(truth: tuple[int, ...] = TRUTH) -> bytes:
    return "\n".join(str(synsets.table()[WNIDS[i]].id) for i in truth).encode()


def devkit_tar(meta: bytes = META, truth: bytes | None = None) -> bytes:
    files = [
        ("readme.txt", b"x"),
        (devkit.META, meta),
        (devkit.TRUTH, truth_text() if truth is None else truth),
    ]
    return gzip.compress(tar_bytes([(f"{devkit.FOLDER}/{name}", data) for name, data in files]), 1)


def train_tar(folders: dict[str, Listed] = TRAIN) -> bytes:
    return tar_bytes([(f"{wnid}.tar", tar_bytes(files)) for wnid, files in folders.items()])


def write(folder: Path, files: Listed) -> None:
    for name, data in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def by_class(folder: Path, split: str) -> None:
    """`<split>/<wnid>/`, all six classes."""
    for wnid in WNIDS:
        files = TRAIN[wnid] if split == "train" else [VAL[n] for n, i in enumerate(TRUTH) if WNIDS[i] == wnid]
        write(folder / split / wnid, files)


def put(folder: Path, *parts: str) -> Path:
    """Lays the named parts out in a folder."""
    kaggle = folder / "ILSVRC" / "Data" / "CLS-LOC"
    for part in parts:
        match part:
            case "train.tar":
                write(folder, [("ILSVRC2012_img_train.tar", train_tar())])
            case "val.tar":
                write(folder, [("ILSVRC2012_img_val.tar", tar_bytes([("./._x.JPEG", b""), *reversed(VAL)]))])
            case "test.tar":
                files = [(f"test/{name}", data) for name, data in TEST]
                write(folder, [("ILSVRC2012_img_test_v10102019.tar", tar_bytes(files))])
            case "devkit.tar.gz":
                write(folder, [(devkit.TAR, devkit_tar())])
            case "devkit/":
                write(folder / devkit.FOLDER, [(devkit.META, META), (devkit.TRUTH, truth_text() + b"\r\n")])
            case "train/<wnid>.tar":
                write(folder / "train", [(f"{wnid}.tar", tar_bytes(files)) for wnid, files in TRAIN.items()])
            case "train half":
                write(folder / "train", [(f"{wnid}.tar", tar_bytes(TRAIN[wnid])) for wnid in WNIDS[2:]])
                for wnid in WNIDS[:3]:
                    write(folder / "train" / wnid, TRAIN[wnid][: None if wnid != WNIDS[2] else 1])
            case "train/<wnid>/" | "val/<wnid>/":
                by_class(folder, part.split("/")[0])
            case "val half":
                by_class(folder, "val")
                for path in (folder / "val").glob("*/*0[13].JPEG"):
                    path.rename(folder / "val" / path.name)
            case "val/" | "test/":
                write(folder / part, VAL if part == "val/" else TEST)
                write(folder / part, [("._x.JPEG", b""), ("notes.txt", b"")])
            case "kaggle":
                put(kaggle, "train/<wnid>/", "val/", "test/")
                boxes = [f"{WNIDS[i]} 1 2 3 4 {WNIDS[i]} 5 6 7 8" for i in TRUTH]
                lines = [f"{name[:-5]},{text}" for (name, _), text in zip(VAL, boxes, strict=True)]
                text = "\n".join(["ImageId,PredictionString", *reversed(lines)])
                write(folder, [(devkit.SOLUTION, text.encode()), ("LOC_synset_mapping.txt", b"n01440764 tench")])
            case _:
                raise AssertionError(part)
    return folder


LAYOUTS = {
    "as downloaded": ("train.tar", "val.tar", "test.tar", "devkit.tar.gz"),
    "flat val": ("train/<wnid>/", "val/", "test/", "devkit.tar.gz"),
    "flat val, unpacked devkit": ("train/<wnid>/", "val/", "test.tar", "devkit/"),
    "val by class": ("train/<wnid>/", "val/<wnid>/", "test/", "devkit.tar.gz"),
    "inner tars": ("train/<wnid>.tar", "val.tar", "test/", "devkit/"),
    "half unpacked": ("train half", "val half", "test.tar", "devkit.tar.gz"),
    "train folder, val tar": ("train/<wnid>/", "val.tar", "test.tar", "devkit.tar.gz"),
    "train tar, val folder": ("train.tar", "val/", "test.tar", "devkit/"),
    "both": ("train.tar", "train/<wnid>/", "val.tar", "val/", "test.tar", "test/", "devkit.tar.gz", "devkit/"),
    "kaggle": ("kaggle",),
}
