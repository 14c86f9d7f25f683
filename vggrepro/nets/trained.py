"""A finished run's net: its configuration and its weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from vggrepro import __version__, paper
from vggrepro.nets import weights
from vggrepro.nets.vgg import VGG
from vggrepro.runs.config import RunConfig
from vggrepro.runs.folder import RunFolder


@dataclass(frozen=True)
class Trained:
    """A finished run's net; tensors in our names and layout, float32."""

    folder: RunFolder
    config: RunConfig
    tensors: dict[str, Tensor]

    @classmethod
    def load(cls, folder: RunFolder) -> Trained:
        """Reads a run's configuration and weights.

        Raises:
            InputError: unfinished, damaged, or weights that are not its config.json's net.
        """
        folder.require_finished()
        config = folder.config()
        tensors, _ = weights.load(folder.weights_path)
        weights.check(tensors, config.architecture.shapes(), str(folder.weights_path))
        return cls(folder, config, {name: tensor.to(torch.float32).contiguous() for name, tensor in tensors.items()})

    @property
    def run(self) -> str:
        """The run's name."""
        return self.folder.name

    @cached_property
    def weights_hash(self) -> str:
        return self.folder.weights_hash()

    @property
    def title(self) -> str:
        """The net and the run, for formats that hold a title."""
        return f"VGG {self.config.net}, {self.run}"

    @property
    def mean(self) -> list[float]:
        """The mean for torchvision's `Normalize`, which takes RGB in 0-1."""
        return [value / 255 for value in self.config.mean_rgb]

    @property
    def std(self) -> list[float]:
        """The deviation for torchvision's `Normalize`, the same for all channels: ((x - mean) / std) is our input."""
        return [1 / (255 * self.config.input_scale)] * 3

    @property
    def test_side(self) -> int:
        """The shorter side, in real pixels, to which an image is rescaled before its central crop (Q = S)."""
        return paper.real_pixels(self.config.scale.middle, self.config.crop)

    def about(self) -> dict[str, Any]:
        """What an importer or a user must know: the net, its preprocessing, its classes and its origin."""
        config = self.config
        written = config.as_json()
        names = ("net", "scale", "crop", "stride", "width", "min_channels", "classes", "mean_rgb", "input_scale")
        return {
            "format": "vggrepro",
            "version": __version__,
            "run": self.run,
            **{name: written[name] for name in names if name in written},
            "normalize": {"mean": self.mean, "std": self.std},
            "resample": config.recipe.resample,
            "test_side": self.test_side,
            **({"lrn": config.lrn} if config.lrn else {}),
            **{name: written[name] for name in ("class_names", "class_words", "origin") if written.get(name)},
            "dataset": config.dataset.name,
            "weights": self.weights_hash,
        }

    def model(self) -> VGG:
        """Our net with these weights, in eval mode; in train mode it has the run's dropout (imported: the paper's)."""
        with torch.device("meta"):  # without random weights: to draw them would take seconds for D
            model = VGG.of(self.config.architecture, self.config.recipe.lrn)
        weights.check(self.tensors, model.architecture.shapes(), self.run)
        # Not `to_empty`: it imports sympy, which takes half a second.
        copies = {name: tensor.to(torch.float32, copy=True) for name, tensor in self.tensors.items()}
        model.load_state_dict(copies, assign=True)
        model.dropout = float(self.config.recipe.values.get("dropout", paper.DROPOUT))
        return model.eval()
