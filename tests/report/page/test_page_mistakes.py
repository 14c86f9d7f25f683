"""The most confident mistakes and their pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from pages import Reader

from vggrepro.data.dataset import Dataset, Split
from vggrepro.posteriors.files import Rows
from vggrepro.report.page.mistakes import Mistake, most_confident, pictures, whole_rows


def test_the_worst_mistakes_come_first() -> None:
    values = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.8, 0.2], [0.8, 0.2], [1.0, 0.0]])
    labels = np.array([0, 0, 1, 1, 1, -1], np.int32)  # the first is right, the last is unlabelled
    keys = list("abcdef")
    whole = most_confident([Rows(keys, labels, values)], 3)
    assert [(m.key, m.row, m.label, m.predicted, m.posterior, m.true_posterior) for m in whole] == [
        ("b", 1, 0, 1, 0.8, 0.2), ("d", 3, 1, 0, 0.8, 0.2), ("e", 4, 1, 0, 0.8, 0.2),
    ]  # fmt: skip
    parts = [Rows(keys[i : i + 2], labels[i : i + 2], values[i : i + 2]) for i in (0, 2, 4)]
    assert most_confident(parts, 3) == whole
    assert len(most_confident(parts, 10)) == 4
    assert most_confident([], 3) == []


def test_mistakes_are_shown_with_their_images(page_text: str, page_data: Dataset, tmp_path: Path) -> None:
    reader = Reader(page_text)
    images = reader.all("img")
    assert images
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in images)
    split = Split(page_data, "val")
    values = np.eye(6)[(split.labels + 1) % 6]
    found = most_confident([Rows(split.keys(0, 18), split.labels, values)], 2)
    assert all(pictures(page_data, found))
    assert pictures(page_data, [dataclasses.replace(found[0], key="another")]) == [""]
    assert pictures(dataclasses.replace(page_data, folder=tmp_path), found) == ["", ""]


def test_damaged_images_cost_the_pictures_only(
    page_data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "val-00000.arrow").write_bytes(b"no shard")
    mistakes = most_confident([Rows(["a"], np.array([0]), np.array([[0.0, 1.0]]))])
    assert pictures(dataclasses.replace(page_data, folder=tmp_path), mistakes) == [""]
    assert "lacks the images of mistakes" in capsys.readouterr().err


def test_mistakes_fill_their_rows() -> None:
    one = Mistake(0.5, 0, "a", 0, 1, 0.1)
    assert [len(whole_rows([one] * count)) for count in (0, 1, 5, 6, 7, 12, 19, 24)] == [0, 1, 5, 6, 6, 12, 18, 24]
