"""The twelve claims: data that agree with the paper, and verdicts from planted posteriors with known differences."""

from __future__ import annotations

import io
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import planted
import pytest
from planted import dataset_of
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from vggrepro import paper
from vggrepro.cli import app, main
from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.paper import JITTER, S256, S384, Run
from vggrepro.report import terminal
from vggrepro.report.documents import document_of
from vggrepro.report.findings import claims_markdown, document, tally
from vggrepro.results.claims import Finding, csv_text, evaluate_claims, frame
from vggrepro.results.paper_claims import MARGINS, Relation, claims
from vggrepro.results.scores import Scores, over_seeds
from vggrepro.results.verdicts import Outcome
from vggrepro.runs.folder import RunFolder
from vggrepro.system.advice import Invocation, invocation

IMAGES, CLASSES = 2000, 7
LABELS = np.arange(IMAGES, dtype=np.int32) % CLASSES
DATA = dataset_of(CLASSES, IMAGES)


def make_run(runs: Path, run: Run) -> RunFolder:
    return planted.make_run(runs, run, classes=CLASSES)


def plant(
    runs: Path,
    run: Run,
    q: int,
    wrong: Sequence[int],
    method: str = "dense",
    weight: float = 1.0,
    classes: int = CLASSES,
    **origin: str,
) -> Path:
    """Posteriors that are wrong in these images alone (second best there); `weight`: how much they say in a mean."""
    if not RunFolder(runs / run.name).finished:
        make_run(runs, run)
    labels = LABELS % classes
    values = np.full((IMAGES, classes), (1 - weight) / classes)
    values[np.arange(IMAGES), labels] += 0.4 * weight
    neighbours = (labels + 1) % classes
    values[np.arange(IMAGES), neighbours] += 0.3 * weight
    hit = np.array(wrong, dtype=int)
    values[hit, neighbours[hit]] += 0.3 * weight
    rest = np.setdiff1d(np.arange(IMAGES), hit)
    values[rest, labels[rest]] += 0.3 * weight
    return planted.plant(runs, run, q, values, method, labels=labels, **origin)


def finding(findings: Sequence[Finding], number: int) -> Finding:
    return next(made for made in findings if made.claim.number == number)


def test_the_claims_are_the_papers_twelve() -> None:
    assert [claim.number for claim in claims()] == list(range(1, 13))
    assert [len(claim.pairs) for claim in claims()] == [1, 10, 1, 3, 1, 12, 10, 2, 4, 13, 3, 0]
    assert tuple(MARGINS.values()) == pytest.approx((0.6 / 28.7, 0.5 / 9.9), abs=1e-3)


def test_the_papers_own_numbers_bear_its_claims_out() -> None:
    """Each printed difference lies as the claim says: no side is swapped, no row mistaken."""
    for pair in (pair for claim in claims() for pair in claim.pairs):
        errors = [(pair.first.top1, pair.second.top1), (pair.first.top5, pair.second.top5)]
        known = [round(a - b, 1) for a, b in errors if a is not None and b is not None]
        shares = [MARGINS["top-1"] * (pair.second.top1 or 0), MARGINS["top-5"] * (pair.second.top5 or 0)]
        if pair.kind in (Relation.LOWER, Relation.SLIGHTLY_LOWER):
            assert all(gap <= 0 for gap in known)
            assert not known or min(known) < 0
        elif pair.kind is Relation.NOT_LOWER:
            assert all(gap > -margin for gap, margin in zip(known, shares, strict=True))
        else:
            assert all(abs(gap) < margin for gap, margin in zip(known, shares, strict=True))


def test_every_row_of_table_4_is_compared_with_its_row_of_table_3() -> None:
    (scales,) = (claim for claim in claims() if claim.number == 7)
    assert [pair.first.views for pair in scales.pairs] == [row.views for row in paper.rows(4)]
    for pair in scales.pairs:
        (single,) = pair.second.views
        assert {view.run for view in pair.first.views} == {single.run}
        assert single.q in {view.q for view in pair.first.views}
        assert pair.second.top1 in [row.top1 for row in paper.rows(3) if row.views == (single,)]


def test_an_ensemble_is_compared_with_each_of_its_nets() -> None:
    (fused,) = (claim for claim in claims() if claim.number == 10)
    submission = paper.rows(6)[0]
    members = [pair.second for pair in fused.pairs if pair.first.views == submission.views]
    assert sorted(view.run.name for side in members for view in side.views) == sorted(
        view.run.name for view in submission.views
    )
    assert [side.top1 for side in members] == [26.6, 26.5, None, 27.7, 27.8, 26.9, 26.7]


def test_planted_differences_have_their_verdicts(tmp_path: Path) -> None:
    """B, D and E err much less than A, C more than B; A-LRN as A, but without top-5 errors there is no margin."""
    errors = {"A": 300, "A-LRN": 300, "B": 200, "C": 260, "D": 150, "E": 150}
    for net, count in errors.items():
        plant(tmp_path, Run(net, S256), 256, range(count))
    findings = evaluate_claims(Scores(tmp_path, DATA))
    # C errs in 60 images more than B and in none less
    assert {made.claim.number: made.verdict for made in findings} == {
        1: "not decided",
        2: "not decided",
        3: "contradicted",
        4: "not decided",
        **dict.fromkeys(range(5, 12), "not run"),
        12: "holds",
    }
    depth = finding(findings, 2)
    run = {outcome.pair.label: outcome.verdict for outcome in depth.outcomes if outcome.tests}
    falls = ["B 256 against A 256", "D 256 against B 256", "E 256 against A 256"]
    assert run == {**dict.fromkeys(falls, "holds"), "E 256 against D 256": "not decided"}
    (lower, _) = depth.outcomes[0].tests
    made = lower.comparison
    assert (made.a, made.b) == (10, 15)
    assert (made.only_a, made.only_b, made.images) == (0, 100, IMAGES)
    wrong = finding(findings, 3)
    assert wrong.deciding is not None
    assert wrong.deciding.pair.label == "C 256 against B 256"
    # Two measures, four claims tested; the only one that errors speak against
    assert wrong.deciding.p == pytest.approx(4 * 2 * 2 * 0.5**60)


def test_verdicts_of_comparisons_are_counted_in_words() -> None:
    (claim,) = (claim for claim in claims() if claim.number == 2)

    def of(verdict: str, *verdicts: str) -> Finding:
        outcomes = zip(claim.pairs, verdicts, strict=False)
        return Finding(claim, tuple(Outcome(pair, (), word) for pair, word in outcomes), verdict)

    assert tally(of("not run", "not run", "not run")) == "not run"
    assert tally(of("contradicted", "holds", "contradicted", "not decided", "contradicted")) == (
        "contradicted (of 4 comparisons: 2 contradicted, 1 holds, 1 not decided)"
    )
    assert tally(of("not decided", "holds", "holds", "not decided")) == (
        "not decided (of 3 comparisons: 2 hold, 1 not decided)"
    )
    assert tally(of("not decided", "holds", "not run")) == "holds so far (of 2 comparisons: 1 holds, 1 not run)"
    assert tally(of("not decided", "holds", "not run", "not decided")).startswith("not decided (")


def test_a_small_difference_is_not_decided(tmp_path: Path) -> None:
    plant(tmp_path, Run("B", S256), 256, range(200))
    plant(tmp_path, Run("C", S256), 256, [*range(8, 200), 300, 301])  # 8 images better, 2 worse: p = 0.11
    found = finding(evaluate_claims(Scores(tmp_path, DATA)), 3)
    assert found.verdict == "not decided"
    assert found.outcomes[0].tests[0].p == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert found.outcomes[0].tests[0].comparison.difference == pytest.approx(-0.3)


def test_several_q_are_averaged_before_they_are_compared(tmp_path: Path) -> None:
    """At Q = 256 alone 90 images are wrong; the surer posteriors of the other Q outvote it."""
    plant(tmp_path, Run("B", S256), 256, range(90), weight=0.1)
    for q in (224, 288):
        plant(tmp_path, Run("B", S256), q, range(10))
    found = finding(evaluate_claims(Scores(tmp_path, DATA)), 7)
    first, *others = found.outcomes
    assert (first.tests[0].comparison.only_a, first.tests[0].comparison.only_b) == (0, 80)
    assert first.verdict == "holds"
    assert {outcome.verdict for outcome in others} == {"not run"}
    assert (found.verdict, found.standing) == ("not decided", "holds so far, one seed")


def test_the_shallow_net_by_its_centre_crop(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256))
    plant(tmp_path, Run("B", S256), 256, range(100), "center")
    scores = Scores(tmp_path, DATA)
    missing = finding(evaluate_claims(scores), 5)
    assert missing.verdict == "not run"
    assert missing.notes[1:] == (
        "Not run: `vggrepro train B-5x5 --scale 256`, then `vggrepro evaluate B-5x5-256 --center`.",
    )
    plant(tmp_path, Run("B-5x5", S256), 256, range(300), "center")
    found = finding(evaluate_claims(Scores(tmp_path, DATA)), 5)
    assert found.verdict == "holds"
    assert found.conditions == ()  # that a centre crop has no flip is no departure from the paper
    line = frame([found]).iloc[0]
    assert math.isnan(line["first_paper"])
    assert line["difference_paper"] == -7.0


def test_fewer_than_six_classes_have_no_top_5(tmp_path: Path) -> None:
    for net, wrong in (("B", 300), ("C", 100)):
        plant(tmp_path, Run(net, S256), 256, range(wrong), classes=4)
    found = finding(evaluate_claims(Scores(tmp_path, dataset_of(4, IMAGES))), 3)
    assert [test.measure for test in found.outcomes[0].tests] == ["top-1"]
    assert found.verdict == "holds"


def test_what_is_missing_is_named_with_its_commands(tmp_path: Path) -> None:
    plant(tmp_path, Run("C", S256), 256, range(30))
    stale = plant(tmp_path, Run("C", S384), 384, range(30), weights="other")
    with invocation(Invocation([("--runs", "R")])):
        findings = evaluate_claims(Scores(tmp_path, DATA))
    assert finding(findings, 3).notes == ("Not run: `vggrepro train B --scale 256 --runs R`, then "
        "`vggrepro evaluate B-256 --dense --runs R`.",)  # fmt: skip
    assert finding(findings, 4).notes == (
        f"Not used: {stale} (other weights). Renew: `vggrepro evaluate C-384 --dense --runs R`.",
        "Not run: `vggrepro train C --scale 256:512 --runs R`, then `vggrepro train D --scale 256:512 --runs R`, then "
        "`vggrepro evaluate D-256 D-384 C-256-512 D-256-512 --dense --runs R`.",
    )


def test_conditions_are_told_once_with_their_claims(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256))
    for net in ("B", "C"):
        plant(tmp_path, Run(net, S256), 256, range(30))
    (tmp_path / "C-256" / "metrics.jsonl").write_text("{}\n" * 6)
    text = claims_markdown(evaluate_claims(Scores(tmp_path, DATA)))
    assert text.endswith(
        "## What else differs from the paper, by claim\n\n"
        "- Trained for 74 (A-256) + 6 epochs (the paper: 74 + 74). (Claim 3.)\n"
    )


def test_the_document(tmp_path: Path) -> None:
    for net, wrong in (("B", range(300)), ("C", range(100, 200))):
        plant(tmp_path, Run(net, S256), 256, wrong)
    scores = Scores(tmp_path, DATA)
    findings = evaluate_claims(scores)
    text = document(findings, scores)
    assert text.startswith("# The paper's claims on tiny\n\nData: tiny, 2,000 validation images of 7 classes ")
    assert (
        "This is a reduced reproduction. How all runs differ from the paper's:\n\n- 7 classes (the paper: 1,000).\n"
        in text
    )
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines()]
    assert ["3", "Extra non-linearity helps: C is better than B", "C 256 against B 256, top-1", "-0.6",
            "-10.0 [-11.4; -8.8]", "< 0.001", "holds, one seed"] in lines  # fmt: skip
    assert ["C 256 against B 256", "top-1", "28.1 / 28.7", "-0.6", "5.0 / 15.0", "-10.0 [-11.4; -8.8]", "0 / 200",
            "< 0.001", "< 0.001", "holds, one seed"] in lines  # fmt: skip
    assert ["B centre crop against B-5x5 centre crop", "top-1", "– / –", "-7.0", "not run"] in lines
    assert "corrected within the claim and over the claims tested, 1 here" in text
    assert "Of 1 claim tested on images with one seed: 1 holds, 10 not run; 1 holds by arithmetic." in text
    assert "one of the two sides alone is wrong (top-1) on 10.0 % of them" in text
    assert text == document(evaluate_claims(scores), scores)


def test_the_frame_has_a_line_a_measure_and_reads_back_from_csv(tmp_path: Path) -> None:
    for net, wrong in (("B", 300), ("C", 100)):
        plant(tmp_path, Run(net, S256), 256, range(wrong))
    findings = evaluate_claims(Scores(tmp_path, DATA))
    made = frame(findings)
    assert len(made) == 2 * 60 + 5  # comparisons by two measures, parameters of five nets against A's
    line = made[(made["claim"] == 3) & (made["measure"] == "top-1")].iloc[0]
    assert (line["first_ours"], line["second_ours"]) == (5, 15)
    assert line["low"] < line["difference"] < line["high"] < 0
    assert (line["first_paper"], line["second_paper"], line["difference_paper"]) == (28.1, 28.7, -0.6)
    assert (line["images"], line["only_first"], line["only_second"], line["verdict"]) == (
        IMAGES,
        0,
        200,
        "holds, one seed",
    )
    assert line["claim_verdict"] == "holds, one seed"
    parameters = made[(made["measure"] == "parameters") & (made["first"] == "E")].iloc[0]
    assert parameters["first_ours"] == pytest.approx(143.66724)
    assert parameters["difference_paper"] == 11
    back = pd.read_csv(io.StringIO(csv_text(findings)))
    assert list(back) == list(made)
    np.testing.assert_array_equal(back["difference"], made["difference"])


def test_nothing_evaluated_is_all_not_run(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256))
    findings = evaluate_claims(Scores(tmp_path, DATA))
    assert {made.verdict for made in findings if made.claim.number < 12} == {"not run"}
    text = claims_markdown(findings)
    assert "over the claims tested, 0 here" in text
    assert "80 % power" not in text


def test_too_few_images_say_so(tmp_path: Path) -> None:
    for net in ("B", "C"):
        plant(tmp_path, Run(net, S256), 256, range(30))
    text = claims_markdown(evaluate_claims(Scores(tmp_path, DATA)))
    assert "No difference is then found with a chance of 80 %, however large it is." in text


def test_the_command_prints_both_formats(dataset: Dataset, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", Run("A", S256))
    make_run(tmp_path / "runs", Run("E", JITTER))
    options = ["claims", "--data", str(dataset.folder), "--runs", str(tmp_path / "runs")]
    made = CliRunner().invoke(app, options)
    assert made.exit_code == 0
    assert made.stdout.startswith(f"# The paper's claims on {dataset.name}\n")
    assert f"`vggrepro evaluate A-256 A-LRN-256 --dense --data {dataset.folder}" in made.stdout
    table = CliRunner().invoke(app, [*options, "--format", "csv"])
    assert set(pd.read_csv(io.StringIO(table.stdout))["claim"]) == set(range(1, 13))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "vggrepro: no run in none; give --runs the folder of your runs, or train one: 'vggrepro train A --data "),
        (
            ["--format", "html"],
            "vggrepro: Invalid value for '--format': 'html' is not one of 'md', 'csv', 'json' (see --help)",
        ),
    ],
)
def test_the_command_refuses(
    words: list[str],
    said: str,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["vggrepro", "claims", "--data", str(dataset.folder), "--runs", "none", *words])
    with pytest.raises(SystemExit) as left:
        main()
    output = capsys.readouterr()
    assert (left.value.code, output.out) == (2, "")
    assert output.err.startswith(said)


def one_sided(fewer: int, more: int) -> float:
    """The chance of at most `fewer` of fewer + more images, each with chance 1/2."""
    return sum(math.comb(fewer + more, k) for k in range(fewer + 1)) / 2 ** (fewer + more)


def recomputed(ranks: pd.DataFrame, compared: Sequence[tuple[str, str]]) -> list[tuple[float, float]]:
    """Of each comparison of two columns: p that the first errs less, p that it errs more, by both measures together."""
    result = []
    for first, second in compared:
        both = []
        for best in (1, 5):
            a, b = ranks[first] >= best, ranks[second] >= best
            only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
            both.append([2 * one_sided(only_a, only_b), 2 * one_sided(only_b, only_a)])
        result.append((min(1, 2 * min(both[0][0], both[1][0])), min(1, 2 * min(both[0][1], both[1][1]))))
    return result


def test_three_claims_are_recomputed_from_the_ranks(tmp_path: Path) -> None:
    """Claims 3, 4 and 6 from ranks.parquet alone: the same p-values and verdicts as in claims.csv."""
    rng = np.random.default_rng(4)
    shares = {Run("B", S256): 0.3, Run("C", S256): 0.2, Run("C", S384): 0.2, Run("C", JITTER): 0.19}
    shares |= {Run("D", S384): 0.14, Run("D", JITTER): 0.24}
    for run, share in shares.items():
        plant(tmp_path, run, run.scale.middle, np.flatnonzero(rng.random(IMAGES) < share))
    written = {path.name: path for path in document_of(Scores(tmp_path, DATA)).write(tmp_path / "made")}
    lines = pd.read_csv(written["claims.csv"])
    ranks = pd.read_parquet(written["ranks.parquet"])
    b, c, c384, wide, d384, d = (f"{run.name}/val-dense-q{run.scale.middle}" for run in shares)
    ps = {3: recomputed(ranks, [(c, b)]), 4: recomputed(ranks, [(d384, c384), (d, wide)])}
    ps[6] = recomputed(ranks, [(wide, c), (wide, c384), (d, d384)])
    tested = lines[lines["images"].notna() & (lines["measure"] == "top-1")]
    assert tested.groupby("claim").size().to_dict() == {number: len(made) for number, made in ps.items()}
    right = {number: max(p for p, _ in made) for number, made in ps.items()}
    wrong = {number: len(made) * min(p for _, p in made) for number, made in ps.items()}
    smallest = sorted(wrong.values())
    assert [smallest[0] < 0.05 / 3, smallest[1] < 0.05 / 2, smallest[2] < 0.05] == [True, True, False]
    assert right[3] < 0.05 / 3
    verdicts = lines.groupby("claim")["claim_verdict"].first()
    assert verdicts[3] == "holds, one seed"
    assert tested.loc[tested["claim"] == 3, "p_holm"].item() == pytest.approx(3 * right[3])
    for place, number in enumerate(sorted((4, 6), key=wrong.__getitem__)):
        assert verdicts[number] == "contradicted, one seed"
        of = tested[(tested["claim"] == number) & (tested["verdict"] == "contradicted, one seed")]
        assert of["p_holm"].min() == pytest.approx((3 - place) * wrong[number])


def planted_seeds(tmp_path: Path, *folders: str) -> None:
    for place, folder in enumerate(folders):
        for net, wrong in (("B", 300), ("C", 100 + place)):
            plant(tmp_path / folder, Run(net, S256), 256, range(wrong))


def test_claims_over_three_seeds_in_subfolders_or_by_commas(tmp_path: Path) -> None:
    planted_seeds(tmp_path, "runs", "runs/seed1", "runs/seed2")
    inside = evaluate_claims(over_seeds(tmp_path / "runs", DATA))
    named = Path(",".join(str(tmp_path / name) for name in ("runs", "runs/seed1", "runs/seed2")))
    assert evaluate_claims(over_seeds(named, DATA)) == inside
    made = finding(inside, 3)
    assert (made.seeds, made.standing) == (3, "holds")
    line = frame([made]).iloc[0]
    assert (line["seeds"], line["images"]) == (3, IMAGES)
    assert line["first_ours"] == pytest.approx(100 * (100 + 101 + 102) / 3 / IMAGES)
    assert "tested on images with 3 seeds: 1 holds" in claims_markdown(inside)


def test_with_one_seed_the_verdict_says_so(tmp_path: Path) -> None:
    for net, wrong in (("B", 100), ("C", 300)):
        plant(tmp_path, Run(net, S256), 256, range(wrong))
    text = claims_markdown(evaluate_claims(over_seeds(tmp_path, DATA)))
    assert "Of 1 claim tested on images with one seed: 1 contradicted, 10 not run; 1 holds by arithmetic." in text
    assert "## 3. Extra non-linearity helps: C is better than B: contradicted, one seed" in text


def test_a_missing_run_of_a_seed_leaves_the_others_and_is_named(tmp_path: Path) -> None:
    planted_seeds(tmp_path, "runs", "runs/seed1", "runs/seed2")
    (tmp_path / "runs" / "seed2" / "C-256" / "posteriors" / "val-dense-q256.parquet").unlink()
    made = finding(evaluate_claims(over_seeds(tmp_path / "runs", DATA)), 3)
    assert made.seeds == 2
    lacking = tmp_path / "runs" / "seed2"
    mended = f"`vggrepro evaluate C-256 --dense --runs {lacking}`"
    assert made.notes == (f"{lacking} lacks 1 of this claim's 2 posterior files: {mended}.",)


def test_claims_of_one_seed_and_of_two_are_counted_together(tmp_path: Path) -> None:
    planted_seeds(tmp_path, "runs", "runs/seed1")
    for net in ("A", "A-LRN"):  # of the first seed alone
        plant(tmp_path / "runs", Run(net, S256), 256, range(300))
    found = evaluate_claims(over_seeds(tmp_path / "runs", DATA))
    assert "Of 3 claims tested on images with 1 to 2 seeds: " in claims_markdown(found)


def test_folders_that_are_no_seeds_are_refused(tmp_path: Path) -> None:
    planted_seeds(tmp_path, "runs")
    with pytest.raises(InputError, match=r"^no run in .*none; name folders of runs"):
        over_seeds(Path(f"{tmp_path / 'runs'},{tmp_path / 'none'}"), DATA)
    planted.make_run(tmp_path / "other", Run("B", S256), dataset={"name": "photos", "fingerprint": "x"})
    with pytest.raises(InputError, match=r"other: its runs are of photos, not of the images in .*data"):
        over_seeds(Path(f"{tmp_path / 'runs'},{tmp_path / 'other'}"), DATA)


def test_a_copy_of_a_folder_is_no_other_seed(tmp_path: Path) -> None:
    planted_seeds(tmp_path, "runs")
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    with pytest.raises(InputError, match=r"copy: B-256 has the same weights as .*runs/B-256, so it is no other seed"):
        over_seeds(Path(f"{tmp_path / 'runs'},{tmp_path / 'copy'}"), DATA)


def test_two_equal_runs_in_one_folder_are_no_copy_of_a_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted_seeds(tmp_path, "runs", "runs/seed1")
    weights = [tmp_path / "runs" / name / "weights.safetensors" for name in ("B-256", "C-256")]
    shutil.copy(*weights)
    monkeypatch.chdir(tmp_path / "runs")
    made = over_seeds(Path(), DATA)
    assert [each.name for each in (made, *made.seeds)] == ["runs", "seed1"]


def test_the_report_has_means_and_deviations_over_seeds(tmp_path: Path) -> None:
    planted_seeds(tmp_path, "runs", "runs/seed1", "runs/seed2")
    made = document_of(over_seeds(tmp_path / "runs", DATA))
    frame = made.tables[2].frame
    line = frame[(frame["net"] == "C") & (frame["S"] == "256")].iloc[0]
    errors = 100 * np.array([100, 101, 102]) / IMAGES
    assert (line["n"], line["top1_val_error"]) == (3, pytest.approx(errors.mean()))
    assert line["top1_val_error_sd"] == pytest.approx(errors.std(ddof=1))
    assert line["top1_val_error_each"] == "5.0000 5.0500 5.1000"
    text = made.markdown()
    assert "15.0 ± 0.0" in text
    assert "means ± standard deviations over n seeds" in text
    (tmp_path / "runs" / "seed2" / "C-256" / "posteriors" / "val-dense-q256.parquet").unlink()
    (tmp_path / "runs" / "C-256" / "posteriors" / "val-dense-q256.parquet").unlink()
    fewer = document_of(over_seeds(tmp_path / "runs", DATA)).tables[2].frame.loc[frame["net"] == "C"].iloc[0]
    assert (fewer["n"], fewer["top1_val_error"], math.isnan(fewer["top1_val_error_sd"])) == (1, errors[1], True)
    assert "seed2: C-256/val-dense-q256" in made.evidence.column_names  # type: ignore[union-attr]


def test_folders_of_one_name_keep_their_ranks_apart(tmp_path: Path) -> None:
    folders = [tmp_path / name / "runs" for name in ("first", "second", "third")]
    planted_seeds(tmp_path, *(str(folder.relative_to(tmp_path)) for folder in folders))
    scores = over_seeds(Path(",".join(map(str, folders))), DATA)
    evaluate_claims(scores)
    evidence = scores.evidence()
    assert evidence is not None
    of_c = [name for name in evidence.column_names if name.endswith("C-256/val-dense-q256")]
    assert of_c == ["C-256/val-dense-q256", *(f"{folder}: C-256/val-dense-q256" for folder in folders[1:])]


def test_of_one_seed_no_verdict_is_a_bare_contradicted(tmp_path: Path) -> None:
    for net, wrong in (("B", 100), ("C", 300), ("D", 700)):
        plant(tmp_path, Run(net, S256), 256, range(wrong))
    findings = evaluate_claims(over_seeds(tmp_path, DATA))
    console = Console(width=120, record=True, file=io.StringIO())
    terminal.show(terminal.claims_report(findings), console)
    cells = [cell.strip() for line in claims_markdown(findings).splitlines() for cell in re.split(r"\||: ", line)]
    cells += [cell.strip() for line in console.export_text().splitlines() for cell in re.split(r"  +|: ", line)]
    verdicts = [cell for cell in cells if cell.startswith("contradicted")]
    assert len(verdicts) > 6
    assert [verdict for verdict in verdicts if not verdict.startswith("contradicted, one seed")] == []
    made = frame(findings)
    assert set(made["verdict"]) | set(made["claim_verdict"]) <= {
        "contradicted, one seed", "holds, one seed", "not decided", "not run", "holds"}  # fmt: skip
    assert made.loc[made["verdict"] == "holds", "counted"].eq("arithmetic").all()


def recomputed_over_seeds(
    ranks: pd.DataFrame, compared: Sequence[tuple[str, str]], runs: int, seeds: Sequence[str]
) -> list[tuple[float, float]]:
    """`recomputed` over seeds, as docs/claims.md says: Student's t, the seeds' variance pooled over the comparisons."""
    by_measure = []
    for best in (1, 5):
        gaps = [
            np.array([(ranks[seed + a] >= best).astype(float) - (ranks[seed + b] >= best) for seed in seeds])
            for a, b in compared
        ]
        pooled = np.mean([gap.mean(axis=1).var(ddof=1) for gap in gaps])
        ps = []
        for gap in gaps:
            if not gap.any():  # top-5: nobody errs
                ps.append((1.0, 1.0))
                continue
            of_seeds, of_images = pooled / len(seeds), gap.mean(axis=0).var(ddof=1) / gap.shape[1]
            parts = of_seeds**2 / ((len(seeds) - 1) * (runs // 2)) + of_images**2 / (gap.shape[1] - 1)
            t = gap.mean() / math.sqrt(of_seeds + of_images)
            law = stats.t((of_seeds + of_images) ** 2 / parts)
            ps.append((2 * law.cdf(t), 2 * law.sf(t)))
        by_measure.append(ps)
    return [
        (min(1, 2 * min(one[0], five[0])), min(1, 2 * min(one[1], five[1])))
        for one, five in zip(*by_measure, strict=True)
    ]


def test_three_claims_over_seeds_are_recomputed_from_the_ranks(tmp_path: Path) -> None:
    """Claims 3, 4 and 6 over three seeds from ranks.parquet alone: the same p-values and verdicts as in claims.csv."""
    rng = np.random.default_rng(7)
    shares = {Run("B", S256): 0.3, Run("C", S256): 0.2, Run("C", S384): 0.2, Run("C", JITTER): 0.19}
    shares |= {Run("D", S384): 0.14, Run("D", JITTER): 0.24}
    folders = [tmp_path / "runs", tmp_path / "runs" / "seed1", tmp_path / "runs" / "seed2"]
    for folder in folders:
        for run, share in shares.items():
            wrong = np.flatnonzero(rng.random(IMAGES) < share + rng.normal(0, 0.005))
            plant(folder, run, run.scale.middle, wrong)
    made = document_of(over_seeds(tmp_path / "runs", DATA)).write(tmp_path / "made")
    written = {path.name: path for path in made}
    lines, ranks = pd.read_csv(written["claims.csv"]), pd.read_parquet(written["ranks.parquet"])
    b, c, c384, wide, d384, d = (f"{run.name}/val-dense-q{run.scale.middle}" for run in shares)
    claimed = {3: [(c, b)], 4: [(d384, c384), (d, wide)], 6: [(wide, c), (wide, c384), (d, d384)]}
    every = [pair for pairs in claimed.values() for pair in pairs]
    found = dict(zip(every, recomputed_over_seeds(ranks, every, len(shares), ["", "seed1: ", "seed2: "]), strict=True))
    tested = lines[lines["images"].notna() & (lines["measure"] == "top-1")]
    assert tested["seeds"].unique().tolist() == [3]
    verdicts = lines.groupby("claim")["claim_verdict"].first()
    right = {number: max(found[pair][0] for pair in pairs) for number, pairs in claimed.items()}
    wrong_ = {number: len(pairs) * min(found[pair][1] for pair in pairs) for number, pairs in claimed.items()}
    assert tested.loc[tested["claim"] == 3, "p_holm"].item() == pytest.approx(3 * right[3])
    assert verdicts[3] == ("holds" if 3 * right[3] < 0.05 else "not decided")
    order = sorted((4, 6), key=wrong_.__getitem__)
    corrected = [3 * wrong_[order[0]], max(3 * wrong_[order[0]], 2 * wrong_[order[1]])]
    for number, p in zip(order, corrected, strict=True):
        assert verdicts[number] == ("contradicted" if p < 0.05 else "not decided")
        of = tested[(tested["claim"] == number) & (tested["verdict"] == "contradicted")]
        assert not len(of) or of["p_holm"].min() == pytest.approx(p)
    assert list(verdicts[[3, 4, 6]]) == ["holds", "contradicted", "contradicted"]
