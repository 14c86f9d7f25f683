"""WebDataset tars as they are found, and as they go wrong."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES
from examples import everything, jpeg, refusal

from vggrepro.data import synsets
from vggrepro.data.dataset import Split
from vggrepro.data.images import decode
from vggrepro.data.prepare import prepare
from vggrepro.data.sources.webdataset import WebDatasetSource
from vggrepro.errors import InputError

Parts = list[tuple[str, bytes]]


def samples(count: int, prefix: str = "s", classes: int = 6) -> Parts:
    """`count` pairs of .jpg and .cls, the classes in turn."""
    stems = [(f"{prefix}{n:03}", n % classes) for n in range(count)]
    pairs = [[(f"{stem}.jpg", jpeg(label, 0)), (f"{stem}.cls", b"%d" % label)] for stem, label in stems]
    return [part for pair in pairs for part in pair]


def write(path: Path, parts: Parts) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in parts:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def message(folder: Path) -> str:
    return refusal(WebDatasetSource, folder)


def expected(parts: Parts) -> list[tuple[str, bytes, int]]:
    """What tars of `samples` hold."""
    return [(parts[n][0], parts[n][1], int(parts[n + 1][1])) for n in range(0, len(parts), 2)]


@pytest.mark.parametrize(
    "names",
    [
        ("train-0000.tar", "train-0001.tar", "val-0000.tar"),
        ("imagenet1k-train-0000.tar", "imagenet1k-train-0001.tar", "imagenet1k-validation-00.tar"),
        ("train/00.tar", "train/01.tar", "valid/00.tar"),
        ("data/Train_0.tar", "data/Train_1.tar", "data/test_0.tar"),
    ],
)
def test_tars_of_a_split_are_read_one_after_another(tmp_path: Path, names: tuple[str, str, str]) -> None:
    parts = samples(20)
    write(tmp_path / names[0], parts[:26])
    write(tmp_path / names[1], parts[26:])
    write(tmp_path / names[2], samples(6, "v"))
    assert WebDatasetSource.recognises(tmp_path)
    source = WebDatasetSource(tmp_path)
    assert (source.count("train"), source.count("val"), source.count("test")) == (20, 6, 0)
    assert source.classes == ("0", "1", "2", "3", "4", "5")
    assert everything(source, "val") == expected(samples(6, "v"))
    for start in range(21):
        assert everything(source, "train", start) == expected(parts)[start:]
    assert next(source.examples("train", 13)).place == f"{tmp_path / names[1]} member 's013.jpg'"


def test_what_is_no_webdataset(tmp_path: Path) -> None:
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz", "x.tar"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "train" / "ant").mkdir(parents=True)
    (tmp_path / "train-0.parquet").write_bytes(b"")
    assert not WebDatasetSource.recognises(tmp_path)
    (tmp_path / "val-00.tgz").write_bytes(b"")
    assert WebDatasetSource.recognises(tmp_path)  # to be told what is wrong


def test_it_becomes_a_data_set(tmp_path: Path) -> None:
    train, val = samples(18), samples(12, "v")
    write(tmp_path / "w" / "train-0.tar", train)
    write(tmp_path / "w" / "val-0.tar", val)
    write(tmp_path / "w" / "test-0.tar", [(f"t{n}.jpg", jpeg(n, 0)) for n in range(4)])
    (tmp_path / "w" / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    dataset = prepare(WebDatasetSource(tmp_path / "w"), tmp_path / "data", "demo", workers=0)
    assert (dataset.name, dataset.classes) == ("w", CLASSES)
    assert dataset.counts == {"train": 18, "val": 12, "test": 4}
    split = Split(dataset, "train")
    assert split.labels.tolist() == [n % 6 for n in range(18)]
    np.testing.assert_array_equal(split.image(7), decode(train[14][1]))
    assert split.key(7) == "s007.jpg"
    assert Split(dataset, "test").labels.tolist() == [-1] * 4


def test_members_of_all_kinds(tmp_path: Path) -> None:
    jpg, png = jpeg(0, 0), jpeg(1, 0, form="PNG")
    parts = [
        ("__shard__.json", b"{}"),
        ("._a.jpg", b"left by a Mac"),
        ("README", b""),
        ("./a.cls", b" 0\n"),
        ("./a.JPG", jpg),
        ("./a.txt", b"a caption"),
        ("./a.json", b'{"label": 5}'),  # .cls goes first
        ("sub/a.PnG", png),
        ("sub/a.seg.png", png),  # a mask, no second image
        ("sub/a.json", b'{"label": 1, "width": 40}'),
    ]
    write(tmp_path / "train.tar", parts)
    write(tmp_path / "val.tar", parts)
    source = WebDatasetSource(tmp_path)
    assert everything(source, "train") == [("a.JPG", jpg, 0), ("sub/a.PnG", png, 1)]


def test_test_images_need_no_label(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path / f"{split}.tar", samples(6))
    image = jpeg(0, 0)
    parts = [("a.jpg", image), ("b.jpg", image), ("b.cls", b"-1"), ("c.jpg", image), ("c.cls", b"4")]
    write(tmp_path / "test.tar", [*parts, ("d.jpg", image), ("d.json", b'{"label": null}')])
    source = WebDatasetSource(tmp_path)
    assert [label for _, _, label in everything(source, "test")] == [-1, -1, 4, -1]


def test_keys_of_several_tars_are_told_apart(tmp_path: Path) -> None:
    for name in ("train/0.tar", "train/1.tar", "val/0.tar"):
        write(tmp_path / name, samples(6))
    source = WebDatasetSource(tmp_path)
    keys = [f"train/{tar}.tar/s{n:03}.jpg" for tar in range(2) for n in range(6)]
    assert [key for key, _, _ in everything(source, "train")] == keys
    assert everything(source, "val") == expected(samples(6))


# Class names


WNIDS = [f"n0{label}000000" for label in (3, 1, 2, 6, 4, 5)]  # labels need not be their rank


def by_wnid(folder: Path, swap: bool = False) -> Path:
    def parts(numbers: range, order: list[str]) -> Parts:
        label_of = [(f"{order[n % 6]}_{n}", n % 6) for n in numbers]
        return [p for stem, label in label_of for p in ((f"{stem}.jpg", b"x"), (f"{stem}.cls", b"%d" % label))]

    write(folder / "train.tar", parts(range(12), WNIDS))
    write(folder / "val.tar", parts(range(6), WNIDS[::-1] if swap else WNIDS))
    return folder


def test_classes_from_keys(tmp_path: Path) -> None:
    source = WebDatasetSource(by_wnid(tmp_path / "a"))
    assert (source.classes, source.words) == (tuple(WNIDS), ())
    folder = by_wnid(tmp_path / "b")
    (folder / "classnames.txt").write_text("crane\nbee\ncat\ncrane\neel\nfox\n")  # as ImageNet has two cranes
    source = WebDatasetSource(folder)
    assert (source.classes, source.words) == (tuple(WNIDS), ("crane", "bee", "cat", "crane", "eel", "fox"))
    text = message(by_wnid(tmp_path / "c", swap=True))
    assert f"{tmp_path / 'c'}: label 0 is {WNIDS[5]} in the names of val, but class {WNIDS[0]}; write" in text
    folder = by_wnid(tmp_path / "d")
    (folder / "classes.txt").write_text("\n".join(sorted(WNIDS)))
    assert f"label 0 is {WNIDS[0]} in the names of train, but class {min(WNIDS)}" in message(folder)


def test_a_wnid_that_does_not_tell_the_class_names_none(tmp_path: Path) -> None:
    for split in ("train", "val"):
        parts = [(f"n00000001_{n}.{part}", b"%d" % n) for n in range(6) for part in ("jpg", "cls")]
        write(tmp_path / f"{split}.tar", parts)
    assert WebDatasetSource(tmp_path).classes == ("0", "1", "2", "3", "4", "5")


@pytest.mark.parametrize("heading", ["", "label\twnid\twords\n"])
def test_classes_with_words(tmp_path: Path, heading: str) -> None:
    for split in ("train", "val"):
        write(tmp_path / f"{split}.tar", samples(6))
    animals = zip(WNIDS, CLASSES, strict=True)
    lines = [f"{label}\t{wnid}\t{name}, an animal\n" for label, (wnid, name) in enumerate(animals)]
    (tmp_path / "classes.tsv").write_text(heading + "".join(lines))
    source = WebDatasetSource(tmp_path)
    assert source.classes == tuple(WNIDS)
    assert source.words == tuple(f"{name}, an animal" for name in CLASSES)
    (tmp_path / "classes.tsv").write_text("".join(lines[1:]))
    assert "classes.tsv: '1, n01000000, bee, an animal' should be label 0, wnid, words" in refusal(
        WebDatasetSource, tmp_path
    )


# What goes wrong


def test_samples_that_are_wrong(tmp_path: Path) -> None:
    good, image = samples(6), jpeg(0, 0)

    def folder(*more: tuple[str, bytes], split: str = "train") -> Path:
        at = tmp_path / str(len(list(tmp_path.iterdir())))
        for name in ("train", "val", "test"):
            write(at / f"{name}-0.tar", [*good, *(more if name == split else ())])
        return at

    def told(at: Path, split: str = "train") -> str:
        text = message(at)
        assert text.startswith(f"prepare: {at / split}-0.tar: ")
        return text

    text = told(folder(("x.cls", b"1"), ("x.txt", b"")))
    assert "sample 'x' has no images among its parts cls, txt; give it one" in text
    text = told(folder(("x.cls", b"1"), ("x.jpg", image), ("x.png", image)))
    assert "sample 'x' has 2 images among its parts cls, jpg, png; give it one" in text
    text = told(folder(("x.jpg", image), split="val"), "val")
    assert "sample 'x' has no label; add x.cls with the class number, or x.json with a 'label'" in text
    assert "sample 'x' has no label" in told(folder(("x.jpg", image), ("x.json", b'{"class": 3}')))
    assert "sample 'x' has no label" in told(folder(("x.jpg", image), ("x.json", b"[3]")))
    assert "'x.json' is no JSON; write the tar again" in told(folder(("x.jpg", image), ("x.json", b"{")))
    assert "label 'tench' of sample 'x' is no class number" in told(folder(("x.jpg", image), ("x.cls", b"tench")))
    assert "label '' of sample 'x' is no class number" in told(folder(("x.jpg", image), ("x.cls", b"")))
    assert "label '99999999999' of" in told(folder(("x.jpg", image), ("x.cls", b"9" * 11)))
    big = json.dumps({"label": 3, "more": "x" * 2_000_000}).encode()
    assert "'x.json' is no JSON" in told(folder(("x.jpg", image), ("x.json", big)))
    assert "label -1 of 'x.jpg' is outside the 6 classes; mend" in told(folder(("x.jpg", image), ("x.cls", b"-1")))
    text = told(folder(("x.jpg", image), ("x.cls", b"6"), split="val"), "val")
    assert "label 6 of 'x.jpg' is outside the 6 classes" in text
    assert "label -2 of 'x.jpg'" in told(folder(("x.jpg", image), ("x.cls", b"-2"), split="test"), "test")
    assert "member 's005.jpg' is there twice; give each sample a name of its own" in told(folder(*good[-2:]))
    assert "member 's000.jpg' is there twice" in told(folder(*good[:2]))


def test_folders_that_are_wrong(tmp_path: Path) -> None:
    def folder(name: str, **tars: Parts) -> Path:
        for split, parts in tars.items():
            write(tmp_path / name / f"{split}-0.tar", parts)
        return tmp_path / name

    good = samples(6)
    at = folder("a", train=good, extra=good)
    text = message(at)
    assert f"{at}: no validation or valid or val or test tars among extra-0.tar, train-0.tar; names contain" in text
    at = folder("b", val=good)
    assert f"{at}: no train or training tars among val-0.tar" in message(at)
    at = folder("c", train=samples(12, classes=4) + samples(1, "x", 10)[:1] + [("x000.cls", b"999999999")], val=good)
    assert f"{at}: train has no image of label 4 but some of 999999999; number the classes" in refusal(
        WebDatasetSource, at
    )
    at = folder("d", train=good, val=good[:8])
    assert f"{at}: val has no image of class 4, 5; add one" in message(at)
    at = folder("e", train=[], val=good)
    assert f"{at}: its train tars hold no sample; download" in message(at)
    at = folder("f", train=good, val=[])
    assert f"{at}: its val tars hold no sample" in message(at)
    at = folder("g", train=good, val=good)
    (at / "classes.txt").write_text("\n".join(CLASSES[:5]))
    assert "train-0.tar: label 5 of 's005.jpg' is outside the 5 classes" in message(at)
    (at / "classes.txt").write_text("\n".join((*CLASSES, "gnu")))
    assert f"{at}: train has no image of class gnu" in message(at)
    (at / "classes.txt").write_text("ant\n\ncat\n")
    assert f"{at / 'classes.txt'}: line 2 is empty; give each class one line" in message(at)
    (at / "classes.txt").write_text("\n".join((*CLASSES[:5], "ant")))
    assert f"{at}: class names that come twice: ant; make them distinct" in message(at)
    (at / "classes.txt").write_bytes(b"\xff\xfe\xff")
    assert f"{at / 'classes.txt'} cannot be read ('utf-8' codec" in message(at)


def test_tars_that_are_wrong(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path / f"{split}-0.tar", samples(6))
    whole = (tmp_path / "train-0.tar").read_bytes()
    (tmp_path / "train-0.tar").write_bytes(whole[: 512 + 300])
    text = message(tmp_path)
    assert f"prepare: {tmp_path / 'train-0.tar'}: " in text and "download it again" in text
    (tmp_path / "train-0.tar").write_bytes(gzip.compress(whole))
    assert f"{tmp_path / 'train-0.tar'}: is gzip-compressed; gunzip it" in message(tmp_path)
    (tmp_path / "train-0.tar").rename(tmp_path / "train-0.tar.gz")
    assert f"{tmp_path / 'train-0.tar.gz'} is compressed, which leaves no random access; gunzip" in refusal(
        WebDatasetSource, tmp_path
    )


def test_changed_tars_are_noticed(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path / f"{split}-0.tar", samples(6))
    before = WebDatasetSource(tmp_path).contents()
    assert before == WebDatasetSource(tmp_path).contents()
    write(tmp_path / "train-1.tar", samples(6, "more"))
    assert WebDatasetSource(tmp_path).contents() != before


# Validation images alone


def test_validation_tars_alone(tmp_path: Path) -> None:
    parts = samples(12, "v")
    write(tmp_path / "val-0.tar", parts)
    assert message(tmp_path) == (
        f"prepare: {tmp_path}: no train or training tars among val-0.tar; names contain their split, such as "
        "train-0000.tar; without any, give --val-only, which is enough to evaluate nets trained elsewhere"
    )
    source = WebDatasetSource(tmp_path, val_only=True)
    assert (source.classes, source.count("train"), source.count("val")) == (tuple("012345"), 0, 12)
    assert everything(source, "val") == expected(parts)
    (tmp_path / "train-0.tar").write_bytes(b"not looked at")
    (tmp_path / "test-0.tar").write_bytes(b"not looked at")
    assert WebDatasetSource(tmp_path, val_only=True).contents() == source.contents()
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    dataset = prepare(WebDatasetSource(tmp_path, val_only=True), tmp_path / "data", "demo", workers=0)
    assert (dataset.classes, dataset.counts) == (CLASSES, {"train": 0, "val": 12})
    write(tmp_path / "val-0.tar", samples(4, "v"))
    with pytest.raises(InputError, match="val has no image of class eel, fox"):
        WebDatasetSource(tmp_path, val_only=True)
    (tmp_path / "classes.txt").unlink()
    write(tmp_path / "val-0.tar", [*samples(4, "v"), ("x.jpg", jpeg(0, 0)), ("x.cls", b"9")])
    with pytest.raises(InputError, match="val has no image of label 4 but some of 9; number the classes from 0"):
        WebDatasetSource(tmp_path, val_only=True)


def test_imagenets_validation_tars_are_known_by_the_first_images(tmp_path: Path) -> None:
    def val(labels: dict[int, int]) -> Parts:
        stems = {f"ILSVRC2012_val_{n:08}": label for n, label in labels.items()}
        return [part for s, n in stems.items() for part in ((f"{s}.jpg", jpeg(n % 6, n)), (f"{s}.cls", b"%d" % n))]

    truth = {**synsets.FIRST_IMAGES, 7: 0, 20: 999}
    write(tmp_path / "imagenet1k-validation-00.tar", val(truth))
    source = WebDatasetSource(tmp_path, val_only=True)
    assert (source.name, source.classes) == ("imagenet", tuple(synsets.table()))
    assert (source.words[0], source.devkit_ids[0]) == ("tench, Tinca tinca", 449)
    dataset = prepare(source, tmp_path / "data", "demo", workers=0)
    assert (dataset.subset, len(dataset.classes)) == ("6 of 50,000 validation images", 1000)
    write(tmp_path / "imagenet1k-validation-00.tar", val({**truth, 1: 489}))
    with pytest.raises(InputError, match="val has no image of label 1 but some of 999"):
        WebDatasetSource(tmp_path, val_only=True)


@pytest.mark.parametrize(("shift", "known"), [(0, True), (1, False)])
def test_a_part_of_imagenets_validation_images_is_known_by_the_wnids_in_its_names(
    tmp_path: Path, shift: int, known: bool
) -> None:
    wnids = list(synsets.table())
    stems = {f"ILSVRC2012_val_{9 + label:08}_{wnids[label + shift]}": label for label in range(6)}
    pairs = [((f"{stem}.jpg", jpeg(label, 0)), (f"{stem}.cls", b"%d" % label)) for stem, label in stems.items()]
    write(tmp_path / "val-0.tar", [part for pair in pairs for part in pair])
    source = WebDatasetSource(tmp_path, val_only=True)
    assert (source.name == "imagenet", len(source.classes)) == (known, 1000 if known else 6)
    assert source.subset == ("6 of 50,000 validation images" if known else "")


def test_a_samples_files_must_be_neighbours(tmp_path: Path) -> None:
    parts = samples(12)
    for apart in (parts[::2] + parts[1::2], parts[1::2] + parts[::2]):
        write(tmp_path / "train-0.tar", apart)
        write(tmp_path / "val-0.tar", samples(6))
        text = message(tmp_path)
        assert f"{tmp_path / 'train-0.tar'}: the files of sample 's000' lie apart" in text
        assert "must be neighbours; sort them: " in text and "'tar --sort=name -cf NEW.tar -C FOLDER .'" in text
    write(tmp_path / "train-0.tar", [(f"./{name}", data) for name, data in sorted(apart)])  # as tar does it
    assert everything(WebDatasetSource(tmp_path), "train") == expected(parts)


def test_files_of_no_sample_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "train-0.tar", [("._s000.jpg", b"macOS"), ("README", b"x"), *samples(12)])
    write(tmp_path / "val-0.tar", samples(6))
    write(tmp_path / "rest.tar", samples(6))
    (tmp_path / "._val-0.tar").write_bytes(b"macOS")
    assert WebDatasetSource(tmp_path).left_out() == {
        "hidden or a system's own": 1,
        "without an image's suffix (1 no suffix)": 1,
        "tars of no split": 1,
    }
