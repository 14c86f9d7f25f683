"""Argument: a file. Sums gradients over torchrun's processes, each with its share of images, and saves the sums."""

from __future__ import annotations

import sys

import torch
from torch.nn import functional as F

from vggrepro.nets.initialise import initialise
from vggrepro.nets.vgg import VGG
from vggrepro.system import processes

processes.join_processes(torch.device("cpu"))
model = VGG("A", 300, 32, 1 / 8)  # fc6, fc7 and some conv. layers have a message of their own
initialise(model, "he", 0)
model.to(memory_format=torch.channels_last)
assert any(p.numel() >= processes.LARGE for p in model.parameters())
sums = processes.GradientSum(model.parameters())
generator = torch.Generator().manual_seed(1)
images, labels = torch.randn(8, 3, 32, 32, generator=generator), torch.arange(8)
for _ in range(2):  # the second finds nothing left of the first
    model.zero_grad()
    total = torch.zeros(())
    mine = list(processes.share(8))
    for rows in (mine[:1], mine[1:]):
        sums.arm(last=rows != mine[:1])
        loss = F.cross_entropy(model(images[rows]), labels[rows], reduction="sum")
        loss.backward()
        total += loss.detach()
    sums.finish(total)
if processes.is_first():
    gradients = {name: p.grad for name, p in model.named_parameters()}
    torch.save({**gradients, "total": total}, sys.argv[1])
processes.leave_processes()
