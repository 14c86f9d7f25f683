"""Stands in for Slurm's sbatch: runs each task of an array at once and prints the array's number.

A dependency must name tasks that have ended well before. FOLDER/tasks holds a line for each of those.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def main(words: list[str]) -> int:
    options = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    folder = Path(os.environ["SBATCH_FOLDER"])
    ended = (folder / "tasks").read_text().split() if (folder / "tasks").exists() else []
    kind, *needed = options.get("dependency", "afterok").split(":")
    assert kind == "afterok" and set(needed) <= set(ended), (needed, ended)
    number = len({task.split("_")[0] for task in ended}) + 1
    script = sys.stdin.read()
    first, last = map(int, options["array"].split("-"))
    for task in range(first, last + 1):
        environment = os.environ | {"SLURM_ARRAY_TASK_ID": str(task)}
        subprocess.run(["sh", "-c", script], env=environment, stdout=sys.stderr, check=True)
        with open(folder / "tasks", "a") as file:
            file.write(f"{number}_{task}\n")
    print(number)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
