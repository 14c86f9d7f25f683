"""The files that evaluate writes: what they hold, from any number of threads and processes; bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Call, write_photos
from evaluations import BOTH
from nets import (
    CPU,
    by_hand,
    plain_model,
    random_run,
)

from vggrepro.data.dataset import Dataset, Split
from vggrepro.data.prepare import prepare
from vggrepro.data.rescaling import rescale
from vggrepro.data.sources import FolderSource
from vggrepro.errors import InputError
from vggrepro.evaluation import evaluate as stage
from vggrepro.evaluation import evaluator
from vggrepro.evaluation import images as evaluation_images
from vggrepro.evaluation.evaluate import evaluate
from vggrepro.evaluation.evaluator import Batcher
from vggrepro.nets import resampling
from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors.protocol import Protocol
from vggrepro.runs.folder import RunFolder
from vggrepro.system.devices import Machine
from vggrepro.system.files import lock, read_json, sha256, write_json


def test_files_hold_what_the_contract_says(run: RunFolder, dataset: Dataset) -> None:
    frame = evaluate(run, dataset, BOTH, CPU)
    split = Split(dataset, "val")
    model = plain_model(run)
    for method in BOTH.methods:
        for q, pixels in ((224, 64), (256, 73)):  # 256 * 64 / 224 = 73.14
            variant = "-grid2" if method == "multicrop" else ""  # not the paper's 5x5: a file of its own
            file = run.path / "posteriors" / f"val-{method}{variant}-q{q}.parquet"
            table = pq.read_table(file)
            assert table.schema.names == ["key", "label", "posterior"]
            assert table.schema.types[:2] == [pa.string(), pa.int32()]
            kind = table.schema.types[2]
            assert pa.types.is_fixed_size_list(kind)
            assert (kind.list_size, kind.value_type) == (6, pa.float32())
            assert table["key"].to_pylist() == split.keys(0, 18)
            assert table["label"].to_pylist() == split.labels.tolist()
            about = json.loads(table.schema.metadata[b"vggrepro"])
            expected = {"run": "A-256", "weights": sha256(run.weights_path), "fingerprint": dataset.fingerprint}
            expected |= {"preset": "demo", "split": "val", "method": method, "q": q, "q_pixels": pixels, "flip": True}
            expected |= {"grid": 2 if method == "multicrop" else 0, "resample": "bilinear", "precision": "fp32"}
            assert expected.items() <= about.items()
            assert {"commit", "version", "dataset"} <= about.keys()
            values = np.array(table["posterior"].to_pylist())
            for row in (0, 7, 17):
                image = rescale(split.image(row), pixels)
                np.testing.assert_allclose(values[row], by_hand(model, image, method, grid=2), atol=1e-5)
            line = frame.set_index(["method", "Q"]).loc[method, str(q)]
            best = values.argmax(1)
            assert line.top1_error == pytest.approx(100 * np.mean(best != split.labels))
            assert line.images == 18
    assert frame.Q.tolist() == ["224", "256", "224,256"] * 2
    assert sorted(p.name for p in run.path.iterdir()) == ["config.json", "lock", "posteriors", "weights.safetensors"]
    assert len(list((run.path / "posteriors").iterdir())) == 4  # no part is left


def test_without_qs_the_papers_are_taken(run: RunFolder, dataset: Dataset, tmp_path: Path) -> None:
    names = [f"val-dense-q{q}.parquet" for q in (224, 256, 288)]
    evaluate(run, dataset, Protocol(), CPU)
    assert sorted(p.name for p in (run.path / "posteriors").iterdir()) == names
    jittered = random_run(tmp_path / "runs" / "A-256-512", scale="256:512")
    evaluate(jittered, dataset, Protocol(), CPU)
    found = sorted(p.name for p in (jittered.path / "posteriors").iterdir())
    assert found == [f"val-dense-q{q}.parquet" for q in (256, 384, 512)]


def test_other_papers_protocols_have_their_own_files(run: RunFolder, dataset: Dataset) -> None:
    frame = evaluate(run, dataset, Protocol(("center", "tencrop", "googlenet"), flip=True), CPU)
    names = sorted(p.name for p in (run.path / "posteriors").iterdir())
    google = [f"val-googlenet-q{q}.parquet" for q in (256, 288, 320, 352)]
    assert names == ["val-center-q256.parquet", *google, "val-tencrop-q256.parquet"]
    origin = posterior_files.read_origin(run.path / "posteriors" / "val-center-q256.parquet")
    assert (origin.flip, origin.grid, origin.method) == (False, 1, "center")
    assert frame.Q.tolist() == ["256", "256", "256", "288", "320", "352", "256,288,320,352"]
    evaluate(run, dataset, Protocol(("center",), flip=False), CPU)
    assert sorted(p.name for p in (run.path / "posteriors").iterdir()) == names  # a centre crop is never mirrored


def test_threads_change_nothing(run: RunFolder, dataset: Dataset, tmp_path: Path) -> None:
    protocol = Protocol(qs=(256,))
    evaluate(run, dataset, protocol, CPU)
    other = random_run(tmp_path / "other" / "A-256")
    evaluate(other, dataset, protocol, Machine(torch.device("cpu"), "fp32", workers=3))
    name = "posteriors/val-dense-q256.parquet"
    assert pq.read_table(run.path / name).equals(pq.read_table(other.path / name))


@pytest.mark.parametrize("padded_to", [1, 32])
def test_a_device_that_rescales_changes_nothing(
    run: RunFolder, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padded_to: int
) -> None:
    """As on a GPU, which gets each image once; some shrink too much at Q = 224: threads of the host rescale these."""
    monkeypatch.setitem(evaluator.PADDED_TO, "cpu", padded_to)
    protocol = replace(BOTH, qs=(224, 320))
    evaluate(run, dataset, protocol, CPU)
    monkeypatch.setitem(evaluation_images.SHRINK, "cpu", 1.1)
    given: list[tuple[int, ...]] = []
    rescaled = resampling.rescaled

    def noted(pixels: list[torch.Tensor], *rest: Any) -> torch.Tensor:
        given.extend(each.shape for each in pixels)
        return rescaled(pixels, *rest)

    monkeypatch.setattr(resampling, "rescaled", noted)
    other = random_run(tmp_path / "other" / "A-256")
    evaluate(other, dataset, protocol, Machine(torch.device("cpu"), "fp32", workers=2))
    originals = {(int(height), int(width), 3) for width, height in Split(dataset, "val").sizes.T}
    assert len(given) > 18 and originals & set(given)
    for file in (run.path / "posteriors").iterdir():
        assert pq.read_table(file).equals(pq.read_table(other.path / "posteriors" / file.name))


def test_a_net_in_the_devkits_order_of_classes_is_noticed(
    run: RunFolder, dataset: Dataset, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = (4, 3, 6, 1, 2, 5)

    def perfect(order: np.ndarray) -> None:
        split, seen = Split(dataset, "val"), iter(range(18))

        def answer(self: Batcher) -> np.ndarray:
            return np.eye(6, dtype=np.float32)[[order[split.labels[next(seen)]] for _ in range(self._images)]]

        monkeypatch.setattr(Batcher, "finish", answer)

    perfect(np.array(ids) - 1)
    evaluate(run, replace(dataset, devkit_ids=ids), Protocol(qs=(224,)), CPU)
    said = capfd.readouterr().err
    assert (
        "A-256 gets 0.0 % of the images right, but 100.0 % if its classes are in the order of the devkit's ids" in said
    )
    perfect(np.arange(6))
    evaluate(run, replace(dataset, devkit_ids=ids), Protocol(qs=(256,)), CPU)
    assert "devkit" not in capfd.readouterr().err


def test_images_without_labels(run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """As test they have files and no errors; as val they are refused before anything is computed."""

    def unlabelled(data: Dataset, name: str) -> Split:
        split = Split(data, "val")
        split.name, split.labels = name, np.where(np.arange(18) == 4, -1, split.labels).astype(np.int32)
        return split

    monkeypatch.setattr(stage, "Split", unlabelled)
    with pytest.raises(InputError, match=r"image 'bee/1\.jpg' of val has no label, which errors need; prepare unlab"):
        evaluate(run, dataset, BOTH, CPU)
    assert not (run.path / "posteriors").exists()
    frame = evaluate(run, dataset, Protocol(("dense", "center"), (224,), split="test"), CPU)
    assert frame.columns.tolist() == ["run", "method", "Q", "images", "file"]
    assert frame.images.tolist() == [18, 18]
    assert frame.file.tolist() == [str(run.path / f"posteriors/test-{m}-q224.parquet") for m in ("dense", "center")]
    assert pq.read_table(frame.file[0])["label"].to_pylist()[4] == -1


def test_bad_input_is_said_in_a_line(run: RunFolder, dataset: Dataset, tmp_path: Path) -> None:
    def message(run: RunFolder, protocol: Protocol = BOTH) -> str:
        with pytest.raises(InputError) as error:
            evaluate(run, dataset, protocol, CPU)
        assert "\n" not in str(error.value)
        assert not (run.path / "posteriors").exists()
        return str(error.value)

    unfinished = random_run(tmp_path / "runs" / "B-256", net="B")
    unfinished.weights_path.unlink()
    assert "B-256 is not finished; resume it with 'vggrepro train B --scale 256'" in message(unfinished)
    seven = random_run(tmp_path / "runs" / "seven", classes=7)
    assert f"seven was trained for 7 classes, {dataset.folder} has 6; name the run's data set" in message(seven)
    assert "has no split 'test' (there: train, val)" in message(run, Protocol(split="test"))
    with lock(run.path, "vggrepro train A"):
        assert "is being written by vggrepro train A" in message(run)
    wrong = random_run(tmp_path / "runs" / "wrong", net="A")
    write_json(wrong.config_path, {**read_json(wrong.config_path), "net": "D"})
    assert "weights.safetensors: its tensors are not those of its config.json's net" in message(wrong)
    write_json(wrong.config_path, {"net": "A", "scale": "256"})
    assert "config.json: lacks crop, width, classes, mean_rgb, input_scale" in message(wrong)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_any_number_of_processes_writes_the_same_file(vggrepro: Call, photos: Path, tmp_path: Path) -> None:
    """600 images, three parts: one process, and two that torchrun starts, byte for byte."""
    source = tmp_path / "photos"
    write_photos(source, "val", 100)
    shutil.copytree(photos / "train", source / "train")
    prepare(FolderSource(source), tmp_path / "data", "demo", workers=0)
    words = ["evaluate", "--dense", "--multicrop", "--grid", "2", "--q", "224", "--precision", "fp32", "--runs"]
    alone, together = (random_run(tmp_path / name / "A-256") for name in ("alone", "together"))
    code, out, err = vggrepro(*words, str(alone.path.parent))
    assert code == 0, err
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vggrepro"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, *words, str(together.path.parent)], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert out == done.stdout  # one table, from the first process
    one, two = ({path.name: path.read_bytes() for path in run.posteriors_path.iterdir()} for run in (alone, together))
    assert sorted(one) == ["val-dense-q224.parquet", "val-multicrop-grid2-q224.parquet"]
    assert one == two
