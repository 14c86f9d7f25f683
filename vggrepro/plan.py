"""The whole pipeline as jobs, each with the jobs that it needs: to run side by side here, by make, or by Slurm."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.paper import View
from vggrepro.posteriors.protocol import Method, Protocol
from vggrepro.results.paper_claims import claims
from vggrepro.runs.folder import RunFolder
from vggrepro.runs.status import status
from vggrepro.system import advice, threads
from vggrepro.system.jobs import Job
from vggrepro.system.progress import duration


def needed_views(multicrop: bool = False) -> dict[paper.Run, dict[str, list[int]]]:
    """Q by method of each run, so that every table row and claim has its posteriors.

    With `multicrop`, every run is also seen by crops, at its own Q set.
    """
    runs = paper.all_runs()
    views = [view for table in (3, 4, 5, 6) for row in paper.rows(table) for view in row.views]
    views += [view for claim in claims() for pair in claim.pairs for view in (*pair.first.views, *pair.second.views)]
    if multicrop:
        views += [View(run, q, "multicrop") for run in runs for q in run.scale.test_scales]
    result: dict[paper.Run, dict[str, list[int]]] = {run: {} for run in runs}
    for view in dict.fromkeys(views):
        result[view.run].setdefault(view.method, []).append(view.q)
    return result


def evaluations(by_method: dict[str, list[int]]) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """The fewest passes over the images for one run's views: methods, and the Q that they share."""
    sets = sorted({tuple(sorted(qs)) for qs in by_method.values()})
    return [(tuple(m for m, wanted in by_method.items() if tuple(sorted(wanted)) == qs), qs) for qs in sets]


def jobs_of_seeds(
    folders: Mapping[Path, int], multicrop: bool = False, *words: str, init: str | None = None
) -> list[Job]:
    """`jobs` for each folder of runs and its seed; the names of all but the first begin with their folder's."""
    result = []
    for prefix, folder in _prefixes(folders).items():
        seed = ("--seed", str(folders[folder])) if len(folders) > 1 else ()
        own = ("--runs", str(folder)) if prefix else ()
        for job in jobs(multicrop, *own, *words, training=seed, init=init):
            needs = tuple(prefix + name for name in job.needs)
            result.append(replace(job, name=prefix + job.name, needs=needs))
    return result


def _prefixes(folders: Iterable[Path]) -> dict[str, Path]:
    """What the names of the jobs begin with, for each folder of runs."""
    first, *others = folders
    return {"": first} | {f"{folder.name}-": folder for folder in others}


def jobs(multicrop: bool = False, *words: str, training: Sequence[str] = (), init: str | None = None) -> list[Job]:
    """Training and evaluation of every run, each after what it needs.

    A run's evaluations follow each other, as its folder has one writer.

    Args:
        multicrop: as in `needed_views`.
        words: further options of each command, such as `--workers 1`.
        training: further options of the trainings alone, such as `--seed 1`.
        init: what every net's first run starts from, in place of A.
    """
    found: list[Job] = []
    for run, by_method in needed_views(multicrop).items():
        start = None if run.is_rescaling else init
        needs = (_training(run.parent),) if run.parent and start is None else ()
        found.append(Job(_training(run), advice.training(run, *training, *words, start=start), needs))
        last = _training(run)
        for name, methods, qs in _evaluations(run, by_method):
            q = ",".join(map(str, qs))
            command = advice.command("evaluate", run.name, *advice.flags(methods), "--q", q, *words)
            views = len(qs) * sum(Method(method).crops * Method(method).flips for method in methods)
            found.append(Job(name, command, (last,), views))
            last = name
    return found


def _training(run: paper.Run) -> str:
    return f"train-{run.name}"


def _evaluations(
    run: paper.Run, by_method: dict[str, list[int]]
) -> Iterator[tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """The name, methods and Q of each evaluation of a run."""
    for number, (methods, qs) in enumerate(evaluations(by_method), 1):
        yield f"evaluate-{run.name}" + (f"-{number}" if number > 1 else ""), methods, qs


def unfinished(
    all_jobs: Sequence[Job],
    folders: Iterable[Path],
    multicrop: bool,
    tested: Callable[[RunFolder, Protocol], bool],
) -> list[Job]:
    """The jobs without those that are done, which no other then waits for.

    `tested`: whether the posteriors of a finished run by a protocol are there and up to date.
    """
    done = set()
    for prefix, runs in _prefixes(folders).items():
        for run, by_method in needed_views(multicrop).items():
            if not (folder := RunFolder(runs / run.name)).finished:
                continue
            done.add(prefix + _training(run))
            done |= {
                prefix + name
                for name, methods, qs in _evaluations(run, by_method)
                if tested(folder, Protocol(methods, qs))
            }
    return [
        replace(job, needs=tuple(name for name in job.needs if name not in done))
        for job in all_jobs
        if job.name not in done
    ]


def side_by_side(text: str, device: str, kind: str) -> int:
    """How many jobs run at a time: the value of --jobs; `auto` is one for each GPU or processor that is here.

    Args:
        text: of --jobs.
        device: of --device.
        kind: what that is here, cpu or cuda.

    Raises:
        InputError: no positive number; torchrun's processes, or one GPU for all jobs.
    """
    if not (text == "auto" or (text.isdecimal() and int(text) > 0)):
        raise InputError(f"--jobs {text}: give auto or a number from 1")
    if text != "auto":
        count = int(text)
    else:
        count = len(visible_cards()) if kind == "cuda" else max(1, round(threads.processors()))
    if count > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--jobs starts processes of its own; leave out torchrun")
    if count > 1 and ":" in device:
        raise InputError(f"--jobs {text} shares out all GPUs; give --device cuda, not {device}")
    return count


def places(count: int, device: str) -> list[dict[str, str]]:
    """The environment of each of `count` jobs that run at the same time: one thread, and of several GPUs one."""
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    cards = visible_cards() if device == "cuda" else []
    return [threads | ({"CUDA_VISIBLE_DEVICES": cards[place % len(cards)]} if cards else {}) for place in range(count)]


def visible_cards() -> list[str]:
    """The GPUs of this process, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def describe(job: Job, folders: Iterable[Path]) -> str:
    """A running job in a line: a training's epoch, speed and time left."""
    prefix, runs = next(pair for pair in reversed(_prefixes(folders).items()) if job.name.startswith(pair[0]))
    run = paper.Run.parse(job.name.removeprefix(f"{prefix}train-"))
    if run is None:
        return job.name
    now = status(RunFolder(runs / run.name))
    parts = [f"epoch {now.epoch}"] if now.epoch else []
    parts += [f"{now.images_per_second:,.0f} images/s"] if now.images_per_second else []
    parts += [f"{duration(now.seconds_left)} left"] if now.seconds_left is not None else []
    return " ".join([prefix + run.name, ", ".join(parts)]).strip()


# For schedulers


def makefile(all_jobs: Sequence[Job], last: str) -> str:
    """A Makefile whose targets are the jobs; each command itself skips what is done.

    Args:
        all_jobs: its targets.
        last: the command that follows all of them.
    """
    head = [
        "# All runs of the tables: make -f FILE -j 4 (four at a time, one thread each), from this folder.",
        "# What is done is skipped; after an interruption give the same command again.",
        "VGGREPRO ?= vggrepro",
        "export OMP_NUM_THREADS ?= 1",
        f".PHONY: all {' '.join(job.name for job in all_jobs)}",
        "",
    ]
    targets = [Job("all", last, tuple(job.name for job in all_jobs)), *all_jobs]
    rules = [f"{job.name}:{''.join(f' {name}' for name in job.needs)}\n\t{_by_make(job.command)}\n" for job in targets]
    return "\n".join(head + rules)


def _by_make(command: str) -> str:
    return "$(VGGREPRO)" + command.replace("$", "$$").removeprefix("vggrepro")


def sbatch_script(all_jobs: Sequence[Job], last: str) -> str:
    """A shell script that submits the jobs to Slurm: one array for all jobs that need the same jobs, after those."""
    arrays: dict[tuple[str, ...], list[Job]] = {}
    for job in [*all_jobs, Job("report", last, tuple(job.name for job in all_jobs))]:
        arrays.setdefault(job.needs, []).append(job)
    ids: dict[str, str] = {}
    parts = [
        "#!/bin/sh\n"
        "# All runs of the tables, by Slurm: sh FILE, with options of sbatch such as --gres=gpu:1 --time=2-0.\n"
        "# What is done is skipped; after an interruption give the same command again.\n"
        "set -eu\n"
    ]
    for number, (needs, members) in enumerate(arrays.items(), 1):
        after = f"--dependency=afterok:{':'.join(ids[name] for name in needs)} " if needs else ""
        cases = "\n".join(f"{place}) {_by_slurm(job.command)} ;;" for place, job in enumerate(members))
        parts.append(
            f"array{number}=$(sbatch --parsable --job-name=vggrepro {after}--array=0-{len(members) - 1} "
            f"\"$@\" <<'END'\n#!/bin/sh\ncase $SLURM_ARRAY_TASK_ID in\n{cases}\nesac\nEND\n)\n"
            f"array{number}=${{array{number}%%;*}}\n"  # on some clusters the cluster's name follows
        )
        ids |= {job.name: f"${{array{number}}}_{place}" for place, job in enumerate(members)}
    return "\n".join(parts)


def _by_slurm(command: str) -> str:
    return "exec ${VGGREPRO:-vggrepro}" + command.removeprefix("vggrepro")
