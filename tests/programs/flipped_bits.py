"""Argument: a data set's folder. Flips bits in a shard 300 times; prints "whole" or what reading says, a line each."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from vggrepro.data.dataset import Split, load
from vggrepro.errors import InputError


def read_all(folder: Path) -> str:
    """Everything in `val`: "whole", or why not."""
    try:
        split = Split(load(folder), "val")
        for index in range(len(split)):
            assert split.key(index) and split.image(index).size
    except InputError as error:
        return str(error)
    return "whole"


folder = Path(sys.argv[1])
path = folder / "val-00000.arrow"
whole, chance = path.read_bytes(), random.Random(1)
outline = [*range(2000), *range(len(whole) - 3000, len(whole))]  # schema, offsets, keys; sizes, footer
for _ in range(300):
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 4))):
        data[chance.choice(outline)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    print(read_all(folder))
