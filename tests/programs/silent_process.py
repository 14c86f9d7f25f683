"""Two of torchrun's processes. The second is late at a barrier, and then silent, as if its machine were lost."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import torch

from vggrepro.system import processes

processes.MESSAGE = timedelta(seconds=1)
processes.join_processes(torch.device("cpu"))
if not processes.is_first():
    time.sleep(2)
    processes.barrier()
    time.sleep(4)
    os._exit(0)
processes.barrier()
print("the barrier waited")
try:
    processes.sum_over_processes([torch.zeros(3)])
except Exception as error:
    print("lost" if processes.is_lost_process(error) else error, flush=True)
os._exit(0)
