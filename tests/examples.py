"""What the tests of data sources share: small JPEGs, and what a source gives or says."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import photo
from PIL import Image

from vggrepro.data.sources import Source, open_source
from vggrepro.errors import InputError


def jpeg(label: int, seed: int, mode: str = "RGB", size: tuple[int, int] = (40, 30), form: str = "JPEG") -> bytes:
    """An image file of a class; `size` is (width, height)."""
    buffer = io.BytesIO()
    Image.fromarray(photo(label, seed, *size)).convert(mode).save(buffer, form)
    return buffer.getvalue()


def everything(source: Source, split: str, start: int = 0) -> list[tuple[str, bytes, int]]:
    """Key, bytes and label of each example from number `start` on."""
    return [(example.key, example.data, example.label) for example in source.examples(split, start)]


def message(text: Path | str) -> str:
    """What bad input gives: one line that names the place."""
    return refusal(open_source, str(text))


def refusal(opening: Callable[..., Source], *place: Any) -> str:
    """The line of a source that cannot be opened, or not be read to its end."""
    with pytest.raises(InputError) as error:
        source = opening(*place)
        source.contents()
        for split in ("train", "val", "test"):
            everything(source, split)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("prepare: ")
    return str(error.value)


def alone(text: Path | str) -> Source:
    """The source with --val-only."""
    source = open_source(str(text), val_only=True)
    assert source.val_only
    assert (source.required, source.count("train"), source.count("test")) == (("val",), 0, 0)
    return source
