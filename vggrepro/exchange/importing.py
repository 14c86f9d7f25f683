"""Makes a finished run of weights that were trained elsewhere; all later commands treat it like any other run."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path

from vggrepro import __version__, paper
from vggrepro.data import synsets
from vggrepro.errors import InputError
from vggrepro.exchange import formats
from vggrepro.exchange.formats import published
from vggrepro.exchange.formats.base import NOT_THE_PAPERS, WNID_ORDER, Foreign, WeightsFile
from vggrepro.nets import weights
from vggrepro.paper import Run, Scale
from vggrepro.runs.config import Imported, RunConfig, UsedRecipe
from vggrepro.runs.folder import RunFolder
from vggrepro.system import advice
from vggrepro.system.commit import commit
from vggrepro.system.files import atomic, lock, write_json
from vggrepro.system.progress import say

UNKNOWN_SCALE = "256"  # stands for S where it is not known; evaluate derives Q from it
ALONE = "give a net and one file: vggrepro import NET FILE"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def import_weights(
    net: str,
    origin: Path | str,
    runs: Path,
    name: str | None = None,
    scale: str | None = None,
    *,
    resample: str | None = None,
    input_: str | None = None,
    replace: bool = False,
) -> RunFolder:
    """Reads weights of any known format and writes them as a finished run.

    An interruption leaves the folder as it was. The same import again changes nothing.

    Args:
        net: of Table 1.
        origin: a file, `timm:NAME` or `torchvision:NAME`.
        runs: the folder of run folders.
        name: of the run; None: the paper's for `scale` or a published file's, else net and format.
        scale: the training scale S; None: that of the name or the published file.
        resample: with which evaluate rescales images for it, bilinear or bicubic; None: the file's, else bilinear.
        input_: what a state dict's input is, where it does not say so: "caffe" or "torchvision".
        replace: a run of that name may be there; it stays in `former/` until the new one is finished, and goes.

    Raises:
        InputError: unreadable or unfitting weights, a name that contradicts net or scale, or a run that is there.
    """
    net = paper.check_net(net)
    run = _asked(net, name, scale)
    early = name or (run.name if run else None)
    if early:  # before half a gigabyte is read
        _refuse_other(RunFolder(runs / early), None, replace)
    foreign = formats.read(origin, net, input_)
    if run is None and foreign.scale:
        run = Run(net, Scale.parse(foreign.scale))
    folder = RunFolder(runs / (name or (run.name if run else f"{net}-{foreign.format.lower()}")))
    config = _config(foreign, run or Run(net, Scale.parse(UNKNOWN_SCALE)), resample, origin)
    for note in _notes(foreign, run):
        say(f"note: {note}")
    with lock(folder.path, f"vggrepro import {folder.name}"):
        if _refuse_other(folder, config, replace):
            say(f"{folder.name} holds these weights already")
            return folder
        with atomic(folder.weights_path) as temporary:
            weights.write(temporary, foreign.tensors, {"run": folder.name})
            if folder.finished:
                folder.keep_former()
            # From here on, an interruption leaves an unfinished run, never the old weights with the new config.
            folder.weights_path.unlink(missing_ok=True)
            folder.metrics_path.unlink(missing_ok=True)
            folder.remove_progress()
            write_json(folder.config_path, config.as_json())
        folder.remove_former()
    say(f"{folder.name}: {foreign.origin}; next: {advice.command('evaluate', folder.name)}")
    return folder


def import_folder(folder: Path, runs: Path, *, resample: str | None = None, replace: bool = False) -> list[RunFolder]:
    """Imports each released file of a folder, known by its name or hash; says which files it leaves out.

    Raises:
        InputError: no such folder, none is known, or one cannot be imported.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give a net and a file of weights, or a folder of the authors' files")
    chosen, others, again = dict[tuple[str, str | None], Path](), list[str](), list[str]()
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        known = published.recognise(WeightsFile(path))
        if known is None:
            others.append(path.name)
        elif chosen.setdefault((known.net, known.scale), path) != path:
            again.append(f"{path.name} ({known.net})")
    if not chosen:
        held = ", ".join(others[:3]) + (", …" if len(others) > 3 else "") or "nothing"
        raise InputError(f"{folder}: no released file of weights is known by its name or hash (there: {held}); {ALONE}")
    result = [import_weights(net, path, runs, resample=resample, replace=replace) for (net, _), path in chosen.items()]
    if others:
        say(f"left out, known neither by name nor by hash: {', '.join(others)}; {ALONE}")
    if again:
        say(f"left out, as the net was there already: {', '.join(again)}; give one alone with --as")
    return result


def _asked(net: str, name: str | None, scale: str | None) -> Run | None:
    """The run that --as and --scale ask for; None if they leave it to the file.

    Raises:
        InputError: no name for a folder, or one of the paper's runs that is another net or scale.
    """
    asked = Run(net, Scale.parse(scale)) if scale else None
    if name is None:
        return asked
    if not NAME.fullmatch(name):
        raise InputError(f"--as '{name}' is no name for a run; use letters, digits, '-', '_' and '.'")
    named = Run.parse(name)
    if named is None:
        return asked
    if named.net != net:
        raise InputError(f"--as {name} is the paper's name for a run of net {named.net}, not {net}; give another")
    if asked and asked.scale != named.scale:
        raise InputError(f"--as {name} has S = {named.scale.label}, --scale {scale}; give one of them")
    return named


def _refuse_other(folder: RunFolder, config: RunConfig | None, replace: bool) -> bool:
    """Whether the folder already holds this import; `config` is None before the file is read.

    Raises:
        InputError: it holds something else that must not be lost.
    """
    used = folder.finished or folder.checkpoint_path.exists() or folder.metrics_path.exists()
    if not used or not folder.config_path.is_file():
        return False
    was = folder.config()
    imported = was.imported
    if imported and config is None:
        return False  # perhaps the same; this is known once the file is read
    if imported and config and _identity(was) == _identity(config) and folder.finished:
        return True
    if replace:
        return False
    held = f"imported weights ({was.origin})" if imported else "a run that was trained here"
    raise InputError(f"{folder.path} holds {held}; give another name with --as, or --replace")


def _identity(config: RunConfig) -> RunConfig:
    """What two equal imports have in common: everything but the file's path and our version."""
    assert config.imported is not None
    imported = dataclasses.replace(config.imported, file=None)
    return dataclasses.replace(config, imported=imported, versions=None)


def _config(foreign: Foreign, run: Run, resample: str | None, origin: Path | str) -> RunConfig:
    """The configuration of an imported run; its `origin` marks it in every table."""
    names, net = class_names(foreign), foreign.architecture
    hashes = foreign.hashes or {"tensors": digest(foreign)}
    return RunConfig(
        net=net.net,
        scale=run.scale,
        fc_only=run.fc_only,
        crop=net.crop,
        stride=net.stride,
        width=net.width,
        min_channels=net.min_channels,
        classes=net.classes,
        class_names=names,
        class_words=tuple(synsets.words(names)) if names else None,
        mean_rgb=foreign.mean_rgb,
        input_scale=foreign.input_scale,
        origin=foreign.origin,
        imported=Imported(str(origin), foreign.format, foreign.known, foreign.class_order, hashes),
        recipe=UsedRecipe.of({"resample": resample or foreign.resample, "lrn": foreign.lrn}),
        versions={"vggrepro": __version__, "commit": commit()},
    )


def class_names(foreign: Foreign) -> tuple[str, ...] | None:
    """The classes by name where they are known: 1000 of ImageNet in the order of wnids, or those in the file."""
    usual = foreign.class_order == WNID_ORDER and foreign.architecture.classes == len(synsets.table())
    return tuple(synsets.table()) if foreign.class_names is None and usual else foreign.class_names


def digest(foreign: Foreign) -> str:
    """SHA-256 over the tensors, for weights that come by a name and not in a file."""
    result = hashlib.sha256()
    for name in sorted(foreign.tensors):
        result.update(name.encode())
        result.update(foreign.tensors[name].contiguous().view(-1).numpy().data)
    return result.hexdigest()


def _notes(foreign: Foreign, run: Run | None) -> list[str]:
    """What the user should know, a sentence each."""
    result = list(foreign.notes)
    if not foreign.known and foreign.hashes:
        result.append(f"no published file has its hash (sha256 {foreign.hashes['sha256'][:16]}…): {foreign.origin}")
    if not foreign.known and foreign.class_names is None and class_names(foreign):
        result.append("its 1,000 classes are taken as ImageNet's in the order of wnids; evaluate tells if they are not")
    if run is None:
        result.append(
            f"its training scale is not known: evaluate takes Q for S = {UNKNOWN_SCALE}; give it with --scale"
        )
    elif not foreign.known and NOT_THE_PAPERS in foreign.origin:
        result.append(f"tables show it as {run.name}, marked '{NOT_THE_PAPERS}'")
    return result
