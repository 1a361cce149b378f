"""What the Inputs page shows: groups, gates and the probe set of one run at one step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dynlora.analysis import input_frames
from dynlora.analysis.gate_effect import REACTION, reaction_conclusion, reactions
from dynlora.analysis.inputs_reading import InputsReading
from dynlora.analysis.run_summary import evaluated_rows, loss_unit
from dynlora.errors import DynloraError
from dynlora.store import queries
from dynlora.viz.inputs import figures as inputs_figures
from dynlora.viz.inputs import text as inputs_text
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import chart, colours, plot_config
from dynlora.viz.ui.model_client import ask_model
from dynlora.viz.ui.panel_cards import conclusion
from dynlora.viz.ui.run_picker import has_model, link
from dynlora.viz.ui.url_state import choose, segmented, to_address

MOST_CHOSEN = 200
"""Examples that a selection may hold; an address must stay short."""


def shows(folder: Path) -> int:
    """Say how much there is to show of a run: more with gates, most where reacting to the input is shown to gain."""
    try:
        names = cached_queries.signal_names(folder)
        measured = reactions(cached_queries.ask_events(queries.events_frame, folder, (REACTION,)))
    except DynloraError:
        return 0
    if "probe_loss" not in names and "group_loss" not in names:
        return 0
    return 1 + ("gate" in names) + any(one.low is not None and one.low > 0 for one in measured[:1])


def show_conclusion(view: InputsReading) -> None:
    """Draw what the page shows, in a sentence, and where to go next."""
    summary = view.summary
    name, low_is_good = input_frames.group_title("metric", summary["metric"])
    words = inputs_text.conclusion(
        view.groups,
        name,
        evaluated_rows(summary, view.step),
        view.effect,
        gated=not view.gates.empty,
        low_is_good=low_is_good,
    )
    if view.reactions:
        words = f"{reaction_conclusion(view.reactions[0], loss_unit(summary))} {words}"
    with conclusion(words, ""):
        if has_model(view.folder):
            link("pages/playground.py", "Try a text of your own", run=summary["id"])
        link("pages/run.py", "Worst examples", run=summary["id"], section="results")


def colour_choice(kinds: list[str], modules: Mapping[str, str]) -> tuple[str, str]:
    """Draw what colours the probe set, and return it with the module whose gate is meant ("" for another colour).

    Args:
        kinds: what can colour it.
        modules: short name of each module.
    """
    by = segmented("colour", "Colour", kinds, "group", "Colour by {}".format)
    if by != "gate":
        return by, ""
    return by, choose("module", "Module", list(modules), next(iter(modules)), modules.__getitem__)


def placed(view: InputsReading) -> tuple[pd.DataFrame, tuple[str, str]]:
    """Draw what places the probe set in the plane, and return the examples there with the titles of the axes.

    PCA was recorded; UMAP is asked of the model, and stays PCA when it cannot answer.
    """
    examples = view.examples
    if segmented("plane", "Projection", ["PCA", "UMAP"], "PCA") == "UMAP":
        pairs = list(examples["text_pair"]) if bool(examples["text_pair"].notna().to_numpy().all()) else None
        points = ask_model(view.folder, "neighbours", texts=examples["text"].tolist(), pairs=pairs)
        if points is not None:
            x, y = np.array(points, dtype=float).T
            return examples.assign(x=x, y=y), ("UMAP dimension 1", "UMAP dimension 2")
    return examples, ("First principal component", "Second principal component")


def chosen_examples() -> list[int]:
    """Return the positions of the examples in the address."""
    parts = st.query_params.get("points", "").split(",")[:MOST_CHOSEN]
    return [int(part) for part in parts if part.isdecimal() and len(part) < 7]


def pin_link(run_id: str, chosen: list[int]) -> None:
    """Draw the link that shows the one selected example in every run of the same data."""
    if len(chosen) == 1:
        link("pages/compare.py", "Compare this example across runs", runs=run_id, example=str(chosen[0]))


def depth_chart(view: InputsReading, chosen: list[int]) -> None:
    """Draw the gates of the selected examples over the depth of the model, where gates were recorded."""
    depth = input_frames.over_depth(view.probe_gates, view.modules, chosen)
    if len(depth):
        chart(inputs_figures.gates_over_depth(depth, colours()), inputs_text.depth(depth), depth, "depth")


def selectable(figure: go.Figure, sentence: str, key: str) -> None:
    """Draw a scatter whose points can be selected; the choice goes to the address."""
    st.plotly_chart(
        figure,
        theme=None,
        key=f"chart-{key}",
        config=plot_config(key),
        alt=sentence,
        width="stretch",
        on_select=lambda: _selected(f"chart-{key}"),
        selection_mode=("points", "box", "lasso"),
    )


def _selected(key: str) -> None:
    points = st.session_state[key]["selection"]["points"]
    positions = sorted({int(point["customdata"][0]) for point in points if point.get("customdata")})[:MOST_CHOSEN]
    to_address(points=",".join(map(str, positions)) or None)
