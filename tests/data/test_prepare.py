"""Preparing: what lands in the data set folder, against sums over all pixels; interruptions; bad input."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import CLASSES
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from vggrepro.data import prepare as stage
from vggrepro.data.dataset import Dataset, Split, load, read_shard
from vggrepro.data.prepare import check_downloads, colour_moments, prepare, principal_axes
from vggrepro.data.rescaling import rescale
from vggrepro.data.sources import Example, FolderSource
from vggrepro.errors import InputError
from vggrepro.system.files import lock


def contents(folder: Path) -> dict[str, str]:
    """Hash of each file of a data set; the lock's file is no part of it."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name != "lock"}


@pytest.fixture
def own(photos: Path, tmp_path: Path) -> Path:
    """A copy of `photos` to spoil."""
    return Path(shutil.copytree(photos, tmp_path / "photos"))


def test_the_folder_is_the_contract(dataset: Dataset, photos: Path) -> None:
    about = json.loads((dataset.folder / "dataset.json").read_text())
    assert about["classes"] == list(CLASSES)
    assert about["counts"] == {"train": 30, "val": 18}
    assert about["preset"] == "demo"
    assert len(about["mean_rgb"]) == 3
    assert np.array(about["rgb_eigenvectors"]).shape == (3, 3)
    assert len(about["rgb_eigenvalues"]) == 3
    assert len(about["fingerprint"]) == 64
    assert sorted(contents(dataset.folder)) == ["dataset.json", "train-00000.arrow", "val-00000.arrow"]
    table = pa.ipc.open_file(pa.memory_map(str(dataset.folder / "val-00000.arrow"))).read_all()
    assert table.schema.names == ["key", "label", "image", "width", "height"]
    for row in table.to_pylist():
        file = photos / "val" / row["key"]
        assert row["image"] == file.read_bytes()  # the original bytes
        assert Image.open(file).size == (row["width"], row["height"])
        assert CLASSES[row["label"]] == file.parent.name


def test_colours_are_those_of_all_training_pixels_each_image_alike(dataset: Dataset, photos: Path) -> None:
    pixels, shares = [], []
    for file in sorted((photos / "train").rglob("*.jpg")):
        own = np.asarray(Image.open(file), dtype=np.float64).reshape(-1, 3)
        pixels.append(own)
        shares.append(np.full(len(own), 1 / len(own)))
    all_pixels, weight = np.concatenate(pixels), np.concatenate(shares) / 30
    mean = np.average(all_pixels, axis=0, weights=weight)
    covariance = np.cov(all_pixels.T, aweights=weight, ddof=0)
    np.testing.assert_allclose(dataset.mean_rgb, mean, rtol=1e-10)
    vectors, values = np.array(dataset.rgb_eigenvectors), np.array(dataset.rgb_eigenvalues)
    np.testing.assert_allclose(vectors.T @ np.diag(values) @ vectors, covariance, atol=1e-6)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-12)
    assert values[0] > values[1] > values[2] > 0


@given(arrays.arrays(np.float64, (20, 3), elements=st.floats(0, 255)))
def test_principal_axes_rebuild_any_covariance(samples: np.ndarray) -> None:
    covariance = np.cov(samples.T, ddof=0)
    values, vectors = principal_axes(covariance)
    np.testing.assert_allclose((vectors.T * values) @ vectors, covariance, atol=1e-7)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-9)
    assert values[0] >= values[1] >= values[2]
    assert all(vector[np.abs(vector).argmax()] > 0 for vector in vectors)


# Interruptions


class Interrupted(FolderSource):
    """A source that fails before its n-th example of `split`."""

    def __init__(self, folder: Path, split: str, before: int) -> None:
        super().__init__(folder)
        self.where = split, before

    def examples(self, split: str, start: int) -> Iterator[Example]:
        for number, example in enumerate(super().examples(split, start), start):
            if (split, number) == self.where:
                raise KeyboardInterrupt
            yield example


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("split", "before"), [("train", 0), ("train", 7), ("train", 29), ("val", 0), ("val", 17)])
def test_an_interrupted_preparation_ends_in_the_same_files(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, before: int, workers: int
) -> None:
    monkeypatch.setattr(stage, "SHARD_EXAMPLES", 7)
    monkeypatch.setattr(stage, "BATCH_ROWS", 3)
    prepare(FolderSource(photos), tmp_path / "whole", "demo", workers=workers)
    with pytest.raises(KeyboardInterrupt):
        prepare(Interrupted(photos, split, before), tmp_path / "data", "demo", workers=workers)
    with pytest.raises(InputError, match="its preparation was interrupted; run the same 'vggrepro prepare' again"):
        load(tmp_path / "data")
    assert not list((tmp_path / "data").glob("*.tmp"))
    prepare(FolderSource(photos), tmp_path / "data", "demo", workers=workers)
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")
    assert len(contents(tmp_path / "data")) == 1 + 5 + 3


def test_finished_shards_are_not_read_again(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "SHARD_EXAMPLES", 7)
    with pytest.raises(KeyboardInterrupt):
        prepare(Interrupted(photos, "train", 16), tmp_path / "data", "demo", workers=0)
    starts = []

    class Watched(FolderSource):
        def examples(self, split: str, start: int) -> Iterator[Example]:
            starts.append((split, start))
            return super().examples(split, start)

    prepare(Watched(photos), tmp_path / "data", "demo", workers=0)
    assert starts == [("train", 14), ("val", 0)]


def test_shards_that_are_gone_are_written_again(
    photos: Path, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SHARD_EXAMPLES", 7)
    prepare(FolderSource(photos), tmp_path / "whole", "demo", workers=0)
    with pytest.raises(KeyboardInterrupt):
        prepare(Interrupted(photos, "train", 22), tmp_path / "data2", "demo", workers=0)
    (tmp_path / "data2" / "train-00001.arrow").unlink()
    prepare(FolderSource(photos), tmp_path / "data2", "demo", workers=0)
    assert contents(tmp_path / "data2") == contents(tmp_path / "whole")


def test_a_source_that_shrank_after_a_kill_leaves_no_old_shard(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SHARD_EXAMPLES", 7)
    with pytest.raises(KeyboardInterrupt):
        prepare(Interrupted(own, "val", 0), tmp_path / "data", "demo", workers=0)
    shutil.copy(tmp_path / "data" / "train-00004.arrow", tmp_path / "data" / "train-00005.arrow")  # not yet recorded
    for name in CLASSES:
        for number in (1, 2, 3):
            (own / "train" / name / f"{number}.jpg").unlink()
    made = prepare(FolderSource(own), tmp_path / "data", "demo", workers=0)
    assert len(Split(made, "train")) == 12


@pytest.mark.parametrize("label", [-1, 6])
def test_a_source_with_a_label_out_of_range_is_refused(photos: Path, tmp_path: Path, label: int) -> None:
    class Odd(FolderSource):
        def examples(self, split: str, start: int) -> Iterator[Example]:
            for example in super().examples(split, start):
                yield replace(example, label=label) if example.key == "bee/2.jpg" else example

    with pytest.raises(InputError, match=rf"bee/2\.jpg: label {label} is outside the 6 classes"):
        prepare(Odd(photos), tmp_path / "data", "demo", workers=0)


def test_large_images_do_not_add_up_in_memory(
    photos: Path, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "BATCH_BYTES", 1)
    made = prepare(FolderSource(photos), tmp_path / "single", "demo", workers=0)
    assert [len(rows) for rows in read_shard(made.folder / "val-00000.arrow")] == [1] * 18
    assert made.fingerprint == dataset.fingerprint


def test_workers_change_nothing(photos: Path, tmp_path: Path) -> None:
    for workers in (0, 1, 4):
        prepare(FolderSource(photos), tmp_path / str(workers), "demo", workers=workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "1") == contents(tmp_path / "4")


def test_a_second_call_finds_everything_done(photos: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(dataset.folder)
    monkeypatch.setattr(FolderSource, "examples", lambda *_: pytest.fail("read again"))
    assert prepare(FolderSource(photos), dataset.folder, "demo") == dataset
    assert contents(dataset.folder) == before


def test_the_fingerprint_is_of_the_content(own: Path, dataset: Dataset, tmp_path: Path) -> None:
    same = prepare(FolderSource(own), tmp_path / "same", "paper", workers=0)
    assert same.fingerprint == dataset.fingerprint  # another place and preset, the same images
    (own / "train" / "ant" / "0.jpg").rename(own / "train" / "bee" / "ant0.jpg")
    moved = prepare(FolderSource(own), tmp_path / "moved", "demo", workers=0)
    assert moved.fingerprint != dataset.fingerprint


# Bad input


def refused(folder: Path, to: Path, **options: bool) -> str:
    with pytest.raises(InputError) as error:
        prepare(FolderSource(folder), to, "demo", workers=0, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_corrupt_image_is_named_and_can_be_mended(own: Path, tmp_path: Path, dataset: Dataset) -> None:
    file = own / "val" / "cat" / "1.jpg"
    whole = file.read_bytes()
    file.write_bytes(whole[:-200])
    text = refused(own, tmp_path / "to")
    assert f"prepare: {file} is no readable image (image file is truncated" in text
    assert text.endswith("mend or remove it, or leave all such images out with --skip-bad")
    assert not list((tmp_path / "to").glob("val*"))  # no half-written shard
    file.write_bytes(whole)
    assert prepare(FolderSource(own), tmp_path / "to", "demo").fingerprint == dataset.fingerprint


def test_skip_bad_counts_and_lists_what_it_leaves_out(
    own: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = {own / "train" / "ant" / "0.jpg": b"", own / "val" / "cat" / "1.jpg": b"hello"}
    for file, data in bad.items():
        file.write_bytes(data)
    made = prepare(FolderSource(own), tmp_path / "to", "demo", skip_bad=True)
    assert made.counts == {"train": 29, "val": 17}
    about = json.loads((tmp_path / "to" / "dataset.json").read_text())
    listed = [f"{own}/train/ant/0.jpg (empty)", f"{own}/val/cat/1.jpg (not an image)"]
    assert about["bad"] == listed
    said = capfd.readouterr().err
    assert said.splitlines()[-1].startswith("prepare: left out 2 unreadable (listed in ")
    assert all(line in said for line in listed)
    assert "cat/1.jpg" not in Split(made, "val").keys(0, 17)
    for file in bad:
        file.unlink()
    without = prepare(FolderSource(own), tmp_path / "without", "demo")
    assert (without.mean_rgb, without.fingerprint) == (made.mean_rgb, made.fingerprint)


def test_a_class_whose_images_are_all_unreadable(own: Path, tmp_path: Path) -> None:
    for file in (own / "val" / "dog").iterdir():
        file.write_bytes(b"bad")
    text = refused(own, tmp_path / "to", skip_bad=True)
    assert text == "prepare: val has no readable image of class 'dog'; add one or remove the class"


def test_a_shard_of_unreadable_images_alone(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "SHARD_EXAMPLES", 2)
    for number in (0, 1):
        (own / "train" / "ant" / f"{number}.jpg").write_bytes(b"bad")
    made = prepare(FolderSource(own), tmp_path / "to", "demo", skip_bad=True)
    split = Split(made, "train")
    assert split.keys(0, 4) == ["ant/2.jpg", "ant/3.jpg", "ant/4.jpg", "bee/0.jpg"]
    assert len(split) == 28


def test_another_data_set_in_the_folder_is_left_alone(own: Path, photos: Path, dataset: Dataset) -> None:
    before = contents(dataset.folder)
    text = refused(own, dataset.folder)
    assert f"{dataset.folder} already holds data set 'photos' (class folders {photos}, preset demo" in text
    assert text.endswith("differs in source); choose another folder with --to, or remove it")
    with pytest.raises(InputError, match="differs in preset"):
        prepare(FolderSource(photos), dataset.folder, "paper")
    assert contents(dataset.folder) == before


def test_anothers_unfinished_preparation_is_left_alone(
    own: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SHARD_EXAMPLES", 7)
    with pytest.raises(KeyboardInterrupt):
        prepare(Interrupted(photos, "train", 16), tmp_path / "to", "demo", workers=0)
    text = refused(own, tmp_path / "to")
    assert f"{tmp_path / 'to'} holds an unfinished preparation of class folders {photos}" in text


def test_foreign_arrow_files_are_left_alone(own: Path, tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "mine.arrow").write_bytes(b"precious")
    assert "is not empty (it has mine.arrow); choose another folder" in refused(own, tmp_path / "to")
    assert (tmp_path / "to" / "mine.arrow").read_bytes() == b"precious"


def test_an_empty_class_leaves_no_trace_of_a_preparation(own: Path, tmp_path: Path) -> None:
    for file in (own / "val" / "dog").iterdir():
        file.unlink()
    assert f"class folder {own / 'val' / 'dog'} holds no image" in refused(own, tmp_path / "to")
    assert not (tmp_path / "to").exists()
    with pytest.raises(InputError, match="no data set in"):  # not "its preparation was interrupted"
        load(tmp_path / "to")


def test_too_few_classes_for_a_top5_error(own: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(own / split / "fox")
    text = refused(own, tmp_path / "to")
    assert "5 classes leave no top-5 error" in text
    assert "add classes (6 or more), or accept tables without it with --no-top5" in text
    assert not (tmp_path / "to").exists()
    assert len(prepare(FolderSource(own), tmp_path / "to", "demo", allow_few_classes=True).classes) == 5
    for name in CLASSES[1:5]:
        for split in ("train", "val"):
            shutil.rmtree(own / split / name)
    with pytest.raises(InputError, match="a single class cannot be classified"):
        prepare(FolderSource(own), tmp_path / "one", "demo", allow_few_classes=True)


def test_an_unknown_preset_is_refused_at_once(own: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown preset 'full'"):
        prepare(FolderSource(own), tmp_path / "to", "full")
    assert not (tmp_path / "to").exists()


def test_two_writers_on_one_folder(own: Path, tmp_path: Path) -> None:
    with lock(tmp_path / "to", "vggrepro prepare"):
        assert "is being written by vggrepro prepare (process" in refused(own, tmp_path / "to")


# Options


def test_smaller_copies_of_training_images(photos: Path, tmp_path: Path, dataset: Dataset) -> None:
    """Photographs of shorter sides 50, 67, 72 and 80 kept at 75: the largest become copies, the others stay."""
    made = prepare(FolderSource(photos), tmp_path / "small", "coarse", store_side=75, workers=2)
    assert made.store_side == 75
    assert made.fingerprint != dataset.fingerprint
    assert made.mean_rgb == dataset.mean_rgb  # of the original pixels
    own, original = Split(made, "train"), Split(dataset, "train")
    copied = 0
    for index in range(30):
        before, after = original.image(index), own.image(index)
        assert (own.widths[index], own.heights[index]) == after.size
        if min(before.size) <= 75:
            assert own.image_bytes(index) == original.image_bytes(index)
            continue
        copied += 1
        assert min(after.size) == 75
        assert np.abs(np.asarray(after, dtype=int) - rescale(before, 75)).mean() < 12
    assert copied == 5
    assert all(Split(made, "val").image_bytes(i) == Split(dataset, "val").image_bytes(i) for i in range(18))
    with pytest.raises(InputError, match="differs in store_side"):
        prepare(FolderSource(photos), made.folder, "coarse", workers=0)


def test_copies_too_small_for_any_scale_are_refused(photos: Path, tmp_path: Path) -> None:
    text = r"--store-side 72 suits no training scale: in real pixels preset coarse needs 73 for S = 256 and 146"
    with pytest.raises(InputError, match=text):
        prepare(FolderSource(photos), tmp_path / "to", "coarse", store_side=72)
    assert not (tmp_path / "to").exists()


def test_small_images_under_the_papers_preset_are_noted(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare(FolderSource(photos), tmp_path / "paper", "paper", workers=0)
    assert "S = 256 of preset paper enlarges them to 256; --preset quarter takes 64" in capfd.readouterr().err
    prepare(FolderSource(photos), tmp_path / "coarse", "coarse", workers=0)
    assert "note" not in capfd.readouterr().err


def test_images_as_small_as_cifars_are_advised_the_smallest_exact_preset(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = Path(shutil.copytree(photos, tmp_path / "small"))
    for path in small.rglob("*.jpg"):
        with Image.open(path) as image:
            image.resize((32, 32)).save(path)
    prepare(FolderSource(small), tmp_path / "paper", "paper", workers=0)
    assert "enlarges them to 256; --preset eighth takes 32" in capfd.readouterr().err
    prepare(FolderSource(small), tmp_path / "eighth", "eighth", workers=0)
    assert "note" not in capfd.readouterr().err
    for path in small.rglob("*.jpg"):
        with Image.open(path) as image:
            image.resize((12, 12)).save(path)
    prepare(FolderSource(small), tmp_path / "tiny", "eighth", workers=0)
    assert capfd.readouterr().err.count("S = 256 of preset eighth enlarges them to 32\n") == 1  # no preset is smaller


def test_published_checksums(photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, file = FolderSource(photos), photos / "val" / "ant" / "0.jpg"
    with pytest.raises(InputError, match=r"no published checksums for class folders .*; leave --verify out"):
        check_downloads(source)
    whole = hashlib.md5(file.read_bytes()).hexdigest()
    source.checksums = lambda: [(file, whole)]  # type: ignore[method-assign]
    check_downloads(source)
    assert "0.jpg: the official files" in capfd.readouterr().err
    source.checksums = lambda: [(file, "0" * 32)]  # type: ignore[method-assign]
    with pytest.raises(InputError, match=f"0.jpg has MD5 {whole}, the official file {'0' * 32}; download it again"):
        check_downloads(source)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 4000), st.just(3))))
def test_colour_moments_are_exact(image: np.ndarray) -> None:
    mean, moment = colour_moments(image)
    pixels = image.reshape(-1, 3).astype(np.int64)
    np.testing.assert_allclose(mean, pixels.sum(0) / len(pixels), rtol=1e-15)
    np.testing.assert_allclose(moment, pixels.T @ pixels / len(pixels), rtol=1e-15)


# Validation images alone


def test_validation_images_alone_are_measured_and_marked(photos: Path, dataset: Dataset, tmp_path: Path) -> None:
    made = prepare(FolderSource(photos, val_only=True), tmp_path / "v", "demo", workers=2)
    about = json.loads((made.folder / "dataset.json").read_text())
    assert about["counts"] == {"train": 0, "val": 18}
    assert (about["statistics"], made.statistics, made.trainable) == ("val", "val", False)
    assert about["classes"] == list(CLASSES)
    pixels = [np.asarray(Image.open(file), float).reshape(-1, 3) for file in sorted((photos / "val").rglob("*.jpg"))]
    mean = np.mean([own.mean(axis=0) for own in pixels], axis=0)
    moment = np.mean([own.T @ own / len(own) for own in pixels], axis=0)
    np.testing.assert_allclose(made.mean_rgb, mean, rtol=1e-10)
    vectors, values = np.array(made.rgb_eigenvectors), np.array(made.rgb_eigenvalues)
    np.testing.assert_allclose((vectors.T * values) @ vectors, moment - np.outer(mean, mean), atol=1e-6)
    assert sorted(contents(made.folder)) == ["dataset.json", "val-00000.arrow"]
    assert contents(made.folder)["val-00000.arrow"] == contents(dataset.folder)["val-00000.arrow"]
    assert (dataset.statistics, dataset.trainable) == ("train", True)
    assert json.loads((dataset.folder / "dataset.json").read_text())["statistics"] == "train"
    dataset.require_training()
    with pytest.raises(InputError) as error:
        made.require_training()
    assert str(error.value) == (
        f"{made.folder} was prepared with --val-only and has no training images; to train, prepare all of the data to "
        "another folder and give it with --data"
    )


def test_a_data_set_from_before_has_the_statistics_of_its_training_images(dataset: Dataset) -> None:
    path = dataset.folder / "dataset.json"
    about = json.loads(path.read_text())
    assert about.pop("statistics") == "train"
    path.write_text(json.dumps(about))
    assert load(dataset.folder) == dataset
    assert load(dataset.folder).trainable
    path.write_text(json.dumps(about | {"statistics": "val"}))
    assert not load(dataset.folder).trainable


def test_with_and_without_training_images_are_not_mixed(photos: Path, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"already holds data set 'photos' .* differs in val_only, contents\); choose"):
        prepare(FolderSource(photos, val_only=True), dataset.folder, "demo", workers=0)
    made = prepare(FolderSource(photos, val_only=True), tmp_path / "v", "demo", workers=0)
    before = contents(made.folder)
    assert prepare(FolderSource(photos, val_only=True), made.folder, "demo", workers=0) == made  # done
    with pytest.raises(InputError, match="already holds data set 'photos'"):
        prepare(FolderSource(photos), made.folder, "demo", workers=0)
    assert contents(made.folder) == before
    with pytest.raises(InputError) as error:
        prepare(FolderSource(photos, val_only=True), tmp_path / "w", "demo", store_side=146, workers=0)
    assert str(error.value) == (
        "prepare: --store-side is for training images, --val-only leaves them out; give one of them"
    )
    assert not (tmp_path / "w").exists()


def test_small_validation_images_are_noticed(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(FolderSource(photos, val_only=True), tmp_path / "v", "paper", workers=0)
    assert "note: half of the validation images have a shorter side of " in capsys.readouterr().err
