"""Arguments: a command line. Runs it and fails if it imported torch."""

from __future__ import annotations

import sys

from vggrepro.cli import main

try:
    main()
except SystemExit as end:
    assert not end.code, end
assert "torch" not in sys.modules
