"""Where images come from: a module for each layout, and `open_source`, which tells them apart."""

from __future__ import annotations

from pathlib import Path

from vggrepro.errors import InputError
from vggrepro.sources.base import Example, Source
from vggrepro.sources.demo import DemoSource
from vggrepro.sources.folders import FolderSource
from vggrepro.sources.ilsvrc import IlsvrcSource
from vggrepro.sources.named import NAMES, NamedSource, open_named
from vggrepro.sources.parquet import ParquetSource
from vggrepro.sources.webdataset import WebDatasetSource

__all__ = ["DemoSource", "Example", "FolderSource", "IlsvrcSource", "ParquetSource", "Source", "open_source"]

LAYOUTS: tuple[type[Source], ...] = (IlsvrcSource, FolderSource, WebDatasetSource, ParquetSource)  # asked in this order


def open_source(text: str, seed: int = 0, downloads: Path = Path("downloads")) -> Source:
    """The source that SOURCE names on the command line; a folder of such a name is given as `./mnist`.

    Args:
        seed: of the demo's images.
        downloads: where data sets given by name are downloaded to.

    Raises:
        InputError: nothing there, or no known layout.
    """
    if text == "demo":
        return DemoSource(seed)
    if text in NAMES:
        return open_named(text, downloads.expanduser())
    layouts = [source.layout for source in LAYOUTS]
    known = "; ".join(["known layouts: 'demo'", *layouts, NamedSource.layout])
    folder = Path(text)
    if not folder.exists():
        raise InputError(f"prepare: '{text}' does not exist; give 'demo' or a folder ({known})")
    if not folder.is_dir():
        raise InputError(f"prepare: '{text}' is a file; give the folder that holds it ({known})")
    for source in LAYOUTS:
        if source.recognises(folder):
            return source(folder)  # type: ignore[call-arg]
    raise InputError(f"prepare: '{text}' has no known layout; {known}")
