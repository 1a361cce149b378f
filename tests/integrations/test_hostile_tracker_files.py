"""Files of trackers may come from anybody: links, pipes, damage and code in them end in a sentence, or are left out."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from dynlora.cli.main import main
from dynlora.errors import DataError
from dynlora.integrations.tracker_files import import_runs
from dynlora.integrations.tracker_files import tensorboard as event_files
from dynlora.integrations.tracker_files.import_runs import import_run
from dynlora.integrations.tracker_files.tensorboard import tensorboard_runs
from dynlora.integrations.trackers.tensorboard import Event, Summary
from dynlora.store import queries

EVENTS = "events.out.tfevents.1.here"


def framed(*events: bytes) -> bytes:
    """Return records as an event file holds them."""
    return b"".join(
        (head := struct.pack("<Q", len(event)))
        + struct.pack("<I", masked_crc32c(head))
        + event
        + struct.pack("<I", masked_crc32c(event))
        for event in events
    )


def number(tag: str, step: int, value: float) -> bytes:
    return Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])).SerializeToString()


def refused(*arguments: str) -> str:
    """Return the sentence with which an import is refused."""
    done = CliRunner().invoke(main, ["import", *arguments, "--runs-dir", "nowhere"])
    assert done.exit_code == 2, done.stdout
    assert done.stderr.count("\n") == 1
    assert not Path("nowhere").exists()
    return done.stderr


@pytest.mark.parametrize(("name", "title"), [("trackio", "Trackio"), ("mlflow", "MLflow")])
def test_a_store_of_another_tracker_is_a_sentence_with_the_remedy(name: str, title: str) -> None:
    for arguments in ((), ("mine.db",), ("mine.db", "--experiment", "mine"), ("--help",)):
        assert refused(name, *arguments) == (
            f"Error: import {name}: runs of {title} are not read; write event files of TensorBoard, "
            "and import them with dynlora import tensorboard FOLDER\n"
        )


def test_a_folder_without_event_files_is_a_sentence(tmp_path: Path) -> None:
    assert "no event files of TensorBoard" in refused("tensorboard", str(tmp_path))


def test_names_are_printable_and_steps_from_0_on(tmp_path: Path, runs_dir: Path) -> None:
    (tmp_path / EVENTS).write_bytes(
        framed(
            number("a", 1, float("nan")),
            number("a", -1, 1.0),
            number("a", 2**63 - 1, 1.0),
            *(number(name, 6, 2.0) for name in ("x" * 5000, "\x1b[31m\n", "")),
        )
    )
    [run] = tensorboard_runs(tmp_path)
    assert repr(run.series["a"]) == "{1: nan}"
    assert all(len(name) <= import_runs.LONGEST_NAME and name.isprintable() for name in run.series)
    row = import_run(run, runs_dir)
    assert any("without a step" in note for note in row.notes)
    assert len(queries.scalars_frame(runs_dir / row.id)) == 4


def test_links_pipes_and_damage_among_event_files_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    whole = framed(number("loss", 1, 0.5), number("loss", 2, 0.25))
    (folder / f"{EVENTS}.0").write_bytes(whole)
    (folder / f"{EVENTS}.1").write_bytes(whole[: len(whole) - 3])
    (folder / f"{EVENTS}.2").write_bytes(framed(number("other", 1, 1.0)) + b"\0" * 40)
    (folder / f"{EVENTS}.3").write_bytes(framed(b"\xff" * 9))
    (folder / f"{EVENTS}.4").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / f"{EVENTS}.5")
    (tmp_path / "beyond").mkdir()
    (tmp_path / "beyond" / EVENTS).write_bytes(whole)
    (folder / "link").symlink_to(tmp_path / "beyond", target_is_directory=True)
    [run] = tensorboard_runs(folder)
    assert run.series == {"loss": {1: 0.5, 2: 0.25}, "other": {1: 1.0}}
    assert [note.split(" ")[0] for note in run.notes] == [f"{EVENTS}.{number}" for number in (2, 3, 4, 5)]


def spoiled(content: bytes) -> bytes:
    """Return event files whose last checksum is another's."""
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("kind", ["garbage", "checksum", "pipe"])
def test_damage_is_said_also_where_nothing_is_left_to_import(kind: str, tmp_path: Path) -> None:
    """It was passed over without a word, as if there were no runs."""
    folder = tmp_path / "logs"
    folder.mkdir()
    if kind == "pipe":
        os.mkfifo(folder / EVENTS)
    else:
        content = {"garbage": b"\xff" * 4096, "checksum": spoiled(framed(number("loss", 1, 0.5)))}[kind]
        (folder / EVENTS).write_bytes(content)
    message = refused("tensorboard", str(folder))
    assert "nothing was imported; logs: " in message
    assert f"{EVENTS} is " in message
    whole = folder / "run"
    whole.mkdir()
    (whole / EVENTS).write_bytes(framed(number("loss", 1, 0.5)))
    result = CliRunner().invoke(main, ["import", "tensorboard", str(folder), "--runs-dir", str(tmp_path / "runs")])
    assert result.exit_code == 0
    assert f"logs: {EVENTS} is " in result.output


def test_a_run_without_one_number_is_no_empty_run(tmp_path: Path) -> None:
    (tmp_path / EVENTS).write_bytes(framed(number("loss", -1, 0.5)))
    assert "are left out; give a file that is whole" in refused("tensorboard", str(tmp_path))


def test_a_record_that_says_it_is_huge_is_damage(tmp_path: Path) -> None:
    head = struct.pack("<Q", 2**62)
    (tmp_path / EVENTS).write_bytes(framed(number("loss", 1, 1.0)) + head + struct.pack("<I", masked_crc32c(head)))
    [run] = tensorboard_runs(tmp_path)
    assert run.series == {"loss": {1: 1.0}}
    assert "is damaged" in run.notes[0]


@settings(max_examples=60)
@given(noise=st.binary(max_size=200), place=st.integers(0, 400), length=st.integers(0, 40))
def test_damaged_event_files_never_raise(
    noise: bytes, place: int, length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    whole = framed(*(number(f"train/{name}", step, 0.5) for name in ("loss", "lr") for step in range(4)))
    place %= len(whole)
    (folder / EVENTS).write_bytes(whole[:place] + noise + whole[place + length :])
    for run in tensorboard_runs(folder):
        assert all(value == 0.5 for name in ("train/loss", "train/lr") for value in run.series.get(name, {}).values())


def test_what_would_fill_the_memory_is_passed_over(tmp_path: Path) -> None:
    """A tensor of one number that says it has 2^40, and a record of nothing but empty values."""
    value = Summary.Value(tag="loss")
    value.metadata.plugin_data.plugin_name = "scalars"
    value.tensor.dtype = 1  # a float
    value.tensor.float_val.append(1.0)
    value.tensor.tensor_shape.dim.add(size=2**40)
    huge = Event(step=1, summary=Summary(value=[value]))
    empty = b"\x2a" + varint(2 * 2**22) + b"\x0a\x00" * 2**22  # a summary of 4 million values
    (tmp_path / EVENTS).write_bytes(framed(huge.SerializeToString(), empty, number("loss", 2, 0.5)))
    tracemalloc.start()
    try:
        [run] = tensorboard_runs(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    assert (run.series, run.notes) == ({"loss": {2: 0.5}}, [])


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    return bytes([value % 128 + 128]) + varint(value // 128) if value > 127 else bytes([value])


def test_event_files_that_take_too_long_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / EVENTS).write_bytes(framed(*(number("loss", step, 1.0) for step in range(9))))
    monkeypatch.setattr(event_files, "PATIENCE_S", -1.0)
    runs = list(tensorboard_runs(tmp_path))
    assert [run.series for run in runs] == [{"loss": {0: 1.0}}] * 2
    assert all("the rest is left out" in run.notes[0] for run in runs)
    monkeypatch.setattr(event_files, "MOST_S", -1.0)
    with pytest.raises(DataError, match="takes longer than"):
        list(tensorboard_runs(tmp_path))


def test_a_run_has_no_more_names_and_numbers_than_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_runs, "MAX_SERIES", 3)
    monkeypatch.setattr(import_runs, "MAX_VALUES", 5)
    monkeypatch.setattr(event_files, "MAX_FILE_BYTES", 10_000)
    (tmp_path / EVENTS).write_bytes(framed(*(number(f"m{step % 7}", step, 1.0) for step in range(40))))
    [run] = tensorboard_runs(tmp_path)
    assert sum(map(len, run.series.values())) == 5
    assert len(run.series) == 3
    assert len(run.notes) == 2
