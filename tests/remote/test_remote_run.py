"""`open_run` of an address: the frames of the run itself, of tables that are fetched when they are asked for."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import dynlora
from dynlora.errors import ConfigError, CorruptRunError, RemoteError, RunNotFoundError
from dynlora.notebook.run import open_run
from dynlora.remote.place import Place
from dynlora.remote.sync import push
from dynlora.store.writer import RunWriter
from tests.store.builder import define, finished_run, new_run, record


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are fetched, in order, without their digests."""
    names: list[str] = []
    fetch = Place.fetch

    def noted(place: Place, name: str, target: Path, size: int, sha256: str) -> None:
        names.append(name.rpartition("-")[0])
        fetch(place, name, target, size, sha256)

    monkeypatch.setattr(Place, "fetch", noted)
    return names


def sent(tmp_path: Path, folder: Path) -> str:
    """Send a run and return its address."""
    place = Place(f"memory://{tmp_path.name}/runs")
    push(folder, place)
    return f"memory://{tmp_path.name}/runs/{folder.name}"


def test_its_frames_are_those_of_the_run(runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir, 700)
    there, here = dynlora.open_run(sent(tmp_path, folder)), open_run(folder)
    assert (there.id, there.status, there.signals(), there.recorded()) == (
        here.id,
        here.status,
        here.signals(),
        here.recorded(),
    )
    assert there.config == here.config
    for left, right in (
        (there.modules, here.modules),
        (there.scalars(), here.scalars()),
        (there.scalars("loss", "train"), here.scalars("loss", "train")),
        (there.events(), here.events()),
        (there.events("reallocate"), here.events("reallocate")),
        (there.groups(), here.groups()),
        (there.examples(), here.examples()),
        (there.signal("rank"), here.signal("rank")),
        (there.signal("importance", 10, 300), here.signal("importance", 10, 300)),
        (there.signal("importance", max_points=30), here.signal("importance", max_points=30)),
    ):
        pd.testing.assert_frame_equal(left, right)
    assert {key: value for key, value in there.summary.items() if key not in ("folder", "heartbeat_age_s")} == {
        key: value for key, value in here.summary.items() if key not in ("folder", "heartbeat_age_s")
    }
    assert repr(there) == f"RemoteRun('memory://{tmp_path.name}/runs/{folder.name}', status='finished')"


def test_tables_are_fetched_when_they_are_asked_for_and_weights_never(
    runs_dir: Path, tmp_path: Path, fetched: list[str]
) -> None:
    folder = finished_run(runs_dir)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "state.json").write_text('{"format": 1, "state": {}}', "utf-8")
    (folder / "adapter" / "tensors.safetensors").write_bytes(bytes(1000))
    run = dynlora.open_run(sent(tmp_path, folder))
    assert run.status == "finished"
    assert not run.events().empty
    assert not {"tables/vectors", "tables/scalars", "tables/rollups"} & set(fetched)
    run.signal("rank")
    assert fetched[-2:] == ["tables/rollups", "tables/vectors"]
    assert "tables/scalars" not in fetched
    run.scalars()
    assert len(fetched) == len(set(fetched)), "nothing is fetched twice"
    assert not [name for name in fetched if not name.startswith("tables/")]


def test_each_call_reads_what_is_there_now(runs_dir: Path, tmp_path: Path, fetched: list[str]) -> None:
    folder = new_run(runs_dir)
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 1, 20)
        writer.commit()
        run = dynlora.open_run(sent(tmp_path, folder))
        assert (run.status, len(run.signal("rank"))) == ("running", 20)
        record(writer, 21, 30)
        writer.finish("finished")
    sent(tmp_path, folder)
    fetched.clear()
    assert (run.status, len(run.signal("rank")), len(run.scalars("loss"))) == ("finished", 30, 30)
    assert "tables/modules" not in fetched, "what did not change is not fetched again"


def test_its_figures_and_its_card_are_those_of_the_run(runs_dir: Path, tmp_path: Path) -> None:
    folder = finished_run(runs_dir, 60)
    there, here = dynlora.open_run(sent(tmp_path, folder)), open_run(folder)
    plots = there.plot
    assert plots.training("loss").to_json() == here.plot.training("loss").to_json()
    assert plots.training("loss").caption == here.plot.training("loss").caption
    assert there._repr_html_() == here._repr_html_()
    other = finished_run(runs_dir, 60, "another")
    comparison = dynlora.compare([there, other])
    assert list(comparison.folders) == [folder.name, "another"]
    assert sorted(path.name for path in there.folder.iterdir()) == ["config.yaml", "run.db", "train.log"]
    with RunWriter.open(folder, resume_from=60) as writer:
        record(writer, 61, 80)
        writer.finish("finished")
    sent(tmp_path, folder)
    assert there.status == "finished"
    assert plots.training("loss").to_json() == here.plot.training("loss").to_json(), "figures go on with the run"


def test_what_was_fetched_goes_with_the_object(runs_dir: Path, tmp_path: Path) -> None:
    run = dynlora.open_run(sent(tmp_path, finished_run(runs_dir)))
    folder = run.folder
    assert folder.exists()
    del run
    assert not folder.exists()


@pytest.mark.slow
def test_its_adapter_is_loaded(trained_run: Path, tmp_path: Path) -> None:
    from dynlora.inference.session import load_run

    run = dynlora.open_run(sent(tmp_path, trained_run))
    assert run.load().answers(["a great film"]) == load_run(trained_run).answers(["a great film"])


def test_what_is_no_run_is_one_sentence(runs_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="has no run 'nothing'"):
        dynlora.open_run(f"memory://{tmp_path.name}/runs/nothing")
    with pytest.raises(ConfigError, match="run id 'a b' cannot be used"):
        dynlora.open_run(f"memory://{tmp_path.name}/runs/a b")
    with pytest.raises(RunNotFoundError):
        dynlora.open_run(tmp_path / "nothing")
    folder = finished_run(runs_dir)
    url = sent(tmp_path, folder)
    place = Place(url)
    name = next(name for name in place.sizes() if "vectors" in name)
    place.fs.pipe_file(f"{place.root}/{name}", bytes(place.sizes()[name]))
    run = dynlora.open_run(url)
    assert run.status == "finished", "what is not asked for is not looked at"
    with pytest.raises(CorruptRunError, match="its digest differs"):
        run.signal("rank")
