"""Data sets by name: torchvision's own classes on miniature files, as if they had been downloaded before."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from conftest import photo
from examples import everything, refusal
from PIL import Image
from torchvision import datasets

from vggrepro.data.dataset import Split
from vggrepro.data.images import decode
from vggrepro.data.prepare import prepare
from vggrepro.data.sources.base import Source
from vggrepro.data.sources.torchvision import ENTRIES, NAMES, open_named
from vggrepro.errors import InputError

WNIDS = sorted(datasets.Imagenette._WNID_TO_CLASS)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("no network\nhere")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def image(path: Path, label: int, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(label % 10, seed, 32, 24)).save(path)
    return path


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def pixels(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


# A miniature of each data set: 7 classes or as many as torchvision prescribes, 2 training images and 1 other each


def imagenette(root: Path, patch: pytest.MonkeyPatch, size: str = "") -> None:
    for split, count in (("train", 2), ("val", 1)):
        for label, wnid in enumerate(WNIDS):
            for n in range(count):
                image(root / f"imagenette2{size}" / split / wnid / f"{split}_{n}.JPEG", label, n)


def idx(kind: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def write(root: Path, patch: pytest.MonkeyPatch) -> None:
        raw = root / kind / "raw"
        raw.mkdir(parents=True)
        for part, count in (("train", 20), ("t10k", 10)):
            head = b"".join(value.to_bytes(4, "big") for value in (0x803, count, 28, 28))
            (raw / f"{part}-images-idx3-ubyte").write_bytes(head + pixels(count, 28, 28).tobytes())
            head = b"".join(value.to_bytes(4, "big") for value in (0x801, count))
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(head + bytes(n % 10 for n in range(count)))

    return write


def cifar(root: Path, patch: pytest.MonkeyPatch, kind: Any, labels: str, names: str) -> None:
    folder = root / kind.base_folder
    folder.mkdir(parents=True)

    def write(name: str, value: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(value))
        return md5(folder / name)

    for attribute, per_file in (("train_list", 20 // len(kind.train_list)), ("test_list", 10)):
        patched = []
        for number, (name, _) in enumerate(getattr(kind, attribute)):
            found = [(number * per_file + n) % 10 for n in range(per_file)]
            patched.append([name, write(name, {"data": pixels(per_file, 3072), labels: found})])
        patch.setattr(kind, attribute, patched)
    value = write(kind.meta["filename"], {names: [f"class {n}" for n in range(10)]})
    patch.setattr(kind, "meta", kind.meta | {"md5": value})


def cifar10(root: Path, patch: pytest.MonkeyPatch) -> None:
    cifar(root, patch, datasets.CIFAR10, "labels", "label_names")


def cifar100(root: Path, patch: pytest.MonkeyPatch) -> None:
    cifar(root, patch, datasets.CIFAR100, "fine_labels", "fine_label_names")


def svhn(root: Path, patch: pytest.MonkeyPatch) -> None:
    scipy = pytest.importorskip("scipy.io")
    root.mkdir()
    parts = {}
    for split, count in (("train", 20), ("test", 10)):
        name = f"{split}_32x32.mat"
        labels = np.array([[n % 10 or 10] for n in range(count)], np.uint8)  # SVHN calls the digit 0 "10"
        scipy.savemat(root / name, {"X": pixels(count, 32, 32, 3).transpose(1, 2, 3, 0), "y": labels})
        parts[split] = ["http://nowhere", name, md5(root / name)]
    patch.setattr(datasets.SVHN, "split_list", parts)


def stl10(root: Path, patch: pytest.MonkeyPatch) -> None:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    (folder / "class_names.txt").write_text("".join(f"class {n}\n" for n in range(10)))
    (folder / "unlabeled_X.bin").write_bytes(b"")
    for split, count in (("train", 20), ("test", 10)):
        (folder / f"{split}_X.bin").write_bytes(pixels(count, 3, 96, 96).tobytes())
        (folder / f"{split}_y.bin").write_bytes(bytes(n % 10 + 1 for n in range(count)))
    for attribute in ("train_list", "test_list"):
        files = [[name, md5(folder / name)] for name, _ in getattr(datasets.STL10, attribute)]
        patch.setattr(datasets.STL10, attribute, files)


def food101(root: Path, patch: pytest.MonkeyPatch) -> None:
    for split, count in (("train", 2), ("test", 1)):
        listed = {f"dish_{c}": [f"dish_{c}/{split}{n}" for n in range(count)] for c in range(7)}
        for label, name in ((int(key[-1]), name) for key, names in listed.items() for name in names):
            image(root / "food-101" / "images" / f"{name}.jpg", label, len(name))
        (root / "food-101" / "meta").mkdir(exist_ok=True)
        (root / "food-101" / "meta" / f"{split}.json").write_text(json.dumps(listed))


def flowers102(root: Path, patch: pytest.MonkeyPatch) -> None:
    scipy = pytest.importorskip("scipy.io")
    for number in range(1, 409):
        image(root / "flowers-102" / "jpg" / f"image_{number:05}.jpg", number, number)
    ids = np.arange(1, 409)
    parts = {"trnid": ids[:204], "valid": ids[204:306], "tstid": ids[306:]}
    scipy.savemat(root / "flowers-102" / "setid.mat", parts)
    scipy.savemat(root / "flowers-102" / "imagelabels.mat", {"labels": (ids - 1) % 102 + 1})
    sums = {key: (name, md5(root / "flowers-102" / name)) for key, name in MATS.items()}
    patch.setattr(datasets.Flowers102, "_file_dict", datasets.Flowers102._file_dict | sums)


MATS = {"label": "imagelabels.mat", "setid": "setid.mat"}


def pets(root: Path, patch: pytest.MonkeyPatch) -> None:
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for split, count in (("trainval", 2), ("test", 1)):
        lines = []
        for label in range(7):
            for n in range(count):
                image(folder / "images" / f"big_cat{label}_{split}{n}.jpg", label, n)
                lines.append(f"big_cat{label}_{split}{n} {label + 1} 1 1\n")
        (folder / "annotations" / f"{split}.txt").write_text("".join(lines))


def dtd(root: Path, patch: pytest.MonkeyPatch) -> None:
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        names = [f"woven{label}/{split}{n}.jpg" for label in range(7) for n in range(count)]
        for name in names:
            image(root / "dtd" / "dtd" / "images" / name, int(name[5]), 0)
        (root / "dtd" / "dtd" / "labels").mkdir(exist_ok=True)
        (root / "dtd" / "dtd" / "labels" / f"{split}1.txt").write_text("\n".join(names) + "\n")


def gtsrb(root: Path, patch: pytest.MonkeyPatch) -> None:
    lines = ["Filename;Width;Height;ClassId"]
    for label in range(43):
        for n in range(2):
            image(root / "gtsrb" / "GTSRB" / "Training" / f"{label:05}" / f"{n}.ppm", label, n)
        image(root / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / f"{label:05}.ppm", label, 2)
        lines.append(f"{label:05}.ppm;32;24;{label}")
    (root / "gtsrb" / "GT-final_test.csv").write_text("\n".join(lines) + "\n")


def country211(root: Path, patch: pytest.MonkeyPatch) -> None:
    for split, count in (("train", 2), ("valid", 1), ("test", 1)):
        for label, code in enumerate(("AD", "BE", "CH", "DE", "ES", "FR", "GB")):
            for n in range(count):
                image(root / "country211" / split / code / f"{n}.jpg", label, n)


def aircraft(root: Path, patch: pytest.MonkeyPatch) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for label in range(7):
            for n in range(count):
                image(data / "images" / f"{split}{label}{n}.jpg", label, n)
        lines = [f"{split}{label}{n} F-16 {label}\n" for label in range(7) for n in range(count)]
        (data / f"images_variant_{split}.txt").write_text("".join(lines))
    (data / "variants.txt").write_text("".join(f"F-16 {label}\n" for label in range(7)))


def cars(root: Path, patch: pytest.MonkeyPatch) -> None:
    scipy = pytest.importorskip("scipy.io")
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array([f"Fiat {label}" for label in range(7)], object)
    scipy.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    files = {"train": folder / "devkit" / "cars_train_annos.mat", "test": folder / "cars_test_annos_withlabels.mat"}
    for split, count in (("train", 14), ("test", 7)):
        rows = [(f"{n:05}.jpg", n % 7 + 1) for n in range(count)]
        for name, label in rows:
            image(folder / f"cars_{split}" / name, label, 0)
        scipy.savemat(files[split], {"annotations": np.array(rows, [("fname", object), ("class", np.uint8)])})


MINIATURES: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "imagenette": imagenette,
    "imagenette-320": lambda root, patch: imagenette(root, patch, "-320"),
    "imagenette-160": lambda root, patch: imagenette(root, patch, "-160"),
    "cifar10": cifar10,
    "cifar100": cifar100,
    "mnist": idx("MNIST"),
    "fashion-mnist": idx("FashionMNIST"),
    "kmnist": idx("KMNIST"),
    "svhn": svhn,
    "stl10": stl10,
    "food101": food101,
    "flowers102": flowers102,
    "oxford-iiit-pet": pets,
    "dtd": dtd,
    "gtsrb": gtsrb,
    "country211": country211,
    "fgvc-aircraft": aircraft,
    "stanford-cars": cars,
}
FILES = {"imagenette", "imagenette-320", "imagenette-160", "food101", "flowers102", "dtd", "country211"}
FILES |= {"fgvc-aircraft", "stanford-cars"}


@pytest.mark.parametrize("name", NAMES)
def test_every_set_becomes_a_data_set(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "downloads"
    MINIATURES[name](root, monkeypatch)
    source = open_named(name, root)
    classes = len(source.classes)
    splits = tuple(ENTRIES[name].parts)
    assert [source.count(split) for split in ("train", "val", "test")] == [
        2 * classes,
        classes,
        classes if "test" in splits else 0,
    ]
    for split in splits:
        found = everything(source, split)
        assert len({key for key, _, _ in found}) == source.count(split)
        assert {label for _, _, label in found} == set(range(classes))
        assert everything(source, split, 5) == found[5:]
        if name in FILES:
            assert all((root / key).read_bytes() == data for key, data, _ in found)
        else:
            assert all(Image.open(io.BytesIO(data)).format == "PNG" for _, data, _ in found)
    assert source.contents() == open_named(name, root).contents()
    assert source.subset.startswith(f"{2 * classes} of {ENTRIES[name].images[0]:,} train images, {classes} of ")
    dataset = prepare(source, tmp_path / "data", "demo", workers=0)
    assert dataset.classes == source.classes and dataset.name == name
    assert dataset.counts == {split: source.count(split) for split in splits}
    kept = Split(dataset, "val")
    assert [bytes(kept.image_bytes(n)) for n in range(classes)] == [data for _, data, _ in everything(source, "val")]


def test_arrays_keep_their_exact_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(name: str, split: str) -> np.ndarray:
        source = open_named(name, tmp_path / name)
        return np.stack([decode(example.data) for example in source.examples(split, 0)])

    for name in ("fashion-mnist", "cifar10", "svhn", "stl10", "gtsrb"):
        MINIATURES[name](tmp_path / name, monkeypatch)
    grey = np.repeat(pixels(10, 28, 28)[..., None], 3, axis=3)
    np.testing.assert_array_equal(decoded("fashion-mnist", "val"), grey)
    colours = pixels(10, 3072).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(decoded("cifar10", "val"), colours)
    np.testing.assert_array_equal(decoded("svhn", "val"), pixels(10, 32, 32, 3))
    columns = pixels(10, 3, 96, 96).transpose(0, 3, 2, 1)  # STL-10 stores columns first
    np.testing.assert_array_equal(decoded("stl10", "val"), columns)
    np.testing.assert_array_equal(decoded("gtsrb", "train")[2:4], [photo(1, n, 32, 24) for n in range(2)])


def test_class_names_and_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def source(name: str) -> Source:
        MINIATURES[name](tmp_path / name, monkeypatch)
        return open_named(name, tmp_path / name)

    found = source("imagenette-160")
    assert found.classes == tuple(WNIDS)
    assert (found.words[0], found.words[3]) == ("tench, Tinca tinca", "chain saw, chainsaw")
    assert everything(found, "train")[2][0] == "imagenette2-160/train/n02102040/train_0.JPEG"
    assert source("mnist").classes[3] == "3 - three"
    assert source("cifar10").classes[:2] == ("class 0", "class 1")
    assert source("gtsrb").classes[41:] == ("41", "42")
    assert source("oxford-iiit-pet").classes[0] == "Big Cat0"
    assert everything(source("svhn"), "train")[0][2] == 0


def test_a_test_part_is_validation_only_where_there_is_no_other() -> None:
    for name, entry in ENTRIES.items():
        used = [str(arguments.get("split", arguments.get("train"))) for arguments in entry.parts.values()]
        assert used[1] in ("val", "valid", "test", "False"), name
        assert (used[1] in ("test", "False")) == (len(used) == 2) or name.startswith("imagenette"), name
        assert len(entry.images) == len(used)


def test_changed_files_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, path in (("imagenette", f"imagenette2/val/{WNIDS[3]}/val_0.JPEG"), ("kmnist", RAW)):
        MINIATURES[name](tmp_path / name, monkeypatch)
        before = open_named(name, tmp_path / name).contents()
        data = (tmp_path / name / path).read_bytes()
        (tmp_path / name / path).write_bytes(data[:-1] + (b"" if name == "imagenette" else bytes([data[-1] ^ 1])))
        assert open_named(name, tmp_path / name).contents() != before


def message(name: str, root: Path) -> str:
    return refusal(open_named, name, root)


RAW = "KMNIST/raw/t10k-labels-idx1-ubyte"


@pytest.mark.parametrize("name", NAMES)
def test_without_network_the_cause_and_a_way_are_told(name: str, tmp_path: Path) -> None:
    if ENTRIES[name].scipy:
        pytest.importorskip("scipy")
    text = message(name, tmp_path)
    cause = "The original URL is broken" if name == "stanford-cars" else "no network here"
    assert f"torchvision cannot download or read {name} (" in text and cause in text
    assert f"try again, or put it into {tmp_path} by hand: {ENTRIES[name].get}" in text


def test_what_else_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no data set 'cifar11'; known names: imagenette, imagenette-320," in message("cifar11", tmp_path)
    food101(tmp_path, monkeypatch)
    gone = tmp_path / "food-101" / "images" / "dish_3" / "train1.jpg"
    gone.unlink()
    assert f"{gone} cannot be read (No such file or directory); remove its files and prepare it" in refusal(
        open_named, "food101", tmp_path
    )
    (tmp_path / "food-101" / "meta" / "test.json").write_text('{"dish_0": ["dish_0/test0"]}')
    assert f"food101 in {tmp_path}: train and val hold different classes; remove" in refusal(
        open_named, "food101", tmp_path
    )
    (tmp_path / "food-101" / "meta" / "test.json").write_text("{")
    assert "cannot download or read food101 (JSONDecodeError: Expecting" in message("food101", tmp_path)
    pets(tmp_path, monkeypatch)
    gone = tmp_path / "oxford-iiit-pet" / "images" / "big_cat2_test0.jpg"
    gone.unlink()
    assert f"{gone} cannot be read (No such file or directory); remove" in refusal(
        open_named, "oxford-iiit-pet", tmp_path
    )
    monkeypatch.setattr("vggrepro.data.sources.torchvision.find_spec", lambda _: None)
    assert "svhn comes in .mat files, which torchvision reads with scipy; install scipy" in refusal(
        open_named, "svhn", tmp_path
    )


def test_a_corrupt_image_is_left_to_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pets(tmp_path / "d", monkeypatch)
    (tmp_path / "d" / "oxford-iiit-pet" / "images" / "big_cat0_trainval1.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="oxford-iiit-pet train image 1 is no readable image"):
        prepare(open_named("oxford-iiit-pet", tmp_path / "d"), tmp_path / "a", "demo", workers=0)
    kept = prepare(open_named("oxford-iiit-pet", tmp_path / "d"), tmp_path / "b", "demo", workers=0, skip_bad=True)
    assert kept.counts == {"train": 13, "val": 7}


def test_older_torchvision_without_loader_gives_exact_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Old(datasets.Food101):  # the signature before 0.22
        def __init__(self, root: Path, split: str = "train", download: bool = False) -> None:
            super().__init__(root, split, download=download)

    food101(tmp_path, monkeypatch)
    files = everything(open_named("food101", tmp_path), "val")
    monkeypatch.setattr(datasets, "Food101", Old)
    for (_, data, label), (key, png, same) in zip(
        files, everything(open_named("food101", tmp_path), "val"), strict=True
    ):
        assert (key, same) == (f"val-{label:06}.png", label)
        np.testing.assert_array_equal(decode(png), decode(data))


def test_a_cut_off_download_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imagenette(tmp_path, monkeypatch)
    shutil.rmtree(tmp_path / "imagenette2" / "train" / WNIDS[-1])
    assert "train and val hold different classes" in message("imagenette", tmp_path)
    shutil.rmtree(tmp_path / "imagenette2" / "val" / WNIDS[-1])
    assert open_named("imagenette", tmp_path).subset == "18 of 9,469 train images, 9 of 3,925 val images"


@pytest.mark.parametrize("name", ["imagenette", "cifar10", "flowers102"])
def test_the_validation_part_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MINIATURES[name](tmp_path, monkeypatch)
    whole = open_named(name, tmp_path)
    if name == "imagenette":
        shutil.rmtree(tmp_path / "imagenette2" / "train" / WNIDS[0])
    source = open_named(name, tmp_path, val_only=True)
    assert (source.classes, source.count("train"), source.count("test")) == (whole.classes, 0, 0)
    assert everything(source, "val") == everything(whole, "val")
    assert "train images" not in source.subset and "val images" in source.subset
    dataset = prepare(source, tmp_path / "data", "demo", workers=0)
    assert dataset.counts == {"train": 0, "val": whole.count("val")}
