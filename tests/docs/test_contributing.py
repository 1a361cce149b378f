"""CONTRIBUTING's "add a strategy in one file" is carried out: a file is dropped in and found everywhere."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from dynlora import strategies
from dynlora.cli.main import main
from dynlora.contracts import test_strategies as contract
from dynlora.contracts.harness import ListRecorder, MemoryKeeper, make_trainer, tiny_config
from dynlora.viz.launch import form_model
from tests.command_line import document, run

TEXT = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text("utf-8")


@pytest.fixture
def dropped_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Put the example's code into a folder that the registry looks in."""
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "drop_one.py").write_text(code, "utf-8")
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(tmp_path)])
    strategies.registry.cache_clear()
    yield "drop_one"
    strategies.registry.cache_clear()


def test_the_guides_packages_name_the_examples() -> None:
    root = Path(__file__).resolve().parents[2]
    guide = (root / "docs" / "guides" / "add-a-method.md").read_text("utf-8")
    package, task, kind = map(tomllib.loads, re.findall(r"```toml\n(.*?)```", guide, re.DOTALL))
    points = package["project"]["entry-points"]
    assert points == {"dynlora.strategies": {"drop_one": "my_lora.drop_one:DropOne"}}
    example = tomllib.loads((root / "examples" / "plugin" / "pyproject.toml").read_text("utf-8"))
    shared = task["project"]["entry-points"] | kind["project"]["entry-points"]
    assert shared.items() <= example["project"]["entry-points"].items()
    assert "class DropOne(Strategy)" in TEXT


def test_example_strategy_is_registered_described_and_trains(dropped_in: str) -> None:
    described = strategies.describe(dropped_in)
    assert described["title"] == "Drop one"
    assert "after" in {field["name"] for field in described["fields"]}
    recorder = ListRecorder()
    trainer = make_trainer(tiny_config(dropped_in), recorder=recorder)
    trainer.train(MemoryKeeper())
    assert {module.rank for module in trainer.adapters} == {1}
    assert [step for step, kind, _, _ in recorder.events if kind == "reallocate"] == [6]


def test_it_is_on_the_command_line_and_in_the_form(dropped_in: str, runs_dir: Path) -> None:
    listed = {row["name"]: row for row in document(CliRunner().invoke(main, ["strategies", "--json"]))}
    assert {field["name"] for field in listed[dropped_in]["fields"]} >= {"after", "lr_ratio", "init"}
    fields = {field.name: field for field in form_model.strategy_fields(listed[dropped_in])}
    after = fields["strategy.after"]
    assert (after.type, after.default, after.low, after.high) == ("float", 0.3, 0, 1)
    refused = run(runs_dir, "train", "--set", f"strategy.name={dropped_in}", "--set", "strategy.after=1.5")
    assert refused.exit_code == 2
    assert "strategy.after=1.5: must be less than 1" in refused.output


def test_it_holds_the_contract(dropped_in: str) -> None:
    contract.test_starts_as_the_base_model(dropped_in, "bert")
    contract.test_learns_and_leaves_the_base_alone(dropped_in)
    contract.test_same_seed_same_run_with_or_without_recording(dropped_in)
    contract.test_resume_is_bit_equal(dropped_in, 5)
    contract.test_budget_holds_after_every_step_and_events_are_recorded(dropped_in)
    contract.whole.cache_clear()
    contract.test_merged_says_what_unmerged_said(dropped_in, "bert")
    contract.test_saved_and_loaded_it_says_the_same(dropped_in)
