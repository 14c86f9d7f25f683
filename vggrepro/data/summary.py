"""What a prepared data set holds: counts, class balance, sizes, formats; its checksums; a sheet of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from vggrepro.data.dataset import DATASET_JSON, Dataset, Split, left_out, turned
from vggrepro.data.images import ordered
from vggrepro.data.rescaling import centre_window, cut
from vggrepro.errors import InputError
from vggrepro.system.files import atomic, read_json, sha256
from vggrepro.system.progress import Track

SHEET_CLASSES, SHEET_IMAGES = 12, {"train": 6, "val": 3}  # rows, columns
THUMBNAIL, SIDE, CAPTION, HEADER, GAP = 112, 114, 168, 22, 12  # pixels
# Oddities of the official files, by format and colour mode; one of the training images is a PNG under a JPEG's name.
KNOWN_KINDS = {"train": {"JPEG CMYK": 22, "PNG": 1}, "val": {"JPEG CMYK": 1}}


def splits_table(dataset: Dataset) -> pd.DataFrame:
    """A row for each split: images, classes with images, images of a class, shorter side, aspect ratio, megabytes."""
    rows = []
    for name in [name for name, count in dataset.counts.items() if count]:
        split = Split(dataset, name)
        shorter, longer = np.minimum(split.widths, split.heights), np.maximum(split.widths, split.heights)
        known = split.labels[split.labels >= 0]
        balance = np.bincount(known, minlength=len(dataset.classes))
        size = sum(path.stat().st_size for path in dataset.folder.glob(f"{name}-*.arrow"))
        rows.append(
            {
                "split": name,
                "images": len(split),
                "classes": int((balance > 0).sum()),
                "a class": _spread(balance[balance > 0]) if len(known) else "unlabelled",
                "shorter side": _spread(shorter),
                "long:short": _spread(longer / shorter),
                "MB": f"{size / 1e6:,.1f}",
            }
        )
    return pd.DataFrame(rows)


def _spread(values: np.ndarray) -> str:
    """`least–median–greatest`."""
    numbers = (values.min(), np.median(values), values.max())
    return "–".join(f"{number:,.2f}".rstrip("0").rstrip(".") for number in numbers)


def notes(dataset: Dataset) -> list[str]:
    """Lines about the data set as a whole: storage, formats, what was left out, how it compares to the official one."""
    about = read_json(dataset.folder / DATASET_JSON)
    lines = [f"{dataset.folder}: {dataset.name}, {len(dataset.classes)} classes, preset {dataset.preset}"]
    if dataset.subset:
        lines.append(f"a subset: {dataset.subset}")
    if not dataset.trainable:
        lines.append("no training images (--val-only): mean and covariance are the validation images'; for evaluation")
    if side := dataset.store_side:
        stored = about["stored_as"]
        how = f"JPEG quality {stored['quality']}, colour {stored['subsampling']}"
        lines.append(f"training images: of shorter side {side} at most, larger ones as copies ({how})")
    else:
        lines.append("images: the original files' bytes")
    kinds: dict[str, dict[str, int]] = about.get("kinds", {})
    for split, found in kinds.items():
        lines.append(f"{split} formats: " + ", ".join(f"{count:,} {kind}" for kind, count in found.items()))
    if dataset.name == "imagenet" and not dataset.subset:
        lines += [line for split, found in kinds.items() if (line := _against_official(split, found))]
    bad: list[str] = about.get("bad", [])
    lines += filter(None, [turned(about), left_out(about)])
    lines += [f"  {line}" for line in bad]
    return lines


def _against_official(split: str, found: dict[str, int]) -> str:
    def count(kind: str) -> int:
        return sum(number for name, number in found.items() if name.startswith(kind))

    differ = [
        f"{count(kind)} {kind} (official: {number})"
        for kind, number in KNOWN_KINDS.get(split, {}).items()
        if count(kind) != number
    ]
    return f"{split} differs from the official files: {', '.join(differ)}" if differ else ""


def verify(dataset: Dataset, workers: int) -> int:
    """Reads every shard and compares it with the SHA-256 that `prepare` took; gives the number of shards.

    Raises:
        InputError: a shard is missing or differs, or the data set has no checksums.
    """
    recorded: dict[str, dict[str, Any]] = read_json(dataset.folder / DATASET_JSON).get("shards", {})
    if not recorded:
        raise InputError(f"{dataset.folder / DATASET_JSON} holds no checksums; prepare the data set again to have them")
    paths = [dataset.folder / name for name in recorded]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} is missing; prepare the data set again")
    with Track("verify", sum(path.stat().st_size for path in paths) >> 20, "MB") as track:
        for path, found in zip(paths, ordered(sha256, paths, workers, workers), strict=True):
            if found != recorded[path.name]["sha256"]:
                raise InputError(
                    f"{path} is not as 'prepare' wrote it (its SHA-256 differs from the recorded one): damaged or "
                    "changed; prepare the data set again"
                )
            track.advance(path.stat().st_size >> 20)
    return len(paths)


def sheet(dataset: Dataset, path: Path) -> None:
    """Writes a PNG of sample images: a row for each of up to twelve classes, evenly spaced in the class list.

    Training images on the left, validation images on the right, so that a wrong class order shows; without training
    images, validation images in all columns.

    Raises:
        InputError: `path` is a folder.
    """
    if path.is_dir():
        raise InputError(f"--sheet {path} is a folder; give the name of a file to write, such as {path / 'sheet.png'}")
    columns = SHEET_IMAGES if dataset.trainable else {"val": sum(SHEET_IMAGES.values())}
    splits = {split: Split(dataset, split) for split in columns}
    first = splits[dataset.statistics]
    present = np.unique(first.labels)
    chosen = _evenly(present, SHEET_CLASSES)
    font = _font()
    width = CAPTION + sum(columns.values()) * SIDE + GAP
    canvas = Image.new("RGB", (width, HEADER + len(chosen) * SIDE), "white")
    draw = ImageDraw.Draw(canvas)
    left = CAPTION
    for name, split in splits.items():
        draw.text((left, 4), name, fill="black", font=font)
        for row, label in enumerate(chosen.tolist()):
            rows = np.flatnonzero(split.labels == label)
            for column, index in enumerate(_evenly(rows, columns[name]).tolist()):
                image = split.image(index)
                pixels = cut(image, centre_window(*image.size, THUMBNAIL, THUMBNAIL))
                canvas.paste(Image.fromarray(pixels), (left + column * SIDE, HEADER + row * SIDE))
        left += columns[name] * SIDE + GAP
    for row, label in enumerate(chosen.tolist()):
        name, words = dataset.classes[label], dataset.words[label]
        count = int((first.labels == label).sum())
        caption = [f"{label}: {name}", *([words.split(",")[0]] if words != name else [])]
        caption.append(f"{count:,} image{'s' if count != 1 else ''}")
        fitted = "\n".join(_shortened(line, draw, font) for line in caption)
        draw.multiline_text((4, HEADER + row * SIDE + THUMBNAIL // 2 - 22), fitted, fill="black", font=font)
    with atomic(path) as temporary:
        canvas.save(temporary, "PNG")


def _evenly(values: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the values, evenly spaced."""
    return values[np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)]


def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Latin, Greek and Cyrillic letters."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 12)


def _shortened(line: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont) -> str:
    room = CAPTION - 8
    if draw.textlength(line, font=font) <= room:
        return line
    while draw.textlength(line + "…", font=font) > room:
        line = line[:-1]
    return line + "…"
