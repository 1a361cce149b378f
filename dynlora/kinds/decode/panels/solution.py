"""One solution, step by step: who wrote each step, what was rejected, and the reward."""

from __future__ import annotations

import html
from dataclasses import dataclass

import pandas as pd

from dynlora.kinds.decode import frames
from dynlora.kinds.decode.frames import point_of
from dynlora.kinds.decode.result import Point, Solution
from dynlora.text import one_line
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
