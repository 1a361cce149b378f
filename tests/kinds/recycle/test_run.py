"""A whole recycle: its record, killed and resumed bit for bit, stopped, refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dynlora import open_run
from dynlora.engine.loop.checkpoint import read_checkpoint, write_checkpoint
from dynlora.errors import ConfigError, CorruptRunError
from dynlora.jobs import quick_launch
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.materials import Inversion
from dynlora.kinds.recycle.work.run import held_out_texts, resume
from dynlora.kinds.recycle.work.steps import Recycling
from dynlora.kinds.sources import sources_of
from dynlora.store.summary import COPIED_NAME, Copied
from dynlora.store.writer import RunWriter
from tests.kinds.recycle.conftest import TASKS, train_teacher
from tests.kinds.work import Killed, meta_of, same, work


def settings_of(teachers: list[str], **values: Any) -> RecycleSettings:
    small = {
        "iterations": 8,
        "inputs": 5,
        "tokens": 6,
        "shots": [1, 2],
        "ways": 3,
        "episodes": 6,
        "queries": 3,
        "test_episodes": 12,
        "rank": 2,
    }
    return RecycleSettings.parse({"teachers": teachers, **small, **values})


@pytest.fixture(scope="module")
def finished(taught: Path, teacher_ids: list[str]) -> Path:
    """Return the folder of a finished recycle with a control."""
    outcome = work(settings_of(teacher_ids, noise=True), taught)
    assert outcome.state == "finished", outcome.error
    return outcome.folder


def test_the_record_holds_what_the_page_reads(finished: Path) -> None:
    meta, run = meta_of(finished), open_run(finished)
    record = meta["recycle"]
    assert record["public_text_digest"]
    assert [teacher["rank"] for teacher in record["teachers"]] == [2, 3, 2]
    assert record["stages"] == [
        {"name": "inversion", "first": 0, "last": 24},
        {"name": "episodes", "first": 24, "last": 30},
        {"name": "noise", "first": 30, "last": 36},
    ]
    counted = run.scalars().groupby(["name", "split"])["value"].count().to_dict()
    assert counted["inversion_loss", "inversion"] == counted["agreement", "inversion"] == 24
    assert counted["episode_loss", "meta"] == counted["episode_accuracy", "noise"] == 6
    assert run.signal("class_agreement").shape == (24, 8)
    assert run.signal("tokens_kept").iloc[-1, 1:].tolist() == [3.0] * 7
    words = [json.loads(one) if isinstance(one, str) else one for one in run.events("words")["payload"]]
    assert [one["group"] for one in words] == list(range(7))
    assert all(len(row) == 3 for one in words for row in one["words"])
    assert len(meta["prototypes"]) == 7
    assert {"teacher", "class", "x", "y"} == set(meta["prototypes"][0])


def test_the_results_compare_all_ways_on_the_same_episodes(finished: Path) -> None:
    results = meta_of(finished)["recycle_results"]
    assert set(results["accuracy"]) == {"base", "meta", "noise", "best_teacher", "averaged"} == set(results["methods"])
    assert all(set(by_shots) == {"1", "2"} for by_shots in results["accuracy"].values())
    assert set(results["against_base"]) == set(results["accuracy"]) - {"base"}
    assert set(results["against_averaged"]) == set(results["accuracy"]) - {"averaged"}
    assert results["test"]["is_new"] is False
    assert results["test"]["classes"] == 7


def test_a_kill_between_the_last_file_and_the_end_takes_no_step_again(
    finished: Path, taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = quick_launch.create(RecycleSettings.of_run(finished), taught, "running")
    finish = RunWriter.finish

    def dying(self: RunWriter, state: str, error: str | None = None) -> None:
        if state == "finished":
            raise Killed
        finish(self, state, error)

    with monkeypatch.context() as patched:
        patched.setattr(RunWriter, "finish", dying)
        with pytest.raises(Killed):
            resume(folder, is_new=True)
    assert meta_of(folder)["recycle_results"]["id"] == folder.name, "it is on the disk before the end"
    with monkeypatch.context() as patched:
        patched.setattr(Recycling, "advance", None)
        assert resume(folder).state == "finished"
    assert same(read_checkpoint(folder / "adapter"), read_checkpoint(finished / "adapter"))
    assert open_run(folder).signal("class_agreement").shape == (24, 8)
    assert not (folder / "checkpoint").exists()
    shutil.rmtree(folder)


def test_a_fetched_recycle_without_its_checkpoint_is_not_started_over(taught: Path, teacher_ids: list[str]) -> None:
    folder = quick_launch.create(settings_of(teacher_ids), taught, "running")
    Copied(url="ssh://host/runs", revision="1", fingerprint="2").write(folder / COPIED_NAME)
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.finish("stopped")
    with pytest.raises(ConfigError, match="was fetched from ssh://host/runs without a checkpoint"):
        resume(folder)
    shutil.rmtree(folder)


def test_the_agreement_at_the_end_is_that_of_the_inputs_that_are_kept(
    taught: Path, teacher_ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[float] = []
    advance = Inversion.advance

    def unlucky(self: Inversion) -> float:
        loss = advance(self)
        self.agreement = torch.full_like(self.agreement, -1)  # what the last step found does not count
        kept.extend(self.best_agreement.tolist() if self.is_done else [])
        return loss

    monkeypatch.setattr(Inversion, "advance", unlucky)
    folder = work(settings_of(teacher_ids), taught).folder
    run = open_run(folder)
    words = [json.loads(one) if isinstance(one, str) else one for one in run.events("words")["payload"]]
    assert [one["agreement"] for one in words] == pytest.approx(kept)
    assert run.signal("class_agreement").iloc[-1, 1:].tolist() == pytest.approx(kept)
    shutil.rmtree(folder)


def test_teachers_that_cannot_teach_are_refused_in_one_sentence(taught: Path, teacher_ids: list[str]) -> None:
    before = sorted(path.name for path in taught.iterdir())
    with pytest.raises(ConfigError, match="ways 9: the teachers have 7 classes"):
        work(settings_of(teacher_ids, ways=9), taught)
    with pytest.raises(ConfigError, match="there is no such run"):
        work(settings_of(["20000101-000000-00000000"]), taught)
    assert sorted(path.name for path in taught.iterdir()) == before, "no folder is left"


def test_a_text_of_two_teachers_counts_once(taught: Path, teacher_ids: list[str]) -> None:
    settings = settings_of(teacher_ids)
    teachers = sources_of(settings.runs(taught))
    once, _ = held_out_texts(teachers)
    twice, notes = held_out_texts([*teachers, *teachers])
    assert once.texts == twice.texts
    assert once.label.tolist() == twice.label.tolist()
    assert len(twice.classes) == 2 * len(once.classes)
    assert notes == []


def test_a_corrupt_teacher_fails_the_recycle_in_one_sentence(taught: Path, backbone: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    one = train_teacher(runs, backbone, TASKS[0], 0)
    (one / "adapter" / "tensors.safetensors").write_bytes(b"nothing")
    outcome = work(settings_of([one.name], ways=2, inputs=4), runs)
    assert outcome.state == "failed"
    assert outcome.error is not None
    assert f"teacher {one.name}" in outcome.error
    assert "\n" not in outcome.error


def test_a_damaged_checkpoint_is_one_sentence(taught: Path, teacher_ids: list[str]) -> None:
    folder = quick_launch.create(settings_of(teacher_ids), taught, "running")
    write_checkpoint(folder / "checkpoint", {"step": "far"})
    with pytest.raises(CorruptRunError, match="its checkpoint is damaged"):
        resume(folder, is_new=True)
    shutil.rmtree(folder)
