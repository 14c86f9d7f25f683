"""A micro-batch's loss: its pieces, its arithmetic written out, and the same compiled."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch.nn import functional as F

from vggrepro import recipe
from vggrepro.nets import keyed
from vggrepro.nets.initialise import initialise
from vggrepro.nets.vgg import VGG
from vggrepro.training.loader import Batch
from vggrepro.training.step import Loss, pieces

CPU = torch.device("cpu")
MEAN = torch.tensor([120.0, 110.0, 100.0])


def batch(count: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator),
        torch.arange(count) % 2 == 0,
        torch.randn(count, 3, generator=generator),
        torch.arange(count) % 3,
        keyed.key(0, keyed.DROPOUT, torch.arange(count)),
    )


def loss_of(precision: str = "fp32", **options: Any) -> Loss:
    chosen = recipe.load("demo", {"crop": 32, "width": 1 / 16, "dropout": 0.5, "input_scale": 1 / 60})
    model = VGG("A", 3, 32, 1 / 16)
    initialise(model, "he", 0)
    return Loss(model, chosen, MEAN, precision, **options)


def gradients(loss: Loss, given: Batch) -> dict[str, Tensor]:
    loss.model.zero_grad()
    value = loss(given)
    value.backward()
    return {"loss": value.detach()} | {
        name: p.grad.clone() for name, p in loss.model.named_parameters() if p.grad is not None
    }


def test_the_loss_written_out() -> None:
    loss, given = loss_of(), batch()
    total = torch.zeros(())
    for row in range(5):
        pixels = batch().crops[row]
        pixels = pixels.flip(1) if row % 2 == 0 else pixels
        image = ((pixels + given.shift[row] - MEAN) / 60).permute(2, 0, 1)[None]
        masks = loss.model.dropout_masks(0.5, given.keys[row : row + 1])
        total = total + F.cross_entropy(loss.model(image, masks), given.labels[row : row + 1])
    torch.testing.assert_close(loss(given), total)


@pytest.mark.parametrize("most", [0, 1, 2, 5, 9])
def test_pieces_are_the_batch(most: int) -> None:
    given = batch()
    parts = list(pieces(given, most, CPU))
    assert [len(part.labels) for part in parts] == {0: [5], 1: [1] * 5, 2: [2, 2, 1], 5: [5], 9: [5]}[most]
    for name in ("crops", "flip", "shift", "labels", "keys"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(given, name))


def test_bf16_is_near() -> None:
    exact, rough = gradients(loss_of(), batch()), gradients(loss_of("bf16"), batch())
    assert exact.keys() == rough.keys()
    assert rough["loss"] == pytest.approx(float(exact["loss"]), rel=0.02)
    assert rough["fc8.weight"].dtype == torch.float32


def test_every_shape_of_every_net_is_compiled_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch gives up at the eighth shape unless it is told that a new net begins."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    for _ in range(3):
        loss = loss_of(compiled=True)
        for most in (2, 2, 0):
            for piece in pieces(batch(), most, CPU):
                loss(piece)
    assert len(graphs) == 3 * 3 * 2  # pieces of 2, of 1 and of 5 images; convolutions and FC layers


def test_compiled_gradients_of_fc_layers_are_there_before_the_backward_pass_of_the_convolutions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then they travel to other processes meanwhile."""
    order: list[str] = []

    def noted(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        def call(*values: Any) -> Any:
            order.append("backward")
            return graph.forward(*values)

        return make_boxed_func(call)

    backend = aot_autograd(fw_compiler=lambda graph, inputs: make_boxed_func(graph.forward), bw_compiler=noted)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    loss = loss_of(compiled=True)
    for name, parameter in loss.model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: order.append(name[:2]))
    loss(batch()).backward()
    assert order == ["backward", *["fc"] * 6, "backward", *["co"] * 16]  # weights and biases of 3 and 8 layers


@pytest.mark.slow
def test_compiled_is_the_same_up_to_rounding() -> None:
    plain, compiled = gradients(loss_of(), batch()), gradients(loss_of(compiled=True), batch())
    for name, expected in plain.items():
        torch.testing.assert_close(compiled[name], expected, rtol=0, atol=1e-5 * float(expected.abs().max()), msg=name)
