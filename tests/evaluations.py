"""What the tests of evaluate share."""

from __future__ import annotations

import numpy as np
import pytest

from vggrepro.evaluation.evaluator import Batcher
from vggrepro.posteriors.protocol import Protocol

# Files


BOTH = Protocol(methods=("dense", "multicrop"), qs=(224, 256), grid=2)


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Records the method and the number of images of each part that is computed."""
    calls: list[tuple[str, int]] = []
    real = Batcher.finish

    def counted(self: Batcher) -> np.ndarray:
        result = real(self)
        calls.append((self._method.name, len(result)))
        return result

    monkeypatch.setattr(Batcher, "finish", counted)
    return calls
