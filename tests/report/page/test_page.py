"""The HTML report: what it says and escapes, and that it needs nothing from elsewhere."""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pages import EVIL, Reader, make_run

from vggrepro import recipe
from vggrepro.data.dataset import Dataset
from vggrepro.paper import S256, Run
from vggrepro.report import page as stage
from vggrepro.report.page import making
from vggrepro.report.page.html import Number, escape, minus, plain_table, prose
from vggrepro.report.page.mistakes import class_words
from vggrepro.runs.config import RunConfig, UsedRecipe


def test_the_page_needs_nothing_from_elsewhere(page_text: str) -> None:
    reader = Reader(page_text)
    for tag, attributes in reader.tags:
        for name in ("src", "href", "xlink:href", "data", "poster", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    assert not reader.all("link")
    assert "@import" not in page_text
    assert not re.search(r"url\((?!#)", page_text)
    assert len(page_text) < 3_000_000


def test_the_sample_report_needs_nothing_from_elsewhere() -> None:
    text = (Path(__file__).parents[3] / "docs" / "sample-report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 1_500_000
    reader = Reader(text)
    links = [attributes.get(name) for _, attributes in reader.tags for name in ("src", "href", "xlink:href")]
    assert all(link is None or link.startswith(("#", "data:")) for link in links)
    names = {attributes["id"] for attributes in reader.all("section")}
    assert {"claims", "tables", "errors", "classes", "calibration", "words", "provenance"} <= names


def test_the_same_run_gives_the_same_page(page_run: Path, page_data: Dataset) -> None:
    assert stage.page(page_run, page_data) == stage.page(page_run, page_data)


def test_ids_are_unique_and_links_lead_somewhere(page_text: str) -> None:
    reader = Reader(page_text)
    ids = [attributes["id"] for _, attributes in reader.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in reader.all("a")]
    links += [attributes["xlink:href"] for attributes in reader.all("use")]
    assert {link.removeprefix("#") for link in links if link} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page_text)) <= set(ids)


def test_names_from_outside_are_text(page_text: str) -> None:
    reader = Reader(page_text)
    assert len(reader.all("script")) == 1
    assert not any("onerror" in attributes for _, attributes in reader.tags)
    assert EVIL in reader.text
    assert '"><img src=x onerror=alert(1)>$1$' in reader.text


def test_pictures_have_alternative_texts(page_text: str) -> None:
    reader = Reader(page_text)
    drawn = reader.all("svg")
    assert len(drawn) > 12
    for attributes in drawn:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"] or "") > 40
    assert all(attributes["alt"] for attributes in reader.all("img"))
    label = next(svg["aria-label"] for svg in drawn if (svg["aria-label"] or "").startswith("Training of D-256,"))
    assert label == (
        "Training of D-256, 3 epochs: loss from 2.00 to 0.67, validation top-1 error from 60.0 to 20.0 %; "
        "learning rate dropped after epoch 2 to 0.001."
    )


def test_headings_go_down_one_step_at_a_time(page_text: str) -> None:
    levels = [int(tag[1]) for tag, _ in Reader(page_text).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_the_summary_counts(page_text: str) -> None:
    words = " ".join(Reader(page_text).text.split())
    assert "6 classes, 30 training and 18 validation images. Guessing has a top-1 error of 83.3 %." in words
    assert "Nets: 4 of 15 finished, 1 interrupted." in words
    assert re.search(r"Of \d+ claims? tested on images with one seed: .*; 1 holds by arithmetic\.", words)
    assert "6 classes (the paper: 1,000)." in words
    assert words.index("This is a reduced reproduction.") < words.index("Best single net")
    assert "guessing among 6 classes: 83.3\u00a0%" in page_text
    assert "the paper's same row" not in page_text.replace("&#x27;", "'")


def test_other_data_has_the_order_of_the_rows_in_place_of_differences(page_text: str) -> None:
    table = page_text[page_text.index('id="table3"') : page_text.index('id="table4"')]
    heads = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', table.replace("&#x27;", "'"))
    assert "Δ" not in heads
    assert heads.count("rank") == heads.count("paper's rank") == 2


def test_each_class_stands_with_its_error(page_text: str, page_runs: Path, page_data: Dataset) -> None:
    part = page_text[page_text.index('<section id="classes"') : page_text.index('<section id="calibration"')]
    answers = stage.contents_of(page_runs, page_data, images=False).answers
    assert answers is not None
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>.*?top-1 error.*?>([\d.]+)<", part)
    assert [float(error) for _, error in rows] == [round(e, 1) for e in answers.classes(page_data)["top1_error"]]
    assert "Expected calibration error: " in page_text


def test_words_are_explained(page_text: str) -> None:
    part = page_text[page_text.index('<section id="words"') :]
    assert {"S", "Q", "Dense", "Multi-crop", "Top-5 error"} <= set(re.findall("<dt>(.*?)</dt>", part))


def test_both_p_values_are_named(page_text: str) -> None:
    words = " ".join(Reader(page_text).text.split())
    assert re.search(r"p [=<] [\d.]+ by this test alone, p [=<] [\d.]+ after Holm's correction\.", words)


def test_sections_stand_in_order(page_text: str) -> None:
    names = [attributes["id"] for attributes in Reader(page_text).all("section")]
    assert names == [
        "claims",
        "tables",
        "errors",
        "classes",
        "calibration",
        "beyond",
        "training",
        "filters",
        "mistakes",
        "nets",
        "words",
        "provenance",
    ]


def test_tables_hold_our_numbers_beside_the_papers(page_text: str, page_runs: Path, page_data: Dataset) -> None:
    table = page_text[page_text.index('id="table3"') : page_text.index('id="table4"')]
    row = next(line for line in re.findall(r"<tr>.*?</tr>", table) if '<th scope="row">D' in line and ">27.0<" in line)
    cells = [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
    ours = (
        stage.contents_of(page_runs, page_data, images=False).table(3).frame.query("net == 'D' and S == '256'").iloc[0]
    )
    assert cells[:4] == ["D", "256", "256", f"{ours['top1_val_error']:.1f}"]
    assert f'data-sort="{ours["top1_val_error"]:.6g}"' in row
    assert 'id="t3-a"' in table
    assert "<code>vggrepro train A-LRN --scale 256 --seed 3</code>" in table


def test_provenance_says_who_when_and_with_what(page_text: str, page_data: Dataset) -> None:
    part = " ".join(Reader(page_text[page_text.index('<section id="provenance"') :]).text.split())
    assert "Time spent in training epochs: 7 min 00 s in all." in part  # 14 epochs of 30 s
    assert "All runs: seed 3; device x86_64, 2 threads; versions vggrepro 0.1, torch 2.9." in part
    assert "Posteriors were evaluated by commit abc123." in part
    assert f"fingerprint {page_data.fingerprint[:12]}" in part
    assert "drop_by0.7" in part
    assert re.search(r"made on \d{4}-\d\d-\d\d \(UTC\) by vggrepro .*numpy \d.*pillow \d.*libjpeg", part)
    assert "vggrepro prepare SOURCE --preset demo" in part
    assert "vggrepro train D --scale 256:512 --seed 3" in part


def test_without_runs_there_are_the_papers_numbers_alone(tmp_path: Path, page_data: Dataset) -> None:
    reader = Reader(stage.page(tmp_path, page_data))
    sections = [attributes["id"] for attributes in reader.all("section")]
    assert sections == ["claims", "tables", "nets", "words", "provenance"]
    assert "Nets: 0 of 14 finished." in reader.text
    assert len(reader.all("svg")) == 1  # the receptive fields


def test_a_single_unfinished_run_has_its_curves(tmp_path: Path, page_data: Dataset) -> None:
    make_run(tmp_path, "A-256", Run("A", S256), epochs=1, finished=False)
    reader = Reader(stage.page(tmp_path, page_data))
    assert [attributes["id"] for attributes in reader.all("section")] == [
        "claims",
        "tables",
        "training",
        "nets",
        "words",
        "provenance",
    ]
    assert "Nets: 0 of 14 finished, 1 interrupted." in reader.text
    assert len(reader.all("svg")) == 2


def test_unreadable_weights_cost_their_filters_only(
    tmp_path: Path, page_data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path, "A-256", Run("A", S256))
    folder.weights_path.write_text("no weights")
    assert '<section id="filters"' not in stage.page(tmp_path, page_data)
    assert f"lacks the first layer of A-256: {folder.weights_path}: " in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("name", "content"), [("metrics.jsonl", "{}\nnonsense\n"), ("config.json", "[]")])
def test_a_damaged_run_costs_its_own_training_only(
    tmp_path: Path, page_data: Dataset, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    make_run(tmp_path, "A-256", Run("A", S256))
    (make_run(tmp_path, "B-256", Run("B", S256)).path / name).write_text(content)
    text = stage.page(tmp_path, page_data)
    assert "Training of A-256" in text
    assert "Training of B-256" not in text
    assert "lacks the training of B-256" in " ".join(capsys.readouterr().err.split())


def test_two_reproductions_stand_side_by_side(page_run: Path, page_runs: Path, page_data: Dataset) -> None:
    text = stage.page(page_run, page_data, against=page_runs)
    reader = Reader(text[text.index('<section id="against"') : text.index('<section id="errors"')])
    assert str(page_runs) in reader.text
    names = [attributes["id"] for attributes in reader.all("article")]
    assert names == ["against-table3", "against-table4", "against-table5"]
    cells = re.findall(r">([^<>]+)<", text[text.index('id="against-table3"') :])
    first = cells.index("D")
    theirs = (
        stage.contents_of(page_runs, page_data, images=False).table(3).frame.query("net == 'D' and S == '256'").iloc[0]
    )
    difference = 100 - theirs["top1_val_error"]
    assert cells[first : first + 6] == [
        "D",
        "256",
        "256",
        "100.0",
        f"{theirs['top1_val_error']:.1f}",
        f"+{difference:.1f}",
    ]


def test_classes_are_called_by_their_first_word() -> None:
    data = Dataset(Path(), "x", ("n01443537", "mine"), {}, (0,), ((0,),), (0,), "demo", "", "", ("n01443537", "mine"))
    assert class_words(data) == ["goldfish", "mine"]
    assert class_words(dataclasses.replace(data, words=("fish, pet", ""))) == ["fish", "mine"]


def test_negative_numbers_have_a_true_minus(page_text: str) -> None:
    assert minus("-1.5 [-2.0; -1.0]") == "−1.5 [−2.0; −1.0]"
    assert minus("A-9, 256-512, +1") == "A-9, 256-512, +1"
    words = Reader(page_text[page_text.index('<section id="claims"') : page_text.index('<section id="training"')]).text
    assert "−" in words
    assert not re.search(r"(?<!\w)-\d", re.sub(r"class=.*?>", "", words))


def test_text_is_escaped() -> None:
    assert escape('<a b="c">&\'') == "&lt;a b=&quot;c&quot;&gt;&amp;&#x27;"
    assert escape("caf\udce9") == "caf\\udce9"
    assert prose("run `a < b` & more") == "run <code>a &lt; b</code> &amp; more"


def test_a_plain_table_names_its_rows_and_sorts_by_numbers() -> None:
    made = plain_table(("run", "time"), [("<a>", Number(61.0, "1 min 01 s"))], "Runs", ("time",))
    assert '<th scope="row">&lt;a&gt;</th><td data-of="time" class="n" data-sort="61">1 min 01 s</td>' in made
    assert '<div class="scroll" role="region" aria-label="Runs" tabindex="0">' in made


def test_the_commands_of_a_run_from_before_a_least_number_of_channels_train_the_same_net() -> None:
    values = recipe.load("eighth", {"width": 1 / 16}).as_dict()
    sizes: dict[str, Any] = {"crop": 28, "stride": 4, "width": 1 / 16}
    used = UsedRecipe.of(dict(values))
    now = RunConfig(net="A", scale=S256, **sizes, classes=6, mean_rgb=(1, 2, 3), input_scale=1, recipe=used)
    del values["min_channels"]
    older = dataclasses.replace(now, recipe=UsedRecipe.of(values))
    assert making._options(now) == ("--width", "0.0625")
    assert making._options(older) == ("--width", "0.0625", "--set", "min_channels=1")
