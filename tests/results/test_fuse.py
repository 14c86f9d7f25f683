"""`vggrepro fuse RUN...`: errors of averaged posteriors by hand; what is missing or stale is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import RIGHT, WRONG, dataset_of, make_run, multi_scale, plant

from vggrepro.data.dataset import Dataset, Split
from vggrepro.errors import InputError
from vggrepro.paper import S256, Run
from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors import protocol
from vggrepro.results import fuse
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import read_json, write_json


def test_fuse_runs_by_hand(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, Run("A", S256)), make_run(tmp_path, Run("B", S256))
    for q in S256.test_scales:
        plant(tmp_path, Run("A", S256), q, WRONG)
        plant(tmp_path, Run("B", S256), q, [[0, 0, 0, 0, 1, 0], *RIGHT[1:]])
    frame = fuse.fuse_runs([a, b], ["dense"])
    assert frame["run"].tolist() == ["A-256", "B-256", "A-256 + B-256"]
    assert frame["Q"].tolist() == ["224, 256, 288"] * 3
    assert frame["images"].tolist() == [4, 4, 4]
    # image 0 together: 0.05 0.15 0.1 0.1 0.55 0.05: class 0 after 4, 1, 2, 3; a tie with 5 that it wins
    assert frame["top1_error"].tolist() == [75.0, 25.0, 25.0]
    assert frame["top5_error"].tolist() == [25.0, 0.0, 0.0]


def test_differences_are_counted_on_the_same_images(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, Run("A", S256)), make_run(tmp_path, Run("B", S256))
    for q in S256.test_scales:
        plant(tmp_path, Run("A", S256), q, WRONG)
        plant(tmp_path, Run("B", S256), q, [[0, 0, 0, 0, 1, 0], *RIGHT[1:]])
    frame = fuse.rank_runs([a, b], ["dense"]).differences()
    assert frame["first"].tolist() == ["A-256"] * 4 + ["B-256"] * 2
    assert frame["second"].tolist() == ["B-256"] * 2 + ["A-256 + B-256"] * 4
    top1 = frame.iloc[0]  # A errs on images 0, 2, 3, B on image 0: two images alone, none the other way
    assert (top1["difference"], top1["only_first"], top1["only_second"]) == (50.0, 2, 0)
    assert top1["p"] == pytest.approx(2 * 0.5**2)
    assert top1["low"] < 50 < top1["high"]
    assert (frame.iloc[4]["difference"], frame.iloc[4]["p"]) == (0.0, 1.0)


def test_fuse_runs_by_both_methods(tmp_path: Path) -> None:
    multi_scale(tmp_path)
    frame = fuse.fuse_runs([RunFolder(tmp_path / "D-256-512")], ["dense", "multicrop"])
    assert frame[["run", "method", "top1_error"]].to_numpy().tolist() == [["D-256-512", "multi-crop & dense", 0.0]]


def test_fuse_runs_refuses_what_is_missing_stale_or_of_other_data(tmp_path: Path) -> None:
    a, b = make_run(tmp_path, Run("A", S256)), make_run(tmp_path, Run("B", S256))
    with pytest.raises(InputError, match="no runs given"):
        fuse.fuse_runs([], ["dense"])
    with pytest.raises(
        InputError, match=r"val-dense-q224.parquet does not exist; run 'vggrepro evaluate A-256 --dense'"
    ):
        fuse.fuse_runs([a], ["dense"])
    for q in S256.test_scales:
        plant(tmp_path, Run("A", S256), q, RIGHT)
        plant(tmp_path, Run("B", S256), q, RIGHT, fingerprint="other")
    with pytest.raises(InputError, match="come from different data sets"):
        fuse.fuse_runs([a, b], ["dense"])
    other = replace(dataset_of(), fingerprint="third")
    with pytest.raises(InputError, match=r"comes from another data set than .*; give its data set with --data"):
        fuse.fuse_runs([a], ["dense"], dataset=other)
    a.weights_path.write_text("retrained")
    with pytest.raises(InputError, match=r"q224.parquet is stale \(other weights\); renew it with"):
        fuse.fuse_runs([a], ["dense"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"recipe": {"resample": "bicubic"}}, "another resampling"),
        ({"crop": 96}, "another crop size"),
    ],
)
def test_posteriors_of_an_edited_config_are_stale(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    run = make_run(tmp_path, Run("A", S256))
    for q in S256.test_scales:
        plant(tmp_path, Run("A", S256), q, RIGHT)
    fuse.fuse_runs([run], ["dense"])
    write_json(run.config_path, read_json(run.config_path) | changes)
    with pytest.raises(InputError, match=rf"q224.parquet is stale \({reason}\)"):
        fuse.fuse_runs([run], ["dense"])


def test_fuse_runs_refuses_a_damaged_file_and_reads_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = make_run(tmp_path, Run("A", S256)), make_run(tmp_path, Run("B", S256))
    for q in S256.test_scales:
        plant(tmp_path, Run("A", S256), q, RIGHT)
        path = plant(tmp_path, Run("B", S256), q, WRONG)
    streamed: list[Path] = []
    values = posterior_files.values
    monkeypatch.setattr(posterior_files, "values", lambda path, *more: streamed.append(path) or values(path, *more))
    fuse.fuse_runs([a, b], ["dense"])
    assert len(streamed) == len(set(streamed)) == 6
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=rf"^{path}: damaged parquet file") as error:
        fuse.fuse_runs([a, b], ["dense"])
    assert "\n" not in str(error.value)
    plant(tmp_path, Run("B", S256), 288, [*WRONG[:2], [0.5, 0, 0, 0, 0, 0.25], WRONG[3]])
    with pytest.raises(InputError, match=rf"^{path}: row 2 is no distribution \(sum 0\.7500, smallest 0\)"):
        fuse.fuse_runs([a, b], ["dense"])


def test_fuse_runs_by_the_images_of_the_data_set(dataset: Dataset, tmp_path: Path) -> None:
    """Posteriors of another tool: in any order, but of this data set's images."""
    run = make_run(tmp_path, Run("A", S256))
    keys, labels = Split(dataset, "val").keys(0, 18), Split(dataset, "val").labels
    for q in S256.test_scales:
        path = protocol.file_path(run.path, "val", "dense", q)
        path.parent.mkdir(exist_ok=True)
        rows = pa.array(np.eye(6)[labels].tolist()[::-1])
        pq.write_table(pa.table({"posterior": rows, "key": keys[::-1], "label": labels[::-1]}), path)
    assert fuse.fuse_runs([run], ["dense"], "val", dataset)["top1_error"].tolist() == [0.0]
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(InputError) as error:
        fuse.fuse_runs([run], ["dense"], "val", dataset)
    assert (
        str(error.value) == f"{path} lacks image '{keys[-1]}', which is row 17 of the split 'val' of {dataset.folder}"
    )
