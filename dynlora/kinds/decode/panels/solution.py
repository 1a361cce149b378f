"""The solutions of a point: one step by step, the reward of every judged step, and the tokens by who wrote them."""

from __future__ import annotations

import html
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dynlora.kinds.decode import frames
from dynlora.kinds.decode.frames import point_of, role_colours
from dynlora.kinds.decode.result import Point, Solution
from dynlora.text import one_line, percent, plotly_text, score
from dynlora.viz.kit import theme
from dynlora.viz.kit.panel import Choice, Panel, RunView
from dynlora.viz.kit.theme import Palette

MARKS = {True: "right", False: "wrong", None: "not known"}


@dataclass(frozen=True)
class Solved:
    """A solution at a point."""

    point: Point
    solution: Solution


class SolutionSteps(Panel[Solved]):
    """The steps of the chosen problem."""

    id = "solution"
    order = 1
    title = "Solution, step by step"
    missing = "The first solved problem appears here."
    is_wide = True

    def choice(self, view: RunView) -> Choice | None:
        """Return the problems; first a right one, of these one that both models wrote, then one with a rejection."""
        solved = _solved(view)
        if not solved:
            return None

        def order_of(key: int) -> tuple[bool, bool, bool]:
            one = solved[key]
            return one.right is True, frames.is_shared(one), any(step.discarded is not None for step in one.steps)

        usual = max(solved, key=order_of)
        words = {
            str(key): f"{key + 1} ({MARKS[one.right]}): {one_line(one.question, 30)}" for key, one in solved.items()
        }
        return Choice("problem", "Problem", words, str(usual))

    def data(self, view: RunView) -> Solved | None:
        """Return the solution of the chosen problem."""
        point, choice = point_of(view), self.choice(view)
        return None if point is None or choice is None else Solved(point, _solved(view)[int(choice.of(view))])

    def caption(self, data: Solved) -> str:
        """Return what became of the problem."""
        reference = data.solution.reference
        return frames.solution(data.solution) + (f" Right answer: {one_line(reference, 80)}." if reference else "")

    def table(self, data: Solved) -> pd.DataFrame:
        """Return the steps: columns by, text, reward, discarded."""
        rows = [[step.by, step.text, step.reward, step.discarded] for step in data.solution.steps]
        return pd.DataFrame(rows, columns=["by", "text", "reward", "discarded"])

    def html(self, data: Solved, colours: Palette) -> str:
        """Draw the question and the steps."""
        question = html.escape(one_line(data.solution.question, 1000))
        return f"<p><strong>{question}</strong></p>{frames.solution_html(data.solution, data.point, colours)}"


def _solved(view: RunView) -> dict[int, Solution]:
    """Return the solutions of the chosen point by the number of their problem."""
    point = point_of(view)
    return {} if point is None else {one.problem: one for one in frames.solutions_of(view.result, point.key)}


STEP = ["problem", "step", "text"]
"""What a pointer shows of a judged step."""


@dataclass(frozen=True)
class Judged:
    """The judged steps of a point, as `frames.steps_frame` returns them."""

    point: Point
    numbers: pd.DataFrame


class Rewards(Panel[Judged]):
    """Reward by step, accepted and rejected."""

    id = "rewards"
    order = 2
    title = "Reward by step"
    missing = "No step was judged at this point."

    def data(self, view: RunView) -> Judged | None:
        """Return the judged steps of the chosen point."""
        point = point_of(view)
        judged = None if point is None else Judged(point, frames.steps_frame(view.result, point.key))
        return None if judged is None or judged.numbers.empty else judged

    def caption(self, data: Judged) -> str:
        """Return how many steps were accepted, and the median reward."""
        accepted = int(data.numbers["accepted"].sum())
        rule = f" at {data.point.accept} {data.point.value:g}" if data.point.value is not None else ""
        return (
            f"{accepted:,} of {len(data.numbers):,} judged steps were accepted{rule}. Median reward "
            f"{score(data.numbers['reward'].median())}. Circles: accepted; crosses: rejected."
        )

    def figure(self, data: Judged, colours: Palette) -> go.Figure:
        """Draw a point for each step."""
        frame, point = data.numbers, data.point
        drawn = theme.figure(colours, 280)
        looks = {True: ("Accepted", "circle", colours.accent), False: ("Rejected", "x", colours.second)}
        for accepted, (name, symbol, colour) in looks.items():
            part = frame[frame["accepted"] == accepted]
            drawn.add_scatter(
                x=part["step"] + _jitter(part["problem"]),
                y=part["reward"],
                mode="markers",
                name=name,
                marker={"symbol": symbol, "color": colour, "size": 7, "opacity": 0.75},
                customdata=[[*row[:2], plotly_text(row[2], 80)] for row in part[STEP].values.tolist()],
                hovertemplate="Problem %{customdata[0]}, step %{customdata[1]}<br>reward %{y:.3f}<br>%{customdata[2]}"
                f"<extra>{name}</extra>",
            )
        if point.accept == "threshold" and point.value is not None and abs(point.value) < 1e6:
            drawn.add_hline(y=point.value, line={"color": colours.muted, "width": 1.4, "dash": "dash"})
        drawn.update_xaxes(title_text="Step of the solution", dtick=1 if frame["step"].max() <= 20 else None)
        drawn.update_yaxes(title_text="Reward")
        drawn.update_layout(showlegend=True)
        return drawn


def _jitter(problems: pd.Series) -> pd.Series:
    """Return a small shift per problem, so that points of one step do not hide each other; it follows from the number.

    The golden ratio spreads any run of numbers evenly.
    """
    return (problems * 0.618034 % 1.0 - 0.5) * 0.5


PARTS = {"target": "Target", "draft discarded": "Draft, discarded", "draft kept": "Draft, kept"}


class Tokens(Panel[pd.DataFrame]):
    """Tokens of draft and target, a bar for each problem."""

    id = "tokens"
    order = 3
    title = "Tokens by role and problem"
    missing = "No problem was solved at this point."

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return the tokens of the chosen point, as `frames.tokens_frame` does."""
        point = point_of(view)
        frame = None if point is None else frames.tokens_frame(view.result, point.key)
        return None if frame is None or frame.empty else frame

    def caption(self, data: pd.DataFrame) -> str:
        """Return the fraction of each writer."""
        accepted, discarded, target = (data[name].sum() for name in ("draft kept", "draft discarded", "target"))
        whole = max(1, accepted + discarded + target)
        return (
            f"Of {whole:,} decoded tokens the draft wrote {percent(accepted / whole, 0)} that were kept and "
            f"{percent(discarded / whole, 0)} that were discarded; the target wrote {percent(target / whole, 0)}. "
            f"Tokens that were only read (prefill): {int(data['prefill'].sum()):,}, in the table."
        )

    def figure(self, data: pd.DataFrame, colours: Palette) -> go.Figure:
        """Draw a bar for each problem."""
        drawn = theme.figure(colours, 280)
        names = [f"{problem}" for problem in data["problem"]]
        for part, colour in role_colours(colours).items():
            drawn.add_bar(
                x=names,
                y=data[part],
                name=PARTS[part],
                marker={"color": colour},
                hovertemplate="Problem %{x}: %{y} tokens<extra>" + PARTS[part] + "</extra>",
            )
        drawn.update_xaxes(title_text="Problem, most tokens of the target first", type="category", nticks=12)
        drawn.update_yaxes(title_text="Tokens decoded")
        drawn.update_layout(barmode="stack", showlegend=True, bargap=0.15)
        return drawn
