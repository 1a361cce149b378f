"""`run.plot`: its arguments, its themes, what it says where there is nothing to draw, and what it loads."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

import dynlora
from dynlora.errors import ConfigError, DynloraError, NotRecordedError
from dynlora.notebook.figure import Figures, PageFigure
from dynlora.notebook.plots import Plots
from dynlora.viz.kit import theme
from tests.pairwise import alternating
from tests.viz.drawn import layout_of, traces_of
from tests.viz.growing import Running
from tests.viz.runs import make_run

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_runs"
MOVED, UNIFORM, WRITES = "20261205-153533-21b95200", "20261205-144905-03e6ddf3", "20261205-151835-85d82515"
RUN = "20260101-000000-00000007"
FIGURES = ("capacity", "flow", "importance_vs_rank", "ranks", "training", "gates", "knockouts")
"""What the first of these runs can draw with plotly."""


def plot(run: str) -> Plots:
    return dynlora.open_run(SAMPLES / run).plot


def drawn(figures: Any) -> list[PageFigure]:
    return list(figures) if isinstance(figures, Figures) else [figures]


@alternating("name, mode", list(FIGURES), ["light", "dark"])  # both of each: dynlora/contracts/test_panels.py
def test_every_figure_is_plotlys_own_with_a_caption_and_numbers_in_both_themes(name: str, mode: str) -> None:
    colours = theme.palette(mode)
    for figure in drawn(getattr(plot(MOVED)(theme=mode), name)()):
        assert isinstance(figure, go.Figure)
        assert layout_of(figure).paper_bgcolor == colours.panel
        assert layout_of(figure).font.color == colours.text
        assert figure.caption.endswith(".")
        assert len(figure.table)


def test_a_copy_of_a_figure_is_a_figure() -> None:
    figure = plot(MOVED).flow()
    assert go.Figure(figure).to_json() == figure.to_json()
    assert figure.caption
    assert figure.update_layout(title_text="mine") is figure


def test_another_theme_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^theme='sepia': must be 'light' or 'dark'$"):
        plot(MOVED)(theme="sepia")


def test_training_shows_loss_metrics_and_rate_and_any_of_them_alone() -> None:
    figures = plot(MOVED).training()
    assert isinstance(figures, Figures)
    titles = [layout_of(figure).yaxis.title.text for figure in figures]
    assert titles == ["Loss (nats)", "Score", "Learning rate"]
    assert plot(MOVED).training("lr") == figures[2]
    assert repr(figures) == "Figures(3 figures)"


def test_several_figures_show_themselves_in_jupyter_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    seen: list[Any] = []
    monkeypatch.setattr(IPython.display, "display", seen.append)
    figures = plot(MOVED).training()
    assert isinstance(figures, Figures)
    figures._ipython_display_()
    assert seen == list(figures)


def test_the_map_shows_the_steps_asked_for_and_marks_the_last() -> None:
    figure = plot(MOVED).capacity(start=50, stop=120)
    low, high = layout_of(figure).xaxis.range
    assert 40 <= low <= 50
    assert high == 120.5
    assert [shape.x0 for shape in layout_of(figure).shapes if shape.xref == "x"] == [120]
    assert figure.table["step"].max() == 120


def test_steps_of_numpy_are_steps() -> None:
    assert plot(MOVED).flow(np.int64(0), np.int64(300)) == plot(MOVED).flow()  # pyright: ignore


def test_ranks_are_those_of_the_step_and_at_the_last_those_of_the_run() -> None:
    run = dynlora.open_run(SAMPLES / MOVED)
    (first,), (last,) = (traces_of(run.plot.ranks(step)) for step in (0, None))
    assert sorted(np.ravel(first.z)) == sorted(run.signal("rank").iloc[0, 1:])
    assert sorted(np.ravel(first.z)) != sorted(np.ravel(last.z))
    assert sorted(np.ravel(last.z)) == sorted(map(float, run.summary["ranks"].values()))


def test_a_module_is_framed() -> None:
    name = dynlora.open_run(SAMPLES / MOVED).modules["name"][3]
    for figure in (plot(MOVED).capacity(module=name), plot(MOVED).knockouts(module=name)):
        assert figure.to_json() != plot(MOVED).capacity().to_json()
    assert "rect" in [shape.type for shape in layout_of(plot(MOVED).capacity(module=name)).shapes]


WRONG: list[tuple[Callable[[Plots], Any], str]] = [
    (lambda p: p.capacity("gat"), r"^signal='gat': did you mean 'gate'\?$"),
    (lambda p: p.capacity(order="size"), r"^order='size': must be one of kind, depth, rank and layer$"),
    (lambda p: p.capacity(module="query"), r"^module='query': must be one of .* and 24 more$"),
    (lambda p: p.capacity(start=-1), r"^start=-1: must be a whole number, a step from 0 to 300$"),
    (lambda p: p.capacity(start=200, stop=100), r"^stop=100: must be a whole number, a step from 200 to 300$"),
    (lambda p: p.capacity(start=50, step=10), r"^step=10: must be a whole number, a step from 50 to 300$"),
    (lambda p: p.ranks(1.5), r"^step=1.5: must be a whole number"),  # pyright: ignore
    (lambda p: p.shrink(-0.1), r"^tolerance=-0.1: must be 0 or more, in nats of held-out loss$"),
    (
        lambda p: p.knockouts("magic"),
        r"^score='magic': must be one of mean importance of the last quarter, importance at the end",
    ),
]


@pytest.mark.parametrize(("draw", "words"), WRONG)
def test_a_wrong_argument_is_one_sentence_with_what_may_stand_there(draw: Callable[[Plots], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        draw(plot(MOVED))
    assert "\n" not in str(caught.value)


MISSING: list[tuple[str, Callable[[Plots], Any], str]] = [
    (UNIFORM, Plots.gates, r"no figure gates\. This run has no gates, .*gates=module.*"),
    (
        WRITES,
        Plots.knockouts,
        rf"no figure knockouts\. No .*\. Measure it with `dynlora ablate {WRITES} --runs-dir .*`",
    ),
    (MOVED, Plots.shrink, rf"has no measured sizes .*; measure them with `dynlora compress {MOVED} --curve --runs-dir"),
]


@pytest.mark.parametrize(("run", "draw", "words"), MISSING)
def test_what_a_run_cannot_draw_names_what_is_missing_and_what_to_do(
    run: str, draw: Callable[[Plots], Any], words: str
) -> None:
    with pytest.raises(NotRecordedError, match=rf"^run {run}:? {words}"):
        draw(plot(run))


@pytest.mark.parametrize("name", [*FIGURES, "replay", "shrink"])
def test_a_run_in_the_queue_draws_nothing_and_says_so(runs_dir: Path, name: str) -> None:
    run = dynlora.open_run(make_run(runs_dir, run_id=RUN, state="queued", steps=0))
    with pytest.raises(NotRecordedError, match=rf"^run {RUN}(: no figure| has [^;]*;) .") as caught:
        getattr(run.plot, name)()
    assert "\n" not in str(caught.value)


def without(signal: str, run: str, folder: Path) -> Path:
    """Return a copy of a sample run that never recorded a signal."""
    shutil.copytree(SAMPLES / run, folder)
    with sqlite3.connect(folder / "run.db") as database:
        changed = database.execute("UPDATE signals SET name = 'other' WHERE name = ?", (signal,)).rowcount
    database.close()
    assert changed == 1
    return folder


def test_gates_of_a_run_that_was_not_evaluated_are_waited_for(tmp_path: Path) -> None:
    with pytest.raises(
        NotRecordedError, match=r"No gates by input group were recorded .*; wait for the next evaluation\.$"
    ):
        dynlora.open_run(without("group_gate", MOVED, tmp_path / MOVED)).plot.gates()


def test_importance_that_was_never_recorded_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotRecordedError, match="No importance was recorded up to this step"):
        dynlora.open_run(without("importance", UNIFORM, tmp_path / UNIFORM)).plot.importance_vs_rank()


def test_a_figure_of_a_running_run_grows_with_it(runs_dir: Path) -> None:
    going = Running(runs_dir)
    plots = dynlora.open_run(going.folder).plot
    seen = []
    for step in (10, 30):
        going.advance(step)
        seen.append(plots.capacity().table["step"].max())
    assert seen == [10, 30]


def test_a_run_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    folder = make_run(tmp_path, run_id=RUN)
    plots = dynlora.open_run(folder).plot
    shutil.rmtree(folder)
    with pytest.raises(DynloraError):
        plots.capacity()


EVERY = f"""
import sys, dynlora
run = dynlora.open_run("sample_runs/{MOVED}")
run._repr_html_(), run.plot.replay()._repr_html_()
for name in {FIGURES!r}:
    getattr(run.plot, name)()
other = dynlora.open_run("sample_runs/{UNIFORM}")
other.plot.shrink()
comparison = dynlora.compare([other, "sample_runs/20261205-145115-dab7e702"])
comparison._repr_html_(), comparison.verdict, comparison.table(), comparison.table(each_run=True)
for name in ("training", "results", "differences", "capacity"):
    getattr(comparison.plot, name)()
heavy = {{"torch", "transformers", "datasets", "streamlit", "IPython", "marimo"}} & set(sys.modules)
sys.exit(", ".join(sorted(heavy)) or 0)
"""


def test_no_figure_loads_torch_or_streamlit_or_a_notebook() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", EVERY], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_opening_a_run_loads_no_figures() -> None:
    program = f"import sys, dynlora; dynlora.open_run('sample_runs/{MOVED}'); sys.exit('plotly' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_a_figure_holds_no_address_and_no_script() -> None:
    for name in FIGURES:
        for figure in drawn(getattr(plot(MOVED), name)()):
            written = str(figure.to_json())
            assert "http" not in written
            assert "<script" not in written
