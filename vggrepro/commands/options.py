"""The options that several commands share, declared once, and what they stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.system import advice, threads
from vggrepro.system.precisions import help_text

if TYPE_CHECKING:
    from vggrepro.runs.folder import RunFolder
    from vggrepro.system.devices import Machine

STAGES = {  # the commands in the order of the pipeline, and an example of each
    "Everything at once": {"reproduce": "vggrepro reproduce --preset demo"},
    "1. Images": {
        "prepare": "vggrepro prepare ~/photos --to data/photos",
        "dataset": "vggrepro dataset --data data/photos --sheet sheet.png",
    },
    "2. Nets": {
        "nets": "vggrepro nets D",
        "train": "vggrepro train D --scale 256:512",
        "finetune-scale": "vggrepro finetune-scale D --scale 384",
        "import": "vggrepro import D VGG_ILSVRC_16_layers.caffemodel",
        "status": "vggrepro status",
    },
    "3. Errors": {
        "evaluate": "vggrepro evaluate D-256-512 --dense --multicrop",
        "predict": "vggrepro predict cat.jpg --run D-256-512",
    },
    "4. Tables and claims": {
        "fuse": "vggrepro fuse D-256-512 E-256-512 --dense --multicrop",
        "claims": "vggrepro claims --format csv > claims.csv",
        "report": "vggrepro report --format html > report.html",
        "features": "vggrepro features D-256-512 --data 101_ObjectCategories",
        "transfer": "vggrepro transfer D-256-512 --data 101_ObjectCategories",
    },
    "More": {
        "export": "vggrepro export D-256-512 --to onnx",
        "archive": "vggrepro archive --to archive --size 2GB",
        "doctor": "vggrepro doctor",
    },
}

DEFAULT_DATA, DEFAULT_RUNS = Path("data"), Path("runs")


class Layers(StrEnum):
    """Which layers finetune-scale trains."""

    all = "all"
    fc = "fc"


class SplitName(StrEnum):
    """Which split evaluate runs over."""

    train = "train"
    val = "val"
    test = "test"


class Decode(StrEnum):
    """What training decodes of an image."""

    pillow = "pillow"
    region = "region"


class PlanFormat(StrEnum):
    """For which scheduler reproduce writes its plan."""

    make = "make"
    slurm = "slurm"


class Format(StrEnum):
    """How report writes the tables."""

    md = "md"
    html = "html"
    latex = "latex"
    csv = "csv"


class ClaimsFormat(StrEnum):
    """How claims writes its findings."""

    md = "md"
    csv = "csv"
    json = "json"


class TableFormat(StrEnum):
    """How a command prints its table."""

    table = "table"
    json = "json"


# Shell completion: what may stand for a word that is being typed.


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names of the runs in the folder of --runs."""
    from vggrepro.runs.folder import existing

    runs = Path(ctx.params.get("runs") or DEFAULT_RUNS)
    return [folder.name for folder in existing(runs) if folder.name.startswith(incomplete)]


def complete_net(incomplete: str) -> list[str]:
    """The nets of Table 1."""
    return [net for net in paper.NETS if net.startswith(incomplete.upper())]


def complete_preset(incomplete: str) -> list[str]:
    """The presets."""
    from vggrepro.recipe import presets

    return [name for name in presets() if name.startswith(incomplete)]


# The value of --runs: what it must be.


def _one_folder(runs: Path) -> Path:
    if "," in str(runs) and not runs.is_dir():
        raise InputError(f"--runs {runs}: this command takes one folder, whose name has no comma")
    return _no_file(runs)


def _no_file(runs: Path) -> Path:
    if runs.is_file():
        raise InputError(f"--runs {runs} is a file; give the folder of your runs")
    return runs


Data = Annotated[
    Path, typer.Option("--data", envvar="VGGREPRO_DATA", help="Folder of the data set, which prepare writes.")
]
RunsOfSeeds = Annotated[
    Path,
    typer.Option(
        "--runs",
        envvar="VGGREPRO_RUNS",
        callback=_no_file,
        help="Folder of the runs. Of several seeds: its subfolders seed1, seed2 too, or folders with commas between.",
    ),
]
SeedList = Annotated[
    str | None,
    typer.Option("--seeds", metavar="LIST", help="Train and test every net with each of these seeds, such as 0,1,2."),
]
Runs = Annotated[Path, typer.Option("--runs", envvar="VGGREPRO_RUNS", callback=_one_folder, help="Folder of the runs.")]
NoTop5 = Annotated[bool, typer.Option("--no-top5", help="Accept 5 or fewer classes: no top-5 errors.")]
TablesFolder = Annotated[Path, typer.Option("--tables", help="Folder that gets <data set>/table3.csv and so on.")]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[str, typer.Option("--precision", metavar="NAME", help=help_text())]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Threads that decode and crop images.")]
AsJson = Annotated[
    TableFormat, typer.Option("--format", help="A table for people, or JSON for programs (docs/json.md).")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Seed of all random choices.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Replace a value of the recipe; can be given several times."),
]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="At most so many epochs for each new run.")]
Width = Annotated[
    float | None, typer.Option("--width", help="Multiply the numbers of channels and FC units; 1 is the paper's.")
]
DecodeOption = Annotated[
    Decode | None,
    typer.Option("--decode", help="region: decode only what a training crop shows; needs pip install vggrepro[fast]."),
]
Init = Annotated[
    str | None,
    typer.Option(
        "--init",
        metavar="NAME",
        help="Start from random, glorot, glorot-normal, he, delta, looks-linear, dirac or a finished run.",
    ),
]
MicroBatch = Annotated[
    int, typer.Option("--micro-batch", min=0, help="Images that a device takes at a time; 0: the whole batch.")
]
CheckpointMinutes = Annotated[
    float, typer.Option("--checkpoint-minutes", min=0.0, help="Minutes between two checkpoints.")
]
Retrain = Annotated[bool, typer.Option("--retrain", help="Train NET again although it is finished.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the training step: the start takes a minute or more.")
]
Fast = Annotated[
    bool,
    typer.Option("--fast", help="Faster on a GPU, but two equal commands may differ in the last bits of the weights."),
]
TensorBoard = Annotated[
    bool,
    typer.Option("--tensorboard", help="Also write curves for TensorBoard; needs pip install vggrepro[tensorboard]."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print recipe, chain and cost (images, FLOPs, time, disk); train nothing.")
]
Dense = Annotated[bool, typer.Option("--dense", help="Dense evaluation: the net runs over the whole image.")]
Center = Annotated[bool, typer.Option("--center", help="The central crop alone, at Q = S.")]
Tencrop = Annotated[bool, typer.Option("--tencrop", help="Krizhevsky et al.'s ten crops, at Q = S.")]
Googlenet = Annotated[bool, typer.Option("--googlenet", help="Szegedy et al.'s 144 crops over four Q.")]
CeilPool = Annotated[bool, typer.Option("--ceil-pool", help="Dense evaluation: poolings round up, as Caffe's do.")]
TestScales = Annotated[
    str | None,
    typer.Option(
        "--q", metavar="LIST", help="Test scales Q: 256,384,512, or from 224 to 512 in steps of 32: 224:512:32."
    ),
]
SplitOption = Annotated[
    SplitName,
    typer.Option("--split", help="The images: val; train, for the training error; or test, which have no labels."),
]
Multicrop = Annotated[
    bool, typer.Option("--multicrop", help="Multi-crop: 5x5 crops and their mirror images, 150 over three Q.")
]
Search = Annotated[
    bool,
    typer.Option(
        "--search",
        help="Also find the nets that are best to fuse: each pair, and the best set, chosen on half of the images.",
    ),
]
WORKERS = threads.workers()


class Program(TyperGroup):
    """The program: `--help` shows the commands by the stages of the pipeline, their summaries uncut."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for heading, names in STAGES.items():
            with formatter.section(heading):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=200)) for name in names])


WORDS = {"str": "TEXT", "path": "PATH", "int": "N", "int range": "N", "float": "NUMBER", "float range": "NUMBER"}


class Command(TyperCommand):
    """A command of the program, whose options are repeated by every command that it prints (`advice`).

    Its help names arguments and values as manuals do: NET, [RUN]..., --epochs N.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for each in self.params:
            if each.param_type_name == "argument" and each.metavar is None:
                each.metavar = str(each.name).upper()

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [each for each in self.params if each.param_type_name == "argument"]
        return ["[OPTIONS]", *map(_in_usage, arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and options, with words in place of Python's types."""
        for kind in ("argument", "option"):
            params = [each for each in self.get_params(ctx) if each.param_type_name == kind]
            records = [(each, record) for each in params if (record := each.get_help_record(ctx))]
            if records:
                with formatter.section(f"{kind.capitalize()}s"):
                    formatter.write_dl([(_in_help(each, name), _plain(text)) for each, (name, text) in records])

    def invoke(self, ctx: Any) -> Any:
        commands = ctx.parent.command.commands if ctx.parent else {}
        known = {name: frozenset(p.opts[0] for p in each.params) for name, each in commands.items()}
        given = [words for each in self.params for words in _given(each, ctx)]
        with advice.invocation(advice.Invocation(given, known, _first(ctx.params.get("runs")))):
            return super().invoke(ctx)


def _in_usage(argument: Any) -> str:
    """`NET`, `[WEIGHTS]`, `[RUN]...`"""
    name = argument.metavar if argument.required else f"[{argument.metavar}]"
    return str(name) + "..." * (argument.nargs != 1)


def _in_help(parameter: Any, name: str) -> str:
    """The name of a parameter in the list; of an option with the word for its value, `--epochs N`."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar)
    return re.sub("<(.*)>", lambda kind: WORDS.get(kind[1], kind[1]), name)


def _plain(text: str) -> str:
    """A help text without the range of a number, `x>=1`: a wrong number is refused with its range."""
    return re.sub(r" *\[\]", "", re.sub(r"(; )?([\d.]+<=)?x[<>]=?[\d.]+", "", text))


def _given(parameter: Any, ctx: Any) -> Iterator[tuple[str, ...]]:
    """The words of an option that is to be repeated, if its value is not the default."""
    name, value = parameter.opts[0], ctx.params.get(parameter.name)
    if name not in advice.REPEATED or value is None or value == parameter.get_default(ctx):
        return
    if name == "--runs":
        value = _first(value)
    for each in value if isinstance(value, list | tuple) else [value]:
        yield (name,) if each is True else (name, str(each.value if isinstance(each, StrEnum) else each))


def _first(runs: Path | None) -> Path | None:
    """The first of several folders of runs (`seed_folders`): commands that train and evaluate take one."""
    return runs if runs is None or runs.is_dir() else Path(str(runs).partition(",")[0])


# What they stand for


def seeds_of(text: str | None, seed: int) -> tuple[int, ...]:
    """The seeds of --seeds, or that of --seed alone.

    Raises:
        InputError: not whole numbers from 0, or one twice.
    """
    words = [str(seed)] if text is None else text.split(",")
    if not all(word.strip().isdecimal() for word in words) or len({int(word) for word in words}) < len(words):
        raise InputError(f"--seeds {text}: give different whole numbers with commas between them, as in 0,1,2")
    if text is not None and seed:
        raise InputError("--seed and --seeds: give one of them")
    return tuple(map(int, words))


def machine_of(
    device: str,
    precision: str,
    workers: int,
    micro_batch: int = 0,
    checkpoint_minutes: float = 10.0,
    tensorboard: bool = False,
    compile_: bool = False,
    fast: bool = False,
) -> Machine:
    """How to compute, with what `auto` stands for here; a CPU repeats its bits in any case, so it is never `fast`."""
    from vggrepro.system import devices
    from vggrepro.system.devices import Machine

    chosen = devices.device(device)
    kind = devices.precision(precision, chosen)
    return Machine(
        chosen,
        kind,
        workers,
        micro_batch,
        60 * checkpoint_minutes,
        tensorboard,
        compile_,
        fast and chosen.type == "cuda",
    )


def methods_of(**wanted: bool) -> tuple[str, ...]:
    """The methods asked for by their flags; dense if none is."""
    return tuple(name for name, asked in wanted.items() if asked) or ("dense",)


def runs_of(runs: Path, names: list[str] | None) -> list[RunFolder]:
    """The runs named, or all finished ones.

    Raises:
        InputError: an unknown name, one twice, or nothing finished.
    """
    from vggrepro.runs.folder import finished

    if names:
        return named_runs(runs, names)
    found = finished(runs)
    if not found:
        train, status = advice.command("train", "A"), advice.command("status")
        raise InputError(f"no finished run in {runs}; train one with '{train}', see '{status}'")
    return found


def named_runs(runs: Path, names: Sequence[str]) -> list[RunFolder]:
    """The runs of these names.

    Raises:
        InputError: an unknown name, or one twice.
    """
    from vggrepro.runs.folder import find_run

    if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise InputError(f"{twice} is named twice; name each run once")
    return [find_run(runs, name) for name in names]


def require_runs(runs: Path) -> None:
    """Refuses a folder without runs, which is most likely a mistake."""
    from vggrepro.runs.folder import existing, seed_folders

    if not existing(seed_folders(runs)[0]):
        command = advice.command("train", "A")
        raise InputError(f"no run in {runs}; give --runs the folder of your runs, or train one: '{command}'")
