"""The rank of an image's true class, and the errors that follow from ranks (Sect. 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vggrepro.paper import TOP_K


@dataclass(frozen=True, slots=True)
class Score:
    """Errors over `images` labelled images, in per cent; `top5` is None for K <= 5, where it has no meaning."""

    images: int
    top1: float
    top5: float | None


def true_ranks(posteriors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rank of the true class, 0 is best: (n, K), (n,) in [0, K) -> (n,) int32. Ties are broken by class order.

    Numbers that cannot be compared (NaN) come before the true class, so that the image counts as wrong.
    """
    rows = np.arange(len(posteriors))
    true = posteriors[rows, labels][:, None]
    result = _count(~(posteriors <= true))
    ties = _count(posteriors == true)
    for row in np.flatnonzero(ties > 1):
        result[row] += np.count_nonzero(posteriors[row, : labels[row]] == true[row])
    return result


def _count(mask: np.ndarray) -> np.ndarray:
    """How many of each row are true: (n, K) bool -> (n,) int32. Adding bytes is much faster than counting booleans."""
    return mask.view(np.uint8).sum(axis=1, dtype=np.uint16 if mask.shape[1] < 1 << 16 else np.uint32).astype(np.int32)


def score_of(ranks: np.ndarray, classes: int) -> Score:
    """Errors in per cent from the ranks (images,) of the true classes; at least one image."""
    top5 = 100 * float((ranks >= TOP_K).mean()) if classes > TOP_K else None
    return Score(len(ranks), 100 * float((ranks >= 1).mean()), top5)
