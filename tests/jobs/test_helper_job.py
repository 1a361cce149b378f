"""Helper processes: one record that each of them writes, errors that keep their class, and an end that is noticed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dynlora.errors import AssetError, ConfigError, DynloraError, NotMergeableError, SearchError, StorageError
from dynlora.jobs import helper_job
from dynlora.jobs.environment import JOB_VARIABLE, child_environment
from dynlora.jobs.helper_job import ENDING, SILENT, Failure, HelperJob
from dynlora.store import lifecycle
from tests.jobs.helpers import helper, waits
from tests.waiting import until


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The file of a record."""
    return tmp_path / f"one{ENDING}"


def started(place: Path, command: list[str]) -> HelperJob:
    """Start a helper and return it once it says how far it is, or has ended."""
    helper_job.start("export", command, place)
    until(lambda: (job := helper_job.follow(place)) is None or job.status != "running" or job.progress.of, "a word")
    job = helper_job.follow(place)
    assert job is not None
    return job


@pytest.mark.parametrize(
    ("error", "kind", "again"),
    [
        (ConfigError("a"), "ConfigError", ConfigError),
        (AssetError("a"), "AssetError", AssetError),
        (NotMergeableError("a"), "NotMergeableError", NotMergeableError),
        (SearchError("a", 1, "b"), "ConfigError", ConfigError),
        (OSError(28, "full"), "StorageError", StorageError),
        (ZeroDivisionError("a"), "", DynloraError),
    ],
)
def test_an_error_keeps_its_class(error: Exception, kind: str, again: type[Exception]) -> None:
    failure = Failure.of(error)
    assert failure.kind == kind
    assert type(failure.exception()) is again


@pytest.mark.parametrize("kind", ["os", "DynloraError ", "__class__", "checked", "BaseModel"])
def test_a_record_names_no_other_class(kind: str) -> None:
    assert type(Failure(kind=kind, message="a").exception()) is DynloraError


def test_a_process_that_ends_without_a_word_has_failed(place: Path) -> None:
    job = started(place, helper("raise SystemExit(1)"))
    assert (job.status, job.error) == ("failed", Failure(kind="", message=SILENT))
    job = started(place, waits())
    assert job.pid is not None
    os.kill(job.pid, signal.SIGKILL)
    until(lambda: (now := helper_job.follow(place)) is not None and now.status == "failed", "its end is noticed")


def test_a_record_stays_that_of_its_process_and_not_of_those_it_starts(place: Path) -> None:
    program = f"import os\nhelper_job.tell(1, 2, str(os.environ.get({JOB_VARIABLE!r})))\nimport time; time.sleep(600)"
    job = started(place, helper(program))
    assert job.progress.phase == "None"
    helper_job.cancel(place)
    job = helper_job.follow(place)
    assert job is not None
    assert (job.status, job.is_alive) == ("cancelled", False)
    assert JOB_VARIABLE not in child_environment({JOB_VARIABLE: "x"})


def test_a_record_that_names_another_process_ends_nothing(place: Path) -> None:
    command = ("python", "-m", "dynlora", "advise")
    HelperJob(kind="export", command=command).of_process(os.getppid()).write(place)
    helper_job.cancel(place)
    assert lifecycle.start_time(os.getppid()) is not None


def test_a_result_is_plain_and_handed_over_once() -> None:
    program = "helper_job.finish({'a': float('nan'), 'b': __import__('pathlib').Path('x')}, 'done')\n"
    again = "helper_job.finish([], 'again'); helper_job.fail(ConfigError('late')); print('noise')"
    assert helper_job.run("check", helper(program + again), 60, "it failed") == {"a": None, "b": "x"}
    with pytest.raises(AssetError, match="^no such model$"):
        helper_job.run("check", helper("helper_job.fail(AssetError('no such model'))"), 60, "it failed")
    with pytest.raises(DynloraError, match=r"^it failed \(exit 1\): .*Error: a$"):
        helper_job.run("check", helper("raise SystemExit('Error: a')"), 60, "it failed")


def test_the_oldest_jobs_go_and_those_that_run_stay(tmp_path: Path) -> None:
    for number in range(4):
        place = tmp_path / f"{number}{ENDING}"
        (HelperJob(kind="check").of_process(os.getpid()) if number == 0 else HelperJob(kind="check")).write(place)
        os.utime(place, (number, number))
        place.with_suffix(".log").touch()
    helper_job.forget_oldest(tmp_path.glob(f"*{ENDING}"), 1)
    assert {path.name for path in tmp_path.iterdir()} == {"0.job", "0.log", "3.job", "3.log"}
