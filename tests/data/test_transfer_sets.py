"""Caltech and VOC in their official layouts, and one line for each fault."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from transfer_files import VOC_CLASSES, pixels, voc_label, write_actions, write_caltech, write_voc

from vggrepro.data.transfer_sets.opening import open_set
from vggrepro.errors import InputError


def test_caltechs_background_is_a_class_and_stray_files_are_none(tmp_path: Path) -> None:
    root = write_caltech(tmp_path)
    for place in (tmp_path, root):
        data = open_set(str(place))
        assert (data.name, data.classes) == ("caltech-101", ("BACKGROUND_Google", "class1", "class2"))
        assert list(np.bincount(data.labels)) == [8, 8, 8]
        assert data.pictures["image"].keys(0, 2) == [
            "BACKGROUND_Google/image_0001.jpg",
            "BACKGROUND_Google/image_0002.jpg",
        ]
        assert data.labels.ndim == 1
    before = data.pictures["image"].fingerprint
    (root / "class1" / "image_0003.jpg").write_bytes((root / "class1" / "image_0004.jpg").read_bytes())
    assert open_set(str(root)).pictures["image"].fingerprint != before


def test_voc_trains_on_trainval_and_leaves_difficult_labels_at_zero(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    for place in (tmp_path, tmp_path / "VOCdevkit", root):
        data = open_set(str(place))
        assert (data.name, data.classes, data.scored) == ("voc2007", VOC_CLASSES, "test")
        assert data.labels.tolist() == [[voc_label(n, k) for k in range(3)] for n in range(12)]
        assert data.train is not None
        assert data.train.tolist() == [True] * 6 + [False] * 6


def test_without_test_labels_voc_trains_on_train_and_scores_val(tmp_path: Path) -> None:
    lists = write_voc(tmp_path, 2012) / "ImageSets" / "Main"
    for path in lists.glob("*_trainval.txt"):
        shutil.move(path, path.with_name(path.name.replace("trainval", "train")))
    for path in lists.glob("*_test.txt"):
        shutil.move(path, path.with_name(path.name.replace("test", "val")))
    data = open_set(str(tmp_path))
    assert (data.name, data.scored, len(data)) == ("voc2012", "val", 12)


def test_actions_have_a_row_a_person_with_image_and_box(tmp_path: Path) -> None:
    root = write_voc(tmp_path, 2012)
    write_actions(
        root, {"000000": [(1, 1, 40, 50), (11, 21, 90, 70)], "000001": [(5, 5, 60, 60)], "000002": [(1, 2, 30, 40)]}
    )
    data = open_set(str(root), "action")
    assert (data.name, data.classes) == ("voc2012-action", ("running", "walking"))
    assert data.pictures["box"].keys(0, 4) == ["000000-1", "000001-1", "000000-2", "000002-1"]
    assert data.places["image"].tolist() == [0, 1, 0, 2]
    whole = pixels(root / "JPEGImages" / "000000.jpg")
    np.testing.assert_array_equal(np.asarray(data.pictures["box"].image(2)), whole[20:70, 10:90])
    np.testing.assert_array_equal(np.asarray(data.pictures["box"].image(0)), whole[:50, :40])


def refused(folder: Path, *words: str, task: str = "classification") -> None:
    with pytest.raises(InputError) as caught:
        open_set(str(folder), task)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_faults_of_a_voc_folder_are_named(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    lists, good = root / "ImageSets" / "Main", tmp_path / "good"
    shutil.copytree(root, good)

    def mend() -> None:
        shutil.rmtree(root)
        shutil.copytree(good, root)

    path = lists / "bird_test.txt"
    path.write_text(path.read_text().replace(" 1", " 2", 1))
    refused(root, f"{path}:", "the label '2' is none of -1, 0 and 1")
    mend()
    (root / "JPEGImages" / "000004.jpg").unlink()
    refused(root, "names image '000004'", "is missing")
    mend()
    path.write_text("\n".join(path.read_text().splitlines()[1:]))
    refused(root, "'000006' is not in bird_test.txt")
    mend()
    for name in VOC_CLASSES[1:]:
        for part in ("trainval", "test"):
            (lists / f"{name}_{part}.txt").unlink()
    refused(root, "has 1 class")
    mend()
    refused(root, "no lists", task="action")


def test_faults_of_other_folders_are_named(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "is no folder", "caltech101")
    refused(tmp_path, "none of the known layouts")
    refused(write_caltech(tmp_path / "one", classes=1), "has 1 class; a classifier needs two")
    refused(write_caltech(tmp_path / "two"), "only VOC has it", task="action")
    write_caltech(tmp_path / "both")
    write_voc(tmp_path / "both")
    refused(tmp_path / "both", "holds several data sets")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "101_ObjectCategories.tar.gz").touch()
    refused(tmp_path / "packed", "unpack it")


def test_what_is_no_image_or_in_no_list_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_caltech(tmp_path) / "class1" / "image_0001.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        open_set(str(tmp_path)).pictures["image"].fingerprint  # noqa: B018
    assert str(caught.value) == f"{path} is no image (not an image); download it again or remove it"
    assert "left out of class folders, as no images: 1, such as BACKGROUND_Google/tmp" in capsys.readouterr().err
    images = write_voc(tmp_path / "voc") / "JPEGImages"
    shutil.copy(images / "000001.jpg", images / "999999.jpg")
    assert len(open_set(str(tmp_path / "voc"))) == 12
    assert "left out, as in no list of classification: 1 images, such as 999999" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "module"), [("caltech101", "caltech"), ("caltech256", "caltech"), ("voc2007", "voc"), ("voc2012", "voc")]
)
def test_a_set_by_name_is_where_torchvision_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    """torchvision's own classes, with made files in place of the archives that they download."""
    asked = []

    def unpack(url: str, download_root: str, filename: str = "", **_: object) -> None:
        root = Path(download_root)
        asked.append(url)
        if len(asked) == 1 and name.startswith("voc"):
            write_voc(root, int(name[3:]))
        elif len(asked) == 1:
            write_caltech(root).rename(root / f"{name[-3:]}_ObjectCategories")
            (root / "caltech-101").mkdir()  # newer versions unpack what is in it, and remove it with the archive
            (root / filename).touch()

    monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", unpack)
    data = open_set(name, downloads=tmp_path / "downloads")
    assert (data.name.replace("-", ""), len(data.classes)) == (name, 3)
    assert data.folder.is_relative_to(tmp_path / "downloads")
    downloads = len(asked)
    assert len(open_set(name, downloads=tmp_path / "downloads")) == len(data)
    assert len(asked) == downloads > 0  # what is there is not downloaded again


def test_a_download_that_fails_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("no network\nhere")

    monkeypatch.setattr("torchvision.datasets.voc.download_and_extract_archive", fail)
    with pytest.raises(InputError) as caught:
        open_set("voc2007", downloads=tmp_path)
    start = (
        "torchvision cannot download voc2007 (URLError: <urlopen error no network here>); try again, or get it from "
    )
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith(f"unpack it to {tmp_path / 'VOCdevkit' / 'VOC2007'}")


def test_lines_of_voc_that_are_no_example_or_list_too_few(tmp_path: Path) -> None:
    lists = write_voc(tmp_path) / "ImageSets" / "Main"
    path = lists / "cat_trainval.txt"
    good = path.read_text()
    for bad in ("000001", "000001 1 1", "000001 one"):
        path.write_text(good.replace(good.splitlines()[1], bad))
        refused(tmp_path, f"{path}:2: ", "download the list again")
    path.write_text(good)
    (lists / "trainval.txt").write_text((lists / "trainval.txt").read_text() + "000011\n")
    refused(tmp_path, "'000011' is not in aeroplane_trainval.txt, but in another list")
