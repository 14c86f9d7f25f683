"""Multiply-adds and bytes: published figures, torch's own counter, files on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.nets import cost, weights
from vggrepro.nets.vgg import VGG
from vggrepro.paper import Architecture


@pytest.mark.parametrize(("net", "gmac"), {"A": 7.61, "B": 11.31, "D": 15.47, "E": 19.63}.items())
def test_crops_cost_what_others_count(net: str, gmac: float) -> None:
    assert cost.crop_macs(Architecture(net)) / 1e9 == pytest.approx(gmac, abs=0.005)  # timm's benchmark tables


@pytest.mark.parametrize(("shorter", "gmac"), [(256, 27.7), (384, 67.6), (512, 125.5)])
def test_dense_evaluation_of_photographs_at_the_papers_scales(shorter: int, gmac: float) -> None:
    # the figures scale conv. layers by area; maps that round down at each pooling are up to 0.8 % cheaper
    assert 0.99 * gmac < cost.dense_macs(Architecture("D"), shorter, shorter * 4 // 3) / 1e9 < gmac


Size = tuple[int, int, float] | tuple[int, int, float, int]


def counted(net: str, height: int, width: int, size: Size, *, train: bool = False) -> int:
    """FLOPs of the operations that torch dispatches, without memory or arithmetic."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        model = VGG(net, *size[:3], stride=size[3] if len(size) > 3 else 32)
        image = torch.empty(1, 3, height, width)
        scores = model(image) if height == width == size[1] else model.dense_scores(image)
        if train:
            scores.sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("net", paper.NETS)
@pytest.mark.parametrize(
    "size", [(1000, 224, 1.0), (100, 56, 0.25), (16, 64, 0.125), (16, 56, 0.125, 8), (16, 112, 0.125, 16)]
)
def test_counts_are_torchs(net: str, size: Size) -> None:
    crop, stride = size[1], size[3] if len(size) > 3 else 32
    channels = Architecture(net, *size).channels(paper.Conv("conv1_1", 3, 64))
    lrn = 2 * crop * crop * channels**2 if net == "A-LRN" else 0  # our LRN is a convolution
    assert 2 * cost.crop_macs(Architecture(net, *size)) == counted(net, crop, crop, size) - lrn
    height, width = crop + 35, 2 * crop + 11
    positions = ((height // stride) - crop // stride + 1) * ((width // stride) - crop // stride + 1)
    layers = cost.layer_macs(Architecture(net, *size), height, width)
    saved = layers["fc8"] - layers["fc8"] // positions  # our net averages first and applies fc8 once
    lrn = lrn // crop**2 * height * width
    assert 2 * (sum(layers.values()) - saved) == counted(net, height, width, size) - lrn


@pytest.mark.parametrize("net", ["A", "C", "E", "B-5x5"])
def test_training_is_three_forward_passes_but_for_the_images_gradient(net: str) -> None:
    first = 2 * cost.layer_macs(Architecture(net, 16, 64, 0.25), 64, 64)["conv1_1"]
    assert (
        cost.training_flops(Architecture(net, 16, 64, 0.25)) == counted(net, 64, 64, (16, 64, 0.25), train=True) + first
    )


def test_fc_only_training_passes_the_convolutions_once() -> None:
    fc = 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    assert cost.training_flops(Architecture("D"), fc_only=True) == 2 * (cost.crop_macs(Architecture("D")) + 2 * fc)


def test_files_have_the_sizes_said(tmp_path: Path) -> None:
    model = VGG("B", 10, 64, 1 / 16)
    tensors = dict(model.named_parameters())
    weights.save(tmp_path / "weights", tensors, {})
    momentum = {f"momentum/{name}": tensor.detach().clone() for name, tensor in tensors.items()}
    weights.save(tmp_path / "all", tensors | momentum, {})
    fc = {name: tensor for name, tensor in momentum.items() if "/fc" in name}
    weights.save(tmp_path / "fc", tensors | fc, {})
    size = (10, 64, 1 / 16)
    for name, expected in (
        ("weights", cost.weight_bytes(Architecture("B", *size))),
        ("all", cost.checkpoint_bytes(Architecture("B", *size))),
        ("fc", cost.checkpoint_bytes(Architecture("B", *size), fc_only=True)),
    ):
        assert 0 < (tmp_path / name).stat().st_size - expected < 8192  # the header


def test_an_image_without_a_map_for_fc6() -> None:
    with pytest.raises(InputError, match="an image of 300x200 pixels leaves no 7x7 map for fc6; use a larger Q"):
        cost.dense_macs(Architecture("D"), 200, 300)
    with pytest.raises(InputError, match="unknown net 'F'"):
        cost.crop_macs(Architecture("F"))
