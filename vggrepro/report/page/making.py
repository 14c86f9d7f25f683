"""How to make the results of a page again: the commands, and the versions of the packages that compute and decode."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from vggrepro import recipe
from vggrepro.data.images import decoders
from vggrepro.paper import View
from vggrepro.posteriors.protocol import SPLIT, Protocol
from vggrepro.report.page.contents import Contents
from vggrepro.results.beyond import Available, available
from vggrepro.runs.config import RunConfig
from vggrepro.system import advice

PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "pandas", "scipy", "matplotlib")
DEEPER = ("epochs", "deeper_epochs", "rescale_epochs")  # what `--epochs` sets


def commands(contents: Contents) -> list[str]:
    """The commands that make the data set, the runs, the posteriors and this page, in their order."""
    data = contents.dataset
    whole = "" if data.trainable else "--val-only"
    prepare = advice.command("prepare", "SOURCE", "--preset", data.preset, *filter(None, [whole]))
    return [prepare, *_trainings(contents), *_evaluations(available(contents.scores)), advice.command(
        "report", "--format", "html")]  # fmt: skip


def _trainings(contents: Contents) -> Iterator[str]:
    """The fewest `train` commands for each set of options; imported weights are named by their origin."""
    trained = [run.config for run in contents.runs if run.folder.trained and not run.config.imported]
    by_options: dict[tuple[str, ...], list[RunConfig]] = {}
    for config in trained:
        by_options.setdefault(_options(config), []).append(config)
    for options, configs in by_options.items():
        others = [config.run for config in trained if config not in configs]
        for text in advice.trainings([config.run for config in configs], others):
            yield " ".join([text, *options])


def _options(config: RunConfig) -> tuple[str, ...]:
    """The options that give a run its seed, and the values of its recipe that its preset does not have."""
    options = ["--seed", str(config.seed)] if config.seed else []
    used = config.recipe.complete
    if config.recipe.preset not in recipe.PRESETS:
        return tuple(options)
    preset = recipe.load(config.recipe.preset).as_dict()
    other = {name: used[name] for name in preset if name in used and used[name] != preset[name]}
    if other.keys() & set(DEEPER) and len({used[name] for name in DEEPER}) == 1:
        options += ["--epochs", str(used["epochs"])]
        other = {name: value for name, value in other.items() if name not in DEEPER}
    for name, value in other.items():
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        options += ["--width", text] if name == "width" else ["--set", f"{name}={text}"]
    return tuple(options)


def _evaluations(at_hand: Available) -> Iterator[str]:
    """The `evaluate` commands of the posteriors that are there: first those at the paper's Q, then the others."""
    usual: list[View] = []
    other: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for run, methods in at_hand.items():
        for method, qs in methods.items():
            own = Protocol((method,), split=SPLIT).scales(method, run.scale)
            if set(own) <= set(qs):
                usual += [View(run, q, method) for q in own]
            if more := tuple(q for q in qs if q not in own or not set(own) <= set(qs)):
                other.setdefault((method, more), []).append(run.name)
    yield from advice.evaluations(usual)
    for (method, qs), runs in other.items():
        yield advice.command("evaluate", *runs, f"--{method}", "--q", ",".join(map(str, qs)))


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that compute, decode and draw here."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"Python": platform.python_version(), **packages, **decoders()}


def today() -> str:
    """The date in UTC; that of SOURCE_DATE_EPOCH, if it is set, so that a page can be made again byte by byte."""
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
