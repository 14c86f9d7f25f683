"""Arguments: a command line. Runs it and fails if it imported one of the large libraries."""

from __future__ import annotations

import sys

from vggrepro.cli import main

try:
    main()
except SystemExit as end:
    assert not end.code, end
found = {"torch", "pandas", "pyarrow", "scipy"} & sys.modules.keys()
assert not found, found
