"""The command line: its commands, in the order of the pipeline."""

from __future__ import annotations

import importlib.util
import io
import sys
from typing import Annotated

import typer

from vggrepro import __version__
from vggrepro.commands import data, evaluation, exchange, nets, results, training, transfer
from vggrepro.commands.exits import leave_with
from vggrepro.commands.options import STAGES, Command, Program
from vggrepro.system import threads

app = typer.Typer(
    name="vggrepro",
    help="Reproduces the tables of Simonyan & Zisserman, Very Deep Convolutional Networks (arXiv 1409.1556): "
    "prepare → train → evaluate → fuse → report.",
    no_args_is_help=True,
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
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
    nets.nets,
    training.train,
    training.finetune_scale,
    evaluation.evaluate,
    results.fuse,
    results.claims,
    results.report,
    transfer.features,
    transfer.transfer,
    evaluation.predict,
    exchange.import_,
    exchange.export,
    exchange.archive,
    exchange.doctor,
    training.status,
    training.reproduce,
)
EXAMPLES = {name: text for stage in STAGES.values() for name, text in stage.items()}
for _command in COMMANDS:
    _name = _command.__name__.strip("_").replace("_", "-")
    app.command(_name, cls=Command, epilog=f"Example: {EXAMPLES[_name]}")(_command)


def main() -> None:
    """Entry point of `vggrepro` and `python -m vggrepro`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            _take_any_character(stream)
    if importlib.util.find_spec("fcntl") is None:
        print("vggrepro: runs on Linux and macOS (its locks are fcntl's); on Windows, run it in WSL", file=sys.stderr)
        sys.exit(2)
    threads.shorten_waits()
    leave_with(app)


def _take_any_character(stream: io.TextIOWrapper) -> None:
    """A file or a pipe gets UTF-8, as the documents say; a terminal gets `?` for characters that its encoding lacks."""
    if stream.isatty():
        stream.reconfigure(errors="replace")
    else:
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
