"""One hundred small faults in `dynlora/`, and whether the tests notice each: a check on a change of the tests.

`python -m tools.mutants draw` picks them among the lines that tests run, by coverage with contexts; `run` puts each
into a copy of the checkout and runs the tests that cover its line, the shortest first, until one fails. It needs
pytest-cov.

    pytest -n 3 -m "not torture and not journey" --cov=dynlora --cov-context=test --junitxml=junit.xml
    python -m tools.mutants draw --coverage .coverage --out tests/mutants.json
    python -m tools.mutants run tests/mutants.json --coverage .coverage --junit junit.xml --out caught.json
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from coverage import CoverageData

ROOT = Path(__file__).resolve().parents[1]

SWAPPED: Mapping[type[ast.AST], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.And: "or",
    ast.Or: "and",
}
"""What each operator becomes."""

LONGEST_S = 60.0
"""Of the tests of one mutant together, as they took when coverage was measured."""

MOST_TESTS = 40


@dataclass(frozen=True)
class Mutant:
    """A fault.

    Attributes:
        path: of the file, from the checkout's root.
        line: counted from one.
        before: text of the line.
        after: the same with the fault.
    """

    path: str
    line: int
    before: str
    after: str


def faults(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line, its text and its text with a fault, for each place where one can be put."""
    lines = source.splitlines()
    tree = ast.parse(source)
    inside = {part for text in ast.walk(tree) if isinstance(text, ast.JoinedStr) for part in ast.walk(text)}
    for node in ast.walk(tree):
        span, new = _replaced(node)
        if span is None or node in inside or span[0].lineno != span[1].end_lineno:
            continue  # before Python 3.12 what is inside an f-string has the place of the whole
        line = lines[span[0].lineno - 1].encode()
        after = (line[: span[0].col_offset] + new.encode() + line[span[1].end_col_offset :]).decode()
        yield span[0].lineno, line.decode(), after


def _replaced(node: ast.AST) -> tuple[tuple[Any, Any] | None, str]:
    """Return the first and the last node of what is replaced, and by what; None where there is nothing."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in SWAPPED:
            return (left, right), f"{ast.unparse(left)} {SWAPPED[type(op)]} {ast.unparse(right)}"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in SWAPPED:
            return (node, node), f"({ast.unparse(left)}) {SWAPPED[type(op)]} ({ast.unparse(right)})"
        case ast.BoolOp(op=op, values=values):
            word = SWAPPED[type(op)]
            return (node, node), "(" + f" {word} ".join(f"({ast.unparse(value)})" for value in values) + ")"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return (node, node), f"bool({ast.unparse(operand)})"
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            return (value, value), "None"
        case ast.Constant(value=bool(value)):
            return (node, node), str(not value)
        case ast.Constant(value=int(value)):
            return (node, node), str(value + 1)
    return None, ""


def contexts(coverage: Path) -> dict[str, dict[int, list[str]]]:
    """Return the tests that ran each line of `dynlora/`, by file and line; lines of the import have none."""
    data = CoverageData(str(coverage))
    data.read()
    read: dict[str, dict[int, list[str]]] = {}
    for file in data.measured_files():
        _, is_ours, rest = file.rpartition("/dynlora/")
        if is_ours and not rest.startswith("contracts/"):
            by_line = data.contexts_by_lineno(file)
            read[f"dynlora/{rest}"] = {
                line: sorted({name.partition("|")[0] for name in names if name}) for line, names in by_line.items()
            }
    return read


def draw(coverage: Path, number: int, seed: int) -> list[Mutant]:
    """Return mutants of lines that some test runs, all places being equally likely."""
    places = [
        Mutant(path, line, before, after)
        for path, tests in sorted(contexts(coverage).items())
        for line, before, after in faults((ROOT / path).read_text("utf-8"))
        if tests.get(line)
    ]
    random.Random(seed).shuffle(places)
    picked = itertools.islice((one for one in places if _is_python(one)), number)
    return sorted(picked, key=lambda one: (one.path, one.line, one.after))


def _is_python(mutant: Mutant) -> bool:
    try:
        ast.parse(_with(mutant, (ROOT / mutant.path).read_text("utf-8")))
    except SyntaxError:
        return False
    return True


def _with(mutant: Mutant, source: str) -> str:
    """Return the source of a file with the fault."""
    lines = source.splitlines()
    lines[mutant.line - 1] = mutant.after
    return "\n".join(lines) + "\n"


def placed(mutant: Mutant) -> Mutant:
    """Return a mutant at the line that is its own now: the nearest of the same text.

    Raises:
        SystemExit: when its file has no such line; then the list is out of date.
    """
    lines = (ROOT / mutant.path).read_text("utf-8").splitlines()
    same = [number for number, line in enumerate(lines, 1) if line == mutant.before]
    if not same:
        raise SystemExit(f"{mutant.path}:{mutant.line}: the line is gone; draw the mutants again")
    return replace(mutant, line=min(same, key=lambda number: abs(number - mutant.line)))


def seconds(junit: Path) -> dict[str, float]:
    """Return how long each test took, by its id."""
    took = {}
    for case in ET.parse(junit).iter("testcase"):
        file = str(case.get("classname")).replace(".", "/") + ".py"
        took[f"{file}::{case.get('name')}"] = float(case.get("time") or 0)
    return took


def chosen(tests: list[str], took: Mapping[str, float]) -> list[str]:
    """Return the tests to run for a line: the shortest first, and of each file some before all of one."""
    of_file: dict[str, int] = {}
    order = []
    for test in sorted((test for test in tests if test in took), key=lambda test: took[test]):
        file = test.partition("::")[0]
        of_file[file] = of_file.get(file, 0) + 1
        order.append((of_file[file], took[test], test))
    picked: list[str] = []
    spent = 0.0
    for _, cost, test in sorted(order)[:MOST_TESTS]:
        if not picked or spent + cost <= LONGEST_S:
            picked.append(test)
            spent += cost
    return picked


def caught(mutant: Mutant, tests: list[str], checkout: Path) -> str | None:
    """Return the test that notices a mutant in a copy of the checkout, `time` where it hangs; None where none does."""
    path = checkout / mutant.path
    source = path.read_text("utf-8")
    path.write_text(_with(mutant, source), "utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-m", "", "-p", "no:cacheprovider", *tests]
        environment = os.environ | {"PYTHONPATH": str(checkout), "COLUMNS": "400"}
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        return "time"
    finally:
        path.write_text(source, "utf-8")
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return failed[0].split(" - ")[0].partition(" ")[2] if failed else f"pytest ended with {done.returncode}"


def run(mutants: list[Mutant], coverage: Path, junit: Path, processes: int) -> list[dict[str, Any]]:
    """Return each mutant with how many tests were run for it and the one that noticed it."""
    by_line, took = contexts(coverage), seconds(junit)
    with tempfile.TemporaryDirectory(prefix="dynlora-mutants-") as spare:
        checkouts = [Path(spare) / str(number) for number in range(processes)]
        for checkout in checkouts:
            left_out = shutil.ignore_patterns(".git", ".venv", "site", "artifacts", "__pycache__", ".hypothesis")
            shutil.copytree(ROOT, checkout, ignore=left_out)

        def one(mutant: Mutant) -> dict[str, Any]:
            checkout = checkouts.pop()
            try:
                tests = chosen(by_line[mutant.path].get(mutant.line, []), took)
                by = caught(mutant, tests, checkout) if tests else None
            finally:
                checkouts.append(checkout)
            print(f"{mutant.path}:{mutant.line}: {by or 'not noticed'} ({len(tests)} tests)", flush=True)
            return {**asdict(mutant), "tests": len(tests), "caught_by": by}

        with ThreadPoolExecutor(processes) as pool:
            return list(pool.map(one, mutants))


def main() -> None:
    """Draw the mutants, or run the tests against them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    drawing, running = commands.add_parser("draw"), commands.add_parser("run")
    drawing.add_argument("--number", type=int, default=100)
    drawing.add_argument("--seed", type=int, default=0)
    running.add_argument("mutants", type=Path)
    running.add_argument("--junit", type=Path, required=True)
    running.add_argument("--processes", type=int, default=2)
    for one in (drawing, running):
        one.add_argument("--coverage", type=Path, required=True)
        one.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "draw":
        rows: list[dict[str, Any]] = [asdict(one) for one in draw(options.coverage, options.number, options.seed)]
    else:
        mutants = [placed(Mutant(**one)) for one in json.loads(options.mutants.read_text("utf-8"))]
        rows = run(mutants, options.coverage, options.junit, options.processes)
        print(f"{sum(row['caught_by'] is not None for row in rows)} of {len(rows)} are noticed")
    options.out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
