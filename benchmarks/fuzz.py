"""Damaged files through every reader of what strangers give: images, archives, lists, weights.

    python benchmarks/fuzz.py --inputs 2000 [--only tar,mat] [--seed 0]

Each input is a sound file with a few damages, fixed by (seed, reader, number). A child process takes inputs one after
another and is replaced when it dies, when an input takes longer than 10 s, and when one asks for more than 2 GB. Right
outcomes are "read" (the damage hit nothing that matters) and "refused" (an InputError or BadImage of one line). Any
other outcome is a fault, and is listed with its number. Counts go to benchmarks/results/fuzz.json.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import resource
import selectors
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from PIL import Image
from record import machine, write

ROOT = Path(__file__).parent.parent
for folder in ("tests", "tests/exchange/formats", "tests/data/sources"):  # whose builders make the sound files
    sys.path.insert(0, str(ROOT / folder))

SECONDS, BYTES = 10, 2 << 30  # what an input may take
RIGHT = ("read", "refused")
IMAGES = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
EXPORTS = ("safetensors", "onnx", "caffe")
STATES = ("torch", "torch-old", "torch-tar", "torch-script", "state-safetensors")
HDF5 = ("keras-h5", "keras-zip", "caffe-h5")
SOURCES = ("image", "tar", "devkit", "meta", "solution", "parquet", "webdataset", "tiny")
READERS = (*SOURCES, "mat", *EXPORTS, *STATES, *HDF5)


def damaged(sound: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with one to four damages: changed bytes, extreme numbers, zeros, a stretch cut out or doubled."""
    data = bytearray(sound)
    for _ in range(rng.integers(1, 5)):
        if not data:
            break
        # The structure of most formats lies at the beginning or the end.
        reach = len(data) if rng.random() < 0.5 else min(len(data), 600)
        at = int(rng.integers(reach)) if rng.random() < 0.7 else len(data) - 1 - int(rng.integers(reach))
        size = int(rng.integers(1, 65))
        match int(rng.integers(7)):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at] = int(rng.integers(256))
            case 2:
                number = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF)[int(rng.integers(6))]
                data[at : at + 4] = number.to_bytes(4, ("little", "big")[int(rng.integers(2))])
            case 3:
                data[at : at + size] = bytes(size)
            case 4:
                del data[at : at + size]
            case 5:
                data[at:at] = data[max(0, at - size) : at]
            case _:
                del data[at:]
    return bytes(data)


def sound_files(reader: str, folder: Path) -> list[bytes]:
    """What a reader is given before the damage."""
    import ilsvrc_files
    from examples import jpeg

    if reader == "image":
        pixels = Image.open(io.BytesIO(jpeg(1, 1)))
        return [_encoded(pixels.convert(mode), kind) for kind in IMAGES for mode in ("RGB", "L")]
    if reader == "tar":
        return [ilsvrc_files.tar_bytes(ilsvrc_files.VAL), ilsvrc_files.train_tar()]
    if reader in ("devkit", "meta"):
        return [ilsvrc_files.devkit_tar()] if reader == "devkit" else [ilsvrc_files.META]
    if reader == "solution":
        return [(ilsvrc_files.put(folder / "kaggle", "kaggle") / "LOC_val_solution.csv").read_bytes()]
    if reader == "parquet":
        tests = importlib.import_module("test_parquet")
        return [tests.write_parquet(folder / "x.parquet", tests.some_rows(12), list("abcdef")).read_bytes()]
    if reader == "webdataset":
        tests = importlib.import_module("test_webdataset")
        return [tests.write(folder / "x.tar", tests.samples(12)).read_bytes()]
    if reader == "tiny":
        return [b"".join(b"val_%d.JPEG\tn0144%04d\t0\t32\t44\t62\n" % (n, n % 6) for n in range(12))]
    return _weights(reader, folder)


def _weights(reader: str, folder: Path) -> list[bytes]:
    """Sound files of weights: of net A, Keras's of net D."""
    import nets
    import torch

    from vggrepro.exchange.exporting import export
    from vggrepro.exchange.formats import torchvision
    from vggrepro.nets import weights

    run, path = nets.random_run(folder / "A-256", width=1 / 32), folder / f"x-{reader}"
    if reader in EXPORTS:
        return [export(run, reader, path)[0].read_bytes()]
    tensors = weights.load(run.weights_path)[0]
    ours = {name: tensor.numpy() for name, tensor in tensors.items()}
    if reader == "mat":
        tests = importlib.import_module("test_matconvnet")
        return [tests.write(path, ours, nets.CROP, compress=packed).read_bytes() for packed in (True, False)]
    if reader == "caffe-h5":
        return [importlib.import_module("test_caffe").write_snapshot(path, ours).read_bytes()]
    if reader in HDF5:
        tests = importlib.import_module("test_keras")
        small = tests.random_weights("D", 7, **tests.SMALL)
        kinds = (".keras",) if reader == "keras-zip" else ("keras 1", "whole model", "keras 3", "keras 3, unnamed")
        return [tests.write(path, small, kind).read_bytes() for kind in kinds]
    tests, state = importlib.import_module("test_unread"), {}
    for name, theirs in torchvision.names("A").items():
        state[theirs] = tensors[name]
    if reader == "torch-tar":
        tests.write_torch01(path, state)
    elif reader == "torch-script":
        torch.jit.trace(tests.Holder(state), torch.zeros(1)).save(str(path))
    elif reader == "state-safetensors":
        weights.save(path, state, {})
    else:
        torch.save(state, path, _use_new_zipfile_serialization=reader == "torch")
    return [path.read_bytes()]


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def reading(reader: str, folder: Path) -> Callable[[bytes], None]:
    """What reads the bytes of an input to its end."""
    from examples import jpeg

    from vggrepro.data.images import bring
    from vggrepro.data.sources import archives, devkit, open_source
    from vggrepro.exchange import formats

    if reader == "image":
        return lambda data: (bring(data), None)[1]
    place = folder / reader
    place.mkdir()
    names = {"devkit": devkit.TAR, "solution": devkit.SOLUTION, "parquet": "train.parquet", "webdataset": "train.tar"}
    path = place / names.get(reader, "x")
    if reader == "meta":
        return lambda data: (devkit._leaves(path, data), None)[1]
    if reader == "tiny":
        path = place / "val" / "val_annotations.txt"
        (place / "val" / "images").mkdir(parents=True)
        for number in range(12):
            (place / "val" / "images" / f"val_{number}.JPEG").write_bytes(jpeg(number % 6, 0))

    def take(data: bytes) -> None:
        path.write_bytes(data)
        if reader == "tar":
            archives.members(path)
            list(archives.nested(path))
        elif reader in ("devkit", "solution"):
            devkit.find([place])
        elif reader in ("parquet", "webdataset", "tiny"):
            (place / path.name.replace("train", "val")).write_bytes(data) if reader != "tiny" else None
            source = open_source(str(place), val_only=reader == "tiny")
            for split in source.required:
                for _ in source.examples(split, 0):
                    pass
        else:
            formats.read(path, "D" if reader.startswith("keras") else "A")

    return take


def child(reader: str, seed: int, start: int, stop: int, say: int) -> None:
    """Takes the inputs `start` to `stop` and writes each one's outcome as a line to the pipe `say`."""
    from vggrepro.data.images import BadImage
    from vggrepro.errors import InputError

    with tempfile.TemporaryDirectory() as name:
        files = sound_files(reader, Path(name))
        take = reading(reader, Path(name))
        status = Path("/proc/self/status").read_text()
        used = int(status.partition("VmData:")[2].split()[0]) << 10
        resource.setrlimit(resource.RLIMIT_DATA, (used + BYTES, used + BYTES))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(say, b"ready\n")
        for number in range(start, stop):
            rng = np.random.default_rng([seed, crc32(reader.encode()), number])
            try:
                take(damaged(files[int(rng.integers(len(files)))], rng))
                outcome = "read"
            except (InputError, BadImage) as error:
                outcome = "refused" if "\n" not in str(error) else "several lines"
            except MemoryError:
                outcome = "more than 2 GB"
            except Exception as error:
                outcome = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
            os.write(say, outcome.encode() + b"\n")


def outcomes(reader: str, seed: int, count: int) -> Iterator[str]:
    """The outcome of each input, from as many children as it takes."""
    done = 0
    while done < count:
        receive, say = os.pipe()
        if not (process := os.fork()):
            try:
                child(reader, seed, done, count, say)
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.close(say)
        ready, fault = False, ""
        with open(receive, "rb", buffering=0) as pipe, selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            rest = b""
            while done < count and not fault:
                if not selector.select(SECONDS if ready else 120):
                    fault = f"longer than {SECONDS} s"
                elif part := pipe.read(1 << 16):
                    *lines, rest = (rest + part).split(b"\n")
                    for line in lines:
                        if line == b"ready":
                            ready = True
                        else:
                            yield line.decode()
                            done += 1
                else:
                    fault = "died"
        os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if not ready:
            raise SystemExit(f"{reader}: its sound files cannot be made")
        if fault:
            yield f"died ({code})" if fault == "died" else fault
            done += 1


def measured(reader: str, seed: int, count: int) -> dict[str, Any]:
    """Counts of the outcomes of a reader, and the number of the first input of each fault."""
    counts, faults, began = Counter[str](), dict[str, int](), time.perf_counter()
    for number, outcome in enumerate(outcomes(reader, seed, count)):
        counts[outcome] += 1
        if outcome not in RIGHT:
            faults.setdefault(outcome, number)
    return {"inputs": count, "seconds": round(time.perf_counter() - began, 1), **counts, "first_faults": faults}


def main() -> None:
    """Runs the readers that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000, help="of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(READERS), help="readers, comma-separated")
    given = parser.parse_args()
    for module in ("nets", "vggrepro.data.sources", "vggrepro.exchange.exporting", "vggrepro.exchange.formats"):
        importlib.import_module(module)  # once, for all children
    result: dict[str, Any] = {"machine": machine(), "seed": given.seed, "readers": {}}
    for reader in given.only.split(","):
        result["readers"][reader] = measured(reader, given.seed, given.inputs)
        print(reader, result["readers"][reader], flush=True)
        result["inputs"] = sum(found["inputs"] for found in result["readers"].values())
        write("fuzz", result)


if __name__ == "__main__":
    main()
