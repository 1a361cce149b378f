"""What every strategy that can train a model to write must hold beside its contract with a classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynlora import strategies
from dynlora.analysis.retention import RETENTION, Retention
from dynlora.contracts.harness import WRITER, make_trainer, same, tiny_config, tiny_model, tiny_texts, weights
from dynlora.contracts.test_strategies import LR, WRITERS, trained, whole
from dynlora.engine.context import Probe
from dynlora.errors import ConfigError
from dynlora.tasks.causal_lm import CausalLM

TRIED = {"dynamic", "lora", "glora"}
"""Methods that are tried as writers at once; the others in `make torture`."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in TRIED else pytest.mark.torture) for name in WRITERS]
)
def test_a_writer_learns_the_same_whatever_disturbs_it(name: str) -> None:
    run = whole(name, WRITER)
    losses = run.recorder.scalars["loss", "validation"]
    assert losses[20] < losses[0]
    silent = trained(make_trainer(tiny_config(name, adapter__dropout=0.1, train__lr=LR), WRITER))
    assert same(weights(silent), run.weights)
    measured = [Retention.of(step, payload) for step, kind, _, payload in run.recorder.events if kind == RETENTION]
    assert [one.step for one in measured if one is not None and one.kl is not None] == [0, 10, 20]
    resumed = trained(run.copy(5))
    assert same(run.weights, weights(resumed))


def test_an_ensemble_refuses_to_write() -> None:
    method = strategies.build("lora_ensemble", {})
    probe = Probe(tiny_model(WRITER), 2, 99, 4.0, 20, lambda n: [], 0, CausalLM())
    with pytest.raises(ConfigError, match=r"strategy\.name=lora_ensemble: averages the members' probabilities"):
        method.check_model([], probe)
    with pytest.raises(ConfigError, match=r"data\.task=causal_lm: LoRA-Ensemble learns classification and regression"):
        make_trainer(tiny_config("lora_ensemble"), WRITER)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in TRIED else pytest.mark.torture)
        for name in WRITERS
        if name != "diffora"  # its choice of modules looks at other rows where train.batch_size is another
    ],
)
def test_every_token_of_a_step_weighs_alike_however_it_is_divided(name: str) -> None:
    tokens = tiny_texts()
    lengths = np.full(len(tokens), 12)
    tokens = type(tokens)(tokens.features, tokens.label, lengths, tokens.pad, tokens.targets)
    rows = np.argsort(tokens.label)[[0, 1, 2, 3, -4, -3, -2, -1]]  # few tokens in one part, many in the other
    parts = make_trainer(tiny_config(name, train__batch_size=4, train__grad_accum=2), WRITER, tokens=tokens)
    whole = make_trainer(tiny_config(name, train__batch_size=8), WRITER, tokens=tokens)
    for trainer, order in ((parts, {0: rows[:4], 1: rows[4:]}), (whole, {0: rows})):
        loss, _ = trainer._advance(order)  # pyright: ignore[reportArgumentType]
        trainer.loss = float(loss)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    for key, value in weights(whole).items():
        assert torch.allclose(value, weights(parts)[key], atol=2e-5), key
