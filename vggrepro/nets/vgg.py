"""The nets of Table 1, on crops and densely over whole images.

Tensors: images (N, 3, H, W), RGB, (0-255 minus the training set's mean) times the run's `input_scale`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.nets import keyed
from vggrepro.paper import Architecture
from vggrepro.system import devices


@dataclass(frozen=True, slots=True)
class Extent:
    """The size of each image in a padded batch; below it and to its right are zeros.

    Zeros are what a convolution sees beyond an image's border. So the images get the maps that they have alone, if the
    padding is set to zero again after each layer.
    """

    sizes: Tensor  # (N, 2) int64 on the device, rows and columns
    least: tuple[int, int]  # the smallest number of rows and of columns; the host knows it without asking the device

    @classmethod
    def of(cls, sizes: list[tuple[int, int]], device: torch.device) -> Extent:
        """The extent of images of these heights and widths."""
        return cls(devices.upload(torch.tensor(sizes), device), (min(h for h, _ in sizes), min(w for _, w in sizes)))

    def pooled(self, ceil: bool) -> Extent:
        """After a 2x2 max-pooling that rounds down, or up."""
        more = int(ceil)
        return Extent((self.sizes + more) // 2, ((self.least[0] + more) // 2, (self.least[1] + more) // 2))

    def positions(self, side: int) -> Extent:
        """The extent of the positions at which a window of this side fits."""
        return Extent(self.sizes - side + 1, (self.least[0] - side + 1, self.least[1] - side + 1))

    def inside(self, dimension: int, start: int, end: int) -> Tensor:
        """Which of the rows (dimension 0) or columns (1) from `start` to `end` are image: bool (N, end - start)."""
        return torch.arange(start, end, device=self.sizes.device) < self.sizes[:, dimension, None]

    def clear(self, x: Tensor) -> Tensor:
        """`x` (N, C, H, W), with zeros beyond each image, in place."""
        for dimension, start in enumerate(self.least):
            end = x.shape[2 + dimension]
            if start < end:
                inside = self.inside(dimension, start, end)
                x.narrow(2 + dimension, start, end - start).mul_(
                    inside[:, None, :, None] if dimension == 0 else inside[:, None, None]
                )
        return x

    def mirrored(self, x: Tensor) -> Tensor:
        """`x` (N, C, H, W), each image mirrored left to right within its own columns; values beyond it mean nothing."""
        columns = (self.sizes[:, 1:] - 1 - torch.arange(x.shape[3], device=x.device)) % x.shape[3]
        return x.take_along_dim(columns[:, None, None], 3)

    def twice(self) -> Extent:
        """The extent of the batch and then of its mirrored images."""
        return Extent(self.sizes.repeat(2, 1), self.least)


class VGG(nn.Module):
    """A net of Table 1; tensor names are those of the authors' Caffe models (`conv1_1.weight` … `fc8.bias`).

    Args:
        net: A, A-LRN, B, B-5x5, C, D or E.
        classes: K, the size of the last layer.
        crop: side of a training crop in real pixels; fc6 sees floor(crop / stride) squared positions.
        width: multiplies conv. channels and FC units; 1 is the paper.
        stride: pixels between two positions of the score map; 32 is the paper; 16, 8 and 4 leave out the first one,
            two or three poolings (`paper.poolings`).
        min_channels: of each conv. layer, however small the width.
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
        min_channels: int = 1,
    ) -> None:
        super().__init__()
        self.dropout = 0.0
        self.channels_last_inputs = False  # of fc6; see `take_channels_last`
        self.fused = False  # see `fuse`
        paper.check_geometry(crop, stride)
        self.architecture = Architecture(net, classes, crop, width, stride, min_channels)
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
        crop, width, stride, min_channels = architecture.geometry
        return cls(architecture.net, architecture.classes, crop, width, lrn, stride, min_channels)

    def features(self, images: Tensor, ceil_pool: bool = False, extent: Extent | None = None) -> Tensor:
        """Conv. layers with ReLU, LRN where Table 1 has it, 2x2 max-poolings that round down, or up as Caffe's.

        (N, 3, H, W) -> (N, C, floor(H/stride), floor(W/stride)). In a padded batch, `extent` has the images' sizes.
        """
        x = images
        for block, pooled in zip(self.blocks, self.poolings, strict=True):
            for place, layer in enumerate(block, 1):
                conv = self.get_submodule(layer.name) if isinstance(layer, paper.Conv) else None
                x = self._convolved(x, conv) if isinstance(conv, nn.Conv2d) else self._normalised(x)
                if pooled and place == len(block):
                    # Pooling before ReLU leaves ReLU a quarter of the work; the result has the same bits.
                    if extent and ceil_pool:  # a window over the edge reads beyond the image
                        extent.clear(x)
                    x = F.max_pool2d(x, 2, ceil_mode=ceil_pool)
                    extent = extent.pooled(ceil_pool) if extent else None
                if conv and not self.fused:
                    x = F.relu(x, inplace=True)
                if extent:
                    extent.clear(x)
        return x

    def _convolved(self, x: Tensor, conv: nn.Conv2d) -> Tensor:
        """The layer's output; after `fuse` it is also rectified."""
        if not self.fused:
            return conv(x)
        pad, one = conv.kernel_size[0] // 2, [1, 1]
        return torch.cudnn_convolution_relu(x.to(conv.weight.dtype), conv.weight, conv.bias, one, [pad, pad], one, 1)

    @torch.no_grad()
    def fuse(self) -> None:
        """For inference on a GPU: convolution, bias and ReLU as one operation of cuDNN, if it has one that agrees."""
        conv, self.fused = self.get_submodule("conv1_1"), False
        assert isinstance(conv, nn.Conv2d)
        x = torch.linspace(-1, 1, 6 * 32**2, device=conv.weight.device).sin().view(2, 3, 32, 32).to(conv.weight.dtype)
        expected = F.relu(self._convolved(x, conv))
        self.fused = True
        try:
            self.fused = torch.allclose(self._convolved(x, conv).float(), expected.float(), rtol=0.01, atol=0.01)
        except (RuntimeError, AttributeError):
            self.fused = False

    def _normalised(self, x: Tensor) -> Tensor:
        """LRN in fp32 at any precision: 8 bits of k + alpha * sum would leave errors of 1 %."""
        with devices.uncast(x.device):
            return local_response_norm(x.to(self.fc8.weight.dtype), self.lrn)

    def forward(self, images: Tensor, masks: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Class scores of crops: (N, 3, crop, crop) -> (N, K).

        `masks`, from `dropout_masks`, multiply the rectified fc6 and fc7. Without them `dropout` applies in train
        mode.
        """
        return self.scores(self.features(images), masks)

    def scores(self, maps: Tensor, masks: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The FC layers of `forward`: maps of a crop from `features`, (N, C, side, side) -> (N, K)."""
        x = (maps.permute(0, 2, 3, 1) if self.channels_last_inputs else maps).flatten(1)
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

    def dense_scores(self, images: Tensor, ceil_pool: bool = False, extent: Extent | None = None) -> Tensor:
        """Dense evaluation (Sect. 3.2): class scores averaged over all positions of the score map.

        FC layers act as convolutions over the whole image: (N, 3, H, W) -> (N, K). fc8 is linear, so fc7 is
        averaged over positions first and fc8 applied once, which is the same.

        Args:
            images: net input.
            ceil_pool: poolings round up, as Caffe's do; maps differ where a side is no multiple of the stride.
            extent: of a padded batch, whose padding is zero.

        Raises:
            InputError: the image is too small to leave a map for fc6.
        """
        return self._scores(self.dense_features(images, ceil_pool, extent))

    def dense_features(self, images: Tensor, ceil_pool: bool = False, extent: Extent | None = None) -> Tensor:
        """Rectified fc7 averaged over all positions, the features of Appendix B: (N, 3, H, W) -> (N, FC).

        Raises:
            InputError: the image is too small to leave a map for fc6.
        """
        hidden, (rows, columns) = self._hidden(images, ceil_pool, extent)
        if extent is None:
            return hidden.mean(1)
        places = self._map_extent(extent, ceil_pool).positions(self.architecture.map_side)
        inside = places.inside(0, 0, rows)[:, :, None] & places.inside(1, 0, columns)[:, None]
        return (hidden * inside.flatten(1)[..., None]).sum(1) / places.sizes.prod(1, keepdim=True)

    def _map_extent(self, extent: Extent, ceil_pool: bool) -> Extent:
        for pooled in self.poolings:
            extent = extent.pooled(ceil_pool) if pooled else extent
        return extent

    def score_map(self, images: Tensor) -> Tensor:
        """The class scores at each position of the FC layers, whose mean is `dense_scores`.

        (N, 3, H, W) -> (N, K, rows, columns): positions are a stride apart; each sees an area of a crop's size.
        """
        hidden, shape = self._hidden(images)
        return self._scores(hidden).transpose(1, 2).reshape(len(images), -1, *shape)

    def _hidden(
        self, images: Tensor, ceil_pool: bool = False, extent: Extent | None = None
    ) -> tuple[Tensor, tuple[int, int]]:
        """Rectified fc7 at each position, (N, rows * columns, FC) in fc8's type, and (rows, columns)."""
        x = self.features(images, ceil_pool, extent)
        side = self.architecture.map_side
        height, width = extent.least if extent else images.shape[2:]
        if min(self._map_extent(extent, ceil_pool).least if extent else x.shape[2:]) < side:
            raise InputError(f"an image of {width}x{height} pixels leaves no {side}x{side} map for fc6; use a larger Q")
        shape = x.shape[2] - side + 1, x.shape[3] - side + 1
        x = F.relu(self.fc6(self._windows(x, side)), inplace=True)
        x = F.relu(self.fc7(x), inplace=True).view(len(images), shape[0] * shape[1], -1)
        return x.to(self.fc8.weight.dtype), shape

    def _windows(self, maps: Tensor, side: int) -> Tensor:
        """All windows of the maps in the order of fc6's inputs: (N, C, H, W) -> (N * positions, C * side * side)."""
        if not self.channels_last_inputs:
            return F.unfold(maps, side).transpose(1, 2).flatten(0, 1)
        windows = maps.permute(0, 2, 3, 1).unfold(1, side, 1).unfold(2, side, 1)  # (N, rows, columns, C, side, side)
        return windows.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)

    @torch.no_grad()
    def take_channels_last(self) -> None:
        """Reorders fc6's inputs from (C, side, side), as Caffe and the weights' files have them, to (side, side, C).

        Then windows of maps that lie channels-last in memory are copied in long runs. A net changed so is for inference
        alone: it must not be saved.
        """
        side, weight = self.architecture.map_side, self.fc6.weight
        self.fc6.weight.data = weight.view(len(weight), -1, side, side).permute(0, 2, 3, 1).flatten(1)
        self.channels_last_inputs = True

    def dropout_masks(self, rate: float, keys: Tensor) -> tuple[Tensor, Tensor] | None:
        """Masks of fc6 and fc7, 0 or 1/(1-rate), with a row for each image's key: (N,) int64 -> two of (N, FC)."""
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
