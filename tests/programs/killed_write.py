"""Argument: a file. Writes half of it and is killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from vggrepro.system.files import atomic

with atomic(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
