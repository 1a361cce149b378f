"""One problem that somebody types in, solved step by step by the roles of a decode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynlora.errors import ConfigError
from dynlora.inference.writing import Prompt
from dynlora.kinds.decode.settings import OWN, DecodeSettings
from dynlora.kinds.decode.work.results import plain
from dynlora.kinds.decode.work.rewards import Problem, Reference, answer_of
from dynlora.kinds.decode.work.run import BLANK_LINE, LINE, cast_of
from dynlora.kinds.decode.work.solve import TARGET, Attempt, Cast, Limits, Point
from dynlora.store.meta import section, text
from dynlora.store.reader import RunReader
from dynlora.tasks import WritingTask

MOST_CHARACTERS = 4000
"""Of a question."""

MOST_THRESHOLD = 1.0


@dataclass(frozen=True)
class Live:
    """The roles of a decode, ready for a problem.

    Attributes:
        cast: draft, target and reward.
        limits: of a solution.
        seed: of what is drawn.
        ending: what ends a question of the data that they learned from.
    """

    cast: Cast
    limits: Limits
    seed: int
    ending: str

    def solved(self, question: str, threshold: float) -> Iterator[dict[str, Any]]:
        """Return what yields one message per step, and one at the end.

        A step has `by`, `text`, `tokens`, `reward`, `accepted` and `discarded` (a text or null). The end has `ended`,
        `answer`, `tokens` by role, `flops` and `target_flops`, what the target alone would take for as many tokens.

        Args:
            question: the problem.
            threshold: reward at which a step is accepted.

        Raises:
            ConfigError: when the question is empty or too long, or the threshold is none.
        """
        if not 0 <= threshold <= MOST_THRESHOLD:
            raise ConfigError(f"threshold={threshold}: must be from 0 to {MOST_THRESHOLD:g}")
        if not question.strip():
            raise ConfigError("question: is empty; type a problem")
        if len(question) > MOST_CHARACTERS:
            raise ConfigError(f"question: has {len(question):,} characters; give at most {MOST_CHARACTERS:,}")
        return self._messages(self._problem(question), Point("threshold", threshold))

    def _problem(self, question: str) -> Problem:
        """Return a question as a problem whose answer nobody knows."""
        words = question.strip() + self.ending
        prompts = {role.name: _prompt(role.model.task, words).ids(role.model) for role in self.cast.roles}
        return Problem(0, question, prompts, Reference(None, ""))

    def _messages(self, problem: Problem, point: Point) -> Iterator[dict[str, Any]]:
        attempt = Attempt(self.cast, problem, self.limits)
        for step in attempt.steps(point, self.seed):
            yield {
                "by": step.by,
                "text": step.text,
                "tokens": len(step.ids),
                "reward": plain(step.reward),
                "accepted": step.accepted,
                "discarded": step.discarded and step.discarded["text"],
            }
        result = attempt.finished()
        written = sum(len(step.ids) for step in result.steps)
        yield {
            "ended": result.ended,
            "answer": answer_of(problem, result.text),
            "tokens": result.tokens,
            "flops": result.flops,
            "target_flops": self.cast.target.size.written(len(problem.prompts[TARGET]), written),
        }


def _prompt(task: Any, question: str) -> Prompt:
    """Return a question in the form that a run learned from."""
    if isinstance(task, WritingTask) and task.settings().get("reads") == "messages":
        return Prompt(turns=[{"role": "user", "content": question}])
    return Prompt(text=question)


def load_live(folder: Path) -> Live:
    """Load the roles of a decode.

    Raises:
        DynloraError: one sentence that says which run cannot play its role.
    """
    settings = DecodeSettings.of_run(folder)
    if settings.reward == OWN:
        raise ConfigError(f"decode {folder.name}: its reward is a Python function, which a page cannot call")
    draft, target = settings.writers(folder.parent)
    judge = settings.judge(folder.parent)
    with RunReader(folder) as reader:
        known = text(section(reader.meta(("decode",)), "decode").get("step_string"))
    step_string = settings.step_string or known or BLANK_LINE
    cast = cast_of(draft.folder, target.folder, judge.folder if judge is not None else settings.reward, step_string)
    limits = Limits(settings.new_tokens, settings.step_tokens, settings.max_steps)
    return Live(cast, limits, settings.seed, LINE if step_string == LINE else "")
