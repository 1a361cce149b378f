"""Evaluations before the last take a fixed sample whose size is said; the last takes all, and training is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import dynlora
from dynlora.analysis import run_summary
from dynlora.analysis.pairing import RunPairs
from dynlora.config import ALL_ROWS, RunConfig
from dynlora.config_files import read_run_config
from dynlora.contracts.harness import same
from dynlora.engine.data.held_back import probe_rows
from dynlora.engine.evaluation.evaluate import sample
from dynlora.engine.loop.checkpoint import pack, read_checkpoint
from dynlora.engine.loop.trainer import Trainer
from dynlora.store import queries
from dynlora.store.lifecycle import annotate
from dynlora.training.folder_work import changed_settings
from dynlora.training.run import plan, resume, train
from dynlora.viz.compare import model as compare_model
from tests.command_line import run
from tests.tiny import tiny_config, tiny_rows, write_csv

HELD_OUT, ROWS = 400, 300


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_csv(folder / "train.csv", tiny_rows(100, seed=1))
    write_csv(folder / "validation.csv", tiny_rows(HELD_OUT, seed=2))
    return folder


def config(model: Path, data: Path, rows: int = ROWS, **overrides: Any) -> RunConfig:
    return tiny_config(model, data, log__eval_rows=rows, strategy={"name": "dynamic", "gates": "module"}, **overrides)


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that is evaluated on a sample, and the same one evaluated on all rows."""
    folder = tmp_path_factory.mktemp("runs")
    sampled, full = (
        dynlora.train(config(tiny_bert, data, rows), folder, progress=False).folder for rows in (ROWS, ALL_ROWS)
    )
    return sampled, full


def signal(folder: Path, name: str) -> dict[int, np.ndarray]:
    frame = queries.signal_frame(folder, name)
    return {int(row[0]): row[1:] for row in frame.to_numpy(float)}


def test_training_is_the_same_to_the_bit(trained: tuple[Path, Path]) -> None:
    first, second = (read_checkpoint(folder / "adapter") for folder in trained)
    for part in ("adapters", "head"):
        tensors: list[dict[str, torch.Tensor]] = [{}, {}]
        packed = [pack(state[part], into) for state, into in zip((first, second), tensors, strict=True)]
        assert packed[0] == packed[1]
        assert len(tensors[0]) > 1
        assert same(*tensors)
    losses = [queries.scalars_frame(folder, "loss", "train")["value"].tolist() for folder in trained]
    assert losses[0] == losses[1]


def test_the_last_evaluation_takes_all_rows_and_those_before_a_fixed_sample(trained: tuple[Path, Path]) -> None:
    sampled, full = (signal(folder, "held_out_loss") for folder in trained)
    known = {step: np.isfinite(values) for step, values in sampled.items()}
    assert [known[step].sum() for step in (0, 10, 20)] == [ROWS, ROWS, HELD_OUT]
    assert (known[0] == known[10]).all()
    np.testing.assert_array_equal(sampled[20], full[20])
    for step in (0, 10):  # the same rows in other batches
        np.testing.assert_allclose(sampled[step][known[step]], full[step][known[step]], rtol=1e-3, atol=1e-5)
    evaluations = [payload for payload in queries.events_frame(trained[0], ("evaluate",))["payload"]]
    assert [(payload["rows"], payload["of"]) for payload in evaluations] == [(ROWS, HELD_OUT)] * 2 + [
        (HELD_OUT, HELD_OUT)
    ]
    assert [sum(map(sum, payload["confusion"])) for payload in evaluations] == [ROWS, ROWS, HELD_OUT]


def test_the_probe_set_is_in_every_evaluation(trained: tuple[Path, Path]) -> None:
    sampled, full = (signal(folder, "probe_loss") for folder in trained)
    for step, values in sampled.items():
        np.testing.assert_allclose(values, full[step], rtol=1e-3, atol=1e-5)
    modules = len(queries.modules_frame(trained[0]))
    assert {len(gates) for gates in signal(trained[0], "probe_gate").values()} == {256 * modules}


def test_the_best_is_judged_on_the_same_rows_each_time(trained: tuple[Path, Path]) -> None:
    summary = queries.run_summary(trained[0])
    best, losses = summary.best, signal(trained[0], "held_out_loss")
    rows = np.isfinite(losses[0])
    step = int(best["step"] or 0)
    assert best["rows"] == ROWS
    assert best["loss"] == pytest.approx(losses[step][rows].mean(), rel=1e-5)
    labels, answers = signal(trained[0], "held_out_label")[0], signal(trained[0], "held_out_prediction")
    right = {at: (answer[rows] == labels[rows]).mean() for at, answer in answers.items()}
    assert right[step] == max(right.values())
    assert "rows" not in queries.run_summary(trained[1]).best


def test_how_many_rows_is_said(trained: tuple[Path, Path], tiny_bert: Path, data: Path, runs_dir: Path) -> None:
    sampled, full = (queries.run_summary(folder) for folder in trained)
    assert sampled.evaluated == full.evaluated == {"rows": HELD_OUT, "of": HELD_OUT}
    assert run_summary.sample_words(full) == ""
    assert "300 of 400 held-out examples" in run_summary.sample_words(sampled)
    metrics = run_summary.with_rows(run_summary.held_out(queries.scalars_frame(trained[0])), sampled)
    assert metrics[metrics["name"] == "accuracy"]["examples"].tolist() == [ROWS, ROWS, HELD_OUT]
    assert not run_summary.is_sampled(sampled)
    assert compare_model.sample_words([sampled, full]) == run_summary.sample_words(sampled)


def test_a_run_that_ended_early_says_so_and_is_paired_on_the_probe_set(
    trained: tuple[Path, Path], tiny_bert: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "_agree_to_stop", lambda trainer: trainer.step == 12)
    stopped = train(config(tiny_bert, data, train__steps=40), tmp_path)
    folder = stopped.folder
    assert stopped.state == "stopped"
    summary = queries.run_summary(folder)
    assert run_summary.is_sampled(summary)
    assert "300 of 400 held-out examples" in run(tmp_path, "show", folder.name).stdout
    assert "sample" in " ".join(compare_model.warnings([summary, queries.run_summary(trained[0])]))
    folders = {"a": folder, "b": trained[0]}
    pairs = RunPairs(folders, {key: queries.run_summary(one) for key, one in folders.items()}, lambda q, *a: q(*a))
    for side in pairs.differences([(0, "a", "b")]):
        assert side.what.endswith("on the probe set")
        assert len(side.differences[0]) == 256
    whole_runs = {"a": trained[1], "b": trained[0]}
    pairs = RunPairs(whole_runs, {k: queries.run_summary(one) for k, one in whole_runs.items()}, lambda q, *a: q(*a))
    assert all(len(side.differences[0]) == HELD_OUT for side in pairs.differences([(0, "a", "b")]))


def test_a_run_made_before_there_were_samples_goes_on_with_all_rows(
    tiny_bert: Path, data: Path, runs_dir: Path
) -> None:
    folder = plan(config(tiny_bert, data)).create(runs_dir, "queued")
    values = yaml.safe_load((folder / "config.yaml").read_text())
    del values["log"]["eval_rows"]
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    annotate(folder, meta={"config": values})
    assert read_run_config(folder).log.eval_rows == ALL_ROWS
    assert changed_settings(folder.name, values, read_run_config(folder)) == {}
    assert resume(runs_dir, folder.name).state == "finished"
    assert all(np.isfinite(values).all() for values in signal(folder, "held_out_loss").values())


@given(st.integers(1, 400), st.integers(0, 5), st.integers(1, 500), st.integers(0, 3))
def test_a_sample_is_fixed_holds_the_probe_set_and_follows_the_groups(
    of: int, groups: int, size: int, seed: int
) -> None:
    rng = np.random.default_rng(of)
    group = rng.choice(groups, of, p=rng.dirichlet(np.ones(groups))) if groups else None
    probe = probe_rows(np.zeros(of), group, min(size, 30), seed)
    part = sample(probe, group, of, size, seed)
    assert (part.rows == sample(probe, group, of, size, seed).rows).all()
    assert len(part.rows) == min(of, size) == len(np.unique(part.rows))
    assert np.isin(probe, part.rows).all()
    assert (part.rows[part.places(probe)] == probe).all()
    assert part.is_whole == (size >= of)
    spread = part.spread(np.ones(len(part.rows)))
    assert np.isfinite(spread).sum() == len(part.rows)
    if group is None or part.is_whole:
        return
    taken = np.bincount(group[part.rows], minlength=groups)
    given_, sizes = np.bincount(group[probe], minlength=groups), np.bincount(group, minlength=groups)
    added = taken > given_
    share = taken[sizes > 0] / sizes[sizes > 0]
    if added.any():  # rows were added only where the share was lowest: no group that got one is far above another
        most = max((taken[g] - 1) / sizes[g] for g in np.flatnonzero(added))
        assert share.min() >= most - 1e-9
