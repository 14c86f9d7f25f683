"""Hugging Face parquet files as a source: what they give, and how they go wrong."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES
from examples import alone, everything, jpeg, message
from PIL import Image

from vggrepro.data import synsets
from vggrepro.data.images import decode
from vggrepro.data.sources import ParquetSource, open_source
from vggrepro.errors import InputError


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
    for wrong, complaint in {
        "": ": line 1 is empty",
        "0\ttench\n": " lists other classes",
        "1\tn01440764\ttench\n": ": '1, n01440764, tench' should be label 0, wnid, words",
        "x\n": " has a heading and no classes",
    }.items():
        table.write_text(wrong)
        assert f"{table}{complaint}" in message(tmp_path)


def test_a_set_in_several_files_has_grey_images_too(tmp_path: Path) -> None:
    """Three training files and a table of classes, as tiny ImageNet's; a third of the images have one channel."""
    rows = [({"bytes": jpeg(n % 6, n, "RGB" if n % 3 else "L"), "path": f"{n}.JPEG"}, n % 6) for n in range(24)]
    for number in range(3):
        write_parquet(tmp_path / f"train-0000{number}-of-00003.parquet", rows[8 * number : 8 * number + 8])
    write_parquet(tmp_path / "val-00000-of-00001.parquet", rows[:12])
    (tmp_path / "classes.tsv").write_text("".join(f"{n}\t{wnid}\tword {n}\n" for n, wnid in enumerate(WNIDS)))
    source = open_source(str(tmp_path))
    assert (source.classes, source.count("train"), source.count("val")) == (WNIDS, 24, 12)
    places = [example.place for example in source.examples("train", 7)][:2]
    assert places[0].endswith("train-00000-of-00003.parquet row 7")
    assert places[1].endswith("train-00001-of-00003.parquet row 0")
    examples = list(source.examples("val", 0))
    modes = [Image.open(io.BytesIO(example.data)).mode for example in examples]
    assert modes == ["L", "RGB", "RGB"] * 4
    assert all(np.asarray(decode(example.data)).shape == (30, 40, 3) for example in examples)


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


def test_paths_in_place_of_images_are_refused_with_the_line_that_embeds_them(tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    for split in ("train", "validation"):
        rows = some_rows(6, f"images/{split}")
        for image, _ in rows:
            (folder / image["path"]).parent.mkdir(parents=True, exist_ok=True)
            (folder / image["path"]).write_bytes(image["bytes"])
        paths = [({"bytes": None, "path": image["path"]}, label) for image, label in rows]
        write_parquet(folder / f"{split}-00000-of-00001.parquet", paths, list(CLASSES))
    for split in ("train", "validation"):
        text = message(folder)
        assert f"{split}-00000-of-00001.parquet: its images are paths (images/{split}0.jpg), not bytes" in text
        line = text.partition("embed them in each file: ")[2].replace("python", sys.executable, 1)
        subprocess.run(line, shell=True, cwd=folder, check=True, env=os.environ)
    source = open_source(str(folder))
    assert source.classes == CLASSES
    expected = [(image["path"], image["bytes"], label) for image, label in some_rows(6, "images/train")]
    assert everything(source, "train") == expected


def test_a_folder_of_the_hubs_cache(tmp_path: Path) -> None:
    folder = tmp_path / "apart" / "deep" / "hub" / "datasets--owner--some-photos"
    for revision in ("1a2b", "3c4d"):
        inner = folder / "snapshots" / revision / "data"
        write_parquet(inner / "train-00000-of-00001.parquet", some_rows(12), list(CLASSES))
        write_parquet(inner / "validation-00000-of-00001.parquet", some_rows(6), list(CLASSES))
        (inner / "._train-00000-of-00001.parquet").write_bytes(b"macOS")
    assert f"holds several revisions; give one of them: {folder}/snapshots/1a2b, " in message(folder)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("3c4d")
    for place in (folder, folder / "snapshots" / "3c4d"):
        source = open_source(str(place))
        assert (source.name, source.count("train")) == ("some-photos", 12)
    assert f"but {folder / 'snapshots' / '3c4d'} has: a folder of Hugging Face parquet" in message(folder.parent)
