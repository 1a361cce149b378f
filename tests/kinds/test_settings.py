"""Settings of decodes and recycles: what is refused without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynlora.errors import ConfigError
from dynlora.jobs import launch, quick_launch
from dynlora.jobs.queue import read_status
from dynlora.kinds.decode.settings import DecodeSettings
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.store.meta import DECODE
from dynlora.store.schema import command_text
from dynlora.store.summary import run_summary
from dynlora.store.writer import RunWriter


def trained(runs_dir: Path, *, task: str = "causal_lm", model: str = "smollm2-135m", **meta: object) -> str:
    """Return the id of a run that says it learned a task and kept an adapter."""
    facts = {"name": task, "task": task, "model": model, "data": "arithmetic", "config": {"model": {"name": model}}}
    folder = RunWriter.create(runs_dir, config_yaml="", meta={**facts, **meta}, max_steps=4)
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.finish("finished")
    (folder / "adapter").mkdir()
    return folder.name


def test_a_config_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("kind: recycle\nteachers: [a]\n", "utf-8")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "config.yaml").symlink_to(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=r"config\.yaml is a link"):
        RecycleSettings.of_run(tmp_path / "linked")


def test_a_run_of_another_kind_is_named_and_nothing_is_said_to_be_damaged(tmp_path: Path) -> None:
    decode = tmp_path / trained(tmp_path, kind=DECODE)
    with pytest.raises(ConfigError, match="is a decode run, and a recycle run is needed"):
        RecycleSettings.of_run(decode)
    with pytest.raises(ConfigError, match=r"config\.yaml is not that of a decode run; restore the file"):
        DecodeSettings.of_run(decode)
    with pytest.raises(ConfigError, match="is a later run, and a decode run is needed"):
        DecodeSettings.of_run(tmp_path / trained(tmp_path, kind="later"))


def test_a_decode_refuses_runs_that_cannot_take_their_role(tmp_path: Path) -> None:
    writer, judge = trained(tmp_path), trained(tmp_path, task="classification", labels=["wrong", "right"])
    DecodeSettings.of(draft=writer, target=writer, reward=judge).check(tmp_path)
    with pytest.raises(ConfigError, match=f"draft {judge}: learned classification and cannot write"):
        DecodeSettings.of(draft=judge, target=writer).check(tmp_path)
    with pytest.raises(ConfigError, match=f"reward {writer}: learned causal_lm; give a run that classifies"):
        DecodeSettings.of(draft=writer, target=writer, reward=writer).check(tmp_path)
    with pytest.raises(ConfigError, match="target nowhere: there is no such run"):
        DecodeSettings.of(draft=writer, target="nowhere").check(tmp_path)
    (tmp_path / writer / "adapter").rmdir()
    with pytest.raises(ConfigError, match="is finished and kept no adapter"):
        DecodeSettings.of(draft=writer, target=writer).check(tmp_path)


def test_a_recycle_refuses_teachers_that_do_not_fit(tmp_path: Path) -> None:
    one = trained(tmp_path, task="classification", model="minilm", labels=["a", "b"])
    two = trained(tmp_path, task="classification", model="minilm", labels=["c", "d", "e"])
    other = trained(tmp_path, task="classification", model="bert", labels=["a", "b"])
    single = trained(tmp_path, task="classification", model="minilm", labels=["a"])
    settings = RecycleSettings.of(teachers=(one, two), iterations=10, episodes=7)
    settings.check(tmp_path)
    assert settings.steps(tmp_path) == 2 * 10 + 7
    assert settings.model_copy(update={"noise": True}).steps(tmp_path) == 2 * 10 + 2 * 7
    with pytest.raises(ConfigError, match="ways 5: the teachers have 2 classes together"):
        RecycleSettings.of(teachers=(one,)).check(tmp_path)
    with pytest.raises(ConfigError, match="runs of one base model"):
        RecycleSettings.of(teachers=(one, other), ways=2).check(tmp_path)
    with pytest.raises(ConfigError, match="writes texts"):
        RecycleSettings.of(teachers=(one, trained(tmp_path, model="minilm")), ways=2).check(tmp_path)
    with pytest.raises(ConfigError, match="knows 1 class"):
        RecycleSettings.of(teachers=(one, single), ways=2).check(tmp_path)


def test_a_run_of_a_kind_is_made_once_under_its_key_and_can_be_stopped_in_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_launch, "wake", lambda root: None)  # nothing is to start here
    writer = trained(tmp_path)
    settings = DecodeSettings.of(draft=writer, target=writer, limit=3)
    handle = quick_launch.enqueue_kind(settings, tmp_path, key="once")
    assert quick_launch.enqueue_kind(settings, tmp_path, key="once") == handle
    summary = run_summary(handle.folder)
    assert (summary.kind, summary.strategy, summary.model) == (DECODE, "rsd", "smollm2-135m")
    assert (summary.status, summary.max_steps) == ("queued", 9)
    assert DecodeSettings.of_run(handle.folder) == settings
    launch.stop(tmp_path, handle.id)
    assert read_status(handle.folder).status == "stopped"


def test_a_command_names_the_folder_where_it_is_not_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_text("resume", "a-run", runs_dir=Path("runs")) == "dynlora resume a-run"
    assert command_text("resume", "a-run", runs_dir=tmp_path / "runs") == "dynlora resume a-run"
    assert command_text("runs", runs_dir="my runs") == "dynlora runs --runs-dir 'my runs'"
