"""The doctor: what may keep this machine, data set or run from working, found in seconds.

Each check stands alone: one that fails says so in its row, and the others go on. Nothing heavy is imported before its
check, so that a broken torch or torchvision is a finding and no traceback.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vggrepro.advice import command
from vggrepro.errors import InputError
from vggrepro.files import locked_by, read_json

if TYPE_CHECKING:
    from vggrepro.dataset import Dataset
    from vggrepro.runs import RunFolder

OK, WARNING, BROKEN = "ok", "warning", "broken"
PYTHON = (3, 11)
PACKAGE = "vggrepro"
CHECKOUT = Path(__file__).parents[1]
SECONDS = 8.0  # for the weights of runs; what does not fit is named
MEMORY_GB, DISK_GB = 4, 5  # D at width 1: 0.6 GB of weights; while training 1.1 GB a checkpoint, two of them
DECODED = 8  # images of each split


@dataclass(frozen=True, slots=True)
class Finding:
    """A row: ok, warning or broken; what was looked at; what was found; what to do."""

    state: str
    check: str
    result: str
    advice: str = ""


def diagnose(data: Path, runs: Path, names: Sequence[str] = (), seconds: float = SECONDS) -> list[Finding]:
    """All checks in order.

    Args:
        data: the data set's folder.
        runs: the folder of run folders.
        names: runs to check whatever it takes; none: all of them, as far as `seconds` go.
        seconds: time for the weights of runs.
    """
    machine: list[tuple[str, Callable[[], Finding | list[Finding]]]] = [
        ("python", python),
        ("packages", packages),
        ("extras", extras),
        ("torch", torch_),
        ("torchvision", torchvision_),
        ("device", device),
        ("precision", precision),
        ("threads", threads),
        ("memory", memory),
        ("disk", lambda: disk(data, runs)),
        ("data set", lambda: data_set(data)),
        ("runs", lambda: all_runs(data, runs, names, seconds)),
    ]
    findings: list[Finding] = []
    for name, check in machine:
        found = guarded(name, check)
        findings += found
    return findings


def table(findings: Sequence[Finding]) -> str:
    """State, check and result in columns, the advice below."""
    wide = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<{len(WARNING)}}  {finding.check:<{wide}}  {finding.result}")
        if finding.advice:
            lines.append(" " * (len(WARNING) + wide + 4) + f"→ {finding.advice}")
    return "\n".join(lines)


def guarded(name: str, check: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    """A check's findings; its failure is one of them."""
    try:
        found = check()
    except InputError as error:
        return [Finding(BROKEN, name, str(error))]
    except Exception as error:  # whatever a broken installation or file throws
        line = (str(error).strip() or "no message").splitlines()[0]
        return [Finding(BROKEN, name, f"the check failed: {type(error).__name__}: {line}", "see the result")]
    return found if isinstance(found, list) else [found]


# The installation


def python() -> Finding:
    """The interpreter is new enough."""
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info < PYTHON:
        return Finding(BROKEN, "python", found, f"install Python {'.'.join(map(str, PYTHON))} or newer")
    return Finding(OK, "python", found)


def packages() -> Finding:
    """vggrepro's dependencies by their metadata: nothing is imported."""
    found, bad = [], []
    for name, least, extra in requirements():
        if extra:
            continue
        version = installed(name)
        if version is None:
            bad.append(f"{name} is missing")
        elif numbers(version) < numbers(least):
            bad.append(f"{name} {version} is older than {least}")
        else:
            found.append(f"{name} {version}")
    if bad:
        return Finding(BROKEN, "packages", ", ".join(bad), f"pip install --upgrade {PACKAGE}")
    return Finding(OK, "packages", ", ".join(found))


def extras() -> Finding:
    """Which optional dependencies are whole, by the names of vggrepro's extras."""
    missing: dict[str, list[str]] = {}
    for name, _, extra in requirements():
        if extra and extra != "dev":
            missing.setdefault(extra, [])
            if installed(name) is None:
                missing[extra].append(name)
    parts = [f"{extra}: {'lacks ' + ', '.join(names) if names else 'there'}" for extra, names in missing.items()]
    lacking = [extra for extra, names in missing.items() if names]
    advice = f"pip install '{PACKAGE}[{','.join(lacking)}]', if you want them" if lacking else ""
    return Finding(OK, "extras", "; ".join(parts) or "none", advice)


def requirements() -> Iterator[tuple[str, str, str]]:
    """(package, least version, extra or "") of what vggrepro asks for, as far as it is for this machine."""
    for line in declared():
        match = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*(?:>=\s*([\d.]+))?", line)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", line)
        elsewhere = "sys_platform" in line and sys.platform == "darwin"
        elsewhere |= "platform_machine" in line and platform.machine() not in line
        if match and match[1] != PACKAGE and not elsewhere:
            yield match[1], match[2] or "0", extra[1] if extra else ""


def declared(checkout: Path = CHECKOUT) -> list[str]:
    """vggrepro's requirements, as metadata writes them.

    A checkout's own pyproject.toml comes first: an editable install's metadata are of the day it was installed.
    """
    path = checkout / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {}) if path.is_file() else {}
    if project.get("name") != PACKAGE:
        return importlib.metadata.requires(PACKAGE) or []
    optional = project["optional-dependencies"].items()
    return project["dependencies"] + [f'{line}; extra == "{extra}"' for extra, lines in optional for line in lines]


def installed(name: str) -> str | None:
    """A package's version; None if it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> tuple[int, ...]:
    """`2.15.0+cu128` -> (2, 15, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def torch_() -> Finding:
    """torch imports and multiplies."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    total = float((torch.ones(8, 8) @ torch.ones(8, 8)).sum())
    if total != 512:
        return Finding(BROKEN, "torch", f"{torch.__version__}: 8 x 8 ones give {total:g}, not 512", "install it again")
    return Finding(OK, "torch", f"{torch.__version__}, built for {build}")


def torchvision_() -> Finding:
    """torchvision is compiled for one version of torch; with another its operators are missing."""
    version, here = installed("torchvision"), installed("torch")
    pins = [re.match(r"torch\s*==\s*([\w.+]+)", line) for line in importlib.metadata.requires("torchvision") or ()]
    wanted = next((pin[1] for pin in pins if pin), None)
    advice = f"pip install 'torch=={wanted}' 'torchvision=={version}'" if wanted else "install both anew, together"
    try:
        import torchvision
        from torchvision.transforms import functional  # noqa: F401
    except Exception as error:
        line = str(error).splitlines()[0]
        return Finding(BROKEN, "torchvision", f"{version} does not fit torch {here} ({line})", advice)
    result = f"{torchvision.__version__}, made for torch {wanted or here}"
    if wanted and here and numbers(wanted) != numbers(here):
        return Finding(WARNING, "torchvision", f"{result}, but torch {here} is installed", advice)
    return Finding(OK, "torchvision", result)


# The machine


def device() -> Finding:
    """What `--device auto` takes."""
    import torch

    if torch.cuda.is_available():
        found = []
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            found.append(f"{card.name}, {card.total_memory / 2**30:.0f} GB")
        return Finding(OK, "device", "; ".join(found))
    if shutil.which("nvidia-smi"):
        why = "its driver is too old or torch is the CPU build"
        return Finding(
            WARNING, "device", "torch does not see the NVIDIA GPU", f"{why}; compare nvidia-smi with torch's"
        )
    backend = getattr(torch.backends, "mps", None)
    if backend is not None and backend.is_available():
        return Finding(OK, "device", "Apple GPU: --device mps")
    return Finding(
        OK, "device", f"CPU alone ({platform.machine()})", "enough for the demo; the paper's nets need a GPU"
    )


def precision() -> Finding:
    """What `--precision auto` takes."""
    from vggrepro import hardware

    chosen = hardware.device("auto")
    kind = hardware.precision("auto", chosen)
    why = "bf16 is native" if kind == "bf16" else "bf16 is not native"
    return Finding(OK, "precision", f"--precision auto is {kind} on {chosen} ({why})")


def threads() -> Finding:
    """How many of the cores torch uses."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = torch.get_num_threads()
    result = f"torch computes with {count} of {cores} cores"
    if count == 1 and cores > 1:
        return Finding(WARNING, "threads", result, "unset OMP_NUM_THREADS, unless other work needs the cores")
    return Finding(OK, "threads", result)


def memory() -> Finding:
    """Main memory, against what a net of the paper's width takes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    info = Path("/proc/meminfo")
    match = re.search(r"MemAvailable:\s+(\d+)", info.read_text()) if info.is_file() else None
    free = int(match[1]) / 2**20 if match else total  # Linux alone says what is free
    result = f"{free:.1f} of {total:.1f} GB free" if match else f"{total:.1f} GB"
    if free < MEMORY_GB:
        return Finding(
            WARNING, "memory", result, f"nets of the paper's width want {MEMORY_GB} GB: smaller --micro-batch"
        )
    return Finding(OK, "memory", result)


def disk(data: Path, runs: Path) -> list[Finding]:
    """Room where the data set and the runs are, or will be."""
    return [_disk(f"disk of {place}", place) for place in dict.fromkeys((data, runs))]


def _disk(name: str, place: Path) -> Finding:
    there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free / 1e9
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Finding(WARNING, name, f"{there} cannot be written", "give another folder, or change its permissions")
    if free < DISK_GB:
        advice = f"training a net of the paper's width takes up to {DISK_GB} GB"
        return Finding(WARNING, name, f"{free:.1f} GB free", advice)
    return Finding(OK, name, f"{free:,.1f} GB free")


# The data set


def data_set(data: Path) -> list[Finding]:
    """The data set opens, its images decode, its classes are in the usual order."""
    from vggrepro import dataset as stage

    if not (data / stage.DATASET_JSON).is_file():
        try:
            stage.load(data)
        except InputError as error:
            return [Finding(WARNING, "data set", str(error))]
    dataset = stage.load(data)
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset.counts.items() if count)
    result = f"{dataset.name}: {counts}; {len(dataset.classes):,} classes, preset {dataset.preset}"
    about = Finding(OK, "data set", f"{result}; fingerprint {dataset.fingerprint[:16]}")
    findings = [
        about,
        *guarded("shards", lambda: shards(dataset)),
        *guarded("class order", lambda: class_order(dataset)),
    ]
    return findings


def shards(dataset: Dataset) -> Finding:
    """Every shard is there and opens; some images of each split decode. Checksums: `vggrepro dataset --verify`."""
    from vggrepro.dataset import DATASET_JSON, Split

    recorded = read_json(dataset.folder / DATASET_JSON).get("shards", {})
    missing = [name for name in recorded if not (dataset.folder / name).is_file()]
    if missing:
        lost = f"{missing[0]} is missing" + (f", {len(missing) - 1} more" if len(missing) > 1 else "")
        return Finding(BROKEN, "shards", lost, "prepare the data set again")
    decoded = 0
    for name, count in dataset.counts.items():
        if count:
            split = Split(dataset, name)
            for place in range(DECODED):
                split.image(place * (len(split) - 1) // (DECODED - 1))
                decoded += 1
    return Finding(
        OK, "shards", f"{len(recorded)} open, {decoded} images decode", "checksums: vggrepro dataset --verify"
    )


def class_order(dataset: Dataset) -> Finding:
    """Released nets take ImageNet's classes sorted by wnid; the first validation images tell."""
    from vggrepro import synsets
    from vggrepro.dataset import Split

    classes = dataset.classes
    if not all(synsets.WNID.fullmatch(name) for name in classes):
        sorted_ = "sorted" if list(classes) == sorted(classes) else "in an order of their own"
        return Finding(OK, "class order", f"names, {sorted_} (no wnids)")
    if list(classes) != sorted(classes):
        return Finding(
            WARNING, "class order", "the wnids are not sorted: imported nets name wrong classes", "prepare it again"
        )
    result = "sorted by wnid"
    if dataset.devkit_ids and dataset.counts.get("val") and not dataset.subset:
        split = Split(dataset, "val")
        found: dict[int, int] = {}
        for place in range(len(split)):
            number = synsets.val_number(split.key(place).rpartition("/")[2])
            if number in synsets.FIRST_IMAGES:
                found[number] = int(split.labels[place])
            if len(found) == len(synsets.FIRST_IMAGES) or place > 1000:
                break
        synsets.check_first_images(found, str(dataset.folder))
        if found:
            result += f"; the first {len(found)} validation images have the known classes"
    return Finding(OK, "class order", result)


# Runs


def all_runs(data: Path, runs: Path, names: Sequence[str], seconds: float) -> list[Finding]:
    """Each run's findings, until the time is spent."""
    from vggrepro import dataset as stage
    from vggrepro.runs import existing, folder

    chosen = [folder(runs, name) for name in names] or existing(runs)
    if not chosen:
        return [Finding(OK, "runs", f"none in {runs}", f"{command('train', 'A')}, or vggrepro import")]
    try:
        dataset = stage.load(data)
    except InputError:
        dataset = None
    end, findings, skipped = time.monotonic() + seconds, [], []
    for run in chosen:
        if not names and time.monotonic() > end:
            skipped.append(run.name)
            continue
        findings += guarded(run.name, lambda run=run: one_run(run, dataset))  # type: ignore[misc]
    if skipped:
        again = command("doctor", *skipped[:3])
        findings.append(Finding(OK, "further runs", f"not looked at, for time: {', '.join(skipped)}", again))
    return findings


def one_run(run: RunFolder, dataset: Dataset | None) -> list[Finding]:
    """Its config, its weights: hash, names, shapes, finite values; of imported weights, a handful of images."""
    config = run.config()
    if not run.finished:
        holder = locked_by(run.path)
        text = f"in work: {holder}" if holder else "not finished"
        return [Finding(OK, run.name, text, "" if holder else f"{command('status')} says how to resume it")]
    from vggrepro import exporting, sanity

    trained = exporting.load(run)
    bad = [name for name, tensor in trained.tensors.items() if not bool(tensor.isfinite().all())]
    if bad:
        return [
            Finding(BROKEN, run.name, f"{bad[0]} holds values that are no finite numbers", "train or import it again")
        ]
    origin = f"; {config['origin']}" if config.get("origin") else ""
    count = sum(tensor.numel() for tensor in trained.tensors.values())
    findings = [Finding(OK, run.name, f"finished, {count:,} weights, all finite{origin}")]
    if config.get("imported") and dataset is not None:
        findings += guarded(run.name, lambda: sanity.look(run, trained, dataset))
    return findings
