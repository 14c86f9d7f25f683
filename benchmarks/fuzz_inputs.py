"""The sound files that `fuzz.py` damages, a list of them for each reader, and what reads each.

The builders of the tests make them: small nets, a few drawn images.
"""

from __future__ import annotations

import gzip
import importlib
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
for place in ("tests", "tests/exchange/formats", "tests/data/sources"):
    sys.path.insert(0, str(ROOT / place))


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound file: where it lies, what reads it to its end, what of it is damaged.

    What is packed in another format, whose checksums would find all damages, is damaged inside and packed again.
    """

    path: Path
    read: Callable[[], object]
    data: bytes  # what is damaged
    pack: Callable[[bytes], bytes] = field(default=bytes)  # makes the file of it


def at(path: Path, read: Callable[[], object]) -> Sound:
    """A file that is there and is damaged as it is."""
    return Sound(path, read, path.read_bytes())


def weights_at(path: Path, net: str = "A") -> Sound:
    """A file of weights that is there."""
    from vggrepro.exchange import formats

    return at(path, lambda: formats.read(path, net))


# Images and data sets


def image(folder: Path) -> list[Sound]:
    """Each format that is decoded, in colour and grey."""
    from examples import jpeg
    from PIL import Image

    from vggrepro.data.images import decode_new

    def encoded(mode: str, kind: str) -> Sound:
        path = folder / f"{mode}.{kind}"
        drawn.convert(mode).save(path, kind)
        return at(path, lambda: decode_new(path.read_bytes()))

    drawn = Image.open(io.BytesIO(jpeg(1, 1)))
    kinds = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
    return [encoded(mode, kind) for kind in kinds for mode in ("RGB", "L")]


def tar(folder: Path) -> list[Sound]:
    """A flat tar and a tar of tars."""
    import ilsvrc_files

    from vggrepro.data.sources import archives

    flat, nested = folder / "val.tar", folder / "train.tar"
    flat.write_bytes(ilsvrc_files.tar_bytes(ilsvrc_files.VAL))
    nested.write_bytes(ilsvrc_files.train_tar())
    return [at(flat, lambda: archives.members(flat)), at(nested, lambda: list(archives.nested(nested)))]


def devkit(folder: Path) -> list[Sound]:
    """The tar.gz: as it is, and what is in it. Of few classes, it is refused in the end; `meta` is the whole list."""
    import ilsvrc_files

    from vggrepro.data import synsets
    from vggrepro.data.sources import devkit as reader

    path = folder / reader.TAR
    meta = ilsvrc_files.meta_mat(list(synsets.table().values())[:20])
    path.write_bytes(ilsvrc_files.devkit_tar(meta))
    whole = at(path, lambda: reader.find([folder]))
    return [whole, Sound(path, whole.read, gzip.decompress(whole.data), lambda data: gzip.compress(data, 1))]


def meta(folder: Path) -> list[Sound]:
    """The devkit's list of classes, whole."""
    import ilsvrc_files

    from vggrepro.data.sources import devkit as reader

    path = folder / "meta.mat"
    path.write_bytes(ilsvrc_files.META)
    return [at(path, lambda: reader._leaves(path, path.read_bytes()))]


def solution(folder: Path) -> list[Sound]:
    """Kaggle's labels."""
    import ilsvrc_files

    from vggrepro.data.sources import devkit as reader

    path = ilsvrc_files.put(folder, "kaggle") / reader.SOLUTION
    return [at(path, lambda: reader.find([folder]))]


def whole_source(folder: Path, **options: Any) -> Callable[[], None]:
    """Reads all images of a folder as `prepare` does."""
    from vggrepro.data.sources import open_source

    def read() -> None:
        source = open_source(str(folder), **options)
        source.contents()
        for split in source.required:
            for _ in source.examples(split, 0):
                pass

    return read


def parquet(folder: Path) -> list[Sound]:
    """Two files and the list of classes beside them."""
    tests = importlib.import_module("test_parquet")
    for split in ("train", "val"):
        tests.write_parquet(folder / f"{split}.parquet", tests.some_rows(12), list("abcdef"))
    listed = folder / "classes.tsv"
    listed.write_text("".join(f"{label}\tn0000000{label}\twords\n" for label in range(6)))
    read = whole_source(folder)
    return [at(folder / "train.parquet", read), at(folder / "val.parquet", read), at(listed, read)]


def webdataset(folder: Path) -> list[Sound]:
    """A tar and a list of classes, of both kinds."""
    tests = importlib.import_module("test_webdataset")
    found = []
    for listed, text in (("classes.tsv", "{0}\tn0000000{0}\twords\n"), ("classes.txt", "class {0}\n")):
        place = folder / listed.replace(".", "-")
        place.mkdir()
        for split in ("train", "val"):
            tests.write(place / f"{split}.tar", tests.samples(12))
        (place / listed).write_text("".join(text.format(label) for label in range(6)))
        read = whole_source(place)
        found += [at(place / "train.tar", read), at(place / listed, read)]
    return found


def tiny(folder: Path) -> list[Sound]:
    """Tiny ImageNet's lists."""
    from examples import jpeg

    names = [f"n0144000{label}" for label in range(3)]
    for label, name in enumerate(names):
        (folder / "train" / name / "images").mkdir(parents=True)
        (folder / "train" / name / "images" / f"{name}_0.JPEG").write_bytes(jpeg(label, 0))
    images = folder / "val" / "images"
    images.mkdir(parents=True)
    for number in range(6):
        (images / f"val_{number}.JPEG").write_bytes(jpeg(number % 3, 0))
    lines = [f"val_{number}.JPEG\t{names[number % 3]}\t0\t32\t44\t62\n" for number in range(6)]
    texts = {
        folder / "val" / "val_annotations.txt": "".join(lines),
        folder / "wnids.txt": "\n".join(names),
        folder / "words.txt": "\n".join(f"{name}\twords, more words" for name in names),
    }
    for path, text in texts.items():
        path.write_text(text)
    read = whole_source(folder)
    return [at(path, read) for path in texts]


def mnist(folder: Path) -> list[Sound]:
    """What torchvision reads without a checksum."""
    import numpy as np

    from vggrepro.data.sources.torchvision import open_named

    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        head = b"".join(value.to_bytes(4, "big") for value in (0x803, 10, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + np.arange(10 * 784, dtype=np.uint8).tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 10]) + bytes(range(10)))

    def read() -> None:
        source = open_named("mnist", folder)
        source.contents()
        for split in source.required:
            for _ in source.examples(split, 0):
                pass

    return [at(path, read) for path in sorted(raw.iterdir())]


def caltech(folder: Path) -> list[Sound]:
    """Images in class folders."""
    import transfer_files

    from vggrepro.data.transfer_sets.opening import open_set

    def read() -> None:
        images = open_set(str(folder)).pictures["image"]
        images.fingerprint  # noqa: B018
        for number in range(len(images)):
            images.image(number)

    root = transfer_files.write_caltech(folder, 2, 2)
    return [at(path, read) for path in sorted(root.rglob("*.jpg"))]


def voc(folder: Path) -> list[Sound]:
    """Lists and annotations; the images are read as Caltech's."""
    import transfer_files

    from vggrepro.data.transfer_sets.opening import open_set

    root = transfer_files.write_voc(folder, 2012, 6)
    persons = {f"{number:06}": [(5, 6, 60, 50), (20, 10, 80, 60)] for number in range(6)}
    transfer_files.write_actions(root, persons)
    lists = sorted((root / "ImageSets" / "Main").glob("*.txt"))
    actions = [*sorted((root / "ImageSets" / "Action").glob("*.txt")), *sorted((root / "Annotations").glob("*.xml"))]
    found = [at(path, lambda: open_set(str(folder), "classification")) for path in lists]
    return found + [at(path, lambda: open_set(str(folder), "action")) for path in actions]


# Weights: small nets A, Keras's D


def random_net(folder: Path) -> Any:
    """A run of net A with random weights."""
    import nets

    return nets.random_run(folder / "A-256", width=1 / 32)


def arrays(folder: Path) -> dict[str, Any]:
    """Its weights, by our names."""
    from vggrepro.nets import weights

    return {name: tensor.numpy() for name, tensor in weights.load(random_net(folder).weights_path)[0].items()}


def exported(folder: Path, kind: str) -> list[Sound]:
    """An export by itself, and the description beside it where there is one."""
    from vggrepro.exchange.exporting import export

    path, *others = export(random_net(folder), kind, folder / f"x.{kind}")
    alone, whole = weights_at(Path(shutil.copy(path, folder / "alone"))), weights_at(path)
    return [alone, *(at(other, whole.read) for other in others if other.suffix == ".json")]


def run_folder(folder: Path) -> list[Sound]:
    """A run's own files, taken from elsewhere: weights, and the config beside them that says their preprocessing."""
    run = random_net(folder)
    whole = weights_at(run.weights_path)
    return [whole, at(run.config_path, whole.read)]


def matconvnet(folder: Path) -> list[Sound]:
    """Uncompressed, so that damages reach what is inside; and compressed."""
    import nets

    tests, ours = importlib.import_module("test_matconvnet"), arrays(folder)
    kinds = {folder / "plain.mat": False, folder / "compressed.mat": True}
    return [weights_at(tests.write(path, ours, nets.CROP, compress=packed)) for path, packed in kinds.items()]


def caffe_snapshot(folder: Path) -> list[Sound]:
    """Caffe's HDF5."""
    tests = importlib.import_module("test_caffe")
    return [weights_at(tests.write_snapshot(folder / "x.caffemodel.h5", arrays(folder)))]


def keras_h5(folder: Path) -> list[Sound]:
    """Each layout that Keras has written."""
    tests = importlib.import_module("test_keras")
    small = tests.random_weights("D", 7, **tests.SMALL)
    kinds = ("keras 1", "whole model", "keras 3", "keras 3, unnamed")
    return [weights_at(tests.write(folder / f"{kind}.h5", small, kind), "D") for kind in kinds]


def keras_zip(folder: Path) -> list[Sound]:
    """As it is, and the HDF5 file in it."""
    from vggrepro.exchange.formats.hdf5_file import WEIGHTS

    tests = importlib.import_module("test_keras")
    small, path = tests.random_weights("D", 7, **tests.SMALL), folder / "x.keras"
    return with_inside(weights_at(tests.write(path, small, ".keras"), "D"), WEIGHTS)


def with_inside(whole: Sound, ending: str) -> list[Sound]:
    """A zip file as it is, and the part in it whose name ends so."""
    with zipfile.ZipFile(whole.path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.endswith(ending))
    return [whole, Sound(whole.path, whole.read, parts[name], lambda data: zipped({**parts, name: data}))]


def zipped(parts: dict[str, bytes]) -> bytes:
    """A zip file of stored parts."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def state_dict(folder: Path, kind: str) -> list[Sound]:
    """A state dict of torchvision's names in a container of torch or safetensors."""
    import torch

    from vggrepro.exchange.formats import torchvision
    from vggrepro.nets import weights

    tests, tensors = importlib.import_module("test_unread"), weights.load(random_net(folder).weights_path)[0]
    state, path = {theirs: tensors[ours] for ours, theirs in torchvision.names("A").items()}, folder / "x"

    if kind == "tar":
        tests.write_torch01(path, state)
    elif kind == "script":
        torch.jit.trace(tests.Holder(state), torch.zeros(1)).save(str(path))
    elif kind == "safetensors":
        weights.save(path, state, {})
        described = folder / "config.json"  # timm's
        described.write_text(json.dumps({"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}}))
        return [weights_at(path), Sound(described, weights_at(path).read, described.read_bytes())]
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    return with_inside(weights_at(path), "data.pkl") if kind == "zip" else [weights_at(path)]


def not_read(folder: Path) -> list[Sound]:
    """Formats that are named and refused, and a prototxt."""
    import numpy as np

    tests = importlib.import_module("test_unread")
    np.savez(folder / "x.npz", conv1_1_W=np.zeros(3))
    contents = {
        "x.params": (0x112).to_bytes(8, "little") + bytes(200),
        "x.pb": tests.GRAPH,
        "saved.pb": b"\x08\x01" + tests.META,
        "x.ckpt": b"\0\x11vgg_16/conv1" + bytes(40) + tests.TABLE_END,
        "x.tflite": b"\x1c\0\0\0TFL3" + bytes(50),
        "x.prototxt": b'name: "VGG"\ninput: "data"\nlayer { name: "conv1_1" }\n',
        "x.html": b"<!doctype html><html>not found</html>",
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return [weights_at(folder / name) for name in (*contents, "x.npz")]


READERS: dict[str, Callable[[Path], list[Sound]]] = {
    "image": image,
    "tar": tar,
    "devkit": devkit,
    "meta": meta,
    "solution": solution,
    "parquet": parquet,
    "webdataset": webdataset,
    "tiny": tiny,
    "mnist": mnist,
    "caltech": caltech,
    "voc": voc,
    "safetensors": partial(exported, kind="safetensors"),
    "onnx": partial(exported, kind="onnx"),
    "caffe": partial(exported, kind="caffe"),
    "caffe-h5": caffe_snapshot,
    "run": run_folder,
    "mat": matconvnet,
    "keras-h5": keras_h5,
    "keras-zip": keras_zip,
    "torch": partial(state_dict, kind="zip"),
    "torch-old": partial(state_dict, kind="old"),
    "torch-tar": partial(state_dict, kind="tar"),
    "torch-script": partial(state_dict, kind="script"),
    "state-safetensors": partial(state_dict, kind="safetensors"),
    "not-read": not_read,
}
