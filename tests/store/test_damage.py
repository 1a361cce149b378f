"""A store that was cut anywhere or has bits flipped, closed or in the middle of being written: refused, or right."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynlora.errors import DynloraError
from dynlora.store import catalogue
from dynlora.store.writer import RunWriter
from tests.store.builder import define, finished_run, new_run, read_all, record

pytestmark = pytest.mark.slow  # together

STEPS = 60
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: one file."""
    return finished_run(tmp_path_factory.mktemp("closed"), STEPS)


@pytest.fixture(scope="module")
def caught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of a run in the middle of being written: the database and its log of what is not in it yet."""
    folder = new_run(tmp_path_factory.mktemp("open"))
    with RunWriter.open(folder, resume_from=None) as writer:
        define(writer)
        record(writer, 0, STEPS)
        writer.commit()
        copy = tmp_path_factory.mktemp("caught") / folder.name
        shutil.copytree(folder, copy)
        assert (copy / "run.db-wal").stat().st_size > 10_000
        read_all(copy)
        yield copy
        writer.finish("finished")


def damaged(original: Path, place: Path, name: str, content: bytes) -> bool:
    """Put other bytes in the place of a file in a copy; say whether what is left is refused. Else it is right."""
    shutil.rmtree(place, ignore_errors=True)
    folder = place / original.name
    shutil.copytree(original, folder)
    (folder / name).write_bytes(content)
    try:
        read_all(folder)
    except DynloraError:
        return True
    finally:
        assert len(catalogue.run_rows(place)) == 1, "one damaged run never hides the list"
    return False


@MANY
@given(share=st.floats(0, 1))
def test_a_file_that_is_cut(closed: Path, tmp_path: Path, share: float) -> None:
    whole = (closed / "run.db").read_bytes()
    size = int(share * len(whole))
    assert damaged(closed, tmp_path / "runs", "run.db", whole[:size]) or size > len(whole) / 2


@MANY
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=8))
def test_a_file_with_flipped_bits(closed: Path, tmp_path: Path, flips: list[tuple[float, int]]) -> None:
    damaged(closed, tmp_path / "runs", "run.db", _flipped(closed / "run.db", flips))


def test_most_of_what_is_flipped_is_noticed_at_all(closed: Path, tmp_path: Path) -> None:
    draw = random.Random(7)
    refused = 0
    for _ in range(100):
        flips = [(draw.random(), draw.randrange(8)) for _ in range(draw.choice([1, 1, 8]))]
        refused += damaged(closed, tmp_path / "runs", "run.db", _flipped(closed / "run.db", flips))
    assert refused > 6, "else nothing would have been read"


@MANY
@given(share=st.floats(0, 1))
def test_a_log_that_is_cut(caught: Path, tmp_path: Path, share: float) -> None:
    whole = (caught / "run.db-wal").read_bytes()
    damaged(caught, tmp_path / "runs", "run.db-wal", whole[: int(share * len(whole))])


@MANY
@given(
    name=st.sampled_from(["run.db", "run.db-wal"]),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=8),
)
def test_a_run_that_is_written_with_flipped_bits(
    caught: Path, tmp_path: Path, name: str, flips: list[tuple[float, int]]
) -> None:
    damaged(caught, tmp_path / "runs", name, _flipped(caught / name, flips))


def _flipped(file: Path, flips: list[tuple[float, int]]) -> bytes:
    data = bytearray(file.read_bytes())
    for share, bit in flips:
        data[int(share * len(data))] ^= 1 << bit
    return bytes(data)
