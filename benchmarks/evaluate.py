"""Claim: dense and multi-crop evaluation cost a fraction of what they cost as users write them today.

python benchmarks/evaluate.py [--photos FOLDER] [--images N] [--sample N] [--rounds N] [--device cuda] [--workers N]

Net D with the same weights on the same photographs, turn by turn in one run. The peer is torchvision's vgg16
turned convolutional, in a process of its own, an image at a time, each Q and flip a pass that decodes the file again;
for multi-crop, crop by crop. Ours is what `vggrepro evaluate` does. Posteriors are compared; the best classes must
agree in fp32. The matrix rate is that of one large product in the same turns; the share of it is FLOPs x images/s, on
a CPU both by this process's processor time, decoding included.

On a GPU the same command also evaluates a sample by all protocols of Table 5, and says what 50,000 images would take.
It needs torch, torchvision and what vggrepro itself needs, and no network. FOLDER holds photographs (*.jpg, *.jpeg) or
ILSVRC2012_img_val.tar.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluate_peer import INPUT_SCALE, MEAN
from photographs import drawn, make_dataset, photographs
from record import clocks, product, product_side, write

from vggrepro import paper
from vggrepro.data import rescaling
from vggrepro.data.dataset import Dataset, Split
from vggrepro.evaluation import evaluate as stage
from vggrepro.evaluation.evaluator import Batcher, Evaluator
from vggrepro.nets import cost, weights
from vggrepro.nets.initialise import initialise
from vggrepro.nets.trained import Trained
from vggrepro.nets.vgg import VGG, to_input
from vggrepro.paper import Architecture
from vggrepro.posteriors.protocol import Method, Protocol
from vggrepro.runs.folder import RunFolder
from vggrepro.system import devices
from vggrepro.system.devices import Machine
from vggrepro.system.files import write_json

QS = (256, 384, 512)
KINDS = ("fp32", "bf16")
NETS = {"paper": Architecture("D", 1000), "tiny": Architecture("D", 10, 64, 1 / 32)}
VAL_IMAGES = 50_000


def make_run(folder: Path, net: Architecture, split: Split) -> RunFolder:
    """A finished run with random weights whose scores have mean 0 and deviation 3 over crops of photographs."""
    side, count = paper.real_pixels(256, net.crop), min(32, len(split))
    cut = [rescaling.rescale(split.image(index), side)[: net.crop, : net.crop].copy() for index in range(count)]
    crops = to_input(torch.from_numpy(np.stack(cut)), torch.tensor(MEAN), INPUT_SCALE)
    model = VGG.of(net)
    initialise(model, "he", 0)
    with torch.no_grad():
        scores = model(crops)
        scale = 3 / scores.std(0)
        model.fc8.weight *= scale[:, None]
        model.fc8.bias -= (scores * scale).mean(0)
    run = RunFolder(folder)
    config: dict[str, Any] = {name: getattr(net, name) for name in ("net", "classes", *net.geometry._fields)}
    config |= {"scale": "256:512", "mean_rgb": MEAN, "input_scale": INPUT_SCALE, "recipe": {"resample": "bilinear"}}
    write_json(run.config_path, config)
    weights.save(run.weights_path, dict(model.named_parameters()), {})
    return run


class Peer:
    """torchvision's vgg16 in a process of its own (evaluate_peer.py)."""

    def __init__(self, run: RunFolder, device: torch.device, folder: Path) -> None:
        script, answer = Path(__file__).with_name("evaluate_peer.py"), folder / "peer.npy"
        words = [sys.executable, str(script), str(run.weights_path), str(device), str(answer)]
        plain = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=plain)
        self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, method: str, pixels: int, crop: int, files: list[Path], exact: bool) -> np.ndarray:
        """Posteriors of the files, rescaled to a shorter side of so many pixels, by a method."""
        assert self.process.stdin is not None
        request: dict[str, Any] = {"method": method, "q": pixels, "crop": crop, "exact": exact}
        request["files"] = [str(path) for path in files]
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return np.load(self._answer())

    def end(self) -> None:
        """Closes the process's input, which ends it."""
        self.process.communicate()


def ours(
    evaluator: Evaluator, split: Split, count: int, method: str, qs: tuple[int, ...], _: bool = False
) -> np.ndarray:
    """What `vggrepro evaluate` does with `count` images: decode and rescale in threads, passes by size."""
    keys = [(method, q) for q in qs]
    gathered = {q: Batcher(evaluator, Method(method)) for q in qs}
    for scales in stage.decoded(split, [(range(count), keys)], evaluator):
        for q, views_at_q in gathered.items():
            views_at_q.add(scales[q])
    return np.mean([views_at_q.finish() for views_at_q in gathered.values()], axis=0)


def products(precision: str, device: torch.device, tiny: bool) -> tuple[Callable[[bool], None], float]:
    """A turn of large matrix products, and its FLOPs."""
    count, step = (50 if device.type == "cuda" else 1), product(precision, device, tiny)

    def turn(_: bool) -> None:
        with devices.autocast(precision, device):  # no tf32 in fp32
            for _ in range(count):
                step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return turn, count * 2.0 * product_side(device, tiny) ** 3


def timed(functions: dict[str, Callable[[bool], Any]], rounds: int) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """What each function gives in a first turn, and its wall and processor seconds in each further turn."""
    found = {name: function(True) for name, function in functions.items()}
    seconds: dict[str, list[Any]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            before = clocks()
            function(False)
            seconds[name].append([now - then for now, then in zip(clocks(), before, strict=True)])
    return found, seconds


def flops_an_image(net: Architecture, split: Split, count: int, method: str, q: int) -> float:
    """Mean FLOPs of an image at Q, flips included."""
    if method == "multicrop":
        return cost.FLOPS * 2 * paper.GRID**2 * cost.crop_macs(net)
    side = paper.real_pixels(q, net.crop)
    sizes = [rescaling.rescale(split.image(index), side).shape for index in range(count)]
    return cost.FLOPS * 2 * float(np.mean([cost.dense_macs(net, height, width) for height, width, _ in sizes]))


class Comparison:
    """The peer and ours on the same photographs, protocol by protocol."""

    def __init__(self, run: RunFolder, split: Split, files: list[Path], folder: Path, options: Any) -> None:
        self.split, self.files, self.rounds = split, files, options.rounds
        self.net = NETS[options.size]
        self.device = devices.device(options.device)
        self.peer = Peer(run, self.device, folder)
        machines = {kind: Machine(self.device, kind, workers=options.workers) for kind in KINDS}
        self.nets = {kind: Evaluator(Trained.load(run), machine) for kind, machine in machines.items()}
        self.products = {kind: products(kind, self.device, options.size == "tiny") for kind in KINDS}
        self.peer_seconds: dict[int, float] = {}  # of an image, dense

    def row(self, method: str, qs: tuple[int, ...], count: int) -> dict[str, Any]:
        """Images/s, ratios to the peer, shares of the matrix rate and differences of posteriors.

        At several Q the peer takes the sum of its times at each, which it was measured at before.
        """
        functions: dict[str, Callable[[bool], Any]] = {
            kind: partial(ours, net, self.split, count, method, qs) for kind, net in self.nets.items()
        }
        functions |= {f"matrix {kind}": turn for kind, (turn, _) in self.products.items()}
        if len(qs) == 1:
            side, crop = paper.real_pixels(qs[0], self.net.crop), self.net.crop
            functions["torchvision"] = partial(self.peer.ask, method, side, crop, self.files[:count])
        found, turns = timed(functions, self.rounds)
        wall = {name: statistics.median(wall for wall, _ in each) for name, each in turns.items()}
        if method == "dense" and len(qs) == 1:
            self.peer_seconds[qs[0]] = wall["torchvision"] / count
        theirs = count * sum(self.peer_seconds[q] for q in qs) if len(qs) > 1 else wall["torchvision"]
        flops = count * sum(flops_an_image(self.net, self.split, count, method, q) for q in qs)
        clock = 0 if self.device.type == "cuda" else 1
        busy = {name: statistics.median(each_turn[clock] for each_turn in each) for name, each in turns.items()}
        rates = {kind: work / busy[f"matrix {kind}"] for kind, (_, work) in self.products.items()}
        row: dict[str, Any] = {"protocol": f"{method}, Q = {', '.join(map(str, qs))}", "images": count}
        row["gflop_an_image"] = round(flops / count / 1e9, 1)
        row["images_per_second"] = {"torchvision": count / theirs} | {kind: count / wall[kind] for kind in KINDS}
        if len(qs) > 1:
            row["ratio"] = {kind: theirs / wall[kind] for kind in KINDS}
        else:  # in each turn, then the median: neighbours' load cancels
            pairs = {kind: zip(turns["torchvision"], turns[kind], strict=True) for kind in KINDS}
            row["ratio"] = {kind: statistics.median(a[0] / b[0] for a, b in pair) for kind, pair in pairs.items()}
        row["share_of_matrix_rate"] = {kind: flops / busy[kind] / rates[kind] for kind in KINDS}
        row["matrix_tflops"] = {kind: rate / 1e12 for kind, rate in rates.items()}
        if "torchvision" in found:
            row["mean_difference"] = {kind: float(np.abs(found[kind] - found["torchvision"]).mean()) for kind in KINDS}
            if method == "dense":  # grids may differ by a pixel
                assert np.abs(found["fp32"] - found["torchvision"]).max() < 1e-4
            assert (found["fp32"].argmax(1) == found["torchvision"].argmax(1)).mean() > 0.9
        print(json.dumps(row), file=sys.stderr, flush=True)
        return row


def table5(run: RunFolder, dataset: Dataset, machine: Machine, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Minutes that Table 5 of one net (dense, 150 crops, both) takes for 50,000 images.

    On a GPU by evaluating the sample as the command does, files and errors included; on a CPU from the rates above.
    """
    if machine.device.type == "cuda":
        count, began = dataset.counts["val"], time.perf_counter()
        stage.evaluate(run, dataset, Protocol(("dense", "multicrop")), machine)
        seconds, how = (time.perf_counter() - began) / count, f"{count} photographs evaluated by both methods"
    else:
        rates = {row["protocol"]: row["images_per_second"]["bf16"] for row in rows}
        seconds = 1 / rates["dense, Q = 256, 384, 512"] + 3 / rates["multicrop, Q = 256"]
        how = "the rates of dense evaluation at three Q and of 50 crops, three times"
    return {"seconds_an_image": seconds, "minutes_for_50000": seconds * VAL_IMAGES / 60, "from": how}


def goals(rows: list[dict[str, Any]], minutes: float, device: torch.device) -> list[dict[str, Any]]:
    """What was to be reached on this kind of machine, and whether it was."""
    by_name = {row["protocol"]: row for row in rows}
    three, crops = by_name["dense, Q = 256, 384, 512"], by_name["multicrop, Q = 256"]
    dense = [row for row in rows if row["protocol"].startswith("dense")]
    if device.type == "cuda":
        found = [
            ("dense over three Q, times torchvision", 8, three["ratio"]["bf16"]),
            ("dense over three Q, share of the matrix rate", 0.5, three["share_of_matrix_rate"]["bf16"]),
            ("multi-crop, share of the matrix rate", 0.6, crops["share_of_matrix_rate"]["bf16"]),
            ("Table 5 for 50,000 images, minutes at most", 20, minutes),
        ]
    else:
        found = [
            ("dense at Q = 256, fp32, times torchvision", 2, dense[0]["ratio"]["fp32"]),
            ("dense at every Q, bf16, times torchvision", 3, min(row["ratio"]["bf16"] for row in dense)),
            ("multi-crop, fp32, times torchvision", 2, crops["ratio"]["fp32"]),
        ]
    return [
        {"goal": goal, "wanted": wanted, "reached": reached, "met": (reached <= wanted) == goal.endswith("at most")}
        for goal, wanted, reached in found
    ]


def main() -> None:
    """Prints and stores images/s, ratios and shares of the matrix rate for dense and multi-crop evaluation."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, help="folder of photographs (default: drawn ones)")
    parser.add_argument("--size", choices=NETS, default="paper")
    parser.add_argument("--images", type=int, default=400 if gpu else 8, help="compared; a fourth for multi-crop")
    parser.add_argument(
        "--sample", type=int, default=1000 if gpu else 0, help="evaluated for Table 5 on a GPU, at most"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2, help="threads that decode")
    parser.add_argument("--no-store", action="store_true")
    options = parser.parse_args()
    wanted = max(options.images, options.sample, 32)
    images = photographs(options.photos, wanted) if options.photos else drawn(wanted)
    device = devices.device(options.device)
    with tempfile.TemporaryDirectory() as name:
        data = make_dataset(Path(name) / "data", images, NETS[options.size].classes)
        split = Split(data, "val")
        files = [Path(name) / f"{index}.jpg" for index in range(min(options.images, len(split)))]
        for index, file in enumerate(files):
            file.write_bytes(split.image_bytes(index))
        run = make_run(Path(name) / "runs" / "D-256-512", NETS[options.size], split)
        comparison = Comparison(run, split, files, Path(name), options)
        rows = [comparison.row("dense", (q,), len(files)) for q in QS]
        rows.append(comparison.row("dense", QS, len(files)))
        rows.append(comparison.row("multicrop", (256,), max(1, len(files) // 4)))
        comparison.peer.end()
        whole = table5(run, data, Machine(device, "bf16", workers=options.workers), rows)
    results: dict[str, Any] = {"protocols": rows, "table5": whole, "workers": options.workers}
    results["goals"] = goals(rows, whole["minutes_for_50000"], device)
    if device.type != "cuda":
        results["note"] = "GPU figures are missing: no GPU here. On one, the same command measures them."
        print(results["note"], file=sys.stderr)
    if options.no_store:
        print(json.dumps(results, indent=2))
    else:
        write("evaluate", results)


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"{time.monotonic() - began:.0f} s")
