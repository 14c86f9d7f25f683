"""Appendix B: a linear SVM on the features of trained nets. Needs no net and no torch.

A representation is made of runs, test scales Q and views of a picture; each run's part has unit length. The SVM is
scikit-learn's LinearSVC (liblinear, squared hinge loss), one against the rest. C is the value of `CS` that does best on
a fifth of the training images, searched from the middle upwards or downwards; then the SVM is trained on all of them.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vggrepro import __version__, paper
from vggrepro.data.transfer_sets.base import TransferSet
from vggrepro.errors import InputError
from vggrepro.paper import Transfer
from vggrepro.posteriors import features
from vggrepro.results import precision
from vggrepro.runs.config import RunConfig
from vggrepro.runs.folder import RunFolder
from vggrepro.system import advice
from vggrepro.system.commit import commit
from vggrepro.system.files import read_json, write_json

CS = (0.01, 0.1, 1.0, 10.0, 100.0)
SVM: dict[str, Any] = {"dual": False, "tol": 1e-2}  # liblinear's own tolerance; scikit-learn's 1e-4 takes twice as long
HELD_OUT = 5  # one in so many training images chooses C
RECALL, AP, AP11 = "mean_recall", "map", "map_11_point"


@dataclass(frozen=True, slots=True)
class Representation:
    """What the SVM sees of a picture."""

    runs: tuple[str, ...]
    qs: tuple[int, ...]
    pooled: bool  # averaged over Q instead of one after another
    views: tuple[str, ...] = ("image",)

    @property
    def over_qs(self) -> str:
        """How several Q are put together: "", "stacked" or "pooled"."""
        return "" if len(self.qs) == 1 else "pooled" if self.pooled else "stacked"

    @property
    def slug(self) -> str:
        """For the name of a file."""
        ending = f"-{self.over_qs}" if self.over_qs else ""
        box = "-box" if "box" in self.views else ""
        return f"{'+'.join(self.runs)}-q{'-'.join(map(str, self.qs))}{ending}{box}"


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a representation, in the order of its JSON file: what it was made of, then its numbers."""

    dataset: str
    classes: int
    examples: int
    scored: str  # as in `TransferSet`
    representation: Representation
    weights: dict[str, str]  # of each run
    fingerprints: dict[str, str]  # of each view's pictures
    labels: str
    train_images: int | None  # of each class; None: the published split
    test_images: int | None
    seeds: list[int]  # of random splits
    Cs: list[float]
    svm: dict[str, Any]
    splits: list[dict[str, Any]] = field(default_factory=list)  # `score_split` of each
    version: str = ""
    commit: str = ""

    @classmethod
    def read(cls, path: Path) -> Result | None:
        """From its file; None if there is none, or if the file lacks a value.

        Raises:
            InputError: the file is no JSON object.
        """
        if not path.is_file():
            return None
        values = read_json(path)
        names = [each.name for each in dataclasses.fields(cls)]
        if not values.keys() >= set(names):
            return None
        what = values["representation"]
        made_of = Representation(tuple(what["runs"]), tuple(what["qs"]), what["pooled"], tuple(what["views"]))
        return cls(**{name: values[name] for name in names} | {"representation": made_of})

    def fresh(self, now: Result) -> bool:
        """Whether it was made of the same as `now`, which has no numbers yet."""
        return dataclasses.replace(self, splits=[], version="", commit="") == now

    def values(self, name: str) -> np.ndarray:
        """A measure on each split, in per cent: (splits,)."""
        return np.array([split[name] for split in self.splits])

    @property
    def measure(self) -> str:
        """The measure by which results are compared: mean class recall, else the mean average precision."""
        return RECALL if RECALL in self.splits[0] else AP


@dataclass(frozen=True, slots=True)
class ExampleSplit:
    """The examples to train on and to score, (n,) positions each, and the seed that drew them (None: published)."""

    seed: int | None
    train: np.ndarray
    test: np.ndarray


def matrix(folders: Sequence[RunFolder], data: TransferSet, what: Representation) -> tuple[np.ndarray, dict[str, str]]:
    """The representation of each example, (n, D) float32, and the hash of each run's weights.

    Raises:
        InputError: features are missing, stale or damaged; the message names the command that computes them.
    """
    parts, weights = [], {}
    for folder in folders:
        of_run = []
        for view in what.views:
            whole = features.origin_of(folder, data, view, what.qs, "")
            weights[folder.name] = whole.weights
            found = _pooled(folder, data, whole) if what.pooled else _stacked(folder, data, whole)
            of_run.append(found[data.places[view]])
        parts.append(features.normalised(np.concatenate(of_run, axis=1)))
    return np.concatenate(parts, axis=1), weights


def _stacked(folder: RunFolder, data: TransferSet, whole: features.FeatureOrigin) -> np.ndarray:
    return np.concatenate([_read(folder, data, single) for single in _singles(whole)], axis=1)


def _pooled(folder: RunFolder, data: TransferSet, whole: features.FeatureOrigin) -> np.ndarray:
    """From the pooled file where it is there, else from the files of its Q: the same numbers."""
    if features.file_path(folder.path, data.name, whole.view, whole.qs).is_file():
        return _read(folder, data, whole)
    return features.pooled([_read(folder, data, single) for single in _singles(whole)])


def _singles(whole: features.FeatureOrigin) -> Iterator[features.FeatureOrigin]:
    for q, pixels in zip(whole.qs, whole.pixels, strict=True):
        yield dataclasses.replace(whole, qs=(q,), pixels=(pixels,))


def _read(folder: RunFolder, data: TransferSet, wanted: features.FeatureOrigin) -> np.ndarray:
    """The features of the file for `wanted`, (pictures, D) float32, in the set's order."""
    path = features.file_path(folder.path, data.name, wanted.view, wanted.qs)
    words = [folder.name, "--q", ",".join(map(str, wanted.qs))]
    renew = advice.command("features", *words)
    if not path.is_file():
        raise InputError(f"{path} does not exist; run '{renew}' (without a name: for all runs)")
    if reason := features.read_origin(path).stale(wanted):
        raise InputError(f"{path} is stale ({reason}); renew it with '{renew}'")
    pictures = data.pictures[wanted.view]
    batches = list(features.read(path))
    if [key for batch in batches for key in batch.keys] != pictures.keys(0, len(pictures)):
        raise InputError(f"{path} holds other pictures than {data.folder}; renew it with '{renew}'")
    return np.concatenate([batch.features for batch in batches])


def splits_of(data: TransferSet, protocol: Transfer, seeds: Sequence[int]) -> list[ExampleSplit]:
    """The published split, or a random one for each seed, the same for every representation.

    Raises:
        InputError: a class with too few images.
    """
    if data.train is not None:
        return [ExampleSplit(None, np.flatnonzero(data.train), np.flatnonzero(~data.train))]
    train = protocol.train or 1
    counts = np.bincount(data.labels, minlength=len(data.classes))
    if counts.min() <= train:
        name = data.classes[int(counts.argmin())]
        raise InputError(
            f"{data.folder}: class '{name}' has {counts.min()} images, {train} for training leave none to score; give "
            "--train-images a smaller number"
        )
    result = []
    for seed in seeds:
        parts: tuple[list[np.ndarray], list[np.ndarray]] = [], []
        for label in range(len(data.classes)):
            order = np.random.default_rng((seed, label)).permutation(np.flatnonzero(data.labels == label))
            parts[0].append(order[:train])
            parts[1].append(order[train:] if protocol.test is None else order[train : train + protocol.test])
        result.append(ExampleSplit(seed, *(np.sort(np.concatenate(part)) for part in parts)))
    return result


def decide(x: np.ndarray, labels: np.ndarray, rows: np.ndarray, c: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One linear SVM against the rest for each class: weights (K, D) and biases (K,), trained on `rows`.

    Of examples with many labels, those with label 0 are left out of that class; a class without examples on both sides
    gets zeros.
    """
    from sklearn.exceptions import ConvergenceWarning  # imported here, as it takes a second
    from sklearn.svm import LinearSVC

    classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    weights, biases = np.zeros((classes, x.shape[1])), np.zeros(classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # happens at the largest C, which is then not the best
        if labels.ndim == 1:
            svm = LinearSVC(C=c, random_state=seed, **SVM).fit(x[rows], labels[rows])
            if len(svm.classes_) == 2:
                return np.vstack([-svm.coef_, svm.coef_]), np.concatenate([-svm.intercept_, svm.intercept_])
            weights[svm.classes_], biases[svm.classes_] = svm.coef_, svm.intercept_
            return weights, biases
        for label in range(classes):
            known = rows[labels[rows, label] != 0]
            sides = labels[known, label]
            if len(np.unique(sides)) == 2:
                svm = LinearSVC(C=c, random_state=seed, **SVM).fit(x[known], sides)
                weights[label], biases[label] = svm.coef_[0], svm.intercept_[0]
    return weights, biases


def measures(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The measures of scores (n, K), in per cent: mean class recall, or mean average precision of both kinds."""
    if labels.ndim == 1:
        return {RECALL: precision.mean_class_recall(scores.argmax(1), labels)}
    kinds = {AP: precision.average_precision, AP11: precision.eleven_point}
    columns = range(labels.shape[1])
    return {name: _mean([kind(scores[:, k], labels[:, k]) for k in columns]) for name, kind in kinds.items()}


def _mean(values: Sequence[float]) -> float:
    """The mean of those that are there; classes without a positive example have no average precision."""
    there = [value for value in values if not np.isnan(value)]
    return float(np.mean(there)) if there else float("nan")


def score_split(x: np.ndarray, labels: np.ndarray, split: ExampleSplit) -> dict[str, Any]:
    """Chooses C, trains and scores.

    Args:
        x: (n, D) float32, the features.
        labels: (n,) classes or (n, K), as in `TransferSet`.
        split: which examples to train on and to score.

    Returns:
        `seed`, `C`, `train`, `test` (numbers of examples) and the measures (per cent).
    """
    seed = split.seed or 0
    held_out = _fifth(labels, split.train, seed)
    rest = np.setdiff1d(split.train, held_out)

    @cache
    def tried(place: int) -> float:
        weights, biases = decide(x, labels, rest, CS[place], seed)
        return next(iter(measures(x[held_out] @ weights.T + biases, labels[held_out]).values()))

    best = CS[_climbed(tried, len(CS))]
    weights, biases = decide(x, labels, split.train, best, seed)
    found = measures(x[split.test] @ weights.T + biases, labels[split.test])
    return {"seed": split.seed, "C": best, "train": len(split.train), "test": len(split.test), **found}


def _climbed(value: Callable[[int], float], places: int) -> int:
    """The place from 0 to `places` - 1 with the largest value, for values that rise and then fall.

    Of equal values the first is taken. The search starts in the middle and stops where the value falls.
    """
    place = places // 2
    while place + 1 < places and value(place + 1) > value(place):
        place += 1
    while place and value(place - 1) >= value(place):
        place -= 1
    return place


def _fifth(labels: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    """A fifth of the training examples; if each example has one class, a fifth of each class."""
    random = np.random.default_rng((seed, len(rows)))
    groups = [rows] if labels.ndim == 2 else [rows[labels[rows] == label] for label in np.unique(labels[rows])]
    return np.concatenate([random.permutation(group)[: max(1, len(group) // HELD_OUT)] for group in groups])


def result_path(runs: Path, data: str, what: Representation) -> Path:
    """Where the result of a representation is kept."""
    return runs / "transfer" / data / f"{what.slug}.json"


def result(
    folder: Path,
    runs: Sequence[RunFolder],
    data: TransferSet,
    what: Representation,
    protocol: Transfer,
    seeds: Sequence[int],
) -> Result:
    """The result of a representation, from its file if that is fresh; else computed and written.

    Raises:
        InputError: as `matrix` and `splits_of`.
    """
    x, weights = matrix(runs, data, what)
    now = Result(
        dataset=data.name,
        classes=len(data.classes),
        examples=len(data),
        scored=data.scored,
        representation=what,
        weights=weights,
        fingerprints={view: data.pictures[view].fingerprint for view in what.views},
        labels=data.labels_hash,
        train_images=protocol.train if data.train is None else None,
        test_images=protocol.test if data.train is None else None,
        seeds=list(seeds) if data.train is None else [],
        Cs=list(CS),
        svm=SVM,
    )
    path = result_path(folder, data.name, what)
    if (known := Result.read(path)) and known.fresh(now):
        return known
    scored = [score_split(x, data.labels, split) for split in splits_of(data, protocol, seeds)]
    made = dataclasses.replace(now, splits=scored, version=__version__, commit=commit())
    write_json(path, dataclasses.asdict(made))
    return made


def summary(made: Sequence[Result]) -> pd.DataFrame:
    """A row for each representation: `nets`, `Q`, `over_Q`, `views`, each measure's mean with `_std`, `C`, `splits`.

    The standard deviation is that of a sample (n - 1); NaN of one split.
    """
    rows = []
    for each in made:
        what, splits = each.representation, pd.DataFrame(each.splits)
        row: dict[str, Any] = {
            "nets": " & ".join(what.runs),
            "Q": ",".join(map(str, what.qs)),
            "over_Q": what.over_qs,
            "views": " & ".join(what.views),
        }
        for name in (name for name in (RECALL, AP, AP11) if name in splits):
            row |= {name: splits[name].mean(), f"{name}_std": splits[name].std()}
        rows.append(row | {"C": " ".join(f"{c:g}" for c in splits["C"]), "splits": len(splits)})
    return pd.DataFrame(rows)


def study(
    folders: Sequence[RunFolder], protocol: Transfer, qs: Sequence[int], views: Sequence[str]
) -> list[Representation]:
    """The representations that answer the paper's questions: each run at each Q, stacked, pooled; two nets together.

    Two nets together are the two deepest of each S, as the paper's D and E.
    """
    last = tuple(views)
    result = []
    for folder in folders:
        result += [Representation((folder.name,), (q,), False, last) for q in qs]
        if len(qs) > 1:
            result += [Representation((folder.name,), tuple(qs), pooled, last) for pooled in (False, True)]
    configs = {folder.name: folder.config() for folder in folders}
    for scale in dict.fromkeys(config.scale for config in configs.values()):
        names = [name for name, config in configs.items() if config.scale == scale]
        names.sort(key=lambda name: list(paper.NETS).index(configs[name].net))
        if len(names) > 1:
            result.append(Representation(tuple(names[-2:]), tuple(qs), protocol.pooled and len(qs) > 1, last))
    return result


def comparisons(made: Sequence[Result], configs: Mapping[str, RunConfig], pooled: bool) -> pd.DataFrame:
    """The paper's questions, answered within splits: a row for each pair of results on the same splits.

    Columns: `question`, `first`, `second`, `difference` (first - second, points, mean over splits), `std`, `splits`
    (each split's difference). Results are the first measure's.

    Args:
        made: results.
        configs: the configuration of each run.
        pooled: whether the paper averages over Q on this data set.
    """
    known = {each.representation: each for each in made}
    rows = []
    for question, first, second in _questions(list(known), configs, pooled):
        a, b = (known[what].values(known[what].measure) for what in (first, second))
        if len(a) != len(b):
            continue
        differences = a - b
        rows.append({
            "question": question,
            "first": _name(first),
            "second": _name(second),
            "difference": differences.mean(),
            "std": differences.std(ddof=1) if len(differences) > 1 else float("nan"),
            "splits": " ".join(f"{value:+.2f}" for value in differences),
        })  # fmt: skip
    return pd.DataFrame(rows, columns=["question", "first", "second", "difference", "std", "splits"])


def _questions(
    there: list[Representation], configs: Mapping[str, RunConfig], pooled: bool
) -> Iterator[tuple[str, Representation, Representation]]:
    """The pairs of each question; depth and two nets at one Q, or at several Q as the paper puts them together."""
    papers = [what for what in there if what.over_qs in ("", "pooled" if pooled else "stacked")]
    single = [what for what in papers if len(what.runs) == 1]
    depth = list(paper.NETS)
    for deep in single:
        for shallow in single:
            a, b = configs[deep.runs[0]], configs[shallow.runs[0]]
            alike = a.scale == b.scale and deep.qs == shallow.qs
            if alike and b.net == "A" and depth.index(a.net) > 0:
                yield "does depth help", deep, shallow
    for what in there:
        for one in there:
            if one.runs == what.runs and len(one.qs) == 1 < len(what.qs) and one.qs[0] in what.qs:
                yield "do several scales help", what, one
    for what in there:
        other = dataclasses.replace(what, pooled=False)
        if what.pooled and other in there:
            yield "does pooling equal stacking", what, other
    for pair in papers:
        for name in pair.runs if len(pair.runs) > 1 else ():
            if (one := dataclasses.replace(pair, runs=(name,))) in there:
                yield "do two nets together help", pair, one


def _name(what: Representation) -> str:
    return f"{' & '.join(what.runs)}, Q = {','.join(map(str, what.qs))} {what.over_qs}".strip()
