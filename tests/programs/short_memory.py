"""Two of torchrun's processes, the second with memory for two images.

Each prints its micro-batch after three steps, and whether the sum of gradients is that of the whole batch. Then the
second's memory shrinks to nothing: it prints what it is told.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from vggrepro import recipe
from vggrepro.errors import InputError
from vggrepro.nets import keyed
from vggrepro.nets.initialise import initialise
from vggrepro.nets.vgg import VGG
from vggrepro.system import processes
from vggrepro.system.devices import Machine
from vggrepro.training.gradient import Gradient
from vggrepro.training.loader import Batch
from vggrepro.training.step import Loss

CPU = torch.device("cpu")
most, plain = 2, Loss.__call__


def call(self: Loss, batch: Batch) -> Tensor:
    """The loss, if the second process's memory holds the images."""
    loss = plain(self, batch)
    if processes.rank() and len(batch.labels) > most:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return loss


processes.join_processes(CPU)
model = VGG("A", 300, 32, 1 / 8)
initialise(model, "he", 0)
chosen = recipe.load("demo", {"crop": 32, "width": 1 / 8, "batch": 8, "dropout": 0.5})
generator = torch.Generator().manual_seed(1)
crops = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8, generator=generator)


def share(rows: Tensor) -> Batch:
    """These images of the batch."""
    keys = keyed.key(0, keyed.DROPOUT, rows)
    return Batch(crops[rows], rows % 2 == 0, torch.zeros(len(rows), 3), rows, keys)


alone = copy.deepcopy(model)
(Loss(alone, chosen, torch.zeros(3), "fp32")(share(torch.arange(8))) / 8).backward()
Loss.__call__ = call  # type: ignore[method-assign]
gradient = Gradient(model, chosen, torch.zeros(3), Machine(CPU, "fp32"), list(model.parameters()), "A")
own = share(torch.tensor(list(processes.share(8))))
for _ in range(3):
    gradient.finish(gradient.make(own))
pairs = [(p.grad, q.grad) for p, q in zip(model.parameters(), alone.parameters(), strict=True)]
print(gradient.limit, all(float((a - b).abs().max()) < 1e-5 * float(b.abs().max()) for a, b in pairs))
if processes.rank():
    most = 0
    try:
        gradient.make(own)
    except InputError as error:
        print(error)
processes.leave_processes()
