"""The pipeline as jobs: what each needs, the order in which make and a stand-in for Slurm run them, bits of --jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import program
import pytest
from conftest import Call

from vggrepro import paper, plan
from vggrepro.errors import InputError
from vggrepro.system import threads
from vggrepro.system.jobs import Job

ROOT = Path(__file__).parent.parent
FAST = ["--set", "crop=32", "--set", "width=0.0625", "--set", "batch=8", "--epochs", "1", "--precision", "fp32"]


def test_every_run_is_trained_after_its_parent_and_then_evaluated() -> None:
    jobs = {job.name: job for job in plan.jobs()}
    assert jobs["train-D-256-512-fc"].needs == ("train-D-384",)
    assert jobs["train-B-256"].needs == ("train-A-256",)
    assert jobs["train-A-256"].needs == ()
    assert jobs["evaluate-E-384"].needs == ("train-E-384",)
    assert jobs["evaluate-E-384"].views == 3 * 2
    assert jobs["evaluate-E-256-512"].views == 3 * (2 + 50)
    trained = [name for name in jobs if name.startswith("train-")]
    assert trained == [f"train-{run.name}" for run in paper.all_runs()]
    places = {name: place for place, name in enumerate(jobs)}
    assert all(places[need] < places[job.name] for job in jobs.values() for need in job.needs)


def test_with_an_initialisation_no_net_waits_for_a() -> None:
    jobs = {job.name: job for job in plan.jobs(init="delta")}
    assert jobs["train-B-256"] == Job("train-B-256", "vggrepro train B --scale 256 --init delta")
    assert jobs["train-D-384"] == Job("train-D-384", "vggrepro train D --scale 384", ("train-D-256",))
    assert jobs["train-D-256-512-fc"].command == "vggrepro finetune-scale D --scale 256:512 --layers fc"


def test_evaluations_cover_the_views_that_tables_need() -> None:
    for run, by_method in plan.needed_views(multicrop=True).items():
        commands = [job.words for job in plan.jobs(multicrop=True) if job.words[:2] == ["evaluate", run.name]]
        covered = {
            (word.removeprefix("--"), int(q))
            for words in commands
            for word in words
            if word.removeprefix("--") in by_method
            for q in words[words.index("--q") + 1].split(",")
        }
        assert covered == {(method, q) for method, qs in by_method.items() for q in qs}


def test_places_share_out_threads_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert plan.places(2, "cpu") == [{"OMP_NUM_THREADS": "1"}] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [place["CUDA_VISIBLE_DEVICES"] for place in plan.places(3, "cuda")] == ["4", "7", "4"]


def test_the_number_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "processors", lambda: 3.0)
    assert plan.side_by_side("auto", "cpu", "cpu") == 3
    assert plan.side_by_side("2", "auto", "cpu") == 2
    with pytest.raises(InputError, match="--jobs 0: give auto or a number from 1"):
        plan.side_by_side("0", "cpu", "cpu")
    with pytest.raises(InputError, match="give --device cuda, not cuda:1"):
        plan.side_by_side("2", "cuda:1", "cuda")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="leave out torchrun"):
        plan.side_by_side("2", "cpu", "cpu")


def test_make_understands_the_makefile_and_repeats_the_options(vggrepro: Call, photos: Path, tmp_path: Path) -> None:
    vggrepro("prepare", str(photos), "--preset", "demo", "--workers", "1")
    code, out, _ = vggrepro("reproduce", "--plan", "make", "--set", "dropout=0.25", "--seed", "3")
    assert code == 0
    (tmp_path / "runs.mk").write_text(out)
    dry = subprocess.run(
        ["make", "--no-print-directory", "-nf", "runs.mk"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = dry.stdout.splitlines()
    assert lines[0] == "vggrepro train A --scale 256 --set dropout=0.25 --seed 3"
    assert lines[-1] == "vggrepro reproduce --set dropout=0.25 --seed 3"
    assert len(lines) == len(plan.jobs()) + 1
    code, out, _ = vggrepro("reproduce", "--plan", "make", "--init", "he")
    assert code == 0
    assert "train-C-256: \n" not in out and "train-C-256:\n\t$(VGGREPRO) train C --scale 256 --init he\n" in out
    assert "\t$(VGGREPRO) reproduce --init he\n" in out
    code, _, err = vggrepro("reproduce", "--init", "A-256")
    assert code == 2 and "--init A-256: give random, glorot," in err


# Run


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs: while the second, which starts from the first, is trained, the first is evaluated."""
    names = ("A-256", "B-256")
    views = {run: {"dense": [256]} for run in paper.all_runs() if run.name in names}
    monkeypatch.setattr(plan, "needed_views", lambda multicrop=False: views)


def by_make(folder: Path, text: str) -> None:
    (folder / "runs.mk").write_text(text)
    start(folder, ["make", "-f", "runs.mk", "-j", "2"])


def by_slurm(folder: Path, text: str) -> None:
    (folder / "submit.sh").write_text(text)
    (folder / "sbatch").write_text(f'#!/bin/sh\nexec {sys.executable} {program.TESTS}/programs/sbatch.py "$@"\n')
    (folder / "sbatch").chmod(0o755)
    start(folder, ["sh", "submit.sh", "--partition=all"])


def start(folder: Path, words: list[str]) -> None:
    """Runs a scheduler; in place of the program it runs one that writes its arguments to `folder/ran`."""
    (folder / "program").write_text(f'echo "$@" >> {folder}/ran\n')
    environment = os.environ | {"VGGREPRO": f"sh {folder}/program", "SBATCH_FOLDER": str(folder)}
    environment |= {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("kind", "run"), [("make", by_make), ("slurm", by_slurm)])
def test_make_and_slurm_run_every_job_after_what_it_needs(
    vggrepro: Call, photos: Path, tmp_path: Path, kind: str, run: Callable[[Path, str], None]
) -> None:
    vggrepro("prepare", str(photos), "--preset", "demo", "--workers", "1")
    run(tmp_path, vggrepro("reproduce", "--plan", kind, *FAST)[1])
    ran = (tmp_path / "ran").read_text().splitlines()
    jobs = plan.jobs()
    place = {
        job.name: next(number for number, line in enumerate(ran) if line.startswith(f"{' '.join(job.words)} --"))
        for job in jobs
    }
    assert sorted(place.values()) == list(range(len(jobs)))
    for job in jobs:
        assert all(place[name] < place[job.name] for name in job.needs), job
    assert len(ran) == len(jobs) + 1
    assert ran[-1].startswith("reproduce ") and set(FAST) <= set(ran[-1].split())


def results(runs: Path) -> dict[str, bytes]:
    paths = [*runs.glob("*/weights.safetensors"), *runs.glob("*/posteriors/*.parquet")]
    return {str(path.relative_to(runs)): path.read_bytes() for path in paths}


@pytest.mark.slow
@pytest.mark.usefixtures("few", "one_thread")
def test_jobs_give_the_bits_of_one_by_one(
    vggrepro: Call, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    vggrepro("prepare", str(photos), "--preset", "demo", "--workers", "1")
    options = (*FAST, "--workers", "0")
    for job in plan.jobs():
        assert vggrepro(*job.words, *(options if job.words[0] == "train" else options[-4:]), "--runs", "alone")[0] == 0
    code, out, err = vggrepro("reproduce", "--jobs", "2", *options)
    assert code == 0, err
    assert out.startswith("#")
    assert "train-B-256: done" in err
    expected = results(tmp_path / "alone")
    assert len(expected) == 4
    assert results(tmp_path / "runs") == expected
    assert "B-256: finished" in (tmp_path / "runs" / "logs" / "train-B-256.log").read_text()
