"""The decision log: what a method decided beside moving rank, and the candidates that its searches tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.run_reading import RunReading
from dynlora.kinds.train.kind import CapacityPanel
from dynlora.store.meta import is_number, section
from dynlora.text import number, one_line, percent, plotly_text, plural, score
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import map_bar
from dynlora.viz.kit.panel import RunView
from dynlora.viz.kit.theme import Palette

MOVES = ("move", "grow", "drop", "scale")
"""Kinds of edits that have charts of their own, or would flood a list."""

COLUMNS = ("step", "decision", "modules", "detail")
_NAMED = 6
_PLACES = ("edit", "module", "modules", "donor", "receiver")
_DRAWN = ("history",)
"""What has a chart of its own: the candidates of a search, see `search`."""


MOST_LISTED = 200
"""Decisions that are listed; all are in the table."""


class OtherDecisions(CapacityPanel[pd.DataFrame]):
    """What the method decided beside moving rank, as a list."""

    id = "decisions"
    order = 10
    title = "Other decisions"
    missing = "There are no decisions other than rank transfers."
    is_wide = True

    def applies(self, view: RunView) -> bool:
        """Say whether there was one in the chosen steps."""
        return super().applies(view) and self.data(view) is not None

    def data(self, view: RunView) -> pd.DataFrame | None:
        """Return the decisions in the chosen steps."""
        run: RunReading = view.result
        rows = decisions(run.reallocations, run.modules)
        return None if rows.empty else rows

    def caption(self, data: pd.DataFrame) -> str:
        """Return how many decisions there were, of which kinds."""
        return summary(data)

    def short_table(self, data: pd.DataFrame) -> pd.DataFrame:
        """Return the last decisions."""
        return data.tail(MOST_LISTED)


def decisions(events: pd.DataFrame, modules: pd.DataFrame) -> pd.DataFrame:
    """Return what was decided but moves of rank: columns step, decision, modules (short names) and detail.

    Args:
        events: as `queries.events_frame` returns them.
        modules: as `capacity.described` returns them.
    """
    short = dict(zip(modules["position"], modules["short"], strict=True))
    rows = [
        {"step": int(step), **_row(edit, short)}
        for step, payload in zip(events["step"], events["payload"], strict=True)
        for edit in edits_of(payload)
        if edit.get("edit") not in MOVES
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def summary(decisions: pd.DataFrame) -> str:
    """Say how many decisions there were, of which kinds."""
    if decisions.empty:
        return "There are no decisions other than rank transfers."
    counts = decisions["decision"].value_counts()
    kinds = ", ".join(f"{count} × {one_line(kind, 40)}" for kind, count in counts.items())
    many, steps = len(decisions), decisions["step"].nunique()
    return f"{many:,} decision{'s' * (many != 1)} at {steps:,} step{'s' * (steps != 1)}: {kinds}."


def edits_of(payload: Any) -> list[Mapping[str, Any]]:
    """Return the edits of an event; a store is not trusted, so what is no edit is left out."""
    edits = payload.get("edits") if isinstance(payload, Mapping) else None
    rows = edits if isinstance(edits, list) else []
    return [row for row in rows if isinstance(row, Mapping)]


def _row(edit: Mapping[str, Any], short: Mapping[int, str]) -> dict[str, str]:
    """Return one decision in words."""
    touched = edit.get("modules", edit.get("module", [edit.get("donor"), edit.get("receiver")]))
    named = touched if isinstance(touched, Sequence) and not isinstance(touched, str) else [touched]
    places = list(dict.fromkeys(place for place in named if isinstance(place, int)))
    names = [short.get(place, "?") for place in places]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    rest = {key: value for key, value in edit.items() if key not in (*_PLACES, *_DRAWN)}
    return {
        "decision": one_line(str(edit.get("edit", "?")).replace("_", " "), 40),
        "modules": one_line(", ".join(names[:_NAMED]), 160) + more,
        "detail": one_line(", ".join(f"{key.replace('_', ' ')} {_said(value)}" for key, value in rest.items()), 200),
    }


def _said(value: Any) -> str:
    """Return a value of a decision for people."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    if isinstance(value, list):
        return ", ".join(_said(item) for item in value[:8]) + (" …" if len(value) > 8 else "")
    return str(value)


MOST_DRAWN = 2000
"""Candidates that are drawn at most."""

NO_LOSS = 1e30
"""From here on a loss stands for one that was no number."""

LARGEST = 1e39
"""Numbers from here on are not looked at: beyond any count, and beyond what a loss in float32 can be."""

FIRST_SHADE = 0.3
"""Where on the sequential scale the first round stands: at zero it would look like nothing."""

FEW_ROUNDS = 10
"""Most rounds that all have their number at the bar."""


@dataclass(frozen=True)
class Search:
    """A search as the decision log tells it.

    Attributes:
        step: after which it was made.
        tried: each candidate once, columns round (the first it was tried in), parameters, loss, pareto (no other has as
            low a loss with as few parameters, one of both better).
        failed: candidates whose loss is no number.
        limit: parameters that a candidate may use; None when it is not known.
        chosen: parameters and loss of the candidate that was chosen; None when the log does not say.
        searches: in the log; this is the last.
        has_classes: whether the candidates classify: their loss is in nats.
    """

    step: int
    tried: pd.DataFrame
    failed: int
    limit: float | None
    chosen: tuple[float, float] | None
    searches: int
    has_classes: bool = False

    @property
    def loss_title(self) -> str:
        """What a candidate's loss is called, with its unit where that is known."""
        return "Loss of the candidate (nats)" if self.has_classes else "Loss of the candidate"


class SearchCandidates(CapacityPanel[Search]):
    """What each candidate of the last search costs in parameters, and its loss; for methods that search."""

    id = "search"
    order = 9
    title = "Search candidates"
    missing = "No candidate of the last search has a finite loss."
    is_wide = True

    def applies(self, view: RunView) -> bool:
        """Say whether there was a search in the chosen steps."""
        return super().applies(view) and _search(view) is not None

    def data(self, view: RunView) -> Search | None:
        """Return the last search; None where no candidate has a loss."""
        search = _search(view)
        return None if search is None or search.tried.empty else search

    def reason_missing(self, view: RunView) -> str:
        """Return after which step a search had no candidate with a loss."""
        search = _search(view)
        return self.missing if search is None else search_caption(search)

    def caption(self, data: Search) -> str:
        """Return what was tried and chosen, and how much the rounds gained."""
        return search_caption(data)

    def table(self, data: Search) -> pd.DataFrame:
        """Return the candidates."""
        return table(data)

    def figure(self, data: Search, colours: Palette) -> go.Figure:
        """Draw the candidates."""
        return search_scatter(data, colours)


def _search(view: RunView) -> Search | None:
    run: RunReading = view.result
    return last_search(run.reallocations, run.summary.config, has_classes=bool(run.summary.labels))


def last_search(events: pd.DataFrame, config: Mapping[str, Any], *, has_classes: bool = False) -> Search | None:
    """Return the last search among some events, None when there is none.

    A search is a `history` in an event or in one of its edits: a list of rounds, each with its number (`round`), its
    candidates (`population`, pairs of parameters and loss) and the best so far (`parameters`, `best_loss`). The limit
    is the event's budget, times the setting `strategy.limit` of methods that have one.

    Args:
        events: as `queries.events_frame` returns them.
        config: of the run.
        has_classes: whether the run classifies.
    """
    searches = [
        (int(step), history, payload.get("budget"))
        for step, payload in zip(events["step"], events["payload"], strict=True)
        if isinstance(payload, Mapping)
        for history in _histories(payload)
    ]
    if not searches:
        return None
    step, history, budget = searches[-1]
    rows = pd.DataFrame(list(_candidates(history)), columns=["round", "parameters", "loss"], dtype=float)
    once = rows.drop_duplicates(["parameters", "loss"])
    tried = once[once["loss"] < NO_LOSS].reset_index(drop=True)
    most, share = _number(budget), _number(section(config, "strategy").get("limit"))
    parameters, loss = (_number(history[-1].get(key)) for key in ("parameters", "best_loss"))
    return Search(
        step,
        tried.assign(pareto=pareto(tried)),
        len(once) - len(tried),
        None if most is None else float(int(most * (1 if share is None else share))),
        None if parameters is None or loss is None or loss >= NO_LOSS else (parameters, loss),
        len(searches),
        has_classes,
    )


def _histories(payload: Mapping[str, Any]) -> Iterator[list[Mapping[str, Any]]]:
    """Yield each history of candidates that an event holds; a store is not trusted, so what is no round is left out."""
    for holder in (payload, *edits_of(payload)):
        history = holder.get("history")
        rounds = [entry for entry in history if isinstance(entry, Mapping)] if isinstance(history, list) else []
        if next(_candidates(rounds), None) is not None:
            yield rounds


def _candidates(history: list[Mapping[str, Any]]) -> Iterator[tuple[float, float, float]]:
    """Yield round, parameters and loss of each candidate."""
    for place, entry in enumerate(history):
        number, population = _number(entry.get("round")), entry.get("population")
        for one in population if isinstance(population, list) else []:
            parameters, loss = map(_number, one) if isinstance(one, list) and len(one) == 2 else (None, None)
            if parameters is not None and loss is not None:
                yield float(place) if number is None else number, parameters, loss


def _number(value: Any) -> float | None:
    """Return a number from the log, None for anything else, what counts nothing in this world included."""
    return float(value) if is_number(value) and abs(value) < LARGEST else None


def pareto(tried: pd.DataFrame) -> np.ndarray:
    """Return which candidates no other beats: as low a loss with as few parameters, one of both better."""
    order = tried.sort_values(["parameters", "loss"], kind="stable")
    lowest = order["loss"].cummin().shift(fill_value=np.inf)
    return (order["loss"] < lowest).reindex(tried.index).to_numpy(bool)


def drawn(tried: pd.DataFrame) -> pd.DataFrame:
    """Return the candidates that are drawn: the Pareto set, and of many others each so many-th."""
    others = np.flatnonzero(~tried["pareto"].to_numpy(bool))
    if len(tried) <= MOST_DRAWN:
        return tried
    sample = others[np.unique(np.linspace(0, len(others) - 1, MOST_DRAWN).astype(int))]
    return tried.iloc[np.union1d(sample, np.flatnonzero(tried["pareto"].to_numpy(bool)))]


def table(search: Search) -> pd.DataFrame:
    """Return the candidates as people read them, those with the lowest loss first."""
    rows = search.tried.sort_values(["loss", "parameters"], kind="stable").reset_index(drop=True)
    chosen = [(row.parameters, row.loss) == search.chosen for row in rows.itertuples()]
    return rows.rename(columns={"pareto": "in the Pareto set"}).assign(chosen=chosen)


def search_caption(search: Search) -> str:
    """Say what a search tried and chose, and how much its rounds gained."""
    tried, rounds = search.tried, search.tried["round"].nunique()
    if tried.empty:
        return f"No candidate of the search after step {search.step} has a finite loss."
    words = f"The search after step {search.step} tried {plural(len(tried), 'candidate')} in {plural(rounds, 'round')}"
    if search.chosen is not None:
        used, loss_ = search.chosen
        share = f", {percent(used / search.limit)} of the limit of {number(int(search.limit))}" if search.limit else ""
        words += f" and chose one with {number(int(used))} parameters{share} and a loss of {score(loss_)}"
    first = tried.loc[tried["round"] == tried["round"].min(), "loss"].min()
    n_drawn, front = len(drawn(tried)), int(tried["pareto"].sum())
    cut = f" {n_drawn:,} of {len(tried):,} shown." if n_drawn < len(tried) else ""
    failed = f" {search.failed} more had no finite loss." if search.failed else ""
    other = f" This is the last of {search.searches} searches." if search.searches > 1 else ""
    return (
        f"{words}. The best loss of the first round was {score(first)}. The Pareto set has "
        f"{plural(front, 'candidate')}: "
        f"no other candidate has as low a loss with as few parameters.{cut}{failed}{other}"
    )


def search_scatter(search: Search, colours: Palette) -> go.Figure:
    """Draw parameters against loss, a point a candidate in the shade of its round; limit, Pareto set and choice.

    Args:
        search: the search; at least one candidate has a loss.
        colours: of the mode.
    """
    figure, loss = theme.figure(colours, 380), plotly_text(search.loss_title)
    candidates = drawn(search.tried)
    first, last = candidates["round"].min(), candidates["round"].max()
    best = search.tried[search.tried["pareto"]].sort_values("parameters")
    figure.add_scatter(
        x=best["parameters"],
        y=best["loss"],
        mode="lines",
        name="Pareto set",
        hoverinfo="skip",
        line={"color": colours.muted, "width": 1.2, "dash": "dot"},
    )
    figure.add_scatter(
        x=candidates["parameters"],
        y=candidates["loss"],
        mode="markers",
        name="Candidate",
        showlegend=False,
        customdata=candidates["round"],
        marker={
            "color": candidates["round"],
            "size": 8,
            "line": {"width": 0.6, "color": colours.panel},
            "colorscale": [[i / 4, theme.shade(colours, FIRST_SHADE + (1 - FIRST_SHADE) * i / 4)] for i in range(5)],
            "cmin": first,
            "cmax": max(last, first + 1),
            "colorbar": map_bar("round", colours, len=0.6, dtick=1 if last <= FEW_ROUNDS else None),
        },
        hovertemplate=f"round %{{customdata:.0f}}<br>%{{x:,.0f}} parameters<br>{loss} %{{y:.4f}}<extra></extra>",
    )
    if search.limit is not None:
        figure.add_scatter(
            x=[search.limit] * 2,
            y=[candidates["loss"].min(), candidates["loss"].max()],
            mode="lines",
            name="Limit",
            line={"color": colours.text, "width": 1.2, "dash": "dash"},
            hovertemplate="Limit: %{x:,.0f} parameters<extra></extra>",
        )
    if search.chosen is not None:
        figure.add_scatter(
            x=[search.chosen[0]],
            y=[search.chosen[1]],
            mode="markers",
            name="Chosen",
            marker={"color": colours.second, "size": 14, "symbol": "star", "line": {"width": 1, "color": colours.text}},
            hovertemplate=f"Chosen<br>%{{x:,.0f}} parameters<br>{loss} %{{y:.4f}}<extra></extra>",
        )
    figure.update_layout(showlegend=True)
    figure.update_xaxes(title_text="Parameters of the candidate", tickformat=",", nticks=6)
    figure.update_yaxes(title_text=loss)
    return figure
