"""The layers of the house and what may never be: read by `tests/test_architecture.py`.

`python -m tools.house` writes the layers into docs/ARCHITECTURE.md.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
BEGIN, END = "<!-- map: begin; written by `python -m tools.house` -->", "<!-- map: end -->"

LAYERS = (
    ("words and errors", "What a message says and how a number is written.", "text errors addresses discovery"),
    (
        "settings and files",
        "What a run is asked to do, and every file that comes from outside: configs, data, models, adapters.",
        "safe_files blocks renamed_settings data_files config config_files assets peft_adapter",
    ),
    ("run store", "One folder and one SQLite file per run, written by one process, read by any.", "store"),
    (
        "analysis and drawing",
        "Numbers and sentences about runs that all faces share; what every figure needs to be drawn.",
        "analysis viz/kit",
    ),
    (
        "engine",
        "Adapters, methods, tasks and the one training loop; it knows no page and no run folder.",
        "tasks engine strategies",
    ),
    ("jobs", "Processes and kinds of run: queue, start, stop, send and fetch.", "kinds jobs remote"),
    (
        "training and inference",
        "The work of each kind of run, and trained models that answer; here torch and run folders meet.",
        "training inference custom_loop integrations integrations/* kinds/*",
    ),
    ("views of runs", "One folder or file per feature of the dashboard, and what serves it.", "server viz/*"),
    (
        "faces",
        "What a person meets: pages, reports, notebooks, the command line, three lines of Python.",
        "viz/kinds viz/report notebook pages cli api contracts __init__ __main__",
    ),
)
"""Each layer, its purpose and its packages, lowest first: a package imports its own layer and those below it, never in
a circle."""

TORCH = "torch transformers accelerate datasets peft safetensors.torch"
_SHOWN = "server viz/* notebook pages"
_DATA = "text errors addresses safe_files config config_files assets peft_adapter store analysis kinds jobs remote"
_MODELS = "tasks engine strategies training inference"
_TRACKERS = "integrations/trackers integrations/tracker_files"

NEVER = (
    (f"{_DATA} data_files {_TRACKERS} {_SHOWN}", TORCH),
    (f"{_DATA} data_files {_TRACKERS} {_MODELS} cli api custom_loop viz/kit notebook", "streamlit"),
    (f"{_DATA} data_files {_TRACKERS} {_MODELS} cli api custom_loop server pages", "plotly"),
    (f"text errors addresses safe_files config config_files assets peft_adapter kinds jobs {_MODELS}", "pandas"),
    (f"analysis data_files assets kinds jobs remote {_MODELS} custom_loop cli api {_SHOWN}", "sqlite3"),
    ("*", "pickle cPickle dill joblib shelve"),
    ("tasks engine strategies", "dynlora.store"),
    ("tasks", "dynlora.engine"),
    ("training", "dynlora.jobs.queue"),
    ("cli", "dynlora.viz.[!r]* dynlora.viz.r[!e]* dynlora.notebook"),
)
"""What may never be, whatever the layers allow: packages, and what none of their files imports."""

NO_NAMES = ("found", "said", "shown", "asked", "told", "eyes", "brought", "tied")
"""Names that no variable, parameter or function has: they say how a value came about, not what it is."""

_MAY_BIND = re.compile(rf"\b(?:{'|'.join(NO_NAMES)})(?: *[:=,)\]]| in\b|\()")

NAMES_LEFT = (
    "dynlora/contracts/harness.py",  # `tied` is a parameter of the contract
    "benchmarks/fact_memory/",
    "benchmarks/overhead.py",
)
"""Files where such a name is public, or still to be mended."""


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package and every page, by its dotted name."""
    files = sorted((*ROOT.glob("dynlora/**/*.py"), *ROOT.glob("pages/*.py")))
    parts = {path: path.relative_to(ROOT).with_suffix("").parts for path in files}
    return {".".join(p[:-1] if p[-1] == "__init__" else p): path for path, p in parts.items()}


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return every node of a file: it is walked once for all rules."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def package_of(name: str) -> str:
    """Return the package a module is in: a folder or file at the top, or a part of the folders that hold packages."""
    if name == "dynlora":
        return "__init__"
    parts = name.removeprefix("dynlora.").split(".")
    inner = "/".join(parts[:2])
    is_inner = len(parts) > 2 or parts[0] == "viz" or modules()[name].name == "__init__.py"
    return inner if len(parts) > 1 and is_inner and parts[0] in ("viz", "kinds", "integrations") else parts[0]


def layer_of(package: str) -> int | None:
    """Return the number of a package's layer, from 0; the exact name decides before a pattern; None without one."""
    for is_there in (str.__eq__, fnmatchcase):
        for number, (_, _, packages) in enumerate(LAYERS):
            if any(is_there(package, pattern) for pattern in packages.split()):
                return number
    return None


def imported(path: Path) -> Iterator[str]:
    """Yield every dotted name a file imports: also inside functions, for a type checker alone, and as a string."""
    own = path.parent / "__init__.py"  # a folder names itself for its files that are no modules
    for node in nodes(path):
        name = str(node.value) if isinstance(node, ast.Constant) else ""
        if "." in name and modules().get(name, own) != own:
            yield name
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules() else node.module


@cache
def edges() -> dict[str, frozenset[str]]:
    """Return the modules of ours that each module imports."""
    return {
        name: frozenset(target for target in imported(path) if target in modules() and target != name)
        for name, path in modules().items()
    }


def misnamed(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and name of every variable, parameter, function and class that says how its value came about."""
    if not _MAY_BIND.search(path.read_text(encoding="utf-8")):  # to parse all tests takes seconds
        return
    for node in nodes(path):
        name = getattr(node, "arg", getattr(node, "name", None))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        if name in NO_NAMES and not isinstance(node, ast.keyword):
            yield getattr(node, "lineno", 0), str(name)


def matches(package: str, patterns: str) -> bool:
    """Say whether a package is among those listed; `viz/*` is every package inside of `viz`."""
    return any(fnmatchcase(package, pattern) for pattern in patterns.split())


def is_of(name: str, libraries: str) -> bool:
    """Say whether a dotted name is one of some libraries, or inside of one."""
    return any(fnmatchcase(name, library) or fnmatchcase(name, f"{library}.*") for library in libraries.split())


def table() -> str:
    """Return the layers as Markdown, lowest first: what each is for, and its packages."""
    packages = sorted({package_of(name) for name in modules()} - {"__init__", "__main__", "viz"})
    lines = ["| layer | what it is for | packages |", "|---|---|---|"]
    for number, (title, purpose, _) in enumerate(LAYERS):
        names = [_file_name(package) for package in packages if layer_of(package) == number]
        lines.append(f"| {number + 1} {title} | {purpose} | {' '.join(names)} |")
    return "\n".join(lines)


def _file_name(package: str) -> str:
    """Return a package as a document names it: a folder ends with a slash."""
    is_folder = not (ROOT / "dynlora" / package).with_suffix(".py").is_file()  # a folder may be left of another version
    return f"`{package}/`" if is_folder else f"`{package}.py`"


def with_map(text: str) -> str:
    """Return a document with the map as it is now."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}"


def main() -> int:
    """Write the map, or say whether it is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the map is out of date")
    before = PAGE.read_text("utf-8")
    after = with_map(before)
    if parser.parse_args().check:
        if after != before:
            print(f"{PAGE.relative_to(ROOT)}: the map is out of date; run python -m tools.house", file=sys.stderr)
        return int(after != before)
    PAGE.write_text(after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
