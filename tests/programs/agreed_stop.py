"""Two of torchrun's processes of which the second is interrupted: each prints the signal that they agree on."""

from __future__ import annotations

import os
import signal

import torch

from vggrepro.system import processes
from vggrepro.system.interrupt import StopRequest

processes.join_processes(torch.device("cpu"))
with StopRequest() as request:
    before = request.agreed(torch.device("cpu"))
    if processes.rank() == 1:
        os.kill(os.getpid(), signal.SIGINT)
    print(int(before), int(request.agreed(torch.device("cpu"))))
processes.leave_processes()
