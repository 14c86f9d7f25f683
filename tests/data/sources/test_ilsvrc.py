"""ILSVRC-2012 in the layouts that people have, made in miniature: 1000 classes, images of six, as in the real files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from examples import everything, jpeg, message
from ilsvrc_files import (
    LAYOUTS,
    TEST,
    TRAIN,
    TRUTH,
    VAL,
    WNIDS,
    devkit_tar,
    meta_mat,
    put,
    tar_bytes,
    train_tar,
    write,
)

from vggrepro.data import synsets
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import FolderSource, IlsvrcSource, devkit, listing, open_source
from vggrepro.errors import InputError

ORDER = list(synsets.table())


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


def test_downloads_are_prepared_and_validation_images_alone_give_the_same_shard(tmp_path: Path) -> None:
    source = open_source(str(put(tmp_path / "downloads", *LAYOUTS["as downloaded"])))
    names = ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_img_test_v10102019.tar", devkit.TAR]
    assert [path.name for path, _ in source.checksums()] == names
    dataset = prepare(source, tmp_path / "all", "demo", workers=2)
    assert (dataset.counts["train"], dataset.counts["val"]) == (18, 7)
    assert (dataset.words[0], dataset.devkit_ids[:2]) == ("tench, Tinca tinca", (449, 450))
    (tmp_path / "downloads" / names[0]).unlink()
    alone = prepare(open_source(str(tmp_path / "downloads"), val_only=True), tmp_path / "val", "demo", workers=2)
    assert (alone.counts["train"], alone.counts["val"], alone.classes) == (0, 7, dataset.classes)
    assert (alone.folder / "val-00000.arrow").read_bytes() == (dataset.folder / "val-00000.arrow").read_bytes()


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
