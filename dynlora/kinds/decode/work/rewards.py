"""Rewards of a step: a classification run, the target itself, a check of its arithmetic, or one's own function."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.errors import ConfigError
from dynlora.kinds.decode.work.writer import Role, Size, Writer
from dynlora.tasks import LabelledTask, WritingTask
from dynlora.tasks.labels import MARKERS, answer_in, number, tail

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


@dataclass(frozen=True)
class Candidate:
    """A step of the draft's that is to be judged.

    Attributes:
        problem: it is part of a solution of.
        before: the solution up to the step.
        step: its text.
        count: its tokens for the target, which has taken them and not read them.
        target: at work on the same text.
    """

    problem: Problem
    before: str
    step: str
    count: int
    target: Writer


@dataclass(frozen=True)
class Judged:
    """What a reward says of a step.

    Attributes:
        value: the reward.
        read: tokens that a model of the reward's own read.
        flops: of reading them.
    """

    value: float
    read: int = 0
    flops: int = 0


class Reward(ABC):
    """Judges the last step of a solution; a higher number is better.

    Attributes:
        kind: name in records.
    """

    kind: str

    @abstractmethod
    def judge(self, candidate: Candidate) -> Judged:
        """Return the reward of a step."""

    def facts(self) -> dict[str, Any]:
        """Return what a record says of the reward."""
        return {"kind": self.kind}


class OracleReward(Reward):
    """1 where a step is right and 0 where not, by the reference: an upper bound of what a judge can do."""

    kind = "oracle"

    def judge(self, candidate: Candidate) -> Judged:
        """Check the step."""
        return Judged(float(candidate.problem.reference.is_right(candidate.step)))


class LikelihoodReward(Reward):
    """exp(mean log-probability of the step's tokens under the target), from 0 to 1: their geometric mean.

    A threshold of 0.7 keeps steps whose tokens the target would have given 0.7 each. It costs one prefill.
    """

    kind = "target-likelihood"

    def judge(self, candidate: Candidate) -> Judged:
        """Let the target read the step."""
        if not candidate.count:
            return Judged(0.0)
        return Judged(math.exp(float(candidate.target.log_probabilities(candidate.count).mean())))


QUESTION = "\nIs the last step right? Answer yes or no: "


class TokenReward(Reward):
    """The target's probability of a yes against a no, after the step and a question (SpecReason, arXiv 2504.07891)."""

    kind = "target-token"

    def judge(self, candidate: Candidate) -> Judged:
        """Ask the target, and take the question back."""
        tokenizer: Any = candidate.target.role.model.base.tokenizer
        question = tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
        candidate.target.take(question)
        probability = candidate.target.next_probabilities()
        candidate.target.take_back(len(question))
        yes, no = (self._said(tokenizer, probability, word) for word in ("yes", "no"))
        return Judged(yes / (yes + no) if yes + no > 0 else 0.0)

    def _said(self, tokenizer: Any, probability: Any, word: str) -> float:
        """Return the probability of a word, with or without a space and a capital letter."""
        forms = (word, word.capitalize(), f" {word}", f" {word.capitalize()}")
        first = {tokenizer(form, add_special_tokens=False)["input_ids"][0] for form in forms}
        return sum(float(probability[token]) for token in first)


RIGHT = ("right", "correct", "true", "yes", "good", "1")
"""Names of the class of right partial solutions."""


def judged_text(question: str, solution: str) -> str:
    """Return what a classification run judges: the problem and its solution so far."""
    return f"{question.rstrip()}\n{solution.rstrip()}"


class ClassifierReward(Reward):
    """The probability that a partial solution is right, by a classification run."""

    kind = "classifier"

    def __init__(self, model: AdaptedModel, run: str) -> None:
        """Take a model.

        Raises:
            ConfigError: when it is of another task, or none of its classes says right.
        """
        task = model.task
        if not isinstance(task, LabelledTask) or not task.labels:
            raise ConfigError(
                f"--reward {run}: is a run of {task.name}, and steps are judged by a classification run; give one of "
                "right and wrong partial solutions, or oracle"
            )
        names = [label.strip().casefold() for label in task.labels]
        place = next((names.index(name) for name in RIGHT if name in names), None)
        if place is None:
            raise ConfigError(
                f"--reward {run}: none of its classes ({', '.join(task.labels)[:200]}) says that a step is right; "
                "train one with the classes right and wrong"
            )
        self.model, self.run, self.place = model, run, place

    @cached_property
    def size(self) -> Size:
        """What a token costs."""
        return Size.of(self.model)

    def judge(self, candidate: Candidate) -> Judged:
        """Classify the problem with its solution up to the step."""
        text = judged_text(candidate.problem.question, candidate.before + candidate.step)
        output = self.model.predict([text]).output
        count = min(len(self.model.base.tokenizer(text)["input_ids"]), self.model.max_length)
        return Judged(float(output[0, self.place]), count, self.size.classified(count))

    def facts(self) -> dict[str, Any]:
        """Return what a record says of the reward."""
        return {"kind": self.kind, "run": self.run}


class OwnReward(Reward):
    """A function of one's own: of the problem, the solution so far, and the step."""

    kind = "callable"

    def __init__(self, function: Callable[[str, str, str], float]) -> None:
        """Take the function."""
        self.function = function

    def judge(self, candidate: Candidate) -> Judged:
        """Call it."""
        return Judged(self.function(candidate.problem.question, candidate.before, candidate.step))


BY_NAME: dict[str, type[Reward]] = {
    "oracle": OracleReward,
    "target-likelihood": LikelihoodReward,
    "target-token": TokenReward,
}
"""Rewards that need no run."""


DIGITS = 6
"""Digits of a reward that count, as published; those after them differ with the order in which tokens were read."""


def checked(judged: Judged, reward: Reward, problem: int, step: int) -> Judged:
    """Return a reward that can be compared.

    Raises:
        ConfigError: when it is no finite number.
    """
    value: Any = judged.value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, str) or not math.isfinite(number):
        raise ConfigError(
            f"--reward {reward.kind}: gave {str(value)[:40]!r} for step {step + 1} of problem {problem}, and a reward "
            "is a finite number; correct the reward"
        )
    return Judged(round(number, DIGITS), judged.read, judged.flops)
