"""Archives: runs without weights give the same tables and claims elsewhere."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from conftest import Call
from planted import multi_scale

from vggrepro.data.dataset import Dataset, load
from vggrepro.errors import InputError
from vggrepro.nets.trained import Trained
from vggrepro.runs.archive import archive, parse_size, unpacking
from vggrepro.runs.folder import RunFolder, existing
from vggrepro.runs.status import status


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set's description and finished runs."""
    monkeypatch.chdir(tmp_path)
    multi_scale(tmp_path / "runs")
    describe(tmp_path / "data")
    return tmp_path


def describe(folder: Path) -> None:
    """dataset.json of the data set that the planted posteriors are of."""
    folder.mkdir()
    classes = [f"class {i}" for i in range(6)]
    about = {"name": "tiny", "version": 2, "classes": classes, "counts": {"train": 24, "val": 4}, "mean_rgb": [0, 0, 0]}
    about |= {"rgb_eigenvectors": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "rgb_eigenvalues": [1, 1, 1], "preset": "demo"}
    (folder / "dataset.json").write_text(json.dumps(about | {"fingerprint": "print"}))


def unpack(parts: Path, to: Path) -> None:
    to.mkdir()
    subprocess.run(unpacking(parts), shell=True, cwd=to, check=True)


def test_tables_and_claims_are_the_same_from_an_archive(here: Path, vggrepro: Call) -> None:
    commands = (("report", "--format", "csv"), ("report",), ("claims", "--format", "csv"))
    before = [vggrepro(*command) for command in commands]
    code, out, err = vggrepro("archive", "--to", "my parts", "--size", "20kB")
    assert code == 0
    parts = [Path(line) for line in out.splitlines()]
    assert len(parts) > 1 and all(part.stat().st_size <= 20_000 for part in parts)
    assert "unpack: cat 'my parts'/runs.tar.* | tar -x" in err
    elsewhere = here / "else where"
    unpack(here / "my parts", elsewhere)
    assert not list(elsewhere.rglob("*.safetensors"))
    options = ("--data", str(elsewhere / "data"), "--runs", str(elsewhere / "runs"))
    for command, (code, out, _) in zip(commands, before, strict=True):
        again = vggrepro(*command, *options)
        assert again[0] == code == 0
        shorter = again[1].replace(f"{elsewhere}/", "").replace(" --data data --runs runs", "")
        for kind in (" --data 'else where/data'", " --runs 'else where/runs'"):
            shorter = shorter.replace(kind, "")
        assert [line for line in shorter.splitlines() if "Not run" not in line] == [
            line for line in out.splitlines() if "Not run" not in line
        ]


def test_an_archive_has_the_runs_of_all_seeds(here: Path, vggrepro: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    multi_scale(here / "runs" / "seed1")
    before = vggrepro("claims", "--format", "csv")
    code, _, err = vggrepro("archive")
    assert code == 0, err
    unpack(here / "archive", here / "there")
    monkeypatch.chdir(here / "there")
    assert len(existing(Path("runs/seed1"))) == len(existing(here / "runs"))
    assert vggrepro("claims", "--format", "csv") == before
    name = existing(here / "runs")[0].name
    code, _, err = vggrepro("archive", name, f"{here}/runs/{name}", "--to", "other")
    assert code == 2 and f"two runs would be runs/{name} in it" in err


def test_the_same_files_give_the_same_bytes(here: Path, data_here: Dataset) -> None:
    digests = []
    for name in ("first", "second"):
        parts = archive(existing(here / "runs"), data_here, here / name, 10**9)
        digests.append([hashlib.sha256(part.read_bytes()).hexdigest() for part in parts])
    assert digests[0] == digests[1] and len(digests[0]) == 1


@pytest.fixture
def data_here(here: Path) -> Dataset:
    return load(here / "data")


def test_a_run_from_an_archive_says_so(here: Path, data_here: Dataset) -> None:
    run = existing(here / "runs")[0]
    known = run.weights_hash()
    archive([run], data_here, here / "parts", 10**9)
    unpack(here / "parts", here / "there")
    back = RunFolder(here / "there" / "runs" / run.name)
    assert back.weights_hash() == known
    assert (back.trained, back.finished) == (True, False)
    assert (status(back).state, status(back).note) == ("finished", "without weights")
    with pytest.raises(InputError, match="is from an archive and has no weights"):
        Trained.load(back)
    back.weights_hash_path.write_text("zzz")
    with pytest.raises(InputError, match="holds no SHA-256; unpack the archive again"):
        back.weights_hash()


def test_an_archive_that_is_there_is_not_overwritten(here: Path, data_here: Dataset) -> None:
    runs = existing(here / "runs")
    many = archive(runs, data_here, here / "parts", 20_000)
    assert len(many) > 1
    with pytest.raises(InputError, match="holds an archive already"):
        archive(runs, data_here, here / "parts", 10**9)
    whole = archive(runs, data_here, here / "parts", 10**9, force=True)
    assert sorted((here / "parts").iterdir()) == whole


def test_unfinished_runs_and_wrong_sizes_are_refused(here: Path, data_here: Dataset) -> None:
    run = existing(here / "runs")[0]
    run.weights_path.unlink()
    with pytest.raises(InputError, match="is not finished"):
        archive([run], data_here, here / "parts", 10**9)
    with pytest.raises(InputError, match="no finished runs"):
        archive([], data_here, here / "parts", 10**9)
    assert not (here / "parts").exists()
    assert [parse_size(text) for text in ("16MB", "1.5 GiB", "20000")] == [16_000_000, 3 << 29, 20_000]
    for text in ("much", "16 TB", "10"):
        with pytest.raises(InputError, match=f"--size {text}: give"):
            parse_size(text)
