"""The examples run and show what they say."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dynlora
from dynlora.inference.export import export_run
from tests.kinds.decode.conftest import Runs
from tests.kinds.decode.conftest import runs as runs  # a fixture
from tests.store.builder import finished_run
from tests.tiny import tiny_arguments, tiny_values
from tools.docs import pages

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_own_loop_finds_the_planted_layer() -> None:
    ranks = runpy.run_path(str(EXAMPLES / "own_loop.py"))["main"]()
    assert ranks[2] == max(ranks) > 3
    assert sum(ranks) <= 9


def test_the_trainer_moves_ranks_within_the_budget() -> None:
    ranks = runpy.run_path(str(EXAMPLES / "trainer.py"))["main"]()
    assert len(set(ranks)) > 1
    assert min(ranks) >= 1


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # PEFT asks the old name
def test_a_peft_run_is_recorded(runs_dir: Path) -> None:
    run = dynlora.open_run(runpy.run_path(str(EXAMPLES / "record.py"))["main"](str(runs_dir)))
    assert run.status == "finished"
    assert len(run.signal("importance")) == 40


@pytest.mark.journey
def test_a_search_from_python_ends_with_its_best_trial(tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    values = tiny_values(tiny_bert, tiny_data)
    study = runpy.run_path(str(EXAMPLES / "search.py"))["main"](values, runs_dir)
    assert len(study["trials"]) == 4
    assert 5e-4 <= study["best"]["values"]["train.lr"] <= 3e-2


@pytest.mark.journey
def test_a_sweep_on_a_cluster_from_python_ends(tiny_bert: Path, tiny_data: Path, runs_dir: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'dynlora[ray]'")
    settings = tiny_arguments(tiny_bert, tiny_data)[1::2]
    sweep = runpy.run_path(str(EXAMPLES / "cluster.py"))["main"](None, runs_dir, settings)
    assert [run["status"] for run in sweep["runs"]] == ["finished"] * 4


def test_a_run_is_written_to_a_tracker_and_read_from_its_files(
    runs_dir: Path, tiny_bert: Path, tiny_data: Path
) -> None:
    main = runpy.run_path(str(EXAMPLES / "trackers.py"))["main"]
    settings = {"model": {"name": str(tiny_bert)}, "data": {"path": str(tiny_data), "max_length": 16}}
    mine, theirs = map(dynlora.open_run, main(str(runs_dir), **settings))
    assert theirs.scalars("loss", "train")["value"].to_numpy() == pytest.approx(mine.scalars("loss", "train")["value"])
    assert len(mine.scalars("loss", "train")) == 20


def test_a_run_that_was_sent_is_opened_there_and_fetched(tmp_path: Path, cache: Path) -> None:
    folder = finished_run(tmp_path / "runs")
    copy = runpy.run_path(str(EXAMPLES / "remote.py"))["main"](folder, str(tmp_path / "there"), tmp_path / "here")
    assert dynlora.open_run(copy).events().equals(dynlora.open_run(folder).events())


def members(one: Any) -> list[str]:
    """Return the public methods and properties that a class has from classes of ours, but for a Trainer's hooks."""
    ours = [cls for cls in inspect.getmro(one) if cls.__module__.startswith("dynlora.")] if inspect.isclass(one) else []
    values = {name: value for cls in reversed(ours) for name, value in vars(cls).items()}
    own = {name for name, value in values.items() if inspect.isfunction(value) or isinstance(value, property)}
    return sorted(name for name in own if not name.startswith(("_", "on_")))


def documented(one: Any) -> Iterator[str]:
    """Yield the docstring of a public name, and those of its members."""
    yield inspect.getdoc(one) or ""
    for name in members(one):
        member = inspect.getattr_static(one, name)
        yield inspect.getdoc(member) or ""


def examples_of(one: Any) -> list[list[doctest.Example]]:
    """Return the examples in each docstring of a public name and its members."""
    return [examples for text in documented(one) if (examples := doctest.DocTestParser().get_examples(text))]


@pytest.fixture
def workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bert: Path, tiny_data: Path, trained_run: Path, runs: Runs
) -> Path:
    """A folder with what the page of the Python interface says its examples have."""
    export_run(trained_run, tmp_path / "gated", format="gated")
    folders = {"my-bert": tiny_bert, "reviews": tiny_data, "trained": trained_run}
    folders |= {"draft": runs.folder / runs.draft, "target": runs.folder / runs.target}
    for name, source in folders.items():
        shutil.copytree(source, tmp_path / name)
    (tmp_path / "sample_runs").symlink_to(EXAMPLES.parent / "sample_runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_example_of_a_public_name_shows_what_it_says(workspace: Path) -> None:
    failed: list[str] = []
    for name, one in {**pages.public(), **pages.of_plug_ins()}.items():
        for number, examples in enumerate(examples_of(one)):
            runner, output = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE), []
            test = doctest.DocTest(examples, {"dynlora": dynlora}, f"{name} {number}", None, None, None)
            if runner.run(test, out=output.append).failed:
                failed.append("".join(output))
    assert "".join(failed) == ""


@pytest.mark.parametrize("name", pages.public())
def test_every_public_name_has_an_example_and_so_has_each_member(name: str) -> None:
    one = pages.public()[name]
    source = "".join(example.source for examples in examples_of(one) for example in examples)
    assert name in source or inspect.isclass(one)
    assert source
    assert [member for member in members(one) if not re.search(rf"\.{member}\b", source)] == []


@pytest.mark.parametrize("name", pages.public())
def test_every_public_name_is_typed(name: str) -> None:
    one = pages.public()[name]
    functions: list[Any] = (
        [one] if inspect.isfunction(one) else [inspect.getattr_static(one, member) for member in members(one)]
    )
    for value in functions:
        function: Any = value.fget if isinstance(value, property) else value
        signature = inspect.signature(function)
        parameters = [value for key, value in signature.parameters.items() if key != "self"]
        hints = [signature.return_annotation, *(value.annotation for value in parameters)]
        assert inspect.Signature.empty not in hints, f"{name}: {function.__qualname__}"


def test_what_a_plug_in_may_import_is_in_the_example_or_has_one() -> None:
    files = (EXAMPLES / "plugin").rglob("*.py")
    imports = [node for path in files for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    used = {
        f"{node.module}.{alias.name}"
        for node in imports
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("dynlora.")
        for alias in node.names
    }
    listed = pages.of_plug_ins()
    modules = {name.rpartition(".")[0] for name in listed}
    assert used - set(listed) - modules == set(), "tools.docs.pages.PLUG_INS lists them"
    source = "".join(example.source for one in listed.values() for examples in examples_of(one) for example in examples)
    others = [name.rpartition(".") for name in set(listed) - used]
    assert [name for module, _, name in others if module not in used and not re.search(rf"\b{name}\b", source)] == []
