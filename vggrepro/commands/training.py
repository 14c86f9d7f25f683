"""Nets: train, finetune-scale, reproduce, status."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggrepro import paper
from vggrepro.commands.exits import stop_exit
from vggrepro.commands.options import (
    DEFAULT_DATA,
    DEFAULT_RUNS,
    AsJson,
    Data,
    Init,
    Layers,
    NoTop5,
    PlanFormat,
    Retrain,
    Runs,
    SeedList,
    TableFormat,
    TablesFolder,
    complete_net,
    complete_preset,
    complete_run,
    seeds_of,
)
from vggrepro.commands.training_options import TrainingOptions, with_training_options
from vggrepro.errors import InputError
from vggrepro.paper import Run, Scale
from vggrepro.system import advice

if TYPE_CHECKING:
    from vggrepro.training.chain import Link, Request


@with_training_options
def train(
    options: TrainingOptions,
    net: Annotated[str, typer.Argument(autocompletion=complete_net, help=f"Net of Table 1: {', '.join(paper.NETS)}.")],
    scale: Annotated[
        str, typer.Option("--scale", metavar="S", help="Training scale S (256, 384) or MIN:MAX (256:512).")
    ] = "256",
    init: Init = None,
    retrain: Retrain = False,
) -> None:
    """Train NET at a scale, after the runs that it starts from.

    The chain is A-256, NET-256, NET-384, NET-256-512. Finished runs are skipped.
    """
    _train(Run(paper.check_net(net), Scale.parse(scale)), options, retrain, init)


@with_training_options
def finetune_scale(
    options: TrainingOptions,
    net: Annotated[str, typer.Argument(autocompletion=complete_net, help=f"Net of Table 1: {', '.join(paper.NETS)}.")],
    scale: Annotated[str, typer.Option("--scale", metavar="S", help="New training scale, S or MIN:MAX.")],
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="RUN", autocompletion=complete_run, help="Run to continue (default: the paper's)."
        ),
    ] = None,
    layers: Annotated[Layers, typer.Option("--layers", help="Train all layers or the FC layers only.")] = Layers.all,
    retrain: Retrain = False,
) -> None:
    """Continue NET at another training scale.

    It starts from the run that the paper starts from, or from --from. A missing run is trained first. The learning rate
    is the recipe's rescale_rate.
    """
    from vggrepro.runs.folder import find_run

    target = Run(paper.check_net(net), Scale.parse(scale), fc_only=layers is Layers.fc)
    if from_ is not None:
        parent = find_run(options.runs, from_)
        if parent.config().net != target.net:
            raise InputError(f"--from {from_} is a run of net {parent.config().net}, not {target.net}")
    elif not target.is_rescaling:
        raise InputError(f"{target.name} continues no run of {net}; train it with '{advice.training(target)}'")
    _train(target, options, retrain, from_)


@with_training_options
def reproduce(
    options: TrainingOptions,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            autocompletion=complete_preset,
            help="Crop, width and recipe of a new data set (default: paper; of the demo: demo).",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="SOURCE", help="The images, as prepare takes them (default: demo)."),
    ] = None,
    no_top5: NoTop5 = False,
    tables: TablesFolder = Path("tables"),
    multicrop: Annotated[
        bool,
        typer.Option("--multicrop", help="Multi-crop evaluation of every net, not only of those that a table needs."),
    ] = False,
    jobs: Annotated[
        str,
        typer.Option(
            "--jobs", metavar="N", help="So many runs at a time, each with one thread or GPU; auto: with all of them."
        ),
    ] = "1",
    plan: Annotated[
        PlanFormat | None,
        typer.Option("--plan", help="Run nothing: print a Makefile, or a script of sbatch arrays."),
    ] = None,
    seeds: SeedList = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            metavar="NAME",
            help="Start no net from A, but each from random, glorot, glorot-normal, he, delta, looks-linear or dirac.",
        ),
    ] = None,
) -> None:
    """Run the whole pipeline, and print tables and claims.

    It prepares the images, trains all nets of the tables and claims, evaluates and fuses. Finished work is skipped.
    With --seeds, the runs of the first seed are in --runs, those of another seed N in its subfolder seedN.
    """
    from vggrepro.plan import side_by_side
    from vggrepro.reproduce import plan_all, require_data, seeded
    from vggrepro.reproduce import reproduce as run_all
    from vggrepro.system import processes

    machine, values, runs = options.machine(), options.recipe_values, options.runs
    chosen = seeds_of(seeds, options.seed)
    if init is not None and init not in paper.INITIALISERS:
        raise InputError(f"--init {init}: give {', '.join(paper.INITIALISERS)}")
    if options.dry_run or plan:
        require_data(source, preset, options.data)
    if options.dry_run:
        for folder, seed in seeded(runs, chosen).items():
            request = dataclasses.replace(options, runs=folder, seed=seed).request(init=init)
            _rehearse(plan_all(request), request, values)
        return
    if plan:
        return _print_plan(plan, options, multicrop, chosen, init)
    count = side_by_side(jobs, options.device, machine.device.type)
    processes.join_processes(machine.device)
    with stop_exit():
        made = run_all(
            source, preset, options.data, runs, tables, machine, values, chosen, multicrop, count, init, no_top5=no_top5
        )
    if made is None:
        return
    from vggrepro.report import terminal
    from vggrepro.runs.status import statuses_of_seeds

    if terminal.wanted():
        report, claims = advice.command("report"), advice.command("claims")
        return terminal.show(
            terminal.finished(made, statuses_of_seeds(runs), tables / made.dataset.name, report, claims)
        )
    print(made.markdown(), end="")


def _print_plan(
    plan: PlanFormat, options: TrainingOptions, multicrop: bool, seeds: Sequence[int], init: str | None
) -> None:
    from vggrepro.plan import jobs_of_seeds, makefile, sbatch_script
    from vggrepro.reproduce import seeded

    options.resolve()  # refuses before anything is submitted
    words = ["--multicrop"] if multicrop else []
    words += ["--seeds", ",".join(map(str, seeds))] if len(seeds) > 1 else []
    words += ["--init", init] if init else []
    jobs = jobs_of_seeds(seeded(options.runs, seeds), multicrop, init=init)
    print((makefile if plan is PlanFormat.make else sbatch_script)(jobs, advice.command("reproduce", *words)), end="")


def status(data: Data = DEFAULT_DATA, runs: Runs = DEFAULT_RUNS, format_: AsJson = TableFormat.table) -> None:
    """Show how far each run is."""
    from vggrepro.report import terminal
    from vggrepro.report.records import json_text
    from vggrepro.runs.folder import other_seeds
    from vggrepro.runs.status import statuses
    from vggrepro.system.progress import say

    if not runs.is_dir():
        say(f"no folder {runs} yet")
    rows = statuses(runs)
    if format_ is TableFormat.json:
        return print(json_text(rows))
    terminal.show_or_print(terminal.status(rows, {folder: statuses(folder) for folder in other_seeds(runs)}))


def _train(target: Run, options: TrainingOptions, retrain: bool, start: str | None) -> None:
    """Trains the chain to `target`, or, with --dry-run, says what that would be."""
    from vggrepro.system import processes

    request = options.request(retrain)
    from vggrepro.training.chain import plan_chain, train_chain

    if options.dry_run:
        return _rehearse(plan_chain(target, request, start), request, options.recipe_values)
    processes.join_processes(request.machine.device)
    with stop_exit():
        train_chain(target, request, start)


def _rehearse(links: list[Link], request: Request, values: dict[str, Any]) -> None:
    from vggrepro.report import terminal
    from vggrepro.training.dryrun import rehearse

    parts = rehearse(links, request, values)
    if terminal.wanted():
        return terminal.show(terminal.plan((part.title, part.heads, part.rows, part.remarks) for part in parts))
    print("\n\n".join(map(str, parts)))
