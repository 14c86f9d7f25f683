"""Tables 11 and 12 (Appendix B) from the results that `vggrepro transfer` keeps in runs/transfer/.

The nets are those of the paper, trained on S in [256;512]: D-256-512 and E-256-512. A result of other weights is named
under the table and not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vggrepro import paper
from vggrepro.paper import JITTER, Run
from vggrepro.results import transfer
from vggrepro.results.columns import NAN
from vggrepro.results.conditions import shared
from vggrepro.results.scores import Scores
from vggrepro.results.tables import Table, letter
from vggrepro.results.transfer import Representation
from vggrepro.system import advice

D, E = Run("D", JITTER).name, Run("E", JITTER).name
MEASURES = {11: ("voc2007_map", "voc2012_map", "caltech101_mean_recall", "caltech256_mean_recall"),
            12: ("voc2012_action_map",)}  # fmt: skip
ROWS = {  # the paper's rows that are ours: the runs and the views of a picture
    "VGG Net-D (16 layers)": ((D,), ("image",)),
    "VGG Net-E (19 layers)": ((E,), ("image",)),
    "VGG Net-D & Net-E": ((D, E), ("image",)),
    "VGG Net-D & Net-E, image-only": ((D, E), ("image",)),
    "VGG Net-D & Net-E, image and bounding box": ((D, E), ("image", "box")),
}
CAPTIONS = {
    11: "Linear SVMs on the features of nets that were not fine-tuned (Appendix B): mean average precision on VOC, "
    "mean class recall ± standard deviation over random splits on Caltech; larger is better.",
    12: "Action classification on VOC-2012 by linear SVMs on the features of the whole image, and of the image and the "
    "person's box (Appendix B): mean average precision; larger is better.",
}
STARRED = {
    11: "Entries of the paper with * are of nets trained on the extended ILSVRC data (2,000 classes).",
    12: "Entries of the paper with * are of nets trained on the extended ILSVRC data (1,512 classes).",
}


def transfer_tables(scores: Scores) -> list[Table]:
    """Tables 11 and 12 where a result of theirs is there, fresh or stale; rows of other teams are quoted."""
    return [table for number in MEASURES if (table := _table(number, scores)) is not None]


def _table(number: int, scores: Scores) -> Table | None:
    lines, notes = paper.published(number), dict[str, set[int]]()
    made = {name: pd.DataFrame([_measure(number, name, line, scores) for line in lines]) for name in MEASURES[number]}
    if not any(
        found["text"].any() for found in made.values()
    ):  # every result is named in a note, also a result that is not used
        return None
    frame = pd.DataFrame({"method": [line["method"] for line in lines]})
    for found in made.values():
        frame = frame.join(found.drop(columns="text"))
    for row, method in enumerate(frame["method"]):
        said = {name: found["text"][row] for name, found in made.items()}
        for text in filter(None, [*said.values(), _not_run(method, [name for name in said if not said[name]])]):
            notes.setdefault(text, set()).add(row)
    texts = tuple(notes)
    frame["note"] = [
        ", ".join(letter(place) for place, text in enumerate(texts) if row in notes[text]) for row in range(len(frame))
    ]
    remarks = (STARRED[number], "The rows of other teams are quoted from the paper.")
    return Table(
        number, CAPTIONS[number], frame, ("method",), MEASURES[number], texts, remarks, scores.geometry, shared(scores)
    )


def _measure(number: int, name: str, line: dict[str, str], scores: Scores) -> dict[str, Any]:
    """A row's values of a measure: ours, the paper's, deviations, the starred entry; and what to say of the row."""
    stem = name.partition("_mean_recall")[0]
    printed, starred = _number(line[name]), _number(line.get(f"{name}_extended_ilsvrc"))
    if line.get("pretrained_on_extended_ilsvrc"):  # Table 12 has a column of marks instead
        printed, starred = NAN, printed
    found, text = _ours(name, line["method"], scores)
    mine, std = (found.mean(), found.std(ddof=1) if len(found) > 1 else NAN) if len(found) else (NAN, NAN)
    return {
        name: mine,
        f"{name}_paper": printed,
        f"{name}_difference": mine - printed,
        f"{name}_std": std,
        f"{name}_std_paper": _number(line.get(f"{stem}_std")),
        f"{name}_starred": starred,
        "text": text,
    }


def _number(text: str | None) -> float:
    return float(text) if text else NAN


def _ours(name: str, method: str, scores: Scores) -> tuple[np.ndarray, str]:
    """The measure on each split, in per cent, empty if there is none; and what to say of it."""
    nothing = np.array([])
    if method not in ROWS:
        return nothing, ""
    data, (names, views) = _data(name), ROWS[method]
    protocol = paper.TRANSFER[data]
    what = Representation(names, protocol.qs, protocol.pooled, views)
    path = transfer.result_path(scores.runs, data, what)
    if not path.is_file():
        return nothing, ""
    made = transfer.Result.read(path)
    stale = [run for run in names if made and made.weights.get(run) != scores.facts(Run(run[0], JITTER)).weights]
    if made is None or stale:
        reason = f"Not used: {path.name} {f'is of other weights of {stale[0]}' if stale else 'lacks values'}"
        return nothing, f"{reason}; renew it with {_commands(data, names, views)}."
    kind = transfer.AP11 if data == "voc2007" else made.measure
    return made.values(kind), _conditions(data, made, protocol)


def _data(name: str) -> str:
    """The data set on which a measure is taken."""
    return next(data for data, protocol in paper.TRANSFER.items() if protocol.measure == name)


def _not_run(method: str, missing: Sequence[str]) -> str:
    """A sentence with the commands that make these missing measures; empty if none is missing."""
    if method not in ROWS or not missing:
        return ""
    first, *others = map(_data, missing)
    more = f"; the same with --data {', '.join(map(_source, others))}" if others else ""
    return f"Not run: {', '.join([first, *others])}; {_commands(first, *ROWS[method])}{more}."


def _source(data: str) -> str:
    """The name by which torchvision downloads a data set."""
    return data.replace("caltech-", "caltech").removesuffix("-action")


def _commands(data: str, names: tuple[str, ...], views: tuple[str, ...]) -> str:
    """The two commands that make a result, which download the data set."""
    options = ["--data", _source(data), *(["--task", "action"] if data.endswith("-action") else [])]
    box = ["--box"] if "box" in views else []
    return (
        f"`{advice.command('features', *names, *options)}`, then `{advice.command('transfer', *names, *options, *box)}`"
    )


def _conditions(data: str, made: transfer.Result, protocol: paper.Transfer) -> str:
    """How a result was measured, as far as the caption does not say it."""
    tests = {split["test"] for split in made.splits}
    images = " or ".join(f"{count:,}" for count in sorted(tests))
    if made.seeds:
        seeds = ", ".join(map(str, made.seeds))
        less = "" if made.train_images == protocol.train else f", {made.train_images} training images of each class"
        return f"{data}: seeds {seeds}{less}, {images} test images."
    kind = "eleven-point average precision" if data == "voc2007" else "average precision"
    return f"{data}: {kind}, scored on {made.scored} ({images} examples)."
