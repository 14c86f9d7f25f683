"""Damaged files through every reader of what strangers give: images, archives, lists, weights.

    python benchmarks/fuzz.py --inputs 8800 [--only tar,mat] [--seed 0]       goes on where the counts are
    python benchmarks/fuzz.py --only tar --number 17                         the one input, with its traceback

Each input is a sound file with a few damages, fixed by (seed, reader, number). A child process takes inputs one after
another and is replaced when it dies, when an input takes longer than 10 s, and when one asks for more than 2 GB. Right
outcomes are "read" (the damage hit nothing that matters) and "refused" (an InputError or BadImage of one line). Any
other outcome is a fault, and is listed with its number. Counts go to benchmarks/results/fuzz.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import selectors
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from fuzz_inputs import READERS, Sound
from record import RESULTS, write

SECONDS, BYTES = 10, 2 << 30  # what an input may take
STEP = 2000  # inputs of a reader before the next one's turn
SLOW = ("meta", "caffe-h5", "keras-h5")  # readers that get a quarter of the inputs
RIGHT = ("read", "refused")
IMPORTED = (  # once, for all children: it takes longer than a thousand inputs
    *("examples", "ilsvrc_files", "nets", "transfer_files", "test_caffe", "test_keras", "test_matconvnet"),
    *("test_parquet", "test_unread", "test_webdataset", "torchvision.datasets", "h5py", "onnx"),
    *("vggrepro.data.transfer_sets.opening", "vggrepro.exchange.exporting", "vggrepro.exchange.formats"),
    *(
        "vggrepro.exchange.formats.hdf5",
        "vggrepro.exchange.formats.matconvnet",
        "vggrepro.exchange.formats.safetensors",
    ),
)


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
        match int(rng.integers(13)) // 2:  # a cut end, the last kind, hides other damages: half as often
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


def taken(sound: list[Sound], reader: str, seed: int, number: int) -> None:
    """Reads the damaged file of that number, and puts the sound one back."""
    rng = np.random.default_rng([seed, crc32(reader.encode()), number])
    one = sound[int(rng.integers(len(sound)))]
    one.path.write_bytes(one.pack(damaged(one.data, rng)))
    try:
        one.read()
    finally:
        one.path.write_bytes(one.pack(one.data))


def child(reader: str, seed: int, start: int, stop: int, say: int) -> None:
    """Takes the inputs `start` to `stop` and writes each one's outcome as a line to the pipe `say`."""
    import torch

    from vggrepro.data.images import BadImage
    from vggrepro.errors import InputError

    torch.set_num_threads(1)  # a forked process that shares work among threads waits for those of its parent
    with tempfile.TemporaryDirectory() as name:
        sound = READERS[reader](Path(name))
        status = Path("/proc/self/status").read_text()
        used = int(status.partition("VmData:")[2].split()[0]) << 10
        resource.setrlimit(resource.RLIMIT_DATA, (used + BYTES, used + BYTES))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(say, b"ready\n")
        for number in range(start, stop):
            try:
                taken(sound, reader, seed, number)
                outcome = "read"
            except (InputError, BadImage) as error:
                outcome = "refused" if "\n" not in str(error) else "several lines"
            except MemoryError:
                outcome = "more than 2 GB"
            except Exception as error:
                outcome = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
            os.write(say, outcome.encode() + b"\n")


def outcomes(reader: str, seed: int, done: int, count: int) -> Iterator[str]:
    """The outcome of each input from `done` to `count`, from as many children as it takes."""
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


def measured(reader: str, seed: int, known: dict[str, Any], stop: int) -> dict[str, Any]:
    """Counts of the outcomes of a reader up to input `stop`, and the number of the first input of each fault."""
    counts = Counter({name: known[name] for name in known.keys() - {"inputs", "seconds", "first_faults"}})
    faults, began, start = dict(known.get("first_faults", {})), time.perf_counter(), known.get("inputs", 0)
    for number, outcome in enumerate(outcomes(reader, seed, start, stop), start):
        counts[outcome] += 1
        if outcome not in RIGHT:
            faults.setdefault(outcome, number)
    seconds = known.get("seconds", 0) + time.perf_counter() - began
    return {"inputs": stop, "seconds": round(seconds, 1), **counts, "first_faults": faults}


def before(seed: int) -> dict[str, Any]:
    """The counts of each reader so far, of this seed."""
    path = RESULTS / "fuzz.json"
    results = json.loads(path.read_text(encoding="utf-8"))["results"] if path.is_file() else {}
    known = results.get("readers", {}) if results.get("seed") == seed else {}
    return {reader: found for reader, found in known.items() if reader in READERS}


def main() -> None:
    """Runs the readers that are asked for, by turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="of each reader, of slow ones a quarter")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(READERS), help="readers, comma-separated")
    parser.add_argument("--again", action="store_true", help="forget their counts, as after a fault was mended")
    parser.add_argument("--number", type=int, help="read this input alone, in this process")
    given = parser.parse_args()
    only, known = given.only.split(","), before(given.seed)
    if given.number is not None:
        with tempfile.TemporaryDirectory() as name:
            taken(READERS[only[0]](Path(name)), only[0], given.seed, given.number)
        return
    for module in IMPORTED:
        importlib.import_module(module)
    for reader in only if given.again else ():
        known.pop(reader, None)
    for turn in [*range(STEP, given.inputs, STEP), given.inputs]:
        for reader in only:
            stop = turn // 4 if reader in SLOW else turn
            if known.get(reader, {}).get("inputs", 0) >= stop:
                continue
            known[reader] = measured(reader, given.seed, known.get(reader, {}), stop)
            print(reader, known[reader], flush=True)
            counts = {name: known[name] for name in READERS if name in known}
            total = sum(found["inputs"] for found in counts.values())
            write("fuzz", {"seed": given.seed, "inputs": total, "readers": counts})


if __name__ == "__main__":
    main()
