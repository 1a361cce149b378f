"""A run is written to the trackers that are installed while it trains, and trains as it would without them."""

from __future__ import annotations

import json
import math
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import dynlora
from dynlora.errors import ConfigError
from dynlora.integrations.trackers.base import FOLDER
from dynlora.jobs.trackers import KNOWN, TrackerProcess, check_trackers
from dynlora.store import queries
from dynlora.store.notes import TRACKERS_NAME, Written, read_trackers, write_trackers
from tests.command_line import run as run_command
from tests.integrations import tracked
from tests.integrations.tracked import EVALUATED, STEPS, TRACKERS, in_tensorboard, numbers, rows, stored
from tests.store.builder import finished_run

PNG = b"\x89PNG\r\n"


def place(run: Path, name: str) -> Path:
    """The folder of a tracker in the runs folder."""
    return run.parent / FOLDER / name


def of_tensorboard(run: Path) -> Path:
    """The folder of the run's event files."""
    return place(run, "tensorboard") / str(read_trackers(run)["tensorboard"].run)


def test_every_tracker_has_the_run_to_its_end(tracked_run: Path) -> None:
    trackers = read_trackers(tracked_run)
    assert {name: (one.step, one.error) for name, one in trackers.items()} == dict.fromkeys(TRACKERS, (STEPS, None))
    assert list(queries.events_frame(tracked_run, ["warning"])["payload"]) == []


def test_event_files_hold_each_number_once(tracked_run: Path) -> None:
    points = numbers(in_tensorboard(of_tensorboard(tracked_run)))
    assert len(list(of_tensorboard(tracked_run).iterdir())) == 2, "a resumed run is another file in the same folder"
    assert [point[:2] for point in points] == [point[:2] for point in stored(tracked_run)]
    assert [point[2] for point in points] == pytest.approx([point[2] for point in stored(tracked_run)], rel=1e-6)


def test_trackio_holds_each_number_once_in_one_run(tracked_run: Path) -> None:
    file = place(tracked_run, "trackio") / "dynlora.db"
    assert len(rows(file, "SELECT DISTINCT run_id FROM metrics")) == 1
    logged = [(json.loads(text), step) for step, text in rows(file, "SELECT step, metrics FROM metrics")]
    points = [(name, step, value) for values, step in logged for name, value in values.items()]
    assert numbers([point for point in points if not isinstance(point[2], dict)]) == stored(tracked_run)
    pictures = [step for values, step in logged if any(isinstance(value, dict) for value in values.values())]
    assert sorted(pictures) == list(EVALUATED)


def test_mlflow_holds_each_number_once_in_one_run(tracked_run: Path) -> None:
    file = place(tracked_run, "mlflow") / "mlflow.db"
    assert rows(file, "SELECT status FROM runs") == [("FINISHED",)]
    points = [
        (str(key), int(step), float(value)) for key, step, value in rows(file, "SELECT key, step, value FROM metrics")
    ]
    assert numbers(points) == stored(tracked_run)
    params = dict(rows(file, "SELECT key, value FROM params"))
    assert (params["strategy.name"], params["train.steps"]) == ("dynamic", str(STEPS))
    pictures = sorted(place(tracked_run, "mlflow").rglob("*.png"))
    assert len(pictures) == len(EVALUATED)
    assert all(path.read_bytes().startswith(PNG) for path in pictures)


def test_weights_and_biases_is_offline_and_holds_each_number_once(tracked_run: Path) -> None:
    files = sorted(place(tracked_run, "wandb").glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2, "a folder for each start, of one id"
    points: tracked.Points = []
    for file in files:
        assert file.name == f"run-{tracked_run.name}.wandb"
        for record in tracked.wandb_records(file):
            items = {
                item.nested_key[0] if item.nested_key else item.key: item.value_json for item in record.history.item
            }
            step = record.history.step.num
            points += [(key, step, json.loads(text)) for key, text in items.items() if key[0] != "_"]
    assert numbers(points) == stored(tracked_run)
    assert sorted(step for key, step, _ in points if key.startswith("capacity")) == list(EVALUATED)


def test_families_of_modules_have_the_sum_of_ranks_and_their_fraction_of_importance(tracked_run: Path) -> None:
    values = {(name, step): value for name, step, value in in_tensorboard(of_tensorboard(tracked_run))}
    run = dynlora.open_run(tracked_run)
    kinds = list(dict.fromkeys(run.modules["kind"]))
    for step in (0, 3, 4, 6, 8, 9, 12):
        for signal in ("rank", "importance"):
            frame = run.signal(signal).set_index("step").loc[step]
            whole = float(frame.to_numpy().sum()) if signal == "importance" else 1.0
            for kind in kinds:
                names = run.modules.loc[run.modules["kind"] == kind, "name"]
                expected = frame[names].sum() / whole if whole else math.nan
                assert values.get((f"{signal}/{kind}", step), math.nan) == pytest.approx(
                    expected, nan_ok=True, rel=1e-5
                )
    assert not any(step in (1, 2, 5, 7) for name, step in values if name.startswith("rank/")), "every log.every steps"


def test_the_capacity_map_is_a_picture_at_each_evaluation(tracked_run: Path) -> None:
    pictures = {
        event.step: value.image
        for event in tracked.events(of_tensorboard(tracked_run))
        for value in event.summary.value
        if value.tag == "capacity/ranks"
    }
    assert sorted(pictures) == list(EVALUATED)
    assert all(one.encoded_image_string.startswith(PNG) and one.width > 100 for one in pictures.values())


def test_trackers_change_nothing_that_is_learned(
    tracked_run: Path, tiny_bert: Path, tiny_data: Path, runs_dir: Path
) -> None:
    plain = dynlora.train(tracked.config(tiny_bert, tiny_data, None), runs_dir, progress=False)
    mine, theirs = (sorted((folder / "adapter").glob("*.safetensors")) for folder in (tracked_run, plain.folder))
    assert mine
    for one, other in zip(mine, theirs, strict=True):
        tensors = load_file(other)
        assert all(np.array_equal(tensor, tensors[name]) for name, tensor in load_file(one).items())
    assert not (runs_dir / FOLDER).exists()
    assert read_trackers(plain.folder) == {}


def test_show_names_where_the_trackers_are(tracked_run: Path) -> None:
    text = run_command(tracked_run.parent, "show", tracked_run.name).stdout
    assert all(str(place(tracked_run, name)) in text for name in TRACKERS)


def test_a_broken_tracker_is_one_warning_and_the_run_finishes(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "file"))
    run = dynlora.train(tracked.config(tiny_bert, tiny_data, ("tensorboard",)), runs_dir, progress=False)
    assert run.status == "finished"
    [warning] = queries.events_frame(run.folder, ["warning"])["payload"]
    assert warning["message"].startswith("log.to=tensorboard: ")
    assert "training continues" in warning["message"]
    assert f"`dynlora track {run.folder.name} --to tensorboard --runs-dir {run.folder.parent}`" in warning["message"]

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    again = run_command(runs_dir, "track", run.folder.name)
    assert (again.exit_code, read_trackers(run.folder)["tensorboard"].error) == (0, None)
    assert numbers(in_tensorboard(of_tensorboard(run.folder)))[-1][1] == STEPS


def test_what_goes_wrong_is_said_once_while_the_run_trains(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynlora.jobs.trackers.LOOK_EVERY_S", 0.0)
    folder = finished_run(runs_dir)
    write_trackers(folder, {"mlflow": Written(place="a place", error="of another time")})
    monkeypatch.setattr("dynlora.jobs.trackers.track_command", lambda *_: ["false"])
    messages: list[str] = []
    process = TrackerProcess(folder)
    process.start(("mlflow",), messages.append)
    process.wait()
    for _ in range(3):
        process.look()
    assert messages == []
    [event] = queries.events_frame(folder, ["warning"])["payload"]
    assert event["message"].startswith("log.to=mlflow: its process ended with code 1, see trackers.log")


def test_a_tracker_that_is_not_installed_is_refused_in_a_sentence_before_anything_is_made(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(_: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr("dynlora.jobs.trackers.metadata.version", version)
    refused = run_command(runs_dir, "train", "--set", "log.to=[mlflow]")
    assert (refused.exit_code, list(runs_dir.iterdir())) == (2, [])
    assert refused.stderr == "Error: log.to=mlflow: MLflow is not installed; pip install 'dynlora[mlflow]'\n"


def test_a_tracker_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynlora.jobs.trackers.metadata.version", lambda name: "0.0.1")
    with pytest.raises(
        ConfigError, match=r"log\.to=trackio: trackio 0\.0\.1 is older .* --upgrade 'dynlora\[trackio\]'"
    ):
        check_trackers(["trackio"])
    check_trackers(None)


def test_the_extras_bring_what_is_asked_for() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    for name, known in KNOWN.items():
        assert list(known.needs) == project["optional-dependencies"][name]


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2}', '{"format": 1, "trackers": {"a": 3}}', "{" * 9999])
def test_notes_that_are_no_notes_count_as_none(content: str, tmp_path: Path) -> None:
    (tmp_path / TRACKERS_NAME).write_text(content)
    assert read_trackers(tmp_path) == {}
    (tmp_path / TRACKERS_NAME).unlink()
    (tmp_path / TRACKERS_NAME).symlink_to("/etc/passwd")
    assert read_trackers(tmp_path) == {}


def test_a_run_without_trackers_asks_for_one(runs_dir: Path) -> None:
    folder = finished_run(runs_dir)
    refused = run_command(runs_dir, "track", folder.name)
    assert (refused.exit_code, "--to: the run has no log.to" in refused.stderr) == (2, True)
