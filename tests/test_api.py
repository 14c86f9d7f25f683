"""The package from Python: public names, and a net that behaves as torch's users expect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import vggrepro
from vggrepro.data.dataset import Dataset
from vggrepro.data.sources.demo import draw
from vggrepro.evaluation.predict import names
from vggrepro.runs.folder import RunFolder

PACKAGE = Path(vggrepro.__file__).parent


def test_the_import_brings_no_torch_and_a_name_brings_what_it_needs() -> None:
    code = "import sys, vggrepro; assert 'torch' not in sys.modules; vggrepro.new_net; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vggrepro.nothing  # noqa: B018


def test_each_public_name_is_there_is_no_folder_and_has_a_docstring() -> None:
    folders = {path.stem for path in PACKAGE.iterdir()} | {"tables", "tests", "docs", "benchmarks"}
    assert 10 <= len(vggrepro.__all__) <= 16
    guide = (PACKAGE.parent / "docs" / "python.md").read_text(encoding="utf-8")
    for name in vggrepro.__all__:
        assert getattr(vggrepro, name).__doc__
        assert name not in folders and name in dir(vggrepro)
        assert f"`{name}" in guide or f"vggrepro.{name}(" in guide


def test_train_and_eval_switch_dropout(run: RunFolder) -> None:
    net = vggrepro.load_net(run.path)
    assert (net.training, net.dropout) == (False, 0.5)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        first = net(images)
        assert torch.equal(first, net(images))
        net.train()
        torch.manual_seed(0)
        assert not torch.equal(net(images), net(images))
        assert torch.equal(net.eval()(images), first)


def test_a_state_dict_comes_back_and_a_net_is_exported(run: RunFolder) -> None:
    net = vggrepro.load_net(run.path)
    again = vggrepro.new_net("A", 6, 64, 1 / 32, seed=1).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = net(images)
        assert not torch.allclose(again(images), expected)
        again.load_state_dict(net.state_dict())
        assert torch.equal(again(images), expected)
        exported = torch.export.export(net, (images,)).module()
        torch.testing.assert_close(exported(images), expected)


def test_fine_tuning_in_ten_lines_learns_the_demo_s_shapes(run: RunFolder) -> None:
    torch.manual_seed(0)
    drawn = [draw(0, "train", number) for number in range(160)]
    few = [(image, label) for image, label in drawn if label < 2]
    prepare = vggrepro.preprocess(run.path)
    images, labels = torch.stack([prepare(image) for image, _ in few]), torch.tensor([label for _, label in few])
    net = vggrepro.load_net(run.path)
    net.fc8 = torch.nn.Linear(net.fc7.out_features, 2)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.002)
    net.train()
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(net(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    net.eval()
    with torch.no_grad():
        right = float((net(images).argmax(1) == labels).float().mean())
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert right > 0.8


def test_one_image_scores_as_the_command_does(run: RunFolder, photos: Path) -> None:
    path = photos / "val" / "bee" / "0.jpg"
    with Image.open(path) as image:
        dense = vggrepro.score_image(run.path, image)
        crops = vggrepro.score_image(run.path, image, "multicrop", q=256)
    assert dense.sum() == pytest.approx(1) and crops.sum() == pytest.approx(1)
    table = vggrepro.predict_files(run.path, [path], ["dense"])
    assert list(table.columns) == ["image", "method", "rank", "class", "words", "posterior"]
    one = vggrepro.predict_files(run.path, [path], ["center"])
    with Image.open(path) as image:
        batch = vggrepro.preprocess(run.path)(image)[None]
    with torch.no_grad():
        scores = torch.softmax(vggrepro.load_net(run.path)(batch), 1)[0]
    best = names(vggrepro.load_run(run.path).config)[0][int(scores.argmax())]
    assert one["class"].iloc[0] == best
    assert one.posterior.iloc[0] == pytest.approx(float(scores.max()), rel=1e-4)


def test_from_a_run_to_tables_claims_and_posteriors(dataset: Dataset, run: RunFolder) -> None:
    errors = vggrepro.evaluate_run(run.path, dataset.folder, qs=[256])
    frame = vggrepro.read_posteriors(run.path / "posteriors" / "val-dense-q256.parquet")
    assert frame.shape == (18, 7)
    wrong = frame.drop(columns="label").to_numpy().argmax(1) != frame["label"].to_numpy()
    assert 100 * wrong.mean() == pytest.approx(errors["top1_error"].iloc[0])
    assert len(vggrepro.make_tables(run.path.parent, vggrepro.load_data(dataset.folder))) == 7
    assert vggrepro.check_claims(run.path.parent, dataset.folder)["claim"].nunique() == 12
