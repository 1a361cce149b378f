"""Runs at a rate of their own: what is kept is read again."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks import headline, tuned
from benchmarks.allocators import FROZEN_SCALES, parts_of
from benchmarks.fixed_run import measured
from benchmarks.kept_runs import KeptRuns
from tests.tiny import save_data, tiny_values

SETUP = {"data": "data/clinc150", "model": "minilm", "rank": 1, "steps": 300, "rows": 1500}


def test_committed_runs_are_read_as_they_were_kept() -> None:
    arguments = argparse.Namespace(**SETUP, kept=tuned.KEPT)
    run = tuned.kept_run(arguments, "lora, scale", 1000, 0.0175)
    assert len(run["loss"]) == len(run["right"]) == 1500
    assert run["reaction"] is None, "a scale does not see the input"
    assert run["parameters"] <= 41_472, "the budget of uniform rank 1"


def test_what_is_kept_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = argparse.Namespace(**SETUP, kept=KeptRuns.below(tmp_path), processes=1)
    made = {"job": {}, "steps": 300, "diverged": True}
    arguments.kept.keep(tuned.file_name(arguments, ("lora", 1, 0.01)), made)
    jobs: list[tuned.Job] = []
    monkeypatch.setattr(tuned, "trained", lambda _, job: jobs.append(job))
    monkeypatch.setattr(tuned, "quiet_process", lambda threads: None)
    tuned.train_all(arguments, [("lora", 1, 0.01), ("lora", 2, 0.01), ("lora", 2, 0.01)])
    assert jobs == [("lora", 2, 0.01)]
    assert tuned.kept_run(arguments, "lora", 1, 0.01) == {"diverged": True}


def test_frozen_scales_are_those_of_the_same_seed_their_mean_or_dealt_out_anew(tmp_path: Path) -> None:
    arguments = argparse.Namespace(**SETUP, kept=KeptRuns.below(tmp_path))
    learned = [0.5, 1.0, 1.5, 1.8]
    for seed, values in ((1, learned), (2, [0.1])):
        made = {"job": {}, "steps": 300, "diverged": False, "metrics": {"scales": values}}
        arguments.kept.keep(tuned.file_name(arguments, ("lora, scale", seed, 0.015)), made)
    scales = {form: tuned.frozen_scales(arguments, form, 1, 0.015) for form in ("learned", "mean", "shuffled")}
    assert scales["learned"] == learned
    assert scales["mean"] == pytest.approx([1.2] * 4)
    assert sorted(scales["shuffled"]) == learned != scales["shuffled"]
    with pytest.raises(KeyError):
        tuned.frozen_scales(arguments, "learned", 3, 0.015)


def test_a_frozen_scale_stays_and_the_factors_learn(tiny_bert: Path, tmp_path: Path) -> None:
    strategy, own = parts_of("lora, learned scale frozen")
    assert own == {FROZEN_SCALES: "learned"}
    scales = [0.2 + 0.1 * place for place in range(12)]
    run = measured(tiny_values(tiny_bert, save_data(tmp_path), strategy=strategy), scales=scales)
    assert run["scales"] == pytest.approx(scales, abs=1e-6)
    assert all(norm > 0 for norm in run["update_norms"])


def test_the_headline_is_said_beside_what_is_committed() -> None:
    sides = {
        "dynamic, scale": {"loss - lora": [-0.25, -0.5, 0.25]},
        "lora, fast head": {"loss - lora": [-0.1, -0.2, 0.0]},
        "dynamic, scale, fast head": {"loss - lora, fast head": [0.5, 0.25, 1.0]},
    }
    claim = {"seeds": [1, 2], "steps": 300, "methods": sides}
    diverged = {**claim, "methods": {**sides, "lora, fast head": {"diverged": 1}}}
    lines = headline.sentences(diverged, claim)
    assert lines[2] == "lora, fast head minus lora: diverged; committed: -0.100 (-0.200 to +0.000, n = 2)"
    assert lines[3].startswith(
        "dynamic, scale, fast head minus lora, fast head: +0.500 (+0.250 to +1.000, n = 2); committed: +0.500"
    )
