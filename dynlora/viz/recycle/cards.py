"""The cards of the Recycle page: the conclusion, the test, the inversion, its words, the episodes, the prototypes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

from dynlora.store import queries
from dynlora.store.recycles import Recycle
from dynlora.viz.kit import lines, run_summary
from dynlora.viz.kit.text import one_line
from dynlora.viz.recycle import figures, model, text, words_view
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, note, rows, table
from dynlora.viz.ui.conclusion import conclusion
from dynlora.viz.ui.run_picker import Chosen, link
from dynlora.viz.ui.url_state import choose

POINTS = 600
"""Most points of a series."""


@dataclass(frozen=True)
class Shown:
    """What the page is about.

    Attributes:
        run: the recycle.
        found: all that it recorded.
        scalars: its numbers, as `queries.scalars_frame` returns them.
    """

    run: Chosen
    found: Recycle
    scalars: pd.DataFrame


def read(run: Chosen) -> Shown:
    """Return what a recycle recorded, read again only when it has something new.

    Raises:
        DynloraError: when the run cannot be read.
    """
    found = cached_queries.ask(queries.read_recycle, run.folder)
    scalars = cached_queries.ask(queries.scalars_frame, run.folder, None, None, POINTS)
    return Shown(run, found, scalars)


def conclusion_card(shown: Shown, *, is_active: bool, step: int) -> None:
    """Draw the result, or how far the recycle is, and what to do next."""
    found = shown.found
    sentence = text.progress(found, step) if is_active and not found.accuracy else text.headline(found)
    with conclusion(sentence, text.basis(found)):
        if has_meta_lora(shown.run.folder):
            link("pages/playground.py", "Try it on a new task", tab="few-shot", meta=shown.run.id)
        table(_teachers(found), "teachers")


def has_meta_lora(folder: Path) -> bool:
    """Say whether a recycle has ended with a meta-LoRA."""
    return (folder / "adapter").is_dir()


def _teachers(found: Recycle) -> pd.DataFrame:
    columns = ["teacher", "classes", "strategy", "rank", "run"]
    table_rows = [[one.name, len(one.classes), one.strategy, one.rank, one.run] for one in found.teachers]
    return pd.DataFrame(table_rows, columns=columns)


def accuracy_card(shown: Shown) -> None:
    """Draw the few-shot accuracy of the meta-LoRA and of what it is compared with."""
    frame = model.accuracy_frame(shown.found.accuracy)
    with card("Few-shot accuracy", "accuracy", "Nearest class mean of a few examples, without training"):
        if frame.empty:
            note(text.accuracy(frame))
            return
        chart(figures.accuracy(frame, colours()), text.accuracy(frame), frame.drop(columns="method"), "few-shot")
        gaps = model.accuracy_frame(shown.found.against_base)
        if len(gaps):
            with st.expander("Difference from the base model, paired over episodes", icon=":material/table_rows:"):
                rows(gaps.drop(columns="method").rename(columns={"name": "method"}))


def inversion_card(shown: Shown) -> None:
    """Draw the loss of the inversion and how far the teachers agree."""
    loss, agreed = (run_summary.series(shown.scalars, name, "inversion") for name in ("inversion_loss", "agreement"))
    with card("Inversion", "inversion", "Synthetic inputs that a teacher assigns to its class"):
        if loss.empty:
            note(text.inversion(loss, agreed))
            return
        both = loss.rename(columns={"value": "loss"}).merge(agreed.rename(columns={"value": "agreement"}), on="step")
        chart(figures.inversion(loss, agreed, colours()), text.inversion(loss, agreed), both, "inversion")


def agreement_card(shown: Shown) -> None:
    """Draw how far the teachers agree, by class."""
    frame = model.agreement_frame(shown.found, shown.run.folder)
    with card("Teacher agreement by class", "agreement"):
        if frame["agreement"].notna().sum() == 0:
            note(text.agreement(frame))
            return
        chart(figures.agreement(frame, colours()), text.agreement(frame), frame, "agreement")


def words_card(shown: Shown) -> None:
    """Draw the nearest words of the inputs of a class."""
    inverted = {group: one for group, one in shown.found.inverted.items() if group < len(shown.found.classes)}
    with card("Nearest words", "words"):
        if not inverted:
            note("The words appear when the first classes are done.")
            return
        names = shown.found.classes
        group = choose("class", "Class", sorted(inverted), min(inverted), lambda key: one_line(names[key], 80))
        st.html(words_view.words_html(inverted[group], colours()))
        note(text.words(names[group], inverted[group].agreement))


def kept_card(shown: Shown) -> None:
    """Draw how many tokens are left, where some are dropped."""
    try:
        frame = cached_queries.ask(queries.signal_frame, shown.run.folder, "tokens_kept", None, None, POINTS)
    except KeyError:
        return
    with card("Tokens kept", "kept"):
        mean = frame.drop(columns="step").mean(axis=1)
        series = pd.DataFrame({"step": frame["step"], "value": mean})
        if series.empty:
            note("No token has been dropped yet.")
            return
        said = (
            f"Mean tokens per input over all classes: {series['value'].iloc[-1]:.1f} of {shown.found.tokens} at the "
            "end. Those of least use are dropped after a quarter of the iterations."
        )
        chart(lines.line(series, "tokens kept", colours()), said, series, "tokens-kept")


def episodes_card(shown: Shown) -> None:
    """Draw how well the meta-LoRA learns from its episodes."""
    frame = model.episodes_frame(shown.scalars)
    with card("Episodes", "episodes", f"{shown.found.ways} ways, {shown.found.queries} queries per class"):
        if frame.empty:
            note(text.episodes(frame))
            return
        chart(figures.episodes(frame, colours()), text.episodes(frame), frame, "episodes")


def places_card(shown: Shown) -> None:
    """Draw the prototypes in the plane."""
    frame = model.places_frame(shown.found)
    with card("Map of the prototypes", "prototypes"):
        if frame.empty:
            note("The map appears at the end of the recycle.")
            return
        chart(figures.places(frame, colours()), text.places(frame), frame, "prototypes")
