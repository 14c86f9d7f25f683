"""How runs and posterior files differ from the paper's, in sentences: what stands as notes under a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vggrepro import paper, recipe
from vggrepro.paper import Run
from vggrepro.results.scores import File, Scores
from vggrepro.runs.config import RunConfig

PAPER_EPOCHS = 74  # Sect. 3.1: 370K iterations of 256 images


def conditions(scores: Scores, files: Sequence[File]) -> list[str]:
    """How the runs and files of a row differ from the paper's, a sentence each, beyond the shared setting."""
    result = []
    for run in dict.fromkeys(file.view.run for file in files):
        result += _run_conditions(scores, run)
    if any(file.origin is None for file in files):
        result.append("Posteriors of another tool, without metadata: weights and data cannot be checked.")
    if any(file.origin and not file.origin.flip and file.view.method != "center" for file in files):
        result.append("Evaluated without horizontal flips (the paper: with).")
    for file in files:
        if file.origin and file.view.method == "multicrop" and file.origin.grid != paper.GRID:
            grid = file.origin.grid
            result.append(f"Multi-crop on a {grid} × {grid} grid (the paper: {paper.GRID} × {paper.GRID}).")
    return list(dict.fromkeys(result))


def _run_conditions(scores: Scores, run: Run) -> list[str]:
    facts = scores.facts(run)
    result = []
    if facts.weights is None:
        result.append(f"The weights of {run.name} are not here to check its posteriors against.")
    if facts.damaged:
        result.append(f"{facts.damaged}.")
    if facts.config is None:
        why = "its config.json is damaged" if facts.damaged else "it has no config.json"
        return [*result, f"How {run.name} was trained is not known: {why}."]
    config = facts.config
    if config.geometry != scores.geometry:
        crop, width, stride = scores.geometry
        own = f"Crop {config.crop}, width {config.width:g}, stride {config.stride}"
        result.append(f"{own} (most runs: {crop}, {width:g}, {stride}).")
    if config.origin:
        return [*result, f"{run.name}: {config.origin}."]  # what follows describes our own training
    preset = config.recipe.preset or scores.dataset.preset
    if preset != scores.dataset.preset:
        result.append(f"Trained by the preset '{preset}' (the data set's: '{scores.dataset.preset}').")
    if config.dataset.fingerprint not in (None, scores.dataset.fingerprint):
        result.append(f"Trained on another data set ({config.dataset.name or 'unnamed'}).")
    result += _recipe_conditions(run, config)
    weights = config.start.weights
    parent = scores.facts(run.parent).weights if run.parent else None
    if weights and parent and weights != parent and run.parent:
        result.append(f"{run.name} started from an earlier {run.parent.name}, which was trained again since.")
    start = Path(config.start.run or "random weights").name
    expected = run.parent.name if run.parent else "random weights"
    if start != expected:
        result.append(f"{run.name} started from {start} (the paper: {expected}).")
    return result + _epochs(scores, run, start)


def _recipe_conditions(run: Run, config: RunConfig) -> list[str]:
    """Values of the run's recipe that are not its preset's, beyond those that are shown elsewhere."""
    if config.recipe.preset not in recipe.PRESETS:
        return []
    used, preset = config.recipe.values, recipe.load(config.recipe.preset).as_dict()
    shown = ("crop", "stride", "width", "epochs", "deeper_epochs", "rescale_epochs")
    other = [
        f"{name} {used[name]}" for name in preset if name not in shown and used.get(name, preset[name]) != preset[name]
    ]
    return [f"{run.name}: {', '.join(other)} (not the preset's)."] if other else []


def _epochs(scores: Scores, run: Run, start: str) -> list[str]:
    """The length of the training, scale after scale, where it may be shorter than the paper's.

    The paper trains for 74 epochs; how long it continues at another scale it does not say (Sect. 3.1).
    """
    steps = [run]
    while steps[0].is_rescaling and (parent := steps[0].parent) and (len(steps) > 1 or start == parent.name):
        steps.insert(0, parent)
    everyone = [scores.facts(step) for step in steps]
    limit = everyone[-1].config.epochs if everyone[-1].config else 0
    if everyone[0].epochs == PAPER_EPOCHS and (len(steps) == 1 or limit >= PAPER_EPOCHS):
        return []
    known = [facts.epochs if facts.config else None for facts in everyone]
    counts = " + ".join("?" if epochs is None else str(epochs) for epochs in known)
    if len(steps) > 1:
        scales = ", ".join(step.scale.label for step in steps)
        return [f"Trained for {counts} epochs at S = {scales} (the paper: {PAPER_EPOCHS} at the first)."]
    if run.is_rescaling:
        return [f"Trained for {counts} epochs at its scale."]
    return [f"Trained for {counts} epochs (the paper: {PAPER_EPOCHS})."]
