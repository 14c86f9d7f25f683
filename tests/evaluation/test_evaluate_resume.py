"""Evaluations that were interrupted go on with what is missing, and end in the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import program
import pyarrow.parquet as pq
import pytest
from evaluations import BOTH, count_calls
from nets import (
    CPU,
    random_run,
)

from vggrepro.data.dataset import Dataset
from vggrepro.evaluation import evaluate as stage
from vggrepro.evaluation.evaluate import evaluate
from vggrepro.evaluation.evaluator import Batcher
from vggrepro.posteriors.protocol import Protocol
from vggrepro.runs.folder import RunFolder


def test_what_is_up_to_date_is_not_computed_again(
    run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first = evaluate(run, dataset, BOTH, CPU)
    calls = count_calls(monkeypatch)
    second = evaluate(run, dataset, BOTH, CPU)
    assert not calls
    assert first.equals(second)
    evaluate(run, dataset, Protocol(("dense",), qs=(224, 288)), CPU)
    assert calls == [("dense", 18)]  # Q = 288 alone
    captured = capfd.readouterr()
    assert captured.out == ""


def test_a_killed_evaluation_goes_on_with_the_missing_parts(
    run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "PART_IMAGES", {"cpu": (5, 5)})  # 18 images: 5 5 5 3
    evaluate(run, dataset, BOTH, CPU)
    files = {path.name: path for path in (run.path / "posteriors").iterdir()}
    expected = {name: pq.read_table(path) for name, path in files.items()}
    for path in files.values():
        path.unlink()

    class KilledError(BaseException):
        pass

    calls = count_calls(monkeypatch)
    counted = Batcher.finish

    def kill(self: Batcher) -> np.ndarray:
        if len(calls) == 6:
            raise KilledError
        return counted(self)

    monkeypatch.setattr(Batcher, "finish", kill)
    with pytest.raises(KilledError):
        evaluate(run, dataset, BOTH, CPU)
    assert not list((run.path / "posteriors").glob("*.parquet"))  # parts only
    parts = list((run.path / "posteriors").rglob("*.parquet"))
    assert len(parts) == 6
    parts[0].write_bytes(b"damaged")
    monkeypatch.setattr(Batcher, "finish", counted)
    calls.clear()
    evaluate(run, dataset, BOTH, CPU)
    assert sum(count for _, count in calls) == 4 * 18 - 5 * 5  # five whole parts were kept
    for name, table in expected.items():
        assert pq.read_table(files[name]).equals(table)
    assert not (run.path / "posteriors" / "parts").exists()


def test_parts_of_other_weights_are_not_mixed_in(
    run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "PART_IMAGES", {"cpu": (6, 6)})
    protocol = Protocol(qs=(224,))
    monkeypatch.setattr(stage, "remove_parts", lambda paths: None)  # as if killed before the parts were removed
    evaluate(run, dataset, protocol, CPU)
    path = run.path / "posteriors" / "val-dense-q224.parquet"
    path.unlink()
    monkeypatch.undo()
    monkeypatch.setattr(stage, "PART_IMAGES", {"cpu": (6, 6)})
    random_run(run.path, seed=1)
    calls = count_calls(monkeypatch)
    evaluate(run, dataset, protocol, CPU)
    assert calls == [("dense", 6)] * 3
    fresh = random_run(run.path.parent / "fresh", seed=1)
    evaluate(fresh, dataset, protocol, CPU)
    values = pq.read_table(fresh.path / "posteriors" / path.name)["posterior"]
    assert pq.read_table(path)["posterior"].combine_chunks().equals(values.combine_chunks())


def test_parts_of_another_size_are_not_taken_for_other_images(
    run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed on a machine with parts of 3, continued on one with parts of 15: its second part has 3 images, too."""
    monkeypatch.setattr(stage, "PART_IMAGES", {"cpu": (3, 3)})
    protocol = Protocol(qs=(224,))
    evaluate(run, dataset, protocol, CPU)
    path = run.path / "posteriors" / "val-dense-q224.parquet"
    expected = pq.read_table(path)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "remove_parts", lambda paths: None)
        path.unlink()
        evaluate(run, dataset, protocol, CPU)
    path.unlink()
    monkeypatch.setattr(stage, "PART_IMAGES", {"cpu": (15, 15)})
    calls = count_calls(monkeypatch)
    evaluate(run, dataset, protocol, CPU)
    assert calls == [("dense", 15)]  # the last three are what the part from image 15 holds
    after = pq.read_table(path)
    assert after["key"].equals(expected["key"])
    np.testing.assert_allclose(
        np.array(after["posterior"].to_pylist()), expected["posterior"].to_pylist(), rtol=0, atol=1e-6
    )


def test_what_a_kill_after_merging_leaves_is_removed(
    run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "remove_parts", lambda paths: None)
    evaluate(run, dataset, Protocol(qs=(224, 256)), CPU)
    parts = run.path / "posteriors" / "parts"
    assert {path.name for path in parts.iterdir()} == {"val-dense-q224", "val-dense-q256"}
    monkeypatch.undo()
    calls = count_calls(monkeypatch)
    evaluate(run, dataset, Protocol(qs=(224,)), CPU)
    assert [path.name for path in parts.iterdir()] == ["val-dense-q256"]  # of a protocol that was not asked for
    evaluate(run, dataset, Protocol(qs=(256,)), CPU)
    assert not parts.exists()
    assert not calls


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")  # as the killed ones have
def test_sigkill_at_random_moments_leaves_the_same_files(
    run: RunFolder, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is killed again and again, a little later each time, until one comes to the end: the same bytes."""
    other = random_run(tmp_path / "other" / "A-256")
    done = program.run("killed_evaluations", dataset.folder, other.path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    monkeypatch.setattr(stage, "PART_IMAGES", {"cpu": (3, 3)})
    evaluate(run, dataset, BOTH, CPU)
    written = [{path.name: path.read_bytes() for path in (each.path / "posteriors").iterdir()} for each in (run, other)]
    assert len(written[0]) == 4
    assert written[0] == written[1]
