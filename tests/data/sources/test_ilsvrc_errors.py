"""ILSVRC-2012 that is incomplete, damaged or of another year: what the user reads."""

from __future__ import annotations

import gzip
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from examples import everything, message
from ilsvrc_files import (
    LAYOUTS,
    META,
    TRAIN,
    TRUTH,
    VAL,
    WNIDS,
    devkit_tar,
    meta_mat,
    put,
    tar_bytes,
    train_tar,
    truth_text,
    write,
)
from scipy.io import savemat

from vggrepro.data import synsets
from vggrepro.data.sources import devkit, open_source
from vggrepro.errors import InputError


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
    assert "data/meta.mat is unreadable (lacks '" in given(devkit_tar(other_mat()))
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
