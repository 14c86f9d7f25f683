"""Where images come from: a module for each layout, and `open_source`, which tells them apart."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from vggrepro.data.sources.base import VAL_ONLY, Example, Source
from vggrepro.data.sources.demo import DemoSource
from vggrepro.data.sources.folders import FolderSource
from vggrepro.data.sources.hub import repository, snapshot
from vggrepro.data.sources.ilsvrc import IlsvrcSource
from vggrepro.data.sources.listing import subfolders
from vggrepro.data.sources.numbered import NumberedSource
from vggrepro.data.sources.parquet import ParquetSource
from vggrepro.data.sources.tiny_imagenet import TinyImageNetSource
from vggrepro.data.sources.torchvision import NAMES as DOWNLOADED
from vggrepro.data.sources.torchvision import NamedSource, open_named
from vggrepro.data.sources.webdataset import WebDatasetSource
from vggrepro.errors import InputError

__all__ = [
    "DOWNLOADED",
    "DemoSource",
    "Example",
    "FolderSource",
    "IlsvrcSource",
    "ParquetSource",
    "Source",
    "open_source",
]

MOST_BELOW = 50  # subfolders in which a layout is searched
LAYOUTS: tuple[type[Source], ...] = (  # asked in this order
    IlsvrcSource,
    TinyImageNetSource,
    NumberedSource,
    FolderSource,
    WebDatasetSource,
    ParquetSource,
)


def open_source(text: str, seed: int = 0, downloads: Path = Path("downloads"), *, val_only: bool = False) -> Source:
    """The source that SOURCE names on the command line; a folder of such a name is given as `./mnist`.

    Args:
        seed: of the demo's images.
        downloads: where data sets given by name are downloaded to.
        val_only: take the validation images alone, whether others are there or not.

    Raises:
        InputError: nothing there, or no known layout.
    """
    if text == "demo":
        return DemoSource(seed, val_only=val_only)
    if text in DOWNLOADED:
        return open_named(text, downloads.expanduser(), val_only=val_only)
    folder = snapshot(Path(text))
    if not folder.exists():
        if near := get_close_matches(text.lower(), DOWNLOADED, n=1, cutoff=0.75):
            raise InputError(f"prepare: '{text}' does not exist; did you mean {near[0]}?")
        raise InputError(f"prepare: '{text}' does not exist; give 'demo', a folder or {NamedSource.layout}")
    if not folder.is_dir():
        raise InputError(f"prepare: '{text}' is a file; give the folder that holds it")
    if source := _recognised(folder, val_only):
        opened = source(folder, val_only=val_only)  # type: ignore[call-arg]
        opened.name = repository(opened.name, folder)
        return opened
    if not val_only and _recognised(folder, val_only=True):
        raise InputError(
            f"prepare: '{text}' has a validation folder but no train/; put training images there, or {VAL_ONLY}"
        )
    above = [folder.resolve().parent, folder.resolve().parent.parent]
    below = subfolders(folder)[:MOST_BELOW]
    for place in map(snapshot, (*above, *below)):
        if near_source := _recognised(place, val_only):
            raise InputError(f"prepare: '{text}' has no known layout, but {place} has: {near_source.layout}; give that")
    raise InputError(f"prepare: '{text}' has no known layout; {_known()}")


def _recognised(folder: Path, val_only: bool) -> type[Source] | None:
    try:
        return next((source for source in LAYOUTS if source.recognises(folder, val_only)), None)
    except OSError:  # a folder that may not be read
        return None


def _known() -> str:
    return "known layouts: " + "; ".join(["'demo'", *(source.layout for source in LAYOUTS), NamedSource.layout])
