"""The script that builds imagenet-20, on a made folder with such names."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vggrepro.errors import InputError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "imagenet20.py"
ROWS = [
    ("train", "n01440764", "n01440764_10026.JPEG"),
    ("train", "n02086240", "ILSVRC2012_val_00000907.JPEG"),
    ("val", "n01440764", "n01440764_2708.JPEG"),
]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("imagenet20", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def names(tmp_path: Path) -> Path:
    """A list of three images, two in imagenette and one in imagewoof, beside one that is not wanted."""
    for split, wnid, file in [*ROWS, ("val", "n01440764", "unwanted.JPEG")]:
        source = tmp_path / ("imagewoof2" if wnid == "n02086240" else "imagenette2")
        path = source / split / wnid / file
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((300, 500, 3), 90, np.uint8)
        pixels[:, 250:] = 200  # the right half stays the right half
        Image.fromarray(pixels).save(path, quality=95)
    columns = dict(zip(("split", "wnid", "file"), map(list, zip(*ROWS, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "names.parquet")
    return tmp_path / "names.parquet"


def test_the_listed_images_are_squashed_to_squares(script: ModuleType, tmp_path: Path, names: Path) -> None:
    sources, to = [tmp_path / "imagenette2", tmp_path / "imagewoof2"], tmp_path / "photos"
    assert script.build(sources, to, names) == 3
    assert {path.relative_to(to).as_posix() for path in to.rglob("*.JPEG")} == {"/".join(row) for row in ROWS}
    for path in to.rglob("*.JPEG"):
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((128, 128), "RGB")
            pixels = np.asarray(image).astype(int)
        assert abs(pixels[:, :60] - 90).max() < 8 and abs(pixels[:, 68:] - 200).max() < 8


def test_images_that_are_there_are_kept(script: ModuleType, tmp_path: Path, names: Path) -> None:
    sources, to = [tmp_path / "imagenette2", tmp_path / "imagewoof2"], tmp_path / "photos"
    script.build(sources, to, names)
    times = {path: path.stat().st_mtime_ns for path in to.rglob("*.JPEG")}
    script.build(sources, to, names)
    assert {path: path.stat().st_mtime_ns for path in to.rglob("*.JPEG")} == times


def test_a_missing_image_is_named_before_anything_is_written(script: ModuleType, tmp_path: Path, names: Path) -> None:
    with pytest.raises(InputError, match=r"train/n02086240/ILSVRC2012_val_00000907.JPEG is not in .*imagenette2"):
        script.build([tmp_path / "imagenette2"], tmp_path / "photos", names)
    assert not (tmp_path / "photos").exists()


def test_the_committed_list_has_the_sets_counts(script: ModuleType) -> None:
    rows = pq.read_table(script.LIST).to_pandas()
    assert rows["split"].value_counts().to_dict() == {"train": 18162, "val": 6491}
    assert rows["wnid"].nunique() == 20
    assert not rows.duplicated().any()
