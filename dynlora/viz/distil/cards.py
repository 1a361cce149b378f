"""The cards of a distillation: the conclusion, divergence and loss, the texts of the teachers, the student's steps."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.store import queries
from dynlora.store.distils import Distil, PerToken
from dynlora.viz.distil import figures, model, text
from dynlora.viz.kit import lines, run_summary
from dynlora.viz.kit.text import short_names
from dynlora.viz.run.button import export_buttons
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, note, rows, table, texts
from dynlora.viz.ui.conclusion import conclusion
from dynlora.viz.ui.kind_runs import is_student
from dynlora.viz.ui.run_picker import Chosen, link
from dynlora.viz.ui.url_state import choose

POINTS = 600
"""Most points of a series."""


@dataclass(frozen=True)
class Shown:
    """What the page is about.

    Attributes:
        run: the distillation.
        found: all that it recorded.
    """

    run: Chosen
    found: Distil

    @property
    def about(self) -> str:
        """The line under the title."""
        return text.about(self.found)


def read(run: Chosen) -> Shown:
    """Return what a distillation recorded, read again only when it has something new.

    Raises:
        DynloraError: when the run cannot be read.
    """
    return Shown(run, cached_queries.ask(queries.read_distil, run.folder))


def draw(shown: Shown, summary: dict[str, Any], *, is_active: bool) -> None:
    """Draw all cards."""
    _conclusion(shown, is_active=is_active, step=summary["step"])
    left, right = st.columns(2)
    with left:
        _divergence(shown.found)
        _texts(shown.found)
    with right:
        _loss(shown.found)
        _learning(shown.run)


def _conclusion(shown: Shown, *, is_active: bool, step: int) -> None:
    """Draw the result, or how far the distillation is, and who taught."""
    found = shown.found
    sentence = text.progress(found, step) if is_active and not found.kl else text.headline(found)
    with conclusion(sentence, text.basis(found)):
        table(_teachers(found), "teachers")
        if is_student(shown.run.folder):
            _use(shown.run)


def _use(run: Chosen) -> None:
    """Draw where the student writes, what takes it away, and the command."""
    link("pages/playground.py", "Write with it", run=run.id)
    export_buttons(run)
    with st.popover("Command line", icon=":material/terminal:", type="tertiary", key="distil-command"):
        command = ["dynlora", "predict", run.id, "--text", "TEXT", "--runs-dir", str(run.folder.parent)]
        st.code(shlex.join(command), language="bash", wrap_lines=True)


def _teachers(found: Distil) -> pd.DataFrame:
    rows_ = [[one.name, one.strategy, one.rank, one.run] for one in found.teachers]
    return pd.DataFrame(rows_, columns=["teacher", "strategy", "rank", "run"])


def _divergence(found: Distil) -> None:
    """Draw how far each model is from each teacher."""
    frame = model.frame_of(found, found.kl)
    with card("Divergence from the teachers", "divergence", "Texts that teachers wrote for the test alone"):
        _intervals(found, frame, found.kl_against_base, "KL in nats per token", text.divergence(frame), "divergence")


def _loss(found: Distil) -> None:
    """Draw the loss of each model on the held-out examples of each teacher's data."""
    frame = model.frame_of(found, found.loss)
    with card("Held-out loss", "loss", "Held-out examples of each teacher's own data"):
        said = text.loss(frame) if found.kl else "The test comes after the last step."
        _intervals(found, frame, found.loss_against_base, "Loss in nats per token", said, "distil-loss")


def _intervals(
    found: Distil, frame: pd.DataFrame, against: tuple[PerToken, ...], title: str, said: str, key: str
) -> None:
    if frame.empty:
        note(said)
        return
    drawn = frame[frame["method"].isin(model.ORDER) | (frame["model"] == model.OWN)]
    chart(figures.intervals(drawn, title, colours()), said, frame.drop(columns="method"), key)
    gaps = model.frame_of(found, against)
    if len(gaps):
        with st.expander("Difference from the base model, paired", icon=":material/table_rows:"):
            rows(gaps.drop(columns="method"))


def _texts(found: Distil) -> None:
    """Draw how many texts each teacher wrote, and some of them."""
    written = {one.teacher: one for one in found.written if one.teacher < len(found.teachers) and one.samples}
    with card("Texts of the teachers", "texts", "Written from the start token, without any data"):
        if not written:
            note("The first texts appear here.")
            return
        rows(model.counted_frame(found) if found.counted else model.written_frame(found))
        names = short_names(list(model.teacher_names(found).values()), 80)
        teacher = choose("teacher", "Teacher", sorted(written), min(written), names.__getitem__)
        samples = written[teacher].samples
        frame = pd.DataFrame([[one.text or "(empty)", one.tokens, one.ended] for one in samples])
        texts(frame.set_axis(["text", "tokens", "ended"], axis=1), "distil-texts")
        note(text.written(found))


def _learning(run: Chosen) -> None:
    """Draw the KL of each step's texts."""
    scalars = cached_queries.ask(queries.scalars_frame, run.folder, None, None, POINTS)
    series = run_summary.series(scalars, "kl", "student")
    with card("Student", "student", "KL(teacher || student) of the texts of each step"):
        if series.empty:
            note(text.learning(series))
            return
        chart(lines.line(series, "KL in nats per token", colours()), text.learning(series), series, "student")
