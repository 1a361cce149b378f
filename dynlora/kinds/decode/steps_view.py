"""A solution as text: each step tinted by who wrote it, rejected drafts unfold, the reward is a bar."""

from __future__ import annotations

import html
from collections.abc import Sequence

from dynlora.kinds.decode.result import TARGET, Point, Solution, Step
from dynlora.text import one_line, score
from dynlora.viz.kit import theme
from dynlora.viz.kit.theme import Palette

MOST_STEPS = 200
"""Steps that are drawn."""


def role_colours(colours: Palette) -> dict[str, str]:
    """Return the colour of each writer; a discarded step of the draft is muted."""
    return {"draft kept": colours.accent, "draft discarded": colours.muted, "target": colours.second}


def solution_html(one: Solution, point: Point, colours: Palette) -> str:
    """Return a solution as HTML; every text of the run is escaped."""
    return steps_html(one.steps, point.value if point.accept == "threshold" else None, colours)


def steps_html(steps: Sequence[Step], line: float | None, colours: Palette) -> str:
    """Return steps as HTML; every text of them is escaped.

    Args:
        steps: in order.
        line: the threshold, None where none decided.
        colours: of the mode.
    """
    drawn = "".join(_step(step, line, colours) for step in steps[:MOST_STEPS])
    label = html.escape(one_line(f"{len(steps)} steps", 40))
    return f"<style>{_style(colours)}</style><div class='dl-steps' role='list' aria-label='{label}'>{drawn}</div>"


def _step(step: Step, line: float | None, colours: Palette) -> str:
    """Return a step, before it what the draft had written where that was rejected."""
    ink = role_colours(colours)
    before = ""
    if step.discarded is not None:
        gone = _row("draft, rejected", step.discarded, ink["draft discarded"], step.reward, line, colours, struck=True)
        before = f"<details><summary>Rejected draft{_bar(step.reward, line, colours)}</summary>{gone}</details>"
    colour = ink["target" if step.by == TARGET else "draft kept"]
    judged = step.reward if step.discarded is None else None
    return before + _row(step.by, step.text, colour, judged, line, colours)


def _row(
    who: str,
    text: str,
    colour: str,
    reward: float | None,
    line: float | None,
    colours: Palette,
    *,
    struck: bool = False,
) -> str:
    words = html.escape(text.strip("\n")) or "&nbsp;"
    marked = f"<s>{words}</s>" if struck else words
    tint = theme.faded(colour, 0.13)
    bar = "" if struck else _bar(reward, line, colours)
    return (
        f"<div class='dl-step' role='listitem' style='background:{tint};border-left-color:{colour}'>"
        f"<small>{html.escape(who)}</small><pre>{marked}</pre>{bar}</div>"
    )


def _bar(reward: float | None, line: float | None, colours: Palette) -> str:
    """Return the reward as a bar from 0 to 1 with a mark at the threshold, and as a number."""
    if reward is None:
        return "<b class='dl-bar'></b><i>–</i>"
    width = 100 * min(max(reward, 0.0), 1.0)
    colour = colours.accent if line is None or reward >= line else colours.second
    mark = "" if line is None or not 0 <= line <= 1 else f"<u style='left:{100 * line:.1f}%'></u>"
    return f"<b class='dl-bar'><em style='width:{width:.1f}%;background:{colour}'></em>{mark}</b><i>{score(reward)}</i>"


def _style(colours: Palette) -> str:
    return f"""
.dl-steps {{ display: grid; gap: 0.3rem; }}
.dl-step {{ display: grid; grid-template-columns: 4.6rem minmax(0, 1fr) 7rem 3.2rem; gap: 0.6rem; align-items: center;
  border-left: 3px solid; border-radius: 6px; padding: 0.3rem 0.7rem; }}
.dl-step pre {{ margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.88rem; font-family: inherit; }}
.dl-step small, .dl-steps summary {{ color: {colours.muted}; font-size: 0.78rem; }}
.dl-steps summary {{ cursor: pointer; padding: 0.1rem 0.7rem; }}
.dl-steps summary .dl-bar {{ display: inline-block; width: 7rem; margin: 0 0.6rem; vertical-align: middle; }}
.dl-steps i {{ color: {colours.muted}; font-style: normal; font-size: 0.8rem; text-align: right; }}
.dl-bar {{ position: relative; height: 6px; border-radius: 3px; background: {colours.hairline}; }}
.dl-bar em {{ position: absolute; left: 0; top: 0; bottom: 0; border-radius: 3px; }}
.dl-bar u {{ position: absolute; top: -4px; bottom: -4px; width: 2px; background: {colours.text}; }}
@media (max-width: 640px) {{
  .dl-step {{ grid-template-columns: minmax(0, 1fr) 3.2rem; row-gap: 0.1rem; }}
  .dl-step pre, .dl-step .dl-bar {{ grid-column: 1 / -1; }}
  .dl-step i {{ grid-column: 2; grid-row: 1; }}
}}
"""
