"""ILSVRC-2012 in the layouts that people have, made in miniature: 1000 classes, images of six, as in the real files."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from PIL import Image
from scipy.io import savemat

from vggrepro import synsets
from vggrepro.errors import InputError
from vggrepro.prepare import prepare
from vggrepro.sources import FolderSource, IlsvrcSource, Source, devkit, listing, open_source

WNIDS = ("n01440764", "n01443537", "n02119789", "n03888257", "n04557648", "n15075141")
ORDER = list(synsets.table())
TRUTH = (4, 0, 5, 1, 2, 3, 0)  # of the validation images, by position in WNIDS

Listed = list[tuple[str, bytes]]


def jpeg(label: int, seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo(label, seed, 24, 20)).save(buffer, "JPEG")
    return buffer.getvalue()


# Numbers are not in the order of names: n01440764_10.JPEG comes before n01440764_2.JPEG.
TRAIN = {w: [(f"{w}_{n}.JPEG", jpeg(i, n)) for n in (2, 10, 7)] for i, w in enumerate(WNIDS)}
VAL = [(f"ILSVRC2012_val_{n:08}.JPEG", jpeg(i, 50 + n)) for n, i in enumerate(TRUTH, 1)]
TEST = [(f"ILSVRC2012_test_{n:08}.JPEG", jpeg(n, 80 + n)) for n in (1, 2, 3)]


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


def message(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        source = open_source(str(folder))
        for split in ("train", "val", "test"):
            list(source.examples(split, 0))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("prepare: ")
    return str(error.value)


def everything(source: Source, split: str, start: int = 0) -> list[tuple[str, bytes, int]]:
    return [(example.key, example.data, example.label) for example in source.examples(split, start)]


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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images_in_the_same_order(tmp_path: Path, layout: str) -> None:
    source = open_source(str(put(tmp_path, *LAYOUTS[layout])))
    assert isinstance(source, IlsvrcSource)
    assert source.name == "imagenet"
    assert source.classes == tuple(ORDER)
    assert (source.words[0], source.devkit_ids[0]) == ("tench, Tinca tinca", 449)
    assert source.subset == "18 of 1,281,167 training and 7 of 50,000 validation images"
    label = [ORDER.index(wnid) for wnid in WNIDS]
    train = [(f"{w}/{name}", data, label[i]) for i, w in enumerate(WNIDS) for name, data in sorted(TRAIN[w])]
    assert everything(source, "train") == train
    assert train[0][0] == "n01440764/n01440764_10.JPEG"
    assert everything(source, "val") == [(name, data, label[i]) for (name, data), i in zip(VAL, TRUTH, strict=True)]
    assert everything(source, "test") == [(name, data, -1) for name, data in TEST]
    for start in (1, 3, 17, 18):
        assert everything(source, "train", start) == train[start:]
    assert source.contents() == open_source(str(tmp_path)).contents()


def test_tars_folders_and_kaggle_have_one_fingerprint(tmp_path: Path) -> None:
    found = {}
    for layout in ("as downloaded", "flat val", "val by class", "half unpacked", "kaggle"):
        source = open_source(str(put(tmp_path / layout, *LAYOUTS[layout])))
        dataset = prepare(source, tmp_path / f"{layout} prepared", "demo", workers=0)
        found[layout] = dataset.fingerprint
        assert (dataset.counts, len(dataset.classes)) == ({"train": 18, "val": 7, "test": 3}, 1000)
        assert dataset.subset == source.subset
    assert len(set(found.values())) == 1, found


ALONE = {
    "as downloaded": ("val.tar", "devkit.tar.gz"),
    "flat": ("val/", "devkit/"),
    "by class": ("val/<wnid>/", "devkit.tar.gz"),
    "half by class": ("val half", "devkit.tar.gz"),
    "beside all others": ("train.tar", "train/<wnid>/", "val.tar", "test.tar", "devkit.tar.gz"),
    "kaggle": ("kaggle",),
    "kaggle without train": ("kaggle",),
    "flat with Kaggle's list": ("kaggle",),
}


@pytest.mark.parametrize("layout", ALONE)
def test_validation_images_alone(tmp_path: Path, layout: str) -> None:
    """All 1000 classes in the order of wnids, in every layout, though val shows six; nothing else is read."""
    put(tmp_path, *ALONE[layout])
    inner = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    if layout == "beside all others":
        (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(b"not looked at")
        (tmp_path / "ILSVRC2012_img_test_v10102019.tar").write_bytes(b"not looked at")
    if layout == "kaggle without train":
        shutil.rmtree(inner / "train")
    if layout == "flat with Kaggle's list":
        (inner / "val").rename(tmp_path / "val")
        shutil.rmtree(tmp_path / "ILSVRC")
    source = open_source(str(tmp_path), val_only=True)
    assert isinstance(source, IlsvrcSource)
    assert (source.classes, source.devkit_ids[0]) == (tuple(ORDER), 449)
    assert source.subset == "7 of 50,000 validation images"
    assert [source.count(split) for split in ("train", "val", "test")] == [0, 7, 0]
    label = [ORDER.index(wnid) for wnid in WNIDS]
    assert everything(source, "val") == [(name, data, label[i]) for (name, data), i in zip(VAL, TRUTH, strict=True)]
    assert not any("train" in path.name or "test" in path.name for path, _ in source.checksums())
    dataset = prepare(source, tmp_path / "data", "demo", workers=0)
    assert (dataset.counts, len(dataset.classes)) == ({"train": 0, "val": 7}, 1000)
    fingerprints = {prepare(open_source(str(tmp_path), val_only=True), tmp_path / "again", "demo").fingerprint}
    put(tmp_path / "tars", "val.tar", "devkit.tar.gz")
    other = prepare(open_source(str(tmp_path / "tars"), val_only=True), tmp_path / "other", "demo", workers=0)
    assert fingerprints | {other.fingerprint} == {dataset.fingerprint}


def test_all_validation_images_are_no_subset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synsets, "VAL_IMAGES", 7)
    monkeypatch.setattr(synsets, "FIRST_IMAGES", {1: ORDER.index(WNIDS[TRUTH[0]])})
    put(tmp_path, "val.tar", "devkit.tar.gz")
    assert open_source(str(tmp_path), val_only=True).subset == ""


def test_without_the_training_tar_the_option_is_named(tmp_path: Path) -> None:
    put(tmp_path, "val.tar", "devkit.tar.gz")
    assert message(tmp_path) == (
        f"prepare: {tmp_path} has no ILSVRC2012_img_train.tar and no train/ folder; put one there, or give --val-only, "
        "which is enough to evaluate nets trained elsewhere"
    )
    (tmp_path / devkit.TAR).unlink()
    with pytest.raises(InputError, match=r"holds images without class folders, and no ILSVRC2012_devkit_t12\.tar\.gz"):
        open_source(str(tmp_path), val_only=True)


def test_kaggles_inner_folder_finds_the_labels_above_it(tmp_path: Path) -> None:
    put(tmp_path, "kaggle")
    inner = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    assert everything(open_source(str(inner)), "val") == everything(open_source(str(tmp_path)), "val")
    (tmp_path / devkit.SOLUTION).rename(inner / devkit.SOLUTION)
    assert open_source(str(inner)).count("val") == open_source(str(tmp_path)).count("val") == 7
    (inner / devkit.SOLUTION).unlink()
    put(tmp_path, "devkit.tar.gz")
    assert open_source(str(inner)).checksums() == [(tmp_path / devkit.TAR, "fa75699e90414af021442c21a62c3abf")]


def test_without_the_test_images(tmp_path: Path) -> None:
    source = open_source(str(put(tmp_path, "train.tar", "val.tar", "devkit/")))
    assert source.count("test") == 0
    assert source.checksums() == [
        (tmp_path / "ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e"),
        (tmp_path / "ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622"),
    ]


@pytest.mark.parametrize("base", ["test.tar", "test/"])
def test_the_patch_replaces_test_images(tmp_path: Path, base: str) -> None:
    put(tmp_path, "train.tar", "val.tar", "devkit.tar.gz", base)
    new = (TEST[1][0], jpeg(0, 99))
    write(tmp_path, [("ILSVRC2012_img_test_patch_v10102019.tar", tar_bytes([(f"x/{new[0]}", new[1])]))])
    source = open_source(str(tmp_path))
    assert everything(source, "test") == [(*TEST[0], -1), (*new, -1), (*TEST[2], -1)]
    write(tmp_path, [("ILSVRC2012_img_test.tar", tar_bytes([TEST[0]]))])
    assert open_source(str(tmp_path)).count("test") == (3 if base == "test.tar" else 2)


def test_members_of_tars_are_no_paths_and_only_images_count(tmp_path: Path) -> None:
    put(tmp_path, "val.tar", "devkit.tar.gz")
    wnid = WNIDS[0]
    odd = [("readme.txt", b"x"), (f"../../{wnid}_1.JPEG", b"y"), (f"/{wnid}_2.jpg", b"z"), (f"._{wnid}_1.JPEG", b"")]
    outer = [(f"./._{wnid}.tar", b"macOS"), (f"./{wnid}.tar", tar_bytes(odd)), ("x.txt", b"")]
    write(tmp_path, [("ILSVRC2012_img_train.tar", tar_bytes(outer))])
    train = everything(open_source(str(tmp_path)), "train")
    assert train == [(f"{wnid}/{wnid}_1.JPEG", b"y", 0), (f"{wnid}/{wnid}_2.jpg", b"z", 0)]


def test_an_image_that_is_twice_in_a_tar(tmp_path: Path) -> None:
    put(tmp_path, "val.tar", "devkit.tar.gz")
    wnid = WNIDS[0]
    write(tmp_path, [("ILSVRC2012_img_train.tar", train_tar({wnid: [*TRAIN[wnid], (f"a/{wnid}_7.JPEG", b"")]}))])
    assert f"ILSVRC2012_img_train.tar: image '{wnid}_7.JPEG' is there twice" in message(tmp_path)


@pytest.mark.parametrize("size", [-1, -1024, 1 << 70])
def test_a_garbled_size_in_a_tar_ends_in_a_message(tmp_path: Path, size: int) -> None:
    put(tmp_path, "train.tar", "devkit.tar.gz")
    data = bytearray(tar_bytes(VAL))
    data[124:136] = (b"\xff" if size < 0 else b"\x80") + (size & (1 << 88) - 1).to_bytes(11, "big")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(data)
    assert "ILSVRC2012_img_val.tar: damaged or no uncompressed tar" in message(tmp_path)


def test_more_tars_than_are_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(str(put(tmp_path, "train/<wnid>.tar", "val.tar", "devkit.tar.gz")))
    expected = everything(source, "train")
    monkeypatch.setattr(listing, "OPEN_TARS", 2)
    assert everything(source, "train") == expected
    (tmp_path / "train" / f"{WNIDS[4]}.tar").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        everything(source, "train")


def test_fields_of_meta_mat_are_told_by_name(tmp_path: Path) -> None:
    put(tmp_path, "train.tar", "val.tar")
    write(tmp_path, [(devkit.TAR, devkit_tar(meta_mat(list(synsets.table().values()), "reversed")))])
    assert open_source(str(tmp_path)).devkit_ids[0] == 449


# Which folders are ILSVRC-2012


def test_what_is_no_imagenet_stays_class_folders(tmp_path: Path) -> None:
    """Such as Imagenette: ten of the wnids, no devkit."""
    source = open_source(str(put(tmp_path, "train/<wnid>/", "val/<wnid>/")))
    assert isinstance(source, FolderSource)
    assert source.classes == WNIDS
    assert source.words[0] == "tench, Tinca tinca"


def test_all_thousand_classes_need_no_devkit(tmp_path: Path) -> None:
    for wnid in ORDER:
        write(tmp_path / "train" / wnid, [(f"{wnid}_1.JPEG", b"x")])
        write(tmp_path / "val" / wnid, [("1.JPEG", b"x")])
    source = open_source(str(tmp_path))
    assert isinstance(source, IlsvrcSource)
    assert source.devkit_ids == open_source(str(put(tmp_path, "devkit.tar.gz"))).devkit_ids
    assert everything(source, "val")[-1] == ("n15075141/1.JPEG", b"x", 999)  # names that are not ImageNet's
    assert len({key for key, _, _ in everything(source, "val")}) == 1000


def test_a_flat_val_folder_needs_the_devkit(tmp_path: Path) -> None:
    text = message(put(tmp_path / "a", "train/<wnid>/", "val/"))
    assert f"no {devkit.TAR} is beside it: the labels of the flat val images are there; put it in {tmp_path}" in text
    text = message(put(tmp_path / "b", "train.tar", "val.tar"))
    assert f"no {devkit.TAR} is beside it: the labels of the flat val images are there" in text
    put(tmp_path / "c", "kaggle")
    (tmp_path / "c" / devkit.SOLUTION).unlink()
    assert f"no {devkit.TAR} is beside it" in message(tmp_path / "c")


# What goes wrong


def test_splits_that_are_missing(tmp_path: Path) -> None:
    assert "has no ILSVRC2012_img_train.tar and no train/ folder" in message(put(tmp_path / "a", "val.tar", "devkit/"))
    text = message(put(tmp_path / "b", "train.tar", "devkit/"))
    assert "has no ILSVRC2012_img_val.tar and no val/ folder; the paper's errors need a validation set" in text
    put(tmp_path / "c", "val.tar", "devkit/")
    write(tmp_path / "c", [("ILSVRC2012_img_train.tar", tar_bytes(VAL))])
    assert "ILSVRC2012_img_train.tar: no inner tars <wnid>.tar with images" in message(tmp_path / "c")
    put(tmp_path / "d", "val.tar", "devkit/", "train/<wnid>/")
    for path in (tmp_path / "d" / "train").glob("*/*"):
        path.unlink()
    assert "train: no images in train/<wnid>/; put them there" in message(tmp_path / "d")
    put(tmp_path / "e", "train/<wnid>/", "devkit/")
    write(tmp_path / "e" / "val", [("notes.txt", b"")])
    assert "val holds no validation image" in message(tmp_path / "e")


def test_classes_that_are_not_the_devkits(tmp_path: Path) -> None:
    put(tmp_path, "val.tar", "devkit.tar.gz")
    tar = tmp_path / "ILSVRC2012_img_train.tar"
    tar.write_bytes(train_tar({**TRAIN, "n00000001": []}))
    assert f"{tar}: 'n00000001' is no wnid of ILSVRC-2012's 1000 classes" in message(tmp_path)
    tar.write_bytes(tar_bytes([(f"{WNIDS[0]}.tar", tar_bytes(TRAIN[WNIDS[0]]))] * 2))
    assert f"{tar}: two tars of class {WNIDS[0]}" in message(tmp_path)
    tar.unlink()
    write(tmp_path / "train" / WNIDS[0], TRAIN[WNIDS[0]])
    write(tmp_path / "train" / "goldfish", TRAIN[WNIDS[1]])
    assert f"{tmp_path / 'train'}: 'goldfish' is no wnid" in message(tmp_path)


@pytest.mark.parametrize("size", [700, 5000, 9000])
def test_tars_that_are_cut_off(tmp_path: Path, size: int) -> None:
    put(tmp_path, *LAYOUTS["as downloaded"])
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        path = tmp_path / name
        whole = path.read_bytes()
        path.write_bytes(whole[:size])
        text = message(tmp_path)
        assert str(path) in text
        assert "download it again" in text
        path.write_bytes(whole)


@pytest.mark.parametrize("layout", ["as downloaded", "flat val", "val by class"])
def test_ground_truth_that_does_not_belong_to_the_images(tmp_path: Path, layout: str) -> None:
    put(tmp_path, *LAYOUTS[layout])
    kit = tmp_path / devkit.TAR
    kit.write_bytes(devkit_tar(truth=truth_text(TRUTH[:5])))
    expected = "the ground truth of" if layout == "val by class" else "'ILSVRC2012_val_00000006.JPEG' has no line in"
    assert expected in message(tmp_path)
    kit.write_bytes(devkit_tar(truth=truth_text((*TRUTH, 1, 2))))
    if layout != "val by class":
        text = message(tmp_path)
        assert f"holds 7 images, but the ground truth of {kit} has 9 lines; unpack or download" in text
    kit.write_bytes(devkit_tar(truth=truth_text(tuple(reversed(TRUTH)))))
    if layout == "val by class":
        assert "is not in the class folder that the ground truth" in message(tmp_path)
    else:
        assert open_source(str(tmp_path)).count("val") == 7


def test_validation_images_that_are_there_twice_or_without_number(tmp_path: Path) -> None:
    put(tmp_path, *LAYOUTS["flat val"])
    write(tmp_path / "val", [("x.JPEG", b"")])
    assert "val: 'x.JPEG' has no line in the ground truth" in message(tmp_path)
    (tmp_path / "val" / "x.JPEG").unlink()
    (tmp_path / "val" / VAL[0][0]).rename(tmp_path / "val" / "ILSVRC2012_val_00000002.jpg")
    assert "val holds validation image 2 twice" in message(tmp_path)


@pytest.mark.parametrize(
    ("truth", "text"),
    [
        (b"449\nabc\n3", "line 2 of data/ILSVRC2012_validation_ground_truth.txt is 'abc', no class number from 1 to"),
        (b"449\n\n3", "is '', no class number"),
        (b"0\n1", "line 1 of data/ILSVRC2012_validation_ground_truth.txt is '0', no class number"),
        (b"1001", "is '1001', no class number"),
        (b"-3", "is '-3', no class number"),
        (b"\xff\xfe1", "no class number"),
        (b"1" * 5000, "no class number"),
        (b"", "ILSVRC2012_validation_ground_truth.txt is empty; download the devkit again"),
    ],
)
def test_ground_truth_that_is_damaged(tmp_path: Path, truth: bytes, text: str) -> None:
    write(put(tmp_path, "train.tar", "val.tar"), [(devkit.TAR, devkit_tar(truth=truth))])
    assert f"{tmp_path / devkit.TAR}: " in message(tmp_path)
    assert text in message(tmp_path)


def test_ground_truth_of_another_year_shows_by_the_first_images(tmp_path: Path) -> None:
    put(tmp_path, "train.tar", "val.tar")
    ids = [synset.id for synset in synsets.table().values()]
    for first, refused in (([ids[i] for i in synsets.FIRST_IMAGES.values()], ""), ([65, 970, 230, 809], "_00000001")):
        truth = "\n".join(map(str, [*first, *[1] * 49_996])).encode()
        (tmp_path / devkit.TAR).write_bytes(devkit_tar(truth=truth))
        text = message(tmp_path)
        if refused:
            assert f"{tmp_path / devkit.TAR}: ILSVRC2012_val{refused} has class index " in text
        else:
            assert "holds 7 images, but the ground truth" in text  # comes after


def test_class_folders_of_val_in_wrong_order_show_by_the_first_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "train/<wnid>.tar", "val/<wnid>/")
    assert open_source(str(tmp_path)).count("val") == 7
    monkeypatch.setattr(synsets, "VAL_IMAGES", 7)
    assert f"{tmp_path / 'val'}: ILSVRC2012_val_00000001 has class index" in message(tmp_path)


def test_a_devkit_that_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "train.tar", "val.tar", "devkit.tar.gz")
    kit = tmp_path / devkit.TAR
    whole, known = kit.read_bytes(), list(synsets.table().values())

    def given(data: bytes) -> str:
        kit.write_bytes(data)
        text = message(tmp_path)
        assert str(kit) in text
        return text

    for data in (b"", whole[:-30], whole[: len(whole) // 2], b"no gzip", gzip.compress(b"no tar" * 500)):
        assert "damaged devkit" in given(data) or "no data/meta.mat" in given(data)
    assert "no data/meta.mat and no data/ILSVRC2012_val" in given(gzip.compress(tar_bytes([("x/readme.txt", b"")])))
    assert "data/meta.mat is unreadable" in given(devkit_tar(b""))
    assert "data/meta.mat is unreadable" in given(devkit_tar(META[: len(META) // 2]))
    assert "data/meta.mat is unreadable (KeyError" in given(devkit_tar(other_mat()))
    assert "has 999 synsets without children, not the 1000" in given(devkit_tar(meta_mat(known[1:])))
    twice = [known[0]._replace(wnid=known[1].wnid), *known[1:]]
    assert "a wnid comes twice" in given(devkit_tar(meta_mat(twice)))
    assert "'../x' is no wnid" in given(devkit_tar(meta_mat([known[0]._replace(wnid="../x"), *known[1:]])))
    monkeypatch.setattr(devkit, "LARGEST_FILE", 1000)
    assert "no data/meta.mat in it" in given(whole)
    monkeypatch.setattr(devkit, "LARGEST", 1 << 20)
    assert "more than 1 MB when unpacked" in given(gzip.compress(bytes(3 << 20)))
    kit.unlink()
    put(tmp_path, "devkit/")
    assert "meta.mat: more than 0 MB" in message(tmp_path)
    (tmp_path / devkit.FOLDER / devkit.META).unlink()
    assert "meta.mat cannot be read (No such file or directory)" in message(tmp_path)


def other_mat() -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, {"wordnet": np.zeros(3)})
    return buffer.getvalue()


@pytest.mark.parametrize("row", ["x,n01440764 1", "ILSVRC2012_val_00000009,n00000001 1", "ILSVRC2012_val_00000009"])
def test_a_solution_file_that_is_damaged(tmp_path: Path, row: str) -> None:
    put(tmp_path, "kaggle")
    file = tmp_path / devkit.SOLUTION
    text = file.read_text()
    file.write_text(f"{text}\n{row}\n")
    assert f"{file} line 9: '{row}' is not a further validation image with its wnid" in message(tmp_path)
    file.write_text(f"{text}\n{text.splitlines()[1]}\n")
    assert f"{file} line 9: " in message(tmp_path)
    file.write_text("ImageId,PredictionString\n")
    assert f"{file} names no image" in message(tmp_path)
    file.write_bytes(b"\xff\xfe\xff")
    assert f"{file} cannot be read" in message(tmp_path)


def test_an_image_that_goes_away_is_named(tmp_path: Path) -> None:
    source = open_source(str(put(tmp_path, *LAYOUTS["flat val"])))
    gone = tmp_path / "train" / WNIDS[1] / TRAIN[WNIDS[1]][0][0]
    gone.unlink()
    for action in (lambda: everything(source, "train"), source.contents):
        with pytest.raises(InputError, match="cannot be read"):
            action()


def test_contents_tell_changed_files(tmp_path: Path) -> None:
    put(tmp_path, *LAYOUTS["flat val"])
    seen = {open_source(str(tmp_path)).contents()}
    (tmp_path / devkit.TAR).write_bytes(devkit_tar(truth=truth_text((0, 0, *TRUTH[2:]))))
    seen.add(open_source(str(tmp_path)).contents())
    shutil.copy(tmp_path / "train" / WNIDS[0] / f"{WNIDS[0]}_2.JPEG", tmp_path / "train" / WNIDS[0] / "a.JPEG")
    seen.add(open_source(str(tmp_path)).contents())
    put(tmp_path, "train.tar")
    seen.add(open_source(str(tmp_path)).contents())
    assert len(seen) == 4


# Real files


def test_the_real_layout(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "ilsvrc-mini"
    source = open_source(str(folder))
    assert isinstance(source, IlsvrcSource)
    assert source.classes == tuple(ORDER)
    assert source.subset == "100 of 1,281,167 training and 100 of 50,000 validation images"
    assert [path.name for path, _ in source.checksums()] == [
        "ILSVRC2012_img_train.tar",
        "ILSVRC2012_img_val.tar",
        devkit.TAR,
    ]
    train, val = ({label for _, _, label in everything(source, split)} for split in ("train", "val"))
    assert (len(train), len(val), len(train & val)) == (100, 100, 0)
    first = next(source.examples("train", 0))
    assert (first.key, first.label) == ("n01440764/n01440764_1.JPEG", 0)
    dataset = prepare(source, tmp_path, "demo", workers=2)
    assert dataset.counts == {"train": 100, "val": 100}
    assert dataset.words[0] == "tench, Tinca tinca"
    assert dataset.devkit_ids == source.devkit_ids
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in ("ILSVRC2012_img_val.tar", devkit.TAR):
        (hidden / name).symlink_to(folder / name)
    alone = prepare(open_source(str(hidden), val_only=True), tmp_path / "v", "demo", workers=2)
    assert (alone.counts, alone.classes) == ({"train": 0, "val": 100}, dataset.classes)
    assert (alone.folder / "val-00000.arrow").read_bytes() == (dataset.folder / "val-00000.arrow").read_bytes()
