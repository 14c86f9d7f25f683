"""PASCAL VOC in the official layout of the devkit: classification, and actions with the boxes of persons.

`ImageSets/Main/<class>_<list>.txt` has a line for each image: its name and 1 (there), -1 (not there) or 0 (there, but
"difficult"). `ImageSets/Action/<action>_<list>.txt` has a line for each person: image, number of the object in
`Annotations/<image>.xml`, 1 or -1.
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from vggrepro.data.transfer_sets import TASKS
from vggrepro.data.transfer_sets.base import Box, Picture, Pictures, TransferSet
from vggrepro.errors import InputError
from vggrepro.system.progress import say

NO_CLASS = {"other"}  # the devkit says of this action: "skip this when training classifiers"
YEAR = re.compile(r"VOC(\d{4})")
Lines = dict[tuple[str, ...], int]  # image, or image and number of the object: label


def find(folder: Path) -> list[Path]:
    """The years that are there: `folder` itself, or `VOC2007` and so on in it or in its `VOCdevkit`."""
    places = [folder, *(path for parent in (folder, folder / "VOCdevkit") for path in sorted(parent.glob("VOC[0-9]*")))]
    return [place for place in places if YEAR.fullmatch(place.resolve().name) and (place / "ImageSets").is_dir()]


def read(root: Path, task: str = "classification") -> TransferSet:
    """The examples of a year's task: of `trainval` and `test`, or without test labels of `train` and `val`.

    Raises:
        InputError: no lists; fewer than two classes; a list that names a missing image, has another label than -1, 0
            or 1, or other images than the lists of other classes; a person without a box.
    """
    lists = root / "ImageSets" / TASKS[task]
    parts = _parts(lists)
    classes = _classes(lists, parts[0])
    by_part = [[_lines(lists / f"{name}_{part}.txt", task) for name in classes] for part in parts]
    rows: list[tuple[str, ...]] = []
    labels, train = [], []
    for part, lines in zip(parts, by_part, strict=True):
        examples = _agreed(lists, part, classes, lines)
        rows += examples
        labels += [[of_class[example] for of_class in lines] for example in examples]
        train += [part == parts[0]] * len(examples)
    if twice := len(rows) - len(set(rows)):
        raise InputError(f"{lists}: {twice} examples are in {parts[0]} and in {parts[1]}; download the data again")
    names = list(dict.fromkeys(row[0] for row in rows))
    pictures = {"image": Pictures([Picture(name, _image(root, name, lists)) for name in names])}
    number = {name: place for place, name in enumerate(names)}
    places = {"image": np.array([number[row[0]] for row in rows])}
    if task == "action":
        pictures["box"] = Pictures(_persons(root, rows))
        places["box"] = np.arange(len(rows))
    _note_left_out(root, names, task)
    name = f"voc{_year(root)}" + ("-action" if task == "action" else "")
    return TransferSet(name, root, classes, pictures, places, np.array(labels, np.int8), np.array(train), parts[1])


def _year(root: Path) -> str:
    match = YEAR.fullmatch(root.resolve().name)
    assert match is not None
    return match[1]


def _parts(lists: Path) -> tuple[str, str]:
    """The lists to train on and to score: those with the test labels, which the server holds from VOC-2008 on."""
    if any(line.split()[-1:] == ["1"] for path in lists.glob("*_test.txt") for line in _text(path)):
        return "trainval", "test"
    if not any(lists.glob("*_train.txt")):
        raise InputError(
            f"{lists} has no lists <class>_train.txt and <class>_val.txt; download the devkit's data again"
        )
    say(f"{lists}: no test labels, which VOC's server holds; training on train, scoring on val")
    return "train", "val"


def _classes(lists: Path, part: str) -> tuple[str, ...]:
    names = (path.name.removesuffix(f"_{part}.txt") for path in lists.glob(f"*_{part}.txt"))
    return tuple(sorted(name for name in names if name not in NO_CLASS))


def _text(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; download the data again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); download it again") from None


def _lines(path: Path, task: str) -> Lines:
    """A list's examples with their labels.

    Raises:
        InputError: the file is missing; a line of another form; a label that is none of -1, 0 and 1.
    """
    width = 3 if task == "action" else 2
    result: Lines = {}
    for number, line in enumerate(_text(path), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != width:
            form = "image, object and label" if task == "action" else "image and label"
            raise InputError(f"{path}:{number}: '{line.strip()}' is not {form}; download the list again")
        if words[-1] not in ("-1", "0", "1"):
            raise InputError(
                f"{path}:{number}: the label '{words[-1]}' is none of -1, 0 and 1; download the list again"
            )
        result[tuple(words[:-1])] = int(words[-1])
    return result


def _agreed(lists: Path, part: str, classes: tuple[str, ...], lines: list[Lines]) -> list[tuple[str, ...]]:
    """The examples of a part, which every class's list names, and the plain list where there is one."""
    examples = list(lines[0]) if lines else []
    if not examples:
        raise InputError(f"{lists}: the lists of {part} name no image; download them again")
    plain = lists / f"{part}.txt"
    named = {tuple(line.split()): 0 for line in _text(plain) if line.strip()} if plain.is_file() else lines[0]
    for name, found in [
        (plain.name, named),
        *((f"{name}_{part}.txt", of) for name, of in zip(classes, lines, strict=True)),
    ]:
        if odd := sorted(found.keys() ^ lines[0].keys()):
            missing = f"{classes[0]}_{part}.txt" if odd[0] in found else name
            raise InputError(
                f"{lists}: '{' '.join(odd[0])}' is not in {missing}, but in another list of {part}; the lists must "
                "name the same images, download them again"
            )
    return examples


def _image(root: Path, name: str, lists: Path) -> Path:
    path = root / "JPEGImages" / f"{name}.jpg"
    if not path.is_file():
        raise InputError(f"{lists} names image '{name}', but {path} is missing; download the data again")
    return path


def _persons(root: Path, rows: list[tuple[str, ...]]) -> list[Picture]:
    """A picture for each person, under the key `2010_006215-1`."""
    boxes: dict[str, list[Box | None]] = {}
    result = []
    for image, text in rows:
        if image not in boxes:
            boxes[image] = _boxes(root / "Annotations" / f"{image}.xml")
        found = boxes[image]
        if not text.isdigit() or not 1 <= int(text) <= len(found) or (box := found[int(text) - 1]) is None:
            raise InputError(
                f"{root}: the action lists name object {text} of '{image}', but its annotation has no such box; "
                "download the data again"
            )
        result.append(Picture(f"{image}-{text}", root / "JPEGImages" / f"{image}.jpg", box))
    return result


def _boxes(path: Path) -> list[Box | None]:
    """The box of each object of an annotation, None where it has none; VOC counts pixels from 1, both ends inside."""
    try:
        objects = ElementTree.fromstring("\n".join(_text(path))).findall("object")
        result: list[Box | None] = []
        for item in objects:
            box = item.find("bndbox")
            if box is None:
                result.append(None)
                continue
            left, top, right, bottom = (
                round(float(box.findtext(side) or "")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            result.append((left - 1, top - 1, right, bottom))
        return result
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path}: damaged annotation ({error}); download it again") from None


def _note_left_out(root: Path, names: list[str], task: str) -> None:
    """Says how many images are in no list: VOC-2012 has several thousand for its other tasks."""
    others = {path.stem for path in (root / "JPEGImages").glob("*.jpg")} - set(names)
    if others:
        say(f"{root}: left out, as in no list of {task}: {len(others):,} images, such as {min(others)}")
