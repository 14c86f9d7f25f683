"""Which source the command line's word opens, and what is no source."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from examples import alone, message
from ilsvrc_files import devkit_tar, put

from vggrepro.data.sources import open_source


def test_what_is_no_source(tmp_path: Path) -> None:
    text = message(tmp_path / "none")
    assert f"'{tmp_path / 'none'}' does not exist; give 'demo', a folder or a torchvision data set by name" in text
    assert "'cifar-10' does not exist; did you mean cifar10?" in message(Path("cifar-10"))
    (tmp_path / "file.tar").write_bytes(b"")
    assert "is a file; give the folder that holds it" in message(tmp_path / "file.tar")
    (tmp_path / "apart" / "empty").mkdir(parents=True)
    text = message(tmp_path / "apart" / "empty")
    assert "has no known layout; known layouts: 'demo'; ILSVRC-2012 as downloaded (ILSVRC2012_img_train.tar" in text
    assert "; a folder with train/<class>/ and val/<class>/ image folders; " in text
    assert "Hugging Face parquet" in text


def test_a_level_too_high_or_too_low(photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "apart" / "deep" / "photos"))
    found = f"but {folder} has: a folder with train/<class>/ and val/<class>/ image folders; give that"
    assert found in message(folder.parent)
    assert found in message(folder / "train")
    assert found in message(folder / "train" / "ant")


def test_the_demos_validation_images_alone() -> None:
    source = alone("demo")
    assert (source.count("val"), source.classes) == (1200, open_source("demo").classes)
    assert next(source.examples("val", 559)) == next(open_source("demo").examples("val", 559))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize("name", ["train-00000-of-00001.parquet", "train-0000.tar", "ILSVRC2012_img_val.tar"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POINTER)
    (tmp_path / name.replace("train", "validation")).write_bytes(POINTER)
    (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(b"" if "ILSVRC" not in name else devkit_tar())
    assert message(tmp_path).endswith(f"{name} is a pointer of Git LFS; fetch the file itself with 'git lfs pull'")


def test_a_devkit_that_is_a_pointer_of_git_lfs(tmp_path: Path) -> None:
    put(tmp_path, "train.tar", "val.tar")
    (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(POINTER)
    assert "devkit_t12.tar.gz is a pointer of Git LFS; fetch the file itself with 'git lfs pull'" in message(tmp_path)
