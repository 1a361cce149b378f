"""The problems that are decoded: prompts for each role, and what is right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from dynlora.engine.data.text_data import Rows
from dynlora.errors import ConfigError
from dynlora.kinds.decode.work.writer import Role
from dynlora.tasks import WritingTask
from dynlora.tasks.answers import MARKERS, answer_in, number, tail

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


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        index: its place in the data.
        question: the prompt for reading.
        prompts: its tokens, by role.
        reference: what is right.
    """

    index: int
    question: str
    prompts: dict[str, list[int]]
    reference: Reference

    @property
    def right_answer(self) -> str | None:
        """The right answer, or the whole solution where the data has no column of answers."""
        return self.reference.answer or self.reference.solution or None


def problems_of(rows: Rows, roles: Sequence[Role], places: Sequence[int]) -> list[Problem]:
    """Return problems of data.

    Args:
        rows: prompts with completions, or conversations.
        roles: that write.
        places: which rows.

    Raises:
        ConfigError: when a prompt leaves no room for a solution.
    """
    answers = rows.fields.get("answer")
    problems = []
    for place in places:
        prompts = {}
        for role in roles:
            task = role.model.task
            if not isinstance(task, WritingTask):
                raise ConfigError(f"--{role.name}: is a run of {task.name}, which writes no texts; give another")
            prompts[role.name] = task.prompt(role.model.base.tokenizer, rows, place, is_whole=True).ids
            if not 0 < len(prompts[role.name]) < role.total:
                raise ConfigError(
                    f"--data: problem {place} has {len(prompts[role.name]):,} tokens for the {role.name}, which takes "
                    f"{role.total:,} with the solution; use data with shorter prompts"
                )
        reference = Reference(answers[place] if answers else None, rows.text_pair[place] if rows.text_pair else "")
        problems.append(Problem(place, rows.text[place], prompts, reference))
    return problems


def answer_of(problem: Problem, text: str) -> str:
    """Return the answer that a solution gives: a number where there is one, else what follows the last marker."""
    return answer_in(text) or tail(text).strip()[:200]


def is_right(problem: Problem, text: str, task: WritingTask) -> bool | None:
    """Say whether a solution gives the right answer; None where the data does not know it."""
    right = problem.right_answer
    return None if right is None else task.is_right(right, text)
