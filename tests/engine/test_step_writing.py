"""Texts written a token at a time are those that `generate` writes, also when others are written in the pauses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dynlora.config import parse_config
from dynlora.engine.evaluation.generate import Limits, write, write_steps
from dynlora.engine.evaluation.token_scores import ablated, estimated, row_losses, scored
from dynlora.inference.session import load_run
from dynlora.training import run
from dynlora.training.inputs import read_data
from tests.tiny_lm import DECODERS, byte_tokenizer, lm_values, save_problems, save_tiny_lm, tiny_decoder

PROMPTS = ("a2:", "b", "what is it that you want to say? " * 3)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trained tiny Llama whose gates look at all that was written so far."""
    folder = tmp_path_factory.mktemp("gated")
    (folder / "data").mkdir()
    values = lm_values(
        save_tiny_lm(folder / "model"), save_problems(folder / "data"), strategy={"name": "dynamic", "gates": "module"}
    )
    outcome = run.train(parse_config(values), folder / "runs", progress=False)
    assert outcome.state == "finished", outcome.error
    return load_run(outcome.folder), read_data(parse_config(values))


def without_end(steps: Any) -> list[int]:
    """Return what was written, without its end."""
    return [token.id for token in steps if not token.is_end]


@pytest.mark.parametrize("temperature", [0.0, 1.3])
@pytest.mark.parametrize("architecture", DECODERS)
def test_every_decoder_writes_step_by_step_what_it_generates(architecture: str, temperature: float) -> None:
    model, tokenizer = tiny_decoder(architecture), byte_tokenizer()
    model.eval()
    for text in PROMPTS:
        prompt = tokenizer(text)["input_ids"]
        limits = Limits(20, 256, temperature, seed=7)
        (whole,) = write(model, tokenizer, [prompt], limits)
        steps = list(write_steps(model, tokenizer, prompt, limits))
        assert without_end(steps) == whole.ids
        assert steps[-1].is_end == whole.ended


def test_texts_that_take_turns_do_not_see_each_other(gated: Any) -> None:
    model, _ = gated
    tokenizer, gates = model.base.tokenizer, model.adapters.gates
    assert gates is not None
    with torch.no_grad():
        gates.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(1))  # gates that say something
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    limits = Limits(16, 256)
    alone = [write(model.base.model, tokenizer, [prompt], limits, gates)[0].ids for prompt in prompts]
    with model.adapters.disabled():
        alone += [write(model.base.model, tokenizer, [prompt], limits, gates)[0].ids for prompt in prompts]
    writing = [write_steps(model.base.model, tokenizer, prompt, limits, gates) for prompt in prompts]
    writing += [
        write_steps(model.base.model, tokenizer, prompt, limits, gates, model.adapters.disabled) for prompt in prompts
    ]
    texts: list[list[int]] = [[] for _ in writing]
    left = dict(enumerate(writing))
    while left:
        for place, steps in list(left.items()):
            token = next(steps, None)
            if token is None or token.is_end:
                left.pop(place)
            else:
                texts[place].append(token.id)
    assert texts == alone
    assert all(module.enabled for module in model.adapters), "adapters are on again in the pauses"


def test_token_losses_are_those_of_the_example(gated: Any) -> None:
    model, data = gated
    rows = data.held_out.take(np.arange(12))
    recorded = model.predictions(model.tokens(rows))
    for (ids, losses), loss, count in zip(row_losses(model, rows), recorded.loss, recorded.output[:, 2], strict=True):
        assert len(ids) == len(losses)
        counted = losses[np.isfinite(losses)]
        assert len(counted) == count
        assert counted.sum() / count == pytest.approx(loss, rel=1e-5)
    prompt = model.base.tokenizer(rows.text[0])["input_ids"]
    ids, losses = row_losses(model, rows)[0]
    after = scored(model, prompt, ids[len(prompt) :])
    assert -after.log_probability == pytest.approx(losses[len(prompt) :], rel=1e-4, abs=1e-5)
    assert after.top.shape == (len(ids) - len(prompt), 5)
    assert (np.diff(after.top_probability, axis=1) <= 0).all()


def test_the_loss_of_a_module_is_what_the_text_loses_without_it(gated: Any) -> None:
    model, _ = gated
    prompt, ids = model.base.tokenizer("a2:")["input_ids"], model.base.tokenizer("aa #### 2")["input_ids"]
    whole = scored(model, prompt, ids).total
    losses = list(ablated(model, prompt, ids))
    assert [index for index, _, _ in losses] == list(range(len(model.adapters)))
    index, lost, _ = max(losses, key=lambda one: abs(one[1]))
    model.adapters[index].enabled = False
    try:
        assert whole - scored(model, prompt, ids).total == pytest.approx(lost, rel=1e-6)
    finally:
        model.adapters[index].enabled = True
    assert lost != 0


def test_the_estimate_is_the_slope_of_the_texts_probability_in_each_update(gated: Any) -> None:
    model, _ = gated
    prompt, ids = model.base.tokenizer("a2:")["input_ids"], model.base.tokenizer("aa #### 2")["input_ids"]
    slopes = estimated(model, prompt, ids)
    assert slopes.shape == (len(model.adapters),)
    assert not any(module._forward_hooks for module in model.adapters), "the model is as it was"
    for index in np.argsort(-np.abs(slopes))[:3]:
        module, totals = model.adapters[int(index)], []
        before = module.scaling
        for factor in (1.01, 0.99):
            module.scaling = before * factor
            totals.append(scored(model, prompt, ids).total)
        module.scaling = before
        assert slopes[index] == pytest.approx((totals[0] - totals[1]) / 0.02, rel=0.02)
    whole = scored(model, prompt, ids).total
    order = [2, 0]
    assert [index for index, *_ in ablated(model, prompt, ids, order)] == order
    assert scored(model, prompt, ids).total == whole
