"""--dry-run: golden text of what is stable, nothing written, no lock taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from nets import CPU
from trained import request

from vggrepro import recipe
from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.paper import JITTER, S256, S384, Run
from vggrepro.reproduce import plan_all
from vggrepro.system import devices
from vggrepro.system.files import lock
from vggrepro.training import dryrun
from vggrepro.training.chain import Link, Request, plan_chain, train_chain
from vggrepro.training.dryrun import extrapolated, rehearse, si, step_seconds
from vggrepro.training.train import Training


@pytest.fixture
def half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that take 0.5 s, so that the text is the same everywhere."""
    monkeypatch.setattr(dryrun, "step_seconds", lambda link, request: 0.5)
    monkeypatch.setattr(devices, "describe", lambda device: "a machine")


def told(links: list[Link], asked: Request, given: dict[str, object]) -> str:
    return "\n\n".join(map(str, rehearse(links, asked, given)))


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


RECIPE = """\
recipe of preset paper (reasons and sources: docs/recipe.md)
  crop             224           preset  Sect. 3.1
  stride           32            preset  Sect. 2.1: five poolings
  width            1             preset  Table 1
  min_channels     1           preset  none in the paper: Table 1's layers have at least 64
  lrn              caffe         option  preset: krizhevsky
  resample         bilinear      preset  open; antialiased
"""


def test_the_recipe_says_where_each_value_comes_from() -> None:
    given = {"lrn": "caffe", "drop_by": [0.5]}
    lines = f"{dryrun._recipe(recipe.load('paper', given), given)}\n"
    assert [line.split() for line in lines.splitlines()[:7]] == [line.split() for line in RECIPE.splitlines()]
    assert "  drop_by          [0.5]       option  preset: []\n" in lines
    assert "  momentum_form    caffe       preset  open: rate inside the momentum, as in" in lines
    assert len(lines.splitlines()) == 1 + len(recipe.load("paper").as_dict()) - 1  # all but the preset's name


@pytest.mark.usefixtures("half_a_second")
def test_the_recipe_shows_the_initialisation_that_init_puts_in_its_place(dataset: Dataset, tmp_path: Path) -> None:
    asked = request(dataset, tmp_path / "runs")
    lines = told(plan_chain(Run("A", S256), asked, start="he"), asked, {})
    assert [line.split() for line in lines.splitlines() if "initialisation" in line] == [
        ["initialisation", "he", "option", "preset:", "dirac"]
    ]
    plain = told(plan_chain(Run("A", S256), asked), asked, {})
    assert "initialisation   dirac" in plain and "initialisation   dirac   option" not in plain


# By hand: channels 4 8 16 16 32 32 32 32, FC 256, maps of 32 16 8 4 2, 6 classes; A has 775,680 multiply-adds and
# 112,062 parameters, D 1,402,368 and 133,610. 30 images in batches of 8 are 24 an epoch, at 1/16 s each; the 18 of the
# validation cost a third.
PLAN = """\
chain
  A-256      to train  from random weights (dirac)
  D-256      to train  from A-256: conv1_1, conv2_1, conv3_1, conv3_2, fc6, fc7, fc8; the others random (dirac)
  D-384      to train  from D-256: all layers
  D-256-512  to train  from D-384: all layers

cost, at most (a plateau may end a run earlier)
  run        rate   epochs  images  FLOP/image  FLOP   time
  A-256      0.02   1       24      4.65 M      112 M  2 s
  D-256      0.02   1       24      8.41 M      202 M  2 s
  D-384      0.001  1       24      8.41 M      202 M  2 s
  D-256-512  0.001  1       24      8.41 M      202 M  2 s
  total                     96                  718 M  8 s
  FLOP: a multiply-add counts as two; a training step costs three forward passes.
  Time: from measured steps on synthetic images (a machine, fp32), without decoding images.

disk
  run        weights  checkpoint
  A-256      448 kB   896 kB
  D-256      534 kB   1.07 MB
  D-384      534 kB   1.07 MB
  D-256-512  534 kB   1.07 MB
  At most 5.26 MB at the same time: all weights and 3 checkpoints.
"""


@pytest.mark.usefixtures("half_a_second")
def test_a_chain_that_is_all_to_train(dataset: Dataset, tmp_path: Path) -> None:
    asked = request(dataset, tmp_path / "runs")
    text = told(plan_chain(Run("D", JITTER), asked), asked, {})
    assert text[text.index("chain\n") :] + "\n" == PLAN
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("half_a_second")
def test_states_of_runs_while_others_write(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(dataset, tmp_path, deeper_epochs=3)
    train_chain(Run("A", S256), asked)
    epochs = Training._epoch

    def second_breaks(self: Training, rate: float) -> None:
        if self.state.history:
            raise RuntimeError("power cut")
        epochs(self, rate)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(Training, "_epoch", second_breaks)
        train_chain(Run("B", S256), asked)
    before = files(tmp_path)
    with lock(tmp_path / "B-384", "vggrepro train B-384"):
        text = told(plan_chain(Run("B", S384), asked), asked, {})
    rows = [line.split("  ") for line in text[text.index("chain\n") :].splitlines()[1:4]]
    assert [[cell.strip() for cell in row if cell.strip()][:2] for row in rows[:2]] == [
        ["A-256", "done, 1 epoch"],
        ["B-256", "to resume after 1 epoch"],
    ]
    assert "B-384  0 epochs done, held by vggrepro train B-384 (process" in text
    costs = [line.split() for line in text[text.index("cost") :].splitlines()[2:4]]
    assert [(row[0], row[2]) for row in costs] == [("B-256", "2"), ("B-384", "1")]  # epochs that are left
    after = files(tmp_path)
    assert {path for path in after if path not in before} == {str(tmp_path / "B-384"), str(tmp_path / "B-384" / "lock")}
    assert all(after[path] == time for path, time in before.items() if path != str(tmp_path))


@pytest.mark.usefixtures("half_a_second")
def test_fc_only_and_finished_chains(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(dataset, tmp_path)
    links = plan_chain(Run("A", JITTER, fc_only=True), asked)
    text = told(links, asked, {})
    assert "  A-256-512-fc  to train  from A-384: all layers; only the FC layers are trained\n" in text
    monkeypatch.setattr(Training, "run", lambda self: None)
    train_chain(Run("A", S256), asked)
    text = told(plan_chain(Run("A", S256), asked), asked, {})
    assert text.endswith("chain\n  A-256  done, 0 epochs  from random weights (dirac)")
    again = replace(asked, retrain=True)
    assert "\n  total " in told(plan_chain(Run("A", S256), again), again, {})


@pytest.mark.usefixtures("half_a_second")
def test_everything_that_reproduce_trains(dataset: Dataset, tmp_path: Path) -> None:
    asked = request(dataset, tmp_path / "runs")
    links = plan_all(asked)
    assert [link.run.name for link in links][:3] == ["A-256", "A-LRN-256", "B-5x5-256"]
    assert len(links) == 14
    text = told(links, asked, {})
    assert sum(line.startswith("  D-256-512-fc ") for line in text.splitlines()) == 3  # in chain, cost and disk


@pytest.fixture
def first_link(dataset: Dataset, tmp_path: Path) -> Callable[..., tuple[Link, Request]]:
    def make(**values: object) -> tuple[Link, Request]:
        asked = request(dataset, tmp_path / "runs", **values)
        return plan_chain(Run("A", S256), asked)[0], asked

    return make


def test_a_step_is_measured_and_nothing_written(
    first_link: Callable[..., tuple[Link, Request]], tmp_path: Path
) -> None:
    link, asked = first_link(dropout=0.5)
    before = files(tmp_path)
    assert 1e-4 < step_seconds(link, asked) < 10
    assert files(tmp_path) == before


def test_refusals(first_link: Callable[..., tuple[Link, Request]], monkeypatch: pytest.MonkeyPatch) -> None:
    link, asked = first_link(batch=31)
    with pytest.raises(InputError, match=r"batch = 31 must be .* training images \(30\)"):
        rehearse([link], asked, {})
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="--dry-run measures one process; run it without torchrun"):
        rehearse([link], replace(asked, machine=CPU), {})


def test_a_batch_is_extrapolated_as_overhead_and_images() -> None:
    asked: list[int] = []

    def timed(count: int) -> float:
        asked.append(count)
        return 0.3 + 0.2 * count

    assert extrapolated(timed, 256) == pytest.approx(0.3 + 0.2 * 256)
    assert asked == [1, 4]  # 0.5 s an image leaves room for four in two seconds
    assert extrapolated(timed, 1) == pytest.approx(0.5)
    assert extrapolated(lambda count: 1e-3, 16) == pytest.approx(1e-3)


def test_si_prefixes() -> None:
    assert [si(value) for value in (0, 12.34, 999.4, 999.6, 92.82e9, 8.79e18, 5e21)] == [
        "0 ", "12.3 ", "999 ", "1 k", "92.8 G", "8.79 E", "5 Z",
    ]  # fmt: skip
