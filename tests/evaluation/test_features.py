"""Features against a plain loop over torchvision's modules; files that go stale, resume and are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Call
from nets import CPU, images, net_input, random_run
from torchvision.models.vgg import make_layers
from transfer_files import write_caltech

from vggrepro.data.transfer_sets.opening import open_set
from vggrepro.evaluation.features import DENSE, FeatureNet, compute
from vggrepro.nets.trained import Trained
from vggrepro.posteriors import features as files
from vggrepro.runs.folder import RunFolder
from vggrepro.system import processes


def by_torchvision(run: RunFolder, image: np.ndarray) -> np.ndarray:
    """fc7 of one image by torchvision's layers, a crop of fc6's field at a time, averaged, of unit length."""
    tensors = Trained.load(run).tensors
    convs = [name for name in tensors if name.startswith("conv") and name.endswith("weight")]
    plan: list[str | int] = []
    for name, following in zip(convs, [*convs[1:], "end"], strict=True):
        plan += [len(tensors[name]), *(["M"] if following[:5] != name[:5] else [])]
    layers = make_layers(plan).eval()  # type: ignore[arg-type]
    ours = [tensors[name.replace("weight", end)] for name in convs for end in ("weight", "bias")]
    layers.load_state_dict(dict(zip(layers.state_dict(), ours, strict=True)))
    found = []
    with torch.inference_mode():
        for pixels in (image, image[:, ::-1]):
            maps = layers(net_input(pixels))
            places = [(top, left) for top in range(maps.shape[2] - 1) for left in range(maps.shape[3] - 1)]
            for top, left in places:
                x = maps[:, :, top : top + 2, left : left + 2].flatten(1)
                for name in ("fc6", "fc7"):
                    x = torch.nn.functional.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"]).relu()
                found.append(x[0].numpy() / len(places))
    mean = np.sum(found, axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def test_features_of_twenty_images_equal_a_loop_over_torchvisions_modules(run: RunFolder) -> None:
    net = FeatureNet(Trained.load(run), CPU)
    pictures = images(20)
    result = files.normalised(net.posteriors(pictures, DENSE))
    np.testing.assert_allclose(result, [by_torchvision(run, picture) for picture in pictures], atol=1e-5)
    assert np.ptp(result, axis=0).max() > 0.05  # the images do differ


def test_files_are_fresh_until_weights_or_pictures_change(run: RunFolder, tmp_path: Path) -> None:
    root = write_caltech(tmp_path)
    paths = compute(run, open_set(str(root)), (256, 384), CPU)
    assert [path.name for path in paths] == ["caltech-101-q256.parquet", "caltech-101-q384.parquet"]
    times = [path.stat().st_mtime_ns for path in paths]
    compute(run, open_set(str(root)), (256, 384), CPU)
    assert [path.stat().st_mtime_ns for path in paths] == times
    assert not (run.path / "features" / "parts").exists()
    (root / "class1" / "image_0001.jpg").write_bytes((root / "class2" / "image_0001.jpg").read_bytes())
    compute(run, open_set(str(root)), (256,), CPU)
    random_run(run.path, seed=1)
    compute(run, open_set(str(root)), (384,), CPU)
    now = [path.stat().st_mtime_ns for path in paths]
    assert now[0] > times[0]
    assert now[1] > times[1]
    assert files.read_origin(paths[1]).weights == run.weights_hash()


def test_pooled_features_are_the_same_from_files_as_from_scratch(run: RunFolder, tmp_path: Path) -> None:
    data = open_set(str(write_caltech(tmp_path)))
    (first,) = compute(run, data, (256, 384), CPU, pool=True)
    made = np.concatenate([batch.features for batch in files.read(first)])
    first.unlink()
    singles = compute(run, data, (256, 384), CPU)
    parts = [np.concatenate([batch.features for batch in files.read(path)]) for path in singles]
    mean = (parts[0] + parts[1]) / 2
    np.testing.assert_allclose(made, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    (again,) = compute(run, data, (256, 384), CPU, pool=True)
    assert again == first
    np.testing.assert_array_equal(np.concatenate([batch.features for batch in files.read(again)]), made)


def test_a_part_that_a_kill_left_is_not_computed_again(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vggrepro.evaluation import features as stage

    data = open_set(str(write_caltech(tmp_path, classes=3, per_class=30)))
    monkeypatch.setattr(stage, "part_images", lambda *_: 32)
    written = 0
    write = files.write

    def stops(*arguments: object) -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise KeyboardInterrupt
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "write", stops)
    with pytest.raises(KeyboardInterrupt):
        compute(run, data, (256,), CPU)
    monkeypatch.setattr(files, "write", write)
    part = next((run.path / "features" / "parts").rglob("*.parquet"))
    passed: list[int] = []
    normalised = files.normalised
    monkeypatch.setattr(files, "normalised", lambda x: passed.append(len(x)) or normalised(x))
    assert part.is_file()
    (path,) = compute(run, data, (256,), CPU)
    assert passed == [32, 26]  # of 90 pictures
    whole = np.concatenate([batch.features for batch in files.read(path)])
    net = FeatureNet(Trained.load(run), CPU)
    assert whole.shape == (90, net.outputs)


def test_processes_share_the_parts_and_the_first_joins_them(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torchrun's processes do, one after the other: the second leaves its parts, the first makes the file."""
    from vggrepro.evaluation import features as stage

    data = open_set(str(write_caltech(tmp_path, classes=3, per_class=4)))
    monkeypatch.setattr(stage, "part_images", lambda *_: 5)
    (alone,) = compute(run, data, (256,), CPU)
    expected = list(files.read(alone))
    alone.unlink()
    monkeypatch.setattr(processes, "world", lambda: 2)
    monkeypatch.setattr(processes, "barrier", lambda: None)
    monkeypatch.setattr(processes, "rank", lambda: 1)
    compute(run, data, (256,), CPU)
    assert [path.name for path in alone.parent.rglob("*.parquet")] == ["from-00000005.parquet"]
    monkeypatch.setattr(processes, "rank", lambda: 0)
    assert compute(run, data, (256,), CPU) == [alone]
    found = list(files.read(alone))
    assert [batch.keys for batch in found] == [batch.keys for batch in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.features, other.features)
    assert [path.name for path in alone.parent.rglob("*")] == [alone.name]


def test_transfer_refuses_missing_and_stale_features(vggrepro: Call, run: RunFolder, tmp_path: Path) -> None:
    root = write_caltech(tmp_path)
    few = ("--train-images", "5", "--q", "256")
    code, out, err = vggrepro("transfer", "A-256", "--data", str(root), *few)
    assert (code, out) == (2, "")
    assert "does not exist; run 'vggrepro features A-256 --q 256" in err
    code, out, _ = vggrepro("features", "--data", str(root), "--q", "256", "--precision", "fp32", "--workers", "0")
    assert (code, len(out.splitlines())) == (0, 1)
    code, out, _ = vggrepro("transfer", "A-256", "--data", str(root), *few)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[:4]] == ["seed", "0", "1", "2"]
    random_run(run.path, seed=1)
    code, out, err = vggrepro("transfer", "A-256", "--data", str(root), *few)
    assert (code, out) == (2, "")
    assert "is stale (other weights)" in err
    code, _, err = vggrepro("transfer", "A-256", "--data", str(root), "--q", "256")
    assert code == 2
