"""What the catalogue says of a method in typed fields is what its runs recorded, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynlora import strategies, tasks
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError
from dynlora.store import queries

SAMPLES = Path(__file__).resolve().parents[2] / "sample_runs"


def optimizer_bytes(folder: Path) -> float:
    return float(queries.scalars_frame(folder, "optimizer_bytes", "train")["value"].max())


def test_the_state_memory_of_a_method_is_that_of_its_sample_run() -> None:
    runs = queries.list_runs(SAMPLES)
    minilm = (
        runs[(runs["model"] == "minilm") & (runs["data"] == "sentiment4")]
        .drop_duplicates("strategy")
        .set_index("strategy")["folder"]
    )
    lora = optimizer_bytes(Path(minilm["lora"]))
    measured = {name: optimizer_bytes(Path(folder)) / lora for name, folder in minilm.items()}
    words = {name: "less" if part < 0.95 else "more" if part > 1.05 else "same" for name, part in measured.items()}
    assert words == {name: cls.state_memory for name, cls in strategies.registry().items()}


def test_a_method_refuses_a_task_it_does_not_learn() -> None:
    class Narrow(Strategy):
        title = "Narrow"
        tasks = ("classification",)

    assert Narrow.learns() == ["classification"]
    assert set(Strategy.learns()) == set(tasks.registry())
    Narrow().attach_task(tasks.build("classification", ["a", "b"]))
    with pytest.raises(ConfigError, match=r"data.task=regression: Narrow learns classification only; choose another"):
        Narrow().attach_task(tasks.build("regression"))
