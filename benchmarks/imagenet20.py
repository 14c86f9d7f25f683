"""Builds imagenet-20, photographs of 20 classes, from imagenette and imagewoof as fast.ai publishes them.

python benchmarks/imagenet20.py imagenette2 imagewoof2 photos     (then: vggrepro prepare photos --preset quarter)

The images are those that tables/imagenet-20/images.parquet names: ten classes of imagenette (unlike objects) and ten of
imagewoof (dog breeds), 18,162 for training and 6,491 for validation, without 21 near duplicates. Each photograph is
squashed to a square of 224 pixels and then reduced to 128, as the set behind the committed tables was; its JPEG files
are not the same to the byte, so errors may differ a little. ImageNet's terms (non-commercial research) hold for the
photographs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from vggrepro.errors import InputError
from vggrepro.system.files import atomic
from vggrepro.system.progress import Track, say

LIST = Path(__file__).parents[1] / "tables" / "imagenet-20" / "images.parquet"
SQUASHED, SIDE = 224, 128  # pixels
QUALITY = 84  # of the JPEG files


def build(sources: list[Path], to: Path, names: Path = LIST) -> int:
    """Writes `to`/train/<wnid>/<file> and `to`/val/…; gives the number of images. Files that are there are kept.

    Args:
        sources: the unpacked folders, each with train/<wnid> and val/<wnid>.
        to: the folder of the new set.
        names: the list: columns split, wnid, file.

    Raises:
        InputError: a listed image is in none of the folders, or is no image.
    """
    wanted = pq.read_table(names).to_pylist()
    found = [_find(sources, f"{row['split']}/{row['wnid']}/{row['file']}") for row in wanted]
    with Track(f"build {to}", len(wanted)) as track:
        for row, path in zip(wanted, found, strict=True):
            target = to / row["split"] / row["wnid"] / row["file"]
            if not target.is_file():
                _reduce(path, target)
            track.advance(1)
    return len(wanted)


def _find(sources: list[Path], name: str) -> Path:
    for source in sources:
        if (path := source / name).is_file():
            return path
    folders = ", ".join(map(str, sources))
    raise InputError(f"{name} is not in {folders}; give imagenette2 and imagewoof2 as unpacked from their archives")


def _reduce(path: Path, target: Path) -> None:
    """Squashes a photograph to a square and reduces it."""
    try:
        with Image.open(path) as image:
            square = image.convert("RGB").resize((SQUASHED, SQUASHED), Image.Resampling.BILINEAR)
    except OSError as error:
        raise InputError(f"{path} is no readable image ({error}); unpack its archive again") from None
    with atomic(target) as temporary:
        square.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(temporary, format="JPEG", quality=QUALITY)


def main() -> None:
    """Reads the folders from the command line."""
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    *sources, to = map(Path, sys.argv[1:])
    try:
        count = build(sources, to)
    except InputError as error:
        say(f"imagenet20: {error}")
        sys.exit(2)
    say(f"{to}: {count:,} images; errors may differ a little from the committed tables, whose JPEG files are others")


if __name__ == "__main__":
    main()
