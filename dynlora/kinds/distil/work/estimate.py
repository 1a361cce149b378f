"""How long a distillation will take on this machine, from a few of its steps that are thrown away."""

from __future__ import annotations

from typing import Any

from dynlora.engine.evaluation.generate import Written
from dynlora.kinds.distil.settings import TEXTS_AT_ONCE
from dynlora.kinds.distil.work.materials import Materials
from dynlora.kinds.distil.work.student import StudentTraining
from dynlora.kinds.distil.work.texts import Texts, written_texts
from dynlora.training.stepwise import PROBES, fastest_s

PROBE_TOKENS = 8
"""Tokens of the texts that are written to see how long one takes."""


def estimated(materials: Materials) -> dict[str, Any]:
    """Return minutes (of all, and by stage), texts and teachers of a distillation; nothing is kept.

    Texts are counted as long as they may become. The test at the end is left out.
    """
    of, teachers = materials.settings, len(materials.teachers)
    count = min(TEXTS_AT_ONCE, of.samples)
    short = min(PROBE_TOKENS, of.tokens)
    write_s = fastest_s(lambda: written_texts(materials.models[0], materials.start, count, short, 0)) / short
    batches = teachers * (of.batches(of.samples) + of.batches(of.held_out))
    writing_s = batches * write_s * of.tokens
    learning_s = of.train_steps * fastest_s(_probe(materials).advance)
    materials.forget_learning()
    return {
        "minutes": round((writing_s + learning_s) / 60, 2),
        "writing_minutes": round(writing_s / 60, 2),
        "learning_minutes": round(learning_s / 60, 2),
        "texts": teachers * (of.samples + of.held_out),
        "teachers": teachers,
    }


def _probe(materials: Materials) -> StudentTraining:
    """Return a student that learns from texts of the full length that nobody wrote."""
    of = materials.settings
    texts = []
    for _ in materials.teachers:
        one = Texts(materials.start.ids, materials.start.ids[0])
        one.add([Written([materials.start.ids[0]] * of.tokens, ended=False)] * min(of.batch_size, of.samples))
        texts.append(one)
    steps = 1 + PROBES
    return StudentTraining(
        materials.student, materials.models, texts, steps=steps, lr=of.lr, batch_size=of.batch_size, seed=of.seed
    )
