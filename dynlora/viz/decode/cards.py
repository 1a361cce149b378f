"""The cards of the Decode page: the conclusion, one solution step by step, and the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

from dynlora.store import queries
from dynlora.store.decodes import Decode, Point, Solution
from dynlora.store.growing_decodes import GrowingDecodes
from dynlora.viz.decode import figures, model, steps_view, text
from dynlora.viz.decode.live_cards import has_roles
from dynlora.viz.kit.text import markdown_text, one_line
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, note, table
from dynlora.viz.ui.conclusion import conclusion
from dynlora.viz.ui.run_picker import Chosen, link
from dynlora.viz.ui.url_state import choose, segmented

GROWING = GrowingDecodes()


@dataclass(frozen=True)
class Shown:
    """What the page is about.

    Attributes:
        found: all that was recorded.
        point: the one that is looked at.
    """

    found: Decode
    point: Point


def read(folder: Path, *, is_active: bool) -> Decode:
    """Return what a decode recorded; that of one that has ended is kept, of one at work only what is new is read.

    Raises:
        DynloraError: when the run cannot be read.
    """
    return GROWING.read(folder) if is_active else cached_queries.ask(queries.read_decode, folder)


def choose_point(found: Decode) -> Shown | None:
    """Draw the choice of the point that is looked at and return it; None before anything is solved."""
    points = {point.key: point for point in found.points if point.key in found.solved}
    if not points:
        return None
    usual = model.best(found) or next(iter(points.values()))
    key = choose(
        "point", "Threshold", list(points), usual.key, lambda key: model.label(points[key]), width=260,
        help=text.ONLY_FIRST,
    )  # fmt: skip
    return Shown(found, points[key])


def conclusion_card(found: Decode, point: Point | None, run: Chosen) -> None:
    """Draw the result, what it rests on, and where to try it."""
    with conclusion(text.headline(found, point), text.basis(found, point)):
        if has_roles(str(run.folder)):
            link("pages/playground.py", "Try a problem of your own", tab="decode", decode=run.id)
        results = model.by_point(found)
        if len(results):
            table(results.drop(columns="key"), "decode-results")


def solution_card(shown: Shown) -> None:
    """Draw one solution: who wrote each step, what was rejected, and the reward."""
    solved = {one.problem: one for one in model.solutions_of(shown.found, shown.point.key)}
    with card("Solution, step by step", "solution"):
        one = solved[_pick_problem(solved)]
        st.markdown(f"**{markdown_text(one.question, 1000)}**")
        st.html(steps_view.solution_html(one, shown.point, colours()))
        expected = f" Right answer: {one_line(one.reference, 80)}." if one.reference else ""
        note(text.solution(one) + expected)


def _pick_problem(solved: dict[int, Solution]) -> int:
    """Draw the choice of the problem; first one with a rejected step, which the page is about, that ended right."""
    usual = max(solved, key=lambda key: (any(step.discarded for step in solved[key].steps), solved[key].right is True))
    marks = {True: "right", False: "wrong", None: "not known"}

    def words(key: int) -> str:
        return f"{key + 1} ({marks[solved[key].right]}): {one_line(solved[key].question, 60)}"

    return choose("problem", "Problem", list(solved), usual, words)


def evidence(shown: Shown) -> None:
    """Draw the evidence: rewards, tokens, accuracy against cost, reliability and nested rank."""
    left, right = st.columns(2)
    with left:
        rewards_card(shown)
    with right:
        tokens_card(shown)
    frontier_card(shown)
    left, right = st.columns(2)
    with left:
        reliability_card(shown)
    with right:
        nested_card(shown.found)


def rewards_card(shown: Shown) -> None:
    """Draw the rewards over the steps of a point."""
    with card("Reward by step", "rewards"):
        frame = model.steps_frame(shown.found, shown.point.key)
        if frame.empty:
            note(text.rewards(frame, shown.point))
            return
        figure = figures.rewards(frame, shown.point, colours())
        chart(figure, text.rewards(frame, shown.point), frame, "rewards")


def tokens_card(shown: Shown) -> None:
    """Draw the tokens of each problem by who wrote them."""
    with card("Tokens by role and problem", "tokens"):
        frame = model.tokens_frame(shown.found, shown.point.key)
        chart(figures.tokens(frame, colours()), text.tokens(frame), frame, "tokens")


def frontier_card(shown: Shown) -> None:
    """Draw accuracy against what a solution costs."""
    with card("Accuracy against cost", "frontier"):
        cost = segmented("cost", "Cost", list(model.COSTS), "flops", model.COSTS.__getitem__)
        results = model.by_point(shown.found)
        known = results.dropna(subset=["accuracy"])
        if known.empty:
            note("The right answers of these problems are not known, so there is no accuracy.")
            return
        figure = figures.frontier(known, cost, shown.point.key, colours())
        chart(figure, text.frontier(known, cost), results.drop(columns="key"), "frontier")


def reliability_card(shown: Shown) -> None:
    """Draw whether a high reward goes with a right answer."""
    with card("Is the reward a reward?", "reliability", "Right final answers by the reward of kept steps"):
        frame = model.reliability(shown.found, shown.point.key)
        if frame.empty:
            note(text.reliability(frame))
            return
        chart(figures.reliability(frame, colours()), text.reliability(frame), frame, "reliability")


def nested_card(found: Decode) -> None:
    """Draw the agreement of smaller adapters with the whole one."""
    with card("Agreement by rank", "nested", "How much of the target's adapter is in its first components"):
        frame: pd.DataFrame = model.nested_frame(found)
        if frame.empty:
            note("Not measured in this decode. Add --nested-ranks to `dynlora rsd` to measure it.")
            return
        chart(figures.nested(frame, colours()), text.nested(frame), frame, "nested")
