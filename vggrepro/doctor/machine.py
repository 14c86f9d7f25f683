"""The doctor's checks of the installation and the machine.

A heavy package is imported inside its own check, so that a broken torch or torchvision is a diagnosis and no traceback.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from vggrepro.doctor.diagnosis import BROKEN, OK, WARNING, Diagnosis

PYTHON = (3, 11)
PACKAGE = "vggrepro"
CHECKOUT = Path(__file__).parents[2]
MEMORY_GB, DISK_GB = 4, 5  # D at width 1: 0.6 GB of weights; while training 1.1 GB a checkpoint, two of them


def python() -> Diagnosis:
    """Whether the interpreter is new enough."""
    found = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info < PYTHON:
        return Diagnosis(BROKEN, "python", found, f"install Python {'.'.join(map(str, PYTHON))} or newer")
    return Diagnosis(OK, "python", found)


def packages() -> Diagnosis:
    """Whether vggrepro's dependencies are installed and new enough, by their metadata: nothing is imported."""
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
        return Diagnosis(BROKEN, "packages", ", ".join(bad), f"pip install --upgrade {PACKAGE}")
    return Diagnosis(OK, "packages", ", ".join(found))


def extras() -> Diagnosis:
    """Which of vggrepro's extras are installed completely."""
    missing: dict[str, list[str]] = {}
    for name, _, extra in requirements():
        if extra and extra != "dev":
            missing.setdefault(extra, [])
            if installed(name) is None:
                missing[extra].append(name)
    parts = [f"{extra}: {'lacks ' + ', '.join(names) if names else 'installed'}" for extra, names in missing.items()]
    lacking = [extra for extra, names in missing.items() if names]
    advice = f"pip install '{PACKAGE}[{','.join(lacking)}]', if you want them" if lacking else ""
    return Diagnosis(OK, "extras", "; ".join(parts) or "none", advice)


def requirements() -> Iterator[tuple[str, str, str]]:
    """(package, least version, extra or "") of all that vggrepro requires on this machine."""
    for line in declared():
        match = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*(?:>=\s*([\d.]+))?", line)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", line)
        elsewhere = "sys_platform" in line and sys.platform == "darwin"
        elsewhere |= "platform_machine" in line and platform.machine() not in line
        if match and match[1] != PACKAGE and not elsewhere:
            yield match[1], match[2] or "0", extra[1] if extra else ""


def declared(checkout: Path = CHECKOUT) -> list[str]:
    """vggrepro's requirements, as metadata writes them.

    A checkout's own pyproject.toml comes first: the metadata of an editable install may be older.
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


def torch_() -> Diagnosis:
    """Whether torch imports and multiplies."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    total = float((torch.ones(8, 8) @ torch.ones(8, 8)).sum())
    if total != 512:
        return Diagnosis(
            BROKEN, "torch", f"{torch.__version__}: 8 x 8 ones give {total:g}, not 512", "install it again"
        )
    return Diagnosis(OK, "torch", f"{torch.__version__}, built for {build}")


def torchvision_() -> Diagnosis:
    """Whether torchvision fits torch: it is compiled for one version, and its operators are missing with another."""
    version, here = installed("torchvision"), installed("torch")
    pins = [re.match(r"torch\s*==\s*([\w.+]+)", line) for line in importlib.metadata.requires("torchvision") or ()]
    wanted = next((pin[1] for pin in pins if pin), None)
    advice = f"pip install 'torch=={wanted}' 'torchvision=={version}'" if wanted else "install both again, together"
    try:
        import torchvision
        from torchvision.transforms import functional  # noqa: F401
    except Exception as error:
        line = str(error).splitlines()[0]
        return Diagnosis(BROKEN, "torchvision", f"{version} does not fit torch {here} ({line})", advice)
    result = f"{torchvision.__version__}, made for torch {wanted or here}"
    if wanted and here and numbers(wanted) != numbers(here):
        return Diagnosis(WARNING, "torchvision", f"{result}, but torch {here} is installed", advice)
    return Diagnosis(OK, "torchvision", result)


def device() -> Diagnosis:
    """What `--device auto` stands for here."""
    import torch

    from vggrepro.system import devices

    if torch.cuda.is_available():
        found = []
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            if reason := devices.without_kernels(number):
                return Diagnosis(BROKEN, "device", reason, "install a torch built for this card, or give --device cpu")
            found.append(f"{card.name}, {card.total_memory / 2**30:.0f} GB")
        return Diagnosis(OK, "device", "; ".join(found))
    if shutil.which("nvidia-smi"):
        why = "its driver is too old or torch is the CPU build"
        return Diagnosis(
            WARNING, "device", "torch does not see the NVIDIA GPU", f"{why}; compare nvidia-smi with torch's"
        )
    backend = getattr(torch.backends, "mps", None)
    if backend is not None and backend.is_available():
        return Diagnosis(OK, "device", "Apple GPU: --device mps")
    return Diagnosis(
        OK, "device", f"CPU alone ({platform.machine()})", "enough for the demo; the paper's nets need a GPU"
    )


def precision() -> Diagnosis:
    """What `--precision auto` stands for here."""
    from vggrepro.system import devices
    from vggrepro.system.precisions import PRECISIONS

    chosen = devices.device("auto")
    kind = devices.precision("auto", chosen)
    return Diagnosis(OK, "precision", f"--precision auto is {kind} on {chosen} ({PRECISIONS[kind]})")


def threads() -> Diagnosis:
    """How many of the cores torch uses."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = torch.get_num_threads()
    result = f"torch computes with {count} of {cores} cores"
    if count == 1 and cores > 1:
        return Diagnosis(WARNING, "threads", result, "unset OMP_NUM_THREADS, unless other work needs the cores")
    return Diagnosis(OK, "threads", result)


def memory() -> Diagnosis:
    """Whether the main memory is enough for a net of the paper's width."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    info = Path("/proc/meminfo")
    match = re.search(r"MemAvailable:\s+(\d+)", info.read_text()) if info.is_file() else None
    free = int(match[1]) / 2**20 if match else total  # Linux alone says what is free
    result = f"{free:.1f} of {total:.1f} GB free" if match else f"{total:.1f} GB"
    if free < MEMORY_GB:
        return Diagnosis(
            WARNING, "memory", result, f"nets of the paper's width need {MEMORY_GB} GB: give a smaller --micro-batch"
        )
    return Diagnosis(OK, "memory", result)


def disk(data: Path, runs: Path) -> list[Diagnosis]:
    """The free disk space where the data set and the runs are, or will be."""
    return [_disk(f"disk of {place}", place) for place in dict.fromkeys((data, runs))]


def _disk(name: str, place: Path) -> Diagnosis:
    there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free / 1e9
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Diagnosis(WARNING, name, f"{there} cannot be written", "give another folder, or change its permissions")
    if free < DISK_GB:
        advice = f"training a net of the paper's width takes up to {DISK_GB} GB"
        return Diagnosis(WARNING, name, f"{free:.1f} GB free", advice)
    return Diagnosis(OK, name, f"{free:,.1f} GB free")
