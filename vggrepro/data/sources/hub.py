"""The cache of Hugging Face's hub: `datasets--OWNER--NAME/snapshots/<revision>/…`."""

from __future__ import annotations

from pathlib import Path

from vggrepro.data.sources.base import some
from vggrepro.errors import InputError


def snapshot(folder: Path) -> Path:
    """The files' folder in a data set's folder of the cache: the revision that `refs/main` names, or the only one.

    Any other folder is given back.

    Raises:
        InputError: several revisions, and none that is `main`.
    """
    if not (folder / "snapshots").is_dir():
        return folder
    revisions = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    main = folder / "refs" / "main"
    named = main.read_text(encoding="utf-8", errors="replace").strip() if main.is_file() else ""
    found = [path for path in revisions if path.name == named] or revisions
    if len(found) > 1:
        raise InputError(f"prepare: {folder} holds several revisions; give one of them: {some(list(map(str, found)))}")
    return found[0] if found else folder


def repository(name: str, folder: Path) -> str:
    """A data set's name; that of the hub's repository where it would be the hash of a revision."""
    place = folder.resolve()
    cached = (
        place.name == name and place.parent.name == "snapshots" and place.parent.parent.name.startswith("datasets--")
    )
    return place.parent.parent.name.rpartition("--")[2] if cached else name
