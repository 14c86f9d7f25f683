"""Claim: a training step takes at most half the time of timm's default step on a CPU, and is close to the matrix rate.

python benchmarks/train_step.py                 every net and size, as this machine allows: on a GPU batch 256, bf16
python benchmarks/train_step.py --check         only: the same loss and gradients as timm's and torchvision's nets
python benchmarks/train_step.py --nets D --sizes quarter-narrow --rounds 7 --only ours,timm

Ours is `Training.step` as `vggrepro train` calls it: keyed dropout, colour shift, mirroring, mean subtraction, SGD
with groups for the biases. The others do what their training scripts do: torchvision's references/classification
(fp32, or --amp; NCHW) and timm's train.py (fp32, or --amp with --channels-last; eager or --torchcompile), with images
that are floats on the device already and without reading the loss. All have the same batch and sizes of layers.

Each contender is a process of its own, so that none has another's memory allocator, and they step turn by turn; a turn
begins with a step that is not timed and ends with the device idle. The matrix rate is that of one large product in the
same turns; the share of it is 6 FLOPs x multiply-adds x images/s, on a CPU both by processor time.
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
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from record import clocks, product, product_side, write
from torch import Tensor, nn
from torch.nn import functional as F

from vggrepro import paper, recipe
from vggrepro.nets import cost
from vggrepro.paper import Architecture
from vggrepro.system import processes

# preset, width, K; crop and stride are the preset's
SIZES = {
    "paper": ("paper", 1.0, 1000),
    "quarter": ("quarter", 1.0, 100),
    "quarter-narrow": ("quarter", 0.25, 100),
    "coarse-narrow": ("coarse", 0.25, 100),
    "tiny": ("coarse", 1 / 32, 10),
}
CPU_BATCH = {"paper": 4, "quarter": 8, "quarter-narrow": 32, "coarse-narrow": 64, "tiny": 8}
PUBLIC = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
# name: what it is. "ours" trains in bf16 where the processor multiplies it, as --precision auto.
CONTENDERS = {
    "ours": "vggrepro",
    "ours plain memory": "vggrepro without kept memory and huge pages (CPU)",
    "ours fast": "vggrepro --fast: kernels whose bits may differ from run to run (GPU)",
    "ours recorded": "vggrepro, a step as one CUDA graph, as `train` makes it of small data (GPU)",
    "ours compiled": "vggrepro --compile",
    "ours graphs": "vggrepro, compiled into CUDA graphs (GPU)",
    "ours fp32": "vggrepro --precision fp32",
    "timm": "timm train.py: fp32, NCHW",
    "timm amp": "timm train.py --amp --channels-last",
    "timm amp compiled": "timm train.py --amp --channels-last --torchcompile",
    "torchvision": "torchvision train.py: fp32, NCHW",
    "torchvision amp": "torchvision train.py --amp",
    "torchvision amp compiled": "torchvision train.py --amp, torch.compile",
}


def chosen(size: str, net: str) -> list[str]:
    """The contenders that a machine has memory and time for: on a CPU, compiled ones only with --only."""
    if GPU:
        left_out = {"ours plain memory"} | ({"ours recorded"} if size == "paper" else set())
        return [name for name in CONTENDERS if name not in left_out]
    if net != "D":
        return ["ours", "timm"]
    few = ["ours", "ours plain memory", "timm", "timm amp"]
    return few if size == "quarter" else [*few, "ours fp32", "torchvision", "torchvision amp"]


# The nets


def architecture(net: str, size: str) -> Architecture:
    """The net at this size."""
    preset, width, classes = SIZES[size]
    return Architecture(net, classes, *recipe.load(preset, {"width": width}).geometry)


def peer(library: str, sizes: Architecture, dropout: float) -> nn.Module:
    """The library's own net; below crop 224 or width 1, its classes with layers and poolings of our sizes."""
    import timm.models.vgg
    import torchvision.models.vgg

    net, classes, width, side = sizes.net, sizes.classes, sizes.width, sizes.map_side
    whole = sizes.crop == 224 and width == 1
    plan: list[Any] = []
    for block, pooled in zip(paper.blocks(net), paper.poolings(sizes.stride), strict=True):
        plan += [sizes.channels(layer) for layer in block if isinstance(layer, paper.Conv)]
        plan += ["M"] if pooled else []
    fc = sizes.units
    if library == "timm":
        if whole:
            return timm.create_model(PUBLIC[net], num_classes=classes, drop_rate=dropout)
        model = timm.models.vgg.VGG(plan, num_classes=classes, drop_rate=dropout)
        model.pre_logits = timm.models.vgg.ConvMlp(plan[-2], fc, side, drop_rate=dropout)
        model.head.fc = nn.Linear(fc, classes)
        return model
    if whole:
        return torchvision.models.get_model(PUBLIC[net], weights=None, num_classes=classes, dropout=dropout)
    model = torchvision.models.vgg.VGG(torchvision.models.vgg.make_layers(plan), classes, False, dropout)
    model.avgpool = nn.AdaptiveAvgPool2d(side)
    model.classifier[0] = nn.Linear(plan[-2] * side**2, fc)
    model.classifier[3], model.classifier[6] = nn.Linear(fc, fc), nn.Linear(fc, classes)
    return model


def scaled_like_he(model: nn.Module) -> nn.Module:
    """Quick random weights that keep the signal; nothing here depends on which."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
            else:
                parameter.zero_()
    return model


# The steps


def ours(name: str, net: str, size: str, batch: int) -> Callable[[], Any]:
    """`Training.step` with this process's share of a random batch that lies on the host, as the loader leaves it."""
    from vggrepro.nets import keyed
    from vggrepro.nets.vgg import VGG
    from vggrepro.runs.folder import RunFolder
    from vggrepro.system import devices
    from vggrepro.system.devices import Machine
    from vggrepro.training.loader import Batch
    from vggrepro.training.train import Goal, Training

    (preset, width, classes), sizes = SIZES[size], architecture(net, size)
    device = devices.device("auto") if name != "ours plain memory" else torch.device("cpu")
    precision = "fp32" if name == "ours fp32" else devices.precision("auto", device)
    values = {"width": width, "batch": batch, "dropout": 0.5, "input_scale": 1 / 60, "held_out": 0.0}
    chosen, crop = recipe.load(preset, values), sizes.crop
    model = scaled_like_he(VGG.of(sizes))
    dataset: Any = SimpleNamespace(
        classes=range(classes), counts={"train": batch, "val": 1}, mean_rgb=(124.0, 117.0, 104.0)
    )
    loader: Any = SimpleNamespace(steps=1, resident=True if name == "ours recorded" else None)
    goal = Goal(paper.Run(net, paper.S256), chosen, 1e-5, 1, seed=0)
    folder = RunFolder(Path(tempfile.mkdtemp()) / "run")
    way = {"compile": name == "ours compiled", "fast": name == "ours fast" and GPU}
    training = Training(goal, model, dataset, folder, Machine(device, precision, **way), loader)
    if name == "ours graphs":
        loss = training.gradient.loss
        loss._maps, loss._end = (
            torch.compile(part, dynamic=False, mode="reduce-overhead") for part in (loss._plain_maps, loss._plain_end)
        )
    generator = torch.Generator().manual_seed(0)
    rows = len(processes.share(batch))
    crops = torch.randint(0, 256, (rows, crop, crop, 3), dtype=torch.uint8, generator=generator)
    given = Batch(
        crops,
        torch.rand(rows, generator=generator) < 0.5,
        torch.randn(rows, 3, generator=generator) * 5,
        torch.randint(0, classes, (rows,), generator=generator),
        keyed.key(0, keyed.DROPOUT, torch.arange(rows)),
    )
    if size != "paper":  # small data lies on the GPU
        given = Batch(*(tensor.to(device) for tensor in given.tensors()))
    return lambda: training.step(1e-5, 0, given)


def theirs(name: str, net: str, size: str, batch: int) -> Callable[[], Any]:
    """The training loop's body of timm's or torchvision's script; AMP in bf16, which needs no scaler."""
    library, _, how = name.partition(" ")
    sizes = architecture(net, size)
    device = torch.device("cuda" if GPU else "cpu")
    nhwc = torch.channels_last if library == "timm" and "amp" in how else torch.contiguous_format
    # drop_rate of timm's script is 0 by default, torchvision's nets have 0.5
    model = scaled_like_he(peer(library, sizes, 0.5 if library == "torchvision" else 0.0))
    model = model.to(device).to(memory_format=nhwc).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-4)
    run: Callable[[Tensor], Tensor] = torch.compile(model) if "compiled" in how else model
    images = torch.randn(batch, 3, sizes.crop, sizes.crop, device=device).to(memory_format=nhwc)
    labels = torch.randint(0, sizes.classes, (batch,), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16) if "amp" in how else nullcontext():
            loss = F.cross_entropy(run(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


# Processes


def worker(name: str, net: str, size: str, batch: int) -> None:
    """Builds a contender, then times the steps asked for, one line of stdin a turn."""
    began = time.perf_counter()
    if name.startswith("matrix "):
        step = product(name.split()[1], DEVICE, size == "tiny")
    else:
        step = (ours if name.startswith("ours") else theirs)(name, net, size, batch)
    step()
    if GPU:
        torch.cuda.synchronize()
    print(json.dumps({"first_seconds": time.perf_counter() - began}), flush=True)
    for line in sys.stdin:
        steps, settle = int(line.split()[0]), float(line.split()[1])
        step()
        settled = time.perf_counter() + settle
        while time.perf_counter() < settled:
            step()
        if GPU:
            torch.cuda.synchronize()
        before = clocks()
        for _ in range(steps):
            step()
        if GPU:
            torch.cuda.synchronize()
        seconds, busy = ((now - then) / steps for now, then in zip(clocks(), before, strict=True))
        peak = torch.cuda.max_memory_allocated() / 2**30 if GPU else resident_gb()
        if GPU and "graphs" not in name:
            torch.cuda.empty_cache()  # the others need it
        print(json.dumps({"seconds": seconds, "cpu_seconds": busy, "memory_gb": round(peak, 2)}), flush=True)


def resident_gb() -> float:
    """The process's largest memory so far; getrusage's would count its parent's."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0.0


class Contender:
    """A worker process, waiting between its turns."""

    def __init__(
        self, name: str, net: str, size: str, batch: int, variables: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.name = name
        command = [sys.executable, __file__, "--worker", name, net, size, str(batch)]
        environment = {**os.environ, **variables}
        if name == "ours plain memory":
            environment["THP_MEM_ALLOC_ENABLE"] = "0"
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.memory = 0.0
        self.error = ""
        self.first = self._read().get("first_seconds", 0.0)

    def _read(self) -> dict[str, float]:
        assert self.process.stdout and self.process.stderr
        line = self.process.stdout.readline()
        if not line:
            self.error = (self.process.stderr.read().strip().splitlines() or ["it ended"])[-1]
            return {}
        return json.loads(line)

    def turn(self, steps: int, settle: float = 0.0) -> None:
        """Times some steps, after at least one step and `settle` seconds of steps that do not count."""
        if self.error:
            return
        assert self.process.stdin
        self.process.stdin.write(f"{steps} {settle}\n")
        self.process.stdin.flush()
        if answer := self._read():
            self.seconds.append(answer["seconds"])
            self.cpu_seconds.append(answer["cpu_seconds"])
            self.memory = answer["memory_gb"]

    def end(self) -> None:
        """Ends the process."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


def compare(net: str, size: str, batch: int, rounds: int, steps: int, names: list[str]) -> dict[str, Any]:
    """Images/s of each contender and its share of the matrix rate."""
    sizes = architecture(net, size)
    flops = cost.training_flops(sizes)
    contenders = [Contender(name, net, size, batch) for name in [*names, "matrix bf16", "matrix fp32"]]
    for _ in range(rounds):
        for contender in contenders:
            contender.turn(steps)
    for contender in contenders:
        contender.end()
    times = {c.name: statistics.median(c.seconds) for c in contenders if c.seconds}
    # on a CPU by processor time, that is for one core: a machine shared with others has no steadier clock
    busy = {c.name: statistics.median(c.seconds if GPU else c.cpu_seconds) for c in contenders if c.seconds}
    rates = {p: 2 * product_side(DEVICE, size == "tiny") ** 3 / busy[f"matrix {p}"] for p in ("bf16", "fp32")}
    mine_in_turns = next((c.seconds for c in contenders if c.name == "ours"), [])
    rows = []
    for contender in contenders[:-2]:
        if contender.name not in times:
            rows.append({"contender": contender.name, "failed": contender.error})
            continue
        speed = batch / times[contender.name]
        half = "amp" in contender.name or (contender.name.startswith("ours") and contender.name != "ours fp32")
        row = {
            "contender": contender.name,
            "images_per_second": round(speed, 2),
            "share_of_matrix_rate": round(flops * batch / busy[contender.name] / rates["bf16" if half else "fp32"], 3),
            "cpu_ms_an_image": round(1e3 * statistics.median(contender.cpu_seconds) / batch, 3),
            "first_step_seconds": round(contender.first, 1),
            "memory_gb": contender.memory,
        }
        if contender.name != "ours" and "ours" in times:  # in each turn, then the median: neighbours' load cancels
            ratios = [its / mine for its, mine in zip(contender.seconds, mine_in_turns, strict=True)]
            row["ours_is_faster_by"] = round(statistics.median(ratios), 2)
        rows.append(row)
        print(f"{net} {size}: {json.dumps(row)}", file=sys.stderr, flush=True)
    matrix = {p: round(rate / 1e12, 4) for p, rate in rates.items()}
    return {
        "net": net,
        "size": size,
        "crop": sizes.crop,
        "stride": sizes.stride,
        "width": sizes.width,
        "batch": batch,
        "matrix_tflops": matrix,
        "rows": rows,
    }


# Equality


def check(net: str, size: str, batch: int = 2) -> dict[str, dict[str, float]]:
    """Difference to the peers' loss and gradients with the same weights and images, without dropout.

    In float64 the largest of any tensor, relative to its largest element. In fp32 each net is compared with its own
    float64 gradient, by the norm of the whole: ours may be at most twice as far from it as the peer's, whose kernels
    (for another memory layout) round otherwise.
    """
    from vggrepro.nets.vgg import VGG, to_input

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    device, sizes = torch.device("cuda" if GPU else "cpu"), architecture(net, size)
    model = scaled_like_he(VGG.of(sizes)).to(device).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(1)
    shape = (batch, sizes.crop, sizes.crop, 3)
    crops = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).to(device)
    labels = torch.randint(0, sizes.classes, (batch,), generator=generator).to(device)
    images = to_input(crops, torch.tensor([124.0, 117.0, 104.0], device=device), 1 / 60)

    def gradients(net: nn.Module, kind: torch.dtype) -> list[Tensor]:
        loss = F.cross_entropy(net.to(kind)(images.to(kind)), labels)
        return [loss.detach(), *torch.autograd.grad(loss, list(net.parameters()))]

    mine = {kind: gradients(model, kind) for kind in (torch.float32, torch.float64)}
    result: dict[str, dict[str, float]] = {}
    for library in ("timm", "torchvision"):
        other = peer(library, sizes, 0.0).to(device, torch.float64)
        with torch.no_grad():
            for its, own in zip(other.parameters(), model.parameters(), strict=True):
                its.copy_(own.view_as(its))
        exact, rounded = gradients(other, torch.float64), gradients(other, torch.float32)
        pairs = zip(mine[torch.float64], exact, strict=True)
        result[library] = {
            "float64": max(float((b.reshape(a.shape) - a).abs().max() / a.abs().max()) for a, b in pairs),
            "float32": distance(mine[torch.float32][1:], mine[torch.float64][1:]),
            "float32_peer": distance(rounded[1:], exact[1:]),
        }
        found = result[library]
        assert found["float64"] < 1e-9, f"{net} {size}, {library}: {found}"
        assert found["float32"] < max(1e-5, 2 * found["float32_peer"]), f"{net} {size}, {library}: {found}"
    return result


def distance(found: list[Tensor], exact: list[Tensor]) -> float:
    """Norm of the difference over that of the exact values, all tensors together."""
    squares = [(float((a - b).square().sum()), float(b.square().sum())) for a, b in zip(found, exact, strict=True)]
    return (sum(a for a, _ in squares) / sum(b for _, b in squares)) ** 0.5


def main() -> None:
    """Checks equality, then compares."""
    if sys.argv[1:2] == ["--worker"]:
        name, net, size, batch = sys.argv[2:]
        worker(name, net, size, int(batch))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--nets", default="D,A,E")
    parser.add_argument("--sizes", default="coarse-narrow,quarter-narrow,paper,quarter")
    parser.add_argument("--only", default="", help="contenders")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20 if GPU else 1, help="timed in a turn")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--no-store", action="store_true")
    given = parser.parse_args()
    results: dict[str, Any] = {"equality": {}, "comparisons": []}
    if not GPU:
        results["note"] = "GPU figures are missing: no GPU here. On one, the same command measures batch 256 in bf16."
        print(results["note"], file=sys.stderr)
    for size in given.sizes.split(","):
        for net in given.nets.split(","):
            results["equality"][f"{net} {size}"] = check(net, size)
            if not given.check:
                names = given.only.split(",") if given.only else chosen(size, net)
                batch = given.batch or (256 if GPU else CPU_BATCH[size])
                results["comparisons"].append(compare(net, size, batch, given.rounds, given.steps, names))
                if not given.no_store:
                    write("train_step", results)
    if given.no_store or given.check:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
