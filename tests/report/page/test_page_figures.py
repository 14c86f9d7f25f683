"""What the figures of the HTML report show, and their files."""

from __future__ import annotations

import dataclasses
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import planted
import pytest
from pages import Reader, make_run
from PIL import Image
from typer.testing import CliRunner

from vggrepro.cli import app
from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.paper import S256, S384, Run
from vggrepro.report import page as stage
from vggrepro.report.page import sections
from vggrepro.report.page.contents import run_facts
from vggrepro.report.page.drawings import agreement_frame, deciding_frame, drawings, epochs_before, first_layers
from vggrepro.results.columns import TOP1
from vggrepro.results.verdicts import HOLDS, Outcome
from vggrepro.runs.folder import RunFolder


def test_curves_between_epochs_count_in_epochs(tmp_path: Path) -> None:
    facts = run_facts(make_run(tmp_path, "A-256", Run("A", S256), epochs=2))  # 30 images by 10: 3 steps an epoch
    assert facts.between.to_dict("list") == {"epoch": pytest.approx([1 / 3, 4 / 3]), "loss": [2.5, 1.25]}
    assert [line.epoch for line in facts.epochs] == [1.0, 2.0]
    assert (facts.seconds, facts.measured_on) == (60.0, "validation")
    held_out = make_run(tmp_path, "other", Run("A", S256), recipe={"held_out": 0.05})
    assert run_facts(held_out).measured_on == "held-out"
    assert run_facts(held_out).between.empty  # its batch is not known


def test_over_seeds_figures_show_each_and_the_page_says_which_seed_has_the_single_nets(tmp_path: Path) -> None:
    for folder, rows in (("runs", planted.RIGHT), ("runs/seed1", planted.WRONG)):
        for net in ("A", "E"):
            planted.make_run(tmp_path / folder, Run(net, S256), done=0)
            planted.plant(tmp_path / folder, Run(net, S256), 256, rows)
            planted.plant(tmp_path / folder, Run(net, S256), 288, rows)
    contents = stage.contents_of(tmp_path / "runs", planted.dataset_of(words=tuple("abcdef")), images=False)
    assert "over 2 seeds (runs, seed1). The parts on single nets" in sections.summary(contents)
    assert agreement_frame(contents)["ours_each"].tolist() == ["0.0000 75.0000"] * 2
    assert contents.by_test_scale[f"{TOP1}_each"].tolist() == ["0.0000 75.0000"] * 4
    assert deciding_frame(contents.document.findings)["each"].tolist() == [(0.0, 0.0)]
    assert {"agreement", "test-scale-e", "claims-forest"} <= {one.name for one in drawings(contents)}


def test_rows_that_two_tables_share_count_once(page_runs: Path, page_data: Dataset) -> None:
    contents = stage.contents_of(page_runs, page_data, images=False)
    frame = agreement_frame(contents)
    # Table 3: A, D at three S; Table 4: D at three S; Table 5: D's two other methods (dense is Table 4's).
    assert len(frame) == 4 + 3 + 2
    filled = sum(int(contents.table(number).frame[TOP1].notna().sum()) for number in (3, 4, 5, 6))
    assert filled == len(frame) + 1


def test_claims_stand_with_what_they_expect_and_how_much_was_tested(
    page_text: str, page_runs: Path, page_data: Dataset
) -> None:
    findings = stage.contents_of(page_runs, page_data, images=False).document.findings
    frame = deciding_frame(findings)
    assert frame["label"].str.match(r"\d+\. .* against .*, top-[15]( \(errs slightly less\))?$").all()
    assert set(frame["claimed_high"]) == {0.0}
    assert (frame["claimed_low"] > -math.inf).tolist() == frame["label"].str.endswith("slightly less)").tolist()
    tested = next(finding for finding in findings if finding.claim.number == 1)
    pair = tested.claim.pairs[0]
    test = next(test for finding in findings for outcome in finding.outcomes for test in outcome.tests)
    narrow = dataclasses.replace(
        tested, outcomes=(Outcome(pair, (dataclasses.replace(test, margin=0.6),), HOLDS),), verdict=HOLDS
    )
    row = deciding_frame([narrow]).iloc[0]
    assert row["label"] == f"1. A-LRN 256 against A 256, {test.measure} (errs no less)"
    assert (row["claimed_low"], row["claimed_high"]) == (-0.6, math.inf)
    words = Reader(page_text).text
    assert "First − second: left of zero the first errs less." in words
    assert "12 comparisons (8 tests): " in words  # scale jitter by top-1 and top-5, D alone
    assert "E against A: +10.8 million parameters; the paper +11." in words


def test_a_run_of_another_scale_goes_on_after_its_parent(tmp_path: Path) -> None:
    runs = []
    for name, run, start in (("A-256", "A", None), ("D-256", "D", "A-256"), ("D-384", "D", "D-256")):
        scale = S384 if name.endswith("384") else S256
        folder = make_run(tmp_path, name, Run(run, scale), epochs=4, start={"run": start} if start else None)
        runs.append(run_facts(folder))
    assert epochs_before(runs) == {"A-256": 0, "D-256": 0, "D-384": 4}


def test_the_first_layer_is_shown_of_the_ends_of_a_chain(tmp_path: Path) -> None:
    for name, start in (("A-256", None), ("D-256", "A-256"), ("D-384", "D-256")):
        make_run(tmp_path, name, Run(name[0], S256), start={"run": start} if start else None)
    facts = [run_facts(RunFolder(tmp_path / name)) for name in ("A-256", "D-256", "D-384")]
    assert [one.name for one in first_layers(facts)] == ["filters-A-256", "filters-D-384"]


def test_figures_have_names_fit_for_files(page_runs: Path, page_data: Dataset) -> None:
    names = [one.name for one in drawings(stage.contents_of(page_runs, page_data, images=False))]
    assert names[:5] == ["claims-forest", "agreement", "depth-top-1", "depth-top-5", "training-scale-top-1"]
    assert {"methods-top-1", "test-scale-d", "all-runs", "training-D-256", "filters-A-256"} <= set(names)
    assert "training--img-src-x-onerror-alert-1-1-" in names
    assert len(names) == len(set(names))


def test_the_command_prints_the_page_and_writes_figures(page_run: Path, page_data: Dataset, tmp_path: Path) -> None:
    where = ["--data", str(page_data.folder), "--runs", str(page_run)]
    result = CliRunner().invoke(app, ["report", "--format", "html", "--figures", str(tmp_path / "f"), *where])
    assert result.exit_code == 0
    assert result.stdout.startswith("<!DOCTYPE html>")
    assert result.stdout.endswith("</html>\n")
    names = {one.name for one in drawings(stage.contents_of(page_run, page_data, images=False))}
    written = list((tmp_path / "f").iterdir())
    assert {path.name for path in written} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert f"f: {len(names)} figures as PNG and SVG" in " ".join(result.stderr.split())
    for path in written:
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        else:
            assert Image.open(path).format == "PNG"


def test_figures_want_a_folder(page_run: Path, page_data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^--figures .*file is a file; give a folder$"):
        stage.write_figures(page_run, page_data, tmp_path / "file")
