"""The nets of Table 1 against torchvision, timm, formulas written out, and plain convolutions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from conftest import PARAMETERS
from torch import Tensor
from torch.nn import functional as F

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.nets import keyed, vgg
from vggrepro.nets.initialise import CENTRED_GAIN, initialise
from vggrepro.nets.vgg import VGG, Extent, local_response_norm, to_input
from vggrepro.paper import Architecture

PUBLIC = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}


def on_meta(net: str, classes: int = 1000, crop: int = 224, width: float = 1.0) -> VGG:
    with torch.device("meta"):
        return VGG(net, classes, crop, width)


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Uniform weights that keep the signal's size from layer to layer, so that a wrong layer shows."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, shape in shapes.items():
        bound = math.sqrt(6 / math.prod(shape[1:])) if len(shape) > 1 else 0.1
        result[name] = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return result


def small(net: str, classes: int = 7, crop: int = 64, width: float = 1 / 16, seed: int = 0) -> VGG:
    """A narrow net in float64 with random weights."""
    model = VGG(net, classes, crop, width)
    model.load_state_dict(random_weights({name: tuple(p.shape) for name, p in model.named_parameters()}, seed))
    return model.double().eval()


def pictures(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Precision


def test_lrn_and_fc8_are_computed_in_fp32_inside_autocast() -> None:
    """At bf16 only their input is rounded: by the layer before."""
    model = small("A-LRN").float()
    x = pictures(2, 3, 64, 64).float()
    seen: list[tuple[torch.dtype, Tensor]] = []
    normal = vgg.local_response_norm

    def spy(values: Tensor, definition: str) -> Tensor:
        result = normal(values, definition)
        seen.append((values.dtype, result))
        torch.testing.assert_close(result.double(), normal(values.double(), definition), rtol=1e-6, atol=0)
        return result

    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(vgg, "local_response_norm", spy)
        scores = model(x)
    assert [kind for kind, _ in seen] == [torch.float32]
    assert scores.dtype == torch.float32


# The public implementations


@pytest.fixture(scope="module")
def fc_weights() -> dict[str, Tensor]:
    """The FC layers at full size (0.5 GB), made once: they have the same shapes in all nets."""
    return random_weights(
        {name: shape for name, shape in Architecture("A", 1000).shapes().items() if name.startswith("fc")}
    )


@pytest.mark.slow
@pytest.mark.parametrize("net", PUBLIC)
def test_full_size_nets_equal_torchvision_and_timm(net: str, fc_weights: dict[str, Tensor]) -> None:
    convolutions = {name: shape for name, shape in Architecture(net, 1000).shapes().items() if name.startswith("conv")}
    ours = random_weights(convolutions) | fc_weights  # one copy of the weights serves three nets
    model = on_meta(net)
    model.load_state_dict(ours, assign=True)
    with torch.device("meta"):
        vision = torchvision.models.get_model(PUBLIC[net], weights=None, init_weights=False)
        image_models = timm.create_model(PUBLIC[net], pretrained=False)

    def mapped(public: torch.nn.Module, fc: tuple[str, str, str]) -> dict[str, Tensor]:
        """Our weights under another implementation's names: its convolutions are numbered in order."""
        shapes = {name: tensor.shape for name, tensor in public.state_dict().items()}
        places = [name for name in shapes if name.startswith("features.")]
        names = dict(zip(places, convolutions, strict=True))
        for layer, place in zip(("fc6", "fc7", "fc8"), fc, strict=True):
            names |= {f"{place}.{kind}": f"{layer}.{kind}" for kind in ("weight", "bias")}
        return {place: ours[name].view(shapes[place]) for place, name in names.items()}

    vision.load_state_dict(mapped(vision, ("classifier.0", "classifier.3", "classifier.6")), assign=True)
    image_models.load_state_dict(mapped(image_models, ("pre_logits.fc1", "pre_logits.fc2", "head.fc")), assign=True)
    crop = pictures(1, 3, 224, 224).float()
    with torch.inference_mode():
        scores = model.eval()(crop)
        for public in (vision.eval(), image_models.eval()):
            torch.testing.assert_close(public(crop), scores, rtol=0, atol=1e-5 * float(scores.abs().max()))
        if net == "D":  # timm's head averages fc7 over positions: dense evaluation
            whole = pictures(1, 3, 256, 300).float()
            scores = model.dense_scores(whole)
            torch.testing.assert_close(image_models(whole), scores, rtol=0, atol=1e-5 * float(scores.abs().max()))
    assert scores.abs().max() > 0.1


@pytest.mark.parametrize(("crop", "stride", "left_out"), [(112, 16, 1), (56, 8, 2), (28, 4, 3)])
@pytest.mark.parametrize("net", ["A-LRN", "C", "D"])
def test_an_exact_reduction_is_the_net_without_its_first_poolings(
    net: str, crop: int, stride: int, left_out: int
) -> None:
    model = VGG(net, 5, crop, 1 / 16, stride=stride)
    initialise(model, "he", 0)
    image = pictures(2, 3, crop + stride, crop + 2 * stride).float()
    x = image
    for number, block in enumerate(paper.blocks(net)):
        for layer in block:
            if isinstance(layer, paper.Conv):
                convolution = model.get_submodule(layer.name)
                x = F.relu(F.conv2d(x, convolution.weight, convolution.bias, padding=layer.kernel // 2))
            else:
                x = local_response_norm(x)
        if number >= left_out:
            x = F.max_pool2d(x, 2)
    assert x.shape[2:] == (8, 9)
    scores = []
    for top in range(2):
        for left in range(3):
            window = x[:, :, top : top + 7, left : left + 7].flatten(1)
            hidden = F.relu(model.fc7(F.relu(model.fc6(window))))
            scores.append(model.fc8(hidden))
    expected = torch.stack(scores).mean(0)
    torch.testing.assert_close(
        model.dense_scores(image), expected, rtol=1e-4, atol=1e-4 * float(expected.detach().abs().max())
    )


@pytest.mark.parametrize("net", paper.NETS)
def test_modules_have_the_parameters_of_table_2(net: str) -> None:
    model = on_meta(net)
    count = sum(parameter.numel() for parameter in model.parameters())
    if net in PARAMETERS:
        assert count == PARAMETERS[net]
    assert count == Architecture(net).parameters
    narrow = VGG(net, 10, crop=56, width=1 / 8)
    assert sum(parameter.numel() for parameter in narrow.parameters()) == Architecture(net, 10, 56, 1 / 8).parameters
    assert {name: tuple(p.shape) for name, p in narrow.named_parameters()} == Architecture(net, 10, 56, 1 / 8).shapes()


def test_no_convolution_has_fewer_channels_than_asked() -> None:
    shapes = Architecture("D", 10, 28, 1 / 16, 4, min_channels=16).shapes()
    assert {
        name: tuple(p.shape) for name, p in VGG("D", 10, 28, 1 / 16, stride=4, min_channels=16).named_parameters()
    } == shapes
    channels = [shape[0] for name, shape in shapes.items() if name.startswith("conv") and name.endswith("weight")]
    assert channels == 4 * [16] + 3 * [16] + 6 * [32]  # without a least: 4, 8, 16, 32, 32
    assert shapes["fc6.weight"] == (256, 32 * 49)  # FC layers keep their width


def test_deeper_nets_have_the_weight_layers_their_name_says() -> None:
    layers = {net: len([n for n in Architecture(net, 1000).shapes() if n.endswith(".weight")]) for net in paper.NETS}
    assert layers == {"A": 11, "A-LRN": 11, "B": 13, "B-5x5": 8, "C": 16, "D": 16, "E": 19}


# Convolutions, pooling, LRN


@pytest.mark.parametrize("net", paper.NETS)
def test_maps_shrink_by_two_per_block_and_round_down(net: str) -> None:
    model = small(net)
    with torch.inference_mode():
        for height, width in ((64, 64), (63, 95), (127, 32), (32, 257)):
            maps = model.features(pictures(2, 3, height, width))
            assert maps.shape == (2, 32, height // 32, width // 32)  # five floors in a row are one floor by 32


def test_only_the_one_by_one_layers_of_c_have_no_padding() -> None:
    sizes = {
        name: (m.kernel_size, m.padding) for name, m in small("C").named_modules() if isinstance(m, torch.nn.Conv2d)
    }
    assert {name for name, size in sizes.items() if size == ((1, 1), (0, 0))} == {"conv3_3", "conv4_3", "conv5_3"}
    assert all(size == ((3, 3), (1, 1)) for name, size in sizes.items() if not name.endswith("_3"))


def krizhevsky(a: np.ndarray) -> np.ndarray:
    """b_i = a_i / (2 + 1e-4 * sum of a_j^2 over j = i-2 … i+2 that exist)^0.75; channels are the second axis."""
    b = np.empty_like(a)
    for i in range(a.shape[1]):
        total = (a[:, max(0, i - 2) : i + 3] ** 2).sum(axis=1)
        b[:, i] = a[:, i] / (2 + 1e-4 * total) ** 0.75
    return b


def test_lrn_is_krizhevskys_formula_after_the_first_layer() -> None:
    model = small("A-LRN", width=1 / 8)
    x = 100 * pictures(1, 3, 64, 96)  # inputs as large as the paper's, so that the sum counts
    with torch.inference_mode():
        first = torch.relu(model.conv1_1(x))
        rest = torch.from_numpy(krizhevsky(first.numpy()))
        assert ((2**-0.75 * first - rest).abs().max() / rest.abs().max()) > 0.1  # as k alone would give
        rest = F.max_pool2d(rest, 2)
        for block in (("conv2_1",), ("conv3_1", "conv3_2"), ("conv4_1", "conv4_2"), ("conv5_1", "conv5_2")):
            for name in block:
                rest = torch.relu(model.get_submodule(name)(rest))
            rest = F.max_pool2d(rest, 2)
        torch.testing.assert_close(model.features(x), rest, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels", [1, 3, 8, 64])
def test_lrn_and_its_gradient_for_few_and_many_channels(channels: int) -> None:
    x = (100 * pictures(2, channels, 5, 6)).requires_grad_()
    ours = local_response_norm(x)
    torch.testing.assert_close(ours.detach(), torch.from_numpy(krizhevsky(x.detach().numpy())))
    public = F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2)  # torch divides alpha by n
    upstream = pictures(2, channels, 5, 6, seed=2)
    gradients = [torch.autograd.grad(y, x, upstream)[0] for y in (ours, public)]
    torch.testing.assert_close(*gradients)
    with torch.autocast("cpu", torch.bfloat16):
        rough = local_response_norm(x.detach().bfloat16()).double()
    torch.testing.assert_close(rough, ours.detach(), rtol=0.02, atol=0.01)


def test_caffes_lrn_divides_alpha_and_starts_from_one() -> None:
    x = 100 * pictures(2, 8, 5, 6)
    torch.testing.assert_close(local_response_norm(x, "caffe"), F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1))
    caffe, cited = VGG("A-LRN", 7, 64, 1 / 8, "caffe").double(), small("A-LRN", width=1 / 8)
    caffe.load_state_dict(cited.state_dict())
    assert not torch.allclose(caffe(pictures(1, 3, 64, 64)), cited(pictures(1, 3, 64, 64)))
    with pytest.raises(InputError, match="unknown LRN 'torch'; choose one of krizhevsky, caffe"):
        VGG("A-LRN", 7, lrn="torch")


@pytest.mark.parametrize("net", ["A-LRN", "B-5x5", "D"])
def test_pooling_before_relu_is_the_same_to_the_bit(net: str) -> None:
    """Table 1's order, ReLU before pooling, gives the same maps and gradients."""
    model = small(net).float()
    x = pictures(2, 3, 64, 64).float()

    def plain(x: Tensor) -> Tensor:
        for block in model.blocks:
            for layer in block:
                x = (
                    F.relu(model.get_submodule(layer.name)(x))
                    if isinstance(layer, paper.Conv)
                    else local_response_norm(x)
                )
            x = F.max_pool2d(x, 2)
        return x

    weights = [p for name, p in model.named_parameters() if name.startswith("conv")]
    ours, theirs = model.features(x), plain(x)
    assert torch.equal(ours, theirs)
    pairs = zip(torch.autograd.grad(ours.sum(), weights), torch.autograd.grad(theirs.sum(), weights), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# Dense evaluation


def plain_dense(model: VGG, x: Tensor) -> Tensor:
    """Sect. 3.2 to the letter: FC layers as k x k and 1 x 1 convolutions, then the mean of the score map."""
    side = model.architecture.map_side
    maps = model.features(x)
    weight = model.fc6.weight.view(model.fc6.out_features, -1, side, side)
    maps = torch.relu(F.conv2d(maps, weight, model.fc6.bias))
    maps = torch.relu(F.conv2d(maps, model.fc7.weight[:, :, None, None], model.fc7.bias))
    maps = F.conv2d(maps, model.fc8.weight[:, :, None, None], model.fc8.bias)
    return maps.mean((2, 3))


@pytest.mark.parametrize(("net", "crop"), [("A-LRN", 64), ("C", 96), ("D", 32), ("B-5x5", 64)])
def test_dense_scores_equal_plain_convolutions(net: str, crop: int) -> None:
    model = small(net, crop=crop)
    sizes = [(crop, crop), (crop + 31, crop + 33), (101, 157), (crop, 8 * crop), (8 * crop + 5, crop)]
    with torch.inference_mode():
        for height, width in sizes:
            x = pictures(2, 3, height, width)
            torch.testing.assert_close(model.dense_scores(x), plain_dense(model, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("net", ["A", "C", "E"])
def test_dense_scores_of_a_crop_are_the_crops_scores(net: str) -> None:
    model = small(net, crop=70)  # 70 // 32 = 2: the crop's border has no say in the map
    x = pictures(3, 3, 70, 70)
    with torch.inference_mode():
        torch.testing.assert_close(model.dense_scores(x), model(x), rtol=1e-10, atol=1e-10)


def test_dense_scores_are_the_mean_over_a_sliding_window_of_crops() -> None:
    """Padding makes the two differ; with kernels that only see their centre it has no effect, and they agree."""
    model = small("D", crop=64)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 4:
            centre = torch.zeros_like(parameter)
            centre[:, :, 1, 1] = parameter.detach()[:, :, 1, 1] * 3
            model.get_parameter(name).data = centre
    x = pictures(2, 3, 64 + 3 * 32, 64 + 32)
    with torch.inference_mode():
        crops = [model(x[:, :, top : top + 64, left : left + 64]) for top in range(0, 97, 32) for left in (0, 32)]
        assert len(crops) == 8
        torch.testing.assert_close(model.dense_scores(x), torch.stack(crops).mean(0), rtol=1e-9, atol=1e-9)
        assert (crops[0] - crops[1]).abs().max() > 1e-3


def test_too_small_an_image_for_fc6_is_bad_input() -> None:
    model = small("A", crop=96)
    with pytest.raises(InputError, match="an image of 200x95 pixels leaves no 3x3 map for fc6; use a larger Q"):
        model.dense_scores(pictures(1, 3, 95, 200))


def test_a_crop_that_five_poolings_reduce_to_nothing() -> None:
    with pytest.raises(InputError, match="crop = 31; the poolings need at least 32 pixels"):
        VGG("A", 10, crop=31)
    with pytest.raises(InputError, match="unknown net 'F'"):
        VGG("F", 10)


# Dropout


def test_dropout_keeps_the_expected_share_and_scales_it() -> None:
    model = VGG("A", 7, 64, 1 / 8)
    keys = keyed.key(0, keyed.DROPOUT, torch.arange(200))
    for rate in (0.2, 0.5):
        masks = model.dropout_masks(rate, keys)
        assert masks is not None
        for mask in masks:
            assert mask.shape == (200, 512)
            assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
            assert (mask == 0).double().mean() == pytest.approx(rate, abs=0.01)  # 6 standard deviations
        assert not torch.equal(*masks)
        assert len({tuple(row.tolist()) for row in masks[0]}) == 200
    assert model.dropout_masks(0, keys) is None


def test_dropout_masks_are_the_same_in_any_micro_batches() -> None:
    model = VGG("A", 7, 64, 1 / 8)
    keys = keyed.key(3, keyed.DROPOUT, torch.arange(10))
    whole = model.dropout_masks(0.5, keys)
    parts = [model.dropout_masks(0.5, part) for part in keys.split([1, 6, 3])]
    assert whole is not None
    for place in range(2):
        assert torch.equal(whole[place], torch.cat([part[place] for part in parts if part]))


def test_masks_multiply_the_rectified_fc_layers() -> None:
    model = small("A")
    x = pictures(4, 3, 64, 64)
    masks = model.dropout_masks(0.5, keyed.key(torch.arange(4)))
    assert masks is not None
    first, second = (mask.double() for mask in masks)
    with torch.inference_mode():
        hidden = torch.relu(model.fc6(model.features(x).flatten(1))) * first
        hidden = torch.relu(model.fc7(hidden)) * second
        torch.testing.assert_close(model(x, (first, second)), model.fc8(hidden))
        ones = torch.ones_like(first)
        torch.testing.assert_close(model(x, (ones, ones)), model(x))


# Initialisation


@pytest.mark.parametrize("how", ["random", "glorot", "glorot-normal", "he"])
def test_initial_weights_have_their_variance_and_zero_biases(how: str) -> None:
    model = VGG("C", 200, 64, 1 / 4)
    initialise(model, how, seed=1, std=0.02)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            assert not parameter.any()
            continue
        area = math.prod(parameter.shape[2:])
        outgoing, incoming = parameter.shape[0] * area, parameter.shape[1] * area
        glorot = (2 / (incoming + outgoing)) ** 0.5
        expected = {"random": 0.02, "he": (2 / incoming) ** 0.5}.get(how, glorot)
        values = parameter.detach().double()
        deviations = 5 / math.sqrt(2 * values.numel())  # five standard errors of an estimated deviation
        assert values.std().item() == pytest.approx(expected, rel=deviations), name
        assert abs(values.mean().item()) < 5 * expected / math.sqrt(values.numel()), name
        assert len(values.flatten(1).sum(1).unique()) == len(values), name  # no row is drawn twice


def test_glorot_is_uniform_over_torchs_xavier_range() -> None:
    model, reference = VGG("A", 200, 64, 1 / 8), VGG("A", 200, 64, 1 / 8)
    initialise(model, "glorot", seed=1)
    for layer in ("conv1_1", "conv3_2", "fc6"):
        values = model.get_parameter(f"{layer}.weight").detach().double()
        bound = torch.nn.init.xavier_uniform_(reference.get_parameter(f"{layer}.weight")).abs().max().item()
        assert values.abs().max().item() == pytest.approx(bound, rel=0.02), layer
        quarters = torch.histc(values, bins=4, min=-bound, max=bound) / values.numel()
        torch.testing.assert_close(quarters, torch.full((4,), 0.25, dtype=torch.float64), atol=0.05, rtol=0)


def test_delta_has_centred_orthogonal_matrices_at_the_kernels_centres() -> None:
    model = VGG("C", 200, 64, 1 / 4)
    initialise(model, "delta", seed=1)
    assert model.conv1_1.weight.std().item() == pytest.approx((2 / 27) ** 0.5, rel=0.1)  # pixels are not rectified
    for name in ("conv1_2", "conv3_1", "conv4_3", "conv5_1"):  # 3x3 and C's 1x1
        weight = model.get_parameter(f"{name}.weight").detach().double()
        middle = weight.shape[2] // 2
        matrix = weight[:, :, middle, middle].clone()
        weight[:, :, middle, middle] = 0
        assert not weight.any(), name
        outgoing, incoming = matrix.shape
        torch.testing.assert_close(matrix.sum(1), torch.zeros(outgoing, dtype=torch.float64), atol=1e-5, rtol=0)
        # orthogonal columns, but for the direction in which all inputs are alike, which is gone
        expected = torch.eye(incoming, dtype=torch.float64) - 1 / incoming
        product = matrix.T @ matrix / (CENTRED_GAIN * outgoing / incoming)
        torch.testing.assert_close(product, expected, atol=1e-5, rtol=0)
    for name in ("fc6", "fc7", "fc8"):
        weight = model.get_parameter(f"{name}.weight")
        assert weight.sum(1).abs().max() < 1e-4
        assert weight.std().item() == pytest.approx((CENTRED_GAIN / weight.shape[1]) ** 0.5, rel=0.02)


@pytest.mark.parametrize("min_channels", [1, 12])
@pytest.mark.parametrize("net", ["A-LRN", "B-5x5", "C", "E"])
def test_looks_linear_is_linear_up_to_the_first_pooling_and_keeps_the_signals_size(net: str, min_channels: int) -> None:
    model = VGG(net, 5, 28, 1 / 16, stride=4, min_channels=min_channels).double()
    initialise(model, "looks-linear", seed=2)
    first, second = torch.randn(2, 4, 3, 28, 28, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def before_pooling(images: torch.Tensor) -> torch.Tensor:
        """What block 4 computes before its last ReLU; LRN is left out, it is not linear."""
        x = images
        for layer in itertools.chain(*(block for block in model.blocks[:4])):
            if isinstance(layer, paper.Conv):
                convolution = model.get_submodule(layer.name)
                x = F.conv2d(F.relu(x) if x.shape[1] > 3 else x, convolution.weight, padding=layer.kernel // 2)
        return x

    one, other = before_pooling(first), before_pooling(second)
    torch.testing.assert_close(before_pooling(3 * first - 2 * second), 3 * one - 2 * other)
    assert 0.5 < one.square().mean() / first.square().mean() < 2
    half = one.shape[1] // 2
    torch.testing.assert_close(one[:, :half], -one[:, half:])
    directions = torch.linalg.matrix_rank(one[:, :half].permute(1, 0, 2, 3).flatten(1), rtol=1e-9)
    assert directions >= min(half, model.conv1_1.out_channels // 2)  # no layer loses one


@pytest.mark.parametrize(("width", "least"), [(3 / 64, 1), (5 / 64, 1), (0.01, 5)])
def test_looks_linear_takes_odd_numbers_of_channels(width: float, least: int) -> None:
    model = VGG("D", 5, 28, width, stride=4, min_channels=least)
    initialise(model, "looks-linear", seed=0, fc8=0.5)
    for name, weight in model.named_parameters():
        if name.endswith("weight") and name != "fc8.weight":
            half = (len(weight) + 1) // 2
            assert torch.equal(weight[half:], -weight[: len(weight) - half]), name
            assert weight.any(), name
    for name, area in (("fc6", 49), ("fc7", 1), ("fc8", 1)):  # fc6 has 49 columns for each channel
        weight = model.get_parameter(f"{name}.weight").view(-1, area)
        columns = weight.view(len(model.get_parameter(f"{name}.weight")), -1, area)
        half = (columns.shape[1] + 1) // 2
        assert torch.equal(columns[:, half:], -columns[:, : columns.shape[1] - half]), name
    with torch.no_grad():
        hidden = model.features(torch.randn(64, 3, 28, 28)).flatten(1)
        scores = model(torch.randn(64, 3, 28, 28))
    assert hidden.any() and scores.std(0).min() > 0


@pytest.mark.parametrize("least", [1, 5])
def test_with_dirac_nets_of_all_depths_start_as_the_same_function(least: int) -> None:
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = {}
    for net in ("A", "B", "C", "D", "E"):
        model = VGG(net, 5, 64, 3 / 64, min_channels=least).double()
        initialise(model, "dirac", seed=4)
        scores[net] = model.eval()(images)
        torch.testing.assert_close(scores[net], scores["A"])
    other = VGG("A", 5, 64, 3 / 64, min_channels=least).double()
    initialise(other, "looks-linear", seed=4)
    for net in ("A-LRN", "B-5x5"):
        same = VGG(net, 5, 64, 3 / 64, min_channels=least)
        initialise(same, "dirac", seed=4)
        assert same(images.float()).std(0).min() > 0
    for name in ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "fc6", "fc7", "fc8"):  # the number of channels changes
        assert torch.equal(other.get_parameter(f"{name}.weight"), model.get_parameter(f"{name}.weight")), name
    assert scores["A"].std(0).min() > 0


@pytest.mark.parametrize("net", ["A", "E"])
def test_delta_tells_images_apart_where_he_does_not(net: str) -> None:
    """The fc7 activations of two images at the start: alike by He's weights, as large as the input by both."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 1, 1, generator=generator) + torch.randn(8, 3, 64, 64, generator=generator) / 2
    cosines = {}
    for how in ("he", "delta", "looks-linear"):
        model = VGG(net, 20, 64, 1 / 8)
        initialise(model, how, seed=3)
        with torch.no_grad():
            hidden = model.fc7(model.fc6(model.features(images).flatten(1)).relu()).relu()
        alike = torch.nn.functional.normalize(hidden, dim=1)
        cosines[how] = ((alike @ alike.T).sum().item() - 8) / 56
        assert 0.1 < hidden.square().mean().sqrt() / images.square().mean().sqrt() < 10
    assert cosines["he"] > 0.9
    assert cosines["delta"] < 0.7
    assert cosines["looks-linear"] < 0.7


@pytest.mark.parametrize("how", ["he", "delta", "looks-linear"])
def test_a_layers_initial_weights_hang_on_its_name_and_seed_only(how: str) -> None:
    nets = {net: VGG(net, 7, 64, 1 / 8) for net in ("A", "D")}
    for model in nets.values():
        initialise(model, how, seed=5)
    for layer in paper.COPIED_FROM_A:
        assert torch.equal(nets["A"].get_parameter(f"{layer}.weight"), nets["D"].get_parameter(f"{layer}.weight"))
    again = VGG("A", 7, 64, 1 / 8)
    initialise(again, how, seed=6)
    assert not torch.equal(again.conv1_1.weight, nets["A"].conv1_1.weight)
    pairs = itertools.combinations([nets["D"].get_parameter(f"conv4_{n}.weight")[:, :32] for n in (1, 2, 3)], 2)
    assert not any(torch.equal(a, b) for a, b in pairs)


def test_the_last_layer_can_start_smaller_and_it_alone() -> None:
    plain, smaller = VGG("A", 7, 64, 1 / 32), VGG("A", 7, 64, 1 / 32)
    initialise(plain, "he", seed=0)
    initialise(smaller, "he", seed=0, fc8=0.1)
    for name, parameter in plain.named_parameters():
        factor = 0.1 if name == "fc8.weight" else 1
        torch.testing.assert_close(smaller.get_parameter(name), factor * parameter, msg=name)


def test_an_unknown_initialisation_lists_the_known_ones() -> None:
    with pytest.raises(
        InputError, match="unknown initialisation 'zero'; choose one of random, glorot, glorot-uniform, "
    ):
        initialise(VGG("A", 7, 64, 1 / 64), "zero", 0)


def test_input_is_the_scaled_difference_from_the_mean() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    mean = np.array([120.5, 110.25, 100.0])
    x = to_input(torch.from_numpy(pixels), torch.tensor(mean, dtype=torch.float32), 0.5)
    np.testing.assert_allclose(x.numpy(), ((pixels - mean) * 0.5).transpose(0, 3, 1, 2))
    own = torch.tensor([[10.0, 20.0, 30.0], [1.0, 2.0, 3.0]])  # a mean of its own for each image
    shifted = to_input(torch.from_numpy(pixels), own[:, None, None, :], 1.0)
    np.testing.assert_allclose(shifted[1, 2].numpy(), pixels[1, :, :, 2] - 3.0)


# Inference on a GPU


def plain_and_images(net: str) -> tuple[VGG, list[Tensor]]:
    """A net in float64 with biases, and images of five sizes."""
    model = VGG(net, 10, 64, 1 / 16)
    initialise(model, "he", 0)
    model.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.5, generator=generator)
    sizes = [(97, 97), (103, 91), (90, 128), (64, 77), (121, 64)]
    return model, [torch.randn(1, 3, *size, dtype=torch.float64, generator=generator) for size in sizes]


@pytest.mark.parametrize("ceil_pool", [False, True])
@pytest.mark.parametrize("net", ["A-LRN", "B-5x5", "C"])
def test_padded_images_have_the_scores_that_they_have_alone(net: str, ceil_pool: bool) -> None:
    model, images = plain_and_images(net)
    batch = torch.full((5, 3, 128, 128), 7.0, dtype=torch.float64)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[2], : image.shape[3]] = image[0]
    extent = Extent.of([(image.shape[2], image.shape[3]) for image in images], torch.device("cpu"))
    with torch.inference_mode():
        expected = torch.cat([model.dense_scores(image, ceil_pool) for image in images])
        found = model.dense_scores(extent.clear(batch), ceil_pool, extent)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_order_of_fc6s_inputs_changes_no_score() -> None:
    model, images = plain_and_images("A")
    with torch.inference_mode():
        dense, crops = model.dense_scores(images[1]), model(images[0][:, :, :64, :64])
        model.take_channels_last()
        torch.testing.assert_close(model.dense_scores(images[1]), dense)
        torch.testing.assert_close(model(images[0][:, :, :64, :64]), crops)


@pytest.mark.parametrize(("offers", "fused"), [("right", True), ("wrong", False), ("nothing", False)])
def test_convolutions_are_fused_with_relu_where_cudnn_has_that(
    monkeypatch: pytest.MonkeyPatch, offers: str, fused: bool
) -> None:
    def stand_in(x: Tensor, weight: Tensor, bias: Tensor, *where: Any) -> Tensor:
        if offers == "nothing":
            raise RuntimeError("cudnn_convolution_relu: not implemented")
        return F.relu(F.conv2d(x, weight, bias, *where)) + (offers == "wrong")

    monkeypatch.setattr(torch, "cudnn_convolution_relu", stand_in)
    model, images = plain_and_images("D")
    with torch.inference_mode():
        expected = model.dense_scores(images[2])
        model.fuse()
        assert model.fused is fused
        torch.testing.assert_close(model.dense_scores(images[2]), expected)
