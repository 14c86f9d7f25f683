"""The command line: its commands, in the order of the pipeline."""

from __future__ import annotations

from typing import Annotated

import typer

from vggrepro import __version__
from vggrepro.commands import data, evaluation, exchange, results, training
from vggrepro.commands.exits import leave_with
from vggrepro.commands.options import Command
from vggrepro.system import threads

app = typer.Typer(
    name="vggrepro",
    help="Reproduces the tables of Simonyan & Zisserman, Very Deep Convolutional Networks (arXiv 1409.1556): "
    "prepare → train → evaluate → fuse → report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"vggrepro {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


COMMANDS = (
    data.prepare,
    data.dataset,
    training.train,
    training.finetune_scale,
    evaluation.evaluate,
    results.fuse,
    results.claims,
    results.report,
    evaluation.predict,
    exchange.import_,
    exchange.export,
    exchange.archive,
    exchange.doctor,
    training.status,
    training.reproduce,
)
for _command in COMMANDS:
    app.command(_command.__name__.strip("_").replace("_", "-"), cls=Command)(_command)


def main() -> None:
    """Entry point of `vggrepro` and `python -m vggrepro`."""
    threads.wait_asleep()
    leave_with(app)
