"""What starts from what (Sect. 3.1), and which run folders are refused."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nets import CPU
from trained import request, tensors

from vggrepro import paper, recipe
from vggrepro.data.dataset import Dataset
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import FolderSource
from vggrepro.errors import InputError
from vggrepro.evaluation.evaluator import Evaluator
from vggrepro.nets.trained import Trained
from vggrepro.paper import JITTER, S256, S384, Run, Scale
from vggrepro.runs import folder as run_folders
from vggrepro.runs import status as run_status
from vggrepro.runs.config import Start
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import lock, read_json, write_json
from vggrepro.system.interrupt import Stopped
from vggrepro.training.chain import plan_chain, train_chain
from vggrepro.training.train import Training


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings that end at once, so that finished weights are starting weights."""
    monkeypatch.setattr(Training, "run", lambda self: None)


def test_chain_trains_what_is_missing(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_chain(Run("B", JITTER), request(dataset, tmp_path))
    talk = capsys.readouterr().err
    assert "plan: A-256 (to train) → B-256 (to train) → B-384 (to train) → B-256-512 (to train)" in talk
    assert [run.name for run in run_folders.finished(tmp_path)] == ["A-256", "B-256", "B-256-512", "B-384"]
    configs = {run.name: run.config() for run in run_folders.finished(tmp_path)}
    assert [configs[name].start.run for name in ("A-256", "B-256", "B-384", "B-256-512")] == [
        None, "A-256", "B-256", "B-384",
    ]  # fmt: skip
    rate = configs["A-256"].learning_rate
    assert configs["B-256"].learning_rate == rate
    assert configs["B-384"].learning_rate == configs["B-256-512"].learning_rate == 0.001  # rescale_rate
    assert configs["B-384"].start.weights == RunFolder(tmp_path / "B-256").weights_hash()
    train_chain(Run("B", JITTER), request(dataset, tmp_path))
    assert "B-256-512 is finished already" in capsys.readouterr().err


@pytest.mark.usefixtures("untrained")
def test_deeper_nets_start_from_a(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for net in ("B", "C", "D", "E"):
        train_chain(Run(net, S256), request(dataset, tmp_path))
        a, deeper = tensors(RunFolder(tmp_path / "A-256")), tensors(RunFolder(tmp_path / f"{net}-256"))
        for name, tensor in deeper.items():
            if name.endswith(".bias"):
                continue  # zero everywhere before training
            same = name in a and a[name].shape == tensor.shape and torch.equal(a[name], tensor)
            copied = name.removesuffix(".weight") in paper.COPIED_FROM_A
            # fresh layers are keyed by their names, so those that A has too start alike; the others are new
            assert same or not copied, name
    talk = capsys.readouterr().err
    assert (
        "D-256: at most 1 epoch; conv1_1, conv2_1, conv3_1, conv3_2, fc6, fc7, fc8 start from the weights of A-256; "
        "conv1_2, conv2_2, conv3_3, conv4_1" in talk
    )
    assert "conv5_3 from random weights (dirac)" in talk


@pytest.mark.usefixtures("untrained")
def test_every_net_can_start_from_random_weights(dataset: Dataset, tmp_path: Path) -> None:
    asked = replace(request(dataset, tmp_path, epochs=2, deeper_epochs=1), init="delta")
    first, then = plan_chain(Run("B", S384), asked)
    assert [first.config.start, then.config.start] == [Start(initialisation="delta"), Start(run="B-256")]
    assert [first.config.epochs, first.start, then.start] == [2, "delta", None]
    with pytest.MonkeyPatch.context() as patch:  # an unfinished run is not taken for one that starts from A
        patch.setattr(Training, "run", stopped)
        with pytest.raises(Stopped):
            train_chain(Run("B", S384), asked)
    train_chain(Run("B", S384), asked)
    assert [run.name for run in run_folders.finished(tmp_path)] == ["B-256", "B-384"]
    train_chain(Run("B", S384), replace(asked, init=None))


def stopped(training: Training) -> None:
    """A training that a signal stops at once."""
    raise Stopped(signal.SIGTERM)


def test_first_four_layers_and_fc_are_trained_weights_of_a(dataset: Dataset, tmp_path: Path) -> None:
    train_chain(Run("A", S256), request(dataset, tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "run", lambda self: None)
        train_chain(Run("D", S256), request(dataset, tmp_path))
    a, d = tensors(RunFolder(tmp_path / "A-256")), tensors(RunFolder(tmp_path / "D-256"))
    equal = {name.partition(".")[0] for name in d if name in a and torch.equal(a[name], d[name])}
    assert equal == set(paper.COPIED_FROM_A)


@pytest.mark.usefixtures("untrained")
def test_init_overrides_the_start(dataset: Dataset, tmp_path: Path) -> None:
    train_chain(Run("D", S256), request(dataset, tmp_path), "glorot")
    assert [run.name for run in run_folders.finished(tmp_path)] == ["D-256"]
    assert RunFolder(tmp_path / "D-256").config().start == Start(initialisation="glorot-uniform")
    train_chain(Run("E", S256), request(dataset, tmp_path), "D-256")
    assert RunFolder(tmp_path / "E-256").config().start.run == "D-256"
    with pytest.raises(
        InputError, match=r"nowhere: no initialisation \(random, .*, looks-linear, dirac\), and no run 'nowhere' in"
    ):
        train_chain(Run("C", S256), request(dataset, tmp_path), "nowhere")


@pytest.mark.usefixtures("untrained")
def test_glorot_trains_without_a_and_so_does_what_follows(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_chain(Run("D", S256), request(dataset, tmp_path), "glorot")
    assert "D-256: at most 1 epoch; all layers start from random weights (glorot-uniform)" in capsys.readouterr().err
    train_chain(Run("D", JITTER), request(dataset, tmp_path))  # D-256 is there: nobody needs A
    assert "plan: D-256 (done, 0 epochs) → D-384 (to train) → D-256-512 (to train)" in capsys.readouterr().err
    assert {run.name for run in run_folders.finished(tmp_path)} == {"D-256", "D-384", "D-256-512"}


@pytest.mark.usefixtures("untrained")
def test_lrn_is_the_runs_own(dataset: Dataset, tmp_path: Path) -> None:
    train_chain(Run("A-LRN", S256), request(dataset, tmp_path, lrn="caffe"))
    run = RunFolder(tmp_path / "A-LRN-256")
    assert Evaluator(Trained.load(run), CPU).model.lrn == "caffe"
    with pytest.raises(InputError, match="A-LRN-256 is a run of another configuration: lrn is caffe there, now kriz"):
        train_chain(Run("A-LRN", S384), request(dataset, tmp_path))
    with pytest.raises(
        InputError, match=r"A-LRN-384 would start from .*A-LRN-256, which has lrn caffe, not krizhevsky"
    ):
        train_chain(Run("A-LRN", S384), request(dataset, tmp_path), "A-LRN-256")
    train_chain(Run("D", S256), request(dataset, tmp_path))  # A has no LRN: its recipe's word does not matter


@pytest.mark.usefixtures("untrained")
def test_runs_from_before_a_value_had_its_name_go_on(dataset: Dataset, tmp_path: Path) -> None:
    train_chain(Run("A-LRN", S256), request(dataset, tmp_path))
    run = RunFolder(tmp_path / "A-LRN-256")
    config = read_json(run.config_path)
    for name in recipe.FORMER:
        del config["recipe"][name]
    del config["stride"]
    config["recipe"]["preset"] = config["dataset"]["preset"] = "quarter"  # the name that `coarse` had then
    write_json(run.config_path, config)
    assert run.config().recipe.preset == run.config().dataset.preset == "coarse"
    config["recipe"]["preset"] = config["dataset"]["preset"] = "demo"
    write_json(run.config_path, config)
    assert Evaluator(Trained.load(run), CPU).model.lrn == "krizhevsky"
    train_chain(Run("A-LRN", S256), request(dataset, tmp_path))
    with pytest.raises(InputError, match=r"another configuration: recipe.momentum_form is torch there, now caffe"):
        train_chain(Run("A-LRN", S256), request(dataset, tmp_path, momentum_form="caffe"))


@pytest.mark.usefixtures("untrained")
def test_weights_are_hashed_once_a_command(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def count(self: RunFolder) -> str:
        hashed.append(self.name)
        return f"{len(hashed)}"

    monkeypatch.setattr(RunFolder, "weights_hash", count)
    train_chain(Run("D", JITTER), request(dataset, tmp_path))
    assert hashed == ["A-256", "D-256", "D-384"]
    train_chain(Run("D", Scale(288, 288)), request(dataset, tmp_path))
    assert hashed == ["A-256", "D-256", "D-384"]


@pytest.mark.usefixtures("untrained")
def test_another_configuration_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    train_chain(Run("A", S256), request(dataset, tmp_path))
    with pytest.raises(InputError, match=r"A-256 is a run of another configuration: recipe.dropout is .* now 0.25"):
        train_chain(Run("A", S256), request(dataset, tmp_path, dropout=0.25))
    # as a start it is good enough, as long as the net and the data are the same
    train_chain(Run("B", S256), request(dataset, tmp_path, dropout=0.25))
    with pytest.raises(InputError, match=r"A-256 is a run of another configuration: width is 0.0625 there, now 0.125"):
        train_chain(Run("C", S256), request(dataset, tmp_path, width=0.125))
    with pytest.raises(InputError, match=r"C-256 would start from .*A-256, which has width 0.0625, not 0.125"):
        train_chain(Run("C", S256), request(dataset, tmp_path, width=0.125), "A-256")
    other = replace(dataset, fingerprint="0" * 64)
    with pytest.raises(InputError, match=r"A-256 is a run of another configuration: dataset.fingerprint"):
        train_chain(Run("C", S256), request(other, tmp_path))


@pytest.mark.usefixtures("untrained")
def test_imported_weights_are_neither_continued_nor_replaced_unasked(dataset: Dataset, tmp_path: Path) -> None:
    train_chain(Run("A", S256), request(dataset, tmp_path))
    run = RunFolder(tmp_path / "A-256")
    names = ("net", "scale", "crop", "width", "classes", "mean_rgb", "input_scale")
    config = {name: read_json(run.config_path)[name] for name in names}
    origin = "trained elsewhere: the Caffe model bird"
    recipe_ = {"resample": "bilinear", "lrn": "krizhevsky"}
    write_json(run.config_path, config | {"origin": origin, "imported": {"known": False}, "recipe": recipe_})
    held = f"{run.path} holds imported weights ({origin}); give --runs another folder"
    for target, remedy in ((Run("A", S256), ", or --retrain to replace them"), (Run("B", S256), "")):
        with pytest.raises(InputError) as error:
            train_chain(target, request(dataset, tmp_path))
        assert str(error.value) == held + remedy
    train_chain(Run("B", S256), request(dataset, tmp_path), "A-256")  # asked for
    train_chain(Run("A", S256), replace(request(dataset, tmp_path), retrain=True))
    assert run.config().imported is None


def test_nothing_is_trained_on_validation_images(photos: Path, tmp_path: Path) -> None:
    made = prepare(FolderSource(photos, val_only=True), tmp_path / "data", "demo", workers=0)
    with pytest.raises(InputError, match=r"data was prepared with --val-only and has no training images; to train, "):
        train_chain(Run("A", S256), request(made, tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_retrain_starts_anew(dataset: Dataset, tmp_path: Path) -> None:
    first = request(dataset, tmp_path)
    train_chain(Run("A", S256), first)
    before = RunFolder(tmp_path / "A-256").weights_hash()
    train_chain(Run("A", S256), replace(request(dataset, tmp_path, dropout=0.25), retrain=True))
    after = RunFolder(tmp_path / "A-256")
    assert after.weights_hash() != before
    assert len(after.epochs()) == 1
    assert after.config().recipe.values["dropout"] == 0.25


def test_second_writer_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with (
        lock(tmp_path / "A-256", "vggrepro train A-256"),
        pytest.raises(InputError, match=r"A-256 is being written by"),
    ):
        train_chain(Run("A", S256), request(dataset, tmp_path))
    assert run_status.status(RunFolder(tmp_path / "A-256")).state == "not started"


def test_unfinished_start_is_refused(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Training) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(Training, "run", interrupted)
        train_chain(Run("A", S256), request(dataset, tmp_path))
    assert run_status.status(RunFolder(tmp_path / "A-256")).state == "interrupted"
    with pytest.raises(InputError, match="A-256 is not finished; finish it before training B-384"):
        train_chain(Run("B", S384), request(dataset, tmp_path), "A-256")


def test_copies_too_small_for_the_last_run_of_a_chain_are_refused_before_the_first(
    photos: Path, tmp_path: Path
) -> None:
    """Enough for S = 256 at crop 64 (73 pixels), not for 512 (146)."""
    made = prepare(FolderSource(photos), tmp_path / "data", "demo", store_side=73, workers=0)
    with pytest.raises(InputError, match=r"of shorter side 73, scale 256:512 needs 146; prepare the data again"):
        train_chain(Run("B", JITTER), request(made, tmp_path / "runs", crop=64))
    assert not (tmp_path / "runs").exists()
    train_chain(Run("A", S256), request(made, tmp_path / "runs", crop=64))


@pytest.mark.usefixtures("untrained")
def test_a_compiled_or_fast_step_is_part_of_the_run(dataset: Dataset, tmp_path: Path) -> None:
    train_chain(Run("A", S256), request(dataset, tmp_path))
    assert "compiled" not in read_json(tmp_path / "A-256" / "config.json")
    fast = replace(request(dataset, tmp_path), machine=replace(CPU, fast=True))
    with pytest.raises(InputError, match="fast is None there, now True"):
        train_chain(Run("A", S256), fast)
    compiled = replace(request(dataset, tmp_path), machine=replace(CPU, compile=True))
    with pytest.raises(InputError, match="compiled is None there, now True"):
        train_chain(Run("A", S256), compiled)
