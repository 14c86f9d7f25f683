"""Figures of errors, claims and answers: what is drawn where."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from frames import table3
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vggrepro import paper
from vggrepro.report import figures, style, training_figures
from vggrepro.results.columns import TOP1


def points(figure: Figure) -> dict[tuple[float, float], tuple[str, str, bool]]:
    """Every single marker: (x, y) -> marker, colour, whether it is filled."""
    found = {}
    for line in figure.axes[0].get_lines():
        x, y = np.atleast_1d(line.get_xdata()), np.atleast_1d(line.get_ydata())
        if len(x) == 1 and line.get_marker() not in ("None", "_", "|"):
            filled = line.get_markerfacecolor() != style.GROUND
            found[round(float(x[0]), 3), float(y[0])] = (line.get_marker(), line.get_color(), filled)
    return found


def test_weight_layers_are_those_of_table_1() -> None:
    assert {net: figures.weight_layers(net) for net in paper.NETS} == {
        "A": 11, "A-LRN": 11, "B": 13, "B-5x5": 8, "C": 16, "D": 16, "E": 19,
    }  # fmt: skip


def test_depth_shows_ours_filled_and_the_papers_hollow() -> None:
    drawn = points(figures.against_depth(table3({("A", "256"): 31.0, ("E", "[256;512]"): 22.0}), TOP1))
    filled = {place: sign[:2] for place, sign in drawn.items() if sign[2]}
    # Lines of S = 256, 384 and [256;512] stand 0.09 apart; A is the first net, E the sixth.
    assert filled == {(-0.09, 31.0): ("o", style.colour("A")), (5.09, 22.0): ("D", style.colour("E"))}
    hollow = {y: sign[:2] for (_, y), sign in drawn.items() if not sign[2]}
    assert hollow[29.6] == ("o", style.colour("A"))
    assert hollow[25.5] == ("D", style.colour("E"))
    assert sum(not sign[2] for sign in drawn.values()) == 12


def test_the_papers_lines_of_three_training_scales_keep_apart() -> None:
    frame = table3({("D", scale): 25.0 for scale in style.MARKERS})
    lines = [line for line in figures.against_depth(frame, TOP1).axes[0].get_lines() if line.get_color() == style.MUTED]
    broken = [line.get_linestyle() for line in lines if line.is_dashed()]
    assert len(broken) == 3
    assert len(set(map(str, style.PAPER_DASHES.values()))) == 3
    assert set(style.PAPER_DASHES) == set(style.MARKERS)


def test_legends_are_no_wider_than_their_figures() -> None:
    frame = table3({(net, scale): 25.0 for net in paper.NETS for scale in style.MARKERS})
    rows = [(nets, method, 25.0, 24.0) for nets in ("D", "E", "D + E") for method in figures.STRENGTHS]
    bars = pd.DataFrame(rows, columns=["nets", "method", TOP1, f"{TOP1}_paper"])
    points = pd.DataFrame({"net": list(style.COLOURS), "S": [*style.MARKERS, *[""] * 5], "ours": 1.0, "paper": 2.0})
    sides = {
        "measure": "top-1",
        "difference": 1.0,
        "low": 0.0,
        "high": 2.0,
        "difference_paper": 0.0,
        "verdict": "holds",
        "each": (0.5, 1.5),
    }
    longest = "10. D + E multi-crop & dense against D multi-crop & dense, top-1"
    forest = pd.DataFrame([{"label": longest, **sides, "claimed_low": -math.inf, "claimed_high": 0.0}])
    epochs = pd.DataFrame({"epoch": [1.0], "top1_error": [50.0]})
    names = [f"{net}-256-512-fc" for net in "CDE"]
    for figure in (
        *(
            draw(over_seeds(frame, TOP1, "24.0 26.0") if several else frame, TOP1)
            for draw in (figures.against_depth, figures.against_training_scale)
            for several in (False, True)
        ),
        figures.against_test_scale(over_seeds(frame[frame["net"] == "D"].assign(Q=256), TOP1, "24.0 26.0"), TOP1),
        figures.methods(over_seeds(bars, TOP1, "24.0 26.0"), TOP1),
        figures.agreement(over_seeds(points, "ours", "0.5 1.5")),
        figures.forest(forest),
        training_figures.all_runs(dict.fromkeys(names, epochs), {name: (name[0], "[256;512]") for name in names}),
    ):
        style.svg(figure)  # lays it out
        width = figure.bbox.width
        for one in (*figure.legends, *figure.axes[0].texts):
            box = one.get_window_extent()
            assert box.x0 >= 0, one
            assert box.x1 <= width, one


def test_errors_far_from_the_papers_have_axes_of_their_own() -> None:
    frame = table3({("A", "256"): 63.0, ("D", "256"): 66.0})
    for draw in (figures.against_depth, figures.against_training_scale):
        ours, theirs = draw(frame, TOP1).axes
        assert ours.get_ylim()[0] > 60  # not from the paper's 25 on
        assert theirs.get_ylim()[1] < 31
    assert len(figures.against_depth(table3({("A", "256"): 31.0}), TOP1).axes) == 1


def test_confusion_has_a_cell_for_each_class_and_answer() -> None:
    shares = np.array([[90.0, 10.0, 0.0], [0.0, 50.0, 50.0]])
    axes = figures.confusion(shares, ["ant", "bee"], ["ant", "bee", "other"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["90", "10", "50", "50"]
    assert [text.get_color() for text in axes.texts] == [figures.PALE, style.INK, style.INK, style.INK]
    picture = np.asarray(axes.get_images()[0].get_array())
    assert picture[..., 3] == pytest.approx(np.sqrt(shares / 100))
    assert (picture[0, 0, :3] == picture[1, 1, :3]).all()
    assert (picture[0, 0, :3] != picture[1, 2, :3]).any()


def test_reliability_shows_right_answers_at_the_mean_confidence_of_a_bin() -> None:
    bins = {"from": [60.0, 80.0], "to": [80.0, 100.0], "images": [1, 3], "confidence": [70.0, 90.0]}
    frame = pd.DataFrame(bins | {"right": [50.0, 80.0], "right_low": [40.0, 70.0], "right_high": [60.0, 90.0]})
    above, below = figures.reliability(frame).axes
    line = next(line for line in above.get_lines() if line.get_marker() == "o")
    assert np.asarray(line.get_xydata()).tolist() == [[70.0, 50.0], [90.0, 80.0]]
    assert [bar.get_height() for bar in below.patches] == [25.0, 75.0]


def test_training_scales_are_of_nets_with_several() -> None:
    figure = figures.against_training_scale(table3({("D", "256"): 27.5, ("D", "384"): 26.5}), TOP1)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["256", "384", "[256;512]"]
    assert {sign[1] for sign in points(figure).values()} == {style.colour(net) for net in "CDE"}
    assert {(x, y) for (x, y), sign in points(figure).items() if sign[2]} == {(0.0, 27.5), (1.0, 26.5)}


def test_test_scales_are_joined_in_order() -> None:
    frame = pd.DataFrame({"net": "D", "S": "256", "Q": [288, 224, 256], TOP1: [27.0, 29.0, 26.0]})
    line = next(
        line for line in figures.against_test_scale(frame, TOP1).axes[0].get_lines() if len(line.get_xdata()) == 3
    )
    assert list(line.get_xdata()) == [224, 256, 288]
    assert list(line.get_ydata()) == [29.0, 26.0, 27.0]


def test_bars_begin_at_zero_and_bear_their_numbers() -> None:
    rows = [("D", "dense", 25.0), ("D", "multi-crop", 24.04), ("D + E", "multi-crop & dense", math.nan)]
    frame = pd.DataFrame(rows, columns=["nets", "method", TOP1])
    frame = frame.assign(**{f"{TOP1}_low": frame[TOP1] - 1, f"{TOP1}_high": frame[TOP1] + 1, f"{TOP1}_paper": 24.5})
    axes = figures.methods(frame, TOP1).axes[0]
    places = [(bar.get_y(), bar.get_height()) for bar in axes.patches]
    assert places == [(0, 25.0), (0, 25.0), (0, 24.04), (0, 24.04)]  # each on a ground that hides the grid
    assert [text.get_text() for text in axes.texts] == ["25.0", "24.0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["D", "D + E"]


def test_agreement_has_a_point_a_row_and_the_line_of_equals() -> None:
    frame = pd.DataFrame({"net": ["A", ""], "S": ["256", ""], "ours": [40.0, 35.0], "paper": [29.6, 23.7]})
    drawn = points(figures.agreement(frame))
    assert drawn[29.6, 40.0][:2] == ("o", style.colour("A"))
    assert drawn[23.7, 35.0][:2] == ("*", style.colour(""))


def test_differences_stand_in_order_with_their_intervals() -> None:
    frame = pd.DataFrame(
        {"label": ["one", "two"], "measure": ["top-1", "top-5"],
         "difference": [-1.0, 2.0], "low": [-2.0, 1.0], "high": [0.5, 4.0],
         "difference_paper": [-0.5, math.nan], "verdict": ["not decided", "contradicted"],
         "claimed_low": [-math.inf, -0.5], "claimed_high": [0, 0.5], "each": [(), (1.5, 2.5)]}
    )  # fmt: skip
    axes = figures.forest(frame).axes[0]
    left = axes.get_xlim()[0]
    bands = [(bar.get_x(), bar.get_width(), bar.get_y() + bar.get_height() / 2) for bar in axes.patches]
    assert bands == [(left, -left, 0), (-0.5, 1, 1)]
    assert [text.get_text() for text in axes.texts] == ["one", "two"]
    assert axes.yaxis_inverted()
    whiskers = [path.get_segments()[0][:, 0].tolist() for path in axes.collections]
    assert whiskers == [[-2.0, 0.5], [1.0, 4.0]]
    assert seeds(axes) == [(1.5, 1.2), (2.5, 1.2)]  # below the whisker of the second


def seeds(axes: Axes) -> list[tuple[float, float]]:
    """The places of all small points."""
    lines = [line for line in axes.get_lines() if line.get_marker() == "."]
    return [(float(x), float(y)) for line in lines for x, y in np.asarray(line.get_xydata())]


def over_seeds(frame: pd.DataFrame, name: str, each: str) -> pd.DataFrame:
    """The frame with these errors of single seeds, and without intervals."""
    return frame.drop(columns=[f"{name}_low", f"{name}_high"], errors="ignore").assign(**{f"{name}_each": each})


def test_each_seed_is_a_small_point() -> None:
    frame = over_seeds(table3({("D", "256"): 30.0}), TOP1, "29.0000 30.5000 30.5000")
    for draw in (figures.against_depth, figures.against_training_scale):
        assert [y for axes in draw(frame, TOP1).axes for _, y in seeds(axes)] == [29.0, 30.5, 30.5]
    at_q = over_seeds(pd.DataFrame({"net": "D", "S": "256", "Q": [256, 288], TOP1: [30.0, 30.0]}), TOP1, "29.0 31.0")
    drawn = figures.against_test_scale(at_q, TOP1)
    assert seeds(drawn.axes[0]) == [(256, 29.0), (256, 31.0), (288, 29.0), (288, 31.0)]
    points = over_seeds(
        pd.DataFrame({"net": ["D"], "S": ["256"], "ours": [30.0], "paper": [27.0]}), "ours", "29.0 31.0"
    )
    assert seeds(figures.agreement(points).axes[0]) == [(27.0, 29.0), (27.0, 31.0)]
    row = {"nets": ["D"], "method": ["dense"], TOP1: [30.0], f"{TOP1}_paper": [27.0]}
    bars = figures.methods(over_seeds(pd.DataFrame(row), TOP1, "29.0 31.0"), TOP1)
    assert [y for _, y in seeds(bars.axes[0])] == [29.0, 31.0]
    for figure in (drawn, bars):
        assert "one seed" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_with_one_seed_no_legend_speaks_of_seeds() -> None:
    texts = [
        text.get_text() for text in figures.against_depth(table3({("D", "256"): 30.0}), TOP1).legends[0].get_texts()
    ]
    assert texts[0] == "ours, 95 %"
    assert "one seed" not in texts
