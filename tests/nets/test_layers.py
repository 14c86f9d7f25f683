"""What layers see, hold and cost, against gradients of real nets and the paper's numbers."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from conftest import PARAMETERS, Call
from torch import nn

from vggrepro import paper, recipe
from vggrepro.nets.layers import Layer, field_before_fc6, layers, stacked_field, stacked_weights
from vggrepro.nets.measure import costs
from vggrepro.nets.vgg import VGG
from vggrepro.paper import Architecture
from vggrepro.results.nets import stacks_table

NETS = list(paper.NETS)


def by_name(net: Architecture) -> dict[str, Layer]:
    return {layer.name: layer for layer in layers(net)}


def thin(net: str, stride: int) -> nn.Sequential:
    """The convolutions and poolings of a net with one channel; an average in place of the maximum shows all it sees."""
    parts: list[nn.Module] = []
    for block, pooled in zip(paper.blocks(net), paper.poolings(stride), strict=True):
        for layer in block:
            if isinstance(layer, paper.Conv):
                conv = nn.Conv2d(1, 1, layer.kernel, padding=layer.kernel // 2, bias=False)
                nn.init.constant_(conv.weight, 1 / layer.kernel**2)
                parts.append(conv)
        if pooled:
            parts.append(nn.AvgPool2d(2))
    return nn.Sequential(*parts).double()


@pytest.mark.parametrize(("net", "stride"), [(net, 32) for net in NETS] + [("D", 16), ("E", 8), ("B", 4)])
def test_the_receptive_field_is_what_has_a_gradient(net: str, stride: int) -> None:
    field = field_before_fc6(Architecture(net, 10, 7 * stride, 1, stride))
    image = torch.zeros(1, 1, 640, 640, dtype=torch.float64, requires_grad=True)
    out = thin(net, stride)(image)
    out[0, 0, out.shape[2] // 2, out.shape[3] // 2].backward()
    assert image.grad is not None
    assert int((image.grad[0, 0].sum(0) != 0).sum()) == field


def test_the_papers_numbers() -> None:
    fields = {net: field_before_fc6(Architecture(net)) for net in NETS}
    assert fields == {"A": 150, "A-LRN": 150, "B": 156, "B-5x5": 156, "C": 156, "D": 212, "E": 268}
    for net, count in PARAMETERS.items():
        assert sum(layer.parameters for layer in layers(Architecture(net))) == count
    fc6 = by_name(Architecture("D"))["fc6"]
    assert (fc6.parameters, fc6.kernel, fc6.side) == (7 * 7 * 512 * 4096 + 4096, 7, 1)
    assert round(fc6.parameters / 1e6, 1) == 102.8


def test_stacks_of_small_filters() -> None:
    """Sect. 2.3: two 3 x 3 layers see 5 x 5 pixels, three see 7 x 7; 27 C² weights against 49 C², 81 % more."""
    for kernels in ((3, 3), (3, 3, 3), (5,), (7,)):
        convolutions = nn.Sequential(*(nn.Conv2d(1, 1, kernel, bias=False) for kernel in kernels))
        for conv in convolutions:
            nn.init.ones_(conv.weight)
        image = torch.zeros(1, 1, stacked_field(kernels), stacked_field(kernels))
        assert convolutions(image).shape[2:] == (1, 1)
        weights = sum(w.numel() for w in nn.Sequential(*(nn.Conv2d(2, 2, k, bias=False) for k in kernels)).parameters())
        assert stacked_weights(kernels) == weights / 4
    frame = stacks_table().frame
    assert frame["more"].round().tolist() == [39, 81]
    assert frame[["weights_one", "weights_stack"]].to_numpy().tolist() == [[25, 18], [49, 27]]
    assert frame["field_one"].tolist() == frame["field_stack"].tolist() == [5, 7]


@pytest.mark.parametrize("preset", ["half", "quarter", "eighth", "demo"])
@pytest.mark.parametrize("net", ["A-LRN", "B-5x5", "C"])
def test_maps_parameters_and_work_are_those_of_the_net(net: str, preset: str) -> None:
    values = recipe.load(preset)
    architecture = Architecture(net, 7, values.crop, 1 / 32, values.stride)
    model, parts = VGG.of(architecture), by_name(architecture)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda *given, name=name: shapes.update({name: tuple(given[2].shape[1:])}))
    model(torch.zeros(1, 3, values.crop, values.crop))
    for name, shape in shapes.items():
        layer = parts[name]
        assert (layer.channels, layer.side) == (shape[0], shape[1] if len(shape) == 3 else 1), name
        weights = model.get_parameter(f"{name}.weight")
        assert layer.parameters == weights.numel() + shape[0], name
        assert layer.multiply_adds == weights[0].numel() * shape[0] * layer.side**2, name
    assert len([name for name in parts if name.startswith("pool")]) == sum(paper.poolings(values.stride))


def test_the_table_of_all_nets_and_json(vggrepro: Call) -> None:
    code, out, _ = vggrepro("nets")
    assert code == 0
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("|")]
    (e,) = [line for line in lines if line[0] == "E"]
    assert e[1:] == ["19", "143.667", "86", "102.8", "19.632", "268", "1.20", "574.7", "65.6"]
    assert ["7 × 7", "3 of 3 × 3", "7", "7", "49", "27", "81"] in lines
    code, out, _ = vggrepro("nets", "d", "A-LRN", "--preset", "quarter", "--classes", "20", "--format", "json")
    made = {name: pd.DataFrame(rows) for name, rows in json.loads(out).items()}
    assert list(made) == ["layers-D", "layers-A-LRN"]
    assert made["layers-D"]["layer"].tolist()[-4:] == ["pool5", "fc6", "fc7", "fc8"]
    assert made["layers-D"]["side"].tolist()[-5:] == [14, 7, 1, 1, 1]
    assert made["layers-D"]["parameters"].sum() == Architecture("D", 20, 56, 1, 8).parameters


def test_slips_are_one_line(vggrepro: Call) -> None:
    for words, said in ((("nets", "F"), "unknown net 'F'"), (("nets", "--preset", "tenth"), "unknown preset 'tenth'")):
        code, out, err = vggrepro(*words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err


def test_normalisation_costs_memory() -> None:
    """A-LRN keeps conv1_1's normalised maps and what its formula needs; the rest is A."""
    small = [Architecture(net, 5, 32, 1 / 8) for net in ("A", "A-LRN")]
    plain, normalised = costs(small, torch.device("cpu"), batch=2, steps=1)
    one_map = 4 * 32 * 32 * 8  # bytes of conv1_1's map of an image: 8 channels
    assert plain.net == "A"
    assert plain.milliseconds > 0
    assert one_map <= normalised.kept_bytes - plain.kept_bytes <= 6 * one_map


def test_the_command_measures(vggrepro: Call) -> None:
    code, out, _ = vggrepro(
        "nets", "--measure", "--preset", "demo", "--batch", "1", "--device", "cpu", "--format", "json"
    )
    assert code == 0
    assert [row["net"] for row in json.loads(out)["costs"]] == ["A", "A-LRN"]
