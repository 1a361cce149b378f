"""What every kind of run must hold: how it is declared, its settings, and a small run from its start to its report.

A small run is made of the `example` of the kind's settings, and of two tiny trainings that each setting admits which
names runs. A training is held by `test_strategies` and `test_panels`; here it is read.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import plotly.graph_objects as go
import pytest

import dynlora
from dynlora.cli.main import main
from dynlora.config import Section, Setting
from dynlora.contracts.tiny_runs import recorded, train_tiny_runs
from dynlora.errors import ConfigError, CorruptRunError, DynloraError, NotRecordedError, RunNotFoundError
from dynlora.inference.forms import forms
from dynlora.jobs import quick_launch
from dynlora.kinds.named_runs import named_run, run_fields
from dynlora.kinds.run_kind import RunKind, StartForm, kind_of_run, registry
from dynlora.kinds.settings import KindSettings
from dynlora.server.serve import app_root
from dynlora.store.catalogue import run_rows
from dynlora.store.lifecycle import annotate
from dynlora.store.meta import NAME
from dynlora.store.schema import DB_NAME
from dynlora.store.summary import run_summary
from dynlora.training.progress_stream import StopRequest
from dynlora.viz.kit.panel import RunView
from dynlora.viz.kit.theme import DARK, LIGHT
from dynlora.viz.report.documents import kind_document
from dynlora.viz.report.page import Chart, Table

KINDS = dict(sorted(registry().items()))
MADE = [name for name, kind in KINDS.items() if issubclass(kind.settings, KindSettings)]
"""Kinds that a small run is made of."""

each = pytest.mark.parametrize("name", KINDS)


@dataclass(frozen=True)
class Made:
    """A small finished run.

    Attributes:
        kind: of it.
        settings: it was made with.
        folder: of it, beside the runs that it names.
        looks: how often the work looked whether it should stop.
    """

    kind: RunKind
    settings: KindSettings
    folder: Path
    looks: int


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny trainings, to which the small runs come."""
    return train_tiny_runs(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="module", params=MADE)
def made(request: pytest.FixtureRequest, runs: Path) -> Made:
    """Return a small finished run of each kind."""
    kind = KINDS[request.param]
    settings = small_settings(kind, runs)
    folder, looks = quick_launch.create(settings, runs, "running"), [0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopRequest, "__call__", stopping_at(None, looks))
        outcome = kind.resume(folder, is_new=True)
    assert outcome.state == "finished", outcome.error
    return Made(kind, settings, folder, looks[0])


def small_settings(kind: RunKind, runs: Path) -> KindSettings:
    """Return the settings of a small run: the example, and the first runs that each setting admits which names runs."""
    settings: Any = kind.settings
    trained = sorted((row for row in run_rows(runs) if row["kind"] == "train"), key=lambda row: row["name"])
    values = dict(settings.example)
    for name, field in run_fields(settings).items():
        info = settings.model_fields[name]
        is_several = Setting.of(name, info).type == "tuple"
        if name in values or not (is_several or info.is_required()):
            continue
        admitted = [row["id"] for row in trained if admits(field, runs / row["id"])]
        assert len(admitted) >= 2, f"{name}: give the settings an example that names its runs"
        values[name] = admitted[:2] if is_several else admitted[0]
    return settings.parse(values)


def admits(field: Any, folder: Path) -> bool:
    """Say whether a setting may name a run."""
    try:
        field.check(named_run(field.role, str(folder), folder.parent))
    except DynloraError:
        return False
    return True


def stopping_at(last: int | None, looks: list[int]) -> Callable[[StopRequest], bool]:
    """Return what counts the looks at a stop, which is asked for from the look `last` on; never where that is None."""

    def look(stop: StopRequest) -> bool:
        looks[0] += 1
        stop.signal = 2 if last is not None and looks[0] > last else 0
        return stop.signal != 0

    return look


# --- what is declared


@each
def test_it_is_declared_whole(name: str) -> None:
    """It has a name of its own, words, a page that there is, and settings whose kind is its name."""
    kind = KINDS[name]
    assert kind.name == name
    assert NAME.fullmatch(name)
    assert issubclass(kind.settings, Section)
    assert kind.about
    assert (app_root() / "pages" / f"{kind.page}.py").is_file()
    assert kind.done.format(step=1, total=2)
    assert set(kind.formats) <= set(forms())
    if issubclass(kind.settings, KindSettings):
        assert kind.settings.kind == name
        assert kind.settings.fidelity in ("code", "description", "reconstruction")
        assert isinstance(kind.form, StartForm)
        assert all((kind.form.purpose, kind.form.way, kind.form.button, kind.form.missing))
        assert all(field.description for field in kind.settings.model_fields.values())


@each
def test_its_command_is_there(name: str) -> None:
    """What a page says to type is a command of dynlora, whose options can be made from the settings."""
    if command := KINDS[name].command:
        made = main.get_command(click.Context(main), command)
        assert made is not None
        assert made.get_short_help_str()


@each
def test_its_panels_have_names_and_places_of_their_own(name: str) -> None:
    """No two of its panels share their name or their place, and each says what is missing."""
    panels = KINDS[name].panels
    assert len({panel.id for panel in panels}) == len({panel.order for panel in panels}) == len(panels)
    assert all(panel.title and panel.missing.endswith(".") for panel in panels)


# --- its settings


def test_settings_are_read_back_from_the_folder_as_they_were(made: Made) -> None:
    """The config.yaml of a run gives equal settings, and that of a training is refused."""
    assert type(made.settings).of_run(made.folder) == made.settings
    training = next(row["id"] for row in run_rows(made.folder.parent) if row["kind"] == "train")
    with pytest.raises(ConfigError, match=f"is a training run, and a {made.kind.name} run is needed"):
        type(made.settings).of_run(made.folder.parent / training)


def test_a_wrong_value_is_one_sentence_with_the_name_of_the_setting(made: Made) -> None:
    """A value of no use, and a setting that there is not, are refused in a sentence that begins with the name."""
    values = made.settings.plain()
    for name in type(made.settings).model_fields:
        with pytest.raises(ConfigError, match=rf"\A{name}\b[^\n]+\Z"):
            type(made.settings).parse({**values, name: {"no": "value"}})
    with pytest.raises(ConfigError, match=r"\Ano_setting=1: unknown key[^\n]*\Z"):
        type(made.settings).parse({**values, "no_setting": 1})


# --- its work


def test_a_finished_run_is_recorded_whole(made: Made) -> None:
    """It is of its kind and at its last step, it has a conclusion and results, and it does not start again."""
    kind, summary = made.kind, run_summary(made.folder)
    assert kind_of_run(made.folder) is kind
    assert (summary.status, summary.kind) == ("finished", kind.name)
    assert summary.step == summary.max_steps > 0
    conclusion = kind.conclusion(kind.read(made.folder))
    assert conclusion.text.endswith(".")
    facts = kind.facts(made.folder, dict(summary))
    assert facts["conclusion"] == f"{conclusion.text} {conclusion.basis}".strip()
    assert kind.headline(kind.read(made.folder))
    assert kind.standing(dict(summary))
    document = {"id": made.folder.name, "status": "finished", **summary.results}
    assert all(isinstance(line, str) for line in kind.lines(document, made.folder.parent))
    with pytest.raises(ConfigError, match="the run is finished"):
        kind.resume(made.folder)


def test_its_model_is_loaded_or_refused_in_a_sentence(made: Made) -> None:
    """A kind that keeps a model loads it; another says what to load instead."""
    if made.kind.models or made.kind.has_model(made.folder):
        assert made.kind.load(made.folder) is not None
        return
    for attempt in (made.kind.load, lambda folder: made.kind.export(folder, folder / "out", "peft")):
        with pytest.raises(ConfigError, match=made.folder.name):
            attempt(made.folder)


def test_stopped_and_resumed_it_is_the_same(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped half way, it resumes there, and what it has recorded at its end is that of a run nobody stopped."""
    folder = quick_launch.create(made.settings, made.folder.parent, "running")
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "__call__", stopping_at(made.looks // 2, [0]))
        outcome = made.kind.resume(folder, is_new=True)
    assert (outcome.state, outcome.signal) == ("stopped", 2)
    summary = run_summary(folder)
    assert 0 <= summary.step < summary.max_steps
    assert made.kind.follow(folder) == made.kind.read(folder)
    assert made.kind.progress(made.kind.follow(folder), summary.step).text
    if made.kind.models:
        assert not made.kind.has_model(folder)
        with pytest.raises(ConfigError, match=folder.name):
            made.kind.load(folder)
    looks = [0]
    monkeypatch.setattr(StopRequest, "__call__", stopping_at(None, looks))
    assert made.kind.resume(folder).state == "finished"
    assert looks[0] < made.looks, "what was done is not done again"
    assert recorded(folder) == recorded(made.folder)
    shutil.rmtree(folder)


# --- what is read


@pytest.fixture(scope="module")
def reader() -> Iterator[subprocess.Popen[str]]:
    """A process that reads and draws the run of each folder it is told, and answers whether torch came along."""
    program = (
        "import sys; from pathlib import Path; from dynlora.kinds.run_kind import kind_of_run; "
        "from dynlora.viz.kit.panel import RunView; from dynlora.viz.kit.theme import LIGHT\n"
        "for line in sys.stdin:\n"
        "    folder = Path(line.strip()); kind = kind_of_run(folder); view = RunView(folder, kind.read(folder))\n"
        "    kind.conclusion(view.result); kind.settings.of_run(folder).check(folder.parent)\n"
        "    drawn = [(panel, panel.data(view)) for panel in kind.panels if panel.applies(view)]\n"
        "    [panel.figure(data, LIGHT) for panel, data in drawn if data is not None]\n"
        "    print('with torch' if 'torch' in sys.modules else 'without torch', flush=True)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def test_it_is_read_and_drawn_without_torch(made: Made, reader: subprocess.Popen[str]) -> None:
    """A page, which declares, reads and draws it, needs no torch."""
    assert reader.stdin is not None
    assert reader.stdout is not None
    assert reader.poll() is None, "it failed on a kind before this one"
    reader.stdin.write(f"{made.folder}\n")
    reader.stdin.flush()
    assert reader.stdout.readline() == "without torch\n"


def test_panels_are_drawn_light_and_dark(made: Made) -> None:
    """Each has a caption and a table and is drawn in both modes, or says in a sentence what is missing."""
    view = RunView(made.folder, made.kind.read(made.folder))
    drawn = 0
    for panel in (panel for panel in made.kind.panels if panel.applies(view)):
        data = panel.data(view)
        if data is None:
            assert panel.reason_missing(view).endswith(".")
            continue
        drawn += 1
        assert panel.caption(data)
        assert len(panel.table(data))
        for colours in (LIGHT, DARK):
            figure = panel.figure(data, colours)
            assert (figure is not None) == panel.has_figure
            assert figure is None or (isinstance(figure, go.Figure) and list(figure.select_traces()))
            assert "<script" not in panel.html(data, colours)
    assert drawn or not made.kind.panels


def test_report_and_notebook_hold_every_panel(made: Made) -> None:
    """A report begins with the conclusion; each panel is in it with its caption, and among `run.plot`."""
    kind, folder = made.kind, made.folder
    view, report = RunView(folder, kind.read(folder)), kind_document(folder, kind)
    conclusion = kind.conclusion(view.result)
    assert list(report.parts[0].notes) == [note for note in (conclusion.text, conclusion.basis) if note]
    blocks = {block.title: block for part in report.parts for block in part.blocks}
    plots = dynlora.open_run(folder).plot
    for panel in (panel for panel in kind.panels if panel.applies(view)):
        assert panel.id in dir(plots)
        data = panel.data(view)
        if data is None:
            assert f"{panel.title}: {panel.reason_missing(view)}" in report.parts[1].notes
            continue
        block = blocks[panel.title]
        assert isinstance(block, Chart | Table)
        assert block.sentence == panel.caption(data)
        if isinstance(block, Chart):
            assert getattr(plots, panel.id)().caption == panel.caption(data)
        else:
            with pytest.raises(NotRecordedError, match=f"no figure {panel.id}"):
                getattr(plots, panel.id)()


def test_a_run_that_has_not_begun_is_read(made: Made) -> None:
    """What is queued has words for what it does now, and panels without numbers say what is missing."""
    folder = quick_launch.create(made.settings, made.folder.parent)
    result = made.kind.follow(folder)
    assert made.kind.progress(result, 0).text
    view = RunView(folder, result)
    for panel in (panel for panel in made.kind.panels if panel.applies(view)):
        data = panel.data(view)
        assert panel.caption(data) if data is not None else panel.reason_missing(view).endswith(".")
    shutil.rmtree(folder)


@pytest.mark.parametrize("odd", [None, [1, "a"], {"a": [{}]}, "text", -1.5])
def test_odd_values_count_as_never_written(odd: Any, made: Made, tmp_path: Path) -> None:
    """A run is no trusted file: whatever kind of value its own facts have, it is read and drawn, or refused."""
    folder = shutil.copytree(made.folder, tmp_path / made.folder.name)
    name = made.kind.name
    annotate(folder, meta={name: odd, f"{name}_results": odd})
    view = RunView(folder, made.kind.read(folder))
    assert isinstance(made.kind.conclusion(view.result).text, str)
    for panel in (panel for panel in made.kind.panels if panel.applies(view)):
        if (data := panel.data(view)) is not None:
            assert panel.caption(data)


@each
def test_no_run_and_a_damaged_one_are_refused(name: str, tmp_path: Path) -> None:
    """A folder without a run, and one whose store is damaged, are refused by the errors that pages expect."""
    with pytest.raises(RunNotFoundError):
        KINDS[name].read(tmp_path / "none")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / DB_NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(CorruptRunError):
        KINDS[name].read(tmp_path / "damaged")
