"""Results of posteriors: fuse, claims, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggrepro.commands.options import (
    DEFAULT_DATA,
    DEFAULT_RUNS,
    AsJson,
    ClaimsFormat,
    Data,
    Dense,
    Format,
    Multicrop,
    RunsOfSeeds,
    Search,
    SplitName,
    SplitOption,
    TableFormat,
    TablesFolder,
    complete_run,
    methods_of,
    require_runs,
    runs_of,
)
from vggrepro.errors import InputError

if TYPE_CHECKING:
    from vggrepro.data.dataset import Dataset
    from vggrepro.report.documents import Document
    from vggrepro.results.fuse import Ranked
    from vggrepro.results.scores import Scores


def fuse(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN", autocompletion=complete_run, help="Names of runs. Default: none, to write Tables 3-7."
        ),
    ] = None,
    dense: Dense = False,
    multicrop: Multicrop = False,
    split: SplitOption = SplitName.val,
    submission: Annotated[
        Path | None, typer.Option("--submission", help="Write the averaged posteriors as ILSVRC's server takes them.")
    ] = None,
    search: Search = False,
    data: Data = DEFAULT_DATA,
    runs: RunsOfSeeds = DEFAULT_RUNS,
    tables: TablesFolder = Path("tables"),
    format_: AsJson = TableFormat.table,
) -> None:
    """Average posteriors, and write Tables 3-7.

    With runs: prints the error of each run and of their averaged posteriors, and how each two differ on the same
    images. With --submission: writes the devkit's ids of the five best classes of each image. Without runs: writes
    every row of Tables 3-7 to tables/<data set>/, with the claims, the error against Q, the errors of each class and
    what else the posteriors give. With --search, also the best nets to fuse.
    """
    from vggrepro.data.dataset import load
    from vggrepro.report import documents
    from vggrepro.results.fuse import rank_runs
    from vggrepro.results.scores import over_seeds
    from vggrepro.system.progress import say

    if not names and submission is None and split is not SplitName.val:
        raise InputError("--split: only with runs; the tables are of the validation images")
    if search and (names or submission is not None or split is not SplitName.val):
        raise InputError("--search takes all runs by their validation posteriors; give it without runs or --split")
    if format_ is TableFormat.json and (not names or submission is not None):
        raise InputError("--format json: only with runs and without --submission; the tables are CSV files")
    dataset = load(data)
    require_runs(runs)
    methods = methods_of(dense=dense, multicrop=multicrop)
    if submission is not None:
        from vggrepro.results.submission import submit

        if not names:
            raise InputError("--submission: name the runs whose posteriors are averaged")
        count = submit(runs_of(runs, names), methods, split.value, dataset, submission)
        print(f"{submission}: {count:,} images")
        return
    if names:
        return _print_fused(rank_runs(runs_of(runs, names), methods, split.value, dataset), format_)
    if (dense or multicrop) and not search:
        say("note: without runs, fuse writes all tables; --dense and --multicrop choose what runs or --search fuse by")
    scores = over_seeds(runs, dataset)
    made = documents.document_of(scores, methods=methods if search else ())
    for path in made.write(tables / dataset.name):
        print(path)


def _print_fused(ranked: Ranked, format_: TableFormat) -> None:
    """The errors of runs and of their fusion; of two or more also the differences, image by image."""
    from vggrepro.report import terminal
    from vggrepro.report.records import json_text
    from vggrepro.system.progress import say

    if format_ is TableFormat.json:
        return print(json_text({"errors": ranked.errors(), "differences": ranked.differences()}))
    terminal.print_table(ranked.errors())
    if len(ranked.names) > 1:
        print()
        terminal.print_table(ranked.differences().assign(p=lambda frame: frame["p"].map("{:.3g}".format)))
        say(
            "difference: first - second in points, low and high its 95 % interval (Tango); p: McNemar's exact test on "
            "the same images, uncorrected; only: images that the one alone gets wrong"
        )


def claims(
    format_: Annotated[
        ClaimsFormat | None, typer.Option("--format", help="md, csv or json (default: drawn on a terminal, else md).")
    ] = None,
    power: Annotated[
        bool,
        typer.Option("--power", help="Print the chance to show each claim by the number of images; needs no runs."),
    ] = False,
    data: Data = DEFAULT_DATA,
    runs: RunsOfSeeds = DEFAULT_RUNS,
) -> None:
    """Test the paper's twelve claims on the posteriors.

    With --power: the chance that each claim is found to hold, if the true differences are the paper's, for several
    numbers of validation images.
    """
    from vggrepro.data.dataset import load
    from vggrepro.report import terminal
    from vggrepro.report.findings import document
    from vggrepro.report.records import json_text
    from vggrepro.results.claims import csv_text, evaluate_claims, frame
    from vggrepro.results.scores import over_seeds

    dataset = load(data)
    if power:
        return _print_power(over_seeds(runs, dataset), format_)
    require_runs(runs)
    scores = over_seeds(runs, dataset)
    findings = evaluate_claims(scores)
    if format_ is None and terminal.wanted():
        return terminal.show(terminal.claims_report(findings))
    if format_ is ClaimsFormat.json:
        return print(json_text(frame(findings)))
    print(csv_text(findings) if format_ is ClaimsFormat.csv else document(findings, scores), end="")


def _print_power(scores: Scores, format_: ClaimsFormat | None) -> None:
    """How likely each claim is shown."""
    from vggrepro.report import findings, terminal
    from vggrepro.report.records import json_text

    if format_ is None and terminal.wanted():
        return terminal.show(terminal.power_report(findings.power_frame(scores)))
    if format_ is ClaimsFormat.json:
        return print(json_text(findings.power_frame(scores)))
    print(findings.power_csv(scores) if format_ is ClaimsFormat.csv else findings.power_document(scores), end="")


def report(
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format", help="md, html (one page), latex (booktabs) or csv (default: drawn on a terminal, else md)."
        ),
    ] = None,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="With --format latex: a document that compiles, not tables to include.")
    ] = False,
    search: Search = False,
    against: Annotated[
        Path | None, typer.Option("--against", help="Another folder of runs: both side by side, and their difference.")
    ] = None,
    against_data: Annotated[
        Path | None, typer.Option("--against-data", help="The data set of those runs; default: the same.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Also write every figure of the HTML page here, as PNG and SVG.")
    ] = None,
    data: Data = DEFAULT_DATA,
    runs: RunsOfSeeds = DEFAULT_RUNS,
) -> None:
    """Print Tables 1-7 beside the paper's numbers, the paper's claims, and more.

    Also the error against Q, the 5x5 net and other papers' crops, if they were evaluated.
    """
    from vggrepro.report import terminal
    from vggrepro.runs.status import statuses_of_seeds

    drawn = format_ is None and terminal.wanted()
    format_ = format_ or Format.md
    _check_report(format_, standalone=standalone, search=search, against=against, against_data=against_data)
    if figures is not None:
        _write_figures(data, runs, figures)
    if against is not None:
        _say_which_seed(runs)
    if against is not None and format_ is not Format.html:
        return _print_beside(data, runs, against, against_data or data, format_, drawn=drawn)
    if drawn:
        require_runs(runs)
        return terminal.show(terminal.report(_document(data, runs, search=search), statuses_of_seeds(runs)))
    print(report_text(data, runs, format_, standalone=standalone, search=search, against=against), end="")


def _say_which_seed(runs: Path) -> None:
    """Says of several seeds which one is compared with another reproduction."""
    from vggrepro.runs.folder import seed_folders
    from vggrepro.system.progress import say

    first, *others = seed_folders(runs)
    if others:
        say(f"note: --against compares the first seed alone: {first}")


def _document(data: Path, runs: Path, *, search: bool) -> Document:
    """What the runs give on the data set; with `search` also which nets to fuse."""
    from vggrepro.data.dataset import load
    from vggrepro.report import documents
    from vggrepro.results.scores import over_seeds

    return documents.document_of(over_seeds(runs, load(data)), methods=("dense",) if search else ())


def _write_figures(data: Path, runs: Path, folder: Path) -> None:
    """Every figure of the page as a file; what was written is said on stderr, as stdout is the report's."""
    from vggrepro.data.dataset import load
    from vggrepro.report.page import write_figures
    from vggrepro.system.progress import say

    dataset = load(data)
    require_runs(runs)
    paths = write_figures(runs, dataset, folder)
    say(f"{folder}: {len(paths) // 2} figures as PNG and SVG")


def _check_report(
    format_: Format, *, standalone: bool, search: bool, against: Path | None, against_data: Path | None
) -> None:
    """Refuses options that do not go together."""
    if standalone and format_ is not Format.latex:
        raise InputError("--standalone: only with --format latex")
    if search and (format_ not in (Format.md, Format.latex) or against is not None):
        raise InputError(
            "--search: only with --format md or latex and without --against; 'vggrepro fuse' has it as CSV"
        )
    if against is not None and format_ is Format.latex:
        raise InputError("--against: give --format md, csv or html")
    if against_data is not None and (against is None or format_ is Format.html):
        raise InputError("--against-data: only with --against and --format md or csv")


def report_text(
    data: Path,
    runs: Path,
    format_: Format,
    *,
    standalone: bool = False,
    search: bool = False,
    against: Path | None = None,
) -> str:
    """The report as `report` prints it."""
    from vggrepro.data.dataset import load

    dataset: Dataset = load(data)
    require_runs(runs)
    if format_ is Format.html:
        from vggrepro.report.page import page

        if against is not None:
            _require_runs_on(against, dataset)
        return page(runs, dataset, against)
    if format_ is Format.csv:
        from vggrepro.report import csv
        from vggrepro.results.scores import over_seeds
        from vggrepro.results.tables import tables_of
        from vggrepro.results.transfer_tables import transfer_tables

        scores = over_seeds(runs, dataset)
        return csv.csv_text([*tables_of(scores), *transfer_tables(scores)])
    made = _document(data, runs, search=search)
    return made.markdown() if format_ is Format.md else made.latex(standalone)


def _require_runs_on(other: Path, dataset: Dataset) -> None:
    """Refuses an --against folder without runs, or whose runs are all of another data set."""
    from vggrepro.results.scores import foreign_data
    from vggrepro.runs.folder import existing

    if not existing(other):
        raise InputError(f"--against {other}: no run there; give the folder of the other runs")
    if name := foreign_data(other, dataset):
        raise InputError(
            f"--against {other}: its runs are of {name}, not of {dataset.folder}; give theirs with --against-data "
            "and --format md or csv"
        )


def _print_beside(data: Path, runs: Path, other: Path, other_data: Path, format_: Format, *, drawn: bool) -> None:
    """Two reproductions side by side."""
    from vggrepro.data.dataset import load
    from vggrepro.report import documents, terminal
    from vggrepro.results.scores import Scores, over_seeds

    require_runs(runs)
    _require_runs_on(other, load(other_data))
    ours = over_seeds(runs, load(data)).alone
    theirs = Scores(other, load(other_data))
    if format_ is Format.csv:
        return print(documents.beside_csv(ours, theirs), end="")
    made = documents.beside(ours, theirs)
    if drawn:
        return terminal.show(terminal.beside(made))
    print(made.markdown(), end="")
