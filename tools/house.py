"""The map of the house: every folder, what it is for, and what it may import; one line a folder.

`python -m tools.house` writes the map into docs/ARCHITECTURE.md; `tests/test_architecture.py` holds the code to the
rules and the document to the code.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
BEGIN, END = "<!-- map: begin; written by `python -m tools.house` -->", "<!-- map: end -->"

_METHOD = "config errors engine engine/model engine/data engine/edits engine/init engine/allocation engine/loop"
_FEATURE = "analysis errors store viz/kit viz/ui"

EVERYWHERE = "plain_text analysis/stats"
"""What every folder may import; the map leaves it out."""

RULES: dict[str, str] = {
    "plain_text": "",
    "errors": "",
    "safe_files": "errors",
    "blocks": "errors",
    "addresses": "",
    "data_files": "errors safe_files",
    "renamed_settings": "errors",
    "config": "blocks errors data_files renamed_settings",
    "config_files": "addresses config errors safe_files",
    "assets": "addresses errors",
    "peft_adapter": "errors safe_files",
    "store": "addresses config errors renamed_settings safe_files",
    "analysis/stats": "",
    "analysis": "assets errors peft_adapter safe_files store viz/kit",
    "kinds": "blocks config config_files errors store viz/kit",
    "jobs": "assets config config_files data_files errors kinds peft_adapter safe_files store",
    "remote": "addresses assets errors jobs peft_adapter safe_files store",
    "tasks": "data_files errors",
    "engine": "config data_files errors tasks engine/model engine/data engine/edits engine/init",
    "engine/model": "blocks errors tasks engine",
    "engine/data": "config data_files errors tasks engine",
    "engine/edits": "engine engine/model",
    "engine/init": "errors tasks engine engine/model engine/data engine/edits",
    "engine/allocation": "engine engine/model engine/edits",
    "engine/evaluation": "blocks errors tasks engine engine/model engine/data",
    "engine/compress": "errors engine engine/model engine/data engine/evaluation",
    "engine/loop": "config errors safe_files tasks engine engine/model engine/data engine/edits engine/allocation "
    "engine/evaluation",
    "strategies": f"{_METHOD} renamed_settings",
    "strategies/*": f"{_METHOD} engine/evaluation tasks",
    "training": "assets config config_files errors peft_adapter renamed_settings safe_files store jobs tasks engine "
    "engine/* strategies",
    "inference": "assets blocks config config_files data_files errors kinds peft_adapter safe_files store jobs tasks "
    "engine engine/* strategies training",
    "kinds/*/work": "assets blocks config config_files data_files errors safe_files jobs kinds kinds/* store tasks "
    "engine engine/* strategies training inference",
    "kinds/*/panels": "analysis kinds/* store viz/kit",
    "kinds/*": "analysis blocks config config_files errors kinds kinds/* store training inference viz/kit",
    "server": "errors jobs safe_files viz/kit",
    "cli": "addresses analysis assets blocks config config_files data_files errors kinds safe_files store jobs "
    "peft_adapter remote server strategies tasks training inference kinds/* integrations/search integrations/clusters "
    "integrations/trackers integrations/tracker_files engine/loop viz/kit viz/report",
    "custom_loop": "config errors jobs safe_files store tasks engine engine/* strategies training",
    "integrations/search": "config config_files errors jobs safe_files store tasks",
    "integrations/clusters": "addresses errors jobs safe_files store",
    "integrations": "config errors custom_loop safe_files store tasks engine engine/*",
    "integrations/trackers": "addresses errors jobs store viz/kit",
    "integrations/tracker_files": "addresses config config_files errors peft_adapter safe_files store "
    "integrations/trackers",
    "api": "config config_files errors kinds kinds/* notebook store training custom_loop",
    "viz/kit": "errors store",
    "viz/ui/browser": "",
    "viz/ui": "errors store jobs kinds inference server viz/kit viz/ui/browser",
    "viz/ui/replay": "viz/ui",
    "viz/runs": _FEATURE,
    "viz/run": f"{_FEATURE} jobs kinds",
    "viz/kinds": f"{_FEATURE} jobs kinds viz/report viz/run",
    "viz/capacity": f"{_FEATURE} kinds viz/ui/replay",
    "viz/inputs": _FEATURE,
    "viz/health": _FEATURE,
    "viz/knockout": f"{_FEATURE} inference",
    "viz/adapter": f"{_FEATURE} jobs peft_adapter",
    "viz/methods": "viz/kit",
    "viz/launch": f"{_FEATURE} assets config config_files data_files jobs",
    "viz/playground": f"{_FEATURE} data_files kinds/*",
    "viz/playground/chat": f"{_FEATURE} viz/playground",
    "viz/shift": f"{_FEATURE} assets jobs viz/inputs viz/launch viz/playground",
    "viz/compare": f"{_FEATURE} viz/runs",
    "viz/verdict": f"{_FEATURE} jobs viz/compare",
    "viz/ranks": f"{_FEATURE} viz/knockout viz/runs",
    "viz/advice": f"{_FEATURE} jobs",
    "viz/shrink": f"{_FEATURE} jobs",
    "viz/decode": f"{_FEATURE} blocks inference jobs kinds kinds/* viz/kinds",
    "viz/recycle": f"{_FEATURE} jobs kinds kinds/* viz/kinds",
    "viz/few_shot": f"{_FEATURE} data_files inference kinds/*",
    "viz/tour": f"{_FEATURE} kinds viz/ui/replay viz/capacity viz/compare viz/verdict",
    "viz/home": f"{_FEATURE} kinds viz/ui/replay viz/capacity viz/tour",
    "viz/report": f"{_FEATURE} config_files kinds viz/compare viz/knockout viz/run viz/verdict",
    "notebook": "addresses analysis errors kinds remote safe_files store viz/kit "
    "viz/knockout viz/shrink viz/compare viz/verdict",
    "pages": "analysis config_files kinds store jobs viz/*",
}
"""What each folder of `dynlora/` (and `pages/`) may import of the others, itself aside, from the ground floor up."""

_GROUND = "config config_files errors safe_files addresses analysis/stats assets peft_adapter kinds"
_FILES = f"{_GROUND} analysis data_files store jobs remote"
_ENGINE = "tasks engine engine/* strategies strategies/* kinds/*/work"
_TRACKERS = "integrations/trackers integrations/tracker_files"

FREE_OF: dict[str, str] = {
    "torch": f"{_FILES} server {_TRACKERS} viz/* notebook pages",
    "streamlit": f"{_FILES} {_ENGINE} training inference cli api custom_loop {_TRACKERS} viz/kit viz/methods notebook",
    "plotly": f"{_FILES} {_ENGINE} training inference server cli api custom_loop {_TRACKERS} pages",
    "pandas": f"{_GROUND} jobs {_ENGINE} training",
    "sqlite3": f"{_GROUND} analysis data_files jobs remote {_ENGINE} training inference server cli api viz/* "
    "notebook pages",
}
"""Libraries, and the folders that never import them. `torch` stands for every library that brings it along."""

TORCH = ("torch", "transformers", "accelerate", "datasets", "peft", "safetensors")


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package and every page, by its dotted name."""
    found: dict[str, Path] = {}
    for path in sorted((*ROOT.glob("dynlora/**/*.py"), *ROOT.glob("pages/*.py"))):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return every node of a file: it is walked once for all rules."""
    return tuple(ast.walk(tree(path)))


def room_of(name: str) -> str:
    """Return the folder a module is in; one at the top of the package, or with a rule of its own, is its own folder."""
    path = modules()[name].relative_to(ROOT)
    own = path.with_suffix("").as_posix().removeprefix("dynlora/")
    if "/" not in own or own in RULES:
        return own
    return "/".join(path.parts[:-1]).removeprefix("dynlora/")


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


def matches(room: str, patterns: str) -> bool:
    """Say whether a folder is among those listed; `engine/*` is every folder inside of `engine`."""
    return any(fnmatchcase(room, pattern) for pattern in patterns.split())


def pattern_of(room: str) -> str:
    """Return the key of the rule of a folder: its own name, or the first pattern that fits; empty for none."""
    return room if room in RULES else next((pattern for pattern in RULES if matches(room, pattern)), "")


def rule_of(room: str) -> str | None:
    """Return what a folder may import, None where there is no rule for it."""
    rule = RULES.get(pattern_of(room))
    return rule if rule is None or room in EVERYWHERE.split() else f"{rule} {EVERYWHERE}"


def purpose_of(room: str) -> str:
    """Return what a folder is for: the first line of its `__init__` or, of a single file, of the file."""
    place = ROOT / room if room == "pages" else ROOT / "dynlora" / room
    path = place.with_suffix(".py") if place.with_suffix(".py").exists() else place / "__init__.py"
    if not path.exists():
        return "One file per question a person asks: pick, query, draw."
    return (ast.get_docstring(tree(path)) or "").partition("\n")[0]


def rows() -> list[tuple[str, str, str]]:
    """Return (folder, what it is for, what it may import) from the ground floor up."""
    rooms = {room_of(name) for name in modules()}
    found = []
    for pattern, rule in RULES.items():
        chosen = sorted(room for room in rooms if pattern_of(room) == pattern)
        allowed = ", ".join(f"`{name}`" for name in rule.split()) or "nothing of ours"
        found += [(room, purpose_of(room), allowed if index == 0 else "as above") for index, room in enumerate(chosen)]
    return found


def table() -> str:
    """Return the map as Markdown."""
    lines = ["| folder | what it is for | may import |", "|---|---|---|"]
    for room, purpose, allowed in rows():
        shown = f"`{room}/`" if (ROOT / "dynlora" / room).is_dir() or room == "pages" else f"`{room}.py`"
        lines.append(f"| {shown} | {purpose} | {allowed} |")
    return "\n".join(lines)


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
