"""Columns of results: rounding, signs, dashes, bold cells, kinds; formats go by the kind and not by the heading."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from vggrepro.report import latex
from vggrepro.report.page.html import column_table
from vggrepro.results import columns
from vggrepro.results.columns import Kind

NAN = math.nan


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
def test_numbers_have_one_decimal(value: float, sign: str, text: str) -> None:
    assert columns.number(value, sign) == text


def test_intervals_are_written_as_the_paper_writes_ranges() -> None:
    assert columns.span(13.098, 19.152) == "[13.1; 19.2]"
    assert columns.span(NAN, NAN) == "–"


@pytest.mark.parametrize(
    ("p", "text"), [(0.00099, "< 0.001"), (0.001, "0.001"), (0.0496, "0.050"), (1.0, "1.000"), (NAN, "–")]
)
def test_p_values_as_text(p: float, text: str) -> None:
    assert columns.p_text(p) == text


def test_the_smallest_printed_numbers_are_best_and_a_lone_one_is_none() -> None:
    assert columns.smallest(["24.8", "–", "25.0", "24.8"]) == [True, False, False, True]
    assert columns.smallest(["–", "24.8"]) == [False, False]


def test_only_differences_show_their_sign() -> None:
    made = [columns.numbers(kind, "", "", "", [1.0, NAN, -2.0]).cells for kind in (Kind.OURS, Kind.DIFFERENCE)]
    assert made == [["1.0", "–", "-2.0"], ["+1.0", "–", "-2.0"]]


def test_a_measure_that_was_nowhere_measured_has_no_columns() -> None:
    ends = {f"{name}{end}": [NAN, NAN] for name in columns.ERRORS for end in ("", "_low", "_high")}
    ends |= {"top1_val_error": [3.0, 2.0], "top1_val_error_low": [1.0, 1.0], "top1_val_error_high": [5.0, 4.0]}
    made = columns.measures_of(pd.DataFrame(ends))
    assert [(column.kind, column.heading) for column in made] == [
        (Kind.OURS, "top-1"),
        (Kind.INTERVAL, "top-1 95 %"),
    ]
    assert made[0].best == [False, True]
    assert made[1].cells == ["[1.0; 5.0]", "[1.0; 4.0]"]


def test_a_heading_does_not_make_a_column_a_footnote_a_group_or_an_interval() -> None:
    made = columns.labels_of(pd.DataFrame({"note": ["a"], "group": ["b"], "95 %": ["c"]}), ("note", "group", "95 %"))
    assert [column.kind for column in made] == [Kind.LABEL] * 3
    page = column_table(made, [""], "three labels", "t")
    assert "href" not in page
    assert 'class="interval"' not in page
    assert latex.tabular(made, [""])[-3] == r"a & b & c \\"
