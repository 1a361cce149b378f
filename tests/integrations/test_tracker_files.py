"""Runs that TensorBoard holds become runs to compare: what they hold, once, and nothing of it is run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import dynlora
from dynlora.analysis.ranks_to_use import lora_settings
from dynlora.analysis.run_reading import uniform_rank
from dynlora.cli.main import main
from dynlora.errors import ConfigError
from dynlora.integrations.tracker_files.import_runs import TrackerRun, import_run, understood
from dynlora.integrations.tracker_files.tensorboard import tensorboard_runs
from dynlora.integrations.trackers.base import FOLDER
from dynlora.integrations.trackers.tensorboard import Event, SessionLog, Summary
from dynlora.store import queries
from dynlora.store.notes import read_notes
from dynlora.training.initial_adapter import read_ranks
from tests.command_line import run
from tests.integrations.tracked import STEPS, stored
from tests.pages.app import open_page, words
from tests.store.builder import finished_run

MODULES = [
    f"deberta.encoder.layer.{layer}.{kind}"
    for layer in (0, 1)
    for kind in ("attention.self.query_proj", "output.dense")
]


def imported(runs_dir: Path, *arguments: str) -> list[dict[str, Any]]:
    """Import on the command line and return what became of each run."""
    done = CliRunner().invoke(main, ["import", *arguments, "--runs-dir", str(runs_dir), "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)["runs"]


def adalora_run(folder: Path, steps: int = 40) -> Path:
    """Write event files as AdaLoRA's own code and transformers' Trainer do, with torch's writer."""
    from torch.utils.tensorboard.writer import SummaryWriter

    settings = {"learning_rate": 1e-3, "per_device_train_batch_size": 16, "seed": 3, "task_name": "sst2", "init_r": 6}
    with SummaryWriter(str(folder)) as writer:
        writer.add_text("args", json.dumps(settings))
        for step in range(10, steps + 1, 10):
            writer.add_scalar("train/loss", 1 / step, step)
            writer.add_scalar("train/learning_rate", 1e-3, step)
            writer.add_scalar("eval/accuracy", step / 100, step)
            for place, name in enumerate(MODULES):
                writer.add_scalar(f"Ranknum/base_model.model.{name}.lora_E", 6 - place * step // 40, step)
            writer.add_scalar("Budget/sum_param", 1000 - step, step)
    return folder


def test_what_was_written_is_what_is_imported(tracked_run: Path, runs_dir: Path) -> None:
    event_files = str(tracked_run.parent / FOLDER / "tensorboard")
    [row] = imported(runs_dir, "tensorboard", event_files)
    theirs = runs_dir / row["id"]
    assert (row["what"], row["steps"], row["notes"]) == ("new", STEPS, [])
    assert [point[:2] for point in stored(theirs)] == [point[:2] for point in stored(tracked_run)]
    values = [point[2] for point in stored(tracked_run)]
    assert [point[2] for point in stored(theirs)] == pytest.approx(values, rel=1e-6)

    mine, summary = queries.run_summary(tracked_run), queries.run_summary(theirs)
    assert summary.metrics == pytest.approx(mine.metrics)
    for key in ("name", "strategy", "seed", "status", "max_steps"):
        assert getattr(summary, key) == getattr(mine, key), key
    assert summary.config["train"] == mine.config["train"]
    assert summary.config["strategy"] == mine.config["strategy"]
    assert summary.params["budget"] == mine.params["budget"]
    assert summary.params["active"] == mine.params["active"] + mine.params["gate"]

    whole, families = dynlora.open_run(tracked_run), dynlora.open_run(theirs)
    last = whole.signal("rank").iloc[-1]
    sums = {kind: last[list(part["name"])].sum() for kind, part in whole.modules.groupby("kind")}
    assert families.signal("rank").iloc[-1].drop("step").to_dict() == sums

    again = imported(runs_dir, "tensorboard", event_files)
    assert [(one["id"], one["what"]) for one in again] == [(row["id"], "unchanged")]
    assert list(queries.list_runs(runs_dir)["id"]) == [row["id"]]


def test_ranks_of_adalora_are_those_of_its_modules(tmp_path: Path, runs_dir: Path) -> None:
    adalora_run(tmp_path / "logs" / "one")
    [row] = imported(runs_dir, "tensorboard", str(tmp_path / "logs"))
    run = dynlora.open_run(runs_dir / row["id"])
    assert list(run.modules["name"]) == MODULES
    assert list(run.modules["layer"]) == [0, 0, 1, 1]
    assert list(run.modules["kind"]) == ["attention.self.query_proj", "output.dense"] * 2
    assert run.signal("rank").iloc[-1].tolist() == [40, 6, 5, 4, 3]
    assert run.summary["strategy"] == "adalora"
    assert (run.summary["seed"], run.summary["data"], run.summary["config"]["adapter"]["rank"]) == (3, "sst2", 6)
    assert run.summary["config"]["train"]["batch_size"] == 16
    assert list(run.scalars("lr", "train")["value"]) == pytest.approx([1e-3] * 4)
    assert run.summary["params"]["active"] == 960
    assert run.summary["metrics"] == {"accuracy": pytest.approx(0.4)}
    assert read_notes(run.folder).tags == ("imported", "TensorBoard")


def test_an_import_brings_what_is_new_and_doubles_nothing(tmp_path: Path, runs_dir: Path) -> None:
    logs = adalora_run(tmp_path / "logs")
    [first] = imported(runs_dir, "tensorboard", str(logs), "--data", "mine", "--method", "other")
    adalora_run(logs, 80)  # what torch's writer does when training begins again: the same steps, and more
    [second] = imported(runs_dir, "tensorboard", str(logs), "--data", "mine", "--method", "other")
    assert (first["id"], first["what"], first["steps"]) == (second["id"], "new", 40)
    assert (second["what"], second["steps"]) == ("updated", 80)
    run = dynlora.open_run(runs_dir / second["id"])
    assert list(run.scalars("loss", "train")["step"]) == list(range(10, 81, 10))
    assert (run.summary["strategy"], run.summary["data"], run.status) == ("other", "mine", "finished")
    assert imported(runs_dir, "tensorboard", str(logs), "--data", "mine", "--method", "other")[0]["what"] == "unchanged"


def test_an_imported_run_is_compared_and_not_resumed(
    tmp_path: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dynlora.viz.ui import run_picker

    monkeypatch.setenv(run_picker.RUNS_DIR_VARIABLE, str(runs_dir))
    [row] = imported(runs_dir, "tensorboard", str(adalora_run(tmp_path / "logs")))
    finished_run(runs_dir)
    for page in ("run", "inputs", "playground", "shrink"):
        app = open_page(page, run=row["id"])
        assert not app.error, page
    assert "3 of 4 modules changed rank" in words(open_page("capacity", run=row["id"]))
    open_page("compare")
    refused = CliRunner().invoke(main, ["resume", row["id"], "--runs-dir", str(runs_dir)])
    message = f"Error: resume {row['id']}: the run was imported from TensorBoard; continue it where it was trained\n"
    assert (refused.exit_code, refused.stderr) == (2, message)


def test_a_run_of_ones_own_is_never_written_over(runs_dir: Path) -> None:
    foreign_run = TrackerRun("/a", "one", series={"loss": {1: 1.0}})
    row = import_run(foreign_run, runs_dir)
    (runs_dir / row.id).rename(runs_dir / "moved")
    finished_run(runs_dir, run_id=row.id)
    with pytest.raises(ConfigError, match="was not imported; give another --runs-dir"):
        import_run(foreign_run, runs_dir)


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("train/loss", ("loss", "train")),
        ("train_loss", ("loss", "train")),
        ("loss", ("loss", "train")),
        ("eval/accuracy", ("accuracy", "validation")),
        ("eval_f1", ("f1", "validation")),
        ("val/loss", ("loss", "validation")),
        ("Validation/MSE", ("MSE", "validation")),
        ("test.acc", ("acc", "validation")),
        ("learning_rate", ("lr", "train")),
        ("train/grad_norm", ("grad_norm_total", "train")),
        ("penalty/orthogonality", ("penalty/orthogonality", "train")),
        ("evaluate", ("evaluate", "train")),
    ],
)
def test_first_parts_of_names_are_splits(name: str, meaning: tuple[str, str]) -> None:
    assert understood([name]).scalars == {name: meaning}


@pytest.mark.parametrize(
    ("name", "signal", "module"),
    [
        ("rank/query", "rank", "query"),
        ("importance/output.dense", "importance", "output.dense"),
        ("Ranknum/model.layers.1.q_proj.lora_E", "rank", "model.layers.1.q_proj"),
        ("Ranknum/base_model.model.model.layers.1.q_proj.lora_E.default", "rank", "model.layers.1.q_proj"),
        ("model.layers.1.q_proj/ranknum", "rank", "model.layers.1.q_proj"),
        ("layers.0.mlp.rank", "rank", "layers.0.mlp"),
    ],
)
def test_names_of_ranks_are_modules(name: str, signal: str, module: str) -> None:
    meaning = understood([name])
    assert (meaning.scalars, meaning.modules[signal]) == ({}, {module: name})


def test_of_two_names_that_mean_the_same_both_are_kept() -> None:
    meaning = understood(["loss", "train/loss", "rank/a", "Ranknum/a"])
    assert meaning.scalars == {
        "loss": ("loss", "train"),
        "train/loss": ("train/loss", "train"),
        "Ranknum/a": ("Ranknum/a", "train"),
    }


def test_tensorflow_numbers_and_starts_of_training_are_read(tmp_path: Path) -> None:
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto

    writer = EventFileWriter(str(tmp_path))
    kind: Any = getattr(summary_pb2, "SummaryMetadata")  # noqa: B009 - made at run time
    about = kind(plugin_data=kind.PluginData(plugin_name="scalars"))
    for step in range(6):
        first = {"metadata": about} if step == 0 else {}
        value = Summary.Value(tag="loss", tensor=make_tensor_proto(float(step)), **first)
        writer.add_event(Event(step=step, wall_time=100.0 + step, summary=Summary(value=[value])))
    writer.add_event(Event(step=3, session_log=SessionLog(status=SessionLog.START)))
    writer.add_event(Event(step=3, summary=Summary(value=[Summary.Value(tag="loss", simple_value=-3.0)])))
    writer.close()
    [foreign_run] = tensorboard_runs(tmp_path)
    assert list(foreign_run.series.values()) == [{0: 0.0, 1: 1.0, 2: 2.0, 3: -3.0}]
    assert foreign_run.created == 100.0


def test_numbers_that_are_none_are_kept_as_such(runs_dir: Path) -> None:
    series = {"train/loss": {0: math.nan, 1: math.inf, 2: -math.inf, 3: 1.0}}
    row = import_run(TrackerRun("/a", "one", series=series), runs_dir)
    assert repr([point[2] for point in stored(runs_dir / row.id)]) == "[nan, inf, -inf, 1.0]"


SUMS = {
    "families": ("rank/query", "rank/value"),
    "layers": ("rank/encoder.layer.0", "rank/encoder.layer.1"),
    "a total beside modules": ("rank/layer.0.query", "rank/layer.1.query", "rank/total"),
}


@pytest.mark.parametrize("case", list(SUMS))
def test_ranks_that_are_sums_are_offered_as_no_ranks_of_modules(case: str, runs_dir: Path) -> None:
    series = {name: {0: 24.0, 1: 24.0} for name in SUMS[case]}
    row = import_run(TrackerRun("/a", "one", params={"r": 4}, series=series), runs_dir)
    summary = queries.run_summary(runs_dir / row.id)
    assert summary.ranks_are_sums is True
    assert lora_settings(summary, summary.ranks) is None
    assert uniform_rank(summary) is None
    with pytest.raises(ConfigError, match="sums over layers or families"):
        read_ranks(str(runs_dir / row.id))
    output = run(runs_dir, "show", row.id, "--json")
    assert json.loads(output.stdout)["lora_config"] is None


def test_ranks_of_single_modules_are_offered(runs_dir: Path) -> None:
    series = {f"rank/layer.{layer}.{kind}": {0: 4.0} for layer in (0, 1) for kind in ("query", "value")}
    row = import_run(TrackerRun("/a", "one", params={"r": 4}, series=series), runs_dir)
    summary = queries.run_summary(runs_dir / row.id)
    settings = lora_settings(summary, summary.ranks)
    assert settings is not None
    assert settings.target_modules == ["layer.0.query", "layer.0.value", "layer.1.query", "layer.1.value"]
    assert uniform_rank(summary) == summary.config["adapter"]["rank"]
    assert read_ranks(str(runs_dir / row.id)) == dict.fromkeys(settings.target_modules, 4)
