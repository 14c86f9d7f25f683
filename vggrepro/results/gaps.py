"""Sentences on missing posteriors, and on files that must not be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vggrepro.paper import Run, View
from vggrepro.results.scores import File

Commands = Callable[[Sequence[View]], str]  # names the commands that make these posteriors: `Scores.commands`


def not_run(views: Sequence[View], commands: Commands) -> str:
    """A sentence with the commands that make posteriors which are not there."""
    return f"Not run: {commands(views)}."


def not_used(files: Iterable[File], commands: Commands | None = None) -> dict[str, list[File]]:
    """A sentence on those of the files that must not be used, for each run and reason, and the files it names.

    With `commands` it also says how to make them again.
    """
    refused: dict[tuple[Run, str], list[File]] = {}
    for file in {file.path: file for file in files if file.refused}.values():
        refused.setdefault((file.view.run, str(file.refused)), []).append(file)
    result = {}
    for (_, reason), group in refused.items():
        names = ", ".join([str(group[0].path), *(file.path.name for file in group[1:])])
        renew = f" Renew: {commands([file.view for file in group])}." if commands else ""
        result[f"Not used: {names} ({reason}).{renew}"] = group
    return result
