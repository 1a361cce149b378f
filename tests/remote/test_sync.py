"""All runs of a folder are sent, or fetched: what is equal stays, what is bad stops nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from dynlora.errors import ConfigError, RemoteError
from dynlora.remote.contents import MANIFEST_NAME
from dynlora.remote.place import Place
from dynlora.remote.sync import manifests, pull_all, push, push_all
from dynlora.store.lifecycle import annotate
from dynlora.store.notes import annotate_notes
from dynlora.store.run import open_run
from tests.command_line import document, run
from tests.remote.places import rows_of, tree_of
from tests.store.builder import finished_run


@pytest.fixture
def three(runs_dir: Path) -> list[Path]:
    return [finished_run(runs_dir, 20, f"run-{number}") for number in range(3)]


def statuses(outcomes: object) -> dict[str, str]:
    return {one.id: one.status for one in outcomes}  # pyright: ignore


def test_only_what_is_new_or_changed_moves(three: list[Path], runs_dir: Path, tmp_path: Path) -> None:
    place, here = Place(str(tmp_path / "there")), tmp_path / "here"
    assert set(statuses(push_all(runs_dir, place)).values()) == {"sent"}
    assert set(statuses(push_all(runs_dir, place)).values()) == {"unchanged"}
    assert set(statuses(pull_all(place, here)).values()) == {"fetched"}
    assert set(statuses(pull_all(place, here)).values()) == {"unchanged"}
    annotate_notes(three[1], add=["new"])
    (four,) = [finished_run(runs_dir, 20, "run-4")]
    assert statuses(push_all(runs_dir, place)) == {
        "run-0": "unchanged",
        "run-1": "sent",
        "run-2": "unchanged",
        "run-4": "sent",
    }
    assert statuses(pull_all(place, here)) == {
        "run-0": "unchanged",
        "run-1": "updated",
        "run-2": "unchanged",
        "run-4": "fetched",
    }
    assert rows_of(here / "run-4", tmp_path / "a") == rows_of(four, tmp_path / "b")
    assert set(statuses(push_all(here, place)).values()) == {"unchanged"}, "copies are not sent back"


def test_one_bad_run_stops_no_other(three: list[Path], runs_dir: Path, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "there"))
    (three[0] / "run.db").write_bytes(b"SQLite format 3\0 and then nothing")
    sent = push_all(runs_dir, place)
    assert statuses(sent) == {"run-0": "failed", "run-1": "sent", "run-2": "sent"}
    assert "not a SQLite database" in str(sent[0].error)
    (tmp_path / "there" / "run-1" / MANIFEST_NAME).write_text("{", "utf-8")
    fetched = pull_all(place, tmp_path / "here")
    assert statuses(fetched) == {"run-1": "failed", "run-2": "fetched"}
    manifests_by_run = manifests(place)
    assert "not JSON" in str(manifests_by_run["run-1"])


def test_a_later_state_there_is_left_as_it_is(three: list[Path], runs_dir: Path, tmp_path: Path) -> None:
    place = Place(str(tmp_path / "there"))
    earlier = Path(shutil.copytree(runs_dir, tmp_path / "earlier"))
    annotate(three[0], state="stopped")
    push_all(runs_dir, place)
    assert statuses(push_all(earlier, place)) == {"run-0": "later there", "run-1": "unchanged", "run-2": "unchanged"}


def test_the_commands_say_what_moved_as_text_and_as_json(three: list[Path], runs_dir: Path, tmp_path: Path) -> None:
    there = str(tmp_path / "there")
    report = document(run(runs_dir, "push", "run-0", there, "--json"))
    assert report["url"] == there
    assert [(row["id"], row["status"], row["error"]) for row in report["runs"]] == [("run-0", "sent", None)]
    report = document(run(runs_dir, "sync", there, "--json"))
    assert [row["status"] for row in report["runs"]] == ["unchanged", "sent", "sent"]
    here = tmp_path / "here"
    assert document(run(here, "pull", f"{there}/run-1/", "--json"))["runs"][0]["status"] == "fetched"
    assert document(run(here, "pull", there, "run-1", "run-2", "--json"))["runs"][0]["status"] == "unchanged"
    assert "run-0" in run(here, "sync", there, "--pull").stdout
    assert [row["status"] for row in document(run(here, "pull", there, "--all", "--json"))["runs"]] == ["unchanged"] * 3
    summary = document(run(here, "show", "run-1", "--json"))
    assert summary["status"] == "finished"
    assert document(run(runs_dir, "push", "run-0", f"{there}/run-0", "--json"))["runs"][0]["status"] == "unchanged"


def test_a_failed_run_of_several_is_exit_code_1(three: list[Path], runs_dir: Path, tmp_path: Path) -> None:
    (three[0] / "run.db").write_bytes(b"x" * 200)
    result = run(runs_dir, "sync", str(tmp_path / "there"), "--json")
    assert result.exit_code == 1
    assert [row["status"] for row in json.loads(result.stdout)["runs"]] == ["failed", "sent", "sent"]


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no URL": (("push", "run-0"), "push run-0: needs the id of a run and a URL"),
    "no such run": (("push", "run-9", "THERE"), "no run 'run-9'"),
    "an unknown protocol": (
        ("push", "run-0", "nosuch://x"),
        "nosuch://x cannot be used (ValueError: Protocol not known",
    ),
    "a folder of runs": (
        ("pull", "THERE"),
        "is a folder of 3 runs (run-0, run-1, run-2); name some of them, or add --all",
    ),
    "folders that are no runs": (("pull", "THERE/.."), "holds no run; look at the address"),
    "the root of the disk": (("pull", "file:///"), "URL file:///: holds no run; look at the address"),
    "nothing there": (("pull", "THERE/nothing"), "holds no run; look at the address"),
    "nothing of that id": (("pull", "THERE", "run-7"), "has no run 'run-7'; look at the address"),
    "all and some": (("pull", "THERE", "run-1", "--all"), "--all: fetches every run, so no ID may be given"),
    "a chain": (("sync", "zip://a::s3://b"), "is not the address of a folder"),
    "fetching without": (("sync", "THERE", "--pull", "--with-checkpoint"), "--with-checkpoint: is for sending alone"),
    "sending over": (("sync", "THERE", "--replace"), "--replace: is for --pull alone"),
    "an empty place": (("sync", "THERE/nothing", "--pull"), "has no runs; look at the address"),
}


@pytest.mark.parametrize("case", list(MISTAKES))
def test_a_mistake_is_one_sentence(case: str, three: list[Path], runs_dir: Path, tmp_path: Path) -> None:
    push_all(runs_dir, Place(str(tmp_path / "there")))
    arguments, message = MISTAKES[case]
    target = tmp_path / "here" if arguments[0] == "pull" else runs_dir
    result = run(target, *(part.replace("THERE", str(tmp_path / "there")) for part in arguments))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["runs", "doctor", "train"])
def test_other_commands_refuse_an_address_as_their_runs_folder(command: str) -> None:
    from click.testing import CliRunner

    from dynlora.cli.main import main

    result = CliRunner().invoke(main, [command, "--runs-dir", "s3://me:secret@bucket/runs"])
    assert result.exit_code == 2
    assert "--runs-dir s3://bucket/runs: must be a folder of this machine" in result.stderr


RUNS_FOLDERS = {
    "the runs folder itself": (("push", "run-0", "RUNS"), "is a folder that runs are trained in; give another one"),
    "by another name": (("push", "run-0", "file://RUNS/../RUNS-LINK"), "is a folder that runs are trained in"),
    "the run's own folder": (("push", "run-0", "RUNS/run-0"), "is a folder that runs are trained in"),
    "within a run": (("push", "run-0", "RUNS/run-1/sent"), "is in the folder of the run run-1"),
    "another runs folder": (("push", "run-0", "OTHER"), "is a folder that runs are trained in"),
    "sync into itself": (("sync", "RUNS"), "is a folder that runs are trained in"),
    "sync into a run": (("sync", "OTHER/other"), "is in the folder of the run other"),
}


@pytest.mark.parametrize("case", list(RUNS_FOLDERS))
def test_a_folder_that_runs_are_trained_in_is_no_target(
    case: str, three: list[Path], runs_dir: Path, tmp_path: Path
) -> None:
    finished_run(tmp_path / "trained", 20, "other")
    (runs_dir.parent / "link").symlink_to(runs_dir)
    old = runs_dir / "run-0" / "mine-0123456789abcdef.json"
    old.write_text("an old file of the run's", "utf-8")
    os.utime(old, (0, 0))
    names = {"RUNS-LINK": "link", "RUNS": str(runs_dir), "OTHER": str(tmp_path / "trained")}
    arguments, message = RUNS_FOLDERS[case]
    for name, path in names.items():
        arguments = tuple(part.replace(name, path) for part in arguments)
    before = tree_of(runs_dir), tree_of(tmp_path / "trained")
    result = run(runs_dir, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert (tree_of(runs_dir), tree_of(tmp_path / "trained")) == before


def test_a_run_is_never_sent_over_one_that_is_trained_wherever_that_is(three: list[Path], runs_dir: Path) -> None:
    for url in (str(runs_dir), "memory://trained"):
        place = Place(url)
        place.put(three[0] / "run.db", "run-0/run.db")
        with pytest.raises(ConfigError, match="is the folder of a run that is trained there"):
            push(three[0], place)
        assert sorted(place.below("run-0").sizes()) == sorted(tree_of(three[0]) if place.is_local else ["run.db"])


@pytest.mark.parametrize("command", [("push", "run-0"), ("sync",)])
def test_runs_are_not_sent_to_the_memory_of_a_command(
    command: tuple[str, ...], three: list[Path], runs_dir: Path
) -> None:
    result = run(runs_dir, *command, "memory://gone")
    assert result.exit_code == 2
    assert "URL memory://gone: is the memory of this command" in result.stderr


def test_the_root_of_a_disk_is_no_relative_folder(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in (f"file://{tmp_path}/", f"file://localhost{tmp_path}", f"{tmp_path}//"):
        assert Place(url).root == str(tmp_path)
    assert Place("file:///").root == ""
    with pytest.raises(ConfigError, match="URL 's3:': is not the address of a folder"):
        Place("s3://")


def test_sync_goes_on_until_it_is_stopped(
    three: list[Path], runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        annotate_notes(three[0], note=f"look {len(waits)}")
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("dynlora.cli.remote.time.sleep", sleep)
    result = run(runs_dir, "sync", str(tmp_path / "there"), "--every", "30", "--json")
    assert result.exit_code == 0
    looks = [[row["status"] for row in json.loads(line)["runs"]] for line in result.stdout.splitlines()]
    assert looks == [["sent"] * 3, ["sent", "unchanged", "unchanged"], ["sent", "unchanged", "unchanged"]]
    assert waits == [30.0] * 3


def test_a_place_that_is_away_for_a_while_ends_no_sync(
    three: list[Path], runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, folders = 0, Place.folders

    def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        annotate_notes(three[0], note=f"look {looks}")
        if looks == 4:
            raise KeyboardInterrupt

    def away_at_times(place: Place) -> list[str]:
        if looks in (1, 2):
            raise RemoteError(f"{place.address} cannot be used (OSError: no route)")
        return folders(place)

    monkeypatch.setattr("dynlora.cli.remote.time.sleep", sleep)
    monkeypatch.setattr(Place, "folders", away_at_times)
    there = tmp_path / "there"
    result = run(runs_dir, "sync", str(there), "--every", "30", "--json")
    assert result.exit_code == 0, result.stderr
    lines = [[row["status"] for row in json.loads(line)["runs"]] for line in result.stdout.splitlines()]
    assert lines == [["sent"] * 3, ["sent", "unchanged", "unchanged"]]
    assert (looks, result.stderr.count("next check in 30 s")) == (4, 1)


def test_a_place_that_cannot_be_reached_is_said_once(runs_dir: Path, three: list[Path]) -> None:
    with pytest.raises(RemoteError, match="cannot be used"):
        push_all(runs_dir, Place("ftp://127.0.0.1:9/runs"))
    assert open_run(three[0]).status == "finished"
