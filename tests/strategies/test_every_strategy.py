"""Every registered method from the command line to an answer, on an encoder and on a decoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynlora import strategies
from tests.command_line import document, run
from tests.tiny import tiny_arguments

QUICK = ("glora", "lora_sp")
"""Those whose adapters have a form of their own; the others in `make torture`."""


def methods(*quick: str) -> list[object]:
    """Return every method, all but some marked as torture."""
    marks = pytest.mark.torture
    return [pytest.param(name, marks=() if name in quick else marks) for name in sorted(strategies.registry())]


@pytest.mark.parametrize("name", methods(*QUICK))
def test_trains_on_an_encoder_and_answers(name: str, tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    trains_and_answers(name, tiny_bert, tiny_data, runs_dir)


@pytest.mark.parametrize("name", methods())
def test_trains_on_a_decoder_and_answers(name: str, tiny_llama: Path, tiny_data: Path, runs_dir: Path) -> None:
    trains_and_answers(name, tiny_llama, tiny_data, runs_dir)


def trains_and_answers(name: str, model: Path, data: Path, runs_dir: Path) -> None:
    """Train twelve steps, read the run back and let it label two texts."""
    arguments = tiny_arguments(model, data, f"strategy.name={name}", "train.steps=12", "data.group_by=domain")
    summary = document(run(runs_dir, "train", *arguments, "--json"))
    assert (summary["status"], summary["strategy"], summary["step"]) == ("finished", name, 12)
    texts = [part for text in ("great lovely film", "awful dull plot") for part in ("--text", text)]
    answers = document(run(runs_dir, "predict", summary["id"], *texts, "--json"))
    rows = answers["rows"] if isinstance(answers, dict) else answers
    assert len(rows) == 2
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    evaluated = document(run(runs_dir, "evaluate", summary["id"], "--json"))
    assert evaluated["metrics"]["loss"] == pytest.approx(summary["metrics"]["loss"], abs=1e-3)
