"""Figures: what is drawn where, colours that all readers can tell apart, the same bytes for the same frame."""

from __future__ import annotations

import io
import itertools
import math
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vggrepro import paper
from vggrepro.report import figures

TOP1 = "top1_val_error"
DARK_GROUND = "#16181d"  # page.css: --card on dark ground

# Machado, Oliveira & Fernandes 2009: full protanopia, deuteranopia and tritanopia, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour: str) -> np.ndarray:
    """`#rrggbb` as linear RGB from 0 to 1."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio, 1 to 21."""
    lights = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """Linear RGB as CIE L*a*b*, in which a distance of 2 is just seen."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def table3(ours: dict[tuple[str, str], float]) -> pd.DataFrame:
    """Table 3's frame with these top-1 errors of ours, intervals of ± 1."""
    rows = []
    for line in paper.published(3):
        scale = paper.Scale.parse(line["S"]).label
        value = ours.get((line["net"], scale), math.nan)
        row = {"net": line["net"], "S": scale, TOP1: value, f"{TOP1}_low": value - 1, f"{TOP1}_high": value + 1}
        rows.append(row | {f"{TOP1}_paper": float(line["top1_val_error"])})
    return pd.DataFrame(rows)


def points(figure: Figure) -> dict[tuple[float, float], tuple[str, str, bool]]:
    """Every single marker: (x, y) -> marker, colour, whether it is filled."""
    found = {}
    for line in figure.axes[0].get_lines():
        x, y = np.atleast_1d(line.get_xdata()), np.atleast_1d(line.get_ydata())
        if len(x) == 1 and line.get_marker() not in ("None", "_", "|"):
            filled = line.get_markerfacecolor() != figures.GROUND
            found[round(float(x[0]), 3), float(y[0])] = (line.get_marker(), line.get_color(), filled)
    return found


def test_nets_have_colours_of_enough_contrast_on_light_and_dark_ground() -> None:
    for net, (light, dark) in figures.COLOURS.items():
        assert contrast(light, figures.GROUND) >= 3, net
        assert contrast(dark, DARK_GROUND) >= 3, net
    assert contrast(figures.INK, figures.GROUND) >= 7
    assert contrast(figures.MUTED, figures.GROUND) >= 4.5


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("ground", [0, 1])
def test_nets_keep_apart_for_colour_blind_readers(kind: str, ground: int) -> None:
    nets = [net for net in figures.COLOURS if net]
    seen = {net: lab(np.array(BLINDNESS[kind]) @ linear(figures.COLOURS[net][ground])) for net in nets}
    for one, other in itertools.combinations(nets, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 15, (one, other)


def test_every_net_and_scale_of_the_paper_has_its_sign() -> None:
    assert set(paper.NETS) | {""} == set(figures.COLOURS)
    assert {row.labels["S"] for row in paper.rows(3)} == set(figures.MARKERS) == set(figures.DASHES)
    assert len({light for light, _ in figures.COLOURS.values()}) == len(figures.COLOURS)


def test_the_same_frame_gives_the_same_bytes_whatever_the_users_settings() -> None:
    frame = table3({("A", "256"): 30.0, ("D", "256"): 27.0})
    first = figures.against_depth(frame, TOP1)
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path", "axes.grid": False, "svg.hashsalt": None}):
        second = figures.against_depth(frame, TOP1)
        assert figures.svg(second) == figures.svg(first)
        assert figures.png(second) == figures.png(first)
    text = figures.svg(first)
    assert "date" not in text.lower()
    assert matplotlib.__version__ not in text


def test_letters_of_an_svg_are_letters() -> None:
    root = ET.fromstring(figures.svg(figures.against_depth(table3({("A", "256"): 30.0}), TOP1)))
    texts = {"".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"A-LRN", "19", "net, weight layers", "top-1 error (%)", "the paper"} <= texts


def test_a_png_is_on_white_at_print_resolution() -> None:
    image = Image.open(io.BytesIO(figures.png(figures.against_depth(table3({("A", "256"): 30.0}), TOP1))))
    assert image.size == (round(200 * figures.WIDTH), round(200 * figures.HEIGHT))
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_weight_layers_are_those_of_table_1() -> None:
    assert {net: figures.weight_layers(net) for net in paper.NETS} == {
        "A": 11, "A-LRN": 11, "B": 13, "B-5x5": 8, "C": 16, "D": 16, "E": 19,
    }  # fmt: skip


def test_depth_shows_ours_filled_and_the_papers_hollow() -> None:
    drawn = points(figures.against_depth(table3({("A", "256"): 31.0, ("E", "[256;512]"): 22.0}), TOP1))
    filled = {place: sign[:2] for place, sign in drawn.items() if sign[2]}
    # Lines of S = 256, 384 and [256;512] stand 0.09 apart; A is the first net, E the sixth.
    assert filled == {(-0.09, 31.0): ("o", figures.colour("A")), (5.09, 22.0): ("D", figures.colour("E"))}
    hollow = {y: sign[:2] for (_, y), sign in drawn.items() if not sign[2]}
    assert hollow[29.6] == ("o", figures.colour("A"))
    assert hollow[25.5] == ("D", figures.colour("E"))
    assert sum(not sign[2] for sign in drawn.values()) == 12


def test_the_papers_lines_of_three_training_scales_keep_apart() -> None:
    frame = table3({("D", scale): 25.0 for scale in figures.MARKERS})
    lines = [
        line for line in figures.against_depth(frame, TOP1).axes[0].get_lines() if line.get_color() == figures.MUTED
    ]
    broken = [line.get_linestyle() for line in lines if line.is_dashed()]
    assert len(broken) == 3
    assert len(set(map(str, figures.PAPER_DASHES.values()))) == 3
    assert set(figures.PAPER_DASHES) == set(figures.MARKERS)


def test_legends_are_no_wider_than_their_figures() -> None:
    frame = table3({(net, scale): 25.0 for net in paper.NETS for scale in figures.MARKERS})
    rows = [(nets, method, 25.0, 24.0) for nets in ("D", "E", "D + E") for method in figures.STRENGTHS]
    bars = pd.DataFrame(rows, columns=["nets", "method", TOP1, f"{TOP1}_paper"])
    points = pd.DataFrame({"net": list(figures.COLOURS), "S": [*figures.MARKERS, *[""] * 5], "ours": 1.0, "paper": 2.0})
    sides = {
        "measure": "top-1",
        "difference": 1.0,
        "low": 0.0,
        "high": 2.0,
        "difference_paper": 0.0,
        "verdict": "holds",
    }
    longest = "10. D + E multi-crop & dense against D multi-crop & dense, top-1"
    forest = pd.DataFrame([{"label": longest, **sides, "claimed_low": -math.inf, "claimed_high": 0.0}])
    epochs = pd.DataFrame({"epoch": [1.0], "top1_error": [50.0]})
    names = [f"{net}-256-512-fc" for net in "CDE"]
    for figure in (
        figures.against_depth(frame, TOP1),
        figures.against_training_scale(frame, TOP1),
        figures.against_test_scale(frame[frame["net"] == "D"].assign(Q=256), TOP1),
        figures.methods(bars, TOP1),
        figures.agreement(points),
        figures.forest(forest),
        figures.all_runs(dict.fromkeys(names, epochs), {name: (name[0], "[256;512]") for name in names}),
    ):
        figures.svg(figure)  # lays it out
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


def test_a_files_title_names_the_data_and_hides_nothing() -> None:
    frame = table3({("A", "256"): 30.0})
    plain, titled = figures.against_depth(frame, TOP1), figures.against_depth(frame, TOP1)
    figures.titled(titled, "Error against depth", "photos, n = 18 validation images")
    text = figures.svg(titled)
    assert "Error against depth" in text
    assert "photos, n = 18 validation images" in text
    assert titled.get_figheight() == plain.get_figheight() + figures.TITLE
    drawn = figures.titled(figures.filters(np.zeros((8, 3, 3, 3))), "A-256", "photos")
    assert drawn.axes[0].get_position().y1 < 0.8


def test_confusion_has_a_cell_for_each_class_and_answer() -> None:
    shares = np.array([[90.0, 10.0, 0.0], [0.0, 50.0, 50.0]])
    axes = figures.confusion(shares, ["ant", "bee"], ["ant", "bee", "other"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["90", "10", "50", "50"]
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
    assert {sign[1] for sign in points(figure).values()} == {figures.colour(net) for net in "CDE"}
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
    assert drawn[29.6, 40.0][:2] == ("o", figures.colour("A"))
    assert drawn[23.7, 35.0][:2] == ("*", figures.colour(""))


def test_rates_that_fall_are_drops() -> None:
    frame = pd.DataFrame({"epoch": [1, 2, 3, 4, 5], "learning_rate": [0.01, 0.02, 0.002, 0.002, 0.0002]})
    assert figures.drops(frame) == [(2.0, 0.002), (4.0, 0.0002)]
    assert figures.drops(frame[:1]) == []


@pytest.mark.parametrize("top5", [20.0, math.nan])
def test_training_has_loss_above_errors_and_lines_at_drops(top5: float) -> None:
    epochs = pd.DataFrame(
        {"epoch": [1.0, 2], "learning_rate": [0.1, 0.01], "loss": [2.0, 1.0], "top1_error": [60.0, 50]}
    )
    between = pd.DataFrame({"epoch": [0.5, 1.5], "loss": [2.5, 1.2]})
    above, below = figures.training(epochs.assign(top5_error=top5), between, "D").axes
    assert [list(line.get_ydata()) for line in above.get_lines()] == [[2.5, 1.2], [2.0, 1.0], [0, 1]]
    assert list(above.get_lines()[1].get_xdata()) == [0.5, 1.5]  # the mean of an epoch at its middle
    assert list(above.get_lines()[-1].get_xdata()) == [1.0, 1.0]
    assert [text.get_text() for text in above.texts] == ["0.01"]
    labels = [text.get_text() for text in below.get_legend().get_texts()]
    assert labels == (["top-1"] if math.isnan(top5) else ["top-1", "top-5"])


def test_names_of_runs_are_taken_as_they_are() -> None:
    frame = pd.DataFrame({"epoch": [1.0], "top1_error": [50.0]})
    text = figures.svg(figures.all_runs({"_a$b$<c>": frame}, {"_a$b$<c>": ("A", "256")}))
    assert "_a$b$&lt;c&gt;" in text


def test_differences_stand_in_order_with_their_intervals() -> None:
    frame = pd.DataFrame(
        {"label": ["one", "two"], "measure": ["top-1", "top-5"],
         "difference": [-1.0, 2.0], "low": [-2.0, 1.0], "high": [0.5, 4.0],
         "difference_paper": [-0.5, math.nan], "verdict": ["not decided", "contradicted"],
         "claimed_low": [-math.inf, -0.5], "claimed_high": [0, 0.5]}
    )  # fmt: skip
    axes = figures.forest(frame).axes[0]
    left = axes.get_xlim()[0]
    bands = [(bar.get_x(), bar.get_width(), bar.get_y() + bar.get_height() / 2) for bar in axes.patches]
    assert bands == [(left, -left, 0), (-0.5, 1, 1)]
    assert [text.get_text() for text in axes.texts] == ["one", "two"]
    assert axes.yaxis_inverted()
    whiskers = [path.get_segments()[0][:, 0].tolist() for path in axes.collections]
    assert whiskers == [[-2.0, 0.5], [1.0, 4.0]]


def test_filters_are_tiles_around_grey() -> None:
    weights = np.zeros((3, 3, 2, 2), np.float32)
    weights[0, 0] = [[2, -2], [1, 0]]  # red alone; the largest is 2
    picture = figures.tiles(weights, columns=2)
    assert picture.shape == (5, 5, 4)
    assert picture[0, 0].tolist() == [255, 128, 128, 255]
    assert picture[0, 1].tolist() == [0, 128, 128, 255]
    assert picture[1, 0].tolist() == [191, 128, 128, 255]
    assert picture[3:, :2, :3].tolist() == [[[128] * 3] * 2] * 2  # a filter of zeros
    assert picture[2].tolist() == picture[3:, 3:].reshape(-1, 4)[:1].repeat(5, 0).tolist() == [[0] * 4] * 5


@pytest.mark.parametrize("count", [8, 64])
def test_filters_are_as_many_as_the_layer_has(count: int) -> None:
    weights = np.random.default_rng(0).normal(size=(count, 3, 3, 3))
    image = figures.filters(weights).axes[0].get_images()[0].get_array()
    assert image is not None
    assert (np.asarray(image)[..., 3] == 255).sum() == count * 9


def test_each_seed_is_a_small_point() -> None:
    frame = table3({("D", "256"): 30.0}).assign(
        **{f"{TOP1}_each": ["29.0000 30.5000 30.5000"] * len(paper.published(3))}
    )
    frame[[f"{TOP1}_low", f"{TOP1}_high"]] = math.nan
    drawn = figures.against_depth(frame, TOP1)
    points = [line.get_ydata() for axes in drawn.axes for line in axes.get_lines() if line.get_marker() == "."]
    assert [list(np.asarray(each)) for each in points] == [[29.0, 30.5, 30.5]]


def test_other_seeds_curves_are_thin_lines() -> None:
    epochs = pd.DataFrame({"epoch": [1.0, 2.0], "learning_rate": 0.1, "loss": [2.0, 1.0], "top1_error": [60.0, 50.0]})
    epochs["top5_error"] = math.nan
    other = epochs.assign(loss=[3.0, 2.0], top1_error=[70.0, 65.0])
    drawn = figures.training(epochs, pd.DataFrame(columns=["epoch", "loss"]), "D", [other])
    above, below = ([list(np.asarray(line.get_ydata())) for line in axes.get_lines()] for axes in drawn.axes)
    assert above == [[3.0, 2.0], [2.0, 1.0]]
    assert below == [[70.0, 65.0], [60.0, 50.0]]
