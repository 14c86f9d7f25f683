"""What a data set holds: counts and sizes against the photographs, checksums against a flipped byte, the sheet."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vggrepro.data import summary
from vggrepro.data.dataset import Dataset, Split
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import FolderSource
from vggrepro.errors import InputError


def test_counts_and_sizes(dataset: Dataset) -> None:
    table = summary.splits_table(dataset).set_index("split")
    assert table["images"].to_dict() == {"train": 30, "val": 18}
    assert table["classes"].to_list() == [6, 6]
    assert table.loc["train", "a class"] == "5–5–5"
    assert table.loc["train", "shorter side"] == "50–69.5–80"
    assert table.loc["val", "long:short"] == "1–1.64–3"


def test_notes_name_formats_and_what_was_left_out(photos: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(photos, tmp_path / "photos"))
    Image.open(own / "train" / "ant" / "0.jpg").save(own / "train" / "ant" / "0.png")
    Image.open(own / "train" / "ant" / "1.jpg").convert("L").save(own / "train" / "ant" / "1.jpg")
    Image.open(own / "val" / "ant" / "1.jpg").convert("CMYK").save(own / "val" / "ant" / "1.jpg")
    (own / "val" / "bee" / "0.jpg").write_bytes(b"no image")
    lines = summary.notes(prepare(FolderSource(own), tmp_path / "data", "demo", skip_bad=True, workers=0))
    assert lines[0] == f"{tmp_path / 'data'}: photos, 6 classes, preset demo"
    assert "images: the original files' bytes" in lines
    assert "train formats: 1 JPEG L, 29 JPEG RGB, 1 PNG RGB" in lines
    assert "val formats: 1 JPEG CMYK, 16 JPEG RGB" in lines
    assert lines[-2:] == ["left out 1 unreadable", f"  {own}/val/bee/0.jpg (not an image)"]
    small = prepare(FolderSource(photos), tmp_path / "small", "coarse", store_side=73, workers=0)
    line = "training images: of shorter side 73 at most, larger ones as copies (JPEG quality 95, colour 4:2:0)"
    assert line in summary.notes(small)


def test_the_official_oddities_are_counted(dataset: Dataset) -> None:
    """22 CMYK images and one PNG are among ImageNet's training images."""
    path = dataset.folder / "dataset.json"
    about = json.loads(path.read_text())
    about["kinds"] = {"train": {"JPEG CMYK": 20, "JPEG RGB": 7, "PNG RGBA": 1}, "val": {"JPEG CMYK": 1}}
    path.write_text(json.dumps(about))
    lines = summary.notes(replace(dataset, name="imagenet"))
    assert "train differs from the official files: 20 JPEG CMYK (official: 22)" in lines
    assert not any(line.startswith("val differs") for line in lines)
    assert not any("differs" in line for line in summary.notes(dataset))


@pytest.mark.parametrize("place", [0.01, 0.5, 0.99])
def test_a_flipped_byte_is_found(dataset: Dataset, place: float) -> None:
    assert summary.verify(dataset, workers=2) == 2
    shard = dataset.folder / "val-00000.arrow"
    data = bytearray(shard.read_bytes())
    data[int(place * len(data))] ^= 1
    shard.write_bytes(data)
    with pytest.raises(
        InputError, match=r"val-00000\.arrow is not as 'prepare' wrote it .* prepare the data set again"
    ):
        summary.verify(dataset, workers=0)
    shard.unlink()
    with pytest.raises(InputError, match=r"val-00000\.arrow is missing"):
        summary.verify(dataset, workers=0)


def test_a_data_set_without_checksums_says_so(dataset: Dataset) -> None:
    path = dataset.folder / "dataset.json"
    about = json.loads(path.read_text())
    del about["shards"]
    path.write_text(json.dumps(about))
    with pytest.raises(InputError, match="holds no checksums; prepare the data set again"):
        summary.verify(dataset, workers=0)


def test_the_sheet_shows_images_of_each_class(dataset: Dataset, tmp_path: Path) -> None:
    words = ("an exceedingly long name of a small insect", "пчела", *dataset.words[2:])
    summary.sheet(replace(dataset, words=words), tmp_path / "s")
    with Image.open(tmp_path / "s") as image:
        assert image.format == "PNG"
        pixels = np.asarray(image)
    side, caption, top = summary.SIDE, summary.CAPTION, summary.HEADER
    assert pixels.shape == (top + 6 * side, caption + 9 * side + summary.GAP, 3)
    for row in range(6):
        own = pixels[top + row * side : top + (row + 1) * side]
        assert (own[:, :caption] < 128).any()  # a caption
        starts = [caption + column * side for column in range(5)]  # of five training images in six columns
        starts += [caption + 6 * side + summary.GAP + column * side for column in range(3)]
        assert all(own[: summary.THUMBNAIL, start : start + summary.THUMBNAIL].std() > 5 for start in starts)
        assert (own[:, caption + 5 * side : caption + 6 * side] == 255).all()
    with pytest.raises(InputError, match="is a folder; give the name of a file to write"):
        summary.sheet(dataset, tmp_path)


def test_a_sheet_of_validation_images_alone(photos: Path, tmp_path: Path) -> None:
    dataset = prepare(FolderSource(photos, val_only=True), tmp_path / "data", "demo", workers=0)
    assert summary.notes(dataset)[1] == (
        "no training images (--val-only): mean and covariance are the validation images'; for evaluation"
    )
    assert summary.splits_table(dataset)["split"].to_list() == ["val"]
    summary.sheet(dataset, tmp_path / "s.png")
    pixels = np.asarray(Image.open(tmp_path / "s.png"))
    side, caption, top = summary.SIDE, summary.CAPTION, summary.HEADER
    for row in range(6):
        own = pixels[top + row * side : top + row * side + summary.THUMBNAIL]
        shown = [own[:, caption + n * side : caption + n * side + summary.THUMBNAIL].std() > 5 for n in range(9)]
        assert shown == [True] * 3 + [False] * 6  # three images a class


def test_images_that_exif_wants_turned_are_counted_and_stay_as_stored(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(photos, tmp_path / "photos"))
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (own / "train" / "ant" / "0.jpg", own / "train" / "bee" / "0.jpg", own / "val" / "bee" / "0.jpg"):
        Image.open(path).save(path, exif=exif.tobytes())
    made = prepare(FolderSource(own), tmp_path / "data", "demo", workers=0)
    line = "EXIF asks to turn 2 of train, 1 of val: they stay as stored, as in the paper's tools"
    assert f"prepare: {line}\n" in capsys.readouterr().err
    assert line in summary.notes(made)
    stored = Image.open(own / "train" / "ant" / "0.jpg")
    assert Split(made, "train").image(0).size == stored.size
    assert not any("EXIF" in text for text in summary.notes(prepare(FolderSource(photos), tmp_path / "plain", "demo")))
