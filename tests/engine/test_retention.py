"""What was forgotten: numbers that equal those made by hand, and a training that is the same to the bit with it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

import dynlora
from dynlora.analysis.retention import RETENTION, Retention, retention_conclusion, retentions
from dynlora.assets.catalog import digest_of, public_sentences
from dynlora.config import parse_config
from dynlora.contracts.harness import TASK, WRITER, make_trainer, tiny_config, tokens_of
from dynlora.engine.evaluation.retention import GeneralText
from dynlora.engine.loop.trainer import Trainer
from dynlora.errors import NotRecordedError
from dynlora.inference.session import load_run
from dynlora.kinds.train.panels.training import RetentionOverTime
from dynlora.store import queries
from dynlora.tasks import Task
from dynlora.tasks.causal_lm import CausalLM
from dynlora.training import run
from dynlora.viz.kit.theme import DARK, LIGHT
from dynlora.viz.report.documents import comparison_document
from tests.kinds.train.samples import view_of
from tests.tiny import tiny_config as run_config
from tests.tiny_lm import byte_tokenizer, lm_values, save_problems, save_tiny_lm


def measured(architecture: str) -> tuple[Trainer, dict[str, Any]]:
    """Return a trained tiny model, and what its adapters changed on its own rows."""
    trainer = make_trainer(tiny_config("lora", train__lr=2e-2), architecture)
    order, signals = trainer.begin()
    for _ in range(8):
        trainer.take_step(order, signals)
    task: Task = CausalLM() if architecture == WRITER else TASK
    text = GeneralText(tokens_of(architecture), task)
    return trainer, text.measured(trainer.model, trainer.adapters, trainer.strategy.forward, trainer.autocast)


def test_a_writer_is_compared_by_its_loss_and_by_kl() -> None:
    trainer, retention = measured(WRITER)
    tokens, model = tokens_of(WRITER), trainer.model.eval()
    sums = np.zeros((len(tokens), 4))
    for row in range(len(tokens)):
        batch = tokens.batch([row])
        labels = batch.pop("labels")[0, 1:]
        chosen = labels >= 0
        with torch.no_grad():
            adapted = model(**batch).logits[0, :-1][chosen].double().log_softmax(-1)
            with trainer.adapters.disabled():
                base = model(**batch).logits[0, :-1][chosen].double().log_softmax(-1)
        target = labels[chosen].unsqueeze(1)
        kl = (base.exp() * (base - adapted)).sum()
        sums[row] = [-base.gather(1, target).sum(), -adapted.gather(1, target).sum(), kl, chosen.sum()]
    by_hand = sums[:, :3].sum(0) / sums[:, 3].sum()
    assert [retention["base_loss"], retention["loss"], retention["kl"]] == pytest.approx(by_hand.tolist(), rel=1e-4)
    assert retention["low"] < retention["loss"] - retention["base_loss"] < retention["high"]
    assert retention["kl"] > 0


def test_a_classifier_is_compared_by_its_hidden_states() -> None:
    trainer, retention = measured("bert")
    tokens, backbone = tokens_of("bert"), trainer.model.eval().base_model
    states: list[list[torch.Tensor]] = [[], []]
    for row in range(len(tokens)):
        batch = tokens.take(np.array([row])).batch([0])
        del batch["labels"]
        length = int(tokens.length[row])
        with torch.no_grad():
            states[1].append(backbone(**batch).last_hidden_state[0, :length].mean(0).double())
            with trainer.adapters.disabled():
                states[0].append(backbone(**batch).last_hidden_state[0, :length].mean(0).double())
    base, adapted = (torch.stack(one) for one in states)
    assert retention["cosine"] == pytest.approx(float(F.cosine_similarity(base, adapted).mean()), abs=1e-6)
    near = []
    for one in (base, adapted):
        alike = F.normalize(one) @ F.normalize(one).t()
        near.append((alike - 3 * torch.eye(len(alike))).argmax(1))
    assert retention["agreement"] == pytest.approx(float((near[0] == near[1]).double().mean()), abs=0.03)
    assert retention["low"] < retention["cosine"] < retention["high"]


def test_the_model_is_left_in_its_mode() -> None:
    trainer, _ = measured("bert")
    text = GeneralText(tokens_of("bert"), TASK)
    for is_training in (True, False):
        trainer.model.train(is_training)
        text.measured(trainer.model, trainer.adapters, trainer.strategy.forward, trainer.autocast)
        assert trainer.model.training is is_training
    assert all(module.enabled for module in trainer.adapters)


def test_the_end_of_a_text_is_no_part_of_what_a_writer_reads() -> None:
    tokenizer = byte_tokenizer(begins=True)
    text = GeneralText.of(tokenizer, CausalLM())
    assert text.digest == digest_of(public_sentences())
    assert len(text.tokens) == len(public_sentences())
    assert text.tokens.length.max() == 64
    first = text.tokens.features[0]["input_ids"]
    assert tokenizer.decode(first[1:]) == public_sentences()[0][:63]
    assert all(tokenizer.eos_token_id not in row["input_ids"] for row in text.tokens.features)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs that learn to write, by `log.retention`."""
    folder = tmp_path_factory.mktemp("retention")
    (folder / "data").mkdir()
    model, data = save_tiny_lm(folder / "model"), save_problems(folder / "data")
    made = {}
    for every in (0, 1, 2):
        values = lm_values(model, data, log__retention=every, log__eval_every=4, strategy={"name": "dynamic"})
        outcome = run.train(parse_config(values), folder / "runs", progress=False)
        assert outcome.state == "finished", outcome.error
        made[every] = outcome.folder
    return made


def test_it_is_measured_at_the_evaluations_that_are_asked_for(runs: dict[int, Path]) -> None:
    steps = {every: [one.step for one in read(folder)] for every, folder in runs.items()}
    assert steps == {0: [], 1: [0, 4, 8, 12], 2: [0, 8, 12]}
    first, *_, last = read(runs[1])
    assert first.rise == pytest.approx(0, abs=1e-6)
    assert first.kl == pytest.approx(0, abs=1e-6)
    assert last.kl is not None
    assert last.kl > 1e-3
    recorded = queries.scalars_frame(runs[1], "kl", RETENTION)
    assert recorded["value"].tolist() == pytest.approx([one.kl for one in read(runs[1])])


def read(folder: Path) -> list[Retention]:
    """Return what a run measured."""
    return retentions(queries.events_frame(folder, (RETENTION,)))


def test_what_is_recorded_is_what_the_finished_run_says(runs: dict[int, Path]) -> None:
    model = load_run(runs[1])
    text = GeneralText.of(model.base.tokenizer, model.task)
    retention = text.measured(model.base.model, model.adapters, model.strategy.forward, model.autocast)
    last = read(runs[1])[-1]
    assert (last.loss, last.base_loss, last.kl) == pytest.approx(
        (retention["loss"], retention["base_loss"], retention["kl"])
    )


def test_a_run_that_is_stopped_and_resumed_measures_the_same(
    runs: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config(queries.run_summary(runs[1]).config)
    monkeypatch.setattr(Trainer, "_agree_to_stop", lambda trainer: trainer.step == 6)
    stopped = run.train(config, tmp_path, progress=False)
    assert stopped.state == "stopped"
    monkeypatch.undo()
    resumed = run.resume(tmp_path, stopped.folder.name)
    assert resumed.state == "finished", resumed.error
    assert read(resumed.folder) == read(runs[1])
    whole = (runs[1] / "adapter" / "tensors.safetensors").read_bytes()
    assert (resumed.folder / "adapter" / "tensors.safetensors").read_bytes() == whole


def test_the_panel_shows_it_where_it_is_measured(runs: dict[int, Path], tiny_bert: Path, tiny_data: Path) -> None:
    panel = RetentionOverTime()
    assert not panel.applies(view_of(runs[0]))
    classifier = dynlora.train(
        run_config(tiny_bert, tiny_data, log__retention=1), runs[0].parent, progress=False
    ).folder
    for folder, names in ((runs[1], ["Adapter", "Base model"]), (classifier, ["Mean cosine of states"])):
        view = view_of(folder)
        assert panel.applies(view)
        data = panel.data(view)
        assert data is not None
        assert "public sentences" in panel.caption(data)
        for colours in (LIGHT, DARK):
            assert [trace.name for trace in panel.figure(data, colours).data][: len(names)] == names  # pyright: ignore[reportAttributeAccessIssue]
        assert len(panel.table(data)) == len(data)


def test_reports_and_notebooks_compare_it(runs: dict[int, Path]) -> None:
    drawn = dynlora.compare(list(runs.values())).plot.retention()
    assert len(drawn.table) == 1, "three runs of one configuration: log.retention changes nothing that is compared"
    assert "forgets least" in drawn.caption
    titles = [block.title for part in comparison_document([runs[1], runs[2]]).parts for block in part.blocks]
    assert "Gain against forgetting" in titles
    copy = shutil.copytree(runs[0], runs[0].parent / "20260101-000000-00000000")
    with pytest.raises(NotRecordedError, match=r"Train with log\.retention=1"):
        dynlora.compare([runs[0], copy]).plot.retention()


def test_an_event_of_anybody_is_read_or_left_out() -> None:
    good = {"texts": 3, "base_loss": 1.0, "loss": 1.5, "kl": 0.2, "low": 0.1, "high": 0.9}
    payloads = [good, None, [], {}, {"texts": 0}, {**good, "kl": "x"}, {**good, "loss": float("nan")}, {"texts": 2}]
    events = pd.DataFrame({"step": range(len(payloads)), "kind": RETENTION, "payload": payloads})
    (one,) = retentions(events)
    assert (one.step, one.rise, one.unit) == (0, pytest.approx(0.5), "nats per token")
    assert retentions(events.iloc[:0]) == []


@pytest.mark.parametrize(
    ("rise", "ends", "verdict"),
    [
        (0.5, (0.2, 0.8), "(+0.500, 95 % CI +0.200 to +0.800): the adapter forgets."),
        (0.02, (0.01, 0.03), "the adapter forgets little."),
        (0.04, (0.01, 0.07), "the adapter forgets."),
        (0.1, (-0.1, 0.3), "no forgetting is shown"),
        (-0.5, (-0.8, -0.2), "the adapter reads them better than the base model"),
        (0.5, (None, None), "(+0.500): no forgetting is shown"),
    ],
)
def test_the_conclusion_follows_the_interval(rise: float, ends: tuple[Any, Any], verdict: str) -> None:
    conclusion = retention_conclusion(Retention(5, 3, 1.0, 1.0 + rise, 0.2, low=ends[0], high=ends[1]))
    assert verdict in conclusion.replace("−", "-")
