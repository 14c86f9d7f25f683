"""The HTML report in a real browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


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
def show(browser: Browser, page_text: str, tmp_path: Path) -> Iterator[Any]:
    """Opens the page with these settings; any complaint of the browser or request beyond the file is an error."""
    path = tmp_path / "report.html"
    path.write_text(page_text, encoding="utf-8")
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


CUT = """() => [...document.querySelectorAll(".scroll, .scroll *, main p, main li, figure")]
  .filter(one => getComputedStyle(one).display !== "inline" && one.scrollWidth > one.clientWidth + 1 && one.clientWidth)
  .map(one => one.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (360, "dark"), (800, "light"), (1280, "dark")])
def test_nothing_is_cut_or_scrolls_sideways(show: Any, width: int, scheme: str) -> None:
    tab = show(viewport={"width": width, "height": 844}, color_scheme=scheme)
    tab.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    if width <= 360:
        assert tab.evaluate(CUT) == []
        letters = "all => Math.min(...all.map(one => one.getBoundingClientRect().height))"
        assert tab.locator("#depth-top-1 svg text").evaluate_all(letters) >= 9
    if width == 1280:
        assert tab.locator("#table3 .scroll").evaluate("one => one.scrollWidth <= one.clientWidth")


def test_on_a_telephone_a_row_is_a_card_with_its_headings(show: Any) -> None:
    tab = show(viewport={"width": 360, "height": 844})
    row = tab.locator("#table3 tbody tr").first
    assert row.locator("th").inner_text() == "A"
    shown = "all => all.filter(one => one.offsetWidth).map(one => one.dataset.of)"
    cells = row.locator("td").evaluate_all(shown)
    assert cells[:4] == ["S", "Q", "top-1 ours", "top-1 95 %"]
    assert not tab.locator("#table3 thead").is_visible()


def test_comparisons_take_the_whole_width(show: Any) -> None:
    tab = show(viewport={"width": 1280, "height": 844})
    claim = tab.locator("#claims ol > li").nth(5)
    claim.locator("summary").click()
    box = claim.locator(".scroll")
    assert box.evaluate("one => one.scrollWidth <= one.clientWidth")  # no column is hidden
    assert claim.evaluate("one => one.offsetWidth") > 1100
    heads = claim.locator("thead th").all_inner_texts()
    assert [head.strip() for head in heads][-3:] == ["p", "p after Holm", "verdict"]


def test_a_figure_is_enlarged_by_click_and_by_keyboard(show: Any) -> None:
    tab = show(viewport={"width": 1280, "height": 844})
    small = tab.locator("#depth-top-1 > svg").bounding_box()["width"]
    button = tab.get_by_role("button", name="Enlarge: Top-1 error against depth")
    button.focus()
    tab.keyboard.press("Enter")
    dialog = tab.get_by_role("dialog", name="Top-1 error against depth")
    assert dialog.locator("svg").bounding_box()["width"] > 1.5 * small
    assert dialog.get_by_role("button", name="Close").evaluate("one => one === document.activeElement")
    tab.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert tab.locator("#depth-top-1 > svg").bounding_box()["width"] == small
    assert button.evaluate("one => one === document.activeElement")
    tab.locator("#depth-top-1 > svg").click()
    assert dialog.is_visible()
    dialog.locator("svg").click()
    assert not dialog.is_visible()


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
    if (ink === "rgb(254, 254, 254)") continue;  // it stands on a strong colour of a picture: test_style.py
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
    assert not tab.locator(".enlarge").first.is_visible()
    printed = tab.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 3
