"""Nets: train, finetune-scale, reproduce, status."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggrepro import paper
from vggrepro.commands.exits import stop_exit
from vggrepro.commands.options import (
    DEFAULT_DATA,
    DEFAULT_RUNS,
    WORKERS,
    AsJson,
    CheckpointMinutes,
    Compile,
    Data,
    DecodeOption,
    Device,
    DryRun,
    Epochs,
    Fast,
    Init,
    Layers,
    MicroBatch,
    PlanFormat,
    Precision,
    Retrain,
    Runs,
    Seed,
    SeedList,
    Set,
    TableFormat,
    TablesFolder,
    TensorBoard,
    Width,
    Workers,
    complete_net,
    complete_preset,
    complete_run,
    machine_of,
    recipe_values,
    resolve,
    seeds_of,
)
from vggrepro.errors import InputError
from vggrepro.paper import Run, Scale
from vggrepro.system import advice

if TYPE_CHECKING:
    from vggrepro.data.dataset import Dataset
    from vggrepro.recipe import Recipe
    from vggrepro.system.devices import Machine
    from vggrepro.training.chain import Link, Request


def train(
    net: Annotated[str, typer.Argument(autocompletion=complete_net, help=f"Net of Table 1: {', '.join(paper.NETS)}.")],
    scale: Annotated[str, typer.Option("--scale", help="Training scale S (256, 384) or MIN:MAX (256:512).")] = "256",
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
    init: Init = None,
    epochs: Epochs = None,
    width: Width = None,
    set_: Set = None,
    decode: DecodeOption = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = WORKERS,
    micro_batch: MicroBatch = 0,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    tensorboard: TensorBoard = False,
    compile_: Compile = False,
    fast: Fast = False,
    dry_run: DryRun = False,
    retrain: Retrain = False,
    seed: Seed = 0,
) -> None:
    """Train NET at a scale, first what it starts from.

    The chain is A-256, NET-256, NET-384, NET-256-512; what is finished is skipped.
    """
    target = Run(paper.check_net(net), Scale.parse(scale))
    values = recipe_values(set_, epochs, width, decode)
    dataset, recipe = resolve(data, values)
    machine = machine_of(device, precision, workers, micro_batch, checkpoint_minutes, tensorboard, compile_, fast)
    request = _request(recipe, dataset, runs, machine, seed, retrain)
    _train(target, request, init, values if dry_run else None)


def finetune_scale(
    net: Annotated[str, typer.Argument(autocompletion=complete_net, help=f"Net of Table 1: {', '.join(paper.NETS)}.")],
    scale: Annotated[str, typer.Option("--scale", help="New training scale S or MIN:MAX.")],
    from_: Annotated[
        str | None, typer.Option("--from", autocompletion=complete_run, help="Run to continue (default: the paper's).")
    ] = None,
    layers: Annotated[Layers, typer.Option("--layers", help="Train all layers or the FC layers only.")] = Layers.all,
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
    epochs: Epochs = None,
    width: Width = None,
    set_: Set = None,
    decode: DecodeOption = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = WORKERS,
    micro_batch: MicroBatch = 0,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    tensorboard: TensorBoard = False,
    compile_: Compile = False,
    fast: Fast = False,
    dry_run: DryRun = False,
    retrain: Retrain = False,
    seed: Seed = 0,
) -> None:
    """Continue NET at another training scale.

    Starts from the paper's run (trained first if it is missing) or from --from, at the recipe's rescale_rate.
    """
    from vggrepro.runs.folder import find_run

    target = Run(paper.check_net(net), Scale.parse(scale), fc_only=layers is Layers.fc)
    if from_ is not None:
        parent = find_run(runs, from_)
        if parent.config().net != target.net:
            raise InputError(f"--from {from_} is a run of net {parent.config().net}, not {target.net}")
    elif not target.is_rescaling:
        raise InputError(f"{target.name} continues no run of {net}; train it with '{advice.training(target)}'")
    values = recipe_values(set_, epochs, width, decode)
    dataset, recipe = resolve(data, values)
    machine = machine_of(device, precision, workers, micro_batch, checkpoint_minutes, tensorboard, compile_, fast)
    request = _request(recipe, dataset, runs, machine, seed, retrain)
    _train(target, request, from_, values if dry_run else None)


def reproduce(
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            autocompletion=complete_preset,
            help="demo, quarter or paper (default: the data set's; demo if none).",
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="What to prepare if --data is not there (default: demo).")
    ] = None,
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
    tables: TablesFolder = Path("tables"),
    epochs: Epochs = None,
    width: Width = None,
    set_: Set = None,
    decode: DecodeOption = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = WORKERS,
    micro_batch: MicroBatch = 0,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    tensorboard: TensorBoard = False,
    compile_: Compile = False,
    fast: Fast = False,
    multicrop: Annotated[
        bool, typer.Option("--multicrop", help="Multi-crop for every net, not only where a table needs it.")
    ] = False,
    dry_run: DryRun = False,
    jobs: Annotated[
        str, typer.Option("--jobs", help="Runs at a time, each with one thread or GPU; auto: as many as there are.")
    ] = "1",
    plan: Annotated[
        PlanFormat | None,
        typer.Option("--plan", help="Print a Makefile, or a script of sbatch arrays, instead of running."),
    ] = None,
    seed: Seed = 0,
    seeds: SeedList = None,
) -> None:
    """Run the whole pipeline, print tables and claims.

    Prepares, trains all nets of the tables and claims, evaluates and fuses; what is done is skipped. With --seeds, the
    runs of the first seed lie in --runs, those of another seed N in its subfolder seedN.
    """
    from vggrepro.plan import side_by_side
    from vggrepro.reproduce import plan_all, seeded
    from vggrepro.reproduce import reproduce as run_all
    from vggrepro.system import processes

    machine = machine_of(device, precision, workers, micro_batch, checkpoint_minutes, tensorboard, compile_, fast)
    values = recipe_values(set_, epochs, width, decode)
    chosen = seeds_of(seeds, seed)
    if chosen[1:] and (plan or jobs != "1"):
        raise InputError(
            "--seeds: without --jobs and --plan; for these give each seed N a call with --seed N --runs RUNS/seedN"
        )
    if dry_run:
        dataset, recipe = resolve(data, values)
        for folder, each in seeded(runs, chosen).items():
            request = _request(recipe, dataset, folder, machine, each)
            _rehearse(plan_all(request), request, values)
        return
    if plan:
        return _print_plan(plan, data, values, multicrop)
    count = side_by_side(jobs, device, machine.device.type)
    processes.join_processes(machine.device)
    with stop_exit():
        made = run_all(source, preset, data, runs, tables, machine, values, chosen, multicrop, count)
    if made is None:
        return
    from vggrepro.report import terminal
    from vggrepro.runs.status import statuses

    if terminal.wanted():
        report, claims = advice.command("report"), advice.command("claims")
        return terminal.show(terminal.finished(made, statuses(runs), tables / made.dataset.name, report, claims))
    print(made.markdown(), end="")


def _print_plan(plan: PlanFormat, data: Path, values: dict[str, Any], multicrop: bool) -> None:
    from vggrepro.plan import jobs, makefile, sbatch_script

    resolve(data, values)  # refuses before anything is submitted
    last = advice.command("reproduce", *(["--multicrop"] if multicrop else []))
    print((makefile if plan is PlanFormat.make else sbatch_script)(jobs(multicrop), last), end="")


def status(data: Data = DEFAULT_DATA, runs: Runs = DEFAULT_RUNS, format_: AsJson = TableFormat.table) -> None:
    """Show how far each run is."""
    from vggrepro.report import terminal
    from vggrepro.report.records import json_text
    from vggrepro.runs.status import status_table, statuses
    from vggrepro.system.progress import say

    if not runs.is_dir():
        say(f"no folder {runs} yet")
    rows = statuses(runs)
    if format_ is TableFormat.json:
        return print(json_text(rows))
    if terminal.wanted():
        return terminal.show(terminal.status(rows))
    terminal.print_table(status_table(rows))


def _request(
    recipe: Recipe, dataset: Dataset, runs: Path, machine: Machine, seed: int, retrain: bool = False
) -> Request:
    from vggrepro.training.chain import Request

    return Request(recipe, dataset, runs, machine, seed, retrain)


def _train(target: Run, request: Request, start: str | None, rehearsed: dict[str, Any] | None) -> None:
    """Trains the chain to `target`, or, given the recipe's values from options, says what that would be."""
    from vggrepro.system import processes
    from vggrepro.training.chain import plan_chain, train_chain

    if rehearsed is not None:
        return _rehearse(plan_chain(target, request, start), request, rehearsed)
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
