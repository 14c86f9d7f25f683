"""Sources: class folders and Hugging Face parquet files, as they are found and as they go wrong."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, photo
from PIL import Image

from vggrepro.errors import InputError
from vggrepro.images import decode
from vggrepro.sources import FolderSource, ParquetSource, Source, open_source


def message(text: Path | str) -> str:
    """What bad input gives: one line that names the place."""
    with pytest.raises(InputError) as error:
        source = open_source(str(text))
        for split in ("train", "val"):
            list(source.examples(split, 0))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("prepare: ")
    return str(error.value)


def everything(source: Source, split: str, start: int = 0) -> list[tuple[str, bytes, int]]:
    return [(example.key, example.data, example.label) for example in source.examples(split, start)]


# The command line's word


def test_what_is_no_source(tmp_path: Path) -> None:
    assert f"'{tmp_path / 'none'}' does not exist; give 'demo' or a folder (known layouts" in message(tmp_path / "none")
    (tmp_path / "file.tar").write_bytes(b"")
    assert "is a file; give the folder that holds it" in message(tmp_path / "file.tar")
    text = message(tmp_path)
    assert "has no known layout; known layouts: 'demo'; a folder with train/<class>/ and val/<class>/" in text
    assert "Hugging Face parquet" in text


# Class folders


def test_class_folders_in_order(photos: Path) -> None:
    source = open_source(str(photos))
    assert isinstance(source, FolderSource)
    assert source.classes == CLASSES
    assert source.name == "photos"
    assert (source.count("train"), source.count("val"), source.count("test")) == (30, 18, 0)
    examples = list(source.examples("train", 0))
    assert [example.key for example in examples] == [f"{name}/{n}.jpg" for name in CLASSES for n in range(5)]
    assert [example.label for example in examples] == [label for label in range(6) for _ in range(5)]
    assert all(example.data == (photos / "train" / example.key).read_bytes() for example in examples)
    assert examples[7].place == str((photos / "train" / "bee" / "2.jpg").resolve())
    assert everything(source, "val", 11) == everything(source, "val")[11:]
    assert everything(source, "val", 18) == []


@pytest.mark.parametrize("name", ["validation", "valid"])
def test_other_names_of_the_validation_folder(photos: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(photos / "train", tmp_path / "train")
    shutil.copytree(photos / "val", tmp_path / name)
    source = open_source(str(tmp_path))
    assert everything(source, "val") == everything(open_source(str(photos)), "val")


def test_only_image_files_count_whatever_their_case_and_depth(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "p")
    ant = tmp_path / "p" / "train" / "ant"
    (ant / "notes.txt").write_text("not an image")
    (ant / "Thumbs.db").write_bytes(b"x")
    (ant / "images").mkdir()
    (ant / "0.jpg").rename(ant / "images" / "X.JPEG")
    (tmp_path / "p" / "train" / "labels.csv").write_text("beside the classes")
    keys = [key for key, _, label in everything(open_source(str(tmp_path / "p")), "train") if label == 0]
    assert keys == ["ant/1.jpg", "ant/2.jpg", "ant/3.jpg", "ant/4.jpg", "ant/images/X.JPEG"]


def test_folders_that_are_wrong(photos: Path, tmp_path: Path) -> None:
    def changed(name: str) -> Path:
        return Path(shutil.copytree(photos, tmp_path / name))

    folder = changed("a")
    (folder / "train" / "gnu").mkdir()
    (folder / "val" / "fox").rename(folder / "val" / "hen")
    text = message(folder)
    assert "train and val hold different classes (only in train: fox, gnu; only in val: hen)" in text
    folder = changed("b")
    for path in (folder / "val" / "bee").iterdir():
        path.unlink()
    text = message(folder)
    assert f"class folder {folder / 'val' / 'bee'} holds no image" in text
    assert "fill it, or remove the class from train and val" in text
    folder = changed("c")
    shutil.rmtree(folder / "val")
    assert f"{folder} has no val/<class>/ folders; the paper's errors need a validation set" in message(folder)
    folder = tmp_path / "d"
    (folder / "train").mkdir(parents=True)
    assert "train has no class folders; put images in train/<class>/" in message(folder)


def test_a_file_that_cannot_be_read_is_named(photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "p"))
    link = folder / "train" / "ant" / "9.jpg"
    link.symlink_to(tmp_path / "gone.jpg")
    assert f"{link} cannot be read (No such file or directory); mend or remove it" in message(folder)
    link.unlink()
    link.mkdir()
    assert f"{link} cannot be read (Is a directory)" in message(folder)


# Parquet


def jpeg(label: int, seed: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo(label, seed, 40, 30)).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


def write_parquet(
    path: Path,
    rows: list[tuple[Any, Any]],
    names: list[str] | None = None,
    *,
    image: str = "image",
    label: str = "label",
    order: str = "image first",
    group: int = 100,
) -> Path:
    """A file as `datasets.push_to_hub` writes it; `rows` hold (image struct, label)."""
    images = pa.array([row[0] for row in rows], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    labels = pa.array([row[1] for row in rows], pa.int64())
    columns = {image: images, label: labels} if order == "image first" else {label: labels, "x": labels, image: images}
    table = pa.table(columns)
    if names is not None:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)
    return path


def some_rows(count: int, prefix: str = "i") -> list[tuple[dict[str, Any], int]]:
    return [({"bytes": jpeg(n % 6, n), "path": f"{prefix}{n}.jpg"}, n % 6) for n in range(count)]


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "test"])
def test_parquet_files_of_a_split_are_read_one_after_another(tmp_path: Path, validation: str) -> None:
    rows = some_rows(20)
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", rows[:13], list(CLASSES), group=5)
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", rows[13:], list(CLASSES), group=4)
    write_parquet(tmp_path / "data" / f"{validation}-00000-of-00001.parquet", rows[:6], list(CLASSES))
    source = open_source(str(tmp_path))
    assert isinstance(source, ParquetSource)
    assert source.classes == CLASSES
    assert (source.count("train"), source.count("val"), source.count("test")) == (20, 6, 0)
    expected = [(image["path"], image["bytes"], label) for image, label in rows]
    assert everything(source, "train") == expected
    assert everything(source, "val") == expected[:6]
    for start in range(21):
        assert everything(source, "train", start) == expected[start:]
    place = next(source.examples("train", 17)).place
    assert place.endswith("train-00001-of-00002.parquet row 4")


def test_a_test_split_beside_a_validation_split_is_left_alone(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        write_parquet(tmp_path / f"{name}.parquet", some_rows(6, name), list(CLASSES))
    source = open_source(str(tmp_path))
    assert everything(source, "val")[0][0] == "validation0.jpg"
    assert source.count("test") == 0


def test_splits_by_folder(tmp_path: Path) -> None:
    """`train/0000.parquet`, as the Hub converts data sets."""
    rows = [({"bytes": b"x", "path": f"{i}.jpg"}, i % 6) for i in range(12)]
    for split in ("train", "validation"):
        write_parquet(tmp_path / "hub" / split / "0000.parquet", rows)
    source = open_source(str(tmp_path / "hub"))
    assert (source.count("train"), source.count("val")) == (12, 12)


@pytest.mark.parametrize("order", ["image first", "label first"])
@pytest.mark.parametrize(("image", "label"), [("image", "label"), ("img", "fine_label"), ("image", "labels")])
def test_columns_by_other_names_and_in_any_order(tmp_path: Path, image: str, label: str, order: str) -> None:
    for name in ("train", "test"):
        write_parquet(tmp_path / f"{name}.parquet", some_rows(6), list(CLASSES), image=image, label=label, order=order)
    source = open_source(str(tmp_path))
    assert source.classes == CLASSES
    assert [label for _, _, label in everything(source, "train")] == list(range(6))


def test_without_names_classes_are_numbers(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write_parquet(tmp_path / f"{name}.parquet", some_rows(6))
    assert open_source(str(tmp_path)).classes == ("0", "1", "2", "3", "4", "5")


@pytest.mark.parametrize("paths", ["null", "twice"])
def test_images_without_distinct_paths_are_keyed_by_file_and_row(tmp_path: Path, paths: str) -> None:
    rows = [({"bytes": jpeg(n, n), "path": None if paths == "null" else "x.jpg"}, n) for n in range(6)]
    write_parquet(tmp_path / "train.parquet", rows, list(CLASSES))
    write_parquet(tmp_path / "val.parquet", some_rows(6), list(CLASSES))
    source = open_source(str(tmp_path))
    assert [key for key, _, _ in everything(source, "train")] == [f"train.parquet#{n}" for n in range(6)]
    assert [key for key, _, _ in everything(source, "train", 4)] == ["train.parquet#4", "train.parquet#5"]
    assert everything(source, "val")[0][0] == "i0.jpg"


def test_keys_differ_between_files_of_the_same_name(tmp_path: Path) -> None:
    rows = [({"bytes": jpeg(n, n), "path": None}, n) for n in range(6)]
    for language in ("de", "en"):
        write_parquet(tmp_path / language / "train.parquet", rows, list(CLASSES))
    write_parquet(tmp_path / "val.parquet", rows, list(CLASSES))
    keys = [key for key, _, _ in everything(open_source(str(tmp_path)), "train")]
    assert keys == [f"{language}/train.parquet#{n}" for language in ("de", "en") for n in range(6)]


def test_an_empty_cell_is_an_empty_image_not_a_crash(tmp_path: Path) -> None:
    rows: list[tuple[Any, int]] = some_rows(8)
    rows[6], rows[7] = (None, 0), ({"bytes": None, "path": "i7.jpg"}, 1)
    write_parquet(tmp_path / "train.parquet", rows, list(CLASSES))
    write_parquet(tmp_path / "val.parquet", some_rows(6), list(CLASSES))
    assert [data for _, data, _ in everything(open_source(str(tmp_path)), "train")[6:]] == [b"", b""]


def test_parquet_files_that_are_wrong(tmp_path: Path) -> None:
    def folder(name: str, train: list[tuple[Any, Any]], val: list[tuple[Any, Any]] | None = None, **more: Any) -> Path:
        write_parquet(tmp_path / name / "train.parquet", train, list(CLASSES), **more)
        write_parquet(tmp_path / name / "val.parquet", some_rows(6) if val is None else val, list(CLASSES), **more)
        return tmp_path / name

    good = some_rows(6)
    at = folder("a", [*good, (good[0][0], 6)])
    assert f"{at}: label 6 is outside the 6 classes" in message(at)
    at = folder("b", [*good, (good[0][0], -1)])
    assert f"{at}: label -1 is outside the 6 classes" in message(at)
    at = folder("c", [*good, (good[0][0], None)])
    assert f"{at}: 1 rows have no label" in message(at)
    at = folder("d", good, good[:4])
    assert f"{at}: val has no image of class eel, fox" in message(at)
    at = folder("e", good, image="picture")
    assert "train.parquet: no column 'image' of struct{bytes, path}; it has ['picture', 'label']" in message(at)
    at = folder("f", good, label="target")
    assert "train.parquet: no column 'label', 'labels' or 'fine_label'; it has ['image', 'target']" in message(at)
    at = folder("g", good)
    (at / "val.parquet").write_bytes((at / "val.parquet").read_bytes()[:-9])
    assert f"{at / 'val.parquet'}: damaged parquet file" in message(at)
    at = folder("h", good)
    write_parquet(at / "val.parquet", good, [*CLASSES[:5], "owl"])
    assert "val.parquet: its class names differ from train.parquet's" in message(at)
    at = folder("i", good)
    write_parquet(at / "val.parquet", good, list(CLASSES), label="labels")
    assert "val.parquet: columns 'image', 'labels' differ from the first file's" in message(at)
    at = folder("j", good)
    (at / "val.parquet").rename(at / "other-0.parquet")
    assert f"{at}: no validation or valid or val or test parquet files among other, train; names start" in message(at)
    at = folder("k", good)
    pq.write_table(pa.table({"image": ["a.jpg"], "label": [0]}), at / "train.parquet")
    assert "no column 'image' of struct{bytes, path}" in message(at)


# Real data


def test_tiny_imagenet(shared_data: Path) -> None:
    folder = shared_data / "tiny-imagenet-100"
    source = open_source(str(folder))
    listed = [line.split("\t") for line in (folder / "classes.tsv").read_text().splitlines()]
    assert [int(line[0]) for line in listed] == list(range(100))
    assert source.classes == tuple(line[1] for line in listed)
    assert (source.count("train"), source.count("val")) == (35_000, 5_000)
    first = next(source.examples("train", 0))
    assert (first.key, first.label) == ("n03937543_31.JPEG", source.classes.index("n03937543"))
    assert decode(first.data).shape == (64, 64, 3)
    for start in (11_665, 11_666, 34_999):  # the last and first rows of files
        example = next(source.examples("train", start))
        assert example.key.startswith(source.classes[example.label])
    assert next(source.examples("train", 11_665)).place.endswith("train-00000-of-00003.parquet row 11665")
    assert next(source.examples("train", 11_666)).place.endswith("train-00001-of-00003.parquet row 0")
    assert len(list(source.examples("val", 4_990))) == 10


def test_some_of_tiny_imagenet_is_grey(shared_data: Path) -> None:
    source = open_source(str(shared_data / "tiny-imagenet-100"))
    modes = set()
    for number, example in enumerate(source.examples("val", 0)):
        modes.add(Image.open(io.BytesIO(example.data)).mode)
        if number == 300:
            break
        if number % 50 == 0:
            assert np.asarray(decode(example.data)).shape == (64, 64, 3)
    assert modes == {"RGB", "L"}
