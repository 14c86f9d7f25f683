"""The page: what it says and escapes, that it needs nothing from elsewhere, and how it behaves in a real browser."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner

from vggrepro import page as stage
from vggrepro import paper, posteriors, protocol
from vggrepro.advice import Invocation, invocation
from vggrepro.cli import app
from vggrepro.dataset import Dataset, Split
from vggrepro.errors import InputError
from vggrepro.files import sha256
from vggrepro.page.drawings import TOP1, agreement_frame, deciding_frame, drawings
from vggrepro.page.html import Number, escape, minus, plain_table, prose
from vggrepro.page.material import run_facts
from vggrepro.page.mistakes import Mistake, most_confident, pictures, whole_rows
from vggrepro.page.sections import class_words
from vggrepro.paper import JITTER, S256, S384, Run
from vggrepro.posteriors import Batch, Origin
from vggrepro.prepare import prepare
from vggrepro.runs import RunFolder
from vggrepro.sources import FolderSource
from vggrepro.verdicts import HOLDS, Outcome

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EVIL = "<script>alert(1)</script>"
RUNS = {Run("A", S256): 0.5, Run("D", S256): 0.4, Run("D", S384): 0.45, Run("D", JITTER): 0.2}  # share of mistakes
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def make_run(runs: Path, name: str, run: Run, epochs: int = 3, finished: bool = True, **config: Any) -> RunFolder:
    """A run's folder with curves, and a drop of the learning rate before the last epoch."""
    folder = RunFolder(runs / name)
    folder.path.mkdir(parents=True)
    if finished:
        weights = np.random.default_rng(len(name)).normal(size=(8, 3, 3, 3)).astype(np.float32)
        save_file({"conv1_1.weight": weights}, folder.weights_path)
    values: dict[str, Any] = {"net": run.net, "scale": str(run.scale), "fc_only": run.fc_only, "seed": 3}
    values |= {"crop": 64, "width": 0.125, "classes": 6, "mean_rgb": [0, 0, 0], "input_scale": 1.0, "epochs": epochs}
    values |= {"recipe": {"preset": "demo", "batch": 10, "drop_by": [0.7]}, "device": "x86_64, 2 threads"}
    values |= {"dataset": {"train_images": 30}, "versions": {"vggrepro": "0.1", "torch": "2.9"}}
    values["start"] = {"run": run.parent.name} if run.parent else {"initialisation": "he"}
    folder.config_path.write_text(json.dumps(values | config))
    lines: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        rate = 0.01 if epoch < epochs else 0.001
        lines.append({"epoch": epoch, "step": 3 * epoch - 2, "learning_rate": rate, "loss": 2.5 / epoch})
        record = {"epoch": epoch, "learning_rate": rate, "loss": 2 / epoch, "top1_error": 60 / epoch}
        lines.append(record | {"top5_error": 20 / epoch, "images_per_second": 1000.0, "seconds": 30.0})
    folder.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def plant(folder: RunFolder, run: Run, dataset: Dataset, q: int, method: str, wrong: float) -> None:
    """Posteriors of the validation images that are wrong in about this share of them."""
    split = Split(dataset, "val")
    rng = np.random.default_rng(q + len(folder.name))
    values = rng.uniform(0.01, 0.1, (len(split), 6))
    first = np.where(rng.uniform(size=len(split)) < wrong, (split.labels + 1) % 6, split.labels)
    values[np.arange(len(split)), first] += rng.uniform(0.3, 0.9, len(split))
    values /= values.sum(axis=1, keepdims=True)
    values[:, 0] += 1 - values.astype(np.float32).sum(axis=1)
    origin = Origin(
        run=folder.name, weights=sha256(folder.weights_path), dataset=dataset.name, fingerprint=dataset.fingerprint,
        preset="demo", split="val", method=method, q=q, q_pixels=paper.real_pixels(q, 64), flip=True,
        grid=5 if method == "multicrop" else 0, pooling="floor", resample="bilinear", precision="fp32", version="0",
        commit="abc123",
    )  # fmt: skip
    batch = Batch(split.keys(0, len(split)), split.labels, values)
    posteriors.write(protocol.file_path(folder.path, "val", method, q), [batch], 6, origin)


@pytest.fixture(scope="module")
def data(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """`photos` prepared, its classes of evil words."""
    made = prepare(FolderSource(photos), tmp_path_factory.mktemp("page") / "data", "demo", workers=0)
    words = tuple(f"{EVIL} {name}, the animal" for name in made.classes)
    return dataclasses.replace(made, words=words)


@pytest.fixture(scope="module")
def runs(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four finished runs with posteriors, and an unfinished one of an evil name."""
    folder = tmp_path_factory.mktemp("page") / "runs"
    for run, wrong in RUNS.items():
        made = make_run(folder, run.name, run)
        for q in run.scale.test_scales:
            plant(made, run, data, q, "dense", wrong)
            if run.scale == JITTER:
                plant(made, run, data, q, "multicrop", wrong)
    make_run(folder, '"><img src=x onerror=alert(1)>$1$', Run("E", S256), epochs=2, finished=False)
    return folder


@pytest.fixture(scope="module")
def small(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run with one posterior file, wrong everywhere."""
    folder = tmp_path_factory.mktemp("page") / "small"
    plant(make_run(folder, "D-256", Run("D", S256)), Run("D", S256), data, 256, "dense", 1.0)
    return folder


@pytest.fixture(scope="module")
def text(runs: Path, data: Dataset) -> str:
    with invocation(Invocation([("--data", "here")])):
        return stage.page(runs, data)


class Reader(HTMLParser):
    """Collects tags with their attributes, and the words of each element with an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_the_page_needs_nothing_from_elsewhere(text: str) -> None:
    reader = Reader(text)
    for tag, attributes in reader.tags:
        for name in ("src", "href", "xlink:href", "data", "poster", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    assert not reader.all("link")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert len(text) < 3_000_000


def test_the_same_run_gives_the_same_page(small: Path, data: Dataset) -> None:
    assert stage.page(small, data) == stage.page(small, data)


def test_ids_are_unique_and_links_lead_somewhere(text: str) -> None:
    reader = Reader(text)
    ids = [attributes["id"] for _, attributes in reader.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in reader.all("a")]
    links += [attributes["xlink:href"] for attributes in reader.all("use")]
    assert {link.removeprefix("#") for link in links if link} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_names_from_outside_are_text(text: str) -> None:
    reader = Reader(text)
    assert len(reader.all("script")) == 1
    assert not any("onerror" in attributes for _, attributes in reader.tags)
    assert EVIL in reader.text
    assert '"><img src=x onerror=alert(1)>$1$' in reader.text


def test_pictures_have_alternative_texts(text: str) -> None:
    reader = Reader(text)
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


def test_headings_go_down_one_step_at_a_time(text: str) -> None:
    levels = [int(tag[1]) for tag, _ in Reader(text).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_the_summary_counts(text: str) -> None:
    words = " ".join(Reader(text).text.split())
    assert "6 classes, 30 training and 18 validation images. 5 runs: 4 finished, 1 interrupted." in words
    assert re.search(r"\d+ of the paper's 12 claims holds?, ", words)
    assert "A reduced reproduction." in words


def test_sections_stand_in_order(text: str) -> None:
    names = [attributes["id"] for attributes in Reader(text).all("section")]
    assert names == ["claims", "tables", "errors", "beyond", "training", "filters", "mistakes", "provenance"]


def test_tables_hold_our_numbers_beside_the_papers(text: str, runs: Path, data: Dataset) -> None:
    table = text[text.index('id="table3"') : text.index('id="table4"')]
    row = next(line for line in re.findall(r"<tr>.*?</tr>", table) if '<th scope="row">D' in line and ">27.0<" in line)
    cells = [re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
    ours = stage.gather(runs, data, images=False).table(3).frame.query("net == 'D' and S == '256'").iloc[0]
    assert cells[:4] == ["D", "256", "256", f"{ours['top1_val_error']:.1f}"]
    assert f'data-sort="{ours["top1_val_error"]:.6g}"' in row
    assert 'id="t3-a"' in table
    assert "<code>vggrepro train A-LRN --scale 256 --data here</code>" in table


def test_provenance_says_who_when_and_with_what(text: str, data: Dataset) -> None:
    part = " ".join(Reader(text[text.index('<section id="provenance"') :]).text.split())
    assert "Time spent in training epochs: 7 min 00 s in all." in part  # 14 epochs of 30 s
    assert "All runs: seed 3; device x86_64, 2 threads; versions vggrepro 0.1, torch 2.9." in part
    assert "Posteriors were evaluated by commit abc123." in part
    assert f"fingerprint {data.fingerprint[:12]}" in part
    assert "drop_by0.7" in part


def test_without_runs_there_are_the_papers_numbers_alone(tmp_path: Path, data: Dataset) -> None:
    reader = Reader(stage.page(tmp_path, data))
    assert [attributes["id"] for attributes in reader.all("section")] == ["claims", "tables", "provenance"]
    assert "No runs yet." in reader.text
    assert not reader.all("svg")


def test_a_single_unfinished_run_has_its_curves(tmp_path: Path, data: Dataset) -> None:
    make_run(tmp_path, "A-256", Run("A", S256), epochs=1, finished=False)
    reader = Reader(stage.page(tmp_path, data))
    assert [attributes["id"] for attributes in reader.all("section")] == ["claims", "tables", "training", "provenance"]
    assert "1 run: 1 interrupted." in reader.text
    assert len(reader.all("svg")) == 1


def test_curves_between_epochs_count_in_epochs(tmp_path: Path) -> None:
    facts = run_facts(make_run(tmp_path, "A-256", Run("A", S256), epochs=2))  # 30 images by 10: 3 steps an epoch
    assert facts.between.to_dict("list") == {"epoch": pytest.approx([1 / 3, 4 / 3]), "loss": [2.5, 1.25]}
    assert facts.epochs["epoch"].tolist() == [1.0, 2.0]
    assert (facts.seconds, facts.judges) == (60.0, "validation")
    held_out = make_run(tmp_path, "other", Run("A", S256), recipe={"held_out": 0.05})
    assert run_facts(held_out).judges == "held-out"
    assert run_facts(held_out).between.empty  # its batch is not known


def test_unreadable_weights_cost_their_filters_only(
    tmp_path: Path, data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path, "A-256", Run("A", S256))
    folder.weights_path.write_text("no weights")
    assert '<section id="filters"' not in stage.page(tmp_path, data)
    assert f"without the first layer of A-256: {folder.weights_path}: " in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("name", "content"), [("metrics.jsonl", "{}\nnonsense\n"), ("config.json", "[]")])
def test_a_damaged_run_costs_its_own_training_only(
    tmp_path: Path, data: Dataset, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    make_run(tmp_path, "A-256", Run("A", S256))
    (make_run(tmp_path, "B-256", Run("B", S256)).path / name).write_text(content)
    text = stage.page(tmp_path, data)
    assert "Training of A-256" in text
    assert "Training of B-256" not in text
    assert "without the training of B-256" in " ".join(capsys.readouterr().err.split())


def test_two_reproductions_stand_side_by_side(small: Path, runs: Path, data: Dataset) -> None:
    text = stage.page(small, data, against=runs)
    reader = Reader(text[text.index('<section id="against"') : text.index('<section id="errors"')])
    assert str(runs) in reader.text
    names = [attributes["id"] for attributes in reader.all("article")]
    assert names == ["against-table3", "against-table4", "against-table5"]
    cells = re.findall(r">([^<>]+)<", text[text.index('id="against-table3"') :])
    first = cells.index("D")
    theirs = stage.gather(runs, data, images=False).table(3).frame.query("net == 'D' and S == '256'").iloc[0]
    difference = 100 - theirs["top1_val_error"]
    assert cells[first : first + 6] == [
        "D",
        "256",
        "256",
        "100.0",
        f"{theirs['top1_val_error']:.1f}",
        f"+{difference:.1f}",
    ]


def test_the_worst_mistakes_come_first() -> None:
    values = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.8, 0.2], [0.8, 0.2], [1.0, 0.0]])
    labels = np.array([0, 0, 1, 1, 1, -1], np.int32)  # the first is right, the last is unlabelled
    keys = list("abcdef")
    whole = most_confident([Batch(keys, labels, values)], 3)
    assert [(m.key, m.row, m.label, m.predicted, m.posterior, m.true_posterior) for m in whole] == [
        ("b", 1, 0, 1, 0.8, 0.2), ("d", 3, 1, 0, 0.8, 0.2), ("e", 4, 1, 0, 0.8, 0.2),
    ]  # fmt: skip
    parts = [Batch(keys[i : i + 2], labels[i : i + 2], values[i : i + 2]) for i in (0, 2, 4)]
    assert most_confident(parts, 3) == whole
    assert len(most_confident(parts, 10)) == 4
    assert most_confident([], 3) == []


def test_mistakes_are_shown_with_their_images(text: str, data: Dataset, tmp_path: Path) -> None:
    reader = Reader(text)
    images = reader.all("img")
    assert images
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in images)
    split = Split(data, "val")
    values = np.eye(6)[(split.labels + 1) % 6]
    found = most_confident([Batch(split.keys(0, 18), split.labels, values)], 2)
    assert all(pictures(data, found))
    assert pictures(data, [dataclasses.replace(found[0], key="another")]) == [""]
    assert pictures(dataclasses.replace(data, folder=tmp_path), found) == ["", ""]


def test_damaged_images_cost_the_pictures_only(
    data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "val-00000.arrow").write_bytes(b"no shard")
    mistakes = most_confident([Batch(["a"], np.array([0]), np.array([[0.0, 1.0]]))])
    assert pictures(dataclasses.replace(data, folder=tmp_path), mistakes) == [""]
    assert "without images of mistakes" in capsys.readouterr().err


def test_classes_are_called_by_their_first_word() -> None:
    data = Dataset(Path(), "x", ("n01443537", "mine"), {}, (0,), ((0,),), (0,), "demo", "", "", ("n01443537", "mine"))
    assert class_words(data) == ["goldfish", "mine"]
    assert class_words(dataclasses.replace(data, words=("fish, pet", ""))) == ["fish", "mine"]


def test_mistakes_fill_their_rows() -> None:
    one = Mistake(0.5, 0, "a", 0, 1, 0.1)
    assert [len(whole_rows([one] * count)) for count in (0, 1, 5, 6, 7, 12, 19, 24)] == [0, 1, 5, 6, 6, 12, 18, 24]


def test_negative_numbers_have_a_true_minus(text: str) -> None:
    assert minus("-1.5 [-2.0; -1.0]") == "−1.5 [−2.0; −1.0]"
    assert minus("A-9, 256-512, +1") == "A-9, 256-512, +1"
    words = Reader(text[text.index('<section id="claims"') : text.index('<section id="training"')]).text
    assert "−" in words
    assert not re.search(r"(?<!\w)-\d", re.sub(r"class=.*?>", "", words))


def test_rows_that_two_tables_share_count_once(runs: Path, data: Dataset) -> None:
    material = stage.gather(runs, data, images=False)
    frame = agreement_frame(material)
    # Table 3: A, D at three S; Table 4: D at three S; Table 5: D's two other methods (dense is Table 4's).
    assert len(frame) == 4 + 3 + 2
    filled = sum(int(material.table(number).frame[TOP1].notna().sum()) for number in (3, 4, 5, 6))
    assert filled == len(frame) + 1


def test_claims_stand_with_what_they_expect_and_how_much_was_tested(text: str, runs: Path, data: Dataset) -> None:
    findings = stage.gather(runs, data, images=False).document.findings
    frame = deciding_frame(findings)
    assert frame["label"].str.match(r"\d+\. .* against .*, top-[15]$").all()
    assert set(zip(frame["claimed_low"], frame["claimed_high"], strict=True)) == {(-math.inf, 0.0)}
    tested = next(finding for finding in findings if finding.claim.number == 1)
    pair = tested.claim.pairs[0]
    test = next(test for finding in findings for outcome in finding.outcomes for test in outcome.tests)
    planted = dataclasses.replace(
        tested, outcomes=(Outcome(pair, (dataclasses.replace(test, margin=0.6),), HOLDS),), verdict=HOLDS
    )
    row = deciding_frame([planted]).iloc[0]
    assert row["label"] == f"1. A-LRN 256 against A 256, {test.measure} (errs no less)"
    assert (row["claimed_low"], row["claimed_high"]) == (-0.6, math.inf)
    words = Reader(text).text
    assert "First − second: left of zero the first errs less." in words
    assert "6 comparisons (4 tests): " in words  # scale jitter by top-1 and top-5, D alone
    assert "E against A: +10.8 million parameters; the paper +11." in words


def test_figures_have_names_fit_for_files(runs: Path, data: Dataset) -> None:
    names = [one.name for one in drawings(stage.gather(runs, data, images=False))]
    assert names[:5] == ["claims-forest", "agreement", "depth-top-1", "depth-top-5", "training-scale-top-1"]
    assert {"methods-top-1", "test-scale-d", "all-runs", "training-D-256", "filters-A-256"} <= set(names)
    assert "training--img-src-x-onerror-alert-1-1-" in names
    assert len(names) == len(set(names))


def test_the_command_prints_the_page_and_writes_figures(small: Path, data: Dataset, tmp_path: Path) -> None:
    where = ["--data", str(data.folder), "--runs", str(small)]
    result = CliRunner().invoke(app, ["report", "--format", "html", "--figures", str(tmp_path / "f"), *where])
    assert result.exit_code == 0
    assert result.stdout.startswith("<!DOCTYPE html>")
    assert result.stdout.endswith("</html>\n")
    names = {one.name for one in drawings(stage.gather(small, data, images=False))}
    written = list((tmp_path / "f").iterdir())
    assert {path.name for path in written} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert f"f: {len(names)} figures as PNG and SVG" in " ".join(result.stderr.split())
    for path in written:
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        else:
            assert Image.open(path).format == "PNG"


def test_figures_want_a_folder(small: Path, data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^--figures .*file is a file; give a folder$"):
        stage.write_figures(small, data, tmp_path / "file")


def test_text_is_escaped() -> None:
    assert escape('<a b="c">&\'') == "&lt;a b=&quot;c&quot;&gt;&amp;&#x27;"
    assert escape("caf\udce9") == "caf\\udce9"
    assert prose("run `a < b` & more") == "run <code>a &lt; b</code> &amp; more"


def test_a_plain_table_names_its_rows_and_sorts_by_numbers() -> None:
    made = plain_table(("run", "time"), [("<a>", Number(61.0, "1 min 01 s"))], "Runs", ("time",))
    assert '<th scope="row">&lt;a&gt;</th><td class="n" data-sort="61">1 min 01 s</td>' in made
    assert '<div class="scroll" role="region" aria-label="Runs" tabindex="0">' in made


# In a real browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium or Chrome as installed on this machine."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium or Chrome here")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        # Chromium's sandbox wants rights that containers lack; the page is our own.
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def show(browser: Browser, text: str, tmp_path: Path) -> Iterator[Any]:
    """Opens the page with these settings; any complaint of the browser or request beyond the file is an error."""
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    complaints: list[str] = []
    contexts = []

    def opened(**settings: Any) -> Page:
        contexts.append(browser.new_context(**settings))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: complaints.append(dialog.message))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri())
        return tab

    requests: list[str] = []
    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} == {path.as_uri()}


def column(tab: Page, name: str, place: int) -> list[str]:
    script = (
        "([name, place]) => [...document.querySelectorAll(`${name} tbody tr`)].map(row => row.cells[place].innerText)"
    )
    return list(tab.evaluate(script, [name, place]))


def test_a_click_on_a_heading_sorts(show: Any) -> None:
    tab = show()
    before = column(tab, "#table3", 5)  # the paper's top-1 errors, after net, S, Q, ours and its interval
    assert before[0] == "29.6"
    head = tab.locator("#table3 thead th", has_text="paper").first
    head.get_by_role("button").click()
    assert column(tab, "#table3", 5) == sorted(before, key=float)
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").press("Enter")
    assert column(tab, "#table3", 5) == sorted(before, key=float, reverse=True)
    ours = tab.locator("#table3 thead th", has_text="ours").first
    ours.get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    numbers = column(tab, "#table3", 3)
    there = [float(number) for number in numbers if number != "–"]
    assert there == sorted(there)
    assert numbers == [f"{number:.1f}" for number in there] + ["–"] * (len(before) - len(there))  # the empty ones last
    ours.get_by_role("button").click()
    assert column(tab, "#table3", 3)[-1] == "–"
    ours.get_by_role("button").click()
    assert column(tab, "#table3", 5) == before  # a third click: the paper's order


def test_claims_sort_by_their_differences(show: Any) -> None:
    tab = show()
    tab.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    claim = "#claims ol > li:nth-child(6)"  # scale jitter: C and E did not run
    tab.locator(f"{claim} thead th", has_text="Δ ours").get_by_role("button").click()
    cells = [text.split(" ")[0] for text in column(tab, claim, 3)]
    numbers = [float(text.replace("−", "-")) for text in cells if text != "–"]
    assert len(numbers) > 2
    assert numbers == sorted(numbers)
    assert cells[len(numbers) :] == ["–"] * (len(cells) - len(numbers))


def test_without_javascript_everything_is_there(show: Any) -> None:
    tab = show(java_script_enabled=False)
    assert tab.locator("button").count() == 0
    assert tab.locator("#table3 tbody tr").count() == 12


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_but_tables_scrolls_sideways(show: Any, width: int) -> None:
    tab = show(viewport={"width": width, "height": 844})
    tab.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    if width == 390:
        box = tab.locator("#table3 .scroll")
        assert box.evaluate("one => one.scrollWidth > one.clientWidth && one.clientWidth < innerWidth")
        letters = "all => Math.min(...all.map(one => one.getBoundingClientRect().height))"
        assert tab.locator("#depth-top-1 svg text").evaluate_all(letters) >= 9


def test_claims_stand_beside_their_figure_where_there_is_room(show: Any) -> None:
    boxes = "all => all.map(one => one.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])"
    for width in (390, 1280):
        tab = show(viewport={"width": width, "height": 844})
        tab.locator("#claims li:first-child details").evaluate("one => one.open = true")
        reading, forest, *cards = tab.locator(
            "#claims .claims > div:first-child, #claims figure, #claims ol > li"
        ).evaluate_all(boxes)
        assert (forest[0] >= reading[2]) == (width == 1280)
        for left, top, right, bottom in [reading, *cards]:
            apart = right <= forest[0] or left >= forest[2] or bottom <= forest[1] or top >= forest[3]
            assert apart, (width, left, top)


CONTRAST = """() => {
  const light = text => {
    const parts = text.match(/[\\d.]+/g).map(Number).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ground = one => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!/rgba\\(.*, 0\\)/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const bad = [], kinds = "h1, h2, h3, p, li, td, th, a, summary, figcaption, code, span, svg text";
  for (const one of document.querySelectorAll(kinds)) {
    const style = getComputedStyle(one), ink = one.closest("svg") ? style.fill : style.color;
    const [low, high] = [light(ink), light(ground(one))].sort((a, b) => a - b);
    if ((high + 0.05) / (low + 0.05) < 4.5) bad.push(`${one.outerHTML.slice(0, 80)}: ${ink} on ${ground(one)}`);
  }
  return bad;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_are_legible(show: Any, scheme: str) -> None:
    tab = show(color_scheme=scheme)
    tab.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(246, 247, 249)", "dark": "rgb(15, 17, 20)"}[scheme]
    assert tab.evaluate(CONTRAST) == []


def test_it_prints_in_light_colours_with_everything_unfolded(show: Any) -> None:
    tab = show(color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(28, 31, 36)"
    assert not tab.locator("nav").is_visible()
    assert tab.locator(".claims table").first.is_visible()
    printed = tab.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 3
