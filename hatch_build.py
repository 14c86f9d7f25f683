"""Metadata of a built package: a README whose links also work elsewhere, and the address of the repository."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# The address of the repository's pages, for links; set it where a release is built. Without it, links become words.
ADDRESS = "VGGREPRO_REPOSITORY"
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


class ReadmeHook(MetadataHookInterface):
    """Hatch's custom metadata hook: fills in `readme` and `urls`.

    Both are dynamic, so that a wheel built from a source distribution takes them from there.
    """

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets the README with absolute links; with an address, also the links of the package's page."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        address = os.environ.get(ADDRESS, "")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, address)}
        metadata["urls"] = dict(self.config["urls"])
        if address:
            metadata["urls"] |= {"Repository": address, "Changelog": _file(address, "CHANGELOG.md")}


def _file(address: str, path: str, kind: str = "blob") -> str:
    """The page of a file in the repository; of kind "raw" its bytes."""
    return f"{address.rstrip('/')}/{kind}/HEAD/{path}"


def absolute(text: str, address: str) -> str:
    """Markdown whose relative links lead to the repository at `address`.

    Without an address a relative link is only its words, and a picture is left out: a package index has no files.
    """

    def link(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        if address:
            return f"{picture}[{words}]({_file(address, target, 'raw' if picture else 'blob')})"
        return "" if picture else words

    return LINK.sub(link, text)
