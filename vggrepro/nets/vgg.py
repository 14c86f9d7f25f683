"""The nets of Table 1, on crops and densely over whole images.

Tensors: images (N, 3, H, W), RGB, (0-255 minus the training set's mean) times the run's `input_scale`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.nets import keyed
from vggrepro.paper import Architecture
from vggrepro.system import devices


class VGG(nn.Module):
    """A net of Table 1; tensor names are those of the authors' Caffe models (`conv1_1.weight` … `fc8.bias`).

    Args:
        net: A, A-LRN, B, B-5x5, C, D or E.
        classes: K, the size of the last layer.
        crop: side of a training crop in real pixels; fc6 sees floor(crop / stride) squared positions.
        width: multiplies conv. channels and FC units; 1 is the paper.
        stride: pixels between two positions of the score map; 32 is the paper, 16 and 8 leave out the first one or two
            poolings (`paper.poolings`).
        lrn: A-LRN's normalisation, a name of `paper.LRN_DEFINITIONS`.

    `dropout` is the rate after fc6 and fc7 in train mode. It is 0 at first, as the trainer gives its own masks; a
    loaded net has that of its run.
    """

    fc6: nn.Linear
    fc7: nn.Linear
    fc8: nn.Linear

    def __init__(
        self,
        net: str,
        classes: int,
        crop: int = paper.CROP,
        width: float = 1.0,
        lrn: str = "krizhevsky",
        stride: int = paper.STRIDE,
    ) -> None:
        super().__init__()
        self.dropout = 0.0
        paper.check_geometry(crop, stride)
        self.architecture = Architecture(net, classes, crop, width, stride)
        if lrn not in paper.LRN_DEFINITIONS:
            raise InputError(f"unknown LRN '{lrn}'; choose one of {', '.join(paper.LRN_DEFINITIONS)}")
        self.blocks, self.lrn = paper.blocks(net), lrn
        self.poolings = paper.poolings(stride)
        for name, shape in self.architecture.shapes().items():
            if not name.endswith(".weight"):
                continue
            layer: nn.Module
            if len(shape) == 4:
                # "same" padding for 3x3 and 5x5; C's 1x1 layers have none (Sect. 2.1)
                layer = nn.Conv2d(shape[1], shape[0], shape[2], padding=shape[2] // 2)
            else:
                layer = nn.Linear(shape[1], shape[0])
            self.add_module(name.removesuffix(".weight"), layer)

    @classmethod
    def of(cls, architecture: Architecture, lrn: str = "krizhevsky") -> VGG:
        """The net of an architecture."""
        size = architecture.crop, architecture.width, lrn, architecture.stride
        return cls(architecture.net, architecture.classes, *size)

    def features(self, images: Tensor, ceil_pool: bool = False) -> Tensor:
        """Conv. layers with ReLU, LRN where Table 1 has it, 2x2 max-poolings that round down, or up as Caffe's.

        (N, 3, H, W) -> (N, C, floor(H/stride), floor(W/stride)).
        """
        x = images
        for block, pooled in zip(self.blocks, self.poolings, strict=True):
            for place, layer in enumerate(block, 1):
                conv = self.get_submodule(layer.name) if isinstance(layer, paper.Conv) else None
                x = conv(x) if conv else self._normalised(x)
                if pooled and place == len(block):
                    # Before ReLU, which then has a quarter of the work; the result is the same to the bit.
                    x = F.max_pool2d(x, 2, ceil_mode=ceil_pool)
                if conv:
                    x = F.relu(x, inplace=True)
        return x

    def _normalised(self, x: Tensor) -> Tensor:
        """LRN in fp32 at any precision: 8 bits of k + alpha * sum would leave errors of 1 %."""
        with devices.uncast(x.device):
            return local_response_norm(x.to(self.fc8.weight.dtype), self.lrn)

    def forward(self, images: Tensor, masks: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Class scores of crops: (N, 3, crop, crop) -> (N, K).

        `masks`, from `dropout_masks`, multiply the rectified fc6 and fc7. Without them `dropout` applies in train
        mode.
        """
        x = self.features(images).flatten(1)
        for place, layer in enumerate((self.fc6, self.fc7)):
            x = F.relu(layer(x), inplace=masks is None)
            if masks is not None:
                x = x * masks[place]
            elif self.training and self.dropout:
                x = F.dropout(x, self.dropout)
        return self._scores(x)

    def _scores(self, x: Tensor) -> Tensor:
        """fc8 in fp32 at any precision: bf16 scores would tie and round the soft-max."""
        with devices.uncast(x.device):
            return F.linear(x.to(self.fc8.weight.dtype), self.fc8.weight, self.fc8.bias)

    def dense_scores(self, images: Tensor, ceil_pool: bool = False) -> Tensor:
        """Dense evaluation (Sect. 3.2): class scores averaged over all positions of the score map.

        FC layers act as convolutions over the whole image: (N, 3, H, W) -> (N, K). fc8 is linear, so fc7 is
        averaged over positions first and fc8 applied once, which is the same.

        Args:
            images: net input.
            ceil_pool: poolings round up, as Caffe's do; maps differ where a side is no multiple of the stride.

        Raises:
            InputError: the image is too small to leave a map for fc6.
        """
        return self._scores(self.dense_features(images, ceil_pool))

    def dense_features(self, images: Tensor, ceil_pool: bool = False) -> Tensor:
        """Rectified fc7 averaged over all positions, the features of Appendix B: (N, 3, H, W) -> (N, FC).

        Raises:
            InputError: the image is too small to leave a map for fc6.
        """
        hidden, _ = self._hidden(images, ceil_pool)
        return hidden.mean(1)

    def score_map(self, images: Tensor) -> Tensor:
        """The class scores at each position of the FC layers, whose mean is `dense_scores`.

        (N, 3, H, W) -> (N, K, rows, columns): positions are a stride apart; each sees an area of a crop's size.
        """
        hidden, shape = self._hidden(images)
        return self._scores(hidden).transpose(1, 2).reshape(len(images), -1, *shape)

    def _hidden(self, images: Tensor, ceil_pool: bool = False) -> tuple[Tensor, tuple[int, int]]:
        """Rectified fc7 at each position, (N, rows * columns, FC) in fc8's type, and (rows, columns)."""
        x = self.features(images, ceil_pool)
        side = self.architecture.map_side
        if min(x.shape[2:]) < side:
            height, width = images.shape[2:]
            raise InputError(f"an image of {width}x{height} pixels leaves no {side}x{side} map for fc6; use a larger Q")
        shape = x.shape[2] - side + 1, x.shape[3] - side + 1
        windows = F.unfold(x, side).transpose(1, 2)  # (N, positions, C * side * side), channel first as in fc6
        x = F.relu(
            self.fc6(windows.flatten(0, 1)), inplace=True
        )  # one product for all images is faster than one for each
        x = F.relu(self.fc7(x), inplace=True).view(*windows.shape[:2], -1)
        return x.to(self.fc8.weight.dtype), shape

    def dropout_masks(self, rate: float, keys: Tensor) -> tuple[Tensor, Tensor] | None:
        """Masks of fc6 and fc7, 0 or 1/(1-rate), one keyed row an image: (N,) int64 -> two of (N, FC)."""
        if rate == 0:
            return None
        units = self.fc6.out_features
        masks = (keyed.uniform(keys, 2 * units) >= rate).to(torch.float32) / (1 - rate)
        return masks[:, :units], masks[:, units:]


def local_response_norm(x: Tensor, definition: str = "krizhevsky") -> Tensor:
    """LRN: x / (k + alpha * sum over n channels of x²)^0.75, parameters as `paper.LRN_DEFINITIONS` has them.

    (N, C, H, W) -> the same. Unlike torch's, the sum is not divided by n. It runs over neighbouring channels, so it is
    a 1x1 convolution with a band of ones: 1.5 to 3 times as fast on a CPU as torch's own, forward and backward.
    """
    values = paper.LRN_DEFINITIONS[definition]
    channels, reach = x.shape[1], int(values["n"]) // 2
    band = torch.ones(channels, channels, dtype=x.dtype, device=x.device).triu(-reach).tril(reach)
    total = F.conv2d(x * x, band[:, :, None, None])
    root = torch.rsqrt(values["k"] + values["alpha"] * total)
    return x * root * root.sqrt()  # d^-0.75 = d^-0.5 * (d^-0.5)^0.5


def to_input(pixels: Tensor, mean_rgb: Tensor, input_scale: float) -> Tensor:
    """The net's input, channels-last: uint8 RGB (N, H, W, 3) -> (N, 3, H, W) float32, (RGB - mean) * scale.

    `mean_rgb` is (3,), or (N, 1, 1, 3) where each image has its own colour shift.
    """
    return ((pixels.to(torch.float32) - mean_rgb) * input_scale).permute(0, 3, 1, 2)
