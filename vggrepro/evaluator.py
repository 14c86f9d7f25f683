"""A net at work on test views: posteriors of rescaled images by any method (Sect. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vggrepro import hardware, views, weights
from vggrepro.errors import InputError
from vggrepro.net import VGG, to_input
from vggrepro.progress import say
from vggrepro.recipe import recorded
from vggrepro.runs import RunFolder
from vggrepro.train import Machine

FORWARD_PIXELS = {"cpu": 1 << 20, "cuda": 32 << 20}  # input pixels of a forward pass, flips included


def dense_posteriors(model: VGG, x: Tensor, flip: bool = True, ceil_pool: bool = False) -> Tensor:
    """Dense posteriors (Sect. 3.2): the mean over flips of the soft-max of spatially averaged scores.

    (N, 3, H, W) net input -> (N, K) float32.
    """
    return _mean_over_flips(partial(model.dense_scores, ceil_pool=ceil_pool), x, flip)


def crop_posteriors(model: VGG, x: Tensor, flip: bool = True) -> Tensor:
    """Posteriors of crops, the mean over flips: (N, 3, crop, crop) -> (N, K) float32."""
    return _mean_over_flips(model, x, flip)


def _mean_over_flips(scores: Any, x: Tensor, flip: bool) -> Tensor:
    views_of_x = torch.cat([x, x.flip(3)]) if flip else x
    result = torch.softmax(scores(views_of_x).float(), dim=1)
    return result.view(-1, len(x), result.shape[1]).mean(0)


class Evaluator:
    """A finished run's net on a device, ready for images."""

    def __init__(self, run: RunFolder, machine: Machine, ceil_pool: bool = False) -> None:
        config = run.config()
        self.crop, self.machine, self.ceil_pool = int(config["crop"]), machine, ceil_pool
        self.classes = int(config["classes"])
        self.input_scale = float(config["input_scale"])
        values = recorded(config)
        self.resample = values["resample"]
        self.mean = torch.tensor(config["mean_rgb"], dtype=torch.float32, device=machine.device)
        self.model = VGG(config["net"], self.classes, self.crop, float(config["width"]), values["lrn"])
        tensors, _ = weights.load(run.weights_path)
        weights.into(self.model, tensors, str(run.weights_path))
        self.model.to(machine.device).to(memory_format=torch.channels_last).eval()
        if machine.precision == "bf16":  # what autocast would do in each pass; fc8 stays in fp32
            for name, layer in self.model.named_children():
                if name != "fc8":
                    layer.to(torch.bfloat16)
        self._budget = FORWARD_PIXELS.get(machine.device.type, FORWARD_PIXELS["cpu"])

    def posteriors(self, images: Sequence[np.ndarray], method: str, flip: bool, grid: int) -> np.ndarray:
        """Posteriors of rescaled images, each uint8 (H, W, 3), of any sizes: (n, K) float32.

        Images of equal size share forward passes; a pass that does not fit the memory is split.

        Raises:
            InputError: a single image does not fit.
        """
        result = np.empty((len(images), self.classes), np.float32)
        by_size: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(place)
        for size, members in by_size.items():
            pixels = size[0] * size[1] if method == "dense" else views.count(method, grid) * self.crop**2
            pixels *= 1 + flip
            left = members
            while left:
                part = left[: max(1, self._budget // pixels)]
                batch = torch.from_numpy(np.stack([images[place] for place in part])).to(self.machine.device)
                try:
                    result[part] = self.forward(batch, method, flip, grid).cpu().numpy()
                except (RuntimeError, MemoryError) as error:
                    if not hardware.is_out_of_memory(error):
                        raise
                    self._spend_less(len(part), pixels, size)
                    continue
                left = left[len(part) :]
        return result

    def _spend_less(self, images: int, pixels: int, size: tuple[int, ...]) -> None:
        """Halves the pixels of a forward pass, for this and all further images."""
        if images == 1:
            raise InputError(
                f"an image of {size[1]}x{size[0]} pixels does not fit the memory of {self.machine.device}; "
                "use a smaller Q, --precision bf16 or --device cpu"
            )
        self._budget = images * pixels // 2
        if self.machine.device.type == "cuda":
            torch.cuda.empty_cache()
        say(f"note: {images} images of {size[1]}x{size[0]} do not fit the memory; going on with {images // 2}")

    def forward(self, batch: Tensor, method: str, flip: bool, grid: int) -> Tensor:
        """Posteriors of equal-sized images in one pass: uint8 (n, H, W, 3) on the device -> (n, K) float32."""
        with torch.inference_mode(), hardware.autocast(self.machine.precision, self.machine.device):
            if method == "dense":
                x = to_input(batch, self.mean, self.input_scale)
                return dense_posteriors(self.model, x, flip, self.ceil_pool)
            crops = views.crops(batch, self.crop, method, grid)
            result = crop_posteriors(self.model, to_input(crops, self.mean, self.input_scale), flip)
            return result.view(len(batch), views.count(method, grid), -1).mean(1)
