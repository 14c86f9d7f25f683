"""Sentences on what is missing: one for each run and reason, each file once, with commands if they are given."""

from __future__ import annotations

from pathlib import Path

from vggrepro.paper import S256, S384, Run, View
from vggrepro.results.gaps import not_run, not_used
from vggrepro.results.scores import File

A, D = Run("A", S256), Run("D", S384)


def file(run: Run, q: int, refused: str | None) -> File:
    path = Path("runs") / run.name / "posteriors" / f"val-dense-q{q}.parquet"
    return File(View(run, q, "dense"), path, True, refused)


def test_files_of_a_run_with_the_same_fault_share_a_sentence() -> None:
    files = [file(A, 224, "other weights"), file(A, 256, None), file(A, 288, "other weights"), file(A, 320, "damaged")]
    files += [file(D, 384, "other weights"), file(A, 224, "other weights")]
    assert {text: [made.view.q for made in named] for text, named in not_used(files).items()} == {
        "Not used: runs/A-256/posteriors/val-dense-q224.parquet, val-dense-q288.parquet (other weights).": [224, 288],
        "Not used: runs/A-256/posteriors/val-dense-q320.parquet (damaged).": [320],
        "Not used: runs/D-384/posteriors/val-dense-q384.parquet (other weights).": [384],
    }


def test_commands_say_how_to_make_them() -> None:
    def commands(views: object) -> str:
        return f"`make {views}`"

    view = View(A, 256, "dense")
    (text,) = not_used([file(A, 256, "damaged")], commands)
    assert text == f"Not used: runs/A-256/posteriors/val-dense-q256.parquet (damaged). Renew: `make {[view]}`."
    assert not_run([view], commands) == f"Not run: `make {[view]}`."
