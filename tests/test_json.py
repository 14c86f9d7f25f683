"""`--format json`: one value that a program reads, with the keys that docs/json.md names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from conftest import Call
from nets import random_run

from vggrepro.data.dataset import Dataset
from vggrepro.report.records import json_text

GUIDE = (Path(__file__).parent.parent / "docs" / "json.md").read_text(encoding="utf-8")


def documented(command: str) -> list[str]:
    row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{command}"))
    return re.findall(r"`(\w+)`", row.split("|")[3])


def test_every_command_prints_the_documented_keys(vggrepro: Call, dataset: Dataset, photos: Path) -> None:
    def read(*words: str) -> Any:
        code, out, _ = vggrepro(*words, "--format", "json")
        assert code == 0
        return json.loads(out)

    for name in ("A-256", "B-256"):
        random_run(Path("runs") / name, net=name[0])
    image = str(photos / "val" / "bee" / "0.jpg")
    calls = {
        "evaluate": ["evaluate", "--workers", "1"],
        "status": ["status"],
        "predict": ["predict", image, "--run", "A-256"],
        "doctor": ["doctor"],
    }
    for name, words in calls.items():
        rows = read(*words)
        assert rows and all(list(row) == documented(name) for row in rows), name
    fused = read("fuse", "A-256", "B-256")
    assert [list(fused[name][0]) for name in fused] == [documented("fuse")[1:7], documented("fuse")[8:]]
    about = read("dataset")
    assert list(about) == documented("dataset")
    assert about["images"] == {"train": 30, "val": 18, "test": 0} or about["images"] == {"train": 30, "val": 18}
    first = next(row for row in read("claims") if row["claim"] == 1)
    assert first["verdict"] == "not run" and first["p"] is None


def test_what_is_missing_is_null() -> None:
    frame = pd.DataFrame({"a": [1.5, float("nan")], "b": pd.array([1, None], "Int64"), "c": [np.float32(0.5), None]})
    assert json.loads(json_text(frame)) == [{"a": 1.5, "b": 1, "c": 0.5}, {"a": None, "b": None, "c": None}]
