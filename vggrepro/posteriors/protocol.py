"""Test protocols (Sect. 3.2): methods, their labels, flips, grids and test scales Q, and names of posterior files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.paper import Scale

# Methods as options and file names spell them, and as people read them.
LABELS = {
    "dense": "dense",
    "multicrop": "multi-crop",
    "center": "centre crop",
    "tencrop": "10 crops",
    "googlenet": "144 crops",
}
METHODS = tuple(LABELS)
SPLIT = "val"  # the paper's test set: the labels of ILSVRC's own test set are held by its server (Sect. 4)
OTHER_CROPS = ("center", "tencrop", "googlenet")  # of other papers, for comparison
CROPS = {"center": 1, "tencrop": 5, "googlenet": 18}  # of one rescaled image, without flips


def label_of(methods: Iterable[str]) -> str:
    """The label of methods whose posteriors are averaged, as in Table 5: `multi-crop & dense`."""
    return " & ".join(LABELS[method] for method in sorted(methods, reverse=True))


@dataclass(frozen=True, slots=True)
class Method:
    """How one rescaled image is seen: by which method, with what flips, grid and pooling.

    Values that the method does not have are set to what `Origin` records: a centre crop has no flips.
    """

    name: str
    flip: bool = True  # average with the mirrored image
    grid: int = paper.GRID  # crops along a side of multicrop; 1 for center, 0 for the others
    ceil_pool: bool = False  # dense: poolings round up, as Caffe's

    def __post_init__(self) -> None:
        grid = {"multicrop": self.grid, "center": 1}.get(self.name, 0)
        object.__setattr__(self, "flip", self.flip and self.name != "center")
        object.__setattr__(self, "grid", grid)
        object.__setattr__(self, "ceil_pool", self.ceil_pool and self.name == "dense")

    @property
    def crops(self) -> int:
        """Crops of one rescaled image, without flips; 1 for dense, which takes the whole image."""
        return 1 if self.name == "dense" else self.grid**2 if self.name == "multicrop" else CROPS[self.name]

    @property
    def flips(self) -> int:
        """How many mirror images are averaged: 2, or 1 without flips."""
        return 1 + self.flip

    @property
    def pooling(self) -> str:
        """How score maps are rounded: "ceil" (up) or "floor" (down)."""
        return "ceil" if self.ceil_pool else "floor"

    @property
    def variant(self) -> str:
        """What file names add if the protocol is not the paper's, such as `-grid3-noflip`."""
        grid = f"-grid{self.grid}" if self.name == "multicrop" and self.grid != paper.GRID else ""
        ceil = "-ceil" if self.ceil_pool else ""
        return grid + ceil + ("" if self.flip or self.name == "center" else "-noflip")


@dataclass(frozen=True, slots=True)
class FileName:
    """The name of a posterior file, such as `val-dense-q256.parquet`.

    A `variant` of the paper's protocol, such as `-noflip` or `-grid3`, has a file of its own, which no table uses.
    """

    split: str
    method: str
    q: int  # paper pixels
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.split}-{self.method}{self.variant}-q{self.q}.parquet"

    @classmethod
    def parse(cls, text: str) -> FileName | None:
        """The parts of a posterior file's name; None for any other name."""
        found = _FILE_NAME.fullmatch(text)
        return cls(found[1], found[2], int(found[4]), found[3]) if found else None


_FILE_NAME = re.compile(rf"(train|val|test)-({'|'.join(METHODS)})((?:-grid\d+)?(?:-ceil)?(?:-noflip)?)-q(\d+)\.parquet")


def file_path(run_folder: Path, split: str, method: str, q: int, variant: str = "") -> Path:
    """Where a run keeps the posteriors of a split by a method at Q (paper pixels)."""
    return run_folder / "posteriors" / str(FileName(split, method, q, variant))


@dataclass(frozen=True, slots=True)
class Protocol:
    """What to compute: methods, test scales (None: the method's own), flips, crops along a side, split."""

    methods: tuple[str, ...] = ("dense",)
    qs: tuple[int, ...] | None = None
    flip: bool = True
    grid: int = paper.GRID
    split: str = SPLIT
    ceil_pool: bool = False  # dense: poolings round up, as Caffe's
    exact_precision: bool = False  # compute posteriors of another precision again

    def __post_init__(self) -> None:
        if self.grid < 1:
            raise InputError(f"--grid {self.grid}: give 1 or more crops a side")
        for q in self.qs or ():
            if q > paper.MAX_SCALE:
                raise InputError(f"--q {q}: larger than any image here needs; give {paper.MAX_SCALE} or less")
            if q < paper.CROP:
                raise InputError(
                    f"--q {q}: a shorter side below {paper.CROP} leaves no map for the FC layers (Q is in the "
                    f"paper's pixels); give {paper.CROP} or more"
                )

    def scales(self, method: str, scale: Scale) -> tuple[int, ...]:
        """The Q of a method for a run's S: those asked for, else the paper's (S, S ± 32 or 256, 384, 512).

        Single-scale methods of other papers take Q = S, or its middle. GoogLeNet's crops have four Q of their own.
        """
        if self.qs:
            return self.qs
        return {"center": (scale.middle,), "tencrop": (scale.middle,), "googlenet": paper.GOOGLENET_QS}.get(
            method, scale.test_scales
        )

    def method(self, name: str) -> Method:
        """One of the protocol's methods, with its flips, grid and pooling."""
        return Method(name, self.flip, self.grid, self.ceil_pool)

    def path(self, run_folder: Path, method: str, q: int) -> Path:
        """The run's posterior file of a method at Q."""
        return file_path(run_folder, self.split, method, q, self.method(method).variant)


def parse_qs(text: str) -> tuple[int, ...]:
    """`256,384,512`, or FIRST:LAST:STEP such as `224:512:32`.

    Raises:
        InputError: neither.
    """
    try:
        if ":" in text:
            first, last, step = (int(part) for part in text.split(":"))
            values = tuple(range(first, min(last, paper.MAX_SCALE + 1) + 1, step))
        else:
            values = tuple(int(part) for part in text.split(","))
        if not values:
            raise ValueError
    except ValueError:
        raise InputError(f"--q '{text}': give test scales such as 256,384,512 or FIRST:LAST:STEP") from None
    return tuple(dict.fromkeys(values))
