"""Tiny runs that play the roles: a draft of one block, a target with gates, a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from dynlora.config import parse_config
from dynlora.kinds.decode.work.rewards import Problem, problems_of
from dynlora.kinds.decode.work.run import cast_of
from dynlora.kinds.decode.work.solve import Cast
from dynlora.training import run
from dynlora.training.inputs import read_data
from tests.conftest import Once
from tests.tiny import save_tiny, tiny_config, write_csv
from tests.tiny_lm import lm_values, save_problems, save_tiny_lm

STEP = " "
"""Ends a step of the tiny problems."""


@dataclass(frozen=True)
class Runs:
    """A runs folder with ids of the runs in it, and the data that they learned from."""

    folder: Path
    draft: str
    target: str
    judge: str
    data: Path


def made_roles(place: Path) -> Path:
    """Train tiny runs of every role into a folder and return it; a file of each role holds its id."""
    model, data = save_tiny_lm(place / "model"), save_problems(_new(place / "data"))
    rng = np.random.default_rng(0)
    rows = [{"text": f"a{n}: {'a' * n}", "label": str(rng.choice(["right", "wrong"]))} for n in range(1, 60)]
    judged = write_csv(_new(place / "judged") / "train.csv", rows)
    common = {"train__steps": 60, "log__eval_every": 60, "log__checkpoint_every": 60, "strategy": {"name": "lora"}}
    configs = {
        "draft": parse_config(lm_values(model, data, model__layers=1, **common)),
        "target": parse_config(
            lm_values(model, data, **{**common, "strategy": {"name": "dynamic", "gates": "module"}})
        ),
        "judge": tiny_config(save_tiny("bert", place / "bert"), judged, train__steps=10),
    }
    for name, config in configs.items():
        outcome = run.train(config.model_copy(update={"name": f"the {name}"}), place / "runs")
        assert outcome.state == "finished", outcome.error
        (place / name).write_text(outcome.folder.name, "utf-8")
    return place


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def runs(once: Once) -> Runs:
    """Tiny runs of every role."""
    place = once.made("roles", made_roles)
    draft, target, judge = ((place / name).read_text("utf-8") for name in ("draft", "target", "judge"))
    return Runs(place / "runs", draft, target, judge, place / "data")


def open_gates(cast: Cast) -> Cast:
    """Let the target's gates say something: a short training leaves them close to one."""
    gates = cast.target.model.adapters.gates
    assert gates is not None
    with torch.no_grad():
        gates.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    return cast


@pytest.fixture(scope="session")
def cast(runs: Runs) -> Cast:
    """Draft and target with the target's likelihood as reward."""
    return open_gates(cast_of(runs.folder / runs.draft, runs.folder / runs.target, "target-likelihood", STEP))


def some_problems(cast: Cast, runs: Runs, places: Sequence[int]) -> list[Problem]:
    """Return held-out problems of the tiny data."""
    config = run.read_run_config(runs.folder / runs.target)
    return problems_of(read_data(config).held_out, cast.roles, places)


@pytest.fixture(scope="session")
def problems(cast: Cast, runs: Runs) -> list[Problem]:
    """A few held-out problems."""
    return some_problems(cast, runs, range(6))
