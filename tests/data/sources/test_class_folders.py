"""Class folders as a source: what they give, and how they go wrong."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from conftest import CLASSES
from examples import alone, everything, message

from vggrepro.data.dataset import left_out
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import FolderSource, open_source
from vggrepro.errors import InputError
from vggrepro.system.files import read_json


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


def test_only_image_files_count_whatever_their_case_and_depth(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "p")
    ant = tmp_path / "p" / "train" / "ant"
    (ant / "notes.txt").write_text("not an image")
    (ant / "Thumbs.db").write_bytes(b"x")
    (ant / "._1.jpg").write_bytes(b"macOS")
    (ant / ".DS_Store").write_bytes(b"macOS")
    (ant / "images").mkdir()
    (ant / "0.jpg").rename(ant / "images" / "X.JPEG")
    (tmp_path / "p" / "train" / "labels.csv").write_text("beside the classes")
    source = open_source(str(tmp_path / "p"))
    keys = [key for key, _, label in everything(source, "train") if label == 0]
    assert keys == ["ant/1.jpg", "ant/2.jpg", "ant/3.jpg", "ant/4.jpg", "ant/images/X.JPEG"]
    assert source.left_out() == {
        "hidden or a system's own": 3,
        "without an image's suffix (1 .txt)": 1,
        "in train/ itself, without a class": 1,
    }


def test_a_test_folder_with_classes_or_without(photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "p"))
    test = folder / "test"
    shutil.copytree(photos / "val" / "bee", test)
    shutil.copytree(photos / "val" / "cat", test / "more")
    keys = [*(f"{n}.jpg" for n in range(3)), *(f"more/{n}.jpg" for n in range(3))]
    assert [(key, label) for key, _, label in everything(open_source(str(folder)), "test")] == [(k, -1) for k in keys]
    (test / "more").rename(test / "cat")
    assert f"{test} holds class folders but also 0.jpg; put every test image into a class folder" in message(folder)
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
    link.symlink_to(tmp_path)
    assert f"{link} cannot be read (Is a directory)" in message(folder)


def test_linked_folders_are_followed_and_each_is_read_once(photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "p"))
    ant, store = folder / "train" / "ant", tmp_path / "store"
    shutil.copytree(photos / "train" / "bee", store / "more" / "deep")
    (ant / "again").symlink_to(store / "more")
    (ant / "more").symlink_to(store / "more")  # the same folder: counts once
    (store / "more" / "round").symlink_to(store)  # leads back above it
    (ant / "self").symlink_to(ant)
    (ant / "up").symlink_to(folder / "train")  # holds the class itself: another class's images are not ant's
    keys = [key for key, _, label in everything(open_source(str(folder)), "train") if label == 0]
    assert keys == [f"ant/{n}.jpg" for n in range(5)] + [f"ant/again/deep/{n}.jpg" for n in range(5)]


def test_a_class_of_a_link_alone_and_a_linked_class(photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "p"))
    (folder / "train" / "ant").rename(tmp_path / "ants")
    (folder / "train" / "ant").mkdir()
    (folder / "train" / "ant" / "more").symlink_to(tmp_path / "ants")
    (folder / "train" / "bee").rename(tmp_path / "bees")
    (folder / "train" / "bee").symlink_to(tmp_path / "bees")
    source, plain = open_source(str(folder)), open_source(str(photos))
    assert [key for key, _, label in everything(source, "train") if label == 0] == [
        f"ant/more/{n}.jpg" for n in range(5)
    ]
    assert [e[1:] for e in everything(source, "train")] == [e[1:] for e in everything(plain, "train")]


def test_class_names_are_compared_in_one_unicode_form(photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "p"))
    composed = "caf\u00e9"
    decomposed = unicodedata.normalize("NFD", composed)
    (folder / "train" / "ant").rename(folder / "train" / composed)
    (folder / "val" / "ant").rename(folder / "val" / decomposed)
    source = open_source(str(folder))
    assert source.classes == ("bee", composed, *CLASSES[2:])
    label = source.classes.index(composed)
    for split, images in (("train", 5), ("val", 3)):
        keys = [key for key, _, found in everything(source, split) if found == label]
        assert keys == [f"{composed}/{n}.jpg" for n in range(images)]
    shutil.copytree(folder / "val" / decomposed, folder / "val" / composed)
    assert f"{folder / 'val'} has two folders '{composed}' that differ in their Unicode form only" in message(folder)


def test_folders_of_a_system_are_no_classes_and_windows_writes_capitals(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    shutil.copytree(photos / "train", folder / "Train")
    shutil.copytree(photos / "val", folder / "VAL")
    for place in (folder, folder / "Train", folder / "Train" / "bee"):
        (place / "@eaDir" / "0.jpg").mkdir(parents=True)
        (place / "@eaDir" / "0.jpg" / "SYNOPHOTO_THUMB.jpg").write_bytes(b"thumbnail")
        (place / "__MACOSX").mkdir()
        (place / ".DS_Store").write_bytes(b"macOS")
        (place / "Thumbs.db").write_bytes(b"Windows")
    source = open_source(str(folder))
    assert source.classes == CLASSES
    assert everything(source, "train") == everything(open_source(str(photos)), "train")
    assert source.left_out() == {"hidden or a system's own": 12}


def test_prepare_ends_with_what_it_left_out(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "p"))
    prepare(FolderSource(folder), tmp_path / "all", "demo", workers=0)
    assert capsys.readouterr().err.splitlines()[-1] == "prepare: no image was left out"
    (folder / "train" / "ant" / "notes.txt").write_text("no image")
    (folder / "train" / "ant" / ".hidden.jpg").write_bytes(b"x")
    (folder / "train" / "ant" / "9.jpg").write_bytes(b"no image")
    shutil.copy(photos / "val" / "ant" / "0.jpg", folder / "val" / "stray.jpg")
    (folder / "noisy.csv").write_text("beside")
    (folder / "extra").mkdir()
    for _ in range(2):  # the second time, nothing is done, and the same is said
        prepare(FolderSource(folder), tmp_path / "data", "demo", skip_bad=True, workers=0)
        assert capsys.readouterr().err.splitlines()[-1] == (
            "prepare: left out 1 unreadable, 1 hidden or a system's own, 1 without an image's suffix (1 .txt), "
            "1 in val/ itself, without a class, 2 beside the splits (extra, noisy.csv) "
            f"(listed in {tmp_path / 'data' / 'dataset.json'})"
        )
    assert "1 in val/ itself" in left_out(read_json(tmp_path / "data" / "dataset.json"))
