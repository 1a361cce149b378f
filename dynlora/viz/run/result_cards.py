"""The Run page's results: what the last evaluation found, and what changed since the first."""

from __future__ import annotations

import html
from collections.abc import Collection

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dynlora.analysis import results, run_summary
from dynlora.analysis.frames import smoothed
from dynlora.analysis.module_effects import reaction_conclusion
from dynlora.analysis.run_reading import RunReading
from dynlora.kinds.run_kind import registry
from dynlora.kinds.train.panels.texts import Generated, GeneratedTexts, Steps, beside_first, changes, conclusion
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.text import metric_words, number, one_line, score, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.charts import add_losses, titled
from dynlora.viz.kit.panel import RunView
from dynlora.viz.kit.theme import Palette
from dynlora.viz.run.button import adapter_button
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import badge, card, chart, colours, figures, in_row, note, safe, status_line, table, texts
from dynlora.viz.ui.panel_cards import panel_cards
from dynlora.viz.ui.run_actions import delete_button, move_buttons, run_buttons
from dynlora.viz.ui.run_picker import Chosen, link, links, page_of

POINTS, HEIGHT = 200, 190
"""Most points of a series, and pixels of a chart: it is as small as can be read."""


def run_panel(run: Chosen) -> None:
    """Draw a run's card for the side of the list.

    Raises:
        DynloraError: when the run cannot be read.
    """
    summary = queries.run_summary(run.folder)
    with card(one_line(summary.name, 80), "panel", run_summary.about(summary)):
        with in_row("panel-head"):
            badge(summary.status)
            st.caption(run_summary.format_progress(dict(summary)), width="content")
        kind = registry().get(summary.kind)
        allocates = kind is not None and kind.allocates
        if allocates:
            links(run.id)
        elif page := page_of(summary.kind):
            link(page, f"Open {summary.kind}", run=run.id)
        with in_row("panel-actions", "top"):
            run_buttons(run, summary.status)
            if allocates:
                adapter_button(run)
            if run.is_own:
                delete_button([run.id])
        if run.is_own and summary.status == "queued":
            move_buttons(run.id, "panel")
        status_line(summary)
        if allocates:
            _results(summary)
            _loss(run)
            _ranks(run)


def _results(summary: RunSummary) -> None:
    """Draw the last and the best value of the metric that decides, and the parameters in use."""
    name, value = run_summary.main_metric(dict(summary))
    used = run_summary.parameters_in_use(summary.params)
    best = summary.best.get(name)
    if value is None:
        return
    word = sentence_case(metric_words(name))
    results = {word: score(value), "Best": score(best), "Parameters in use": "–" if used is None else f"{used:,}"}
    figures(results, "figures-panel")


def _loss(run: Chosen) -> None:
    """Draw the training loss and the held-out loss."""
    scalars = cached_queries.ask(queries.scalars_frame, run.folder, "loss", None, POINTS)
    train, held_out = (run_summary.series(scalars, "loss", split) for split in ("train", "validation"))
    if train.empty:
        note("No loss has been recorded yet.")
        return
    chart(loss_figure(train, held_out, colours()), loss_caption(train, held_out), train, "panel-loss")


def _ranks(run: Chosen) -> None:
    """Draw the lowest, mean and highest rank of the modules."""
    try:
        ranks = cached_queries.ask(queries.heatmap, run.folder, "rank", POINTS, None, None).frame
    except KeyError:
        return
    span = spans_of(ranks)
    if len(span):
        chart(ranks_figure(span, colours()), ranks_caption(span), span, "panel-ranks")


def spans_of(ranks: pd.DataFrame) -> pd.DataFrame:
    """Return the lowest, mean and highest rank at each step: columns step, lowest, mean, highest.

    Args:
        ranks: one row per module, one column per step.
    """
    spans = pd.DataFrame({"lowest": ranks.min(), "mean": ranks.mean(), "highest": ranks.max()})
    return spans.dropna().rename_axis("step").reset_index()


def loss_caption(train: pd.DataFrame, held_out: pd.DataFrame) -> str:
    """Say where both losses stand; frames hold step and value."""
    known = train.dropna(subset=["value"])
    if known.empty:
        return "No loss has been recorded yet."
    words = f"Training loss {smoothed(known['value']).iloc[-1]:.3f} at step {number(int(known['step'].iloc[-1]))}"
    return f"{words}; held-out loss {held_out['value'].iloc[-1]:.3f}." if len(held_out) else f"{words}."


def ranks_caption(span: pd.DataFrame) -> str:
    """Say between which ranks the modules lie at the last step; columns step, lowest, mean, highest."""
    last = span.iloc[-1]
    low, high = number(int(last["lowest"])), number(int(last["highest"]))
    return f"Every module has rank {low}." if low == high else f"Ranks from {low} to {high}, mean {last['mean']:.1f}."


def loss_figure(train: pd.DataFrame, held_out: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the smoothed training loss and the held-out loss; frames hold step and value."""
    return add_losses(theme.figure(colours, HEIGHT), train, held_out, colours, "Training, smoothed")


def ranks_figure(span: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the mean rank in a band from the lowest to the highest; columns step, lowest, mean, highest."""
    drawn = theme.figure(colours, HEIGHT)
    drawn.add_scatter(
        x=[*span["step"], *span["step"][::-1]],
        y=[*span["highest"], *span["lowest"][::-1]],
        fill="toself",
        mode="lines",
        line={"width": 0, "shape": "hv"},
        fillcolor=theme.faded(colours.accent, 0.16),
        name="Lowest to highest",
        hoverinfo="skip",
    )
    drawn.add_scatter(
        x=span["step"],
        y=span["mean"],
        mode="lines",
        name="Mean",
        line={"color": colours.accent, "width": 2},
        customdata=span[["lowest", "highest"]].to_numpy(),
        hovertemplate="step %{x}<br>mean rank %{y:.2f}<br>from %{customdata[0]:.0f} to %{customdata[1]:.0f}"
        "<extra></extra>",
    )
    drawn.update_layout(showlegend=True)
    drawn.update_yaxes(rangemode="tozero", tickformat=",d", nticks=5)
    return titled(drawn, "Rank of a module")


KEY = GeneratedTexts.id


def generated_texts(steps: Steps, summary: RunSummary) -> None:
    """Draw what the model wrote at its evaluations, beside its text at the first.

    Args:
        steps: the texts of each evaluation by its step; at least one.
        summary: as `queries.run_summary` returns it.
    """
    with card(GeneratedTexts.title, KEY, conclusion(steps)):
        step = _step(list(steps))
        begin, first = next(iter(steps.items()))
        frame = beside_first(steps[step], first)
        names = [f"{place + 1}. {_line(prompt)}" for place, prompt in enumerate(frame["prompt"])]
        place = st.selectbox("Prompt", range(len(names)), format_func=names.__getitem__, key=f"{KEY}-prompt")
        is_base = begin == 0 and not summary.origin  # an adapter that was not trained changes nothing
        _one(steps[step][place], first, step, "Base model" if is_base else "First evaluation")
        table(frame, KEY)


def _step(steps: list[int]) -> int:
    """Draw the slider over evaluations and return the chosen step."""
    if len(steps) < 2:
        return steps[-1]
    return st.select_slider("Evaluation at step", steps, value=steps[-1], key=f"{KEY}-step-{len(steps)}")


def _one(text: Generated, first: list[Generated], step: int, name: str) -> None:
    """Draw one prompt and its text beside that of the first evaluation, with the words marked that are others.

    Args:
        text: of the prompt.
        first: texts of the first evaluation, which may have fewer prompts.
        step: of the text.
        name: of the first evaluation.
    """
    before = next((one.text for one in first if one.row == text.row), None)
    pieces = [(text.text, False)] if before is None else changes(before, text.text)
    marked = "".join(f"<mark>{html.escape(piece)}</mark>" if new else html.escape(piece) for piece, new in pieces)
    verdict = {True: " · correct", False: " · not correct", None: ""}[text.right]
    now = f"Step {step:,}{verdict}{'' if text.ended else ' · cut off at the limit'}"
    texts = [] if before is None else [(name, html.escape(before) or "(nothing)", " dl-pale")]
    pair = "".join(_part(*one) for one in [*texts, (now, marked or "(nothing)", "")])
    prompt, expected = _part("Prompt", html.escape(text.prompt)), _part("In the data", html.escape(text.expected))
    st.html(f'{prompt}<div class="dl-pair">{pair}</div>{expected}')


def _part(title: str, body: str, kind: str = " dl-pale") -> str:
    """Return a text under its title as HTML; nothing for none. The body is escaped."""
    return f'<div class="dl-text{kind}"><small>{html.escape(title)}</small><pre>{body}</pre></div>' if body else ""


def _line(text: str) -> str:
    """Return the beginning of a text in a line."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= 80 else f"{flat[:79]}…"


MOST_WRONG_PX = 250
"""Height of the list of what a run gets wrong, pixels."""


def wrong_card(view: RunView) -> None:
    """Draw what a run gets wrong at its last evaluation: how much, the most frequent error, and the costliest rows."""
    run: RunReading = view.result
    with card("What it gets wrong", "worst"):
        panel = next(panel for panel in registry()["train"].panels if panel.id == "worst")
        evaluated, rows = run_summary.evaluation(run.evaluations), panel.data(view)
        if evaluated is None:
            note("The run has not been evaluated yet. Results appear with the first evaluation.")
            return
        words = results.errors(evaluated[1])
        if words:
            st.markdown(safe(words))
        if rows is None:
            note(panel.missing)
            return
        texts(rows, "worst", MOST_WRONG_PX)
        with in_row("worst-foot"):
            note(f"{panel.heading(view)}. {panel.caption(rows)}")
            link("pages/playground.py", "Open in Playground", run=run.folder.name)


def run_results(view: RunView, without: Collection[str]) -> None:
    """Draw scores by class and group, and the probe set before and after.

    Args:
        view: of the run.
        without: ids of panels that stand elsewhere.

    Raises:
        DynloraError: when the run cannot be read.
    """
    reading: RunReading = view.result
    if run_summary.evaluation(reading.evaluations) is None:
        note("The run has not been evaluated yet. Results appear with the first evaluation.")
        return
    if reading.reactions:
        note(reaction_conclusion(reading.reactions[0], run_summary.loss_unit(reading.summary)))
    panels = registry()["train"].panels
    panel_cards((one for one in panels if one.part == "Results" and one.id not in (*without, "worst", KEY)), view)
