"""One problem solved: the draft writes a step, the reward judges it, the target rewrites it where that is too low."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError
from dynlora.kinds.decode.work.rewards import Candidate, Judged, Problem, Reward, answer_of, checked, is_right
from dynlora.kinds.decode.work.writer import Piece, Role, Writer
from dynlora.tasks import WritingTask

SLOPE = 10.0
"""How steep the probability of `sigmoid` is: from 0.27 to 0.73 within 0.2 of reward."""


def _threshold(reward: float, value: float) -> float:
    """Return 1 where the reward is at least the threshold."""
    return float(reward >= value)


def _constant(reward: float, value: float) -> float:
    """Return p, whatever the reward."""
    return value


def _clip(reward: float, value: float) -> float:
    """Return min(1, max(0, reward / value)): certain from the threshold on, in proportion below."""
    if value <= 0 or math.isinf(value):
        return float(reward >= value)
    return min(1.0, max(0.0, reward / value))


def _sigmoid(reward: float, value: float) -> float:
    """Return σ(10 · (reward - value)): one half at the threshold."""
    if math.isinf(value):
        return float(value < 0)
    exponent = SLOPE * (reward - value)
    return 1 / (1 + math.exp(-exponent)) if exponent > -500 else 0.0


PROBABILITIES: Mapping[str, Callable[[float, float], float]] = {
    "threshold": _threshold,
    "constant": _constant,
    "clip": _clip,
    "sigmoid": _sigmoid,
}
"""Every rule: probability that a step is kept, of its reward and the rule's value."""


@dataclass(frozen=True)
class Acceptance:
    """A rule with its value.

    Attributes:
        kind: one of `PROBABILITIES`.
        value: the threshold, or p of `constant`.
        seed: of what is drawn.
    """

    kind: str
    value: float
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a rule that there is not, and a value that it cannot have.

        Raises:
            ConfigError: one sentence.
        """
        if self.kind not in PROBABILITIES:
            raise ConfigError(f"--accept {self.kind}: must be one of {', '.join(PROBABILITIES)}")
        if math.isnan(self.value):
            raise ConfigError("--threshold nan: is not a number to compare with; give one such as 0.7, or inf")
        if self.kind == "constant" and not 0 <= self.value <= 1:
            raise ConfigError(f"--threshold {self.value:g}: is a probability with --accept constant; give 0 to 1")

    @property
    def needs_reward(self) -> bool:
        """Whether the rule looks at the reward."""
        return self.kind != "constant"

    def keeps(self, reward: float, problem: int, step: int) -> bool:
        """Say whether a step is kept.

        What is drawn depends on seed, problem and position alone, so that a higher threshold never keeps a step that a
        lower one gives up.
        """
        probability = PROBABILITIES[self.kind](reward, self.value)
        return probability >= 1 or stream_seed(self.seed, "accept", problem, step) / 2**63 < probability


DRAFT, TARGET = "draft", "target"


@dataclass(frozen=True)
class Limits:
    """How long a solution may become; they hold for each by itself.

    Attributes:
        tokens: of a solution.
        step_tokens: of a step that does not end before.
        steps: of a solution.
    """

    tokens: int = 256
    step_tokens: int = 128
    steps: int = 64

    def __post_init__(self) -> None:
        """Refuse limits that leave nothing to write.

        Raises:
            ConfigError: naming the first.
        """
        for name, value in asdict(self).items():
            if value < 1:
                raise ConfigError(f"--max-{name.replace('_', '-')} {value}: must be at least 1")


@dataclass(frozen=True)
class Point:
    """A way of decoding: a rule with its value, or one of the roles alone.

    Attributes:
        accept: the rule; draft or target for a role alone.
        value: of the rule; None for a role alone.
    """

    accept: str
    value: float | None = None

    @property
    def key(self) -> str:
        """Name in records."""
        return self.accept if self.value is None else f"{self.accept}={self.value:g}"


@dataclass
class Step:
    """One step of a solution.

    Attributes:
        by: who wrote what is kept.
        text, ids: what is kept.
        reward: of the draft's step; None where it was not judged.
        accepted: whether the draft's step was kept; None where a role is alone.
        discarded: text and ids of the draft's step, where it was not kept.
    """

    by: str
    text: str
    ids: list[int]
    reward: float | None = None
    accepted: bool | None = None
    discarded: dict[str, Any] | None = None


@dataclass
class Solution:
    """A problem solved at a point, with what it took.

    Attributes:
        text: of all steps.
        ended: end (an end token), tokens or steps (a limit).
        steps: in order.
        tokens: decoded: draft_kept, draft_discarded, target.
        prefilled: tokens read by draft, target and reward.
        flops: of the decoded tokens.
        flops_with_prefill: of the tokens read too.
        seconds: in the models and the reward.
    """

    text: str = ""
    ended: str = "steps"
    steps: list[Step] = field(default_factory=list[Step])
    tokens: dict[str, int] = field(default_factory=dict[str, int])
    prefilled: dict[str, int] = field(default_factory=dict[str, int])
    flops: int = 0
    flops_with_prefill: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Cast:
    """Who plays the roles.

    Attributes:
        draft, target: write.
        reward: judges the draft's steps; None where no point needs one.
        same_tokens: both have the same tokenizer, so that tokens are handed over; else the text is.
    """

    draft: Role
    target: Role
    reward: Reward | None
    same_tokens: bool

    @property
    def roles(self) -> tuple[Role, Role]:
        """Those that write."""
        return (self.draft, self.target)


def payload(problem: Problem, point: Point, solution: Solution, task: WritingTask) -> dict[str, Any]:
    """Return a solved problem as the store keeps it."""
    record = asdict(solution)
    return {
        "point": point.key,
        "problem": problem.index,
        "question": problem.question,
        "reference": problem.right_answer,
        "answer": answer_of(problem, solution.text),
        "right": is_right(problem, solution.text, task),
        **record,
    }


def solve(cast: Cast, problem: Problem, point: Point, limits: Limits, seed: int = 0) -> Solution:
    """Solve a problem.

    Raises:
        ConfigError: when the reward is no finite number.
    """
    attempt = Attempt(cast, problem, limits)
    for _ in attempt.steps(point, seed):
        pass
    return attempt.finished()


class Attempt:
    """A solution in the making: both roles at work on one text."""

    def __init__(self, cast: Cast, problem: Problem, limits: Limits) -> None:
        self.cast, self.problem, self.limits = cast, problem, limits
        self.writers = {role.name: Writer(role, list(problem.prompts[role.name])) for role in cast.roles}
        self.solution = Solution(prefilled={DRAFT: 0, TARGET: 0, "reward": 0})
        self.tokens, self.ended = 0, False

    def steps(self, point: Point, seed: int = 0) -> Iterator[Step]:
        """Write the solution and yield each step that is kept.

        Raises:
            ConfigError: when the reward is no finite number.
        """
        if point.value is None:
            return self._alone(point.accept)
        return self._together(Acceptance(point.accept, point.value, seed))

    def _alone(self, name: str) -> Iterator[Step]:
        """Let one role write all steps."""
        writer = self.writers[name]
        while (most := self._room([writer])) is not None:
            piece = writer.write(most)
            yield self._keep(Step(name, piece.text, piece.ids), piece)

    def _together(self, rule: Acceptance) -> Iterator[Step]:
        """Let the draft write each step, and the target those that the rule gives up."""
        draft, target = self.writers[DRAFT], self.writers[TARGET]
        while (most := self._room([draft, target])) is not None:
            piece, before = draft.write(most), self.solution.text
            handed = self._for(target, piece)
            target.take(handed)
            reward = self._reward(rule, before, piece, len(handed))
            accepted = rule.keeps(reward if reward is not None else 0.0, self.problem.index, len(self.solution.steps))
            if accepted:
                yield self._keep(Step(DRAFT, piece.text, piece.ids, reward, accepted=True), piece)
                continue
            draft.take_back(len(piece.ids))
            target.take_back(len(handed))
            discarded = {"text": piece.text, "ids": piece.ids}
            piece = target.write(most)
            draft.take(self._for(draft, piece))
            yield self._keep(Step(TARGET, piece.text, piece.ids, reward, accepted=False, discarded=discarded), piece)

    def finished(self) -> Solution:
        """Return the solution with what it took."""
        solution = self.solution
        works = {name: writer.work for name, writer in self.writers.items()}
        solution.prefilled |= {name: work.prefilled for name, work in works.items()}
        solution.flops = sum(work.decode_flops for work in works.values())
        solution.seconds += sum(writer.seconds for writer in self.writers.values())
        solution.flops_with_prefill += solution.flops + sum(work.prefill_flops for work in works.values())
        accepted = sum(len(step.ids) for step in solution.steps if step.by == DRAFT)
        discarded = sum(len(step.discarded["ids"]) for step in solution.steps if step.discarded)
        solution.tokens = {"draft_kept": accepted, "draft_discarded": discarded, "target": works[TARGET].decoded}
        return solution

    def _room(self, writers: list[Writer]) -> int | None:
        """Return how many tokens the next step may have; None where the solution is at its end or at a limit."""
        if self.ended:
            self.solution.ended = "end"
            return None
        left = min(self.limits.tokens - self.tokens, *(writer.room for writer in writers))
        if left <= 0:
            self.solution.ended = "tokens"
            return None
        return min(left, self.limits.step_tokens) if len(self.solution.steps) < self.limits.steps else None

    def _keep(self, step: Step, piece: Piece) -> Step:
        self.solution.steps.append(step)
        self.solution.text += step.text
        self.tokens += len(step.ids)
        self.ended = piece.end == "end"
        return step

    def _for(self, writer: Writer, piece: Piece) -> list[int]:
        """Return a piece as tokens of another role."""
        if self.cast.same_tokens:
            return piece.ids
        ids = writer.role.model.base.tokenizer(piece.text, add_special_tokens=False)["input_ids"]
        return [*ids, *sorted(writer.role.ends)[:1]] if piece.end == "end" else list(ids)

    def _reward(self, rule: Acceptance, before: str, piece: Piece, count: int) -> float | None:
        reward, place = self.cast.reward, len(self.solution.steps)
        if reward is None or not rule.needs_reward:
            return None
        target = self.writers[TARGET]
        started, inside = time.perf_counter(), target.seconds
        judgement = reward.judge(Candidate(self.problem, before, piece.text, count, target))
        self.solution.seconds += max(0.0, time.perf_counter() - started) if target.seconds == inside else 0.0
        judged: Judged = checked(judgement, reward, self.problem.index, place)
        self.solution.prefilled["reward"] += judged.read
        self.solution.flops_with_prefill += judged.flops
        return judged.value
