"""MAWPS as worked problems: each equation becomes one calculation per line and the answer, for target, draft and judge.

    python -m benchmarks.word_problems --data FOLDER_OF_MAWPS --out FOLDER

FOLDER gets train.jsonl and validation.jsonl (validation and test of MAWPS together), which `data.path` takes. A row is
left out when its equation is not `x = expression`, the expression does not give the answer, a result has more than
three decimals, there are more than four calculations, or its text is on the other side too. How many is printed.
"""

from __future__ import annotations

import argparse
import ast
import json
import operator
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd

from dynlora.assets.builders import MARKER

SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
CALCULATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
MOST = 4
"""Calculations of a problem."""

DECIMALS = 3


def worked(equation: str, answer: float) -> str | None:
    """Return an equation as worked steps, such as `22 - 14 = 8`, and the answer; None where it cannot be written so."""
    left, _, right = equation.replace(" ", "").partition("=")
    known = right if left.lower() == "x" else left
    lines: list[str] = []
    try:
        result = _solve(ast.parse(known, mode="eval").body, lines)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return None
    if not 1 <= len(lines) <= MOST or abs(float(result) - answer) > 10**-DECIMALS:
        return None
    return "\n".join([*lines, f"{MARKER} {_shown(result)}"])


def _solve(part: ast.expr, lines: list[str]) -> Fraction:
    """Return the value of an expression, and add its calculations in the order in which they are done."""
    if isinstance(part, ast.Constant) and isinstance(part.value, int | float):
        return Fraction(str(part.value))
    if isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.USub):
        return -_solve(part.operand, lines)
    if not isinstance(part, ast.BinOp) or type(part.op) not in SIGNS:
        raise ValueError(ast.dump(part))
    first, second = _solve(part.left, lines), _solve(part.right, lines)
    sign = SIGNS[type(part.op)]
    result = CALCULATIONS[sign](first, second)
    lines.append(f"{_shown(first)} {sign} {_shown(second)} = {_shown(result)}")
    return result


def _shown(value: Fraction) -> str:
    """Return a number as people write it.

    Raises:
        ValueError: when it has more decimals than these problems should have.
    """
    if (value * 10**DECIMALS).denominator != 1:
        raise ValueError(str(value))
    return f"{float(value):.{DECIMALS}f}".rstrip("0").rstrip(".")


def rows_of(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the rows that can be worked: prompt, completion, answer, and how many calculations they take."""
    for row in table.to_dict("records"):
        completion = worked(str(row["equation"]), float(row["answer"]))
        if completion is not None:
            lines = completion.splitlines()
            yield {
                "prompt": f"{str(row['prompt']).strip()}\n",
                "completion": completion,
                "answer": lines[-1].removeprefix(f"{MARKER} "),
                "difficulty": f"{len(lines) - 1} steps",
            }


def main() -> None:
    """Write both sides and print how many rows each has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train, validation and test.parquet")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    tables = {name: pd.read_parquet(arguments.data / f"{name}.parquet") for name in ("train", "validation", "test")}
    held_out = pd.concat([tables["validation"], tables["test"]])
    sides = {"validation": list(rows_of(held_out))}
    known = {row["prompt"] for row in sides["validation"]}
    sides["train"] = [row for row in rows_of(tables["train"]) if row["prompt"] not in known]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for side, whole in (("train", len(tables["train"])), ("validation", len(held_out))):
        lines = "".join(json.dumps(row) + "\n" for row in sides[side])
        (arguments.out / f"{side}.jsonl").write_text(lines, "utf-8")
        print(f"{side}: {len(sides[side])} of {whole} problems")


if __name__ == "__main__":
    main()
