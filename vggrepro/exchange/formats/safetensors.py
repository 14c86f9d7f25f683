"""Safetensors: our own names, or torchvision's or timm's, by what is inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.exchange.formats import timm, torch_file
from vggrepro.exchange.formats.base import Foreign, WeightsFile, geometry, stated
from vggrepro.exchange.formats.state_dict import Preprocessing, asked, made
from vggrepro.nets import weights
from vggrepro.runs.folder import RunFolder


def read(source: WeightsFile, net: str) -> Foreign:
    """A safetensors file; what our exports say of themselves is in its metadata, of a run in config.json beside it.

    Raises:
        InputError: damaged, another net, preprocessing that is not said.
    """
    path = source.path
    shapes, metadata = _header(path)
    exported = stated(metadata, str(path))
    mine = "conv1_1.weight" in shapes
    if mine:  # before memory is taken
        _check_net(net, metadata, str(path))
        geometry(net, shapes, str(path))
        exported = exported or _of_run(path, net)
        if not exported:
            raise InputError(
                f"{path}: does not say its preprocessing (mean_rgb, input_scale); put the run's config.json beside it, "
                "or give a file that 'vggrepro export' wrote"
            )
    try:
        tensors, _ = weights.load(path)
    except weights.Damaged as error:
        raise InputError(f"{path}: damaged ({error.reason}); copy or download it again") from None
    hashes = {"sha256": source.sha256}
    if mine:
        return made(tensors, net, asked(Preprocessing(exported=exported), source), "vggrepro", "", str(path), hashes)
    if not exported and (found := timm.preprocessing(path)):
        return torch_file.by_names(tensors, source, net, Preprocessing(*found, said=True))
    return torch_file.by_names(tensors, source, net, Preprocessing(exported=exported))


def _check_net(net: str, about: dict[str, Any], place: str) -> None:
    """A and A-LRN have tensors of the same names: what the file says of itself decides."""
    if paper.check_net(net) != about.get("net", paper.check_net(net)):
        raise InputError(f"{place}: holds net {about['net']}, not {net}; import it as {about['net']}")


def _header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Shapes of the tensors and our metadata, without reading weights."""
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            state = json.loads((file.metadata() or {}).get("state", "{}"))
    except (SafetensorError, ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}); copy or download it again") from None
    return shapes, state if isinstance(state, dict) else {}


def _of_run(path: Path, net: str) -> dict[str, Any]:
    """The facts of the run folder that the file lies in; empty if it is no run."""
    run = RunFolder(path.parent)
    if not run.config_path.is_file():
        return {}
    config = run.config()
    _check_net(net, {"net": config.net}, str(path))
    recipe = config.recipe
    about = {**config.as_json(), "format": "vggrepro", "run": run.name, "lrn": recipe.lrn, "resample": recipe.resample}
    return stated(about, str(run.config_path))
