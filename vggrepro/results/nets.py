"""The nets in numbers (Sect. 2): tables of all nets, of a net's layers, and of Sect. 2.3's small filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from vggrepro import paper
from vggrepro.nets import cost
from vggrepro.nets.layers import Layer, field_before_fc6, layers, stacked_field, stacked_weights
from vggrepro.paper import Architecture
from vggrepro.results.beyond import BeyondTable
from vggrepro.results.columns import DASH, Column, Kind, column_of, labels_of

STACKS = ((5, (3, 3)), (7, (3, 3, 3)))  # a kernel, and the layers in its place (Sect. 2.3)
MILLION, BILLION = 1e6, 1e9
# Columns of frames: the heading on a page, and what a value is divided by and printed with.
SHOWN = {
    "weight_layers": ("layers", 1, "{:.0f}"),
    "parameters": ("params (M)", MILLION, "{:.3f}"),
    "fc_share": ("FC (%)", 1, "{:.0f}"),
    "fc6": ("fc6 (M)", MILLION, "{:.1f}"),
    "multiply_adds": ("MACs (10⁹)", BILLION, "{:.3f}"),
    "field": ("field (pixels)", 1, "{:.0f}"),
    "field_crops": ("field (crops)", 1, "{:.2f}"),
    "weight_bytes": ("weights (MB)", MILLION, "{:.1f}"),
    "map_bytes": ("maps (MB)", MILLION, "{:.1f}"),
    "kernel": ("kernel", 1, "{:.0f}"),
    "stride": ("stride", 1, "{:.0f}"),
    "side": ("map side", 1, "{:.0f}"),
    "channels": ("channels", 1, "{:.0f}"),
    "field_one": ("its field", 1, "{:.0f}"),
    "field_stack": ("their field", 1, "{:.0f}"),
    "weights_one": ("its weights (C²)", 1, "{:.0f}"),
    "weights_stack": ("their weights (C²)", 1, "{:.0f}"),
    "more": ("one layer has more (%)", 1, "{:.0f}"),
    "milliseconds": ("training step (ms per image)", 1, "{:.1f}"),
    "kept_bytes": ("kept for the backward pass (MB per image)", MILLION, "{:.1f}"),
}


def nets_table(nets: Sequence[Architecture]) -> BeyondTable:
    """All nets, a row each.

    Columns: `net`, `weight_layers`, `parameters`, `fc_share` (% of the parameters), `fc6` (parameters), `multiply_adds`
    (of a crop), `field` and `field_crops` (receptive field before fc6, in pixels and in crops), `weight_bytes`,
    `map_bytes` (all feature maps of a crop).
    """
    first = nets[0]
    caption = (
        f"{_size(first)}. Layers: those with weights. FC: the share of the parameters that the FC layers hold. MACs: "
        "multiply-adds of one crop, forward. Field: the receptive field of the map before fc6. Weights and the feature "
        "maps of one crop have numbers of 4 bytes."
    )
    return _table("all-nets", "All nets", caption, pd.DataFrame([_net(net) for net in nets]), ("net",))


def _net(net: Architecture) -> dict[str, Any]:
    parts = layers(net)
    connected = [layer for layer in parts if layer.fully_connected]
    field = field_before_fc6(net)
    return {
        "net": net.net,
        "weight_layers": sum(layer.parameters > 0 for layer in parts),
        "parameters": net.parameters,
        "fc_share": 100 * sum(layer.parameters for layer in connected) / net.parameters,
        "fc6": connected[0].parameters,
        "multiply_adds": cost.crop_macs(net),
        "field": field,
        "field_crops": field / net.crop,
        "weight_bytes": cost.weight_bytes(net),
        "map_bytes": cost.FLOAT_BYTES * sum(layer.values for layer in parts),
    }


def layers_table(net: Architecture) -> BeyondTable:
    """A row for each layer: `net`, `layer`, and the values of `layers.Layer`."""
    frame = pd.DataFrame([{"net": net.net, **_layer(layer)} for layer in layers(net)])
    caption = (
        f"{_size(net)}. A ReLU follows every layer with parameters but fc8. "
        "Field: the receptive field. MACs: multiply-adds of one crop."
    )
    return _table(f"layers-{net.net}", f"Layers of {net.net}", caption, frame, ("layer",))


def _layer(layer: Layer) -> dict[str, Any]:
    names = ("kernel", "stride", "field", "side", "channels", "parameters", "multiply_adds")
    return {"layer": layer.name, **{name: getattr(layer, name) for name in names}}


def stacks_table() -> BeyondTable:
    """Sect. 2.3: a row for a 5 × 5 and a 7 × 7 layer, beside the 3 × 3 layers with the same receptive field."""
    frame = pd.DataFrame(
        {
            "layer": f"{kernel} × {kernel}",
            "in its place": f"{len(stack)} of 3 × 3",
            "field_one": stacked_field([kernel]),
            "field_stack": stacked_field(stack),
            "weights_one": stacked_weights([kernel]),
            "weights_stack": stacked_weights(stack),
            "more": 100 * (stacked_weights([kernel]) / stacked_weights(stack) - 1),
        }
        for kernel, stack in STACKS
    )
    caption = (
        "Sect. 2.3: layers of 3 × 3 pixels see as much as one layer of larger filters. With C channels in and out they "
        "have fewer weights, and a ReLU after each."
    )
    return _table("stacks", "Small filters in place of large ones", caption, frame, ("layer", "in its place"))


def costs_table(costs: pd.DataFrame, where: str) -> BeyondTable:
    """The results of `nets.measure` with a row for each net: `net`, `milliseconds`, `kept_bytes`."""
    caption = f"A training step, forward and backward, measured on {where}. A-LRN is A with a normalisation (claim 1)."
    return _table("costs", "Measured cost", caption, costs, ("net",))


def all_nets(size: Architecture) -> list[Architecture]:
    """Every net of the paper with the classes and sizes of `size`."""
    return [Architecture(net, size.classes, *size.geometry) for net in paper.NETS]


def _size(net: Architecture) -> str:
    strides = "" if net.stride == paper.STRIDE else f", stride {net.stride}"
    return f"{net.classes:,} classes, crop {net.crop}{strides}, {net.geometry.widths}"


def _table(name: str, title: str, caption: str, frame: pd.DataFrame, labels: Sequence[str]) -> BeyondTable:
    columns = [*labels_of(frame, labels), *(_column(frame, key) for key in frame if key in SHOWN)]
    return BeyondTable(name, title, caption, frame, tuple(columns), ("",) * len(frame))


def _column(frame: pd.DataFrame, key: str) -> Column:
    heading, unit, form = SHOWN[key]
    cells = [form.format(value / unit) if value else DASH for value in frame[key]]
    return column_of(Kind.NUMBER, "", heading, heading, frame[key], cells)
