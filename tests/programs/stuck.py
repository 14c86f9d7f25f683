"""Argument: seconds. A process whose main thread waits in C for ever, as for a GPU whose partner was lost."""

from __future__ import annotations

import ctypes
import sys

from vggrepro.system.interrupt import StopRequest
from vggrepro.system.processes import leave_when_stuck

leave_when_stuck(float(sys.argv[1]))
lock, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
library.pthread_mutex_lock(lock)
with StopRequest():
    print("stuck", flush=True)
    library.pthread_mutex_lock(lock)  # locked already: signals do not end this wait
