"""The section on where the numbers come from: data, runs with versions, hardware and time, recipes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from vggrepro import __version__
from vggrepro.report.page import making
from vggrepro.report.page.contents import Contents, RunFacts
from vggrepro.report.page.html import Number, escape, paragraph, plain_table
from vggrepro.results.columns import DASH
from vggrepro.system.commit import commit
from vggrepro.system.progress import duration

SHARED = ("seed", "precision", "device", "versions")  # stated once if they are the same in all runs


def provenance(contents: Contents) -> str:
    """Data, runs, recipes, and the commits that evaluated."""
    runs, data = contents.runs, contents.dataset
    here = f"vggrepro {__version__}" + (f", commit {commit()}" if commit() else "")
    software = ", ".join(f"{name} {version}" for name, version in making.versions().items())
    parts = [
        f"Data: {data.name}, preset {data.preset}, fingerprint `{data.fingerprint[:12]}`. The paper's numbers: arXiv "
        "1409.1556v6.",
        f"The data set is a subset: {data.subset}" if data.subset else "",
        f"This page was made on {making.today()} (UTC) by {here}, with {software}.",
    ]
    commits = _evaluated_by(contents)
    if commits:
        parts.append(f"Posteriors were evaluated by commit{'s' * (len(commits) > 1)} {', '.join(commits)}.")
    text = "".join(paragraph(part) for part in parts)
    return text + _runs(runs) + _recipes(runs) + _commands(contents) if runs else text


def _commands(contents: Contents) -> str:
    """The commands that make all of it again."""
    lines = "\n".join(map(escape, making.commands(contents)))
    told = paragraph("SOURCE is what the data set was prepared from. `train` also trains what a run starts from.")
    return f'<h3>Commands</h3>{told}<pre tabindex="0"><code>{lines}</code></pre>'


def _evaluated_by(contents: Contents) -> list[str]:
    texts = [text for number in (3, 4, 5, 6) for text in contents.table(number).frame["commit"].dropna()]
    return sorted({word for text in texts for word in str(text).split() if word != "?"})


def _runs(runs: Sequence[RunFacts]) -> str:
    """A row for each run; above the table, what is the same in all of several runs."""
    frame = pd.DataFrame([_row(run) for run in runs])
    alike = [name for name in SHARED if len(runs) > 1 and frame[name].nunique() == 1]
    said = "; ".join(f"{name} {frame[name].iloc[0]}" for name in alike if frame[name].iloc[0] != "")
    spent = duration(sum(run.seconds for run in runs))
    text = f"Time spent in training epochs: {spent} in all." + (f" All runs: {said}." if said else "")
    table = frame.drop(columns=alike)
    right = ("epochs", "time", "images/s", "seed")
    return paragraph(text) + plain_table(
        [str(name) for name in table], table.to_numpy().tolist(), "Runs", right, "runs"
    )


def _row(run: RunFacts) -> dict[str, object]:
    config = run.config
    speeds = sorted(epoch.images_per_second for epoch in run.epochs if not math.isnan(epoch.images_per_second))
    speed = speeds[len(speeds) // 2] if speeds else None
    started = config.start.run or config.origin or "random weights"
    return {
        "run": run.name,
        "state": run.status.state,
        "epochs": run.status.epoch,
        "time": Number(run.seconds, duration(run.seconds)) if run.epochs else "",
        "images/s": "" if speed is None else Number(speed, f"{speed:,.0f}"),
        "started from": started,
        "seed": "" if config.seed is None else str(config.seed),
        "precision": config.precision or "",
        "weights": run.folder.weights_hash()[:12] if run.folder.trained else "",
        "finished": run.finished_on,
        "device": config.device or "",
        "versions": ", ".join(f"{name} {value}" for name, value in (config.versions or {}).items() if value),
    }


def _recipes(runs: Sequence[RunFacts]) -> str:
    """Every value of the runs' recipes; if they differ, which run has which."""
    recipes = {run.name: run.config.recipe.values for run in runs if run.config.recipe.values}
    rows = []
    for name in dict.fromkeys(name for recipe in recipes.values() for name in recipe):
        values: dict[str, list[str]] = {}
        for run, recipe in recipes.items():
            value = recipe.get(name, DASH)
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            values.setdefault(text or DASH, []).append(run)
        several = "; ".join(f"{value} ({', '.join(names)})" for value, names in values.items())
        rows.append((name, next(iter(values)) if len(values) == 1 else several))
    heads = ("value", "of all runs, or of those named")
    return f"<h3>Recipe</h3>{plain_table(heads, rows, 'Recipe', kind='pairs')}" if rows else ""
