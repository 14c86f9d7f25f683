"""What a terminal of 80 columns shows, and that a pipe gets the plain text."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import planted
import pytest
from conftest import Call
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from vggrepro.cli import app
from vggrepro.data.dataset import Dataset
from vggrepro.doctor import diagnosis
from vggrepro.paper import S256, Run, all_runs
from vggrepro.report import documents, layout, terminal
from vggrepro.results import power
from vggrepro.results.nets import costs_table, stacks_table
from vggrepro.results.paper_claims import claims
from vggrepro.results.scores import Scores, over_seeds
from vggrepro.runs import status as run_status
from vggrepro.training.dryrun import Section


def drawn(parts: Iterable[RenderableType], width: int = 80) -> list[str]:
    """The lines that a terminal of this width shows."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, record=True, highlight=False)
    terminal.show(parts, console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    return [line.rstrip() for line in lines]


@pytest.fixture(scope="module")
def made(page_runs: Path, page_data: Dataset) -> documents.Document:
    return documents.document_of(Scores(page_runs, page_data))


def test_the_summary_comes_first_and_a_claim_takes_a_line(made: documents.Document, page_runs: Path) -> None:
    lines = drawn(terminal.report(made, run_status.statuses(page_runs)))
    text = "\n".join(lines)
    classes = len(made.dataset.classes)
    assert f"Chance: {100 - 100 / classes:.1f} % with {classes} classes." in lines
    best = min(
        row.top1_val_error
        for n in (2, 3, 4)
        for row in made.tables[n].frame.dropna(subset="top1_val_error").itertuples()
    )
    assert f"Best single net: {best:.1f} % top-1 error" in text
    assert any(line.startswith("12 Depth is cheap in parameters") and line.endswith("holds") for line in lines)
    assert text.index("Chance") < text.index("tested on images") < text.index("Table 1") < text.index("Table 7")


def test_of_equally_good_rows_the_first_is_named_as_on_the_page(tmp_path: Path) -> None:
    planted.multi_scale(tmp_path)
    found = documents.document_of(Scores(tmp_path, planted.dataset_of()))
    words = " ".join(" ".join(drawn(terminal.summary(found, []))).split())
    lines = [(row, table) for table in found.tables[2:5] for row in table.frame.to_dict("records")]
    first, *others = [layout.row_name(*line) for line in lines if line[0]["top1_val_error"] == 0.0]
    assert others and f"Best single net: 0.0 % top-1 error (95 % interval [0.0; 49.0]), {first}" in words


def test_a_reproduction_ends_with_the_summary_and_where_to_look(made: documents.Document, page_runs: Path) -> None:
    ending = terminal.finished(
        made, run_status.statuses(page_runs), Path("tables/x"), "vggrepro report", "vggrepro claims"
    )
    text = "\n".join(drawn(ending))
    assert text.index("Chance") < text.index("Where to look next")
    assert "Table 3" not in text.split("Where to look next")[1]
    for command in ("vggrepro report --format html > report.html", "vggrepro claims", "tables/x"):
        assert f"\n    {command}" in text


def test_intervals_are_shown_where_they_fit(made: documents.Document, page_runs: Path) -> None:
    states = run_status.statuses(page_runs)
    assert any("the terminal is narrow: 95 % intervals" in line for line in drawn(terminal.report(made, states)))
    wide = drawn(terminal.report(made, states), 150)
    assert not any("the terminal is narrow" in line for line in wide)
    low = made.tables[2].frame["top1_val_error_low"].dropna().iloc[0]
    assert any(f"[{low:.1f}; " in line for line in wide)


def test_claims_show_each_comparison(made: documents.Document) -> None:
    lines = drawn(terminal.claims_report(made.findings))
    assert "tested on images" in lines[0]
    compared = next(line for line in lines if line.startswith(" B 256 / A 256") and "top-1" in line)
    assert compared.split()[-1] in "✓✗?–"


def test_power_fits_80_columns_and_a_pipe_gets_markdown(
    vggrepro: Call, page_runs: Path, page_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame(
        {"claim": [1, 2], "sentence": [claim.sentence for claim in claims()[:2]], "comparisons": [1, 10]}
    )
    frame = frame.assign(shares="table and runs", **{"800": [1.0, 2.0], "50000": 100.0, "50000 of 3 seeds": 20.4})
    monkeypatch.setattr(power, "table", lambda samples, own: frame)
    lines = drawn(terminal.power_report(frame))
    assert lines[0].startswith("How likely each claim is shown ─")
    first = next(line.split() for line in lines if re.match(r" *1 ", line))
    assert first[-3:] == ["1", "100", "20"]
    where = ("claims", "--power", "--runs", str(page_runs), "--data", str(page_data.folder))
    piped = vggrepro(*where)[1]
    assert piped.startswith("# How likely each claim is shown\n\n")
    assert "| 800 images, 1 seed | 50,000 images, 1 seed | 50,000 images, 3 seeds |" in piped
    assert json.loads(vggrepro(*where, "--format", "json")[1])[1]["50000"] == 100
    monkeypatch.setattr(terminal, "wanted", lambda: True)
    assert vggrepro(*where, "--format", "md")[1] == piped
    assert "|" not in vggrepro(*where)[1]


def test_over_seeds_the_summary_has_deviations_and_counts_all_runs(tmp_path: Path) -> None:
    for folder, rows in (("runs", planted.RIGHT), ("runs/seed1", planted.WRONG)):
        planted.make_run(tmp_path / folder, Run("A", S256))
        planted.plant(tmp_path / folder, Run("A", S256), 256, rows)
    made = documents.document_of(over_seeds(tmp_path / "runs", planted.dataset_of()))
    text = " ".join(drawn(terminal.report(made, run_status.statuses_of_seeds(tmp_path / "runs")), 120))
    assert "Nets: 2 of 28 finished." in text
    assert "37.5 % top-1 error (standard deviation 53.0 over 2 seeds)" in text
    assert "± is the standard deviation of ours over n seeds" in made.markdown()


def test_runs_stand_under_what_they_start_from(page_runs: Path) -> None:
    lines = drawn(terminal.status(run_status.statuses(page_runs)))
    text = "\n".join(lines)
    assert "\n A-256 " in text and "\n  D-256 " in text and "\n   D-384 " in text
    assert lines[-1] == "  vggrepro evaluate"  # whole, to be copied


def test_a_pipe_gets_the_status_that_a_terminal_shows(vggrepro: Call, page_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(page_runs / "A-256", tmp_path / "runs" / "A-256")
    for seed in ("seed10", "seed2"):
        shutil.copytree(page_runs / "D-256", tmp_path / "runs" / seed / "D-256")
    code, out, err = vggrepro("status", "--runs", str(tmp_path / "runs"))
    table, *parts = out.rstrip().split("\n\n")
    lines = table.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].split("  ")[0] == "run" and lines[0].endswith("rate  top-1 %  top-5 %  images /s")
    assert re.fullmatch(r"A-256 +finished +3/3 .* \d+\.\d .*", lines[1])
    assert {line.split()[0] for line in lines if line.startswith("  ")} >= {"D-384", "D-256-512"}  # below D-256
    assert re.findall(r"(\w+): 1 of 14 finished; to see them:\n  vggrepro status --runs", parts[0]) == [
        "seed2",
        "seed10",
    ]
    assert parts[1].endswith("over the whole image:\n  vggrepro evaluate --runs " + str(tmp_path / "runs"))


def test_the_time_that_an_unfinished_run_needs_stands_below_the_table() -> None:
    note = "run the same train command to resume"
    values = ("interrupted", "7.4/74", 0.00667, 52.4, 2.4, 1234.0, 86_000.0, 13.0, note, 7.4, 74)
    chain = ["A-256", "D-256", "D-384", "D-256-512-fc"]
    rows = [run_status.Status(run, *values, start) for run, start in zip(chain, [None, *chain], strict=False)]
    lines = drawn(terminal.status(rows))
    assert any(line.startswith("    D-256-512-fc  interrupted  7.4/74  0.00667 ") for line in lines)
    assert f"A-256: {note}; 23 h 53 min left; last checkpoint 13 s ago" in " ".join(lines)


def test_every_command_s_summary_is_whole_and_has_an_example() -> None:
    shown = CliRunner().invoke(app, ["-h"]).output
    assert "…" not in shown and "..." not in shown.split("Commands")[0].replace("[ARGS]...", "")
    names = [command.name or "" for command in app.registered_commands]
    for name in names:
        assert f"\n  {name} " in shown
        assert f"Example: vggrepro {name}" in CliRunner().invoke(app, [name, "-h"]).output
    assert shown.index(" prepare ") < shown.index(" train ") < shown.index(" evaluate ") < shown.index(" report ")


def test_a_plan_fits_80_columns() -> None:
    long = "ours: 4,800 images make 300 batches of 16, and a larger batch learns too slowly in so few epochs"
    part = Section("recipe", (), [["batch", "16", "preset", long]], ("a remark",))
    lines = drawn(terminal.plan([(part.title, part.heads, part.rows, part.remarks)]))
    assert " ".join(" ".join(lines).split()).count("preset") == 1


def test_a_terminal_is_drawn_on_and_a_pipe_gets_markdown(
    vggrepro: Call, page_runs: Path, page_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--runs", str(page_runs), "--data", str(page_data.folder)]
    piped = {name: vggrepro(name, *where)[1] for name in ("report", "claims")}
    assert "smallest–median–largest" in vggrepro("dataset", *where[2:])[1]
    assert piped["report"].startswith("# VGG's tables") and piped["claims"].startswith("# The paper's claims")
    monkeypatch.setattr(terminal, "wanted", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    for name, text in piped.items():
        assert vggrepro(name, *where, "--format", "md")[1] == text
        assert "tested on images" in vggrepro(name, *where)[1]
    assert "first" not in vggrepro("status", *where[:2])[1]


def test_numbers_of_a_small_table_have_units() -> None:
    frame = pd.DataFrame({"run": ["A-256"], "top1_error": [12.345], "top5_error": [float("nan")], "images": [1200]})
    first, second, _, row = drawn([terminal.frame_grid(frame)])[1:5]
    assert re.split(" {2,}", first.strip()) == ["top-1", "top-5"]
    assert re.split(" {2,}", second.strip()) == ["run", "error, %", "error, %", "images"]
    assert row.split() == ["A-256", "12.35", "–", "1,200"]


def test_no_word_is_divided_and_headings_have_three_lines() -> None:
    costs = pd.DataFrame({"net": ["A"], "milliseconds": [12.0], "kept_bytes": [5e5]})
    lines = drawn(terminal.sections([stacks_table(), costs_table(costs, "a CPU")]))
    assert lines[4:6] == [
        "                        its  their  its weights         their     one layer",
        " layer  in its place  field  field         (C²)  weights (C²)  has more (%)",
    ]
    assert lines[-5:-3] == [
        "       training step  kept for the backward",
        " net  (ms per image)    pass (MB per image)",
    ]
    run = "D-256-512-fc"
    cost = [run, "0.001", "74", "94,814,208", "92.8 G", "8.79 E", "12 d 04 h"]
    heads = ["run", "rate", "epochs", "images", "FLOP/image", "FLOP", "time"]
    assert any(line.split() == " ".join(cost).split() for line in drawn([terminal.rows_grid(heads, [cost], heads[1:])]))
    pair = pd.DataFrame({"first": [run], "second": [f"{run} + E-256-512"], "measure": ["top-1"], "difference": [-10.0]})
    pair = pair.assign(low=-12.38, high=7.47, p="0.0192", only_first=123, only_second=456)
    assert any(line.startswith(f" {run}  {run}") for line in drawn([terminal.frame_grid(pair)]))


def test_a_narrow_table_loses_its_intervals_then_its_differences_then_its_groups(made: documents.Document) -> None:
    def shown(table: int, width: int) -> str:
        return " ".join(drawn([terminal._Fitted(layout.columns(made.tables[table]))], width))

    assert [bool(re.search(r"\[\d+\.\d; ", shown(2, width))) for width in (150, 80)] == [True, False]
    wide, narrow = shown(5, 100), shown(5, 60)
    assert "Δ" in wide and "post-submission" in wide
    assert narrow.count("Δ") == 1 and "Not shown, as the terminal is narrow: Δ, groups of rows." in narrow
    runs = [run.name for run in all_runs()[:11]]
    pairs = terminal.rows_grid(["run", *runs], [[run, *["81.0"] * 11] for run in runs], runs)
    assert [line.split()[0] for line in drawn([pairs])[-12:-1]] == runs
    divided = drawn([terminal.rows_grid(["", ""], [["post-submission", "x" * 10]])], 26)
    assert [line.split()[0] for line in divided if line.strip()] == ["post-", "submission"]


def test_words_of_text_are_divided_at_hyphens_before_headings_of_numbers() -> None:
    heads = ["group", "top-1 paper", "top-5 paper"]
    lines = drawn([terminal.rows_grid(heads, [["post-submission", "24.0", "7.1"]], heads[1:])], 28)
    assert [line.split() for line in lines[1:3]] == [["top-1", "top-5"], ["group", "paper", "paper"]]
    assert [line.split()[0] for line in lines[4:6]] == ["post-", "submission"]


def test_two_reproductions_are_drawn_with_a_grid_for_each_error(
    vggrepro: Call, page_run: Path, page_runs: Path, page_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--data", str(page_data.folder), "--runs", str(page_run), "--against", str(page_runs))
    piped = vggrepro("report", *where)[1]
    assert piped.startswith("# VGG's tables: ")
    monkeypatch.setattr(terminal, "wanted", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    text = vggrepro("report", *where)[1]
    assert vggrepro("report", *where, "--format", "md")[1] == piped
    assert "|" not in text and "Both on the same images" in " ".join(text.split())
    first = next(line for line in text.splitlines() if line.startswith(" D "))
    assert re.search(r"\[-?\d+\.\d; -?\d+\.\d\]", first)  # the interval is shown at this width
    assert max(map(len, text.splitlines())) <= 80


def test_advice_of_the_doctor_is_below_its_result() -> None:
    found = [
        diagnosis.Diagnosis("warning", "threads", "torch computes with 1 of 2 cores", "unset OMP_NUM_THREADS " * 4)
    ]
    first, second, *_ = drawn([terminal.rows_grid(("", "", ""), diagnosis.rows(found))])[1:]
    assert first == " warning  threads  torch computes with 1 of 2 cores" and second.startswith(" " * 19 + "→ unset")


def test_words_are_completed(page_runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(page_runs, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)

    def completed(*words: str) -> list[str]:
        line = " ".join(("vggrepro", *words))
        environment = {"_VGGREPRO_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
        return CliRunner().invoke(app, [], env=environment, prog_name="vggrepro").output.split()

    assert completed("train", "B") == ["B", "B-5x5"]
    assert "D-256" in completed("evaluate", "D-")
    assert completed("prepare", "--preset", "de") == ["demo"]
