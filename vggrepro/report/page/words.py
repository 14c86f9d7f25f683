"""The words of the page, explained in a sentence or two for readers who do not know the paper."""

from __future__ import annotations

from vggrepro.report.header import Header
from vggrepro.report.page.html import prose


def words(header: Header) -> str:
    """A list of words and what they mean on this page."""
    classes = len(header.dataset.classes)
    meanings = {
        "Posterior": "The net's probability of a class. Over all classes it sums to 1.",
        "Top-1 error": "The share of the images whose class of the largest posterior is wrong, in per cent.",
        "Top-5 error": "The share of the images whose true class is not among the five of the largest posteriors, in "
        "per cent. With five classes or fewer it has no meaning.",
        "Guessing": f"The error of an answer drawn at random: {header.chance:.1f} % with {classes:,} classes. A net "
        "with this error has learned nothing.",
        "A to E": "The paper's nets, from 11 weight layers (A) to 19 (E). A-LRN is A with one normalisation layer. C "
        "and D have 16 layers each; three of C's see single pixels (1 × 1).",
        "S": "The training scale: the shorter side of a training image, in pixels, before a crop of it is cut. "
        "[256;512] means that each image gets an S of its own, drawn again each time (scale jitter).",
        "Q": "The test scale: the shorter side of a test image, in pixels. S and Q are the paper's pixels; a smaller "
        "net uses smaller real lengths in the same proportion.",
        "Dense": "The net runs over the whole test image. It gives scores at many places, and their mean decides.",
        "Multi-crop": "The net sees many crops of the test image, 50 at each Q. The mean of their posteriors decides.",
        "Fusion": "The posteriors of several nets are averaged, and the mean decides.",
        "95 % interval": "Other images of the same kind would give another error. The interval says by how much, with "
        "95 % certainty. It does not say how much another training of the net would change.",
        "Δ and points": "A difference of two errors. From 30 % to 28 % it is −2 points.",
        "p": "How likely a difference as large as this one is if the two are in truth equal. Below 0.05 a difference "
        "counts as found.",
        "Holm's correction": "Of many tests, some look good by chance. The correction makes each p larger, so that at "
        "most one page in twenty has a false finding.",
        "Seed": "The number that all random choices of a training follow from. The same seed gives the same net.",
        "Rank correlation": "Whether two lists of numbers have the same order: 1 is the same, 0 has nothing in common, "
        "−1 is the reverse.",
        "Calibration": "Whether the net is right as often as it says: of all answers with a posterior near 0.8, "
        "80 % should be right.",
    }
    return f"<dl>{''.join(f'<div><dt>{name}</dt><dd>{prose(text)}</dd></div>' for name, text in meanings.items())}</dl>"
