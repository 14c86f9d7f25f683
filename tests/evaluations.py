"""What the tests of evaluate share."""

from __future__ import annotations

import numpy as np
import pytest

from vggrepro.evaluate import Protocol
from vggrepro.evaluator import Gathering

# Files


BOTH = Protocol(methods=("dense", "multicrop"), qs=(224, 256), grid=2)


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Records the method and the number of images of each part that is computed."""
    calls: list[tuple[str, int]] = []
    real = Gathering.finish

    def counted(self: Gathering) -> np.ndarray:
        result = real(self)
        calls.append((self._how[0], len(result)))
        return result

    monkeypatch.setattr(Gathering, "finish", counted)
    return calls
