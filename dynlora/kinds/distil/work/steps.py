"""A distillation under way: each teacher writes, for the student and for the test, then the student learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dynlora.engine.loop.adapter_state import adapter_state, load_adapter_state
from dynlora.engine.randomness import stream_seed
from dynlora.engine.recorder import Recorder
from dynlora.kinds.distil.settings import TEXTS_AT_ONCE
from dynlora.kinds.distil.work.materials import Materials, StudentTraining, Texts, written_texts
from dynlora.kinds.sources import copied_state
from dynlora.tasks.token_rows import end_token
from dynlora.training.stepwise import Stepwise

WRITTEN = ("samples", "held_out")
"""Stages in which teachers write: for the student, and for the test alone."""

SHOWN_TEXTS = 3
"""Texts of a step that are recorded."""

SHOWN_CHARACTERS = 400


@dataclass
class Distilling(Stepwise):
    """Everything a distillation has done so far.

    Attributes:
        materials: what it works with.
        recorder: takes what is recorded.
        step: steps done, of all stages together.
        texts: of each stage and teacher.
        training: the student under way.
        learned: the trained student, once it is done.
    """

    materials: Materials
    recorder: Recorder
    step: int = 0
    texts: dict[str, list[Texts]] = field(init=False)
    training: StudentTraining | None = None
    learned: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Begin before the first step."""
        end = end_token(self.materials.student.base.tokenizer)
        self.texts = {name: [Texts(self.materials.start.ids, end) for _ in self.materials.teachers] for name in WRITTEN}

    # --- the plan

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The stages with their first and last step; the step before `first` is done when a stage begins."""
        return self.materials.settings.stages(len(self.materials.teachers))

    def define(self) -> None:
        """Announce what will be recorded."""
        self.recorder.define_groups([teacher.name for teacher in self.materials.teachers])

    # --- the work

    def advance(self) -> None:
        """Take one step and record it.

        Raises:
            TrainingDiverged: when training diverges.
        """
        stage = self.stage()
        if stage in WRITTEN:
            self._write(stage)
        else:
            self._learn()
        self.recorder.progress(self.step)

    def _write(self, stage: str) -> None:
        """Let the next teacher write a batch of texts, and record a few of them."""
        of = self.materials.settings
        target = of.samples if stage == "samples" else of.held_out
        index = next(index for index, texts in enumerate(self.texts[stage]) if len(texts) < target)
        texts = self.texts[stage][index]
        count = min(TEXTS_AT_ONCE, target - len(texts))
        seed = stream_seed(of.seed, stage, index, len(texts)) % 2**62
        first = len(texts)
        texts.add(written_texts(self.materials.models[index], self.materials.start, count, of.tokens, seed))
        self.step += 1
        lengths = [len(row) for row in texts.rows[first:]]
        self.recorder.scalar("text_tokens", stage, self.step, sum(lengths) / len(lengths))
        self.recorder.event(
            self.step,
            "texts",
            [],
            {
                "teacher": index,
                "stage": stage,
                "count": count,
                "of": len(texts),
                "wanted": target,
                "texts": [self._shown(texts, row) for row in range(first, min(len(texts), first + SHOWN_TEXTS))],
            },
        )

    def _shown(self, texts: Texts, row: int) -> dict[str, Any]:
        """Return a text for reading."""
        tokenizer: Any = self.materials.student.base.tokenizer
        words = str(tokenizer.decode(texts.rows[row], skip_special_tokens=True))
        return {
            "text": words[:SHOWN_CHARACTERS],
            "is_cut": len(words) > SHOWN_CHARACTERS,
            "tokens": len(texts.rows[row]),
            "ended": texts.ended[row],
        }

    def _learn(self) -> None:
        """Learn from one batch."""
        if self.training is None:
            self.materials.forget_learning()
            self.training = self.new_training()
        loss = self.training.advance()
        self.step += 1
        self.recorder.scalar("kl", "student", self.step, loss)
        if self.training.is_done:
            self.learned = copied_state(adapter_state(self.materials.student.adapters))
            self.training = None

    def new_training(self) -> StudentTraining:
        """Return the student at its start."""
        of = self.materials.settings
        return StudentTraining(
            self.materials.student,
            self.materials.models,
            self.texts["samples"],
            steps=of.train_steps,
            lr=of.lr,
            batch_size=of.batch_size,
            seed=of.seed,
        )

    def use_learned(self) -> None:
        """Put the trained student into the model."""
        if self.learned is not None:
            load_adapter_state(self.materials.student.adapters, self.learned)

    def described_texts(self) -> list[dict[str, Any]]:
        """Return what is recorded of each teacher's texts, by stage."""
        return [
            {"teacher": teacher.run, "name": teacher.name, "stage": stage, **texts.described()}
            for stage in WRITTEN
            for teacher, texts in zip(self.materials.teachers, self.texts[stage], strict=True)
        ]

    # --- what survives a stop or a crash

    def state_dict(self) -> dict[str, Any]:
        """Return everything a bit-equal continuation needs."""
        return {
            "step": self.step,
            "texts": {stage: [one.state() for one in texts] for stage, texts in self.texts.items()},
            "training": None if self.training is None else self.training.state_dict(),
            "learned": self.learned,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.step, self.learned = state["step"], state["learned"]
        for stage, entries in state["texts"].items():
            for texts, one in zip(self.texts[stage], entries, strict=True):
                texts.load(one)
        if state["training"] is not None:
            self.training = self.new_training()
            self.training.load_state_dict(state["training"])
