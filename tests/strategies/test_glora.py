"""GLoRA as a method: a super-net of random paths, a search on reserved rows, both exports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dynlora
from dynlora.contracts.harness import (
    ListRecorder,
    MemoryKeeper,
    make_trainer,
    same,
    tiny_config,
    tiny_model,
    tiny_tokens,
    weights,
)
from dynlora.engine.model.adapters import Adapters
from dynlora.errors import ConfigError
from dynlora.strategies import build
from dynlora.strategies.glora import LORA, GloraLinear

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks the old name


def test_the_found_paths_are_those_of_the_reserve_and_within_the_budget() -> None:
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config("glora", train__lr=1e-2, train__steps=40), recorder=recorder)
    assert trainer.strategy.held_back is not None
    assert len(trainer.tokens) + len(trainer.strategy.held_back.reserve) == len(tiny_tokens())
    trainer.train(MemoryKeeper())
    rows = [row for _, kind, _, payload in recorder.events if kind == "reallocate" for row in payload["edits"]]
    assert [row["edit"] for row in rows] == ["paths"]
    paths, history = rows[0]["paths"], rows[0]["history"]
    modules = [m for m in trainer.adapters if isinstance(m, GloraLinear)]
    assert [module.eval().taken() for module in modules] == paths
    count = trainer.adapters.adapter_parameter_count()
    assert count["active"] == history[-1]["parameters"] <= count["budget"]
    assert count["allocated"] == sum(p.numel() for m in modules for p in m.adapter_parameters().values())
    assert trainer.strategy.held_back.reserve_loss() == pytest.approx(history[-1]["best_loss"], abs=1e-5)
    assert history[-1]["best_loss"] < max(loss for _, loss in history[0]["population"])
    forms = np.array([recorder.vectors[f"path_{support}"][40] for support in "ABCDE"]).T.astype(int)
    assert ["".join("ncvl"[form] for form in row) for row in forms] == paths
    assert not np.array_equal(recorder.vectors["path_A"][39], recorder.vectors["path_A"][38])
    losses = recorder.vectors["held_out_loss"]
    assert losses[40].mean() == pytest.approx(trainer.predictions(trainer.tokens).loss.mean(), abs=1e-6)


def test_an_early_search_lets_the_found_paths_train_on() -> None:
    recorder = ListRecorder()
    fields = {"name": "glora", "search_after": 0.5, "population": 8, "kept": 4, "rounds": 2}
    keeper = MemoryKeeper()
    trainer = make_trainer(tiny_config("glora", strategy=fields, train__lr=1e-2), recorder=recorder)
    trainer.train(keeper)
    assert [step for step, kind, _, _ in recorder.events if kind == "reallocate"] == [10]
    for support in "ABCDE":
        forms = recorder.vectors[f"path_{support}"]
        assert all(np.array_equal(forms[step], forms[20]) for step in range(10, 21))
    assert trainer.predictions(trainer.tokens).loss.mean() < recorder.vectors["held_out_loss"][10].mean()
    resumed = make_trainer(tiny_config("glora", strategy=fields, train__lr=1e-2), state=keeper.state(15))
    resumed.train(MemoryKeeper())
    assert same(weights(trainer), weights(resumed))
    count = trainer.adapters.adapter_parameter_count()
    assert count["active"] <= count["budget"]


@pytest.mark.parametrize(
    ("fields", "word"),
    [({"path": "nlnn"}, "five letters"), ({"path": "nlcnn"}, "C of l, v, n"), ({"kept": 30}, "must not exceed")],
)
def test_contradictions_are_refused(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        build("glora", fields).check(20, 4)


@pytest.mark.parametrize(
    ("architecture", "path", "rank", "enough"),
    [("bert", "nlnnv", 1, 2), ("bert", "llnnn", 1, 2), ("bert", "llnnv", 2, 3), ("llama", "llvvv", 1, 2)],
)
def test_a_fixed_path_that_no_rank_fits_into_the_budget_is_refused(
    architecture: str, path: str, rank: int, enough: int
) -> None:
    def made(rank: int) -> Adapters:
        config = tiny_config("glora", strategy={"name": "glora", "path": path}, adapter__rank=rank)
        return make_trainer(config, architecture).adapters

    with pytest.raises(ConfigError, match=rf"strategy.path={path}: takes .* raise adapter.rank to {enough}, or choose"):
        made(rank)
    count = made(enough).adapter_parameter_count()
    assert count["active"] <= count["budget"]


@pytest.mark.parametrize(("path", "architecture"), [("nlnnn", "bert"), ("nlvvv", "llama"), ("vnnvn", "bert")])
def test_a_fixed_path_may_spend_the_whole_budget_at_rank_one(path: str, architecture: str) -> None:
    config = tiny_config("glora", strategy={"name": "glora", "path": path}, adapter__rank=1)
    count = make_trainer(config, architecture).adapters.adapter_parameter_count()
    assert count["active"] == count["budget"]  # llama's modules have no bias to shift


def test_a_loop_of_ones_own_has_no_rows_to_search_on() -> None:
    with pytest.raises(ConfigError, match=r"search for paths needs rows .* set a path, such as nlnnn"):
        dynlora.attach(tiny_model(), strategy="glora", budget=2, steps=20)
    attached = dynlora.attach(tiny_model(), strategy="glora", budget=2, steps=20, path="vlnnv")
    assert not any(module.samples for module in attached.adapters)


def test_the_mean_over_processes_decides_between_candidates() -> None:
    """Each process ranks by its own rounding; were that to decide, they could settle on different paths."""
    trainer = make_trainer(tiny_config("glora", strategy={"name": "glora", "population": 4, "rounds": 1, "kept": 2}))
    scores: list[float] = []

    def over_processes(loss: torch.Tensor) -> torch.Tensor:
        scores.append(float(loss))
        return torch.tensor(1.0 if len(scores) != 3 else 0.1)  # the others like the third best

    trainer.adapters.over_processes = over_processes
    (edit,) = trainer.strategy.settled(trainer.adapters)
    history = edit.history
    assert len(scores) == history[-1]["tried"]
    assert history[-1]["best_loss"] == pytest.approx(0.1)
    assert edit.paths != (LORA,) * len(trainer.adapters)
