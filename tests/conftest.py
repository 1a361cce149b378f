"""What every test shares: no hub, one thread per process, a runs folder of its own."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

# Before anything imports torch, transformers or the hub's client, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TORCHDYNAMO_DISABLE"] = (
    "1"  # bitsandbytes compiles kernels when PEFT imports it, in every process; none runs
)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # every process that a test starts would compile dynlora anew
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import pytest
from filelock import FileLock
from hypothesis import settings

from tests.scheduling import kinship, rank
from tests.tiny import save_data, save_tiny, tiny_config

ROOT = Path(__file__).resolve().parents[1]

IN_MEMORY, ROOM = Path("/dev/shm"), 4 * 2**30
if os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))  # a disk writes and removes 20,000 files for minutes
sys.dont_write_bytecode = False  # every worker would rewrite the assertions of every test anew

# It would say of every cached function that is imported that no server runs.
logging.getLogger("streamlit.runtime.caching.cache_data_api").disabled = True

gc.disable()  # until all tests are loaded: what is made meanwhile is kept

# No test is a test of this machine's speed. Each run draws other examples; `--hypothesis-profile thorough` draws more.
settings.register_profile("thorough", deadline=None)
settings.register_profile("dynlora", deadline=None, max_examples=30)
settings.load_profile("dynlora")


def pytest_collection(session: pytest.Session) -> None:
    """Import the tests, in each worker from another place on: what one has compiled, the others only read."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if not worker or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    names = sorted(path.relative_to(ROOT).with_suffix("") for path in (ROOT / "tests").rglob("test_*.py"))
    first = len(names) * int(worker.removeprefix("gw")) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for name in names[first:]:
        with suppress(Exception, pytest.skip.Exception):  # the collection that follows reports it
            importlib.import_module(".".join(name.parts))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: rank(item.nodeid))


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later garbage collection."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let tests that share something share a worker; xdist's own groups go by a node's id, which pytest 9 keeps."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByKinship(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return kinship(nodeid)

    config.option.loadscopereorder = False
    return ByKinship(config, log)


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    """An empty runs folder."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; without this fixture tests share the user's, so that the model is fetched once."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DYNLORA_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _same_priority() -> Iterator[None]:
    """Find the test that lowers the priority of its worker, which every later test, and every process it starts, keeps.

    Beside two others on two cores such a worker stands nearly still.
    """
    if not hasattr(os, "nice"):
        yield
        return
    before = os.nice(0)
    yield
    assert os.nice(0) == before, "this test lowered the priority of the process that runs all others"


class Once:
    """Makes what takes long once for all workers of a test run; whoever needs to change it takes a copy."""

    def __init__(self, folder: Path) -> None:
        """Keep everything in a folder that the workers share."""
        self.folder = folder

    def made(self, name: str, make: Callable[[Path], Path]) -> Path:
        """Return what `make` returned for an empty folder, in whichever worker came first."""
        record = self.folder / f"{name}.txt"
        with FileLock(self.folder / f"{name}.lock"):
            if not record.exists():
                place = self.folder / name
                shutil.rmtree(place, ignore_errors=True)  # of a worker that failed half way
                place.mkdir()
                record.write_text(str(make(place)), "utf-8")
        return Path(record.read_text("utf-8"))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """What is made once for all workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    folder.mkdir(exist_ok=True)
    return Once(folder)


@pytest.fixture(scope="session")
def tiny_bert(once: Once) -> Path:
    """Folder of a tiny random BERT."""
    return once.made("bert", lambda folder: save_tiny("bert", folder))


@pytest.fixture
def no_kept_tokens() -> Iterator[None]:
    """No tokens that were made ahead, before the test and after it."""
    from dynlora.engine.data import packing

    packing.forget()
    yield
    packing.forget()


@pytest.fixture(scope="session")
def tiny_llama(once: Once) -> Path:
    """Folder of a tiny random Llama."""
    return once.made("llama", lambda folder: save_tiny("llama", folder))


@pytest.fixture(scope="session")
def tiny_gpt2(once: Once) -> Path:
    """Folder of a tiny random GPT-2, whose linear modules are Conv1D."""
    return once.made("gpt2", lambda folder: save_tiny("gpt2", folder))


@pytest.fixture(scope="session")
def tiny_data(once: Once) -> Path:
    """Folder with train.csv and validation.csv: text, label, domain."""
    return once.made("data", save_data)


@pytest.fixture(scope="session")
def trained_run(tiny_bert: Path, tiny_data: Path, once: Once) -> Path:
    """Folder of a finished run of `dynamic` with gates on the tiny BERT; tests only read it."""

    def train(folder: Path) -> Path:
        import dynlora

        config = tiny_config(tiny_bert, tiny_data, train__steps=60, strategy={"name": "dynamic", "gates": "module"})
        return dynlora.train(config, folder, progress=False).folder

    return once.made("trained", train)


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[[str, int, int], None]:
    """Say how often a promise was tried and kept: `make torture` prints it as docs/RELIABILITY.md shows it."""

    def say(promise: str, tried: int, kept: int) -> None:
        record_property("tally", [promise, tried, kept])

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was tried and kept, where a test says so; every other file counts its tests."""
    if config.option.markexpr != "torture":
        return
    rows, counted = [], Counter[str]()
    passed = Counter[str]()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when != "call":
                continue
            file = report.nodeid.partition("::")[0]
            tallies = [value for name, value in report.user_properties if name == "tally"]
            rows += [(promise, file, tried, kept) for promise, tried, kept in tallies]
            if not tallies:
                counted[file] += 1
                passed[file] += outcome == "passed"
    rows += [("the full product of what `make test` samples", file, n, passed[file]) for file, n in counted.items()]
    terminalreporter.write_line("\n| promise | test | tried | kept |\n|---|---|---|---|")
    for promise, file, tried, kept in sorted(rows, key=lambda row: (row[1], row[0])):
        terminalreporter.write_line(f"| {promise} | `{file}` | {tried:,} | {kept:,} |")
