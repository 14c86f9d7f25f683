"""Opens a transfer set by its folder or its name."""

from __future__ import annotations

from pathlib import Path

from vggrepro.data.transfer_sets import DOWNLOADS, NAMES, caltech, voc
from vggrepro.data.transfer_sets.base import TransferSet
from vggrepro.errors import InputError


def open_set(text: str, task: str = "classification", downloads: Path = Path("downloads")) -> TransferSet:
    """The transfer set that `--data` names: a folder, or a name of `NAMES`, which torchvision downloads.

    Raises:
        InputError: nothing there, no known layout, several sets, or a damaged one.
    """
    root = _downloaded(text, downloads.expanduser()) if text in DOWNLOADS and not Path(text).exists() else _root(text)
    if root.name not in caltech.FOLDERS:
        return voc.read(root, task)
    if task != "classification":
        raise InputError(f"--task {task}: only VOC has it; {root} is {caltech.FOLDERS[root.name]}")
    return caltech.read(root)


def _root(text: str) -> Path:
    folder = Path(text)
    if not folder.is_dir():
        raise InputError(
            f"--data {text} is no folder; give the official folder of a data set or one of {', '.join(NAMES)}"
        )
    found = list(dict.fromkeys([*caltech.find(folder), *voc.find(folder)]))
    if len(found) > 1:
        raise InputError(f"--data {text} holds several data sets; give one, such as {found[0]}")
    if found:
        return found[0]
    if packed := sorted(path.name for name in caltech.FOLDERS for path in folder.glob(f"{name}.tar*")):
        raise InputError(f"--data {text} holds {packed[0]}; unpack it ('tar xf {packed[0]}') and give the folder")
    raise InputError(
        f"--data {text} has none of the known layouts: {', '.join(caltech.FOLDERS)} (Caltech), VOC2007 or VOC2012 with "
        "ImageSets/ (VOCdevkit)"
    )


def _downloaded(name: str, downloads: Path) -> Path:
    """The folder of a data set by name, downloaded by torchvision unless it is there."""
    kind, parts, place, site = DOWNLOADS[name]
    root = downloads / place
    if (root / "ImageSets").is_dir() or (root.name in caltech.FOLDERS and root.is_dir()):
        return root
    from torchvision import datasets  # here, as it takes a second

    try:
        for arguments in parts:
            getattr(datasets, kind)(downloads, download=True, **arguments)
    except Exception as error:  # torchvision raises whatever its parsers and the network do
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"torchvision cannot download {name} ({cause}); try again, or get it from {site} and unpack it to {root}"
        ) from None
    return root
