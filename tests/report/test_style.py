"""The look of figures: colours that all readers can tell apart, letters, the same bytes for the same frame."""

from __future__ import annotations

import io
import itertools
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from frames import table3
from PIL import Image

from vggrepro import paper
from vggrepro.report import figures, style, training_figures
from vggrepro.results.columns import TOP1

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


def test_nets_have_colours_of_enough_contrast_on_light_and_dark_ground() -> None:
    for net, (light, dark) in style.COLOURS.items():
        assert contrast(light, style.GROUND) >= 3, net
        assert contrast(dark, DARK_GROUND) >= 3, net
    assert contrast(style.INK, style.GROUND) >= 7
    assert contrast(style.MUTED, style.GROUND) >= 4.5


def test_numbers_of_the_confusion_matrix_can_be_read_on_their_cells() -> None:
    for strong in (figures.RIGHT, figures.WRONG):
        for share in range(1, 101):
            cell = np.array([*matplotlib.colors.to_rgb(strong), (share / 100) ** 0.5])
            shown = matplotlib.colors.to_hex(1 - cell[3] * (1 - cell[:3]))
            # on colours of middle lightness neither ink has 4.5
            assert contrast(figures.number_colour(cell), shown) >= 3.9, (strong, share)


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("ground", [0, 1])
def test_nets_keep_apart_for_colour_blind_readers(kind: str, ground: int) -> None:
    nets = [net for net in style.COLOURS if net]
    seen = {net: lab(np.array(BLINDNESS[kind]) @ linear(style.COLOURS[net][ground])) for net in nets}
    for one, other in itertools.combinations(nets, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 15, (one, other)


def test_every_net_and_scale_of_the_paper_has_its_sign() -> None:
    assert set(paper.NETS) | {""} == set(style.COLOURS)
    assert {row.labels["S"] for row in paper.rows(3)} == set(style.MARKERS) == set(style.DASHES)
    assert len({light for light, _ in style.COLOURS.values()}) == len(style.COLOURS)


def test_the_same_frame_gives_the_same_bytes_whatever_the_users_settings() -> None:
    frame = table3({("A", "256"): 30.0, ("D", "256"): 27.0})
    first = figures.against_depth(frame, TOP1)
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path", "axes.grid": False, "svg.hashsalt": None}):
        second = figures.against_depth(frame, TOP1)
        assert style.svg(second) == style.svg(first)
        assert style.png(second) == style.png(first)
    text = style.svg(first)
    assert "date" not in text.lower()
    assert matplotlib.__version__ not in text


def test_letters_of_an_svg_are_letters() -> None:
    root = ET.fromstring(style.svg(figures.against_depth(table3({("A", "256"): 30.0}), TOP1)))
    texts = {"".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"A-LRN", "19", "net, weight layers", "top-1 error (%)", "the paper"} <= texts


def test_a_png_is_on_white_at_print_resolution() -> None:
    image = Image.open(io.BytesIO(style.png(figures.against_depth(table3({("A", "256"): 30.0}), TOP1))))
    assert image.size == (round(200 * style.WIDTH), round(200 * style.HEIGHT))
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_a_files_title_names_the_data_and_hides_nothing() -> None:
    frame = table3({("A", "256"): 30.0})
    plain, titled = figures.against_depth(frame, TOP1), figures.against_depth(frame, TOP1)
    style.titled(titled, "Error against depth", "photos, n = 18 validation images")
    text = style.svg(titled)
    assert "Error against depth" in text
    assert "photos, n = 18 validation images" in text
    assert titled.get_figheight() == plain.get_figheight() + style.TITLE
    drawn = style.titled(training_figures.filters(np.zeros((8, 3, 3, 3))), "A-256", "photos")
    assert drawn.axes[0].get_position().y1 < 0.8
