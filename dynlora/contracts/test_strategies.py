"""What every registered strategy must hold; a new one gets these tests by existing.

Tests of one method share a worker and, where they only read it, one trained run: see `whole`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

import dynlora
from dynlora import strategies
from dynlora.analysis.retention import RETENTION, Retention
from dynlora.config import GENERATIVE, RunConfig
from dynlora.contracts.harness import (
    ARCHITECTURES,
    WRITER,
    ListRecorder,
    MemoryKeeper,
    full_state,
    make_trainer,
    same,
    tiny_config,
    tiny_model,
    tiny_tokens,
    tokens_of,
    weights,
)
from dynlora.engine.context import Step
from dynlora.engine.data.batches import Tokens
from dynlora.engine.evaluation.export import AdapterFacts
from dynlora.engine.evaluation.inference import AdaptedModel, bake_gates, mean_gates, merge
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.base_model import BaseModel
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError, NotMergeableError
from dynlora.inference.forms import forms

STRATEGIES = sorted(strategies.registry())
KINDS = (*ARCHITECTURES, WRITER)
WRITERS = [name for name in STRATEGIES if set(GENERATIVE) & set(strategies.strategy_class(name).learns())]
"""Methods that can train a model to write."""

RESUMED_AT = (0, 5, 15)
LR = 2e-2
"""Of the run that tests share; every method learns as much in its 20 steps as in 40 at half of this rate."""

USUAL_SIGNALS = {"rank", "importance", "gate", "scale", "grad_norm", "delta_norm", "effective_rank"}


def sampled(others: Sequence[Any], suits: Callable[[type[Strategy]], bool] = lambda _: True) -> list[Any]:
    """Return every strategy that suits beside each of `others`; one of them always, the rest in `make torture`.

    Neighbours in the alphabet get different ones, so that each of `others` is tried with a third of the methods.
    """
    return [
        pytest.param(name, other, marks=() if (i + j) % len(others) == 0 else pytest.mark.torture)
        for i, name in enumerate(STRATEGIES)
        for j, other in enumerate(others)
        if suits(strategies.strategy_class(name)) and (other != WRITER or name in WRITERS)
    ]


def trained(trainer: Trainer) -> Trainer:
    """Train to the end and return the trainer."""
    trainer.train(MemoryKeeper())
    return trainer


@dataclass
class Whole:
    """A run that nothing disturbed, everything recorded and kept; whoever needs to change it takes a `copy`."""

    name: str
    architecture: str
    recorder: ListRecorder = field(default_factory=ListRecorder)
    keeper: MemoryKeeper = field(default_factory=MemoryKeeper)
    counts: list[dict[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Train to the end."""
        self.trainer = make_trainer(self.config, self.architecture, recorder=self.recorder)
        self.trainer.on_step = lambda trainer: self.counts.append(trainer.adapters.adapter_parameter_count())
        self.trainer.train(self.keeper)
        self.weights = weights(self.trainer)

    @property
    def config(self) -> RunConfig:
        """Its configuration."""
        return tiny_config(self.name, adapter__dropout=0.1, train__lr=LR, log__retention=1)

    def copy(self, step: int = 20) -> Trainer:
        """Return a trainer made from what was kept at a step."""
        model = tiny_model(self.architecture, seed=0)
        return make_trainer(self.config, self.architecture, state=self.keeper.state(step), model=model)


@functools.lru_cache(maxsize=64)  # tests come by function where only this suite is run
def whole(name: str, architecture: str = "bert") -> Whole:
    """Return the one run of a method that its tests share."""
    return Whole(name, architecture)


@pytest.mark.parametrize(("name", "architecture"), sampled(KINDS, lambda method: method.starts_as_base))
def test_starts_as_the_base_model(name: str, architecture: str) -> None:
    """Before its first step the adapted model gives the logits of the base model, to the bit."""
    batch = tokens_of(architecture).batch(range(6))
    base = tiny_model(architecture).eval()
    adapted = make_trainer(tiny_config(name), architecture).model.eval()
    with torch.no_grad():
        assert torch.equal(base(**batch).logits, adapted(**batch).logits)


@pytest.mark.parametrize("name", STRATEGIES)
def test_learns_and_leaves_the_base_alone(name: str) -> None:
    """The loss falls in 20 steps, and no weight of the base model changes."""
    run, fresh = whole(name), make_trainer(whole(name).config)
    start, end = (trainer.predictions(trainer.tokens).loss.mean() for trainer in (fresh, run.trainer))
    assert end < start - 0.02
    frozen = {key: value for key, value in weights(fresh).items() if "base_layer" in key or "embeddings" in key}
    assert frozen
    if run.trainer.strategy.base_stays:
        assert all(torch.equal(value, run.weights[key]) for key, value in frozen.items())


@pytest.mark.parametrize(("name", "architecture"), sampled(KINDS, lambda method: method.as_lora is not None))
def test_without_its_dynamics_it_is_lora(name: str, architecture: str) -> None:
    """With the values of `as_lora` its losses are those of plain LoRA, step by step."""
    recorder = ListRecorder()
    off = {"name": name, **(strategies.strategy_class(name).as_lora or {})}
    config = tiny_config(name, strategy=off, adapter__dropout=0.1, train__lr=LR)
    trained(make_trainer(config, architecture, recorder=recorder))
    losses = list(recorder.scalars["loss", "train"].values())
    assert len(losses) == 20
    np.testing.assert_allclose(losses, plain_losses(architecture), rtol=1e-5, atol=1e-6)


@functools.cache
def plain_losses(architecture: str) -> list[float]:
    """Return the losses of plain LoRA."""
    return list(Whole("lora", architecture).recorder.scalars["loss", "train"].values())


@pytest.mark.parametrize("name", STRATEGIES)
def test_same_seed_same_run_with_or_without_recording(name: str) -> None:
    """Two runs of one seed end equal to the bit: recorded, with what is forgotten, and not."""
    run = whole(name)
    silent = trained(make_trainer(tiny_config(name, adapter__dropout=0.1, train__lr=LR)))
    assert same(weights(silent), run.weights)


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_was_forgotten_is_measured_at_each_evaluation(name: str) -> None:
    """What is forgotten is measured from the first evaluation on, and nothing is at the start."""
    run = whole(name)
    measured = {step: payload for step, kind, _, payload in run.recorder.events if kind == RETENTION}
    assert list(measured) == [0, 10, 20]
    read = [Retention.of(step, payload) for step, payload in measured.items()]
    first, *_, last = [one for one in read if one is not None]
    if run.trainer.strategy.starts_as_base:
        assert first.cosine == pytest.approx(1)
        assert first.agreement == 1
    assert last.forgotten > 1e-7
    assert run.recorder.scalars["cosine", RETENTION] == {step: one["cosine"] for step, one in measured.items()}


@pytest.mark.parametrize(("name", "architecture"), sampled(KINDS))
def test_the_effect_of_each_module_on_each_probe_example_is_recorded(name: str, architecture: str) -> None:
    """Every evaluation records it; at the last it is what the modules themselves say of one example after the other."""
    run = whole(name, architecture)
    trainer, recorded = run.trainer, run.recorder.vectors["probe_effect"]
    assert list(recorded) == [0, 10, 20]
    if trainer.strategy.starts_as_base:
        assert not recorded[0].any()
    last = recorded[20].reshape(len(trainer.evaluation.probe), len(trainer.adapters))
    by_hand = np.array([effects_on(trainer, int(row)) for row in trainer.evaluation.probe])
    assert by_hand.max() > 1e-3
    np.testing.assert_allclose(last, by_hand, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize(("name", "architecture"), sampled(KINDS))
def test_the_importance_of_each_module_to_each_probe_example_is_recorded(name: str, architecture: str) -> None:
    """At the last evaluation, and it is the slope of the loss as what the module adds is taken away."""
    run = whole(name, architecture)
    trainer, recorded = run.trainer, run.recorder.vectors["probe_importance"]
    assert list(recorded) == [20]
    probe = trainer.evaluation.tokens.take(trainer.evaluation.probe)
    slopes = [slope(trainer, probe, module) for module in trainer.adapters]
    values = recorded[20].reshape(len(probe), len(trainer.adapters))
    assert np.abs(values).max() > 1e-5
    np.testing.assert_allclose(values, np.array(slopes).T, rtol=0.03, atol=1e-4)


def slope(trainer: Trainer, tokens: Tokens, module: LoraLinear, part: float = 0.02) -> np.ndarray:
    """Return how fast the loss of each row rises as a module adds less, by central differences, (n,)."""

    def losses(factor: float) -> np.ndarray:
        def scaled(_: torch.nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
            return output + (factor - 1) * module.added(args[0], output)

        handle = module.register_forward_hook(scaled)
        try:
            return trainer.predictions(tokens).loss
        finally:
            handle.remove()

    return (losses(1 - part) - losses(1 + part)) / (2 * part)


@torch.no_grad()
def effects_on(trainer: Trainer, row: int) -> list[float]:
    """Return the mean over the tokens of a row of ‖h - h₀‖ / ‖h₀‖, h₀ of the module with its adapter off, by module."""
    tokens, calls = trainer.evaluation.tokens, dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]]()
    batch = {key: value[:, : tokens.length[row]] for key, value in tokens.batch([row]).items() if key != "labels"}

    def keep(module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
        calls[module] = args[0], output

    handles = [module.register_forward_hook(keep) for module in trainer.adapters]
    trainer.strategy.forward(trainer.model.eval(), batch)
    for handle in handles:
        handle.remove()
    effects = []
    for module in trainer.adapters:
        x, with_adapter = calls[module]
        module.enabled = False
        without = module.forward(x)
        module.enabled = True
        effects.append(float(((with_adapter - without).norm(dim=-1) / without.norm(dim=-1)).mean()))
    return effects


@pytest.mark.parametrize(("name", "step"), sampled(RESUMED_AT))
def test_resume_is_bit_equal(name: str, step: int) -> None:
    """A run that continues from a checkpoint ends as one that nothing interrupted, to the bit."""
    resumed = trained(whole(name).copy(step))
    assert same(whole(name).weights, weights(resumed))
    assert [m.rank for m in whole(name).trainer.adapters] == [m.rank for m in resumed.adapters]


@pytest.mark.parametrize("name", STRATEGIES)
def test_budget_holds_after_every_step_and_events_are_recorded(name: str) -> None:
    """No step from that on which the method names exceeds the budget, and every change of rank is an event."""
    run = whole(name)
    recorder, trainer, counts = run.recorder, run.trainer, run.counts
    if trainer.strategy.budget_in == "parameters":
        assert len(counts) == trainer.total
        first = trainer.strategy.budget_holds_from(trainer.total, trainer.adapters.reference_rank)
        assert first < trainer.total
        assert all(count["active"] + count["gate"] <= count["budget"] for count in counts[max(0, first - 1) :])
    elif trainer.strategy.budget_in == "components":
        assert sum(trainer.adapters.ranks) <= trainer.adapters.reference_rank * len(trainer.adapters)
    planned = trainer.strategy.events(trainer.total, trainer.adapters.reference_rank)
    happened = {step for step, kind, _, _ in recorder.events if kind == "reallocate"}
    assert happened <= {*planned, trainer.total}
    if planned:
        assert happened, "a registered allocator that never moves anything"
    assert set(recorder.vectors["rank"]) == set(recorder.vectors["importance"]) == set(range(trainer.total + 1))
    assert all(np.isfinite(vector).all() for vector in recorder.vectors["importance"].values())
    described = set(trainer.strategy.own_signals)
    own = {name for name, axis in recorder.axes.items() if axis == "module"} - USUAL_SIGNALS
    assert own <= described, "pages draw what is described"
    assert described <= own | {name for name, axis in recorder.axes.items() if axis == "component"}, "and only that"


@pytest.mark.parametrize("name", STRATEGIES)
def test_accumulated_gradients_equal_the_larger_batch(name: str) -> None:
    """Two half batches train as one whole batch does."""
    tokens = tiny_tokens()
    even = np.full(len(tokens), 8)
    features = [{key: (value * 3)[:8] for key, value in row.items()} for row in tokens.features]
    flat = type(tokens)(features, tokens.label, even, tokens.pad)

    config = tiny_config(name, train__batch_size=4, train__grad_accum=2, train__steps=4)
    parts = make_trainer(config, tokens=flat)
    whole = make_trainer(tiny_config(name, train__batch_size=8, train__steps=4), tokens=flat)
    for index in range(4):
        rows = np.arange(8) + 8 * index
        first, second = rows[:4], rows[4:]
        orders: list[tuple[Trainer, Any]] = [(parts, {2 * index: first, 2 * index + 1: second}), (whole, {index: rows})]
        for trainer, order in orders:
            trainer._advance(order)
            trainer.optimizer.zero_grad()
    for key, value in weights(whole).items():
        assert torch.allclose(value, weights(parts)[key], atol=2e-5), key


@pytest.mark.parametrize("name", STRATEGIES)
def test_trains_in_bf16(name: str) -> None:
    """It learns in half precision, and every weight stays finite."""
    trainer = make_trainer(tiny_config(name, train__precision="bf16", train__steps=10, train__lr=2e-2))
    start = trainer.predictions(trainer.tokens).loss.mean()
    trained(trainer)
    assert all(torch.isfinite(tensor).all() for tensor in weights(trainer).values())
    assert trainer.predictions(trainer.tokens).loss.mean() < start


@pytest.mark.parametrize("name", STRATEGIES)
def test_hyper_parameters_round_trip(name: str) -> None:
    """Its settings are described, and built from what is described."""
    described = strategies.describe(name)
    defaults = {item["name"]: item["default"] for item in described["fields"]}
    assert strategies.build(name, defaults) == strategies.build(name, {})
    assert all(described[key] for key in ("summary", "paper", "formula", "cost"))
    assert described["fidelity"] in ("code", "description", "reconstruction")


WAITS = ("item", "tolist", "nonzero", "__int__", "__float__", "__bool__", "__index__")


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_usual_step_never_waits_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading one number makes a processor wait for all that was queued before it; events may, other steps may not."""
    trainer = whole(name).copy(15)
    order, signals = trainer.begin()
    events = trainer.strategy.events(trainer.total, 2)
    step = next(step for step in range(16, trainer.total) if step not in events)
    while trainer.step < step - 1:
        trainer.take_step(order, signals)
    waits: list[str] = []
    with monkeypatch.context() as patch:
        for word in WAITS:
            patch.setattr(torch.Tensor, word, _heard(word, getattr(torch.Tensor, word), waits))
        trainer._advance(order, signals)
        signals._vectors(Step(step, trainer.total, 1e-2))
        trainer._numbers()
        trainer.adapters.active_parameters()
    assert waits == []


def _heard(word: str, method: Callable[..., Any], waits: list[str]) -> Callable[..., Any]:
    """Return a method that notes from where in our own code it is called."""

    def called(tensor: torch.Tensor, *args: Any) -> Any:
        frame = sys._getframe(1)
        if Path(frame.f_code.co_filename).is_relative_to(Path(dynlora.__file__).parent):
            waits.append(f"{word} in {frame.f_code.co_filename}:{frame.f_lineno}")
        return method(tensor, *args)

    return called


COMMON = (
    ("lr_ratio", 4.0),
    ("scaling", "other"),
    ("init", "gaussian"),
    ("init", "eva"),
    ("init", "lora_ga"),
    ("lr_backoff", 1e-9),
)


@pytest.mark.parametrize(("name", "field"), sampled(COMMON))
def test_a_field_that_all_have_is_honoured_or_refused(
    name: str, field: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that all methods have changes the run, or a sentence refuses it."""
    monkeypatch.setattr("dynlora.engine.strategy.PATIENCE", 2)
    key, value = field
    usual = getattr(strategies.build(name, {}), key)
    if key == "scaling":
        value = "standard" if usual == "rank_stabilized" else "rank_stabilized"
    if value == usual:
        value = "kaiming"
    config = with_fields(name, {key: value})
    try:
        trainer = make_trainer(config)
    except ConfigError as error:
        refusal = str(error)
    else:
        weights_then = after_eight_steps(trainer)
        assert not same(weights_then, usually_after_eight_steps(name)), (
            f"{key}={value} changed nothing and nobody said so"
        )
        return
    assert f"strategy.{key}={value}" in refusal


def with_fields(name: str, fields: dict[str, Any]) -> RunConfig:
    """Return the config of a short run with fields of its strategy set."""
    return tiny_config(name, strategy={"name": name, **fields}, train__steps=10, train__lr=1e-2)


def after_eight_steps(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return the weights after eight steps."""
    order, signals = trainer.begin()
    for _ in range(8):
        trainer.take_step(order, signals)
    return weights(trainer)


@functools.lru_cache(maxsize=4)
def usually_after_eight_steps(name: str) -> dict[str, torch.Tensor]:
    """Return the weights of the same with every field as it usually is."""
    return after_eight_steps(make_trainer(with_fields(name, {})))


@pytest.mark.parametrize("name", STRATEGIES)
def test_penalties_are_recorded_beside_the_loss(name: str) -> None:
    """Each term that it adds to the loss is recorded at every step."""
    recorder, trainer = whole(name).recorder, whole(name).trainer
    terms = {f"penalty/{term}" for term in trainer.strategy.penalty(trainer.adapters)}
    recorded = {series for series, split in recorder.scalars if split == "train" and series.startswith("penalty/")}
    assert recorded == terms
    for term in terms:
        assert set(recorder.scalars[term, "train"]) == set(range(1, 21))


@pytest.mark.parametrize("name", STRATEGIES)
def test_state_survives_packing(name: str) -> None:
    """A checkpoint has the weights of the adapters as they are, and which are shared."""
    run = whole(name)
    kept, live = run.keeper.state(20)["adapters"]["modules"], full_state(run.trainer)["adapters"]["modules"]
    for module in live:
        assert kept[module]["tied"] == live[module]["tied"]
        for name in ("lora_A", "lora_B"):
            before, after = kept[module][name], live[module][name]
            assert (before is None) == (after is None) == (name in live[module]["tied"])
            assert before is None or torch.equal(before, after)


def finished(name: str, architecture: str) -> Trainer:
    """Return a trainer at its end that a test may change; after ten steps where no other test shares the run."""
    if architecture == "bert":
        return whole(name).copy()
    config = tiny_config(name, adapter__dropout=0.1, train__steps=10, train__lr=LR)
    return trained(make_trainer(config, architecture))


def as_used(trainer: Trainer) -> AdaptedModel:
    """Return a trained model as it is used after training, its gates baked into their means."""
    head = [name for name in ("classifier", "score") if hasattr(trainer.model, name)]
    task = trainer.evaluation.task
    base = BaseModel(trainer.model, None, head, Path(), task)  # pyright: ignore[reportArgumentType] - no text is read here
    model = AdaptedModel(base, trainer.adapters, trainer.strategy, task, 16, trainer.autocast)
    bake_gates(model, mean_gates(model, trainer.tokens))
    return model


def refused(attempt: Callable[[], Any]) -> bool:
    """Say whether a method that cannot be merged refuses, with a sentence that says what to do instead."""
    try:
        attempt()
    except NotMergeableError as error:
        if len(str(error)) < 30:
            pytest.fail(f"no sentence: {error}")
        return True
    return False


@pytest.mark.parametrize(("name", "architecture"), sampled(KINDS))
def test_merged_says_what_unmerged_said(name: str, architecture: str) -> None:
    """Merged into the base it gives the same outputs, or a sentence says why it cannot be."""
    model = as_used(finished(name, architecture))
    before = model.readings(tokens_of(architecture))
    if refused(lambda: merge(model)):
        return
    assert not any(isinstance(module, LoraLinear) for module in model.base.model.modules())
    torch.testing.assert_close(model.readings(tokens_of(architecture)), before, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks the old name
@pytest.mark.parametrize("form", ["peft", "uniform"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_peft_says_what_we_said(name: str, form: str, tmp_path: Path) -> None:
    """PEFT reads its export and gives the same logits, or a sentence refuses the export."""
    model = as_used(whole(name).copy())
    model.adapters.scale(0.75)
    before = model.readings(tiny_tokens())
    if refused(lambda: forms()[form].write(model, tmp_path, AdapterFacts("tiny", 4, 2))):
        assert list(tmp_path.iterdir()) == []
        return
    loaded = peft.PeftModel.from_pretrained(tiny_model(), str(tmp_path)).eval()
    batch = tiny_tokens().batch(range(len(tiny_tokens())))
    del batch["labels"]
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "architecture"), sampled(KINDS))
def test_scaled_it_says_the_same_whether_for_a_while_or_for_good(name: str, architecture: str) -> None:
    """At half of its strength it gives the same outputs live, for good and merged; at none it is the base."""
    trainer = finished(name, architecture)
    model, tokens, before = as_used(trainer), tokens_of(architecture), weights(trainer)
    whole_readings = model.readings(tokens)
    with model.adapters.disabled():
        base = model.readings(tokens)
    with model.adapters.scaled(0.0):
        torch.testing.assert_close(model.readings(tokens), base, rtol=1e-5, atol=1e-6)
    with model.adapters.scaled(0.5):
        half = model.readings(tokens)
    assert same(weights(trainer), before)
    assert torch.equal(model.readings(tokens), whole_readings)
    assert not torch.allclose(half, whole_readings, rtol=1e-4, atol=1e-5)
    model.adapters.scale(0.5)
    torch.testing.assert_close(model.readings(tokens), half, rtol=1e-4, atol=1e-5)
    with model.adapters.disabled():
        torch.testing.assert_close(model.readings(tokens), base, rtol=1e-4, atol=1e-5)
    if not refused(lambda: merge(model)):
        torch.testing.assert_close(model.readings(tokens), half, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", STRATEGIES)
def test_saved_and_loaded_it_says_the_same(name: str) -> None:
    """Loaded from a checkpoint it has the same losses and as many parameters."""
    loaded, trained_once = whole(name).copy(), whole(name).trainer
    np.testing.assert_array_equal(
        loaded.predictions(loaded.tokens).loss, trained_once.predictions(trained_once.tokens).loss
    )
    assert loaded.adapters.adapter_parameter_count() == trained_once.adapters.adapter_parameter_count()
