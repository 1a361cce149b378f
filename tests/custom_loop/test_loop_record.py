"""A loop of one's own, recorded: the run says what the strategy did, and training is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dynlora
from dynlora.errors import ConfigError
from dynlora.store import queries
from tests.custom_loop.test_attached import STEPS, attached_to, batch, classifier, logits, trained
from tests.custom_loop.test_trainer_callback import trainer_of
from tests.pages.app import RUN_PAGES, charts, open_page, words
from tests.pages.conftest import _dashboard

__all__ = ["_dashboard"]  # a fixture: pages see the runs folder of the test


def test_steps_are_recorded_and_change_nothing(tiny_bert: Path, runs_dir: Path) -> None:
    plain = attached_to(classifier(tiny_bert))
    trained(plain, 0, STEPS)
    attached = attached_to(classifier(tiny_bert))
    record = attached.record("mine", runs_dir, every=4)
    attached.model.train()
    ranks = []
    for step in range(STEPS):
        torch.manual_seed(step)
        loss = attached.model(**batch(step)).loss
        loss.backward()
        attached.step(loss)
        ranks.append(attached.adapters.ranks)
        if step == 5:
            record.metrics(6, {"loss": 0.5, "accuracy": 0.75})
    assert torch.equal(logits(attached.model), logits(plain.model))

    run = dynlora.open_run(record.folder)
    assert run.status == "finished"
    assert run.signal("rank").query("step > 0").drop(columns="step").astype(int).to_numpy().tolist() == ranks
    assert list(run.scalars("loss", "train")["step"]) == list(range(1, STEPS + 1))
    assert list(run.scalars("accuracy", "validation")["value"]) == [0.75]
    assert (run.signal("scale")["step"] > 0).any()
    assert (run.events()["kind"] == "reallocate").any()
    summary = queries.run_summary(record.folder)
    assert (summary.strategy, summary.config["strategy"]["moves"]) == ("dynamic", 4)
    for page in RUN_PAGES:
        assert "may be out of date" not in words(open_page(page, run=record.folder.name)), page
    assert charts(open_page("capacity", run=record.folder.name))


def test_a_loop_that_ends_early_is_stopped_or_interrupted(tiny_bert: Path, runs_dir: Path) -> None:
    attached = attached_to(classifier(tiny_bert))
    record = attached.record("mine", runs_dir)
    with pytest.raises(ConfigError, match=r"record\('again'\): the steps are recorded already"):
        attached.record("again", runs_dir)
    trained(attached, 0, 3)
    record.close()
    assert queries.run_summary(record.folder).status == "interrupted"

    other = attached_to(classifier(tiny_bert))
    record = other.record("other", runs_dir)
    trained(other, 0, 3)
    record.finish()
    assert queries.run_summary(record.folder).status == "stopped"


def test_in_the_trainer_its_losses_and_metrics_are_recorded_to_the_last(
    tiny_bert: Path, tmp_path: Path, runs_dir: Path
) -> None:
    attached = attached_to(classifier(tiny_bert), gates="off")
    record = attached.record("in the Trainer", runs_dir)
    trainer_of(attached, tmp_path, eval_strategy="steps", eval_steps=6).train()
    run = dynlora.open_run(record.folder)
    assert run.status == "finished"
    assert list(run.scalars("loss", "train")["step"]) == [4, 8, 12]
    assert list(run.scalars("loss", "validation")["step"]) == [6, 12]
    assert len(run.signal("rank")) == STEPS + 1
