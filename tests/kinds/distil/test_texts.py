"""Texts of teachers: from the start token, the same for one seed, counted; and the student that learns from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from dynlora.engine.evaluation.generate import Written
from dynlora.engine.recorder import Recorder
from dynlora.kinds.distil.work.materials import (
    Materials,
    StudentTraining,
    Texts,
    common_task,
    divergence,
    start_of,
    written_texts,
)
from dynlora.kinds.distil.work.run import Distilling, DistilMetrics
from dynlora.tasks.causal_lm import CausalLM
from tests.kinds.distil.conftest import settings_of
from tests.tiny_lm import byte_tokenizer


@pytest.fixture(scope="module")
def materials(writers: Path, writer_ids: list[str]) -> Materials:
    return Materials.load(settings_of(writer_ids), writers)


def texts_of(materials: Materials, teacher: int, count: int = 12, seed: int = 1) -> Texts:
    texts = Texts(materials.start.ids, 0)
    texts.add(written_texts(materials.models[teacher], materials.start, count, 10, seed))
    return texts


def test_a_text_begins_with_what_the_tokenizer_has_for_it() -> None:
    plain = byte_tokenizer()
    assert start_of(byte_tokenizer(begins=True)).ids == (2,)
    assert "before every text" in start_of(byte_tokenizer(begins=True)).what
    assert (start_of(plain).ids, start_of(plain).what) == ((2,), "its token for the beginning of a text")
    plain.bos_token = None
    assert start_of(plain).ids == (plain.eos_token_id,)
    assert "no token for the beginning" in start_of(plain).what


def test_texts_are_the_same_for_one_seed_and_others_for_another(materials: Materials) -> None:
    one, again, other = (texts_of(materials, 0, seed=seed) for seed in (1, 1, 2))
    assert (one.rows, one.digest()) == (again.rows, again.digest())
    assert one.digest() != other.digest()
    assert len({tuple(row) for row in one.rows}) > 6, "the texts of a batch are drawn apart"
    assert all(len(row) <= 10 for row in one.rows)


def test_more_texts_than_a_batch_holds_are_drawn_apart(materials: Materials) -> None:
    rows = texts_of(materials, 0, count=40).rows
    assert rows[:16] != rows[16:32]


def test_texts_are_drawn_from_the_teacher_at_temperature_one(materials: Materials) -> None:
    model, start = materials.models[0], materials.start
    with torch.no_grad():
        ids = torch.tensor([list(start.ids)])
        probability = torch.softmax(model.base.model(input_ids=ids).logits[0, -1], -1).numpy()
    drawn = [one.ids[0] if one.ids else 0 for one in written_texts(model, start, 800, 1, 3)]
    likely = int(probability.argmax())
    share, expected = drawn.count(likely) / 800, float(probability[likely])
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 800)


def test_empty_and_repeated_texts_are_counted_and_kept() -> None:
    texts = Texts((2,), 0)
    texts.add(
        [Written([5, 6], ended=True), Written([], ended=True), Written([5, 6], ended=True), Written([5, 6], False)]
    )
    description = texts.described()
    assert (
        description["texts"],
        description["empty"],
        description["repeated"],
        description["ended"],
        description["tokens"],
    ) == (4, 1, 1, 3, 9)
    batch, labels = texts.batch([0, 1], 1, torch.device("cpu"))
    assert batch["input_ids"].tolist() == [[2, 5, 6, 0], [2, 0, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert labels.tolist() == [[-100, 5, 6, 0], [-100, 0, -100, -100]]
    again = Texts((2,), 0)
    again.load(texts.state())
    assert (again.rows, again.ended, again.digest()) == (texts.rows, texts.ended, texts.digest())


def test_teachers_whose_texts_are_empty_or_repeated_are_named(materials: Materials) -> None:
    distilling = Distilling(materials, cast(Recorder, None))
    distilling.texts["samples"][1].add([Written([], ended=True), Written([5], ended=True), Written([5], ended=True)])
    distilling.texts["held_out"][0].add([Written([5], ended=True)])
    notes = DistilMetrics(distilling).document("one")["notes"]
    assert notes == ["texts of teacher teacher 1: 3, of these empty: 1, repeated: 1"]


def test_the_student_at_the_start_is_the_base_and_shares_its_memory(materials: Materials) -> None:
    texts = texts_of(materials, 1)
    with torch.no_grad():
        student, _ = divergence(materials.models[1], materials.student, texts, range(12))
        with materials.student.adapters.disabled():
            base, counts = divergence(materials.models[1], materials.student, texts, range(12))
        itself, _ = divergence(materials.models[1], materials.models[1], texts, range(12))
    assert torch.equal(student, base)
    assert counts.tolist() == [len(row) for row in texts.rows]
    assert base.min() > 0
    assert itself.abs().max() < 1e-5
    tables: list[Any] = [one.base.model.get_input_embeddings() for one in (materials.student, *materials.models)]
    assert len({table.weight.data_ptr() for table in tables}) == 1


def test_a_student_of_different_data_writes_plain_texts(materials: Materials) -> None:
    one, other, _ = materials.models
    assert common_task([one.task, other.task]) == one.task
    chat = replace(other, task=replace(cast(CausalLM, other.task), reads="messages"))
    assert common_task([chat.task]).settings()["reads"] == "messages"
    assert common_task([chat.task, one.task]).settings()["reads"] == "text"


def test_every_text_is_seen_once_before_any_is_seen_again(materials: Materials) -> None:
    texts = [texts_of(materials, teacher, count=5) for teacher in range(3)]
    training = StudentTraining(materials.student, materials.models, texts, steps=4, lr=1e-3, batch_size=6, seed=0)
    seen = [one for step in range(5) for one in training.drawn(step)]
    assert sorted(seen[:15]) == sorted(seen[15:]) == sorted(training.pool)
    assert seen[:15] != seen[15:]


def test_a_loss_is_the_mean_over_tokens_of_each_teachers_own_texts(materials: Materials) -> None:
    texts = [texts_of(materials, teacher, count=3) for teacher in range(3)]
    training = StudentTraining(materials.student, materials.models, texts, steps=4, lr=1e-3, batch_size=9, seed=0)
    with torch.no_grad():
        loss = training.batch_loss(0)
        parts = [
            divergence(model, materials.student, own, range(3))
            for model, own in zip(materials.models, texts, strict=True)
        ]
    assert float(loss) == pytest.approx(
        float(sum(s.sum() for s, _ in parts) / sum(c.sum() for _, c in parts)), rel=1e-5
    )
    materials.forget_learning()


def test_a_planted_teacher_is_distilled(writers: Path, writer_ids: list[str]) -> None:
    planted = Materials.load(settings_of(writer_ids[:1]), writers)
    teacher, student = planted.models[0], planted.student
    for module in teacher.adapters:
        module.lora_B.mul_(3)  # a strong update, of a rank below the student's
    texts, fresh = (texts_of(planted, 0, count, seed) for count, seed in ((64, 1), (32, 2)))
    with torch.no_grad():
        before, counts = divergence(teacher, student, fresh, range(32))
    training = StudentTraining(student, planted.models, [texts], steps=120, lr=1e-2, batch_size=16, seed=0)
    while not training.is_done:
        training.advance()
    with torch.no_grad():
        after, _ = divergence(teacher, student, fresh, range(32))
    assert float(before.sum() / counts.sum()) > 0.2
    assert float(after.sum()) < 0.4 * float(before.sum()), (float(before.sum()), float(after.sum()))
