"""The problems that are decoded: prompts for each role, and what is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dynlora.engine.data.text_data import Rows
from dynlora.errors import ConfigError
from dynlora.kinds.decode.work.checker import Reference
from dynlora.kinds.decode.work.writer import Role
from dynlora.tasks import WritingTask
from dynlora.tasks.answers import answer_in, tail


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
    for row in places:
        prompts = {}
        for role in roles:
            task = role.model.task
            if not isinstance(task, WritingTask):
                raise ConfigError(f"--{role.name}: is a run of {task.name}, which writes no texts; give another")
            prompts[role.name] = task.prompt(role.model.base.tokenizer, rows, row, is_whole=True).ids
            if not 0 < len(prompts[role.name]) < role.total:
                raise ConfigError(
                    f"--data: problem {row} has {len(prompts[role.name]):,} tokens for the {role.name}, which takes "
                    f"{role.total:,} with the solution; use data with shorter prompts"
                )
        reference = Reference(answers[row] if answers else None, rows.text_pair[row] if rows.text_pair else "")
        problems.append(Problem(row, rows.text[row], prompts, reference))
    return problems


def answer_of(problem: Problem, text: str) -> str:
    """Return the answer that a solution gives: a number where there is one, else what follows the last marker."""
    return answer_in(text) or tail(text).strip()[:200]


def is_right(problem: Problem, text: str, task: WritingTask) -> bool | None:
    """Say whether a solution gives the right answer; None where the data does not know it."""
    right = problem.right_answer
    return None if right is None else task.is_right(right, text)
