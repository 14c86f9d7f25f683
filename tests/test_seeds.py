"""Several seeds by `reproduce --seeds`: which folders, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Call
from planted import make_run

from vggrepro import plan
from vggrepro.commands.options import seeds_of
from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.paper import S256, Run
from vggrepro.reproduce import seeded
from vggrepro.runs.folder import seed_folders


def test_the_first_seed_has_the_folder_and_the_others_subfolders(tmp_path: Path) -> None:
    folders = seeded(tmp_path, (0, 2, 10))
    assert folders == {tmp_path: 0, tmp_path / "seed2": 2, tmp_path / "seed10": 10}
    (tmp_path / "seeds of trees").mkdir()  # no seed's folder
    for folder in folders:
        (folder / "A-256").mkdir(parents=True)
        (folder / "A-256" / "config.json").write_text("{}")
    assert seed_folders(tmp_path) == list(folders)


def test_one_folder_is_one_seed_with_or_without_runs(tmp_path: Path) -> None:
    assert seed_folders(tmp_path) == [tmp_path]
    assert seed_folders(tmp_path / "none") == [tmp_path / "none"]
    with pytest.raises(InputError, match=r"^--runs , names no folder"):
        seed_folders(Path(","))


def test_seeds_are_different_whole_numbers() -> None:
    assert seeds_of(None, 5) == (5,)
    assert seeds_of("0,1,12", 0) == (0, 1, 12)
    for text in ("", "0,0", "1,x", "-1", "0,"):
        with pytest.raises(InputError, match="whole numbers with commas"):
            seeds_of(text, 0)
    with pytest.raises(InputError, match="--seed and --seeds"):
        seeds_of("0,1", 3)


def test_a_plan_has_the_jobs_of_every_seed(vggrepro: Call, dataset: Dataset) -> None:
    code, out, _ = vggrepro("reproduce", "--seeds", "0,1", "--plan", "make")
    assert code == 0
    assert "train-D-256: train-A-256\n\t$(VGGREPRO) train D --scale 256 --seed 0\n" in out
    second = "seed1-train-D-256: seed1-train-A-256\n\t$(VGGREPRO) train D --scale 256 --seed 1 --runs runs/seed1\n"
    assert second in out
    assert "\t$(VGGREPRO) evaluate E-384 --dense --q 352,384,416 --runs runs/seed1\n" in out
    assert "\t$(VGGREPRO) reproduce --seeds 0,1\n" in out
    one = vggrepro("reproduce", "--plan", "make")[1]
    assert "seed" not in one


def test_what_is_done_of_a_seed_is_left_out(tmp_path: Path) -> None:
    folders = seeded(tmp_path, (0, 1))
    make_run(tmp_path / "seed1", Run("A", S256))
    jobs = plan.jobs_of_seeds(folders)
    left = {job.name: job for job in plan.unfinished(jobs, folders, False, lambda folder, protocol: False)}
    assert "train-A-256" in left
    assert "seed1-train-A-256" not in left
    assert left["seed1-evaluate-A-256"].needs == ()
    left_alone = {job.name for job in plan.unfinished(jobs, folders, False, lambda folder, protocol: True)}
    assert left.keys() - left_alone == {"seed1-evaluate-A-256"}  # of the finished run alone
    training = next(job for job in jobs if job.name == "seed1-train-A-256")
    assert plan.describe(training, folders).startswith("seed1-A-256 epoch 74")


FAST = ("--set", "crop=32", "--set", "width=0.0625", "--set", "batch=8", "--epochs", "1", "--precision", "fp32")


@pytest.mark.slow
def test_two_seeds_by_hand(vggrepro: Call, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A and B with seeds 0 and 1: other weights, the same as if trained alone, and means over both in the table."""
    views: dict[Run, dict[str, list[int]]] = {Run(net, S256): {"dense": [256]} for net in ("A", "B")}
    monkeypatch.setattr(plan, "needed_views", lambda multicrop=False: views)
    options = (*FAST, "--workers", "0")
    code, out, err = vggrepro("reproduce", "--source", str(photos), "--preset", "demo", "--seeds", "0,1", *options)
    assert code == 0, err
    assert vggrepro("train", "A", "--seed", "1", "--runs", "alone", *options)[0] == 0
    of = {
        name: (tmp_path / name / "A-256" / "weights.safetensors").read_bytes()
        for name in ("runs", "runs/seed1", "alone")
    }
    assert of["runs"] != of["runs/seed1"] == of["alone"]
    errors = []
    for folder in ("runs", "runs/seed1"):
        stored = pq.read_table(tmp_path / folder / "B-256" / "posteriors" / "val-dense-q256.parquet").to_pandas()
        wrong = [np.argmax(row) != label for row, label in zip(stored["posterior"], stored["label"], strict=True)]
        errors.append(100 * float(np.mean(wrong)))
    table = out[out.index("## Table 3") : out.index("## Table 4")]
    (row,) = [line for line in table.splitlines() if line.startswith("| B ")]
    cells = [cell.strip(" *") for cell in row.strip("|").split("|")]
    assert cells[3].replace("*", "") == f"{np.mean(errors):.1f} ± {np.std(errors, ddof=1):.1f}"
    assert cells[-2] == "2"
    assert "Of 1 claim tested on images with 2 seeds: " in out
