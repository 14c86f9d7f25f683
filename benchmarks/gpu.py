"""What one GPU makes of this project, in five minutes: the figures that docs/scaling.md and docs/evaluation.md quote.

python benchmarks/gpu.py [--photos FOLDER] [--minutes 5] [--parts rate,step]
python benchmarks/gpu.py --smallest     (every part at its smallest size, on any machine)

The parts run one after another, most important first, each in a process of its own that has a limit of seconds (for 5
minutes; more --minutes raise it). What a part finds is stored in results/gpu.json at once, so that a part that is cut
off or fails loses only the rest of itself. Parts for which no time is left are named. A further call measures its parts
anew, and keeps those of earlier calls on the same machine; each part names its commit. Without --photos the
photographs are drawn (photographs.py).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from evaluate import make_run
from evaluate import ours as evaluated
from photographs import drawn, make_dataset, photographs
from record import product, product_side
from torch import Tensor
from torch.nn import functional as F
from train_step import architecture, ours, theirs

from vggrepro import paper, recipe
from vggrepro.data.dataset import Dataset, Split, load
from vggrepro.data.images import ordered
from vggrepro.data.prepare import prepare
from vggrepro.data.rescaling import rescale
from vggrepro.data.sources.demo import DemoSource
from vggrepro.evaluation import evaluator as net_at_work
from vggrepro.evaluation.evaluator import Evaluator
from vggrepro.nets import cost, resampling
from vggrepro.nets.trained import Trained
from vggrepro.nets.vgg import VGG
from vggrepro.paper import S256, Architecture, Run, Scale
from vggrepro.runs.folder import RunFolder
from vggrepro.system import devices
from vggrepro.system.commit import commit
from vggrepro.system.devices import HALVES, Machine
from vggrepro.training.chain import Request, train_chain
from vggrepro.training.checkpoint import Checkpoints
from vggrepro.training.loader import Loader

Rows = Iterator[dict[str, Any]]
DEVICE = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
CORES = os.cpu_count() or 1
NET = Architecture("D", 1000)
SAME = ("cpu", "gpu", "torch")  # of a machine whose earlier results are kept
KILLED_AFTER = 120  # seconds at most that a training is waited for until it is killed


@dataclass(frozen=True, slots=True)
class Size:
    """How much of each part is done."""

    folder: Path  # for data and runs, removed at the end
    photos: Path | None
    precision: str
    step: str = "paper"  # a size of train_step.py
    small: tuple[str, ...] = ("coarse-narrow", "quarter-narrow")
    batch: int = 256
    peers: bool = True
    turns: int = 10  # timed calls
    images: int = 96  # evaluated
    net: Architecture = NET
    budgets: tuple[int, ...] = (12, 32, 8, 16)  # forward pixels in units of 2^20
    drawn: int = 4800  # generated images of small trainings
    epochs: int = 2
    width: float = 0.25
    steps: int = 2000  # from the paper's own start


# Helpers


def wait() -> None:
    """Until the device has done all that it was asked."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds(function: Callable[[], Any], turns: int) -> float:
    """Of one call: the median of three rounds of calls, after one that does not count."""
    function()
    taken = []
    for _ in range(3):
        wait()
        began = time.perf_counter()
        for _ in range(turns):
            function()
        wait()
        taken.append((time.perf_counter() - began) / turns)
    return statistics.median(taken)


def matrix_rate(kind: str, size: Size) -> float:
    """FLOP/s of one large product at a precision."""
    tiny = size.step == "tiny"
    with devices.autocast(kind if kind not in HALVES else "fp32", DEVICE):
        return 2 * product_side(DEVICE, tiny) ** 3 / seconds(product(kind, DEVICE, tiny), size.turns)


def machine(size: Size, **values: Any) -> Machine:
    """This device at the precision that `--precision auto` takes."""
    return Machine(DEVICE, size.precision, **({"workers": CORES} | values))


def generated(size: Size) -> Dataset:
    """The demo's images, for small trainings."""
    folder = size.folder / "generated"
    if not (folder / "dataset.json").is_file():
        return prepare(DemoSource(0, size.drawn, 70), folder, "coarse", workers=CORES)
    return load(folder)


def trained(size: Size, name: str, run: Run, preset: str = "coarse", fast: bool = False, **values: Any) -> RunFolder:
    """A run trained on the generated images."""
    chosen = recipe.load(preset, {"batch": min(64, size.drawn // 8), "width": size.width} | values)
    request = Request(chosen, generated(size), size.folder / name, machine(size, fast=fast))
    train_chain(run, request, chosen.initialisation)
    return RunFolder(size.folder / name / run.name)


def evaluation(size: Size) -> tuple[RunFolder, Split]:
    """A run of net D with random weights, and photographs."""
    folder = size.folder / "photographs"
    if (folder / "dataset.json").is_file():
        split = Split(load(folder), "val")
    else:
        images = photographs(size.photos, size.images) if size.photos else drawn(size.images)
        split = Split(make_dataset(folder, (images * size.images)[: size.images], size.net.classes), "val")
    run = RunFolder(size.folder / "evaluated" / "D-256-512")
    return (run if run.finished else make_run(run.path, size.net, split)), split


# Parts


def rate(size: Size) -> Rows:
    """One large matrix product at each precision, and a copy within the memory."""
    for kind in ("bf16", "fp32", "tf32", "fp16") if DEVICE.type == "cuda" else ("bf16", "fp32"):
        yield {"product": kind, "tflops": matrix_rate(kind, size) / 1e12}
    source = torch.empty((1 << 30) if DEVICE.type == "cuda" else 1 << 24, dtype=torch.uint8, device=DEVICE)
    to = torch.empty_like(source)
    yield {"copy_gb_per_second": 2 * len(source) / seconds(lambda: to.copy_(source), size.turns) / 1e9}


def steps(contenders: tuple[str, ...], net: str, sizes: tuple[str, ...], size: Size) -> Rows:
    """Images/s of a training step, and its share of the rate of one large product."""
    product_rate = matrix_rate("bf16" if DEVICE.type == "cuda" else "fp32", size)
    for chosen in sizes:
        batch = size.batch if chosen == size.step else min(64, size.batch)
        flops = cost.training_flops(architecture(net, chosen)) * batch
        for name in contenders:
            row: dict[str, Any] = {"net": net, "size": chosen, "batch": batch, "contender": name}
            try:
                began = time.perf_counter()
                step = (ours if name.startswith("ours") else theirs)(name, net, chosen, batch)
                step()
                wait()
                row["first_step_seconds"] = time.perf_counter() - began
                taken = seconds(step, max(1, size.turns // 2))
            except Exception as error:
                yield row | {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
                continue
            row |= {"images_per_second": batch / taken, "share_of_matrix_rate": flops / taken / product_rate}
            if DEVICE.type == "cuda":
                row["memory_gb"] = torch.cuda.max_memory_allocated() / 2**30
                del step
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            yield row


def step(size: Size) -> Rows:
    """Net D at the paper's size: what repeating the bits costs, and the peers' scripts."""
    peers = ("timm amp", "torchvision amp") if size.peers else ()
    compiled = ("ours compiled",) if size.peers else ()
    yield from steps(("ours", "ours fast", *peers, *compiled), "D", (size.step,), size)


def compiled_peers(size: Size) -> Rows:
    """The peers' scripts compiled, which takes most of the time."""
    yield from steps(("torchvision amp compiled", "timm amp compiled"), "D", (size.step,), size) if size.peers else ()


def nets(size: Size) -> Rows:
    """Ours alone: small sizes, then A and E; eager, compiled, as graphs."""
    ways = ("ours", "ours recorded", "ours graphs", "ours compiled") if size.peers else ("ours",)
    for net in ("A", "D"):
        yield from steps(ways, net, size.small, size)
    for net in ("A", "E"):
        yield from steps(("ours",), net, (size.step,), size)


def fc6(size: Size) -> Rows:
    """Why timm's script is slow: its first FC layer is a 7x7 convolution; ours is a matrix product."""
    net, half = size.net, torch.bfloat16
    maps = torch.randn(size.batch, net.shapes()["fc6.weight"][1] // net.map_side**2, net.map_side, net.map_side)
    maps = maps.to(DEVICE, half)
    units = net.shapes()["fc6.weight"][0]
    weight = torch.randn(units, maps.shape[1], net.map_side, net.map_side, device=DEVICE, dtype=half)
    for layout in (torch.contiguous_format, torch.channels_last):
        x, w = (each.to(memory_format=layout).requires_grad_() for each in (maps, weight))
        for name, product_of in (
            ("convolution", lambda x=x, w=w: F.conv2d(x, w)),
            ("matrix product", lambda x=x, w=w: F.linear(x.flatten(1), w.flatten(1))),
        ):

            def both(product_of: Callable[[], Tensor] = product_of, x: Tensor = x, w: Tensor = w) -> None:
                torch.autograd.grad(product_of().sum(), (x, w))

            yield {"fc6_as": name, "layout": str(layout), "milliseconds": 1e3 * seconds(both, size.turns)}


def passes(size: Size) -> Rows:
    """Dense evaluation: each forward pass's shape and time, at first and when the shape comes again."""
    run, split = evaluation(size)
    timings: list[list[Any]] = []
    real = Evaluator.forward

    def timed(self: Evaluator, batch: Tensor, *rest: Any) -> Tensor:
        wait()
        began = time.perf_counter()
        found = real(self, batch, *rest)
        wait()
        timings.append([*batch.shape[:3], round(1e3 * (time.perf_counter() - began), 2)])
        return found

    Evaluator.forward = timed  # type: ignore[method-assign]
    for budget in size.budgets:
        net_at_work.FORWARD_PIXELS = dict.fromkeys(net_at_work.FORWARD_PIXELS, budget << 20)  # of a new Evaluator
        for q in (512, 256):
            net = Evaluator(Trained.load(run), machine(size))
            row: dict[str, Any] = {"forward_pixels": budget << 20, "q": q}
            for turn in ("first", "again"):
                timings.clear()
                evaluated(net, split, len(split), "dense", (q,))
                spent = sum(each[3] for each in timings)
                row |= {f"{turn}_passes": list(timings), f"{turn}_images_per_second": 1e3 * len(split) / spent}
            yield row


def fused(size: Size) -> Rows:
    """Convolution, bias and ReLU of D's layers: apart, and as the one operator that cuDNN has."""
    kind = HALVES.get(size.precision, torch.float32)
    side, count, before = size.net.crop, max(1, size.batch // 4), 3
    for block in paper.blocks("D"):
        for layer in block:
            assert isinstance(layer, paper.Conv)
            width, pad = size.net.channels(layer), layer.kernel // 2
            x, w, b = (
                torch.randn(shape, device=DEVICE, dtype=kind)
                for shape in ((count, before, side, side), (width, before, layer.kernel, layer.kernel), (width,))
            )
            x, w = (each.to(memory_format=torch.channels_last) for each in (x, w))
            ways: dict[str, Callable[[], Tensor]] = {
                "apart": lambda x=x, w=w, b=b, p=pad: F.conv2d(x, w, b, 1, p).relu_()
            }
            if DEVICE.type == "cuda":
                one = partial(torch.cudnn_convolution_relu, x, w, b, [1, 1], [pad, pad], [1, 1], 1)
                ways["fused"] = one
            row: dict[str, Any] = {"layer": layer.name, "images": count}
            with torch.inference_mode():
                row |= {name: 1e3 * seconds(way, size.turns) for name, way in ways.items()}
                found = [way().float() for way in ways.values()]
            row["largest_difference"] = float((found[0] - found[-1]).abs().max() / found[0].abs().max())
            yield row
            before = width
        side //= 2


def crops(size: Size) -> Rows:
    """Training crops of small data: the same pixels as the host's, and how long a batch takes."""
    data = generated(size)
    chosen = recipe.load("coarse", {"batch": min(64, size.drawn // 8)})
    own, plain = (Loader(data, chosen, Scale(256, 512), 0, device, 0) for device in (DEVICE, torch.device("cpu")))
    pairs = zip(own.batches(0), plain.batches(0), range(5), strict=False)
    differing = [(a.crops.cpu().int() - b.crops.int()).abs() for a, b, _ in pairs]
    values = torch.cat([each.flatten() for each in differing])
    yield {"values": len(values), "that_differ": int((values > 0).sum()), "largest_difference": int(values.max())}
    batches = own.batches(1)
    next(batches)
    wait()
    count = max(1, min(size.turns * 4, own.steps - 2))
    began = time.perf_counter()
    for _ in range(count):
        next(batches)
    asked = time.perf_counter() - began
    wait()
    yield {"batch_asked_for_ms": 1e3 * asked / count, "batch_made_ms": 1e3 * (time.perf_counter() - began) / count}


def rescaling(size: Size) -> Rows:
    """Photographs rescaled together, as evaluation does: the same pixels as the host's, and how long one takes."""
    _, split = evaluation(size)
    images = [split.image(index) for index in range(min(16, len(split)))]
    pixels = [torch.from_numpy(np.array(image)).to(DEVICE) for image in images]
    for q in (256, 384, 512):
        expected = [rescale(image, paper.real_pixels(q, size.net.crop)) for image in images]
        sizes = [(each.shape[0], each.shape[1]) for each in expected]
        shape = max(height for height, _ in sizes), max(width for _, width in sizes)
        work = partial(resampling.rescaled, pixels, sizes, shape, "bilinear")
        for kind in ("fp32", "tf32") if DEVICE.type == "cuda" else ("fp32",):
            with devices.autocast(kind, DEVICE):
                taken, found = seconds(work, size.turns), work().cpu().numpy()
            pairs = zip(found, expected, strict=True)
            differing = sum(int((a[: b.shape[0], : b.shape[1]] != b).sum()) for a, b in pairs)
            row = {"q": q, "precision": kind, "values": sum(each.size for each in expected), "that_differ": differing}
            yield row | {"milliseconds_an_image": 1e3 * taken / len(images)}


def repeat(size: Size) -> Rows:
    """Two equal trainings, and one that is killed and resumed: the same bits?"""
    run, values = Run("A", Scale(256, 512)), {"dropout": 0.5, "epochs": 5 * size.epochs}
    one, two = (trained(size, name, run, **values) for name in ("one", "two"))
    bits = one.weights_path.read_bytes()
    yield {"equal_trainings_end_in_the_same_bits": bits == two.weights_path.read_bytes()}
    words = [
        sys.executable,
        "-m",
        "vggrepro",
        "train",
        "A",
        "--scale",
        "256:512",
        "--data",
        str(generated(size).folder),
    ]
    used = {name: value for name, value in one.config().recipe.values.items() if name != "preset"}
    words += [word for name, value in used.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    words += ["--runs", str(size.folder / "killed"), "--init", used["initialisation"], "--device", str(DEVICE)]
    words += ["--precision", size.precision, "--checkpoint-minutes", "0"]
    killed = RunFolder(size.folder / "killed" / run.name)
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + KILLED_AFTER
        while not killed.previous_checkpoint_path.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    yield {"killed_by_signal": -process.returncode, "left_a_checkpoint": Checkpoints(killed).load() is not None}
    resumed = trained(size, "killed", run, **values)
    yield {"killed_and_resumed_ends_in_the_same_bits": bits == resumed.weights_path.read_bytes()}


def layout(size: Size) -> Rows:
    """The convolutions of a whole image at Q = 512, in fp32 and tf32, by the order of a tensor's dimensions."""
    model = VGG.of(size.net).to(DEVICE)
    height = paper.real_pixels(512, size.net.crop)
    for count in (1, 8) if DEVICE.type == "cuda" else (1,):
        for order in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(count, 3, height, height * 4 // 3, device=DEVICE).to(memory_format=order)
            model.to(memory_format=order)
            for kind in ("fp32", "tf32") if DEVICE.type == "cuda" else ("fp32",):
                with torch.inference_mode(), devices.autocast(kind, DEVICE):
                    taken = seconds(lambda x=x: model.features(x), max(1, size.turns // 3))
                yield {"images": count, "order": str(order), "precision": kind, "milliseconds": 1e3 * taken}


def evaluate(size: Size) -> Rows:
    """Images/s of dense and multi-crop evaluation, decoding included, and the share of one large product's rate."""
    run, split = evaluation(size)
    product_rate, net = matrix_rate("bf16", size), Evaluator(Trained.load(run), machine(size))
    for method, qs in (("dense", (256, 384, 512)), ("multicrop", (256,)), *(("dense", (q,)) for q in (256, 384, 512))):
        count = len(split) if method == "dense" else max(1, len(split) // 4)
        evaluated(net, split, count, method, qs)
        wait()
        began = time.perf_counter()
        evaluated(net, split, count, method, qs)
        taken = time.perf_counter() - began
        sizes = [flops(size, split, count, method, q) for q in qs]
        row = {"method": method, "q": list(qs), "images": count, "images_per_second": count / taken}
        yield row | {"share_of_matrix_rate": count * sum(sizes) / taken / product_rate}


def flops(size: Size, split: Split, count: int, method: str, q: int) -> float:
    """FLOPs of an image at Q, flips included."""
    if method == "multicrop":
        return cost.FLOPS * 2 * paper.GRID**2 * cost.crop_macs(size.net)
    shorter = paper.real_pixels(q, size.net.crop)
    ratios = [split.widths[index] / split.heights[index] for index in range(count)]
    shapes = [(shorter, int(shorter * max(each, 1 / each))) for each in ratios]
    return cost.FLOPS * 2 * float(np.mean([cost.dense_macs(size.net, *shape) for shape in shapes]))


def small(size: Size) -> Rows:
    """Trainings of small data in the device's memory: images/s, and the share of the time that waits for crops."""
    for net, preset in (("A", "coarse"), ("D", "coarse"), ("D", "quarter")):
        for fast in (False, True) if DEVICE.type == "cuda" else (False,):
            name = f"small-{net}-{preset}-{fast}"
            run = trained(size, name, Run(net, S256), preset, fast, epochs=size.epochs, deeper_epochs=size.epochs)
            last = run.epochs()[-1]
            row = {"net": net, "preset": preset, "fast": fast, "width": size.width}
            yield row | {"images_per_second": last.images_per_second, "waiting": last.data_wait}


def decoding(size: Size) -> Rows:
    """Photographs that threads decode in a second, and crops of 224 that training's loader cuts from them."""
    _, split = evaluation(size)
    split.image(0)
    for threads in sorted({1, 2, 4, 8, 16, CORES} & set(range(1, CORES + 1))):
        began = time.perf_counter()
        for _ in ordered(split.image, range(len(split)), threads, 2 * threads):
            pass
        yield {"threads": threads, "decoded_per_second": len(split) / (time.perf_counter() - began)}


def start(size: Size) -> Rows:
    """A from N(0, 0.01^2) at full width: does the loss leave ln K in 2,000 steps?"""
    batch = min(64, size.drawn // 8)
    epochs = max(1, round(size.steps / (size.drawn // batch)))
    values = {"initialisation": "random", "initial_std": 0.01, "width": 1.0 if size.peers else size.width}
    run = trained(size, "start", Run("A", S256), epochs=epochs, patience=epochs, drops=0, drop_by=[], **values)
    chance = math.log(len(generated(size).classes))
    losses = [round(epoch.loss, 4) for epoch in run.epochs()]
    yield {"ln_k": chance, "steps": epochs * (size.drawn // batch), "loss_by_epoch": losses}


PARTS: dict[str, tuple[Callable[[Size], Rows], float]] = {  # by importance; seconds at most
    "rate": (rate, 15),
    "step": (step, 75),
    "repeat": (repeat, 60),
    "crops": (crops, 20),
    "rescaling": (rescaling, 15),
    "small": (small, 45),
    "passes": (passes, 40),
    "evaluate": (evaluate, 40),
    "fused": (fused, 15),
    "fc6": (fc6, 10),
    "layout": (layout, 15),
    "nets": (nets, 75),
    "decoding": (decoding, 15),
    "start": (start, 45),
    "compiled peers": (compiled_peers, 60),
}


# Running them


def worker(name: str, size: Size) -> None:
    """Prints the part's rows, one a line, once the parent says so: its imports cost the part before nothing."""
    devices.keep_memory()
    print("ready", flush=True)
    sys.stdin.readline()
    for row in PARTS[name][0](size):
        print(json.dumps(rounded(row)), flush=True)


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """The row with numbers of five digits."""
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in row.items()}


class Part:
    """A part's process, which waits until it may begin; what it says goes to a file in `talks`."""

    def __init__(self, name: str, words: list[str], talks: Path) -> None:
        self.name, self._talk = name, talks / f"{name}.log"
        command = [sys.executable, __file__, *words, "--worker", name]
        with self._talk.open("w") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                start_new_session=True,  # so that `end` reaches what it starts
            )

    def run(self, limit: float, save: Callable[[dict[str, Any]], None]) -> None:
        """Runs the part for so many seconds at most; `save` gets what is known after each row."""
        process, rows = self._process, list[dict[str, Any]]()
        assert process.stdin and process.stdout
        process.stdout.readline()  # it is ready
        began = time.monotonic()
        timer = threading.Timer(limit, self.end)
        timer.start()
        with suppress(BrokenPipeError):  # it failed before it was ready
            process.stdin.write("go\n")
            process.stdin.close()
        for line in process.stdout:
            rows.append(json.loads(line))
            print(f"{self.name}: {line.strip()[:300]}", file=sys.stderr, flush=True)
            save({"rows": rows})
        code = process.wait()
        timer.cancel()
        found: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1), "rows": rows}
        if code == -signal.SIGKILL and found["seconds"] >= limit - 0.1:
            found["cut_off_after_seconds"] = round(limit, 1)
        elif code:
            found["failed"] = (self._talk.read_text().strip().splitlines() or [f"exit code {code}"])[-1]
        save(found)

    def end(self) -> None:
        """Kills the part's process and all that it started, if they are still there."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def run_parts(
    names: list[str], words: list[str], talks: Path, minutes: float, save: Callable[[str, Any], None]
) -> None:
    """Runs the parts in order until the time is over; the process of the next one starts meanwhile."""
    until = time.monotonic() + 60 * minutes
    parts = [Part(names[0], words, talks)]
    try:
        for name, following in zip(names, [*names[1:], ""], strict=True):
            part, left = parts[-1], until - time.monotonic()
            if following:
                parts.append(Part(following, words, talks))
            if left > 5:
                part.run(min(PARTS[name][1] * max(1.0, minutes / 5), left), partial(save, name))
            else:
                part.end()
                save(name, {"left_out": "no time was left"})
    finally:
        for part in parts[-2:]:
            part.end()


class Results:
    """What all parts found, stored after each addition.

    Args:
        name: of the file in results/; what it has from the same machine is kept.
    """

    def __init__(self, name: str) -> None:
        self._name, self._commit, self.left_out = name, commit(), list[str]()
        path = record.RESULTS / f"{name}.json"
        before = json.loads(path.read_text()) if path.is_file() else {"machine": {}}
        same = all(before["machine"].get(key) == value for key, value in record.machine().items() if key in SAME)
        self._parts: dict[str, Any] = before["results"] if same else {}

    def save(self, part: str, found: dict[str, Any]) -> None:
        """Stores what a part found; that no time was left for it replaces nothing."""
        if "left_out" in found:
            self.left_out.append(part)
            found = self._parts.get(part, found)
        self._parts[part] = {"commit": self._commit} | found
        record.store(self._name, self._parts)


def main() -> None:
    """All parts, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of photographs (default: drawn ones)")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--parts", default=",".join(PARTS), help="by commas, in the order wanted")
    parser.add_argument("--smallest", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, size_of(given.folder, given.photos, given.smallest))
        os._exit(0)  # without the second that the libraries take to end
    results = Results("gpu" if DEVICE.type == "cuda" else "gpu-smallest")
    with tempfile.TemporaryDirectory(prefix="gpu") as folder:
        words = ["--folder", folder, *(["--smallest"] if given.smallest else [])]
        words += ["--photos", str(given.photos)] if given.photos else []
        run_parts(given.parts.split(","), words, Path(folder), given.minutes, results.save)
    if results.left_out:
        print(
            f"no time was left for some parts; measure them with --parts {','.join(results.left_out)}", file=sys.stderr
        )


def size_of(folder: Path, photos: Path | None, smallest: bool) -> Size:
    """The whole size, or the smallest."""
    size = Size(folder, photos, devices.precision("auto", DEVICE))
    if not smallest:
        return size
    counts = {"batch": 2, "turns": 1, "images": 2, "budgets": (1,), "drawn": 64, "epochs": 1, "steps": 4}
    net = Architecture("D", 10, 64, 1 / 32)
    return replace(size, step="tiny", small=("tiny",), peers=False, width=1 / 32, net=net, **counts)


if __name__ == "__main__":
    main()
