"""Plug-ins are found by their entry points; what is broken, or takes a name that is taken, breaks nothing."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

import dynlora
from dynlora import discovery, strategies, tasks
from dynlora.cli.main import main
from dynlora.contracts import test_strategies as contract
from dynlora.contracts.harness import ListRecorder, MemoryKeeper, make_trainer, tiny_config
from dynlora.data_files.columns import Columns
from dynlora.engine.strategy import Strategy
from dynlora.errors import ConfigError, DataError
from dynlora.jobs.launch import _catalog_version
from dynlora.kinds.run_kind import registry as kinds
from dynlora.viz.kit.panel import panels_of_plugins
from dynlora.viz.report.documents import run_document
from tests.command_line import document
from tests.kinds.train import samples
from tests.pages.app import open_page, words

PLUGIN = Path(__file__).resolve().parents[1] / "examples" / "plugin"


def install(folder: Path, points: Mapping[str, Mapping[str, str]]) -> None:
    """Write what an installer leaves of a package: its name, and its entry points."""
    about = folder / "dynlora_example-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: dynlora-example\nVersion: 0.1.0\n", "utf-8")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in of.items()) for group, of in points.items()
    ]
    (about / "entry_points.txt").write_text("\n".join(lines), "utf-8")


def forget() -> None:
    """Look for plug-ins again."""
    strategies.registry.cache_clear()
    tasks.registry.cache_clear()
    kinds.cache_clear()
    panels_of_plugins.cache_clear()
    for kind in kinds().values():
        vars(kind).pop("panels", None)


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example as it is after an installation, on the path of this process."""
    shutil.copytree(PLUGIN / "dynlora_example", tmp_path / "dynlora_example")
    install(tmp_path, tomllib.loads((PLUGIN / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"])
    for module in [name for name in sys.modules if name.partition(".")[0] == "dynlora_example"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    yield tmp_path
    monkeypatch.undo()
    forget()


def test_pages_ask_again_for_the_methods_when_a_plug_in_comes_or_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogs = {_catalog_version()}
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, {"dynlora.strategies": {"halve": "dynlora_example.halve:Halve"}})
    catalogs.add(_catalog_version())
    about = tmp_path / "dynlora_example-0.1.0.dist-info" / "METADATA"
    about.write_text(about.read_text().replace("Version: 0.1.0", "Version: 0.2.0"))
    catalogs.add(_catalog_version())
    assert len(catalogs) == 3


def test_a_method_of_a_plug_in_is_listed_described_and_holds_the_contract(plugged: Path) -> None:
    assert strategies.describe("halve")["title"] == "Halve"
    listed = {row["name"] for row in document(CliRunner().invoke(main, ["strategies", "--json"]))}
    assert "halve" in listed
    contract.test_starts_as_the_base_model("halve", "bert")
    contract.test_same_seed_same_run_with_or_without_recording("halve")
    contract.test_resume_is_bit_equal("halve", 5)
    contract.test_budget_holds_after_every_step_and_events_are_recorded("halve")
    trainer = make_trainer(tiny_config("halve"), recorder=ListRecorder())
    before = trainer.adapters.ranks
    trainer.train(MemoryKeeper())
    assert trainer.adapters.ranks == [rank - rank // 2 for rank in before]


def test_a_figure_of_a_plug_in_is_on_the_page_in_the_report_and_in_a_notebook(plugged: Path) -> None:
    folder = samples.TRAININGS[0]
    assert "lowest_ranks" in [panel.id for panel in kinds()["train"].panels]
    picture = dynlora.open_run(folder).plot.lowest_ranks()
    titles = {one.title for part in run_document(samples.view_of(folder).result).parts for one in part.blocks}
    assert "Smallest ranks" in titles
    assert picture.caption.startswith("The smallest rank is ")


def test_a_kind_of_run_of_a_plug_in_has_a_command_and_a_page(plugged: Path, tmp_path: Path) -> None:
    listing = CliRunner().invoke(main, ["--help"]).output
    assert re.search(r"similarity +See in which modules two runs", listing)
    ended = CliRunner().invoke(main, ["similarity", "a", "b", "--runs-dir", str(tmp_path)])
    assert ended.exit_code == 2
    assert "run a: there is no such run" in ended.output
    app = open_page("plugins")
    assert not app.exception
    assert "New run of a plug-in" in [one.label for one in app.expander]
    assert "Choose runs" in words(app)


def test_a_task_of_a_plug_in_can_be_named_in_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, {"dynlora.tasks": {"ordinal": "no_such_module:Ordinal"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert tiny_config("lora", data__task="ordinal").data.has_classes is None
    with pytest.raises(ConfigError, match="data.task=cardinal"):
        tiny_config("lora", data__task="cardinal")
    assert tiny_config("lora", data__task="ordinal", data__metric="mae").data.metric == "mae"
    with pytest.raises(ConfigError, match="data.metric=mae"):
        tiny_config("lora", data__metric="mae")
    with pytest.raises(DataError, match="data.task=ordinal: its plug-in cannot be used"):
        tasks.choose("ordinal", None, Columns(None, None, "label", None), lambda: pytest.fail("its labels were read"))


def test_what_is_plugged_in_is_told(plugged: Path) -> None:
    doctor = document(CliRunner().invoke(main, ["doctor", "--json"]))["plugins"]
    assert [(one["group"], one["name"], one["package"]) for one in doctor] == [
        ("dynlora.kinds", "similarity", "dynlora-example 0.1.0"),
        ("dynlora.panels", "lowest_ranks", "dynlora-example 0.1.0"),
        ("dynlora.strategies", "halve", "dynlora-example 0.1.0"),
        ("dynlora.tasks", "ordinal", "dynlora-example 0.1.0"),
    ]


def test_a_broken_plug_in_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken_plugin.py").write_text("raise RuntimeError('half written')\n", "utf-8")
    points = {"absent": "no_such_module:Thing", "broken": "broken_plugin:Thing", "other": "json:JSONDecoder"}
    install(tmp_path, {"dynlora.strategies": points})
    monkeypatch.syspath_prepend(str(tmp_path))
    with caplog.at_level(logging.WARNING, "dynlora.discovery"):
        assert discovery.plugged_in("strategies", Strategy) == {}
    log = "\n".join(caplog.messages)
    assert "plug-in broken of dynlora.strategies (dynlora-example 0.1.0) is left out: RuntimeError: half written" in log
    assert "plug-in absent" in log
    assert "plug-in other of dynlora.strategies (dynlora-example 0.1.0) is left out: it must be a concrete" in log


@pytest.mark.parametrize(
    "ends", ["import sys; sys.exit(3)", "raise SystemExit", "class End(BaseException): ...\nraise End"]
)
def test_a_plug_in_that_ends_the_program_at_its_import_is_left_out_and_told(
    ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every command ended with the code of the plug-in, and without a word."""
    module = f"ending_plugin_{abs(hash(ends))}"
    (tmp_path / f"{module}.py").write_text(ends, "utf-8")
    install(tmp_path, {"dynlora.strategies": {"ending": f"{module}:Thing"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    with caplog.at_level(logging.WARNING, "dynlora.discovery"):
        assert "lora" in strategies.registry()
    assert "plug-in ending of dynlora.strategies (dynlora-example 0.1.0) is left out: " in "\n".join(caplog.messages)
    (plug_in,) = document(CliRunner().invoke(main, ["doctor", "--json"]))["plugins"]
    assert plug_in["problem"].startswith("cannot be imported: ")
    monkeypatch.undo()
    forget()


def test_the_names_of_dynlora_stay_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dynlora.discovery"):
        assert discovery.joined({"lora": 1}, {"lora": 2, "mine": 3}) == {"lora": 1, "mine": 3}
    assert caplog.messages == ["plug-in lora is left out: dynlora has that name; give it another one"]


@pytest.mark.journey
def test_the_example_is_a_package_that_pip_installs_and_its_author_can_test(tmp_path: Path) -> None:
    def run(*command: str) -> str:
        """Run Python as in an empty folder, with the plug-in installed beside dynlora."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            check=False,
            timeout=900,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PLUGIN.parents[1])])},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), str(PLUGIN))
    assert "halve" in {row["name"] for row in json.loads(run("dynlora", "strategies", "--json"))}
    chosen = ("-k", "halve or ordinal or lowest_ranks or similarity", "-m", "not torture", "-p", "no:cacheprovider")
    passed = re.search(r"(\d+) passed", run("pytest", "-q", "--pyargs", "dynlora.contracts", *chosen))
    assert passed is not None
    assert int(passed[1]) > 30
