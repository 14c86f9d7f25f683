"""Documents: the paper's look, one decimal, dashes, signs, bold, footnotes; CSV that pandas reads back."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pandas as pd
import pytest

from vggrepro import paper, report, tables
from vggrepro.dataset import Dataset
from vggrepro.tables import Table

NAN = math.nan


def dataset_of(classes: int = 12, train: int = 4800, val: int = 600, subset: str = "") -> Dataset:
    names = tuple(map(str, range(classes)))
    counts = {"train": train, "val": val}
    return Dataset(Path("data"), "demo", names, counts, (0,), ((1,),), (1,), "demo", "0123456789abcdef", subset)


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
    return Table(3, "One test scale.", frame, ("net", "S", "Q"), measures, notes, ("All alike.",), crop, width)


def test_a_table_looks_like_this() -> None:
    assert (
        report.table_markdown(table_of([61.25, NAN, 28.66]))
        == """\
## Table 3

One test scale.

| net   | S   | Q   | top-1 ours | top-1 paper | Δ top-1 | top-5 ours | top-5 paper | Δ top-5 | note |
| :---- | :-- | :-- | ---------: | ----------: | ------: | ---------: | ----------: | ------: | :--- |
| A     | 256 | 256 |       61.2 |        29.6 |   +31.6 |        6.1 |        10.4 |    -4.3 |      |
| A-LRN | 256 | 256 |          – |        29.7 |       – |          – |        10.5 |       – | a    |
| B     | 256 | 256 |   **28.7** |        28.7 |     0.0 |    **2.9** |         9.9 |    -7.0 |      |

- All alike.
- (a) Not run: `vggrepro train A --scale 256`."""
    )


def test_equal_printed_errors_are_both_best_and_a_lone_one_is_none() -> None:
    cells = report.display(table_of([24.82, 24.78, 25.0]))
    assert cells["top-1 ours"].tolist() == ["**24.8**", "**24.8**", "25.0"]
    assert report.display(table_of([24.8, NAN, NAN]))["top-1 ours"].tolist() == ["24.8", "–", "–"]


def test_a_table_without_notes_has_no_note_column() -> None:
    assert "note" not in report.display(table_of([1.0, 2.0]))


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [
        (1.25, "+", "+1.2"),
        (-0.04, "+", "0.0"),
        (-1.26, "+", "-1.3"),
        (0.04, "", "0.0"),
        (NAN, "+", "–"),
        (100.0, "", "100.0"),
    ],
)
def test_numbers(value: float, sign: str, text: str) -> None:
    assert report.number(value, sign) == text


def test_all_published_rows_are_in_the_document_in_order(tmp_path: Path) -> None:
    text = report.markdown(tables.tables(tmp_path, dataset_of(), range(1, 8)), dataset_of())
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
    data = dataset_of(subset="2 of 10 shards")
    text = report.header([table_of([1.0])], data)
    for said in (
        "12 classes (the paper: 1,000)",
        "4,800 training images (the paper: 1,281,167)",
        "600 validation images (the paper: 50,000)",
        "crop 64 (the paper: 224",
        "width 0.125 (the paper: 1)",
        "a subset: 2 of 10 shards",
        "±4.0 points",
        "fingerprint 0123456789ab",
    ):
        assert said in text


def test_the_full_reproduction_does_not() -> None:
    full = dataset_of(1000, 1_281_167, 50_000)
    assert report.reductions([table_of([1.0], crop=224, width=1.0)], full) == []
    assert "reduced" not in report.header([table_of([1.0], crop=224, width=1.0)], full)


def test_csv_is_tidy_and_raw() -> None:
    frame = pd.read_csv(io.StringIO(report.csv_text([table_of([61.25, NAN])])))
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
    frame = pd.read_csv(io.StringIO(report.csv_text(tables.tables(tmp_path, dataset_of(), range(1, 8)))))
    sizes = {2: 6, 3: 24, 4: 20, 5: 12, 6: 12, 7: 45}  # rows times measures
    assert frame["table"].value_counts().to_dict() == sizes
    printed = sum(
        bool(cell) for n in range(3, 8) for row in paper.published(n) for k, cell in row.items() if "error" in k
    )
    assert frame[frame["table"] > 2]["paper"].notna().sum() == printed


def test_write_gives_a_csv_a_table_and_the_document(tmp_path: Path) -> None:
    folder = tmp_path / "tables" / "demo"
    made = tables.tables(tmp_path / "runs", dataset_of(), (3, 6))
    paths = report.write(made, dataset_of(), folder)
    assert [path.name for path in paths] == ["table3.csv", "table6.csv", "tables.md"]
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
    assert (folder / "tables.md").read_text(encoding="utf-8") == report.markdown(made, dataset_of())
