"""Figures that set runs side by side: curves, costs, final ranks, paired differences, and those of the verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dynlora.analysis.verdict import Contest, Verdict
from dynlora.text import one_line, plotly_lines, plotly_text, sentence_case, signed
from dynlora.viz.kit import run_colours, theme
from dynlora.viz.kit.charts import add_band, axis_within
from dynlora.viz.kit.module_map import MapView, colour_of, label_rows, map_height, row_edges, row_look, with_gaps
from dynlora.viz.kit.run_colours import LineStyle, apart, line_styles, short_label
from dynlora.viz.kit.theme import Palette

NAMED_COLUMNS = 12
"""Most columns of a heat map that have room between them, and lines whose names a legend has."""

LABELLED_COLUMNS = 48
"""Most columns of a heat map whose names are written; of more it is every second, third and so on."""

LABELS_HIGH = 10
"""How many names at the ends of lines fit above each other."""

GAP = "\N{NO-BREAK SPACE}" * 2
"""Between a line's last marker and its name; ordinary spaces at the start of a text are not drawn."""

LONGEST_END, LETTER_PX = 16, 6
"""Most characters of a name at the end of its line, and the pixels that one takes: the margin holds the name."""


def final_ranks(
    ranks: pd.DataFrame, modules: pd.DataFrame, colours: Palette, title: str = "Rank (components)"
) -> go.Figure:
    """Draw the last ranks, modules by runs, rows in groups by kind.

    Args:
        ranks: one row per module name, one column per run (its display name); NaN where a run has no such module.
        modules: as `capacity.described` returns them, in the order of the rows.
        colours: of the mode.
        title: of the colour bar, with its unit.
    """
    edges, centres = row_edges(modules["label"])
    every = max(1, -(-ranks.shape[1] // LABELLED_COLUMNS))
    rows = ranks.reindex(modules["name"])
    drawn = theme.figure(colours, map_height(len(modules), 150, 330), left=78)
    drawn.add_heatmap(
        z=with_gaps(rows.to_numpy(float), modules["label"]),
        x=list(range(ranks.shape[1])),
        y=edges,
        xgap=4 if ranks.shape[1] <= NAMED_COLUMNS else 1,
        ygap=row_look(len(modules))["ygap"],
        hoverongaps=False,
        customdata=np.tile([plotly_text(name) for name in ranks.columns], (len(edges), 1)),
        hovertemplate="%{customdata}<br>%{y}<br>%{z:.3~g} components<extra></extra>",
        **colour_of(rows, MapView(title), colours),
    )
    label_rows(drawn, modules.assign(group=modules["label"], side=""), centres, colours)
    drawn.update_yaxes(range=[edges[-1], edges[0]], showgrid=False)
    drawn.update_xaxes(
        tickmode="array",
        tickvals=list(range(0, ranks.shape[1], every)),
        showgrid=False,
        autotickangles=[0, -90],
        ticktext=_column_names(list(ranks.columns))[::every],
    )
    return drawn


def _column_names(names: Sequence[str]) -> list[str]:
    """Return what is written under the columns of a heat map."""
    short = [short_label(name) for name in names]
    return [plotly_text(one if short.count(one) == 1 else name, 32) for one, name in zip(short, names, strict=True)]


def curves(
    bands: pd.DataFrame,
    x_title: str,
    title: str,
    colours: Palette,
    *,
    marks: bool = False,
    styles: Mapping[str, LineStyle] | None = None,
    is_log: bool = False,
) -> go.Figure:
    """Draw the mean of each group, and a band from its lowest to its highest run where there are several.

    A line in colour has its name at its end; the grey lines of many groups are behind, the pointer names them.

    Args:
        bands: as `grouping.bands` returns them.
        x_title: of the x axis, with its unit.
        title: of the y axis, with its unit.
        colours: of the mode.
        marks: draw the points too.
        styles: of the groups; None takes those of the groups that are drawn.
        is_log: whether the y axis is logarithmic.
    """
    names = [str(name) for name in dict.fromkeys(bands["group"])]
    styles = line_styles(names, colours) if styles is None else styles
    coloured = [name for name in names if not styles[name].is_muted]
    drawn = theme.figure(colours, 250 + _legend_height(coloured))
    for name in sorted(names, key=lambda name: not styles[name].is_muted):
        part, label, style = bands[bands["group"] == name], _legend(name), styles[name]
        if part["n"].max() > 1 and not style.is_muted:
            add_band(drawn, part, label, style.colour)
        drawn.add_scatter(
            x=part["x"],
            y=part["mean"],
            mode="lines+markers" if marks and not style.is_muted else "lines",
            name=label,
            legendgroup=label,
            showlegend=not style.is_muted,
            line={"color": style.colour, "width": 1.1 if style.is_muted else 1.8, "dash": style.dash},
            marker={"symbol": style.symbol, "size": 7},
            customdata=part[["step", "n", "low", "high"]].to_numpy(),
            hovertemplate="%{fullData.name}<br>%{y:.4f} at step %{customdata[0]:,.0f}<br>from %{customdata[2]:.4f} to "
            "%{customdata[3]:.4f}, n = %{customdata[1]}<extra></extra>",
        )
    if len(names) > 1:
        _name_the_ends(drawn, bands, {name: styles[name] for name in coloured}, is_log=is_log)
    drawn.update_layout(showlegend=len(names) > 0)
    drawn.update_xaxes(title_text=plotly_text(sentence_case(x_title)))
    drawn.update_yaxes(title_text=plotly_text(sentence_case(title)), type="log" if is_log else "linear")
    if not is_log:
        drawn.update_yaxes(**axis_within(title))
    if (bands["x"] == bands["step"]).all():
        theme.single_step(drawn, bands["step"])
    return drawn


def _name_the_ends(
    drawn: go.Figure, bands: pd.DataFrame, styles: Mapping[str, LineStyle], *, is_log: bool = False
) -> None:
    """Write the name of each line beside its last point; names that would cover each other are moved apart."""
    known = bands[bands["mean"] > 0] if is_log else bands.dropna(subset=["mean"])
    there, back = (np.log10, lambda place: 10.0**place) if is_log else (float, float)
    last = known.drop_duplicates("group", keep="last").set_index("group")
    ends = {name: float(there(last.loc[name, "mean"])) for name in styles if name in last.index}  # pyright: ignore
    height = float(there(known["mean"].max()) - there(known["mean"].min())) if len(known) else 0.0
    for name, place in apart(ends, (height or 1.0) / LABELS_HIGH).items():
        drawn.add_scatter(
            x=[last.loc[name, "x"]],
            y=[back(place)],
            mode="text",
            text=[f"{GAP}{plotly_text(short_label(name, LONGEST_END))}"],
            textposition="middle right",
            textfont={"size": 11, "color": styles[name].colour},
            cliponaxis=False,
            hoverinfo="skip",
            showlegend=False,
            legendgroup=_legend(name),
        )
    low, high = float(bands["x"].min()), float(bands["x"].max())
    longest = max((len(short_label(name, LONGEST_END)) for name in ends), default=0)
    drawn.update_layout(margin_r=12 + LETTER_PX * (len(GAP) + longest))
    drawn.update_xaxes(range=[low - 0.02 * (high - low), high + 0.02 * (high - low)])


def frontier(
    points: pd.DataFrame, metric: str, colours: Palette, styles: Mapping[str, LineStyle] | None = None
) -> go.Figure:
    """Draw quality against adapter parameters in use; a line joins the points that none other beats in both.

    Args:
        points: as `comparison.by_group` returns them.
        metric: name of the metric, the y axis.
        colours: of the mode.
        styles: of the groups; None takes those of the groups that are drawn.
    """
    drawn = _against(points, metric, "active", "%{x:,.0f} parameters", colours, styles)
    drawn.update_xaxes(title_text="Adapter parameters in use", tickformat=",")
    return drawn


def retention(
    points: pd.DataFrame, metric: str, colours: Palette, styles: Mapping[str, LineStyle] | None = None
) -> go.Figure:
    """Draw quality against what was forgotten, as `frontier` does; points as `comparison.by_retention` returns them."""
    unit = plotly_text(points["unit"].iloc[0], 40)
    drawn = _against(points, metric, "forgotten", f"forgotten %{{x:+.4f}} {unit}", colours, styles)
    drawn.update_xaxes(title_text=f"Forgotten on public text ({unit})")
    return drawn


def _against(
    points: pd.DataFrame,
    metric: str,
    cost: str,
    hover: str,
    colours: Palette,
    styles: Mapping[str, LineStyle] | None,
) -> go.Figure:
    """Draw quality against a cost, a column of the points; `hover` is what the pointer says of it."""
    names = [str(name) for name in points["group"]]
    styles = line_styles(names, colours) if styles is None else styles
    coloured = [name for name in names if not styles[name].is_muted]
    drawn = theme.figure(colours, 270 + _legend_height(coloured))
    best = points[points["pareto"]].sort_values(cost)
    drawn.add_scatter(
        x=best[cost],
        y=best["mean"],
        mode="lines",
        line={"color": colours.muted, "width": 1.2, "dash": "dot"},
        hoverinfo="skip",
        name="Pareto set",
    )
    known = points.dropna(subset=[cost, "mean"])
    for name in sorted(names, key=lambda name: not styles[name].is_muted):
        colour, symbol, is_muted = styles[name].colour, styles[name].symbol, styles[name].is_muted
        part = known[known["group"] == name]
        if part.empty:
            continue
        is_best, bar = bool(part["pareto"].any()), colour if is_muted else theme.faded(colour, 0.6)
        drawn.add_scatter(
            x=part[cost],
            y=part["mean"],
            mode="markers",
            name=_legend(name),
            showlegend=not is_muted,
            marker={
                "color": colour,
                "symbol": symbol,
                "size": 13 if is_best else 9,
                "line": {"color": colours.text, "width": 1.4 if is_best else 0},
            },
            error_y=theme.interval(part["mean"], part, bar, visible=bool((part["n"] > 1).any())),
            hovertemplate=f"%{{fullData.name}}<br>{hover}<br>{plotly_text(metric, 40)} %{{y:.4f}}"
            f"{', in the Pareto set' if is_best else ''}<extra></extra>",
        )
    drawn.update_layout(showlegend=True)
    drawn.update_yaxes(title_text=plotly_text(sentence_case(metric)), **axis_within(metric))
    return drawn


def forest(rows: pd.DataFrame, title: str, colours: Palette) -> go.Figure:
    """Draw paired differences with their intervals, one row per seed and one for all, against zero.

    Args:
        rows: as `pairing.forest` returns them.
        title: of the x axis, with its unit and which side is better.
        colours: of the mode.
    """
    drawn = theme.figure(colours, int(np.clip(120 + 26 * len(rows), 190, 700)), left=80)
    places = list(range(len(rows)))
    is_all = [place == len(rows) - 1 for place in places]
    drawn.add_vline(x=0, line={"color": colours.muted, "width": 1, "dash": "dot"})
    for chosen, colour, size, symbol in ((False, colours.muted, 8, "circle"), (True, colours.accent, 12, "diamond")):
        part, where = rows[[one == chosen for one in is_all]], [p for p in places if is_all[p] == chosen]
        drawn.add_scatter(
            x=part["mean"],
            y=where,
            mode="markers",
            marker={"color": colour, "size": size, "symbol": symbol},
            error_x=theme.interval(part["mean"], part, colour, thickness=2 if chosen else 1.2),
            customdata=part[["low", "high", "examples"]].to_numpy(),
            name="all" if chosen else "One seed",
            hovertemplate="%{y}<br>%{x:.4f}, from %{customdata[0]:.4f} to %{customdata[1]:.4f}<br>"
            "%{customdata[2]:,} examples<extra></extra>",
        )
    drawn.update_xaxes(title_text=plotly_text(sentence_case(title)))
    names = [plotly_text(name, 24) for name in rows["row"]]
    drawn.update_yaxes(tickmode="array", tickvals=places, ticktext=names, range=[len(rows) - 0.5, -0.5])
    return drawn


def _legend(name: str) -> str:
    """Return a name in lines that fit a narrow screen, whole: its end says how many runs there are."""
    return "<br>".join(plotly_text(line) for line in textwrap.wrap(one_line(name, 120), 40))


def _legend_height(names: Sequence[str]) -> int:
    """Return the pixels that a legend takes where each name has a row of its own."""
    return sum(28 + 16 * name.count("<br>") for name in map(_legend, names))


ROW = 34
"""Pixels of a configuration."""

TITLE = 28
"""Characters of a line of the axis's title: on a narrow screen the axis is no wider."""


def drawable(result: Verdict) -> list[Contest]:
    """Return the contests that can share an axis: those in the number that decides, the greatest gain first."""
    decisive = result.decisive
    if decisive is None or decisive.side is None:
        return []
    return [one for one in result.contests if one.side is not None and one.side.key == decisive.side.key]


def differences(result: Verdict, colours: Palette) -> go.Figure:
    """Draw the difference of each configuration from the baseline, which is the line at zero.

    Args:
        result: a verdict with at least one contest that `drawable` returns.
        colours: of the mode.
    """
    contests = drawable(result)
    drawn = theme.figure(colours, 122 + ROW * len(contests), left=80)
    drawn.update_layout(margin={"t": 26})
    styles = run_colours.styles({group.oldest: group.method for group in result.groups})
    drawn.add_vline(x=0, line={"color": colours.muted, "width": 1.2, "dash": "dot"})
    for row, contest in enumerate(contests):
        _add_row(drawn, row, contest, styles[contest.group.oldest])
    _scale(drawn, contests)
    drawn.add_annotation(
        x=0,
        y=1,
        yref="paper",
        yanchor="bottom",
        showarrow=False,
        font={"size": 11, "color": colours.muted},
        text=plotly_text(short_label(result.baseline.label), 30),
    )
    return drawn


def _add_row(drawn: go.Figure, row: int, contest: Contest, style: tuple[str, str, str]) -> None:
    difference, side = contest.difference, contest.side
    if difference is None or side is None:
        return
    (colour, symbol, _), mean = style, difference.mean
    ends = pd.DataFrame({"mean": [mean], "low": [difference.low], "high": [difference.high]})
    low, high = (signed(value, side.digits) for value in (difference.low, difference.high))
    drawn.add_scatter(
        x=[mean],
        y=[row],
        mode="markers+text",
        name=plotly_text(contest.group.title, 80),
        text=[signed(mean, side.digits)],
        textposition="top center",
        textfont={"size": 12},
        marker={"color": colour, "size": 12, "symbol": symbol},
        cliponaxis=False,
        error_x=theme.interval(ends["mean"], ends, colour, thickness=2, width=5),
        hovertemplate=f"%{{fullData.name}}<br>{signed(mean, side.digits)} {contest.unit}, 95 % CI {low} to {high}"
        f"<br>{difference.seeds} common seeds<extra></extra>",
    )


def _scale(drawn: go.Figure, contests: Sequence[Contest]) -> None:
    """Name the rows, title the axis, and keep zero in sight."""
    ends = [end for one in contests if (known := one.difference) is not None for end in (known.low, known.high)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    space = 0.08 * (high - low or 1.0)
    side = contests[0].side
    drawn.update_xaxes(
        title_text=plotly_lines(sentence_case("" if side is None else side.title), TITLE),
        nticks=7,
        range=[low - space, high + space],
    )
    names = [plotly_lines(short_label(one.group.label, 44), 22, 44) for one in contests]
    drawn.update_yaxes(
        tickmode="array",
        tickvals=list(np.arange(len(contests))),
        ticktext=names,
        range=[len(contests) - 0.4, -0.75],
        showgrid=False,
    )
