"""Documents: the paper's look, one decimal, dashes, signs, bold, footnotes; CSV that pandas reads back."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Call
from planted import RIGHT, WRONG, dataset_of, make_run, multi_scale, plant

from vggrepro import paper
from vggrepro.data.dataset import Dataset
from vggrepro.paper import S256, Geometry, Run
from vggrepro.report import csv, documents, layout, markdown
from vggrepro.report.header import header_of
from vggrepro.results import tables
from vggrepro.results.scores import Scores
from vggrepro.results.tables import Table

NAN = math.nan


def described(classes: int = 12, train: int = 4800, val: int = 600, subset: str = "") -> Dataset:
    return dataset_of(classes, val, train, name="demo", fingerprint="0123456789abcdef", subset=subset)


def table_of(ours: list[float], crop: int = 64, width: float = 0.125) -> Table:
    """Table 3's first rows with these top-1 errors and top-5 errors of a tenth."""
    printed = paper.published(3)[: len(ours)]
    frame = pd.DataFrame({name: [row[name] for row in printed] for name in ("net", "S", "Q")})
    for name, values in (("top1_val_error", ours), ("top5_val_error", [value / 10 for value in ours])):
        frame[name] = values
        frame[f"{name}_paper"] = [float(row[name]) for row in printed]
        frame[f"{name}_difference"] = frame[name] - frame[f"{name}_paper"]
    frame["images"] = pd.array([None if math.isnan(value) else 600 for value in ours], dtype="Int64")
    frame["note"] = ["a" if math.isnan(value) else "" for value in ours]
    notes = ("Not run: `vggrepro train A --scale 256`.",) if any(map(math.isnan, ours)) else ()
    measures = ("top1_val_error", "top5_val_error")
    return Table(
        3, "One test scale.", frame, ("net", "S", "Q"), measures, notes, ("All alike.",), Geometry(crop, width)
    )


def grid_of(table: Table) -> pd.DataFrame:
    return markdown.grid_of(layout.columns(table))


def header_markdown(made: list[Table], dataset: Dataset) -> str:
    return markdown.header_markdown(header_of(made, dataset))


def test_a_table_looks_like_this() -> None:
    assert (
        markdown.table_markdown(table_of([61.25, NAN, 28.66]))
        == """\
## Table 3

One test scale.

| net   | S   | Q   | top-1 ours | top-1 paper | Δ top-1 | top-5 ours | top-5 paper | Δ top-5 | note |
| :---- | :-- | :-- | ---------: | ----------: | ------: | ---------: | ----------: | ------: | :--- |
| A     | 256 | 256 |       61.2 |        29.6 |   +31.6 |        6.1 |        10.4 |    -4.3 |      |
| A-LRN | 256 | 256 |          – |        29.7 |       – |          – |        10.5 |       – | a    |
| B     | 256 | 256 |   **28.7** |    **28.7** |     0.0 |    **2.9** |     **9.9** |    -7.0 |      |

- All alike.
- (a) Not run: `vggrepro train A --scale 256`."""
    )


def test_a_lone_error_is_no_best() -> None:
    cells = grid_of(table_of([24.82, 24.78, 25.0]))
    assert cells["top-1 ours"].tolist() == ["**24.8**", "**24.8**", "25.0"]
    assert grid_of(table_of([24.8, NAN, NAN]))["top-1 ours"].tolist() == ["24.8", "–", "–"]


def test_a_table_without_notes_has_no_note_column() -> None:
    assert "note" not in grid_of(table_of([1.0, 2.0]))


def test_all_published_rows_are_in_the_document_in_order(tmp_path: Path) -> None:
    text = markdown.markdown(tables.tables_of(Scores(tmp_path, described())), described())
    assert [line for line in text.splitlines() if line.startswith("## ")] == [f"## Table {n}" for n in range(1, 8)]
    places = [text.index(f"| {row['method']} ") for row in paper.published(7)]
    assert places == sorted(places)
    for value in (
        "29.6",
        "[256;512]",
        "24.4",
        "D/256, D/384, D/[256;512], C/256, C/384, E/256, E/384",
        "143.7",
        "11.7",
    ):
        assert value in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_a_reduced_reproduction_says_so() -> None:
    data = described(subset="2 of 10 shards")
    text = header_markdown([table_of([1.0])], data)
    for said in (
        "This is a reduced reproduction. How all runs differ from the paper's:\n\n- 12 classes (the paper: 1,000).\n",
        "4,800 training images (the paper: 1,281,167)",
        "600 validation images (the paper: 50,000)",
        "- Crop 64 (the paper: 224",
        "- Width 0.125 (the paper: 1)",
        "- A subset: 2 of 10 shards",
        "±4.0 points",
        "fingerprint 0123456789ab",
    ):
        assert said in text


def test_the_full_reproduction_does_not() -> None:
    full = described(1000, 1_281_167, 50_000)
    assert header_of([table_of([1.0], crop=224, width=1.0)], full).reductions == ()
    assert "reduced" not in header_markdown([table_of([1.0], crop=224, width=1.0)], full)


def test_csv_is_tidy_and_raw() -> None:
    frame = pd.read_csv(io.StringIO(csv.csv_text([table_of([61.25, NAN])])))
    assert list(frame.columns[:3]) == ["table", "row", "net"]
    assert frame[["row", "measure"]].to_numpy().tolist() == [
        [1, "top1_val_error"],
        [1, "top5_val_error"],
        [2, "top1_val_error"],
        [2, "top5_val_error"],
    ]
    first, missing = frame.iloc[0], frame.iloc[2]
    assert (first["net"], first["ours"], first["paper"], first["note"]) == ("A", 61.25, 29.6, "All alike.")
    assert first["difference"] == 61.25 - 29.6
    assert math.isnan(missing["ours"])
    assert missing["note"] == "Not run: `vggrepro train A --scale 256`."


def test_csv_of_all_tables_has_every_published_number(tmp_path: Path) -> None:
    frame = pd.read_csv(io.StringIO(csv.csv_text(tables.tables_of(Scores(tmp_path, described())))))
    sizes = {2: 6, 3: 24, 4: 20, 5: 12, 6: 12, 7: 45}  # rows times measures
    assert frame["table"].value_counts().to_dict() == sizes
    printed = sum(
        bool(cell) for n in range(3, 8) for row in paper.published(n) for k, cell in row.items() if "error" in k
    )
    assert frame[frame["table"] > 2]["paper"].notna().sum() == printed


def test_unused_files_are_said_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, Run("B", S256))
    plant(tmp_path, Run("B", S256), 224, RIGHT)
    stale = plant(tmp_path, Run("B", S256), 256, RIGHT, weights="old")
    documents.document_of(Scores(tmp_path, dataset_of()))
    assert capsys.readouterr().err == (f"note: not used: {stale}; the notes under the tables say why\n")


def test_write_gives_a_csv_a_table_and_the_document(tmp_path: Path) -> None:
    folder = tmp_path / "tables" / "demo"
    made = tables.tables_of(Scores(tmp_path / "runs", described()), (3, 6))
    paths = csv.write(made, folder)
    assert [path.name for path in paths] == ["table3.csv", "table6.csv"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in paths)  # no temporary files
    frame = pd.read_csv(folder / "table3.csv")
    assert list(frame.columns[:6]) == [
        "net",
        "S",
        "Q",
        "top1_val_error",
        "top1_val_error_paper",
        "top1_val_error_difference",
    ]
    assert frame["top1_val_error_paper"].tolist() == [float(row["top1_val_error"]) for row in paper.published(3)]
    assert frame["note"].iloc[0].startswith("Not run: `vggrepro train A --scale 256`")


def test_write_puts_the_extras_beside_the_tables(tmp_path: Path) -> None:
    make_run(tmp_path, Run("B", S256))
    for q, rows in ((224, RIGHT), (256, WRONG)):
        plant(tmp_path, Run("B", S256), q, rows)
    made = documents.document_of(Scores(tmp_path, dataset_of()))
    paths = made.write(tmp_path / "tables")
    assert [path.name for path in paths[5:]] == [
        "curve.csv", "classes.csv", "confusion.csv", "calibration.csv", "claims.csv", "tables.md", "ranks.parquet"
    ]  # fmt: skip
    assert paths[-2].read_text(encoding="utf-8") == made.markdown()
    searched = tmp_path / "tables" / "pairs.csv"
    searched.write_text("of an earlier search")
    made.write(tmp_path / "tables")
    assert not searched.exists()
    frame = pd.read_csv(tmp_path / "tables" / "curve.csv")
    assert frame[["run", "Q", "top1_val_error"]].to_numpy().tolist() == [["B-256", 224, 0.0], ["B-256", 256, 75.0]]
    assert "### Error against the test scale Q" in paths[-2].read_text(encoding="utf-8")


def test_the_ranks_written_give_every_error_again(tmp_path: Path) -> None:
    make_run(tmp_path, Run("B", S256))
    for q, rows in ((224, RIGHT), (256, WRONG), (288, WRONG)):
        plant(tmp_path, Run("B", S256), q, rows)
    folder = tmp_path / "tables"
    documents.document_of(Scores(tmp_path, dataset_of())).write(folder)
    ranks = pd.read_parquet(folder / "ranks.parquet")
    assert ranks["image"].is_unique
    errors = (ranks.drop(columns=["image", "label"]) >= 1).mean() * 100
    curve = pd.read_csv(folder / "curve.csv").set_index("Q")["top1_val_error"]
    for q in (224, 256, 288):
        assert errors[f"B-256/val-dense-q{q}"] == curve[q]
    fused = " + ".join(f"B-256/val-dense-q{q}" for q in (224, 256, 288))
    table4 = pd.read_csv(folder / "table4.csv").set_index(["net", "S"])
    assert errors[fused] == table4.loc[("B", "256"), "top1_val_error"]

    for path in tmp_path.glob("*/posteriors/*.parquet"):
        path.unlink()
    documents.document_of(Scores(tmp_path, dataset_of())).write(folder)
    assert not (folder / "ranks.parquet").exists()


def test_intervals_are_in_the_tidy_csv(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256))
    plant(tmp_path, Run("A", S256), 256, WRONG)
    frame = csv.tidy(tables.tables_of(Scores(tmp_path, dataset_of()), (2, 3)))
    row = frame[(frame["table"] == 3) & (frame["row"] == 1)].iloc[0]
    centre, half = (0.75 + 3.8415 / 8) / (1 + 3.8415 / 4), 1.95996 * math.sqrt(0.75 * 0.25 / 4 + 3.8415 / 64)
    half /= 1 + 3.8415 / 4  # Wilson 1927, z = 1.96, 3 of 4
    assert (row["low"], row["high"]) == pytest.approx((100 * (centre - half), 100 * (centre + half)), abs=0.01)
    assert frame[frame["table"] == 2][["low", "high"]].isna().all(axis=None)


def test_a_document_in_miniature(tmp_path: Path) -> None:
    multi_scale(tmp_path)
    for path in (tmp_path / "E-256-512" / "posteriors").glob("val-multicrop-*"):
        path.unlink()
    plant(tmp_path, Run("E", paper.JITTER), 256, RIGHT, weights="old")
    data = dataclasses.replace(dataset_of(), subset="2 of 10 shards.")
    made = documents.document_of(Scores(tmp_path, data), [5])
    text = markdown.markdown(made.tables, data, (), made.beyond_tables, "## 1. A claim: holds\n\nSo it does.\n")
    golden = Path(__file__).with_name("report_golden.md").read_text(encoding="utf-8")
    assert text.replace(str(tmp_path), "RUNS") == golden


def test_the_whole_document_reads_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vggrepro.posteriors import files as posterior_files

    multi_scale(tmp_path)
    read: list[Path] = []
    values = posterior_files.values

    def counting(path: Path, *arguments: int) -> object:
        read.append(path)
        return values(path, *arguments)

    monkeypatch.setattr(posterior_files, "values", counting)
    made = documents.document_of(Scores(tmp_path, dataset_of()))
    assert len(read) == len(set(read)) == 12
    assert [table.number for table in made.tables] == list(range(1, 8))
    text = made.markdown()
    assert text.index("## Table 7") < text.index("## Beyond the paper") < text.index("## The paper's claims")


@pytest.fixture
def vggrepro(vggrepro: Call, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The console script in a folder with `data` (18 images of 6 classes) and `runs` of A-256 and B-256."""
    folder = dataset.folder.parent
    monkeypatch.chdir(folder)
    rng = np.random.default_rng(0)
    from vggrepro.data.dataset import Split
    from vggrepro.posteriors.files import Rows, read_origin, write
    from vggrepro.posteriors.protocol import file_path

    split = Split(dataset, "val")
    for runs in ("runs", "others"):
        for net in ("A", "B"):
            make_run(Path(runs), Run(net, S256), dataset={"fingerprint": dataset.fingerprint})
            for q in S256.test_scales:
                path = plant(Path(runs), Run(net, S256), q, RIGHT, fingerprint=dataset.fingerprint)
                batch = Rows(split.keys(0, len(split)), split.labels, rng.dirichlet(np.ones(6), len(split)))
                origin = read_origin(path)
                write(file_path(path.parent.parent, "val", "dense", q), [batch], 6, origin)

    return vggrepro


def test_stdout_is_the_document_alone(vggrepro: Call) -> None:
    code, out, _ = vggrepro("report")
    assert (code, out[:14], out[-1]) == (0, "# VGG's tables", "\n")
    assert "### Error against the test scale Q" in out
    assert "## The paper's claims" in out
    code, out, err = vggrepro("report", "--search")
    assert code == 0
    assert "| best pair " in out
    assert "--search: 3 subsets of 2 nets, 6 files of 18 images" in err
    code, out, _ = vggrepro("report", "--format", "latex")
    assert (code, out[0]) == (0, "%")
    assert vggrepro("report", "--format", "latex", "--standalone")[1].startswith(r"\documentclass")
    code, out, _ = vggrepro("report", "--format", "csv")
    assert pd.read_csv(io.StringIO(out))["table"].nunique() == 6
    code, out, _ = vggrepro("report", "--against", "others")
    assert out.startswith("# VGG's tables: runs against others\n")
    code, out, _ = vggrepro("report", "--against", "others", "--format", "csv", "--against-data", "data")
    assert pd.read_csv(io.StringIO(out))["images_theirs"].iloc[0] == 18


def test_fuse_writes_what_the_search_found(vggrepro: Call) -> None:
    code, out, _ = vggrepro("fuse", "--search")
    assert (code, out.split()[5:]) == (
        0, [f"tables/photos/{name}" for name in ("curve.csv", "fusion.csv", "pairs.csv", "classes.csv",
            "confusion.csv", "calibration.csv", "claims.csv", "tables.md", "ranks.parquet")]
    )  # fmt: skip
    assert pd.read_csv("tables/photos/pairs.csv")["runs"].tolist() == ["A-256", "B-256", "A-256 + B-256"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("report", "--standalone"), "--standalone: only with --format latex"),
        (("report", "--search", "--format", "csv"), "--search: only with --format md or latex and without --against; "
         "'vggrepro fuse' has it as CSV"),
        (("report", "--against", "others", "--format", "latex"), "--against: give --format md, csv or html"),
        (("report", "--against-data", "data"), "--against-data: only with --against and --format md or csv"),
        (("report", "--against", "nowhere"), "--against nowhere: no run there; give the folder of the other runs"),
        (("fuse", "--split", "test"), "--split: only with runs; the tables are of the validation images"),
        (("fuse", "A-256", "--search"), "--search takes all runs by their validation posteriors; give it without"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(vggrepro: Call, words: tuple[str, ...], said: str) -> None:
    code, out, err = vggrepro(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"vggrepro: {said}")
    assert err.count("\n") == 1


def test_without_training_images_none_are_claimed() -> None:
    """All of ILSVRC's validation images and nets trained elsewhere: nothing is reduced."""
    table = table_of([1.0], crop=224, width=1.0)
    full = dataclasses.replace(described(1000, 0, 50_000), statistics="val")
    assert header_of([table], full).reductions == ()
    assert "1,000 classes, 50,000 validation images (fingerprint 0123456789ab)" in header_markdown([table], full)
    assert "reduced" not in header_markdown([table], full)
    part = dataclasses.replace(full, counts={"train": 0, "val": 100})
    assert header_of([table], part).reductions == ("100 validation images (the paper: 50,000)",)
