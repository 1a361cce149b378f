"""The Shrink page: measured in the page, chosen with a slider, taken along as code, as a file and as a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dynlora.config import parse_config
from dynlora.config_files import read_run_config
from dynlora.inference.compress import kept_sizes
from dynlora.jobs import export as export_job
from dynlora.jobs import helper_job, quick_launch
from dynlora.store import queries
from dynlora.store.lifecycle import annotate
from dynlora.store.measurements import Compressed
from dynlora.viz.ui import run_actions
from tests import command_line
from tests.command_line import document
from tests.pages.app import charts, field, open_page, plain, press
from tests.pages.trained import Here
from tests.viz.runs import make_run
from tests.waiting import until


@pytest.fixture(scope="module")
def all_sizes(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the sizes of the trained run's adapter."""
    file = tmp_path_factory.mktemp("sizes") / "compress.json"
    *_, last = kept_sizes(trained_run, "last", file, 64)[0]
    assert last["share"] == 0.01
    return file


@pytest.fixture
def sized_run(run: Path, all_sizes: Path) -> Path:
    """A trained run whose sizes have been measured."""
    shutil.copy(all_sizes, run)
    return run


def found_in(folder: Path) -> Compressed:
    """Return what is kept of a run."""
    compressed = Compressed.read(folder / "compress.json")
    assert compressed is not None
    return compressed


def test_sizes_are_measured_in_the_page(here: Here, run: Path) -> None:
    here.pace = 2
    app = open_page("shrink", run=run.name)
    assert "How small may the adapter be?" in plain(app)
    press(app, "Measure the sizes")
    until(lambda: "Keep" in plain(app.run()), "the sizes", patience_s=300)
    assert len(found_in(run).sizes) == found_in(run).planned


def test_it_begins_with_the_smallest_size_that_is_good_enough(here: Here, sized_run: Path) -> None:
    compressed = found_in(sized_run)
    best = compressed.smallest(0.05)
    assert best is not None
    app = open_page("shrink", run=sized_run.name, tolerance="0.05")
    assert f"({best.parameters:,} of {compressed.parameters:,})" in plain(app)
    curve, picture = charts(app)
    assert curve["data"]
    ranks = sum(int(value) for row in picture["data"][0]["text"] for value in row if value)
    assert ranks == sum(best.ranks)
    other = next(size for size in compressed.of_method() if size.parameters > best.parameters)
    field(app.select_slider, "Parameters kept").set_value(other.parameters).run()
    assert f"({other.parameters:,} of {compressed.parameters:,})" in plain(app)
    assert app.query_params["size"] == str(other.parameters)


def test_the_code_holds_the_kept_ranks(here: Here, sized_run: Path) -> None:
    app = open_page("shrink", run=sized_run.name)
    best = found_in(sized_run).smallest(0.005) or found_in(sized_run).of_method("global")[0]
    code = next(block.value for block in app.code if "LoraConfig(" in block.value)
    names: dict = {}
    exec(code, names)
    ranks = {name: rank for name, rank in found_in(sized_run).ranks_of(best).items() if rank}
    config = names["config"]
    assert set(config.target_modules) == set(ranks)
    assert {name: config.rank_pattern.get(name, config.r) for name in ranks} == ranks


def test_a_run_with_the_kept_ranks_is_queued_and_its_uniform_baseline(
    here: Here, sized_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued: list[dict[str, Any]] = []
    made = quick_launch.RunHandle("20260101-000000-00000009", sized_run)
    monkeypatch.setattr(run_actions, "start", lambda config, *_, **__: queued.append(config) or made)
    app = open_page("shrink", run=sized_run.name)
    press(app, "Train with these ranks")
    assert "Open the run that was queued" in {link.proto.label for link in app.get("page_link")}
    press(app, "Train a uniform baseline")
    ranked, uniform = (parse_config(config) for config in queued)
    assert (ranked.strategy.name, uniform.strategy.name) == ("lora", "lora")
    assert sum(json.loads(Path(str(ranked.strategy.fields["ranks_from"])).read_text("utf-8")).values()) > 0
    assert "ranks_from" not in uniform.strategy.fields
    assert uniform.adapter.lora_alpha / uniform.adapter.rank == pytest.approx(2.0)


def test_a_run_that_starts_from_the_adapter_is_queued_and_says_so(
    here: Here, sized_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for starts_a_process in ("wake", "spawn_detached"):
        monkeypatch.setattr(quick_launch, starts_a_process, lambda *_: None)
    commands: list[list[str]] = []

    in_a_child = helper_job.run

    def compress_here(kind: str, command: list[str], *rest: Any) -> dict:
        if kind != "compress":
            return in_a_child(kind, command, *rest)
        commands.append(command)
        return document(command_line.run(sized_run.parent, *command[4 : command.index("--runs-dir")]))

    monkeypatch.setattr(helper_job, "run", compress_here)
    app = open_page("shrink", run=sized_run.name, tolerance="0.05")
    press(app, "Recover with 10 steps")
    made = app.session_state["shrink-made"]
    assert "Open the run that was queued" in {link.proto.label for link in app.get("page_link")}
    best = found_in(sized_run).smallest(0.05)
    assert best is not None
    folder = sized_run.parent / made
    origin = queries.run_summary(folder).origin
    assert origin is not None
    assert (origin["run"], origin["parameters"]) == (sized_run.name, best.parameters)
    config = read_run_config(folder)
    assert config.strategy.fields["start_from"] == str(next((sized_run.parent / ".starts").iterdir()))
    assert (config.train.max_steps(0), config.seed) == (10, read_run_config(sized_run).seed)
    words = f"shrunk to {100 * origin['share']:.0f} % of its parameters"
    page = open_page("run", run=made)
    (back,) = [element.proto.body for element in page.get("html") if words in element.proto.body]
    assert f'<a href="run?run={sized_run.name}" target="_self">Starts from run' in back
    press(app, "Recover with 10 steps")
    assert len(commands) == 1, "the same size is written once"
    assert "Download adapter" in {one.proto.label for one in app.get("download_button")}
    assert export_job.compressed(sized_run, best.share, found_in(sized_run).rows, "loss").startswith(b"PK")
    assert commands[1][: commands[1].index("--out")] == commands[0][: commands[0].index("--out")], "the same adapter"


def test_sizes_of_another_adapter_count_as_none(here: Here, sized_run: Path) -> None:
    found_in(sized_run).model_copy(update={"step": 3}).write(sized_run / "compress.json")
    assert "How small may the adapter be?" in plain(open_page("shrink", run=sized_run.name))


@pytest.mark.parametrize(("by", "is_linked"), [(None, True), ("transformers", False)])
def test_a_run_without_an_adapter_says_how_to_get_one(by: str | None, is_linked: bool, runs_dir: Path) -> None:
    folder = make_run(runs_dir)
    if by is not None:
        annotate(folder, meta={"recorded_by": by})
    app = open_page("shrink", run=folder.name)
    assert "Select a run that has one, or" in plain(app)
    assert ("Train it again" in {link.proto.label for link in app.get("page_link")}) is is_linked
