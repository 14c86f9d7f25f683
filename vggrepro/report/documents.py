"""The whole report: tables, claims and results beyond the paper. Each posterior file is read once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vggrepro.data.dataset import Dataset
from vggrepro.report import csv, findings, markdown
from vggrepro.report.latex import latex
from vggrepro.results import beyond, claims, comparison, ensembles, fit, paper_claims
from vggrepro.results.answers import Answers, best_answers
from vggrepro.results.beyond import BeyondTable
from vggrepro.results.nets import all_nets, nets_table, stacks_table
from vggrepro.results.scores import Scores
from vggrepro.results.tables import Table, tables_of, views_of
from vggrepro.results.transfer_tables import transfer_tables
from vggrepro.system.files import atomic, write_text
from vggrepro.system.progress import say


@dataclass(frozen=True, slots=True)
class Document:
    """What a report holds, in whatever format it is written."""

    dataset: Dataset
    tables: Sequence[Table]
    findings: Sequence[claims.Finding]
    nets: Sequence[BeyondTable]  # Sect. 2's numbers
    beyond_tables: Sequence[BeyondTable]
    evidence: pa.Table | None  # `Scores.evidence`
    read_answers: Callable[[], Answers | None] = lambda: None  # `best_answers`, which reads that file once more

    def markdown(self) -> str:
        claims_text = findings.claims_markdown(self.findings)
        return markdown.markdown(self.tables, self.dataset, self.nets, self.beyond_tables, claims_text)

    def write(self, folder: Path) -> list[Path]:
        """Writes CSVs of Tables 3-7, of each table beyond the paper, of the answers by class and of the claims.

        Also `tables.md` and `ranks.parquet`.

        Returns:
            their paths.

        Raises:
            InputError: the folder is that of the paper's own numbers.
        """
        best = self.read_answers()
        more = best.frames(self.dataset) if best else {}
        paths = csv.write([table for table in self.tables if table.measured], folder, self.beyond_tables, more)
        for name, text in (("claims.csv", claims.csv_text(self.findings)), ("tables.md", self.markdown())):
            write_text(folder / name, text)
            paths.append(folder / name)
        ranks = folder / "ranks.parquet"
        if self.evidence is None:
            ranks.unlink(missing_ok=True)  # its posteriors are gone
            return paths
        with atomic(ranks) as temporary:
            pq.write_table(self.evidence, temporary, compression="zstd", compression_level=19)
        return [*paths, ranks]

    def latex(self, standalone: bool = False) -> str:
        """The paper's tables, the nets and the results beyond the paper, without the claims."""
        return latex(self.tables, self.dataset, [*self.nets, *self.beyond_tables], standalone)


def _tables(scores: Scores, numbers: Sequence[int]) -> list[Table]:
    return [*tables_of(scores, numbers), *transfer_tables(scores)]


def document_of(scores: Scores, numbers: Sequence[int] = range(1, 8), methods: Sequence[str] = ()) -> Document:
    """Reads what the posteriors of `scores` give: Tables `numbers`, claims, and the results beyond the paper.

    With `methods` it also finds out which nets to fuse by them, which reads files again (`ensembles.search`).

    Raises:
        InputError: no images or no labels to score; fewer than two runs to search in.
    """
    rows = [views for number in numbers for views in views_of(number)]
    sides = [side for claim in paper_claims.claims() for pair in claim.pairs for side in (pair.first, pair.second)]
    scores.rank_rows([*rows, *(side.views for side in sides), *beyond.rows(beyond.available(scores))])
    more = beyond.beyond_tables(scores)
    first = scores.alone
    more += [_of_first(table, scores) for table in (ensembles.search(first, methods) if methods else [])]
    more += [_of_first(gap, scores)] if (gap := fit.fit(first)) else []
    found = claims.evaluate_claims(scores)
    made = Document(
        scores.dataset,
        _tables(scores, numbers),
        found,
        [nets_table(all_nets(scores.architecture("A"))), stacks_table()],
        more,
        scores.evidence(),
        lambda: best_answers(first),
    )
    if refused := scores.refused:
        more_files = f" and {len(refused) - 1} more" if refused[1:] else ""
        say(f"note: not used: {refused[0].path}{more_files}; the notes under the tables say why")
    return made


def _of_first(table: BeyondTable, scores: Scores) -> BeyondTable:
    """A table of the first seed; its caption says so if there are several."""
    told = f" Of the first seed alone: {scores.runs}." if scores.seeds else ""
    return dataclasses.replace(table, caption=table.caption + told)


@dataclass(frozen=True, slots=True)
class Beside:
    """Two reproductions side by side: what is compared, how to read it, and the tables."""

    title: str
    about: str
    reading: str
    tables: Sequence[BeyondTable]

    def markdown(self) -> str:
        head = f"# {self.title}\n\n{self.about}\n{self.reading}"
        return "\n\n".join([head, *(markdown.beyond_markdown(table, level=2) for table in self.tables)]) + "\n"


def beside(ours: Scores, theirs: Scores) -> Beside:
    """Two reproductions side by side."""
    tables = comparison.side_by_side(ours, theirs)
    kind = "the same images: 95 % intervals of the differences are Tango's, p is McNemar's exact one, uncorrected"
    if not comparison.paired(ours, theirs):
        kind = "different images: 95 % intervals of the differences are Newcombe's for independent errors"
    about = f"Ours: {_described(ours)}. Theirs: {_described(theirs)}. Both on {kind}."
    reading = (
        "Errors in per cent; Δ = ours - theirs in points, [low; high] its interval; **bold** the best of a column."
    )
    if not tables:
        reading += "\n\nNeither has the posteriors of any row: `vggrepro report` names the commands."
    return Beside(f"VGG's tables: {ours.runs} against {theirs.runs}", about, reading, tables)


def beside_csv(ours: Scores, theirs: Scores) -> str:
    """Two reproductions as one CSV: `table`, then the columns of `comparison.side_by_side`."""
    tables = comparison.side_by_side(ours, theirs)
    frames = [table.frame.assign(table=int(table.name.removeprefix("table"))) for table in tables]
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["table"])
    return str(frame[["table", *(name for name in frame if name != "table")]].to_csv(index=False, lineterminator="\n"))


def _described(scores: Scores) -> str:
    geometry = scores.geometry
    data = scores.dataset
    nets = f"crop {geometry.crop}, stride {geometry.stride}, {geometry.widths}"
    return f"{scores.runs} on {data.name} (fingerprint {data.fingerprint[:12]}), {nets}"
