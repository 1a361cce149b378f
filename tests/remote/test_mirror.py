"""A dashboard of runs that are elsewhere: a copy that follows them, without weights, that nobody can change."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from dynlora.cli.main import main
from dynlora.errors import RemoteError
from dynlora.jobs import environment
from dynlora.remote import sync
from dynlora.remote.place import Place
from dynlora.remote.sync import Mirror, pull, push
from dynlora.server import serve
from dynlora.store.catalogue import run_rows
from dynlora.store.run import open_run
from dynlora.store.writer import RunWriter
from dynlora.viz.ui import run_picker
from tests.pages.app import open_page, words
from tests.remote.places import tree_of
from tests.store.builder import define, finished_run, new_run, record
from tests.waiting import until


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(f"memory://{tmp_path.name}/runs")


def test_it_holds_what_is_there_and_no_weights(place: Place, runs_dir: Path) -> None:
    folder = finished_run(runs_dir, 20, "run-1")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "state.json").write_text('{"format": 1, "state": {}}', "utf-8")
    (folder / "adapter" / "tensors.safetensors").write_bytes(bytes(1000))
    push(folder, place)
    push(finished_run(runs_dir, 20, "run-2"), place)
    mirror = Mirror(place.address)
    assert sorted(one.id for one in mirror.refresh()) == ["run-1", "run-2"]
    assert not [name for name in tree_of(mirror.folder) if "adapter" in name or "tables" in name]
    assert {row["id"]: row["status"] for row in run_rows(mirror.folder)} == {"run-1": "finished", "run-2": "finished"}
    for name in place.below("run-2").sizes():
        place.fs.rm_file(f"{place.root}/run-2/{name}")
    assert mirror.refresh() == []
    assert [row["id"] for row in run_rows(mirror.folder)] == ["run-1"], "what is not there any more goes"


def test_a_run_that_trains_elsewhere_is_shown_running(place: Place, runs_dir: Path) -> None:
    folder = new_run(runs_dir, "run-1")
    mirror = Mirror(place.address)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 1, 20)
        writer.commit()
        push(folder, place)
        mirror.refresh()
        assert open_run(mirror.folder / "run-1").status == "running"
        record(writer, 21, 30)
        writer.finish("finished")
    push(folder, place)
    assert [one.status for one in mirror.refresh()] == ["updated"]
    assert open_run(mirror.folder / "run-1").summary["step"] == 30


def test_it_follows_by_itself_and_a_place_that_is_gone_keeps_what_was_there(
    place: Place, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sync, "EVERY_S", 0.01)
    monkeypatch.setattr(sync, "REST", 0.0)
    push(finished_run(runs_dir, 20, "run-1"), place)
    mirror, failed = Mirror(place.address), []

    def visible_runs() -> set[str]:
        return {row["id"] for row in run_rows(mirror.folder) if row["status"] == "finished"}

    def gone() -> object:
        failed.append("it is gone")
        raise RemoteError("it is gone")

    stop = mirror.start()
    until(lambda: visible_runs() == {"run-1"})
    push(finished_run(runs_dir, 20, "run-2"), place)
    until(lambda: visible_runs() == {"run-1", "run-2"})
    monkeypatch.setattr(mirror, "refresh", gone)
    until(lambda: len(failed) > 5)
    stop.set()
    assert caplog.text.count("it is gone") == 1, "said once while it stays so"
    assert visible_runs() == {"run-1", "run-2"}


def test_a_page_of_a_copy_says_what_it_is_and_starts_nothing(
    place: Place, runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(finished_run(runs_dir, 20, "run-1", name="the run that is shown"), place)
    mirror = Mirror(place.address)
    mirror.refresh()
    variables, notice = serve.server_environment(mirror.folder, "127.0.0.1", "0123456789abcdef-token", place.address)
    assert notice == ""
    for name in (run_picker.READ_ONLY_VARIABLE, run_picker.RUNS_DIR_VARIABLE, environment.MIRROR_VARIABLE):
        monkeypatch.setenv(name, variables[name])
    assert environment.TOKEN_VARIABLE not in variables, "no token unlocks a copy"
    app = open_page("launch")
    assert "Read-only copy of" in words(app)
    assert "Start" not in [button.label for button in app.button]
    assert not app.sidebar.text_input
    before = tree_of(mirror.folder)
    assert open_page("run", run="run-1").selectbox[0].value == "run-1"
    assert [name for name in tree_of(mirror.folder) if name not in before] == []


def test_the_command_serves_a_copy_read_only(place: Place, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(finished_run(runs_dir, 20, "run-1"), place)
    call: dict[str, object] = {}

    def ui(**options: object) -> int:
        call.update(options)
        return 0

    monkeypatch.setattr(serve, "ui", ui)
    monkeypatch.setattr(Mirror, "start", lambda self: self.refresh())
    result = CliRunner().invoke(main, ["ui", "--runs-dir", place.address, "--port", "0"])
    assert result.exit_code == 0, result.output
    assert call["mirror_of"] == place.address
    assert call["runs_dir"] == Mirror(place.address).folder
    assert f"read-only copy of {place.address} (runs there: 1), in " in result.stderr
    result = CliRunner().invoke(main, ["ui", "--runs-dir", "nosuch://x"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_a_copy_that_somebody_changed_is_made_again(place: Place, runs_dir: Path) -> None:
    push(finished_run(runs_dir, 20, "run-1"), place)
    mirror = Mirror(place.address)
    mirror.refresh()
    (mirror.folder / "run-1" / "config.yaml").write_text("seed: 2\n", "utf-8")
    assert pull(place, "run-1", mirror.folder, is_mirror=True).status == "updated"
    assert (mirror.folder / "run-1" / "config.yaml").read_text("utf-8") == "seed: 1\n"
