"""What every test shares: no hub, one thread per worker, a runs folder of its own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# Before anything imports torch, transformers or the hub's client, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["MKL_NUM_THREADS"] = "1"

import pytest
from hypothesis import settings

from tests.tiny import save_data, save_tiny, tiny_config

settings.register_profile("dynlora", deadline=None)  # no test is a test of this machine's speed
settings.load_profile("dynlora")


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


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random BERT."""
    return save_tiny("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random DistilBERT."""
    return save_tiny("distilbert", tmp_path_factory.mktemp("distilbert"))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Llama."""
    return save_tiny("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random GPT-2, whose linear modules are Conv1D."""
    return save_tiny("gpt2", tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with train.csv and validation.csv: text, label, domain."""
    return save_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def trained_run(tiny_bert: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of `dynamic` with gates on the tiny BERT; tests only read it."""
    import dynlora

    config = tiny_config(tiny_bert, tiny_data, train__steps=60, strategy={"name": "dynamic", "gates": "module"})
    return dynlora.train(config, tmp_path_factory.mktemp("trained"), progress=False).folder


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
    told, counted = [], Counter[str]()
    passed = Counter[str]()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.when != "call":
                continue
            file = report.nodeid.partition("::")[0]
            tallies = [value for name, value in report.user_properties if name == "tally"]
            told += [(promise, file, tried, kept) for promise, tried, kept in tallies]
            if not tallies:
                counted[file] += 1
                passed[file] += outcome == "passed"
    told += [("the full product of what `make test` samples", file, n, passed[file]) for file, n in counted.items()]
    terminalreporter.write_line("\n| promise | test | tried | kept |\n|---|---|---|---|")
    for promise, file, tried, kept in sorted(told, key=lambda row: (row[1], row[0])):
        terminalreporter.write_line(f"| {promise} | `{file}` | {tried:,} | {kept:,} |")
