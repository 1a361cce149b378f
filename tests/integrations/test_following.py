"""What trackers are given is what the run store holds: each step once, in order, and only when it is complete."""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.errors import CorruptRunError
from dynlora.integrations.trackers import follow
from dynlora.integrations.trackers.base import FOLDER, RunFacts, place_of, plain_name
from dynlora.integrations.trackers.follow import Feed, Step, families, without_secrets_logged
from dynlora.integrations.trackers.tensorboard import folder_name
from dynlora.store.notes import TRACKERS_LOCK, TRACKERS_NAME, Written, read_trackers, write_trackers
from dynlora.store.reader import RunReader
from dynlora.store.writer import RunWriter
from tests.attack.test_without_network import heard as heard  # a fixture
from tests.attack.test_without_network import listened_to
from tests.integrations.tracked import TRACKERS, Points, in_tensorboard, numbers, stored
from tests.store.builder import define, finished_run, new_run, record

RUNS = Path("/runs")


def read_all(feed: Feed) -> list[Step]:
    """What a feed yields until it waits or ends."""
    steps: list[Step] = []
    while True:
        batch = feed.read()
        steps += batch.steps
        if batch.is_last or not batch.is_cut:
            return steps


def points(steps: list[Step]) -> Points:
    return [(name, step.step, value) for step in steps for name, value in step.values.items()]


def of_tensorboard(folder: Path) -> Points:
    return in_tensorboard(folder.parent / FOLDER / "tensorboard" / str(read_trackers(folder)["tensorboard"].run))


@settings(max_examples=15)
@given(data=st.data())
def test_whenever_it_is_read_each_step_comes_once_and_whole(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = new_run(tmp_path_factory.mktemp("runs"))
    window = data.draw(st.sampled_from([1, 2, 7, 2000]), "window")
    steps: list[Step] = []
    feed, last = Feed(folder, None), -1
    with pytest.MonkeyPatch.context() as patched, RunWriter.open(folder, resume_from=None) as writer:
        patched.setattr(follow, "WINDOW", window)
        define(writer)
        for count in data.draw(st.lists(st.integers(1, 8), max_size=4), "steps between two reads"):
            record(writer, last + 1, last + count)
            last += count
            writer.commit()
            steps += read_all(feed)
            assert all(step.step < last for step in steps), "the newest step may not be complete"
        if data.draw(st.booleans(), "stopped"):
            writer.finish("stopped")
            steps += read_all(feed)
            assert numbers(points(steps)) == stored(folder)
    assert [step.step for step in steps] == sorted({step.step for step in steps})


def test_families_are_every_so_many_steps_and_at_evaluations(runs_dir: Path) -> None:
    folder = finished_run(runs_dir, config={"log": {"every": 4}})
    steps = read_all(Feed(folder, None))
    with_ranks = [step.step for step in steps if "rank/query" in step.values]
    assert with_ranks == [step for step in range(1, 41) if step % 4 == 0 or step % 10 == 0]
    assert [step.step for step in steps if step.ranks is not None] == [10, 20, 30, 40]
    assert next(step for step in steps if step.step == 30).values["rank/query"] == 4 + 0 + 2
    with RunReader(folder) as reader:
        assert families(reader.modules()) == {"query": [3, 8, 8]}


def test_an_interrupted_step_waits_for_the_resume_and_none_comes_twice(runs_dir: Path) -> None:
    folder = new_run(runs_dir)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 0, 10)
    assert RunReader(folder).status().status == "interrupted"
    follow.follow(folder, ["tensorboard"])
    assert max(step for _, step, _ in of_tensorboard(folder)) == 9

    with RunWriter.open(folder, resume_from=6) as writer:
        record(writer, 7, 14)
        writer.finish("finished")
    follow.follow(folder, ["tensorboard"])
    steps = numbers(of_tensorboard(folder))
    assert [point[:2] for point in steps] == [point[:2] for point in stored(folder)]
    assert len({point[:2] for point in steps}) == len(steps)
    follow.follow(folder, ["tensorboard"])
    assert numbers(of_tensorboard(folder)) == steps, "nothing is left to write"


def test_it_follows_a_run_that_is_being_written_to_its_end(runs_dir: Path) -> None:
    folder = new_run(runs_dir)
    with RunWriter.open(folder, resume_from=None) as writer:
        follower = threading.Thread(target=follow.follow, args=(folder, ["tensorboard"]), kwargs={"poll_s": 0.01})
        follower.start()
        define(writer)
        for step in range(30):
            record(writer, step, step)
            writer.commit()
        writer.finish("finished")
        follower.join(60)
    assert not follower.is_alive()
    assert [point[:2] for point in numbers(of_tensorboard(folder))] == [point[:2] for point in stored(folder)]


def test_not_a_number_and_infinity_reach_event_files(runs_dir: Path) -> None:
    folder = new_run(runs_dir)
    with RunWriter.open(folder, resume_from=None) as writer:
        writer.scalar("loss", "train", 1, math.nan)
        writer.scalar("loss", "train", 2, math.inf)
        writer.progress(2)
        writer.finish("failed", "it diverged")
    follow.follow(folder, ["tensorboard"])
    assert repr(of_tensorboard(folder)) == "[('train/loss', 1, nan), ('train/loss', 2, inf)]"


def test_one_tracker_that_fails_does_not_keep_the_others(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(follow.CLASSES, "aim", "Aim")
    folder = finished_run(runs_dir)
    written = follow.follow(folder, ["aim", "tensorboard"])
    assert written["aim"].error is not None
    assert "ModuleNotFoundError" in written["aim"].error
    assert (written["tensorboard"].error, written["tensorboard"].step) == (None, 40)


def test_links_in_the_place_of_our_files_are_refused(runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir)
    (runs_dir / FOLDER).symlink_to(tmp_path)
    with pytest.raises(CorruptRunError, match="is a link"):
        follow.follow(folder, ["tensorboard"])
    (runs_dir / FOLDER).unlink()
    (folder / TRACKERS_LOCK).unlink()
    (folder / TRACKERS_LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptRunError, match="is a link"):
        follow.follow(folder, ["tensorboard"])
    assert sorted(tmp_path.iterdir()) == [runs_dir]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("eval/accuracy", "eval/accuracy"),
        ("rank/attention.self.query", "rank/attention.self.query"),
        ("train/a[0](b):c", "train/a_0__b__c"),
        ("../x//y/..", "x/y"),
        ("é", "_"),
        ("/", "unnamed"),
    ],
)
def test_names_are_those_that_every_tracker_takes(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@pytest.mark.parametrize("name", ["../../outside", "/outside", "a/b\\c", ".", "\x00", "x" * 500])
def test_a_name_is_no_path(name: str, runs_dir: Path) -> None:
    facts = RunFacts("20261128-051808-a934094e", name, 0.0, "", "")
    for made in (facts.unique_name, folder_name(facts)):
        assert Path(made).name == made
        assert made.endswith("a934094e")
        assert len(made) < 120


def test_no_tracker_calls_anybody_or_leaves_its_folder(runs_dir: Path, heard: Path) -> None:
    folder = finished_run(runs_dir, name="../../../outside")
    write_trackers(folder, {name: Written(place="elsewhere", run="../../../outside") for name in TRACKERS})
    environment = {name: value for name, value in listened_to(heard).items() if not name.startswith("WANDB_")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "dynlora",
            "track",
            folder.name,
            "--runs-dir",
            str(runs_dir),
            "--to",
            ",".join(name for name in TRACKERS if name != "mlflow"),
        ],
        env={**environment, "HF_TOKEN": "hf_of_nobody", "HOME": str(heard.parent)},
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert all(written.error is None for written in read_trackers(folder).values())
    assert [line for line in heard.read_text().splitlines() if "127.0.0.1" not in line] == []
    assert [path for path in heard.parent.rglob("*outside*") if FOLDER not in path.parts] == []
    assert not Path("/outside").exists()


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "mlflow", "wandb", "aim"])
def test_files_are_in_the_runs_folder_unless_a_variable_of_the_tracker_says_otherwise(name: str) -> None:
    variable = {
        "tensorboard": "TENSORBOARD_LOGGING_DIR",
        "trackio": "TRACKIO_DIR",
        "mlflow": "MLFLOW_TRACKING_URI",
        "wandb": "WANDB_DIR",
        "aim": "AIM_REPO",
    }[name]
    mine = place_of(name, RUNS, {})
    assert mine.is_own
    assert f"/runs/{FOLDER}/{name}" in mine.address
    theirs = place_of(name, RUNS, {variable: "/elsewhere"})
    assert (theirs.address, theirs.is_own) == ("/elsewhere", False)
    assert "/elsewhere" in theirs.view


def test_nothing_leaves_the_machine_unless_the_user_says_so() -> None:
    assert place_of("wandb", RUNS, {}).variables["WANDB_MODE"] == "offline"
    assert place_of("wandb", RUNS, {"WANDB_MODE": "online"}).variables["WANDB_MODE"] == "online"
    assert place_of("wandb", RUNS, {}).variables["WANDB_ERROR_REPORTING"] == "false"
    assert place_of("mlflow", RUNS, {}).variables["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert place_of("trackio", RUNS, {}).variables["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in place_of("trackio", RUNS, {"TRACKIO_SPACE_ID": "me/space"}).variables


def test_a_variable_of_the_user_stays(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "true")
    for name in place_of("wandb", runs_dir, {}).variables:
        monkeypatch.setenv(name, os.environ.get(name, ""))
    for name in ("WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name)
    follow.prepared("wandb", runs_dir)
    assert (os.environ["WANDB_ERROR_REPORTING"], os.environ["WANDB_MODE"]) == ("true", "offline")


def test_a_password_of_a_trackers_address_is_in_no_file_and_in_no_sentence(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = finished_run(runs_dir)
    address = "postgresql+nosuchdriver://me:hunter2/x@127.0.0.1:9/mlflow?sslpassword=othersecret"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    written = follow.follow(folder, ["mlflow"])["mlflow"]
    assert written.place == "postgresql+nosuchdriver://127.0.0.1:9/mlflow"
    assert written.error
    place = place_of("mlflow", runs_dir, os.environ)
    assert (place.address, place.public_address) == (address, written.place)
    texts = [caplog.text, place.view, str(written), *(path.read_text("utf-8", "replace") for path in folder.iterdir())]
    assert [text for text in texts if "hunter2" in text or "othersecret" in text] == []
    assert "MLFLOW_TRACKING_URI" in place.view


def test_what_an_earlier_version_noted_of_an_address_is_not_shown(runs_dir: Path) -> None:
    folder = finished_run(runs_dir)
    secret = "https://me:hunter2@host/mlflow"
    noted = {"place": secret, "run": "abc", "step": 3, "error": f"no answer from {secret}"}
    (folder / TRACKERS_NAME).write_text(json.dumps({"format": 1, "trackers": {"mlflow": noted}}))
    written = read_trackers(folder)["mlflow"]
    assert (written.place, written.run, written.step) == ("https://host/mlflow", "abc", 3)
    assert written.error == "no answer from https://host/mlflow"


def test_a_library_logs_no_secret_of_an_address(caplog: pytest.LogCaptureFixture) -> None:
    address = "https://me:hunter2@host/mlflow"
    logger = logging.getLogger("of.a.library")
    with without_secrets_logged([address]):
        logger.warning("retrying %s with %s", address, "hunter2")
        try:
            raise ValueError(f"cannot log in at {address}")
        except ValueError:
            logger.exception("it broke")
    assert "retrying https://host/mlflow with ***" in caplog.text
    assert "ValueError: cannot log in at https://host/mlflow" in caplog.text
    assert "hunter2" not in caplog.text
