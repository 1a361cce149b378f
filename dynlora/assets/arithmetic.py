"""Build the data set `arithmetic`: word problems with worked steps and an answer that can be checked.

Every problem is drawn from a template by a generator of our own whose seed is fixed, so that the rows are the same
everywhere; nothing is downloaded. Train and held-out problems share neither a template nor the numbers in it: a
held-out problem cannot be answered from memory.

A completion is one step a line, such as `12 + 7 = 19`, and ends with `#### 19`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

SEED = 20_251_127
ROWS = {"train": 6000, "validation": 480}

NAMES = ("Mia", "Tom", "Ana", "Ben", "Lea", "Sam", "Eva", "Max", "Ida", "Leo", "Zoe", "Jan")
THINGS = ("apples", "books", "coins", "pens", "cards", "stones", "shells", "cups", "eggs", "stamps", "balls", "seeds")

MARKER = "####"
"""Written before the answer in the last line of a completion."""


@dataclass(frozen=True)
class Kind:
    """Problems of one difficulty.

    Attributes:
        name: of the difficulty, the input group of its problems.
        ranges: smallest and largest value of each number, in the order of a, b, c, d.
        steps: the calculation, one step a line; x, y and z are the results of the first, second and third step.
        train, held_out: texts of the problem on either side.
    """

    name: str
    ranges: tuple[tuple[int, int], ...]
    steps: tuple[tuple[str, str, str], ...]
    train: tuple[str, ...]
    held_out: tuple[str, ...]


ADD = Kind(
    "add",
    ((2, 60), (2, 60)),
    (("a", "+", "b"),),
    (
        "{n} has {a} {t}. {n} buys {b} more. How many {t} does {n} have?",
        "There are {a} {t} in a box and {b} {t} on a table. How many {t} are there?",
        "{n} finds {a} {t} on Monday and {b} {t} on Friday. How many {t} does {n} find?",
        "{n} has {a} {t} and {m} has {b} {t}. How many {t} do they have together?",
        "A shop sells {a} {t} in the morning and {b} {t} in the evening. How many {t} does it sell?",
    ),
    (
        "{n} collects {a} {t}. Then {m} gives {n} {b} {t}. How many {t} does {n} have now?",
        "One shelf holds {a} {t} and another shelf holds {b} {t}. How many {t} do the shelves hold?",
    ),
)

SUBTRACT = Kind(
    "subtract",
    ((30, 99), (2, 29)),
    (("a", "-", "b"),),
    (
        "{n} has {a} {t}. {n} gives {b} to {m}. How many {t} are left?",
        "There are {a} {t} in a box. {n} takes {b} of them. How many {t} are in the box now?",
        "{n} had {a} {t} and lost {b}. How many {t} does {n} have?",
        "A shop has {a} {t} and sells {b}. How many {t} remain?",
        "{n} has {a} {t}. {m} has {b} fewer. How many {t} does {m} have?",
    ),
    (
        "Of {a} {t}, {b} are broken. How many {t} are whole?",
        "{n} needs {a} {t} and already has {b}. How many {t} are missing?",
    ),
)

MULTIPLY = Kind(
    "multiply",
    ((2, 12), (2, 12)),
    (("a", "*", "b"),),
    (
        "{n} has {a} boxes with {b} {t} in each. How many {t} does {n} have?",
        "There are {a} rows of {b} {t}. How many {t} are there?",
        "{n} buys {b} {t} every day for {a} days. How many {t} does {n} buy?",
        "Each of {a} children has {b} {t}. How many {t} do they have?",
        "A bag holds {b} {t}. How many {t} are in {a} bags?",
    ),
    (
        "{n} fills {a} jars and puts {b} {t} into every jar. How many {t} are in the jars?",
        "Each of {a} tables holds {b} {t}. How many {t} do the tables hold?",
    ),
)

TWO_STEPS = Kind(
    "two steps",
    ((2, 9), (2, 9), (2, 30)),
    (("a", "*", "b"), ("x", "+", "c")),
    (
        "{n} has {a} boxes with {b} {t} in each and {c} {t} more. How many {t} does {n} have?",
        "There are {a} rows of {b} {t}. {m} brings {c} {t}. How many {t} are there now?",
        "{n} buys {b} {t} a day for {a} days and then {c} {t}. How many {t} does {n} buy?",
        "A bag holds {b} {t}. {n} has {a} bags and {c} loose {t}. How many {t} does {n} have?",
    ),
    (
        "{n} puts {b} {t} into each of {a} jars and keeps {c} {t}. How many {t} are there?",
        "Each of {a} friends gives {n} {b} {t}. {n} already had {c}. How many {t} does {n} have?",
    ),
)

THREE_STEPS = Kind(
    "three steps",
    ((2, 9), (3, 9), (10, 40), (2, 9)),
    (("a", "*", "b"), ("x", "+", "c"), ("y", "-", "d")),
    (
        "{n} has {a} boxes with {b} {t} in each and {c} {t} more. {n} gives {d} to {m}. How many {t} are left?",
        "There are {a} rows of {b} {t}. {m} brings {c} and takes {d} away. How many {t} are there now?",
        "{n} buys {b} {t} a day for {a} days, finds {c} and loses {d}. How many {t} does {n} have?",
    ),
    (
        "{n} puts {b} {t} into each of {a} jars and {c} into a bowl. {m} eats {d}. How many {t} remain?",
        "Each of {a} friends gives {n} {b} {t}. {n} already had {c} and drops {d}. How many {t} does {n} keep?",
    ),
)

KINDS = (ADD, SUBTRACT, MULTIPLY, TWO_STEPS, THREE_STEPS)
OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def split_rows() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of both sides: id, prompt, completion, answer and difficulty, no problem twice."""
    return {side: list(_side(side, count)) for side, count in ROWS.items()}


def _side(side: str, count: int) -> Iterator[dict[str, Any]]:
    """Yield the problems of one side, as many of each kind."""
    random, seen = Random(f"{SEED} {side}"), set[str]()
    while len(seen) < count:
        kind = KINDS[len(seen) % len(KINDS)]
        numbers = _numbers(kind, random, is_held_out=side != "train")
        text = _drawn(kind.held_out if side != "train" else kind.train, random)
        one = _drawn(NAMES, random)
        other = _drawn([name for name in NAMES if name != one], random)
        prompt = text.format(n=one, m=other, t=_drawn(THINGS, random), **numbers)
        if prompt in seen:
            continue
        completion, answer = worked(kind.steps, numbers)
        yield {
            "id": f"{side}_{len(seen)}",
            "prompt": f"{prompt}\n",
            "completion": completion,
            "answer": answer,
            "difficulty": kind.name,
        }
        seen.add(prompt)


def _drawn(values: Sequence[str], random: Random) -> str:
    """Draw one of several; of Python's generator only `random()` is the same in every version."""
    return values[int(random.random() * len(values))]


def _numbers(kind: Kind, random: Random, *, is_held_out: bool) -> dict[str, int]:
    """Draw the numbers of a problem; they decide its side, in whatever order, so that no two sides share them."""
    while True:
        numbers = [low + int(random.random() * (high - low + 1)) for low, high in kind.ranges]
        if (int(hashlib.sha256(repr(sorted(numbers)).encode()).hexdigest(), 16) % 5 == 0) == is_held_out:
            return dict(zip("abcd", numbers, strict=False))


def worked(steps: Sequence[tuple[str, str, str]], numbers: Mapping[str, int]) -> tuple[str, str]:
    """Return the worked steps with the answer in the last line, and the answer."""
    known, lines, result = dict(numbers), list[str](), 0
    for name, (left, sign, right) in zip("xyz", steps, strict=False):
        result = OPERATIONS[sign](known[left], known[right])
        lines.append(f"{known[left]} {sign} {known[right]} = {result}")
        known[name] = result
    return "\n".join([*lines, f"{MARKER} {result}"]), str(result)
