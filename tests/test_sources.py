"""Sources: class folders and Hugging Face parquet files, as they are found and as they go wrong."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, photo
from PIL import Image

from vggrepro import synsets
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


def alone(text: Path | str) -> Source:
    """The source with --val-only."""
    source = open_source(str(text), val_only=True)
    assert source.val_only
    assert (source.required, source.count("train"), source.count("test")) == (("val",), 0, 0)
    return source


# The command line's word


def test_what_is_no_source(tmp_path: Path) -> None:
    text = message(tmp_path / "none")
    assert f"'{tmp_path / 'none'}' does not exist; give 'demo', a folder or a name (known layouts" in text
    assert "'cifar-10' does not exist; did you mean cifar10?" in message(Path("cifar-10"))
    (tmp_path / "file.tar").write_bytes(b"")
    assert "is a file; give the folder that holds it" in message(tmp_path / "file.tar")
    text = message(tmp_path)
    assert "has no known layout; known layouts: 'demo'; ILSVRC-2012 as downloaded (ILSVRC2012_img_train.tar" in text
    assert "; a folder with train/<class>/ and val/<class>/ image folders; " in text
    assert "Hugging Face parquet" in text


def test_a_level_too_high_or_too_low(photos: Path) -> None:
    found = f"but {photos} has: a folder with train/<class>/ and val/<class>/ image folders; give that"
    assert found in message(photos.parent)
    assert found in message(photos / "train")
    assert found in message(photos / "train" / "ant")


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


def test_the_demos_validation_images_alone() -> None:
    source = alone("demo")
    assert (source.count("val"), source.classes) == (560, open_source("demo").classes)
    assert next(source.examples("val", 559)) == next(open_source("demo").examples("val", 559))


def test_class_folders_of_validation_images_alone(photos: Path, tmp_path: Path) -> None:
    whole = open_source(str(photos))
    shutil.copytree(photos / "val", tmp_path / "p" / "valid")
    for folder in (photos, tmp_path / "p"):  # train/ is not looked at
        source = alone(folder)
        assert isinstance(source, FolderSource)
        assert (source.classes, source.count("val")) == (CLASSES, 18)
        assert everything(source, "val") == everything(whole, "val")
    contents = alone(tmp_path / "p").contents()
    (tmp_path / "p" / "train" / "gnu").mkdir(parents=True)  # another class, and no image
    shutil.copytree(photos / "val" / "ant", tmp_path / "p" / "test")
    assert alone(tmp_path / "p").contents() == contents
    shutil.rmtree(tmp_path / "p" / "train")
    hint = "give --val-only, which is enough to evaluate nets trained elsewhere"
    assert message(tmp_path / "p") == (
        f"prepare: '{tmp_path / 'p'}' has a validation folder but no train/; put training images there, or {hint}"
    )
    with pytest.raises(InputError, match=f"'{tmp_path / 'p' / 'valid'}' has no known layout, but {tmp_path / 'p'} has"):
        alone(tmp_path / "p" / "valid")
    shutil.rmtree(tmp_path / "p" / "valid")
    (tmp_path / "p" / "train" / "gnu").mkdir(parents=True)
    with pytest.raises(InputError, match=r"has no val/<class>/ folders; put images apart there"):
        alone(tmp_path / "p")


@pytest.mark.parametrize("name", ["validation", "valid"])
def test_other_names_of_the_validation_folder(photos: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(photos / "train", tmp_path / "train")
    shutil.copytree(photos / "val", tmp_path / name)
    source = open_source(str(tmp_path))
    assert everything(source, "val") == everything(open_source(str(photos)), "val")


def test_only_image_files_count_whatever_their_case_and_depth(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path / "p")
    ant = tmp_path / "p" / "train" / "ant"
    (ant / "notes.txt").write_text("not an image")
    (ant / "Thumbs.db").write_bytes(b"x")
    (ant / "._1.jpg").write_bytes(b"macOS")
    (ant / ".DS_Store").write_bytes(b"macOS")
    (ant / "images").mkdir()
    (ant / "0.jpg").rename(ant / "images" / "X.JPEG")
    (tmp_path / "p" / "train" / "labels.csv").write_text("beside the classes")
    keys = [key for key, _, label in everything(open_source(str(tmp_path / "p")), "train") if label == 0]
    assert keys == ["ant/1.jpg", "ant/2.jpg", "ant/3.jpg", "ant/4.jpg", "ant/images/X.JPEG"]
    assert capsys.readouterr().err == ("prepare: left out 2 files that are no images by their suffix: 1 .db, 1 .txt\n")


def test_a_test_folder_with_classes_or_without(photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "p"))
    test = folder / "test"
    shutil.copytree(photos / "val" / "bee", test)
    shutil.copytree(photos / "val" / "cat", test / "more")
    keys = [*(f"{n}.jpg" for n in range(3)), *(f"more/{n}.jpg" for n in range(3))]
    assert [(key, label) for key, _, label in everything(open_source(str(folder)), "test")] == [(k, -1) for k in keys]
    (test / "more").rename(test / "cat")
    assert f"{test} holds class folders but also 0.jpg; give all test images a class folder" in message(folder)
    (test / "gnu").mkdir()
    assert "holds class folders but also gnu" in message(folder)
    (test / "gnu").rmdir()
    for path in test.glob("*.jpg"):
        path.unlink()
    keys = [f"cat/{n}.jpg" for n in range(3)]
    assert [(key, label) for key, _, label in everything(open_source(str(folder)), "test")] == [(k, 2) for k in keys]
    shutil.rmtree(test / "cat")
    assert open_source(str(folder)).count("test") == 0


def test_classes_that_are_wnids_have_words(photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "p"))
    assert open_source(str(folder)).words == ()
    for split in ("train", "val"):
        (folder / split / "ant").rename(folder / split / "n01440764")
    source = open_source(str(folder))
    assert isinstance(source, FolderSource)
    assert source.words == (*CLASSES[1:], "tench, Tinca tinca")


def test_contents_tell_changed_folders(photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "p"))
    seen = {open_source(str(folder)).contents(), open_source(str(photos)).contents()}
    assert len(seen) == 1
    image = folder / "train" / "bee" / "2.jpg"
    image.write_bytes(image.read_bytes() + b"x")
    seen.add(open_source(str(folder)).contents())
    image.rename(image.with_name("9.jpg"))
    seen.add(open_source(str(folder)).contents())
    shutil.copy(photos / "train" / "bee" / "2.jpg", folder / "train" / "bee")
    seen.add(open_source(str(folder)).contents())
    assert len(seen) == 4


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
    assert f"{folder} has no val/<class>/ folders; put images apart there: the paper's errors need" in message(folder)
    folder = changed("e")
    for split in ("train", "val"):
        (folder / split / "bee").rename(os.fsdecode(bytes(folder / split) + b"/b\xe9e"))
    assert r"class folder 'b\udce9e' has a name that cannot be shown; rename it" in message(folder)
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


@pytest.mark.parametrize("labels", ["known", "-1", "null"])
def test_a_test_split_beside_a_validation_split(tmp_path: Path, labels: str) -> None:
    for name in ("train", "validation"):
        write_parquet(tmp_path / f"{name}.parquet", some_rows(6, name), list(CLASSES))
    rows = [(image, {"known": n, "-1": -1, "null": None}[labels]) for image, n in some_rows(4, "test")]
    write_parquet(tmp_path / "test.parquet", rows, list(CLASSES))
    source = open_source(str(tmp_path))
    assert everything(source, "val")[0][0] == "validation0.jpg"
    expected = [0, 1, 2, 3] if labels == "known" else [-1] * 4
    assert [(key, label) for key, _, label in everything(source, "test")] == [
        (f"test{n}.jpg", label) for n, label in enumerate(expected)
    ]
    write_parquet(tmp_path / "test.parquet", [(rows[0][0], 3), (rows[1][0], -1)], list(CLASSES))
    assert f"{tmp_path}: label -1 of test is outside the 6 classes" in message(tmp_path)


WNIDS = ("n01440764", "n01443537", "n02119789", "n03888257", "n04557648", "n15075141")


def imagenet_rows(split: str, wnids: tuple[str, ...] = WNIDS) -> list[tuple[dict[str, Any], int]]:
    """Rows with paths as in ILSVRC/imagenet-1k."""
    kinds = {"train": "{0}_{1}_{0}.JPEG", "old train": "{0}_{1}.JPEG", "val": "ILSVRC2012_val_{1:08}_{0}.JPEG"}
    return [({"bytes": b"x", "path": kinds[split].format(wnid, 1 + n)}, n) for n, wnid in enumerate(wnids)]


@pytest.mark.parametrize("train", ["train", "old train"])
def test_imagenet_from_the_hub_has_wnids_for_classes(tmp_path: Path, train: str) -> None:
    names = ["tench", "goldfish", "kit fox", "parachute", "water bottle", "toilet tissue"]
    write_parquet(tmp_path / "train-0.parquet", imagenet_rows(train), names, group=2)
    write_parquet(tmp_path / "validation-0.parquet", imagenet_rows("val"), names)
    unknown = {"bytes": b"x", "path": "ILSVRC2012_test_00000001.JPEG"}
    write_parquet(tmp_path / "test-0.parquet", [(unknown, -1)], names)
    source = open_source(str(tmp_path))
    assert (source.classes, source.words) == (WNIDS, tuple(names))
    assert (source.devkit_ids, source.subset) == ((), "")  # not all 1000 classes
    assert everything(source, "val")[0] == ("ILSVRC2012_val_00000001_n01440764.JPEG", b"x", 0)
    assert everything(source, "test") == [("ILSVRC2012_test_00000001.JPEG", b"x", -1)]


def test_wnids_in_paths_count_only_if_they_go_with_the_labels_one_to_one(tmp_path: Path) -> None:
    for name, other in (
        ("another in val", imagenet_rows("val", (*WNIDS[:5], WNIDS[0]))),
        ("two labels", [*imagenet_rows("val"), ({"bytes": b"x", "path": f"{WNIDS[0]}_9.JPEG"}, 1)]),
        ("none", [*imagenet_rows("val"), ({"bytes": b"x", "path": "cat.jpg"}, 2)]),
        ("null", [*imagenet_rows("val"), ({"bytes": b"x", "path": None}, 2)]),
    ):
        write_parquet(tmp_path / name / "train.parquet", imagenet_rows("train"), list(CLASSES))
        labels = {label for _, label in other}
        rows = other + [row for row in imagenet_rows("val") if row[1] not in labels]
        write_parquet(tmp_path / name / "val.parquet", rows, list(CLASSES))
        source = open_source(str(tmp_path / name))
        assert (source.classes, source.words) == (CLASSES, ()), name


@pytest.mark.parametrize("order", ["wnids", "devkit ids"])
def test_all_of_imagenet_shows_its_order_by_the_first_images(tmp_path: Path, order: str) -> None:
    """50,000 validation images without pixels; by devkit ids, the first image has label 489."""
    known = list(synsets.table().values())
    if order == "devkit ids":
        known.sort(key=lambda synset: synset.id)
    label = {synset.wnid: n for n, synset in enumerate(known)}
    wnids = list(synsets.table())
    truth = [wnids[synsets.FIRST_IMAGES.get(n, n % 1000)] for n in range(1, 50_001)]
    rows = [({"bytes": b"", "path": f"ILSVRC2012_val_{n:08}_{w}.JPEG"}, label[w]) for n, w in enumerate(truth, 1)]
    names = [synset.words for synset in known]
    write_parquet(tmp_path / "validation.parquet", rows[:30_000], names, group=50_000)
    write_parquet(tmp_path / "validation-2.parquet", rows[30_000:], names, group=50_000)
    write_parquet(tmp_path / "train.parquet", [({"bytes": b"", "path": f"{w}_1.JPEG"}, label[w]) for w in wnids], names)
    if order == "devkit ids":
        assert "ILSVRC2012_val_00000001 has class index 489, not 65" in message(tmp_path)
        return
    source = open_source(str(tmp_path))
    assert source.classes == tuple(wnids)
    assert source.devkit_ids[:2] == (449, 450)
    assert source.name == "imagenet"
    assert source.subset == "1,000 of 1,281,167 training and 50,000 of 50,000 validation images"


@pytest.mark.parametrize("layout", ["wnids in names", "first images", "no names in the footer"])
def test_a_part_of_imagenets_validation_images_has_all_its_classes(tmp_path: Path, layout: str) -> None:
    """--val-only: of a few images, the shipped table knows the 1000 classes if names tell that labels are its rows."""
    known = list(synsets.table().values())
    truth = {**synsets.FIRST_IMAGES, 9: 999, 12: 3}
    end = "" if layout == "first images" else "_{}"
    rows = [
        ({"bytes": b"x", "path": f"ILSVRC2012_val_{n:08}{end.format(known[label].wnid)}.JPEG"}, label)
        for n, label in truth.items()
    ]
    words = None if layout == "no names in the footer" else [synset.words for synset in known]
    write_parquet(tmp_path / "validation.parquet", rows, words)
    assert (
        f"prepare: {tmp_path}: no train or training parquet files among validation; names start with their split, such "
        "as train-00000-of-00001.parquet; without any, give --val-only, which is enough to evaluate nets trained "
        "elsewhere"
    ) == message(tmp_path)
    source = alone(tmp_path)
    assert (source.name, source.classes) == ("imagenet", tuple(synsets.table()))
    assert (source.words[0], source.devkit_ids[0]) == ("tench, Tinca tinca", 449)
    assert source.subset == "6 of 50,000 validation images"
    assert [label for _, _, label in everything(source, "val")] == list(truth.values())
    write_parquet(tmp_path / "train.parquet", [({"bytes": b"", "path": "no image"}, 0)], ["of", "other", "classes"])
    assert alone(tmp_path).contents() == source.contents()


def test_other_validation_images_are_not_taken_for_imagenets(tmp_path: Path) -> None:
    words = [synset.words for synset in synsets.table().values()]
    known = list(synsets.table())
    for name, path, label in (
        ("another order", f"ILSVRC2012_val_00000009_{known[3]}.JPEG", 4),
        ("own name", f"{known[3]}_7.JPEG", 3),
        ("nothing tells", "ILSVRC2012_val_00000009.JPEG", 3),
    ):
        write_parquet(tmp_path / name / "val.parquet", [({"bytes": b"x", "path": path}, label)] * 2, words)
        with pytest.raises(InputError, match="val has no image of class "):
            alone(tmp_path / name)


def test_parquet_files_of_validation_images_alone(tmp_path: Path) -> None:
    rows = some_rows(12)
    write_parquet(tmp_path / "val.parquet", rows, list(CLASSES))
    source = alone(tmp_path)
    assert (source.name, source.classes) == (tmp_path.name, CLASSES)
    assert everything(source, "val") == [(image["path"], image["bytes"], label) for image, label in rows]
    write_parquet(tmp_path / "val.parquet", rows[:5], list(CLASSES))
    with pytest.raises(InputError, match="val has no image of class fox"):
        alone(tmp_path)
    write_parquet(tmp_path / "val.parquet", rows)
    assert alone(tmp_path).classes == tuple("012345")


def test_names_from_a_table_beside_the_parquet_files(tmp_path: Path) -> None:
    rows = [({"bytes": b"x", "path": f"{i}.jpg"}, i % 6) for i in range(12)]
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"{split}.parquet", rows)
    table = tmp_path / "classes.tsv"
    table.write_text("".join(f"{n}\t{wnid}\t{'' if n == 2 else f'word {n}'}\n" for n, wnid in enumerate(WNIDS)))
    source = open_source(str(tmp_path))
    assert source.classes == WNIDS
    assert source.words == ("word 0", "word 1", "n02119789", "word 3", "word 4", "word 5")
    table.write_text("label\twnid\twords\n" + table.read_text())
    assert open_source(str(tmp_path)).classes == WNIDS
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"{split}.parquet", rows, list(reversed(WNIDS)))
    assert f"{table} lists other classes than the parquet files have" in message(tmp_path)
    for wrong in ("", "0\ttench\n", "1\tn01440764\ttench\n", "x\n"):
        table.write_text(wrong)
        assert f"{table}: no lines of label, wnid, words for labels 0, 1, 2" in message(tmp_path)


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
    write_parquet(tmp_path / "train.parquet", [*some_rows(6), (None, 1 << 40)])
    assert f"label {1 << 40}, but only 7 train images" in message(tmp_path)


def test_flipped_bits_in_parquet_are_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train.parquet", some_rows(30), list(CLASSES), group=10)
    write_parquet(tmp_path / "val.parquet", some_rows(6), list(CLASSES))
    whole, random = path.read_bytes(), np.random.default_rng(0)
    found = []
    for _ in range(100):
        data = np.frombuffer(whole, np.uint8).copy()
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        path.write_bytes(data)
        try:
            everything(open_source(str(tmp_path)), "train")
        except InputError as error:
            found.append(str(error))
    assert found
    assert all(line.startswith("prepare: ") for line in found)


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
    for folder in ("data", "default"):
        write_parquet(tmp_path / folder / "train.parquet", rows, list(CLASSES))
    write_parquet(tmp_path / "another" / "train.parquet", rows, list(CLASSES))  # no place of the Hub's
    write_parquet(tmp_path / "val.parquet", rows, list(CLASSES))
    keys = [key for key, _, _ in everything(open_source(str(tmp_path)), "train")]
    assert keys == [f"{folder}/train.parquet#{n}" for folder in ("data", "default") for n in range(6)]


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
    assert f"{at}: label 6 of train is outside the 6 classes" in message(at)
    at = folder("b", [*good, (good[0][0], -1)])
    assert f"{at}: label -1 of train is outside the 6 classes" in message(at)
    at = folder("c", [*good, (good[0][0], None)])
    assert f"{at}: 1 rows of train have no label" in message(at)
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
    assert source.words == tuple(line[2] for line in listed)
    assert (source.count("train"), source.count("val")) == (35_000, 5_000)
    first = next(source.examples("train", 0))
    assert (first.key, first.label) == ("n03937543_31.JPEG", source.classes.index("n03937543"))
    assert decode(first.data).size == (64, 64)
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
