"""The tables of the documentation: results from the figures that the benchmarks wrote, names from the code.

python -m tools.docs.tables          write every table between its marks again
python -m tools.docs.tables --check  say which are old; exit 1 if any

A mark is `<!-- table: quality TASK RANK against=METHODS [without=METHODS] -->`, `<!-- table: tuned FILE SIDE ... -->`
for sides at rates of their own, or `<!-- table: NAME -->` for the other tables; the table ends at `<!-- /table -->`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.quality.markdown import methods_table, quality_table
from benchmarks.quality.methods import ENDINGS, METHODS
from dynlora.analysis.learning import MEANINGS
from dynlora.kinds.run_kind import registry
from dynlora.notebook.plots import Plots
from tools.docs import measured

ROOT = Path(__file__).resolve().parents[2]
MARKED = re.compile(r"(<!-- table: ([^>]*?) -->\n).*?(<!-- /table -->)", re.DOTALL)

CODE = re.compile(r"[\w.]+(?:\([^()]*(?:\([^()]*\))?[^()]*\)|=(?:\{[^}]*\}|[\w.]+(?: \* r)?))")
"""A call, or an assignment, in a sentence."""

OWN = {name: function for name, function in vars(Plots).items() if name[0] != "_"}
"""The functions of `run.plot` that have arguments of their own."""


def plots() -> Iterator[str]:
    """Yield the functions of `run.plot` with their arguments and what they draw."""
    yield from ("| `run.plot.` | what it draws |", "|---|---|")
    for name, function in OWN.items():
        arguments = ", ".join(argument for argument in inspect.signature(function).parameters if argument != "self")
        about = (inspect.getdoc(function) or "").partition("\n")[0]
        yield f"| `{name}({arguments})` | {re.sub('^(Draw|Return) ', '', about)} |"


def panels() -> Iterator[str]:
    """Yield the panels of each kind of run that `run.plot` draws by their names alone."""
    yield from ("| run | `run.plot.NAME()` |", "|---|---|")
    for kind in sorted(registry().values(), key=lambda kind: not kind.allocates):
        names = {panel.id: panel.title for panel in kind.panels if panel.has_figure}
        further = [f"`{name}` ({title})" for name, title in names.items() if not (kind.allocates and name in OWN)]
        yield f"| {kind.name} | {', '.join(further)} |"


def symptoms() -> Iterator[str]:
    """Yield why adapters do not learn, with the usual cause and the remedy."""
    yield from ("| dynlora says | usual cause | do this |", "|---|---|---|")
    for meaning in MEANINGS.values():
        yield f"| {meaning.title} | {_with_code(meaning.cause)} | {_with_code(meaning.remedy)} |"


def _with_code(words: str) -> str:
    """Return words with calls and assignments in them set as code."""
    return CODE.sub(lambda part: f"`{part[0]}`", words)


KINDS = {
    "symptoms": symptoms,
    "parts": measured.parts,
    "real": measured.real,
    "results": measured.results,
    "head_rates": measured.head_rates,
    "default_rates": measured.default_rates,
    "planted": measured.planted,
    "planted_methods": measured.planted_methods,
    "shrunk": measured.shrunk,
    "trained_wider": measured.trained_wider,
    "steps": measured.steps,
    "plots": plots,
    "panels": panels,
}
"""Tables that need no more than their name."""


def table(mark: str) -> Iterator[str]:
    """Yield the lines of the table that a mark asks for."""
    kind, *words = mark.split()
    if kind in KINDS:
        yield from KINDS[kind]()
        return
    if kind == "tuned":
        yield from measured.tuned(*words)
        return
    if kind == "methods":
        yield from methods_table(measured.figures("methods"))
        return
    options = dict(word.split("=", 1) for word in words if "=" in word)
    task, rank = [word for word in words if "=" not in word]
    cell = measured.cell(task, int(rank))
    yield from quality_table(_compared(cell, options.get("without", "").split(",")), options["against"].split(","))


def _compared(cell: Mapping[str, Any], without: list[str]) -> dict[str, Any]:
    """Return a cell with the methods of this comparison; every other strategy is in the table of all methods."""
    rows = [row for row in cell["methods"] if row["method"] not in without and _is_compared(row["method"])]
    return {**cell, "methods": rows}


def _is_compared(name: str) -> bool:
    return name in METHODS or name.endswith(tuple(ENDINGS))


def renewed(text: str) -> str:
    """Return a document with every marked table as the figures have it now."""
    return MARKED.sub(lambda mark: mark[1] + "".join(f"{line}\n" for line in table(mark[2])) + mark[3], text)


def main() -> int:
    """Write the tables again, or check them; returns the exit code."""
    old = []
    made = {path: renewed(path.read_text("utf-8")) for path in sorted((ROOT / "docs").rglob("*.md"))}
    for path, new in {**made, ROOT / "sample_runs" / "planted-methods.csv": measured.planted_board()}.items():
        if not path.exists() or path.read_text("utf-8") != new:
            old.append(path.relative_to(ROOT).as_posix())
            if "--check" not in sys.argv:
                path.write_text(new, "utf-8")
    print("\n".join(old) or "every table is current")
    return int("--check" in sys.argv and bool(old))


if __name__ == "__main__":
    sys.exit(main())
