"""The report as one self-contained HTML page: no network, no fonts from elsewhere, works without JavaScript.

docs/report.md says what it shows and how to read it.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from string import Template

from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.posteriors.protocol import SPLIT
from vggrepro.report import style
from vggrepro.report.page import provenance, sections
from vggrepro.report.page.contents import Contents, contents_of
from vggrepro.report.page.drawings import Drawing, drawings
from vggrepro.report.page.html import colour_variables, escape, paragraph
from vggrepro.report.page.words import words
from vggrepro.system.files import atomic, write_text

ERRORS = (
    "Filled: ours with its 95 % interval or, over several seeds, the mean with a small point for each. Hollow, on "
    "broken lines: the paper's. A net has one colour and a training scale S one marker throughout. Where ours and the "
    "paper's lie far apart, each has axes of its own. Only bars begin at zero. The claims test whether two rows "
    "differ: they compare both on the same images."
)
TRAINING = (
    "Above: the mean training loss of each epoch; the thin line is the loss within epochs. Below: errors on central "
    "crops of validation images, or of held-out training images, measured after each epoch. A dotted line is a drop "
    "of the learning rate, with the new rate. `vggrepro evaluate --split train` measures how far the validation error "
    "is above the training error; this page then shows it under Beyond the paper."
)
FILTERS = (
    "Each small square is a filter over R, G, B, in the order of the weights file; grey is zero, and each filter has a "
    "scale of its own. A run that starts from another run begins with the filters of that run, in the same places, and "
    "changes them little. So only the first and the last run of each chain are shown."
)
BESIDE = (
    "Ours are the runs of this page, theirs those of `{folder}`, both on the same images. Δ = ours − theirs in points, "
    "with Tango's 95 % interval. p is McNemar's exact one, uncorrected."
)


def page(runs: Path, dataset: Dataset, against: Path | None = None) -> str:
    """The page as text. The same files give the same text.

    Args:
        runs: the folder of run folders.
        dataset: the data set whose `val` split was scored; its images are shown if they are there.
        against: another folder of runs on the same data; a section compares them with these.

    Raises:
        InputError: no images or no labels to score.
    """
    contents = contents_of(runs, dataset, other=against)
    made = {name: body for name, body in _bodies(contents, against).items() if body}
    here = files(__package__)
    style = (here / "page.css").read_text(encoding="utf-8")
    style = style.replace("/*light*/", colour_variables(dark=False)).replace("/*dark*/", colour_variables(dark=True))
    return Template((here / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(contents.header.title),
        style=style,
        script=(here / "page.js").read_text(encoding="utf-8"),
        navigation="".join(f'<a href="#{name}">{title}</a>' for name, title in made),
        summary=sections.summary(contents),
        sections="\n".join(sections.section(*name, body) for name, body in made.items()),
    )


def _bodies(contents: Contents, against: Path | None) -> dict[tuple[str, str], str]:
    """The contents of each section by its id and title; empty if there is nothing to show."""
    document = contents.document
    drawn = drawings(contents)
    grids = {
        name: sections.grid([one for one in drawn if one.section == name], kind)
        for name, kind in (
            ("claims", ""),
            ("errors", ""),
            ("classes", "whole"),
            ("calibration", ""),
            ("training", ""),
            ("filters", "small"),
            ("nets", ""),
        )
    }
    beside = sections.beyond_tables(contents.beside, "against-")
    return {
        ("claims", "Claims"): sections.claims_section(document.findings, grids["claims"]),
        ("tables", "Tables"): sections.tables(document.tables, contents.header),
        ("against", "Two reproductions"): beside and paragraph(BESIDE.format(folder=against)) + beside,
        ("errors", "Errors"): grids["errors"] and paragraph(ERRORS) + grids["errors"],
        ("classes", "Classes"): sections.classes(contents, grids["classes"]),
        ("calibration", "Calibration"): sections.calibration(contents, grids["calibration"]),
        ("beyond", "Beyond the paper"): sections.beyond_tables(document.beyond_tables),
        ("training", "Training"): grids["training"] and paragraph(TRAINING) + grids["training"],
        ("filters", "First layer"): grids["filters"] and paragraph(FILTERS) + grids["filters"],
        ("mistakes", "Mistakes"): sections.mistakes(contents),
        ("nets", "The nets"): sections.beyond_tables(document.nets) + grids["nets"],
        ("words", "Words"): words(contents.header),
        ("provenance", "Provenance"): provenance.provenance(contents),
    }


def write_figures(runs: Path, dataset: Dataset, folder: Path) -> list[Path]:
    """Writes every figure of the page as PNG and SVG, `<name>.png` and `<name>.svg`; returns their paths.

    Raises:
        InputError: as `page`; `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--figures {folder} is a file; give a folder")
    paths = []
    for one in drawings(contents_of(runs, dataset, images=False)):
        drawn = style.titled(one.draw(), one.title, _measured_on(dataset, one))
        paths += [folder / f"{one.name}.png", folder / f"{one.name}.svg"]
        with atomic(paths[-2]) as temporary:
            temporary.write_bytes(style.png(drawn))
        write_text(paths[-1], style.svg(drawn, style.GROUND))
    return paths


def _measured_on(dataset: Dataset, drawing: Drawing) -> str:
    """One line on the data of a figure. A figure in a file needs it: no page around it names the data."""
    if drawing.section == "filters":
        return dataset.name
    split = "train" if drawing.section == "training" else SPLIT
    words = {"train": "training", SPLIT: "validation"}
    return f"{dataset.name}, n = {dataset.counts[split]:,} {words[split]} images of {len(dataset.classes):,} classes"
