"""Folders that descend from ImageNet: Tiny ImageNet and ImageNet-V2 as downloaded, imagenette as unpacked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from examples import alone, everything, jpeg, message

from vggrepro.data import synsets
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import FolderSource, open_source
from vggrepro.data.sources.numbered import NumberedSource
from vggrepro.data.sources.tiny_imagenet import TinyImageNetSource

WNIDS = ("n01443537", "n01440764", "n02119789", "n03888257", "n04557648", "n12267677")  # as in wnids.txt: not sorted


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Tiny ImageNet of six classes: two training images of each class, one for validation, two of test."""
    folder, lines = tmp_path / "tiny-imagenet-200", []
    for label, wnid in enumerate(WNIDS):
        for number in range(2):
            write(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", jpeg(label, number))
        write(folder / "train" / wnid / f"{wnid}_boxes.txt", b"boxes")
        write(folder / "val" / "images" / f"val_{5 - label}.JPEG", jpeg(label, 9))
        lines.append(f"val_{5 - label}.JPEG\t{wnid}\t0\t32\t44\t62\n")
        write(folder / "test" / "images" / f"test_{label}.JPEG", jpeg(label, 10))
    write(folder / "val" / "val_annotations.txt", "".join(lines).encode())
    write(folder / "wnids.txt", "\n".join(WNIDS).encode())
    words = [f"{wnid}\tword {label}, other" for label, wnid in enumerate(WNIDS)]
    write(folder / "words.txt", "\n".join(["n00001740\tentity", *words]).encode())
    return folder


def test_tiny_imagenet_prepares_as_downloaded(tiny: Path, tmp_path: Path) -> None:
    source = open_source(str(tiny))
    assert isinstance(source, TinyImageNetSource)
    assert source.classes == tuple(sorted(WNIDS))
    assert source.words == tuple(f"word {WNIDS.index(wnid)}, other" for wnid in sorted(WNIDS))
    train = everything(source, "train")
    assert [key for key, _, _ in train[:2]] == [f"n01440764/images/n01440764_{n}.JPEG" for n in range(2)]
    for key, data, label in everything(source, "val"):
        wnid = WNIDS[5 - int(key[4])]
        assert (source.classes[label], data) == (wnid, (tiny / "val" / "images" / key).read_bytes())
    assert [label for _, _, label in everything(source, "test")] == [-1] * 6
    assert source.left_out() == {"without an image's suffix (6 .txt)": 6}
    made = prepare(source, tmp_path / "data", "demo", workers=0)
    assert made.counts == {"train": 12, "val": 6, "test": 6}
    assert made.words[0] == "word 1, other"


def test_tiny_imagenets_validation_images_alone(tiny: Path) -> None:
    whole = open_source(str(tiny))
    images = everything(whole, "val")
    shutil.rmtree(tiny / "train")
    source = alone(tiny)
    assert source.classes == whole.classes
    assert everything(source, "val") == images
    (tiny / "wnids.txt").unlink()
    assert alone(tiny).classes == whole.classes
    assert "has a validation folder but no train/" in message(tiny)


def test_tiny_imagenet_that_is_wrong(tiny: Path) -> None:
    annotations = tiny / "val" / "val_annotations.txt"
    text = annotations.read_text()
    annotations.write_text(text.replace("val_0.JPEG", "val_9.JPEG"))
    assert f"val_0.JPEG has no line in {annotations}; add one or remove it" in message(tiny)
    annotations.write_text(text.replace(WNIDS[0], "n09999999"))
    assert f"{annotations}: 'n09999999' of val_5.JPEG is none of the 6 classes" in message(tiny)
    annotations.write_text("nothing")
    assert f"{annotations} is empty or has a line without a tab" in message(tiny)
    annotations.write_text(text)
    shutil.rmtree(tiny / "train" / WNIDS[0])
    assert f"different classes (only in train: none; only in val: {WNIDS[0]})" in message(tiny)


@pytest.mark.parametrize(
    ("name", "wnid", "words"),
    [
        ("imagenette2-320", "n01440764", "tench, Tinca tinca"),
        ("imagewoof2-160", "n02086240", "Shih-Tzu"),
    ],
)
def test_imagenette_and_imagewoof_as_unpacked(tmp_path: Path, name: str, wnid: str, words: str) -> None:
    folder, noise = tmp_path / name, f"noisy_{name.partition('2')[0]}.csv"
    for label, kind in enumerate((wnid, *WNIDS[2:5])):
        write(folder / "train" / kind / f"{kind}_1.JPEG", jpeg(label, 0))
        write(folder / "train" / kind / "ILSVRC2012_val_00000907.JPEG", jpeg(label, 2))  # some are ILSVRC's validation
        write(folder / "val" / kind / f"{kind}_40.JPEG", jpeg(label, 1))
    write(folder / noise, b"path,noisy_labels_0")
    source = open_source(str(folder))
    assert type(source) is FolderSource
    assert (source.name, source.classes[0], source.words[0]) == (name, wnid, words)
    assert (source.count("train"), source.count("val")) == (8, 4)
    assert source.left_out() == {f"beside the splits ({noise})": 1}


@pytest.mark.parametrize("inner", ["", "val"])
def test_the_numbered_folders_of_imagenet_v2_are_in_the_order_of_wnids(
    tmp_path: Path, inner: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = tmp_path / "imagenetv2", jpeg(0, 0, size=(8, 8))
    for label in range(1000):
        write(folder / inner / str(label) / f"{label:04}.jpeg", data)
    source = alone(folder)
    assert isinstance(source, NumberedSource)
    assert source.classes == tuple(synsets.table())
    assert len(source.devkit_ids) == 1000
    labels = {int(Path(example.place).parent.name): example.label for example in source.examples("val", 0)}
    assert labels == {label: label for label in range(1000)}
    said = capsys.readouterr().err
    assert "the folders 0 to 999 are taken for ImageNet's class indices in the order of wnids (0 is n01440764" in said
    assert "not sorted as text" in said
    if not inner:
        assert "holds validation images only; give --val-only" in message(folder)
