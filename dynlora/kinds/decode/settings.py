"""Settings of a decode: a draft writes steps, a reward judges them, a target rewrites those that score too low."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator

from dynlora.blocks import Blocks, parse_blocks
from dynlora.config import GENERATIVE, Name, Section
from dynlora.errors import RunRoleError
from dynlora.kinds.named_runs import NamedRun, RunField, named_run
from dynlora.kinds.settings import FormField, KindSettings
from dynlora.store.meta import section, text

Reward = Literal["oracle", "target-likelihood", "target-token"]
OWN = "callable"
"""A function of a person's own, which `dynlora.speculate` is given."""

REWARDS: tuple[str, ...] = (*get_args(Reward), OWN)
"""Rewards that need no run of their own."""

Accept = Literal["threshold", "constant", "clip", "sigmoid"]


REWARD_WORDS = {
    "target-likelihood": "Target's likelihood of the step",
    "target-token": "Target's answer to: is this step right?",
    "oracle": "Oracle: checks the arithmetic (upper bound)",
}
"""Rewards that need no run, as a person reads them."""

GRIDS = {
    "0.3, 0.5, 0.7, 0.9": (0.3, 0.5, 0.7, 0.9),
    "0.7": (0.7,),
    "0.0 to 1.0 by 0.1": tuple(n / 10 for n in range(11)),
}
CONTROLS = {"0.25, 0.5, 0.75": (0.25, 0.5, 0.75), "0.5": (0.5,), "None": ()}
LIMITS = {"20": 20, "50": 50, "100": 100, "200": 200, "480": 480, "All": None}


def check_writer(run: NamedRun) -> None:
    """Refuse a run that cannot write.

    Raises:
        RunRoleError: one sentence that says why.
    """
    if run.task not in GENERATIVE:
        raise RunRoleError(
            f"{run.role} {run.id}: learned {run.task or 'an unknown task'} and cannot write; give a run of a "
            "language model (data.task=causal_lm)"
        )


def check_judge(run: NamedRun) -> None:
    """Refuse a run that cannot judge steps.

    Raises:
        RunRoleError: one sentence that says why.
    """
    if not run.classifies:
        raise RunRoleError(
            f"reward {run.id}: learned {run.task or 'an unknown task'}; give a run that classifies steps as "
            f"right or wrong, or one of {', '.join(get_args(Reward))}"
        )


class DecodeSettings(KindSettings):
    """Which runs write together, on which problems, and at which thresholds."""

    kind: ClassVar[str] = "decode"
    method: ClassVar[str] = "rsd"
    fidelity: ClassVar[str] = "code"
    continues_from_events: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "limit": 2,
        "new_tokens": 12,
        "step_tokens": 4,
        "step_string": " ",
        "nested_ranks": True,
    }

    draft: Annotated[Name, RunField("draft", check_writer), FormField("Draft (writes each step)")] = Field(
        ..., description="Run that writes each step first: its id, or its folder."
    )
    target: Annotated[Name, RunField("target", check_writer), FormField("Target (rewrites rejected steps)")] = Field(
        ..., description="Run that rewrites the steps that score too low: its id, or its folder."
    )
    reward: Annotated[
        Name, RunField("reward", check_judge, others=REWARD_WORDS), FormField("Reward (judges each step)")
    ] = Field(
        "target-likelihood",
        description="Run that judges steps (its id or folder), or oracle, target-likelihood or target-token.",
    )
    data: Name | None = Field(None, description="Built-in data or a file of problems; empty: the data of the target.")
    accept: Accept = Field(
        "threshold",
        description="How a reward becomes a decision; constant keeps a step with probability of its threshold.",
    )
    values: Annotated[tuple[float, ...], FormField("Thresholds", GRIDS, "threshold")] = Field(
        (0.7,),
        min_length=1,
        max_length=101,
        description="Rewards at which a step is accepted, one decode each; with accept=constant probabilities.",
    )
    control: Annotated[tuple[float, ...], FormField("Control: accept at random", CONTROLS)] = Field(
        (), max_length=101, description="Probabilities of a control that accepts whatever the reward, one decode each."
    )
    ends: Annotated[bool, FormField(is_offered=False)] = Field(
        True, description="Also decode with the draft alone and with the target alone."
    )
    limit: Annotated[int | None, FormField("Problems", LIMITS)] = Field(
        None, ge=1, le=1_000_000, description="Problems at most; empty: all held-out ones."
    )
    step_string: Annotated[str | None, FormField(is_offered=False)] = Field(
        None,
        min_length=1,
        max_length=20,
        description="Text that ends a step; empty: a line break for arithmetic, a blank line elsewhere.",
    )
    step_tokens: int = Field(64, ge=1, le=4096, description="Tokens of one step at most.")
    new_tokens: Annotated[int, FormField(option="max-tokens")] = Field(
        256, ge=1, le=32_768, description="Tokens of one text at most."
    )
    nested_ranks: bool = Field(
        False, description="Also measure how often the target's adapter, cut to a lower rank, chooses the same tokens."
    )
    max_steps: int = Field(32, ge=1, le=1000, description="Steps of one text at most.")

    @field_validator("values", "control")
    @classmethod
    def _no_nan(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(math.isnan(value) for value in values):
            raise ValueError("threshold nan: is not a number; give numbers such as 0.7")
        return values

    @property
    def points(self) -> int:
        """How many decodes of every problem there are."""
        return len(self.values) + len(self.control) + (2 if self.ends else 0)

    def writers(self, runs_dir: Path) -> tuple[NamedRun, NamedRun]:
        """Return draft and target.

        Raises:
            DynloraError: when one of them cannot write texts.
        """
        runs = (named_run("draft", self.draft, runs_dir), named_run("target", self.target, runs_dir))
        for run in runs:
            check_writer(run)
        return runs

    def judge(self, runs_dir: Path) -> NamedRun | None:
        """Return the run that judges steps; None where the reward needs none.

        Raises:
            DynloraError: when the run does not classify.
        """
        if self.reward in REWARDS:
            return None
        judge = named_run("reward", self.reward, runs_dir)
        check_judge(judge)
        return judge

    def check(self, runs_dir: Path) -> None:
        """Refuse runs that are not there or cannot take their role, see `KindSettings.check`."""
        self.writers(runs_dir)
        self.judge(runs_dir)

    def model_and_data(self, runs_dir: Path) -> tuple[str, str]:
        """Return the target's model, and the problems."""
        target = named_run("target", self.target, runs_dir)
        return text(section(target.config, "model").get("name")) or "", self.data or text(target.meta.get("data")) or ""

    def steps(self, runs_dir: Path) -> int:
        """Return the number of solutions; 1 for each point where the number of problems is not known yet."""
        return self.points * (self.limit or 1)

    def takes(self) -> str:
        """Return how many decodes there are."""
        problems = "all problems" if self.limit is None else f"{self.limit} problems"
        return f"{self.points} decodes of {problems}, the draft alone and the target alone among them."

    def title(self) -> str:
        """Return the display name, or a description when none was given."""
        judged = self.reward if self.reward in REWARDS else "a judge"
        return self.name or f"Decode with {judged}, seed {self.seed}"


Steps = Annotated[int, Field(ge=1, le=10_000_000)]
"""Optimizer steps of a training."""


class Preparation(Section):
    """The three runs that a decode needs: which are trained, and on what."""

    model: Name = Field("smollm2-135m", description="Model of target and draft.")
    data: Name = Field("arithmetic", description="Data with worked solutions and answers.")
    layers: Annotated[Blocks, BeforeValidator(parse_blocks)] = Field(
        12,
        description="Blocks of the draft: a number, so many of the most influential, or numbers of blocks, as 0-14.",
    )
    steps: Steps = Field(160, description="Training steps of the target.")
    draft_steps: Steps = Field(1000, description="Of the draft.")
    judge_model: Name = Field("minilm", description="Model of the judge.")
    judge_steps: Steps = Field(600, description="Of the judge.")
    problems: int = Field(1500, ge=10, le=1_000_000, description="Solved for the judge.")
    temperature: float = Field(0.7, ge=0, le=2, description="Of these solutions; 0 shows the judge few mistakes.")
    step_string: str = Field("\n", description=r"Text that ends a step.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of all runs.")
    draft: Name | None = Field(None, description="A draft that is trained already.")
    target: Name | None = Field(None, description="A target that is trained already.")
