"""A decode is a run: recorded, told, stopped, killed and continued with the same result; faults are one sentence."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dynlora
from dynlora.cli import decode as decode_command
from dynlora.cli.kinds import resumed
from dynlora.engine.loop.checkpoint import read_checkpoint, write_checkpoint
from dynlora.errors import ConfigError, DynloraError
from dynlora.inference.session import load_run
from dynlora.kinds.decode.settings import DecodeSettings
from dynlora.kinds.decode.work import run
from dynlora.kinds.decode.work.rewards import ClassifierReward
from dynlora.kinds.decode.work.writer import StepEnd
from dynlora.store.reader import RunReader
from dynlora.store.summary import run_summary
from dynlora.training.folder_work import Outcome
from tests.command_line import document
from tests.command_line import run as command
from tests.kinds.decode.conftest import STEP, Runs
from tests.tiny import tiny_tokenizer

SHORT = ("--step-string", STEP, "--max-tokens", "16", "--step-tokens", "5", "--limit", "3")


@pytest.fixture
def named(runs: Runs) -> tuple[str, ...]:
    """Draft and target as arguments, by folder: the decodes go to a runs folder of their own."""
    return ("--draft", str(runs.folder / runs.draft), "--target", str(runs.folder / runs.target))


def solved(folder: Path) -> list[dict[str, Any]]:
    """Return the payloads of a decode without what a clock says."""
    with RunReader(folder) as reader:
        return [{**event.payload, "seconds": 0} for event in reader.events(kinds=["problem"])]


def rounded(value: Any) -> Any:
    """Return payloads with rewards to four digits: the last ones depend on the order in which tokens were read."""
    return json.loads(json.dumps(value), parse_float=lambda text: round(float(text), 4))


def without_seconds(record: Any) -> Any:
    """Return a document without what a clock says."""
    if isinstance(record, dict):
        return {key: without_seconds(value) for key, value in record.items() if key != "seconds"}
    return [without_seconds(value) for value in record] if isinstance(record, list) else record


def test_the_command_reports_points_and_both_roles_alone(named: tuple[str, ...], runs: Runs, runs_dir: Path) -> None:
    judge = str(runs.folder / runs.judge)
    arguments = ("rsd", *named, "--reward", judge, *SHORT, "--threshold", "0.2:0.8:2", "--control", "0.5", "--json")
    report = document(command(runs_dir, *arguments))
    assert [point["key"] for point in report["points"]] == ["threshold=0.2", "threshold=0.8", "constant=0.5"]
    assert [point["threshold"] for point in report["points"]] == [0.2, 0.8, 0.5]
    assert report["target_alone"]["tokens"]["draft_kept"] == 0 == report["draft_alone"]["tokens"]["target"]
    assert report["points"][0]["against_target"]["problems"] == 3
    summary = run_summary(runs_dir / report["id"])
    assert (summary.kind, summary.status, summary.step) == ("decode", "finished", 15)
    assert summary.results["points"] == report["points"]
    _check_record(runs_dir / report["id"], runs)


def _check_record(folder: Path, runs: Runs) -> None:
    with RunReader(folder) as reader:
        meta = reader.meta()["decode"]
    assert (meta["roles"]["draft"]["run"], meta["roles"]["draft"]["layers"]) == (runs.draft, 1)
    assert (meta["roles"]["target"]["run"], meta["roles"]["target"]["layers"]) == (runs.target, None)
    assert meta["roles"]["reward"]["run"] == runs.judge
    assert meta["roles"]["draft"]["parameters"] < meta["roles"]["target"]["parameters"]
    rows = solved(folder)
    assert len(rows) == 15
    assert {row["point"] for row in rows} == {point["key"] for point in meta["points"]}
    for row in rows:
        assert row["text"] == "".join(step["text"] for step in row["steps"])
        assert sum(row["tokens"].values()) - row["tokens"]["draft_discarded"] == sum(
            len(step["ids"]) for step in row["steps"]
        )
        judged = [step for step in row["steps"] if step["reward"] is not None]
        assert len(judged) == (len(row["steps"]) if row["point"].startswith("threshold") else 0)
        assert all(0 <= step["reward"] <= 1 for step in judged)


def test_a_killed_decode_continues_to_the_same_result(
    named: tuple[str, ...], runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(named, "target-likelihood")
    whole = run.decode(settings, runs_dir).folder
    calls = 0

    def killed(plan: Any, place: int, index: int, solve: Callable[..., Any] = run._solved) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return solve(plan, place, index)

    with monkeypatch.context() as patch:
        patch.setattr(run, "_solved", killed)
        with pytest.raises(KeyboardInterrupt):
            run.decode(settings, runs_dir)
    (folder,) = [path for path in runs_dir.glob("2*") if path != whole]
    assert len(solved(folder)) == 4
    outcome = resumed(folder, force=False, progress=False)
    assert outcome.state == "finished"
    assert rounded(solved(folder)) == rounded(solved(whole))
    results = (run_summary(path).results for path in (folder, whole))
    assert without_seconds(next(results)) == without_seconds(next(results))


def _settings(named: tuple[str, ...], reward: Any, **more: Any) -> DecodeSettings:
    return DecodeSettings.parse(
        {
            "draft": named[1],
            "target": named[3],
            "reward": reward,
            "step_string": STEP,
            "new_tokens": 16,
            "step_tokens": 5,
            "limit": 3,
            "values": [0.5],
            **more,
        }
    )


def test_a_function_judges_in_python(named: tuple[str, ...], runs_dir: Path) -> None:
    calls: list[tuple[str, str, str]] = []

    def reward(question: str, before: str, step: str) -> float:
        calls.append((question, before, step))
        return float(len(before) > 4)

    decode = dynlora.speculate(
        named[1],
        named[3],
        reward,
        runs_dir=runs_dir,
        progress=False,
        limit=2,
        step_string=STEP,
        new_tokens=12,
        step_tokens=5,
        threshold=[0.5],
    )
    assert decode.summary["results"]["points"][0]["accepted"] is not None
    assert calls
    assert {row["point"] for row in decode.events("problem")["payload"]} == {"target", "draft", "threshold=0.5"}


@pytest.mark.parametrize("value", [math.nan, None, pytest.param(10**400, id="beyond any float")])
def test_a_reward_that_is_no_number_is_one_sentence(value: Any, named: tuple[str, ...], runs_dir: Path) -> None:
    with pytest.raises(DynloraError, match="for step 1 of problem .* a reward is a finite number"):
        dynlora.speculate(
            named[1],
            named[3],
            lambda *_: value,
            runs_dir=runs_dir,
            progress=False,
            limit=1,
            step_string=STEP,
            new_tokens=6,
        )


def refused(runs_dir: Path, *arguments: str) -> str:
    """Return the sentence of a command that is refused, and check that it left no folder."""
    result = command(runs_dir, "rsd", *arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    assert not list(runs_dir.glob("2*"))
    return line


def test_faults_are_one_sentence(named: tuple[str, ...], runs_dir: Path) -> None:
    assert "--draft: is missing" in refused(runs_dir, "--target", named[3])
    assert "only Python" in refused(runs_dir, *named, "--reward", "callable")
    assert "'high' is not a number" in refused(runs_dir, *named, *SHORT, "--threshold", "high")
    assert "Error: --draft nobody: there is no such run" in refused(runs_dir, "--draft", "nobody", "--target", named[3])
    prepared = ("prepare", "--target", "nobody")
    assert "Error: --target nobody: there is no such run" in refused(runs_dir, *prepared)
    assert "is a probability" in refused(runs_dir, *named, *SHORT, "--accept", "constant", "--threshold", "1.5")
    assert "step_string" in refused(runs_dir, *named, "--step-string", "")


def test_a_judge_whose_classes_do_not_say_right_is_one_sentence(runs: Runs) -> None:
    judge = load_run(runs.folder / runs.judge)
    assert ClassifierReward(judge, "judge").place == judge.labels.index("right")
    other = replace(judge, task=replace(judge.task, labels=("maybe", "never")))
    with pytest.raises(ConfigError, match=r"none of its classes \(maybe, never\) says that a step is right"):
        ClassifierReward(other, "judge")


def test_a_tokenizer_that_cannot_write_the_step_string_is_one_sentence(runs: Runs) -> None:
    with pytest.raises(ConfigError, match=re.escape("--step-string '\\n': the tokenizer of the draft cannot write it")):
        StepEnd(tiny_tokenizer(False), "\n", "draft")
    with pytest.raises(ConfigError, match="is empty"):
        StepEnd(tiny_tokenizer(False), "", "draft")


def test_a_decode_whose_data_has_changed_does_not_continue(
    named: tuple[str, ...], runs_dir: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": f"a{n}:", "completion": f"{'a' * n} #### {n}", "answer": str(n)} for n in (1, 2)]
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows * 12), "utf-8")
    settings = _settings(named, "oracle", data=str(file), limit=2)
    folder = run.decode(settings, runs_dir).folder
    with RunReader(folder) as reader:
        assert reader.meta()["decode"]["data"] == str(file)
    _stopped(folder)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows * 11), "utf-8")
    with pytest.raises(ConfigError, match="its data has changed"):
        run.resume(folder)


def _stopped(folder: Path) -> None:
    """Let a decode look as if it had been stopped."""
    connection = sqlite3.connect(folder / "run.db")
    with connection:
        connection.execute("UPDATE status SET state = 'stopped'")
    connection.close()


@pytest.mark.parametrize("role", ["draft", "target", "reward"])
def test_a_decode_whose_adapters_have_changed_does_not_continue(
    role: str, runs: Runs, runs_dir: Path, tmp_path: Path
) -> None:
    ids = {"draft": runs.draft, "target": runs.target, "reward": runs.judge}
    copied = {name: shutil.copytree(runs.folder / run_id, tmp_path / name / run_id) for name, run_id in ids.items()}
    named = ("--draft", str(copied["draft"]), "--target", str(copied["target"]))
    folder = run.decode(_settings(named, str(copied["reward"]), limit=1), runs_dir).folder
    _stopped(folder)
    _trained_further(copied[role] / "adapter")
    with pytest.raises(ConfigError, match=f"resume {folder.name}: the adapter of its {role} has changed since"):
        run.resume(folder)
    _forget_what_was_saved(folder)
    assert run.resume(folder).state == "finished", "an earlier version recorded no adapters"


def _trained_further(adapter: Path) -> None:
    """Change a tensor of a saved adapter."""
    state = read_checkpoint(adapter)
    module = next(iter(state["adapters"]["modules"].values()))
    module["lora_B"] = module["lora_B"] + 0.5
    write_checkpoint(adapter, state)


def _forget_what_was_saved(folder: Path) -> None:
    """Leave of a decode what an earlier version recorded."""
    with RunReader(folder) as reader:
        plan = reader.meta()["decode"]
    plan.pop("roles_saved")
    connection = sqlite3.connect(folder / "run.db")
    with connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'decode'", (json.dumps(plan),))
    connection.close()


def test_python_records_absolute_folders(
    runs: Runs, runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs.folder)
    decode = dynlora.speculate(
        Path(runs.draft),
        f"./{runs.target}",
        f"../runs/{runs.judge}",
        data="../data",
        runs_dir=runs_dir,
        progress=False,
        limit=1,
        step_string=STEP,
        new_tokens=4,
        threshold=[0.5],
    )
    settings = DecodeSettings.of_run(decode.folder)
    assert (settings.draft, settings.target) == (str(runs.folder / runs.draft), str(runs.folder / runs.target))
    assert (settings.reward, settings.data) == (str(runs.folder / runs.judge), str(runs.data))


def test_words_begin_with_the_conclusion_and_end_with_what_to_do(named: tuple[str, ...], runs_dir: Path) -> None:
    result = command(runs_dir, "rsd", *named, "--reward", "oracle", *SHORT)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "target alone is right on" in lines[0]
    assert lines[-1].startswith("run 2")
    run_id = lines[-1].removeprefix("run ")
    _, words = decode_command.found_by(Outcome(runs_dir / run_id, "stopped", signal.SIGINT), runs_dir)
    assert f"`dynlora resume {run_id} --runs-dir {runs_dir}` continues." in words
