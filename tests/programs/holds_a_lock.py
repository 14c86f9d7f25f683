"""Argument: a folder. Locks it, says so and sleeps."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from vggrepro.system.files import lock

with lock(Path(sys.argv[1]), "vggrepro train E"):
    print("locked", flush=True)
    time.sleep(60)
