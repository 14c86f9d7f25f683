"""Model cards beside exported files."""

from __future__ import annotations

from pathlib import Path

import pytest
from exports import small
from nets import CPU, random_run

from vggrepro.data.dataset import Dataset
from vggrepro.evaluation.evaluate import evaluate
from vggrepro.exchange import card as cards
from vggrepro.exchange import exporting
from vggrepro.nets import weights
from vggrepro.nets.trained import Trained
from vggrepro.posteriors.protocol import Protocol
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import read_json, write_json


@pytest.mark.parametrize(
    ("to", "dense", "lines"),
    [
        (
            "onnx",
            False,
            [
                "- input: `images`, uint8 RGB, (N, 64, 64, 3): pixels as they are, neither centred nor scaled",
                "- in the graph: (0–255 − (110, 120, 90)) · 0.0172, the net, soft-max",
                "- output: `posterior` and, before the soft-max, `scores`: float32 (N, 6)",
                "- test image: shorter side 110 for Q = 384, the longer rounded down (bilinear, antialiased), then the "
                "central crop of 64 × 64",
            ],
        ),
        (
            "onnx",
            True,
            [
                "- input: `images`, uint8 RGB, (N, H, W, 3), H and W at least 64: pixels as they are, neither centred "
                "nor scaled",
                "- in the graph: (0–255 − (110, 120, 90)) · 0.0172, the net, the mean over positions, soft-max",
                "- test image: shorter side 110 for Q = 384, the longer rounded down (bilinear, antialiased), whole",
            ],
        ),
        (
            "torchvision",
            False,
            [
                "- input: float32 RGB from 0 to 1, (N, 3, 64, 64), then `Normalize`: mean (0.431373, 0.470588, "
                "0.352941), std (0.227998, 0.227998, 0.227998)",
                "- the same of pixels from 0 to 255: (0–255 − (110, 120, 90)) · 0.0172",
            ],
        ),
        ("safetensors", False, ["- input: float32 RGB, (N, 3, 64, 64), (0–255 − (110, 120, 90)) · 0.0172"]),
    ],
)
def test_the_card_describes_its_file(tmp_path: Path, to: str, dense: bool, lines: list[str]) -> None:
    run = small(tmp_path, scale="256:512")
    text = cards.card(run, Trained.load(run), to, tmp_path / "file", dense)
    assert f"Written by `vggrepro export A-256 --to {to}{' --dense' if dense else ''}` (" in text
    found = text.splitlines()
    assert [line for line in lines if line not in found] == []
    assert ("`Normalize`" in text) == (to != "onnx")  # nobody normalises twice


def test_the_card_follows_the_starts(tmp_path: Path) -> None:
    """Rate and epochs as they were trained, not the recipe's for random weights."""
    recipe = {"learning_rate": 0.01, "rescale_rate": 0.003, "initialisation": "glorot", "batch": 16}
    chain: list[RunFolder] = []
    for name, net, epochs, rate in (("A-256", "A", 7, 0.01), ("D-256", "D", 5, 0.01), ("D-384", "D", 3, 0.003)):
        start = {"run": chain[-1].name, "weights": chain[-1].weights_hash()} if chain else {"initialisation": "he"}
        run = random_run(tmp_path / name, net=net, start=start, learning_rate=rate, recipe=recipe)
        run.metrics_path.write_text('{"step": 1}\n{"epoch": 1}\n' * epochs)
        chain.append(run)
    first, second, run = chain

    def lines(name: str) -> str:
        text = cards.card(run, Trained.load(run), "onnx", tmp_path / "file")
        (line,) = [line for line in text.splitlines() if line.startswith(f"- {name}: ")]
        return line.partition(": ")[2]

    copied = "conv1_1, conv2_1, conv3_1, conv3_2, fc6, fc7, fc8; the others random, glorot-normal"
    assert lines("start") == f"D-256 (all layers) ← A-256 ({copied}) ← random weights (he)"
    assert lines("epochs") == "7 (A-256) + 5 (D-256) + 3 (this run)"
    assert lines("learning rate") == "0.003 at first"
    assert "\n- initialisation" not in cards.card(run, Trained.load(run), "onnx", tmp_path / "file")
    random_run(first.path, seed=1)
    gone = "A-256, which is not there or was trained again"
    assert (lines("start"), lines("epochs")) == (f"D-256 (all layers) ← {gone}", "unknown + 5 (D-256) + 3 (this run)")
    write_json(first.path / "config.json", [])
    assert lines("start").endswith(gone)
    write_json(
        second.config_path, read_json(second.config_path) | {"origin": "trained elsewhere: by hand", "start": None}
    )
    assert (lines("start"), lines("epochs")) == ("D-256 (all layers) ← trained elsewhere: by hand", "3")


def test_the_card_has_the_runs_errors(tmp_path: Path, dataset: Dataset) -> None:
    """Of files that these weights made, and of no others."""
    run = small(tmp_path, class_names=list(dataset.classes))
    frame = evaluate(run, dataset, Protocol(("dense", "multicrop"), qs=(256,)), CPU)
    error = {row.method: row.top1_error for row in frame.itertuples()}
    text = exporting.export(run, "safetensors", card=True)[-1].read_text()
    rows = [line for line in text.splitlines() if line.startswith("| photos |")]
    assert [row.split(" | ")[1:6] for row in rows] == [
        [method, "256", "yes", "18", f"{error[method]:.2f}"] for method in ("dense", "multicrop")
    ]
    evaluate(run, dataset, Protocol(("multicrop",), (256,), flip=False, grid=2), CPU)
    text = exporting.export(run, "safetensors", card=True, force=True)[-1].read_text()
    assert "| photos | multicrop-grid2-noflip | 256 | no | 18 |" in text  # not to be taken for the paper's
    weights.save(run.weights_path, weights.load(run.weights_path)[0], {"other": 1})
    text = exporting.export(run, "safetensors", card=True, force=True)[-1].read_text()
    assert "Not evaluated." in text
