"""Where images come from: a module for each layout, and `open_source`, which tells them apart."""

from __future__ import annotations

from pathlib import Path

from vggrepro.errors import InputError
from vggrepro.sources.base import TRAIN_NAMES, Example, Source
from vggrepro.sources.demo import DemoSource
from vggrepro.sources.folders import FolderSource
from vggrepro.sources.parquet import ParquetSource

__all__ = ["DemoSource", "Example", "FolderSource", "ParquetSource", "Source", "open_source"]

LAYOUTS = """known layouts: 'demo'; a folder with train/<class>/ and val/<class>/ image folders; \
a folder of Hugging Face parquet files (train-*.parquet, validation-*.parquet)"""


def open_source(text: str, seed: int = 0) -> Source:
    """The source that SOURCE names on the command line.

    Raises:
        InputError: nothing there, or no known layout.
    """
    if text == "demo":
        return DemoSource(seed)
    folder = Path(text)
    if not folder.exists():
        raise InputError(f"prepare: '{text}' does not exist; give 'demo' or a folder ({LAYOUTS})")
    if not folder.is_dir():
        raise InputError(f"prepare: '{text}' is a file; give the folder that holds it ({LAYOUTS})")
    training = [folder / name for name in TRAIN_NAMES if (folder / name).is_dir()]
    if training and not any(training[0].glob("*.parquet")):
        return FolderSource(folder)
    if any(folder.rglob("*.parquet")):
        return ParquetSource(folder)
    raise InputError(f"prepare: '{text}' has no known layout; {LAYOUTS}")
