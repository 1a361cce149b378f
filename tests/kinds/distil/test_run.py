"""A whole distillation: its record, killed and resumed bit for bit, used, exported, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from dynlora import open_run
from dynlora.cli.kinds import settings_of_teachers
from dynlora.errors import ConfigError
from dynlora.jobs import quick_launch
from dynlora.kinds.distil.result import Distil
from dynlora.kinds.distil.settings import NOT_RECYCLE, DistilSettings
from dynlora.kinds.distil.work.run import resume
from tests.kinds.distil.conftest import SAID, settings_of, train_writer
from tests.kinds.recycle.conftest import TASKS, train_teacher
from tests.kinds.work import check_equal, command, meta_of, work
from tests.tiny import save_tiny
from tests.waiting import until

LAST = 3 * 2 + 3 * 1 + 12
"""Steps: twice 16 texts of three teachers, their texts for the test, and those of the student."""


@pytest.fixture(scope="module")
def finished(writers: Path, writer_ids: list[str]) -> Path:
    """Return the folder of a finished distillation."""
    outcome = work(settings_of(writer_ids), writers)
    assert outcome.state == "finished", outcome.error
    return outcome.folder


def test_the_record_says_what_it_is_and_what_it_is_made_of(finished: Path, writer_ids: list[str]) -> None:
    meta, run = meta_of(finished), open_run(finished)
    assert (meta["kind"], meta["strategy"], meta["distil"]["method"]) == (
        "distil",
        "data_free_distillation",
        "data_free_distillation",
    )
    assert meta["distil"]["what"] == meta["distil_results"]["what"] == NOT_RECYCLE
    assert [one["rank"] for one in meta["distil"]["teachers"]] == [2, 3, 4]
    assert meta["distil"]["stages"] == [
        {"name": "samples", "first": 0, "last": 6},
        {"name": "held_out", "first": 6, "last": 9},
        {"name": "student", "first": 9, "last": LAST},
    ]
    assert run.scalars().groupby(["name", "split"])["value"].count().to_dict() == {
        ("kl", "student"): 12,
        ("text_tokens", "held_out"): 3,
        ("text_tokens", "samples"): 6,
    }
    record = Distil.read(finished)
    assert [(one.stage, one.teacher, one.texts, one.planned) for one in record.written] == [
        *(("samples", teacher, 20, 20) for teacher in range(3)),
        *(("held_out", teacher, 10, 10) for teacher in range(3)),
    ]
    assert [(one.teacher, one.texts) for one in record.counted] == [(run, n) for n in (20, 10) for run in writer_ids]
    assert len({one.digest for one in record.counted}) == 6


def test_every_teacher_is_measured_beside_base_average_and_student(finished: Path, writer_ids: list[str]) -> None:
    results = meta_of(finished)["distil_results"]
    assert set(results["kl"]) == {"base", "averaged", "student"} == set(results["methods"])
    assert set(results["kl"]["student"]) == {"all", *writer_ids}
    assert results["kl"]["base"]["all"]["texts"] == 30
    for run, by_model in results["loss"].items():
        assert set(by_model) == {"base", "averaged", "student", *writer_ids}
        assert by_model[run]["mean"] < by_model["base"]["mean"]
        assert by_model["base"]["texts"] == 12
        gap = results["loss_against_average"][run]["student"]["mean"]
        assert gap == pytest.approx(by_model["student"]["mean"] - by_model["averaged"]["mean"])
    gap = results["kl_against_base"]["student"]["all"]
    assert gap["mean"] == pytest.approx(results["kl"]["student"]["all"]["mean"] - results["kl"]["base"]["all"]["mean"])
    assert gap["low"] <= gap["mean"] <= gap["high"] < 0, "a planted signal is distilled"


def test_data_that_is_gone_leaves_out_the_losses_alone(decoder: Path, tmp_path: Path) -> None:
    folder = train_writer(tmp_path / "runs", decoder, SAID[0], 0)
    shutil.rmtree(tmp_path / "texts-0")
    outcome = work(settings_of([folder.name], samples=6, held_out=4, train_steps=2), tmp_path / "runs")
    assert outcome.state == "finished", outcome.error
    results = meta_of(outcome.folder)["distil_results"]
    assert results["loss"] == {}
    assert any(f"the data of teacher {folder.name} cannot be read" in note for note in results["notes"])
    assert set(results["kl"]) == {"base", "averaged", "student"}


@pytest.mark.journey
def test_killed_by_the_system_and_resumed_is_bit_equal(finished: Path, writers: Path) -> None:
    folder = quick_launch.create(DistilSettings.of_run(finished), writers, "queued")
    slow = (
        "import sys, time; from pathlib import Path; from dynlora.kinds.distil.work.run import Distilling\n"
        "from dynlora.kinds.distil.work.run import resume\n"
        "advance = Distilling.advance\n"
        "def waiting(self):\n"
        "    while self.step == 13: time.sleep(0.05)\n"
        "    advance(self)\n"
        "Distilling.advance = waiting\n"
        "resume(Path(sys.argv[1]), is_new=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", slow, str(folder)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        until(lambda: (meta_of(folder).get("checkpoint_step") or 0) >= 13, "step 13")
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert open_run(folder).status == "interrupted"
    assert resume(folder).state == "finished"
    check_equal(folder, finished)


def test_the_command_distils_runs_that_write(writers: Path, writer_ids: list[str]) -> None:
    small = ("--samples", "4", "--held-out", "3", "--tokens", "6", "--train-steps", "2", "--rank", "2")
    result = command(writers, "recycle", *writer_ids[:2], *small)
    assert result.exit_code == 0, result.output
    assert NOT_RECYCLE in result.output
    report = json.loads(command(writers, "recycle", writer_ids[0], *small, "--json").stdout)
    assert (report["method"], report["status"]) == ("data_free_distillation", "finished")
    estimate = json.loads(command(writers, "recycle", *writer_ids, *small, "--estimate", "--json").stdout)
    assert (estimate["texts"], estimate["teachers"]) == (21, 3)
    shutil.rmtree(writers / report["id"])


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
def test_a_student_writes_and_is_exported_for_peft(
    finished: Path, writers: Path, decoder: Path, tmp_path: Path
) -> None:
    model = open_run(finished).load()
    assert model.adapters.ranks == [3] * len(model.adapters)
    assert model.answers(["a"])[0].keys() == {"text", "prediction", "tokens", "ended"}
    assert json.loads(command(writers, "predict", finished.name, "--text", "ab", "--json").stdout)
    assert command(writers, "export", finished.name, "--out", str(tmp_path / "peft")).exit_code == 0
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert (config["task_type"], config["r"]) == ("CAUSAL_LM", 3)
    assert NOT_RECYCLE in (tmp_path / "peft" / "README.md").read_text()
    merged = command(writers, "export", finished.name, "--out", str(tmp_path / "merged"), "--format", "merged")
    assert merged.exit_code == 0, merged.output
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        ours = model.base.model(input_ids=ids).logits
        theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(decoder), tmp_path / "peft")
        torch.testing.assert_close(theirs(input_ids=ids).logits, ours, atol=1e-5, rtol=1e-5)
        whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        torch.testing.assert_close(whole(input_ids=ids).logits, ours, atol=1e-5, rtol=1e-5)


def test_what_makes_no_sense_is_refused_in_a_sentence(writers: Path, writer_ids: list[str], tmp_path: Path) -> None:
    before = sorted(path.name for path in writers.iterdir())
    other = train_teacher(tmp_path / "runs", save_tiny("bert", tmp_path / "bert"), TASKS[0], 0)
    with pytest.raises(
        ConfigError, match="writes texts, and .* does not; give runs that all classify, or runs that all"
    ):
        settings_of_teachers({"teachers": [writer_ids[0], str(other)]}, writers)
    result = command(writers, "recycle", *writer_ids, "--ways", "3")
    assert (result.exit_code, "--ways 3: is for teachers that classify" in result.output) == (2, True)
    result = command(writers, "recycle", str(other), "--samples", "3")
    assert (result.exit_code, "--samples 3: is for teachers that write texts" in result.output) == (2, True)
    with pytest.raises(ConfigError, match="learned classification; give a run that writes texts"):
        work(settings_of([str(other)]), writers)
    assert sorted(path.name for path in writers.iterdir()) == before, "no folder is left"
    result = command(writers, "recycle", writer_ids[0], "--tokens", "500", "--estimate")
    assert (result.exit_code, "tokens 500: the teachers read at most 255 after the start" in result.output) == (2, True)
