"""Reading data sets: random access against the files, and folders that are missing, foreign or damaged."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import program
import pyarrow as pa
import pytest
from conftest import CLASSES
from PIL import Image

from vggrepro.data import dataset as module
from vggrepro.data import prepare as stage
from vggrepro.data.dataset import Dataset, Split, load
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import FolderSource
from vggrepro.errors import InputError


@pytest.fixture
def sharded(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """`photos` in shards of 7, in batches of 3: positions cross both."""
    monkeypatch.setattr(stage, "SHARD_EXAMPLES", 7)
    monkeypatch.setattr(stage, "BATCH_ROWS", 3)
    return prepare(FolderSource(photos), tmp_path / "data", "demo", workers=0)


@pytest.mark.parametrize("cache", [False, True])
def test_random_access_gives_the_files(sharded: Dataset, photos: Path, cache: bool) -> None:
    split = Split(sharded, "train", cache)
    files = [photos / "train" / name / f"{n}.jpg" for name in CLASSES for n in range(5)]
    assert len(split) == 30
    assert split.labels.tolist() == [label for label in range(6) for _ in range(5)]
    assert split.keys(0, 30) == [path.relative_to(photos / "train").as_posix() for path in files]
    for index in [*np.random.default_rng(0).permutation(30).tolist(), 6, 7, 29]:
        assert bytes(split.image_bytes(index)) == files[index].read_bytes()
        image = split.image(index)
        assert image.mode == "RGB"
        assert image == Image.open(files[index])
        assert (split.image(index) is image) == cache


def test_threads_share_a_split(sharded: Dataset) -> None:
    split = Split(sharded, "train")
    order = list(range(30)) * 5
    with ThreadPoolExecutor(4) as pool:
        for index, image in zip(order, pool.map(split.image, order), strict=True):
            np.testing.assert_array_equal(image, split.image(index))


def test_what_does_not_fit_the_cache_is_not_kept(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [np.asarray(Split(dataset, "val").image(index)).nbytes for index in range(18)]
    for limit, kept in ((sum(files), True), (sum(files) - 1, False)):
        monkeypatch.setattr(module, "CACHE_BYTES", limit)
        split = Split(dataset, "val", cache=True)
        assert (split.image(3) is split.image(3)) == kept


def test_load_gives_what_prepare_gave(dataset: Dataset) -> None:
    assert load(dataset.folder) == dataset
    assert dataset.name == "photos"
    assert (dataset.preset, dataset.subset) == ("demo", "")


def test_no_data_set_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load(tmp_path / "data")
    text = str(error.value)
    assert f"no data set in {tmp_path / 'data'}; make one with 'vggrepro prepare demo" in text
    assert f"'vggrepro prepare FOLDER --data {tmp_path / 'data'}', or name one with --data" in text


def test_no_such_split(dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"has no split 'test' \(there: train, val\)"):
        Split(dataset, "test")


@pytest.mark.parametrize(
    "change",
    [
        {"mean_rgb": None},
        {"classes": ...},
        {"counts": {"train": "many"}},
        {"counts": 3},
        {"rgb_eigenvectors": [1, 2, 3]},
    ],
)
def test_a_garbled_description_is_named(dataset: Dataset, change: dict[str, Any]) -> None:
    path = dataset.folder / "dataset.json"
    about = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in about.items() if value is not ...}))
    with pytest.raises(InputError, match=r"dataset\.json: lacks or garbles .*; prepare the data set again"):
        load(dataset.folder)


def damaged(dataset: Dataset) -> str:
    with pytest.raises(InputError) as error:
        Split(dataset, "train")
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("prepare the data set again")
    return str(error.value)


def test_damaged_shards_are_named(sharded: Dataset, tmp_path: Path) -> None:
    path = sharded.folder / "train-00002.arrow"
    whole = path.read_bytes()
    for content in (b"", b"no arrow file", whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert f"{path}: damaged shard" in damaged(sharded)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, pa.schema([("key", pa.string())])) as writer:
        writer.write_table(pa.table({"key": ["a"]}))
    assert f"{path}: damaged shard" in damaged(sharded)
    path.unlink()
    assert f"{sharded.folder}: train shards hold 23 images, dataset.json says 30" in damaged(sharded)
    shutil.copy(sharded.folder / "train-00001.arrow", sharded.folder / "train-00009.arrow")
    shutil.copy(sharded.folder / "train-00001.arrow", path)
    assert "train shards hold 37 images, dataset.json says 30" in damaged(sharded)


@pytest.mark.slow
def test_flipped_bits_in_a_shard_are_named_and_crash_nothing(dataset: Dataset) -> None:
    run = program.run("flipped_bits", dataset.folder)  # a crash would end this process too
    assert run.returncode == 0, run.stderr
    found = run.stdout.splitlines()
    assert len(found) == 300
    assert sum("damaged" in line for line in found) > 100
    assert all(line == "whole" or line.endswith("prepare the data set again") for line in found)


def test_a_split_holds_no_file_open(sharded: Dataset) -> None:
    split = Split(sharded, "train")  # a file for each of thousands of shards would be too many
    held = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert not any(link.resolve().is_relative_to(sharded.folder) for link in held)
    assert split.image(29).size


@pytest.mark.parametrize("cache", [False, True])
def test_an_image_that_rotted_in_its_shard_is_named(dataset: Dataset, cache: bool) -> None:
    path = dataset.folder / "train-00000.arrow"
    stored = bytes(Split(dataset, "train").image_bytes(8))
    path.write_bytes(path.read_bytes().replace(stored, b"\0" * len(stored)))
    split = Split(dataset, "train", cache)
    assert split.image(7).size
    with pytest.raises(InputError) as error:
        split.image(8)
    assert "image 'bee/3.jpg' (train row 8) does not decode (not an image); the shard is damaged" in str(error.value)
