"""The export stage: writes a finished run's net for other tools, and says how its input is preprocessed.

The weights are stored unchanged, bit by bit. The preprocessing goes into the file's metadata where the format has some,
else into `<file>.json` beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.exchange.formats.state_dict import TWINS
from vggrepro.nets import weights
from vggrepro.nets.trained import Trained
from vggrepro.system.files import sha256, write_json, write_text
from vggrepro.system.progress import say

if TYPE_CHECKING:
    from vggrepro.runs.folder import RunFolder

MAP_SIDE = paper.CROP // paper.STRIDE  # torchvision's and timm's first FC layer sees 7 x 7 positions
# Where each format's file goes by default: runs/<run>/export/<run><ending>.
ENDINGS = {
    "torchvision": ".torchvision.pth",
    "timm": ".timm",
    "safetensors": ".safetensors",
    "onnx": ".onnx",
    "caffe": ".caffemodel",
}


def require_peer(trained: Trained, peer: str) -> None:
    """Refuses a net that torchvision's and timm's VGG classes cannot hold.

    Raises:
        InputError: C, A-LRN or B-5x5, another width than 1, less than five poolings, a last map that is not 7 x 7.
    """
    reason, net = None, trained.config.architecture
    if net.net not in TWINS:
        reason = f"it has A, B, D and E only, not {net.net}"
    elif net.width != 1:
        reason = f"its nets have width 1, {trained.run} has {net.width:g}"
    elif net.stride != paper.STRIDE:
        reason = f"its nets have five poolings, {trained.run} has {sum(paper.poolings(net.stride))}"
    elif net.map_side != MAP_SIDE:
        reason = f"its first FC layer sees a crop of 224 pixels, {trained.run} has {net.crop}"
    if reason:
        raise InputError(
            f"{trained.run} cannot be written for {peer}: {reason}; --to onnx, caffe and safetensors hold every net"
        )


def export(
    folder: RunFolder, to: str, out: Path | None = None, *, force: bool = False, dense: bool = False, card: bool = False
) -> list[Path]:
    """Writes a run's net in another tool's format; gives the files that were written, the weights first.

    Args:
        folder: a finished run.
        to: a name of `ENDINGS`.
        out: the file (timm: the folder) to write; None: runs/<run>/export/<run> and the format's ending.
        force: overwrite files that are there.
        dense: onnx: the net as convolutions over images of any size (Sect. 3.2).
        card: a model card in Markdown, too.

    Raises:
        InputError: unfinished run, a net that the format cannot hold, files in the way.
    """
    if to not in ENDINGS:
        raise InputError(f"--to {to}: choose one of {', '.join(ENDINGS)}")
    if dense and to != "onnx":
        raise InputError(f"--dense is for --to onnx; {to} holds weights, which are the same for crops and whole images")
    folder.require_finished()
    ending = ".dense.onnx" if dense else ENDINGS[to]
    path = out or folder.path / "export" / f"{folder.name}{ending}"
    files = _files(to, path)
    if card:
        files.append(_beside(path, ".md"))
    _refuse_existing(files, path, folder=to == "timm", force=force)
    trained = Trained.load(folder)
    if to in ("torchvision", "timm"):
        require_peer(trained, to)
    _writers()[to](trained, path, dense)
    if card:
        from vggrepro.exchange import card as cards

        write_text(files[-1], cards.card(folder, trained, to, path, dense))
    size = sum(file.stat().st_size for file in files) / 1e6
    say(f"export {folder.name}: {to}, {size:,.1f} MB; input: {_input_line(trained, to)}")
    return files


def _input_line(trained: Trained, to: str) -> str:
    """The preprocessing in a line."""
    if to == "onnx":
        return "uint8 RGB (N, H, W, 3); mean and scale are in the graph"
    if to in ("torchvision", "timm"):
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (trained.mean, trained.std))
        return f"RGB 0-1, Normalize(mean=({mean}), std=({std}))"
    order = ("BGR", tuple(reversed(trained.config.mean_rgb))) if to == "caffe" else ("RGB", trained.config.mean_rgb)
    mean = ", ".join(f"{value:.3f}" for value in order[1])
    return f"({order[0]} 0-255 - ({mean})) * {trained.config.input_scale:g}"


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _files(to: str, path: Path) -> list[Path]:
    """All files of an export, the weights first."""
    if to == "timm":
        return [path / "model.safetensors", path / "config.json"]
    if to == "caffe":
        return [path, path.with_suffix(".prototxt"), _beside(path, ".json")]
    if to == "torchvision" and path.suffix != ".safetensors":
        return [path, _beside(path, ".json")]
    return [path]


def _refuse_existing(files: list[Path], path: Path, *, folder: bool, force: bool) -> None:
    if not folder and path.is_dir():
        raise InputError(f"--out {path} is a folder; give the name of a file to write")
    if folder and path.is_file():
        raise InputError(f"--out {path} is a file; timm's format is a folder: give the name of one")
    if len(set(files)) < len(files):
        raise InputError(f"--out {path} is also the name of a file that goes beside the weights; give another ending")
    there = [str(file) for file in files if file.exists()]
    if there and not force:
        raise InputError(f"{there[0]} is there already; give --force to overwrite it, or another --out")


def _described(path: Path, trained: Trained, write: Callable[[], None]) -> None:
    """Writes a file, and `<file>.json` beside it with the file's hash. An interruption never leaves a wrong pair."""
    about = trained.about()
    write_json(_beside(path, ".json"), about | {"sha256": ""})
    write()
    write_json(_beside(path, ".json"), about | {"sha256": sha256(path)})


def _writers() -> dict[str, Callable[[Trained, Path, bool], None]]:
    """How each format is written; onnx is imported only where it is wanted."""

    def torchvision(trained: Trained, path: Path, _: bool) -> None:
        from vggrepro.exchange.formats import torchvision as format_

        if path.suffix == ".safetensors":
            format_.write(path, trained)
        else:
            _described(path, trained, lambda: format_.write(path, trained))

    def timm(trained: Trained, path: Path, _: bool) -> None:
        from vggrepro.exchange.formats import timm as format_

        format_.write(path, trained)

    def safetensors(trained: Trained, path: Path, _: bool) -> None:
        weights.save(path, trained.tensors, trained.about())

    def onnx(trained: Trained, path: Path, dense: bool) -> None:
        from vggrepro.exchange.formats import onnx as format_

        format_.write(path, trained, dense)

    def caffe(trained: Trained, path: Path, _: bool) -> None:
        from vggrepro.exchange.formats import caffe_writer

        write_text(path.with_suffix(".prototxt"), caffe_writer.prototxt(trained))
        _described(path, trained, lambda: caffe_writer.write(path, trained))

    return {"torchvision": torchvision, "timm": timm, "safetensors": safetensors, "onnx": onnx, "caffe": caffe}
