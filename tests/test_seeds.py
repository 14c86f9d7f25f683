"""Several seeds by `reproduce --seeds`: which folders, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Call

from vggrepro.commands.options import seeds_of
from vggrepro.errors import InputError
from vggrepro.reproduce import seeded
from vggrepro.runs.folder import seed_folders


def test_the_first_seed_has_the_folder_and_the_others_subfolders(tmp_path: Path) -> None:
    folders = seeded(tmp_path, (0, 1, 7))
    assert folders == {tmp_path: 0, tmp_path / "seed1": 1, tmp_path / "seed7": 7}
    for folder in folders:
        (folder / "A-256").mkdir(parents=True)
        (folder / "A-256" / "config.json").write_text("{}")
    assert seed_folders(tmp_path) == list(folders)


def test_one_folder_is_one_seed_with_or_without_runs(tmp_path: Path) -> None:
    assert seed_folders(tmp_path) == [tmp_path]
    assert seed_folders(tmp_path / "none") == [tmp_path / "none"]


def test_seeds_are_different_whole_numbers() -> None:
    assert seeds_of(None, 5) == (5,)
    assert seeds_of("0,1,12", 0) == (0, 1, 12)
    for text in ("", "0,0", "1,x", "-1", "0,"):
        with pytest.raises(InputError, match="whole numbers with commas"):
            seeds_of(text, 0)
    with pytest.raises(InputError, match="--seed and --seeds"):
        seeds_of("0,1", 3)


def test_seeds_go_without_jobs_and_plans(vggrepro: Call) -> None:
    code, _, err = vggrepro("reproduce", "--seeds", "0,1", "--jobs", "2")
    assert code == 2
    assert "--seeds: without --jobs and --plan" in err
