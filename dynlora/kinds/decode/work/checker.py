"""Whether a step of a worked solution is right: its arithmetic, and what the reference says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from dynlora.tasks.answers import MARKERS, answer_in, number

_NUMBER = r"-?\$?\d[\d,]*(?:\.\d+)?"
_EQUATION = re.compile(rf"({_NUMBER}(?:\s*[-+*/×x÷]\s*{_NUMBER})+)\s*=\s*({_NUMBER})")
_PART = re.compile(rf"\s*([-+*/×x÷]?)\s*({_NUMBER})")
_SAME = {"×": "*", "x": "*", "÷": "/"}


@dataclass(frozen=True)
class Equation:
    """A calculation with its result, such as 12 + 7 = 19.

    Attributes:
        terms: numbers with the sign before each, "" before the first.
        result: what the text gives as the result.
    """

    terms: tuple[tuple[str, Fraction], ...]
    result: Fraction

    @property
    def holds(self) -> bool:
        """Whether the result is that of the terms; products before sums."""
        sums, product = Fraction(0), Fraction(0)
        for sign, value in self.terms:
            if sign in ("*", "/"):
                if sign == "/" and value == 0:
                    return False
                product = product * value if sign == "*" else product / value
            else:
                sums, product = sums + product, -value if sign == "-" else value
        return sums + product == self.result

    @property
    def key(self) -> tuple[object, ...]:
        """What two ways of writing one calculation have in common: a + b and b + a."""
        signs = sorted(sign for sign, _ in self.terms[1:])
        commutes = all(sign in ("+", "*") for sign in signs) and len(set(signs)) == 1
        return (sorted(value for _, value in self.terms), signs) if commutes else (list(self.terms),)


def equations(text: str) -> Iterator[Equation]:
    """Yield the calculations of a text."""
    for terms, result in _EQUATION.findall(text):
        parts = tuple((_SAME.get(sign) or sign, _value(value)) for sign, value in _PART.findall(terms))
        yield Equation(parts, _value(result))


def _value(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace("$", ""))


@dataclass(frozen=True)
class Reference:
    """What is right of a problem, as its data has it.

    Attributes:
        answer: the right answer, None where it is not known.
        solution: the worked solution; empty where there is none.
    """

    answer: str | None
    solution: str = ""

    def is_right(self, step: str) -> bool:
        """Say whether a step is right.

        All its calculations hold, each is one of the worked solution where that has some, and an answer that it gives
        is the right one.
        """
        known = [equation.key for equation in equations(self.solution)]
        if not all(one.holds and (not known or one.key in known) for one in equations(step)):
            return False
        if self.answer is None or not any(marker in step for marker in MARKERS):
            return True
        answer, right = answer_in(step), number(self.answer)
        return answer is not None and number(answer) == right if right is not None else self.answer in step
