"""A config.yaml that was edited before a run goes on: recorded or refused; a refusal loads no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dynlora
from dynlora.errors import ConfigError, CorruptRunError
from dynlora.store import queries
from dynlora.store.reader import RunReader
from dynlora.training import run
from tests.tiny import tiny_config
from tests.training.interrupted import interrupted_run


@pytest.fixture(scope="module")
def interrupted(tiny_bert: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps that was interrupted after the checkpoint of step 4."""
    config = tiny_config(tiny_bert, tiny_data, train__steps=12, log__checkpoint_every=4, strategy={"name": "lora"})
    with pytest.MonkeyPatch.context() as patch:
        return interrupted_run(config, tmp_path_factory.mktemp("runs"), patch)


@pytest.fixture
def stopped(interrupted: Path, runs_dir: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(interrupted, runs_dir / interrupted.name)


def edit(folder: Path, old: str, new: str) -> None:
    """Change a line of the configuration as a person does."""
    text = (folder / "config.yaml").read_text("utf-8")
    assert old in text
    (folder / "config.yaml").write_text(text.replace(old, new), "utf-8")


def test_a_changed_length_is_an_event_a_line_of_the_log_and_the_new_end(stopped: Path) -> None:
    edit(stopped, "steps: 12", "steps: 9")
    outcome = run.resume(stopped.parent, stopped.name)
    summary = queries.run_summary(stopped)
    assert (outcome.state, summary.step, summary.max_steps) == ("finished", 9, 9)
    assert summary.config["train"]["steps"] == 9
    (event,) = queries.events_frame(stopped, ("settings",)).to_dict("records")
    assert event["payload"] == {"changed": {"train.steps": [12, 9]}}
    with RunReader(stopped) as reader:
        assert any("train.steps from 12 to 9" in line.message for line in reader.logs())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rank: 2", "rank: 3", "adapter.rank was changed in config.yaml from 2 to 3"),
        ("name: lora", "name: dynamic", "strategy.name was changed in config.yaml from lora to dynamic"),
        (
            "name: lora",
            "name: lora\n  lr_ratio: 4.0",
            "strategy.lr_ratio was changed in config.yaml from its",
        ),
        ("eval_rows: 256", "eval_rows: 300", "log.eval_rows was changed in config.yaml from 256 to 300"),
    ],
)
def test_what_a_run_keeps_is_refused(old: str, new: str, message: str, stopped: Path) -> None:
    edit(stopped, old, new)
    with pytest.raises(
        ConfigError, match=f"{message}.*, and a run keeps its method, data, adapters and evaluations; restore"
    ):
        run.resume(stopped.parent, stopped.name)
    assert queries.run_summary(stopped).status == "failed"


def test_a_state_that_is_a_folder_is_refused(stopped: Path) -> None:
    """It was taken for none, and the run began again at step 0."""
    state = stopped / "checkpoint" / "state.json"
    state.unlink()
    state.mkdir()
    with pytest.raises(CorruptRunError, match=r"state.json: a link or not a regular file"):
        run.resume(stopped.parent, stopped.name)


def test_nothing_changed_leaves_no_event(stopped: Path) -> None:
    run.resume(stopped.parent, stopped.name)
    assert queries.events_frame(stopped, ("settings",)).empty
    assert queries.run_summary(stopped).max_steps == 12


def test_a_refusal_loads_no_torch(trained_run: Path) -> None:
    script = (
        "import sys\nfrom dynlora.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, "resume", trained_run.name, "--runs-dir", str(trained_run.parent)]
    environment = {**os.environ, "PYTHONPATH": str(Path(dynlora.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "2 False"
    assert "the run is finished; start a new run" in done.stderr
