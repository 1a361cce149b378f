"""The Compare page's parts that take hundreds of runs: scatter plots, sweeps, the results table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import seed_groups
from dynlora.text import markdown_text, one_line, plural, sentence_case
from dynlora.viz.compare import model as compare_model
from dynlora.viz.compare import results_table, scatter_figures, scatter_model, sweep_model
from dynlora.viz.compare import text as scatter_text
from dynlora.viz.compare.model import LOW_IS_GOOD
from dynlora.viz.compare.run_selection import MOST_READ, method_eyes
from dynlora.viz.compare.scatter_model import Row, title
from dynlora.viz.kit.run_colours import LineStyle, line_styles
from dynlora.viz.ui.cards import brushable, card, chart, colours, note, under
from dynlora.viz.ui.cards import rows as table_rows
from dynlora.viz.ui.run_picker import link
from dynlora.viz.ui.url_state import choose, from_address, segmented, several

Interval = tuple[float, float]


def intervals(boxes: Iterable[Mapping[str, Any]], axes: int) -> dict[int, list[Interval]]:
    """Return from where to where each brushed axis is picked.

    Args:
        boxes: with `x` and `y`, from and to; the axes are at 0, 1, 2, ...
        axes: how many there are.
    """
    ranges: dict[int, list[Interval]] = {}
    for box in boxes:
        (left, right), (low, high) = sorted(box["x"]), sorted(box["y"])
        for axis in range(axes):
            if left <= axis <= right:
                ranges.setdefault(axis, []).append((low, high))
    return ranges


def picked(places: Sequence[Sequence[float]], brushed: Mapping[int, Sequence[Interval]]) -> list[int] | None:
    """Return which runs are within an interval on each brushed axis, None while nothing is brushed.

    Args:
        places: of the runs on each axis; NaN, which is in no interval, where a run has no such value.
        brushed: as `intervals` returns it.
    """
    if not brushed:
        return None
    runs = range(len(places[0]))
    return [
        run
        for run in runs
        if all(any(low <= places[axis][run] <= high for low, high in parts) for axis, parts in brushed.items())
    ]


FEWEST_BRUSHED = 5
"""Fewest runs of which a brush picks some."""

MOST_AXES = 5
"""Axes of settings that are drawn when nobody chose any."""


def numbers(rows: Sequence[Row]) -> None:
    """Draw any two numbers of the runs against each other, and many at once."""
    visible, styles = method_eyes(rows)
    two_numbers(visible, styles)
    many_numbers(visible)


def two_numbers(rows: Sequence[Row], styles: Mapping[str, LineStyle]) -> None:
    """Draw any two numbers of the runs against each other, each method in its style."""
    table = scatter_model.number_table(rows)
    names = list(table.columns[3:])
    with card("Scatter plot", "scatter"):
        if not names:
            note("None of these runs has recorded values yet.")
            return
        vary = scatter_model.varying(table)
        metric = compare_model.shared_metric(rows)
        usual = next((name for name in ("train.lr", scatter_model.USED, "time.train_s") if name in vary), names[0])
        left, right = st.columns(2)
        with left:
            across = choose("across", "X axis", names, usual, _title)
        with right:
            up = choose("up", "Y axis", names, metric if metric in names else names[0], _title)
        method = seed_groups.methods(rows)
        points = table[["name"]].assign(strategy=table["id"].map(method), x=table[across], y=table[up])
        points = points.dropna(subset=["x", "y"])
        titles = (title(across), title(up))
        is_log = scatter_model.is_logarithmic
        logs = (is_log(points["x"].tolist()), is_log(points["y"].tolist()))
        figure = scatter_figures.scatter(points, titles, colours(), logarithmic=logs, styles=styles)
        chart(figure, scatter_text.scatter(points, titles, len(rows)), points, "scatter")


def many_numbers(rows: Sequence[Row]) -> None:
    """Draw a line for each run over what was varied and its results."""
    with card("Settings and results", "parallel"):
        settings = list(scatter_model.swept(rows))
        if not settings:
            note("All these runs have the same settings except the seed.")
            return
        metric = compare_model.shared_metric(rows)
        low = metric in LOW_IS_GOOD
        rows = scatter_model.best_first(rows, metric, low_is_good=low)
        words = {key: title(key) for key in settings}
        chosen = several("axes", "Settings", settings, words, "stretch", "The most varied settings")
        axes = scatter_model.axes(rows, chosen or settings[:MOST_AXES], _results(rows, metric))
        lines = scatter_model.lines(rows, axes, metric, low_is_good=low)
        names = [words[key] for key in chosen or settings[:MOST_AXES]]
        caption = scatter_text.parallel(lines, names, metric)
        figure = scatter_figures.parallel(lines, axes, colours())
        if len(rows) < FEWEST_BRUSHED:
            chart(figure, caption, lines, "parallel")
            return
        boxes = brushable(figure, f"{caption} {scatter_text.BRUSH}", lines, "parallel")
        chosen_lines = picked([one.places for one in axes], intervals(boxes, len(axes)))
        if chosen_lines is not None:
            _brushed(lines.iloc[chosen_lines], [str(rows[place]["id"]) for place in chosen_lines])


def _brushed(lines: pd.DataFrame, ids: Sequence[str]) -> None:
    """List the runs that the brush holds, the best first, with the way to compare them."""
    note(f"{plural(len(ids), 'run')} picked. A double click on the picture picks all again.")
    if ids:
        table_rows(lines)
    if len(ids) > 1:
        link("pages/compare.py", f"Compare these {len(ids)} runs", runs=",".join(ids[:MOST_READ]))


def _results(rows: Sequence[Row], metric: str) -> list[str]:
    """Return the results that end the picture: what was used where it varies, then the metric."""
    vary = scatter_model.varying(scatter_model.number_table(rows))
    return [name for name in (scatter_model.USED,) if name in vary] + [metric]


def _title(field: str) -> str:
    return sentence_case(one_line(title(field), 60))


def sweep_grid(rows: Sequence[Row], metric: str) -> None:
    """Draw the mean result over two settings."""
    with card("Grid of two settings", "grid"):
        settings = list(scatter_model.swept(rows))
        if len(settings) < 2:
            note("A grid needs two settings, other than the seed, that differ between runs.")
            return
        left, right = st.columns(2)
        with left:
            top = choose("top", "Columns", settings, words=_title)
        with right:
            side = choose("side", "Rows", settings, settings[1], _title)
        if top == side:
            note("Select two different settings.")
            return
        cells = sweep_model.grid(rows, top, side, metric)
        low = metric in LOW_IS_GOOD
        figure = scatter_figures.grid(cells, (title(top), title(side), metric), colours(), low_is_good=low)
        hidden = sweep_model.averaged_over(rows, (top, side))
        words = scatter_text.grid(cells, (top, side), metric, hidden, low_is_good=low)
        chart(figure, words, cells, "grid")


def sweep_curves(rows: Sequence[Row], metric: str, styles: Mapping[str, LineStyle]) -> None:
    """Draw a line for each method, in its style, over the learning rate, the budget or another setting."""
    ways = sweep_model.ways(rows)
    with card("Effect of one setting", "along"):
        if not ways:
            note("No numeric setting differs between these runs.")
            return
        left, right = st.columns(2, vertical_alignment="bottom")
        with left:
            along = choose("along", "Setting", ways, words=_title)
        with right:
            per = segmented("lines", "Lines", sweep_model.LINES)
        low = metric in LOW_IS_GOOD
        every = sweep_model.curves(rows, along, metric)
        lines = every if per == "configuration" else sweep_model.best_of_each(every, low_is_good=low)
        drawn_lines, of = sweep_model.most_lines(lines)
        titles = (title(along), f"{title(metric)} (held-out)" if metric != "loss" else title(metric))
        is_log = scatter_model.is_logarithmic(drawn_lines["x"].tolist())
        looks = styles if per == "method" else _own_styles(rows, along, drawn_lines)
        figure = scatter_figures.along(drawn_lines, titles, colours(), logarithmic=is_log, styles=looks)
        drawn = drawn_lines["group"].nunique()
        is_chosen = len(lines) < len(every)
        words = scatter_text.along(lines, drawn, of, along, low_is_good=low, is_chosen=is_chosen)
        chart(figure, words, lines, "along")


def _own_styles(rows: Sequence[Row], along: str, lines: pd.DataFrame) -> dict[str, LineStyle]:
    """Return the style of each configuration that is drawn as a line."""
    groups, names = sweep_model.groups_along(rows, along), list(dict.fromkeys(lines["group"]))
    return line_styles(names, colours(), names, {name: groups[name] for name in names})


def sweep_parts(rows: Sequence[Row]) -> None:
    """Draw both views of a sweep, over the finished runs."""
    rows, styles = method_eyes(rows, coloured=from_address("lines", list(sweep_model.LINES), "method") == "method")
    names = sweep_model.metrics_of(rows)
    if not names:
        note("None of these runs has a result yet.")
        return
    usual = compare_model.shared_metric(rows)
    metric = choose("of", "Result", names, usual if usual in names else names[0], _title, width=240)
    done = sweep_model.ended(rows, metric)
    if len(done) < len(rows):
        note(f"{len(done):,} of {len(rows):,} runs shown. The others are not finished or have no such result.")
    sweep_curves(done, metric, styles)
    setting_slices(rows, metric)
    sweep_grid(done, metric)


def setting_slices(rows: Sequence[Row], metric: str) -> None:
    """Draw the result of every run against each setting; nothing for few runs, or where one setting differs alone."""
    table = sweep_model.slices(rows, metric)
    if table["run"].nunique() < sweep_model.FEWEST_RUNS or table["setting"].nunique() < 2:
        return
    low = metric in LOW_IS_GOOD
    with card("Result against each setting", "slices"):
        drawn = sweep_model.figure(table, title(metric), colours(), low_is_good=low)
        chart(drawn, sweep_model.caption(table, metric, low_is_good=low), table, "slices")


def paper_table(rows: Sequence[Row]) -> None:
    """Draw the table of a paper, and offer it as LaTeX and Markdown."""
    with card("Results table", "paper"):
        per = segmented("per", "Rows", results_table.ROWS)
        made = results_table.paper(rows, per)
        if not made.lines:
            note("None of these runs is finished and has a result.")
            return
        st.markdown(results_table.markdown(made, lambda text: markdown_text(text, 120)))
        under(scatter_text.paper(made), results_table.frame(made), "paper")
    for name, text, ending, language in (
        ("LaTeX", results_table.latex(made), "tex", "latex"),
        ("Markdown", results_table.markdown(made), "md", "markdown"),
    ):
        with st.expander(f"{name} table", icon=":material/content_copy:", key=f"paper-{ending}"):
            st.code(text, language=language)
            st.download_button(
                f"Save as {name}",
                text,
                file_name=f"table.{ending}",
                mime="text/plain",
                key=f"paper-save-{ending}",
                on_click="ignore",
                icon=":material/download:",
            )
