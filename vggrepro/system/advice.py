"""Commands that the program prints for the user: complete, so that they act on the same data and runs, and quoted.

The command line says once which options it was given (`invocation`). Each printed command repeats the
options that it has, so that a user who copies it works in the same folders and trains by the same recipe.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vggrepro import paper
from vggrepro.paper import Run, View

# Options that mean the same in all commands that have them, in the order in which they are printed.
FOLDERS = ("--data", "--runs", "--tables")
RECIPE = ("--epochs", "--width", "--set", "--decode", "--seed")
MACHINE = (
    "--device",
    "--precision",
    "--workers",
    "--micro-batch",
    "--checkpoint-minutes",
    "--tensorboard",
    "--compile",
    "--fast",
)
REPEATED = (*FOLDERS, *RECIPE, *MACHINE)


@dataclass(frozen=True, slots=True)
class Invocation:
    """The command that is running.

    Args:
        given: the words of each option that differs from its default, also where an environment variable gave it.
        known: the options of each command of the program; None: all have those given.
        runs: the folder of runs; None where the program is used as a library.
    """

    given: Sequence[tuple[str, ...]] = ()
    known: Mapping[str, frozenset[str]] | None = None
    runs: Path | None = None


_at_work = [Invocation()]  # the last one is the running one


@contextmanager
def invocation(now: Invocation) -> Iterator[None]:
    """Commands that are printed inside repeat the options of `now`."""
    _at_work.append(now)
    try:
        yield
    finally:
        _at_work.pop()


@contextmanager
def among(runs: Path) -> Iterator[None]:
    """Commands that are printed inside are for this folder of runs, such as another seed's."""
    now = _at_work[-1]
    given = [option for option in now.given if option[0] != "--runs"]
    with invocation(replace(now, given=[*given, ("--runs", str(runs))], runs=runs)):
        yield


def command(name: str, *words: str) -> str:
    """`vggrepro NAME WORDS` with the options of this invocation that NAME has, quoted for a POSIX shell.

    Args:
        name: of the command.
        words: its arguments and options. An option among them replaces the one of this invocation; `--set` does so
            where it sets the same value.
    """
    now, replaced = _at_work[-1], {_meaning(*pair) for pair in zip(words, (*words, "")[1:], strict=True)}
    repeated = [
        option
        for option in sorted(now.given, key=lambda option: REPEATED.index(option[0]))
        if (now.known is None or option[0] in now.known[name]) and _meaning(*option) not in replaced
    ]
    return shlex.join(["vggrepro", name, *words, *(word for option in repeated for word in option)])


def _meaning(option: str, value: str = "") -> str:
    """What an option decides: its name, or for `--set` the name of the value that it sets."""
    return f"--set {value.partition('=')[0].strip()}" if option == "--set" else option


def run_name(folder: Path) -> str:
    """A run's folder as an argument of a printed command: its name, or its path if it is not among the runs."""
    now = _at_work[-1]
    return folder.name if now.runs is None or folder.parent == now.runs else str(folder)


def flags(methods: Iterable[str]) -> tuple[str, ...]:
    """The options of `evaluate` and `fuse` that ask for these methods, in the order of the alphabet."""
    return tuple(f"--{method}" for method in sorted(set(methods)))


def training(run: Run, *words: str, start: str | None = None) -> str:
    """The command that trains a run; it trains first what the run starts from.

    Args:
        run: the run wanted.
        words: further options, such as `--retrain`.
        start: what the run starts from, if not what the paper has it start from.
    """
    if run.fc_only:
        more = ("--from", start) if start else ()
        return command("finetune-scale", run.net, "--scale", str(run.scale), "--layers", "fc", *more, *words)
    more = ("--init", start) if start else ()
    return command("train", run.net, "--scale", str(run.scale), *more, *words)


def trainings(missing: Iterable[Run], finished: Iterable[Run] = (), words: Sequence[str] = ()) -> list[str]:
    """The fewest commands that train these runs, with further `words`: `train` also trains what a run starts from."""
    done = set(finished)
    missing = list(dict.fromkeys(missing))
    tuned = [run for run in missing if run.fc_only]
    plain = [run for run in missing if not run.fc_only]
    for run in tuned:  # by the usual commands up to its start
        if run.parent and run.parent not in {*done, *plain}:
            plain.append(run.parent)
    on_the_way = {ancestor for run in plain for ancestor in paper.chain(run)[:-1]}
    wanted = [run for run in plain if run not in on_the_way]
    return [training(run, *words) for run in [*wanted, *tuned]]


def evaluations(views: Iterable[View]) -> list[str]:
    """`evaluate` commands for these views, one for all runs that need the same methods."""
    methods: dict[Run, set[str]] = {}
    for view in views:
        methods.setdefault(view.run, set()).add(view.method)
    names: dict[tuple[str, ...], list[str]] = {}
    for run in (run for run in paper.all_runs() if run in methods):
        names.setdefault(flags(methods[run]), []).append(run.name)
    return [command("evaluate", *runs, *wanted) for wanted, runs in names.items()]


def for_views(views: Sequence[View], finished: Iterable[Run], *, trainable: bool, seed: int = 0) -> str:
    """What makes these views, in Markdown: `vggrepro train …`, then `vggrepro evaluate …`.

    Args:
        views: the posteriors wanted.
        finished: the runs that need no training.
        trainable: whether there are training images; else `vggrepro import …` stands for the training.
        seed: of the runs that are there.
    """
    done, needed = set(finished), {view.run for view in views}
    missing = [run for run in paper.all_runs() if run in needed and run not in done]
    if trainable:
        commands = trainings(missing, done, ("--seed", str(seed)) if seed else ())
    else:
        commands = [command("import", run.net, "FILE", "--as", run.name) for run in missing]
    return ", then ".join(f"`{text}`" for text in [*commands, *evaluations(views)])
