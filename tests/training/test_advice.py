"""Advice before training: from a few real steps of a real model, the same for the same seed, and nothing is left."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dynlora
from dynlora.analysis import advice as analysis_advice
from dynlora.analysis.advice import RateCurve
from dynlora.config import parse_config
from dynlora.engine.data.batches import Tokens
from dynlora.engine.evaluation.to_learn import label_noise, labels_to_learn
from dynlora.engine.loop.trainer import Trainer
from dynlora.errors import ConfigError
from dynlora.jobs.advice import RateAnswer
from dynlora.store import queries
from dynlora.training import advice as rate_advice
from dynlora.training.advice import HIGHEST, AdviceRequest, advise, advise_rate, probing_trainer, range_test, rates_of
from tests.command_line import document
from tests.tiny import tiny_arguments, tiny_config, tiny_values
from tests.tiny_lm import lm_values, save_problems, save_tiny_lm

SHORT = AdviceRequest(warm_steps=4, look_steps=4, is_timed=False)


def test_the_same_look_gives_the_same_ranks_within_the_budget(tiny_bert: Path, tiny_data: Path) -> None:
    settings = tiny_config(tiny_bert, tiny_data, strategy={"name": "dynamic"})
    advice, again = advise(settings, SHORT), advise(settings, SHORT)
    assert {**advice, "look": None} == {**again, "look": None}
    cost = {row["name"]: row["d_in"] + row["d_out"] for row in advice["modules"]}
    assert advice["parameters"] == sum(rank * cost[name] for name, rank in advice["ranks"].items())
    assert advice["parameters"] <= advice["budget"] == 2 * sum(cost.values())
    assert set(advice["scaling"].values()) == {2.0}
    half = advise(settings, AdviceRequest(0.5, warm_steps=4, look_steps=4, is_timed=False))
    assert half["budget"] == advice["budget"] // 2
    assert half["parameters"] <= half["budget"]
    assert advise(tiny_config(tiny_bert, tiny_data, seed=5), SHORT)["modules"] != advice["modules"]


def test_a_language_model_gets_advice_with_its_layers_timed(tmp_path: Path) -> None:
    model, data = save_tiny_lm(tmp_path / "model"), tmp_path / "data"
    data.mkdir()
    advice = advise(parse_config(lm_values(model, save_problems(data))), AdviceRequest(warm_steps=2, look_steps=2))
    assert advice["task_type"] == "CAUSAL_LM"
    assert {row["kind"] for row in advice["modules"]} >= {"self_attn.q_proj", "mlp.down_proj"}
    [row] = advice["layers"]
    assert (row["without_layers"], row["of"]) == (1, 2)
    assert 0 < row["low"] <= row["step_time"] <= row["high"]
    assert 0 < row["gain_share"] < 1


def test_a_budget_below_one_component_is_refused(tiny_bert: Path, tiny_data: Path) -> None:
    with pytest.raises(ConfigError, match=r"--budget 0\.001: \d+ parameters are less than one component has"):
        advise(tiny_config(tiny_bert, tiny_data), AdviceRequest(0.001, warm_steps=0, look_steps=2, is_timed=False))


def test_ranks_of_the_command_train_and_are_what_it_says(
    tiny_bert: Path, tiny_data: Path, tmp_path: Path, runs_dir: Path
) -> None:
    from click.testing import CliRunner

    from dynlora.cli.main import main

    file = tmp_path / "ranks.json"
    arguments = ["advise", "--steps", "4", "--no-timing", *tiny_arguments(tiny_bert, tiny_data)]
    report = document(CliRunner().invoke(main, [*arguments, "--json", "--out", str(file)]))
    assert json.loads(file.read_text("utf-8")) == report
    config: dict[str, Any] = report["lora_config"]
    kept = {name: config["rank_pattern"].get(name, config["r"]) for name in config["target_modules"]}
    assert kept == {name: rank for name, rank in report["ranks"].items() if rank}
    values = tiny_values(tiny_bert, tiny_data, strategy={"name": "lora", "ranks_from": str(file)}, train__steps=2)
    run = dynlora.train(parse_config(values), runs_dir)
    assert dict(queries.run_summary(run.folder).ranks) == report["ranks"]

    taken = CliRunner().invoke(main, [*arguments, "--out", str(file)])
    assert (taken.exit_code, "exists already" in taken.stderr) == (2, True)


def test_a_range_test_is_the_same_again_and_suggests_a_rate_that_learns(tiny_bert: Path, tiny_data: Path) -> None:
    settings = tiny_config(tiny_bert, tiny_data, strategy={"name": "dynamic", "lr_backoff": 0.1})
    answer = advise_rate(settings, 40)
    other = advise_rate(settings.model_copy(update={"train": settings.train.model_copy(update={"lr": 0.5})}), 40)
    assert {**answer, "look": None, "default": 0.5} == {**other, "look": None}, "whatever the rate was"
    test = answer["tests"][0]
    assert settings.train.head_lr is not None, "a control lets the head alone learn"
    assert len(test["control"]) == len(test["losses"])
    assert test["control"][0] == test["losses"][0], "the first loss is that of the base model"
    assert test["control"][-1] != test["losses"][-1]
    assert RateAnswer.from_values(answer).look.method == "dynamic"
    rates = answer["tests"][0]["rates"]
    growth = [later / earlier for earlier, later in itertools.pairwise(rates)]
    assert growth == pytest.approx([growth[0]] * len(growth))
    assert answer["rate"] is not None
    assert rates[0] < answer["rate"] < HIGHEST


def test_the_rates_of_a_range_test_are_those_of_the_optimizer(tiny_bert: Path, tiny_data: Path) -> None:
    taken: list[tuple[float, float]] = []
    config = tiny_config(tiny_bert, tiny_data, train__head_lr=0.007, train__warmup=0, train__schedule="constant")
    trainer = probing_trainer(config)

    def note(_: int) -> None:
        adapter, *_others, head = (group["lr"] for group in trainer.optimizer.param_groups)
        taken.append((adapter, head))

    curve = range_test(trainer, [0.001, 0.002, 0.004], note)
    assert taken == [(rate, 0.007) for rate in curve.rates]
    assert len(curve.losses) == trainer.step == 3


def test_a_range_test_ends_where_training_breaks(tiny_bert: Path, tiny_data: Path) -> None:
    trainer = probing_trainer(tiny_config(tiny_bert, tiny_data, train__steps=1000))
    losses = iter([1.0] * 15 + [0.9] * 5 + [5.0] * 80)
    trainer.probe_step = lambda order: setattr(trainer, "loss", next(losses)) or 0.0
    assert len(range_test(trainer, rates_of(100), lambda _: None).rates) < 25
    trainer.probe_step = lambda order: setattr(trainer, "loss", math.nan) or 0.0
    assert len(range_test(trainer, rates_of(100), lambda _: None).rates) == 1


def test_no_rate_is_suggested_where_the_loss_falls_by_chance(
    tiny_bert: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal texts with random labels were to be trained with the rate 0.314."""
    rates, answers = tuple(rates_of(90)), []
    for seed in range(30):
        draw = np.random.default_rng(seed)
        curves = [RateCurve(rates, *((0.7 + 0.05 * draw.normal(size=(2, 90))).tolist())) for _ in range(2)]
        monkeypatch.setattr(rate_advice, "_capacity_and_test", lambda *_, curves=curves: (None, curves[0]))
        monkeypatch.setattr(rate_advice, "_trainer", lambda *_: None)
        monkeypatch.setattr(rate_advice, "_test", lambda *_, curves=curves: curves[1])
        answers.append(advise_rate(tiny_config(tiny_bert, tiny_data)))
    unbroken = [answer for answer in answers if answer["breaks"] is None]
    flat = "No rate is suggested: the loss does not fall beyond its noise at any rate up to 1."
    are_flat = [analysis_advice.rate_headline(answer) == flat for answer in unbroken]
    assert len(are_flat) > 10
    assert are_flat.count(False) <= 1, "four halves that agree by chance"


def test_every_line_on_the_look_is_of_another_step(
    tiny_bert: Path, tiny_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run shorter than the look told its last step again and again."""
    settings = tiny_config(tiny_bert, tiny_data, train={"steps": 4, "batch_size": 4})
    with caplog.at_level("INFO", "dynlora.training.advice"):
        advise(settings, AdviceRequest(warm_steps=4, look_steps=8, is_timed=False))
    lines = [line for line in caplog.messages if line.startswith("Looking at gradients")]
    assert lines == [f"Looking at gradients: step {step} of 12" for step in (4, 8, 12)]


def test_the_command_suggests_a_rate(tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from dynlora.cli.main import main

    file = tmp_path / "rate.json"
    arguments = ["advise", "--rate", "--steps", "40", *tiny_arguments(tiny_bert, tiny_data)]
    words = CliRunner().invoke(main, [*arguments, "--out", str(file)]).stdout
    answer = json.loads(file.read_text("utf-8"))
    assert RateAnswer.read(file) is not None
    assert analysis_advice.rate_headline(answer) in words
    assert "no guarantee" in words
    refused = CliRunner().invoke(main, [*arguments, "--leave-out"])
    assert (refused.exit_code, "--leave-out: is about ranks" in refused.stderr) == (2, True)


def test_what_classes_hold_beyond_a_fitted_head_is_little_where_the_words_tell_them(
    tiny_bert: Path, tiny_data: Path
) -> None:
    answer = advise_rate(tiny_config(tiny_bert, tiny_data, strategy={"name": "lora"}), 20)
    known = answer["capacity"]
    assert 0 <= known["nats"] < math.log(2), "better than chance"
    assert known["bits"] == pytest.approx(
        max(0.0, known["nats"] - known["irreducible"]) * known["examples"] / math.log(2)
    )
    small = advise_rate(tiny_config(tiny_bert, tiny_data, strategy={"name": "lora"}, adapter__rank=1), 20)["capacity"]
    assert small["parameters"] * 2 == known["parameters"]
    assert small["capacity"] == 2 * small["parameters"]
    assert analysis_advice.rank_capacity(answer).startswith("This rank is")


def test_labels_that_no_text_tells_hold_their_entropy_and_no_more(tiny_bert: Path, tiny_data: Path) -> None:
    trainer = probing_trainer(tiny_config(tiny_bert, tiny_data))
    label = np.random.default_rng(0).integers(2, size=len(trainer.tokens))
    rows = np.arange(len(label))
    known = labels_to_learn(trainer.model, replace(trainer.tokens, label=label), rows, trainer.autocast)
    assert known is not None
    share = label.mean()
    assert known.nats == pytest.approx(-share * math.log(share) - (1 - share) * math.log(1 - share))


def test_texts_hold_the_loss_of_all_their_tokens(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    values = lm_values(save_tiny_lm(tmp_path / "model"), save_problems(data))
    answer = advise_rate(parse_config(values), 12)
    test, known = answer["tests"][0], answer["capacity"]
    assert test["control"][0] == test["losses"][0], "the base model"
    assert test["control"][-1] != test["losses"][-1]
    assert known["irreducible"] == 0
    assert known["nats"] > math.log(2), "an untrained model knows nothing of several tokens"
    assert known["verdict"] in ("ample", "tight", "too small")


def test_repeated_texts_with_other_labels_are_chance() -> None:
    def tokens(label: list[int]) -> Tokens:
        rows = [{"input_ids": [1 + row % 2]} for row in range(len(label))]
        return Tokens(rows, np.array(label), np.ones(len(label)), {"input_ids": 0})

    assert label_noise(tokens([0, 1, 0, 1])) == 0
    assert label_noise(tokens([0, 1, 1, 1])) == pytest.approx(math.log(2) / 2)


def test_where_the_head_has_the_rate_of_the_adapters_there_is_no_control(tiny_bert: Path, tiny_data: Path) -> None:
    settings = tiny_config(tiny_bert, tiny_data)
    without = settings.model_copy(update={"train": settings.train.model_copy(update={"head_lr": None})})
    assert advise_rate(without, 12)["tests"][0]["control"] == []


def test_a_control_that_computes_no_gradient_below_the_head_has_the_same_losses(
    tiny_bert: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_config(tiny_bert, tiny_data, strategy={"name": "glora"})
    control = advise_rate(settings, 12)["tests"][0]["control"]
    cuts: list[Trainer] = []
    monkeypatch.setattr(rate_advice, "_cut_before_head", cuts.append)
    assert advise_rate(settings, 12)["tests"][0]["control"] == control
    assert cuts, "this time nothing was cut"


@pytest.mark.parametrize("method", ["glora", "diffora"])  # they read every adapter's gradients
def test_the_control_of_a_language_model_is_its_base_model(method: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    values = lm_values(save_tiny_lm(tmp_path / "model"), save_problems(data))
    (test, *_) = advise_rate(parse_config({**values, "strategy": {"name": method}}), 20)["tests"]
    assert len(test["control"]) == len(test["losses"])
    assert test["control"][0] == test["losses"][0]
    assert test["control"][-1] != test["losses"][-1]
