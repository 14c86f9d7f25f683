"""Arguments: a data set's and a run's folder. Evaluates, killed again and again, each time a little later.

Prints how often it was killed before one evaluation came to its end.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from evaluations import BOTH
from nets import CPU

from vggrepro.data.dataset import load
from vggrepro.evaluation import evaluate as stage
from vggrepro.evaluation.evaluate import evaluate
from vggrepro.runs.folder import RunFolder


def evaluation() -> int:
    """A child that evaluates: its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        evaluate(RunFolder(Path(sys.argv[2])), load(Path(sys.argv[1])), BOTH, replace(CPU, workers=2))
        code = 0
    finally:
        os._exit(code)


def ended(child: int, seconds: float) -> int:
    """The child's exit code; it is killed if it takes longer."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


torch.set_num_threads(1)  # a forked process has none of its parent's threads
stage.PART_IMAGES = {"cpu": (3, 3)}
chance, kills = random.Random(0), 0
while (code := ended(evaluation(), chance.uniform(0, 0.1 + 0.03 * kills))) == -signal.SIGKILL:
    kills += 1
assert code == 0, code
print(kills)
