"""Cards: a label as the title, a figure, one computed caption, and the numbers as a table."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dynlora.analysis.frames import csv_text, number_format
from dynlora.store.summary import RunSummary
from dynlora.text import documentation_text, duration, first_sentence, markdown_text, number, short_path
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import HANDLES
from dynlora.viz.kit.panel import Picks, Picture
from dynlora.viz.kit.theme import Palette
from dynlora.viz.ui import browser
from dynlora.viz.ui.url_state import brushed_steps, to_address

STATUS_LOOK = {
    "queued": ("gray", ":material/hourglass_empty:"),
    "running": ("blue", ":material/play_arrow:"),
    "stopping": ("orange", ":material/hourglass_top:"),
    "finished": ("green", ":material/check:"),
    "stopped": ("orange", ":material/pause:"),
    "failed": ("red", ":material/error:"),
    "interrupted": ("red", ":material/power_off:"),
    "corrupt": ("red", ":material/broken_image:"),
}
"""Colour and icon of each status; the word always is beside them."""


def plot_config(key: str) -> dict[str, Any]:
    """Return plotly's own settings: no bar of its own, which would cover the legend; see `browser.chart_tools`."""
    return {
        "displaylogo": False,
        "displayModeBar": False,
        "toImageButtonOptions": {"filename": key},
        "responsive": True,
        "scrollZoom": False,
        "doubleClick": "reset",
    }


def colours() -> Palette:
    """Return the colours of the mode the page is shown in."""
    return theme.palette(st.context.theme.type)


def titled(title: str, about: str = "") -> None:
    """Draw the page's title and a line about it; both are plain text."""
    st.title(markdown_text(title, 120), anchor=False)
    if about:
        st.caption(markdown_text(about, 400))


def in_row(key: str, vertical_alignment: Literal["top", "center", "bottom"] = "center", **more: Any) -> DeltaGenerator:
    """Return a place whose elements are side by side; on a narrow screen they wrap.

    Args:
        key: of the place, one on the page.
        vertical_alignment: of the elements.
        more: of streamlit's container, such as `gap` or `width`.
    """
    return st.container(horizontal=True, vertical_alignment=vertical_alignment, key=key, **more)


_HEAD: ContextVar[list[tuple[Any, str]] | None] = ContextVar("head", default=None)
"""The place in the head of the card that is drawn, for its first menu, and its method; empty once it is taken."""

_TITLE: ContextVar[str] = ContextVar("title", default="Table")
"""The title of the card that is drawn, which a table that is opened from it has too."""


@contextmanager
def card(title: str, key: str, subtitle: str = "", method: str = "") -> Iterator[None]:
    """Draw a panel; what is drawn inside the block is inside the panel.

    Args:
        title: plain text, as all of these are.
        key: of the panel, one on the page.
        subtitle: line under the title.
        method: how its numbers were made; it is in the menu of the panel.
    """
    with st.container(border=True, key=f"card-{key}", height="stretch", gap="xsmall"), headed(title, key, method):
        if subtitle:
            st.caption(markdown_text(subtitle))
        yield


@contextmanager
def headed(title: str, key: str, method: str = "") -> Iterator[None]:
    """Draw a title; the menu of the first picture inside the block, with the method, is beside it. Both are plain."""
    with in_row(f"head-{key}", "top"):
        st.markdown(f"##### {markdown_text(title)}", width="stretch")
        head = in_row(f"tools-{key}", "top", gap="xxsmall", width="content")
    before, above = _HEAD.set([(head, method)]), _TITLE.set(markdown_text(title))
    try:
        yield
        if method and _HEAD.get():
            with _menu(key):
                pass
    finally:
        _HEAD.reset(before)
        _TITLE.reset(above)


@contextmanager
def _menu(key: str, more: str = "") -> Iterator[None]:
    """Draw a menu, in the head for a card's first one; it begins with the method of the card and what more is said."""
    head = _HEAD.get()
    place, method = head.pop() if head else (nullcontext(), "")
    with place, st.popover("Menu", icon=":material/more_horiz:", type="tertiary", key=f"table-{key}"):
        for words in filter(None, (method, more)):
            st.caption(markdown_text(words, 4000))
        yield


def unseen_chart() -> None:
    """Let the browser get ready to draw charts, by one that is shown nowhere, while the server still works."""
    with st.container(key="unseen"):
        st.plotly_chart(go.Figure(), key="no-chart")


def chart(figure: go.Figure, sentence: str, frame: pd.DataFrame, key: str, picks: Picks | None = None) -> None:
    """Draw a figure, the sentence under it (also its text for screen readers), and its numbers on demand.

    Args:
        figure: the figure.
        sentence: what it shows.
        frame: its numbers.
        key: of the chart, one on the page.
        picks: what a click on a point puts into the address; a second click removes it.
    """
    _zoom(figure)
    if not figure.data:  # plotly numbers the axes of nothing from -1
        figure.update_xaxes(showticklabels=False)
        figure.update_yaxes(showticklabels=False)
    if picks is None:
        st.plotly_chart(figure, theme=None, key=f"chart-{key}", config=plot_config(key), alt=sentence, width="stretch")
    else:
        # Another choice makes another chart: streamlit keeps the last click, which would be taken back by the next.
        before = picks.chosen(st.query_params)
        st.session_state[f"picks-{key}"] = picks
        name = f"chart-{key}-{before}"[:300]
        invitation = "%{text}<br>click to select<extra></extra>"
        figure.update_traces(hovertemplate=invitation, selector={"name": HANDLES})
        figure.update_traces(unselected={"marker": {"opacity": 1}}, selector={"type": "scatter"})
        figure.update_traces(unselected={"marker": {"opacity": 1}}, selector={"type": "bar"})
        alone = f"%{{fullData.name}}<br>click: this {picks.name} alone<extra></extra>"
        figure.update_traces(hovertemplate=alone, selector=lambda trace: "place" in (trace.meta or ()))
        st.plotly_chart(
            figure,
            theme=None,
            key=name,
            config=plot_config(key),
            alt=sentence,
            width="stretch",
            on_select=lambda: _picked(name, picks, before),
            selection_mode="points",
        )
    under(sentence, frame, key)


def _zoom(figure: go.Figure) -> None:
    """Show the steps of the address in a figure over steps that has no range of its own."""
    steps, axis = brushed_steps(), figure.layout.xaxis
    if steps is not None and axis.title.text == "Step" and axis.range is None:
        figure.update_xaxes(range=list(steps))


def picture(drawing: Picture, key: str, picks: Picks | None = None) -> None:
    """Draw a picture as `chart` draws a figure.

    Args:
        drawing: the figure with its caption and numbers.
        key: of the chart, one on the page.
        picks: what a click on a point puts into the address.
    """
    chart(drawing.figure, drawing.caption, drawing.table, key, picks)


def _picked(key: str, picks: Picks, before: str) -> None:
    """Write what was clicked to the address; what is there already is removed.

    A chart that was drawn for another choice than the address has now, `before`, was not clicked: after Back the
    browser tells of the clicks on charts that are gone, which would be taken for a second click.
    """
    if before != picks.chosen(st.query_params):
        return
    points = st.session_state[key]["selection"]["points"]
    choices = [picks.at(int(point["customdata"][-1])) for point in points if point.get("customdata")]
    name, value = next((choice for choice in choices if choice is not None), (picks.name, None))
    to_address(**{name: None if value == st.query_params.get(name) else value})


def picked_in_browser() -> None:
    """Write the module of a cell or a band that was clicked to the address, and its step; a second click removes both.

    A map of 10,000 steps and 224 modules has too many cells to be points of their own: the browser says which it was.
    """
    click = browser.clicked()
    if click is None:
        return
    chart, place, step = click
    picks = st.session_state.get(f"picks-{chart}")
    choice = picks.at(place) if isinstance(picks, Picks) else None
    if choice is None:
        return
    chosen = dict([choice]) | ({} if step is None or choice[0] == "open" else {"step": str(step)})
    if all(st.query_params.get(name) == value for name, value in chosen.items()):
        chosen = dict.fromkeys(chosen)
    to_address(**chosen)


def brushed_in_browser() -> None:
    """Write the steps that were drawn over in a chart to the address, which all cards of the page follow."""
    steps = browser.brushed()
    to_address(steps=None if steps is None else f"{steps[0]}-{steps[1]}")


def brushable(figure: go.Figure, sentence: str, frame: pd.DataFrame, key: str) -> list[dict[str, Any]]:
    """Draw a figure on which the pointer draws boxes, as `chart` does, and return them: `x` and `y` from and to.

    Args:
        figure: the figure.
        sentence: what it shows.
        frame: its numbers.
        key: of the chart, one on the page.
    """
    figure.update_layout(dragmode="select")
    state: Any = st.plotly_chart(
        figure,
        theme=None,
        key=f"chart-{key}",
        config=plot_config(key),
        alt=sentence,
        width="stretch",
        on_select="rerun",
        selection_mode="box",
    )
    under(sentence, frame, key)
    return list(state["selection"]["box"])


def under(sentence: str, frame: pd.DataFrame, key: str) -> None:
    """Draw what is under a picture: its first sentence, and its menu with the others, as `table` does."""
    first, more = first_sentence(sentence)
    with in_row(f"under-{key}", "top"):
        st.caption(markdown_text(first, 800), width="stretch")
        table(frame, key, more=more)


def table(frame: pd.DataFrame, key: str, whole: pd.DataFrame | None = None, more: str = "") -> None:
    """Draw the menu of a picture or a list, in the head for a card's first one.

    It has the table and the CSV file, which travel only when somebody asks for them; of a chart `browser.chart_tools`
    adds what saves it and shows it on the full screen.

    Args:
        frame: the table.
        key: of the elements, and the name of the file.
        whole: what the file holds in its place.
        more: plain text at the beginning of the menu.
    """
    with _menu(key, more):
        st.button(
            "Table", key=f"open-{key}", icon=":material/table:", type="tertiary", on_click=open_dialog, args=(key,)
        )
        st.download_button(
            "CSV",
            lambda: csv_text(frame if whole is None else whole),
            file_name=f"{key}.csv",
            mime="text/csv",
            key=f"csv-{key}",
            on_click="ignore",
            icon=":material/download:",
            type="tertiary",
        )
    if is_opened(key):
        seen = frame.head(MOST_ROWS)
        st.dialog(_TITLE.get(), width="large", on_dismiss=open_dialog)(_show_table)(seen, len(frame), key)


OPENED, OPENED_ON = "opened-table", "opened-on"
"""Keys of the session: key of the table or other dialog that is open, and the page that was drawn last."""

MOST_ROWS = 5000
"""Rows of a table that a page shows."""


def open_dialog(key: str | None = None) -> None:
    """Open the dialog of a table, or another one, or close the one that is open.

    A live page draws it again and again. There is one at a time.
    """
    st.session_state[OPENED] = key


def is_opened(key: str) -> bool:
    """Say whether the dialog of a key is the one that is open."""
    return st.session_state.get(OPENED) == key


def close_tables(page: str) -> None:
    """Close the table or other dialog that was left open on another page."""
    if st.session_state.get(OPENED_ON) != page:
        st.session_state[OPENED_ON], st.session_state[OPENED] = page, None


def _show_table(seen: pd.DataFrame, n: int, key: str) -> None:
    """Draw a table of `n` rows, wide, its first values in sight; in one of modules a click on a row chooses one."""
    has_modules = {"module", "name"} <= set(seen.columns)
    picked: Any = st.dataframe(
        seen,
        key=f"rows-{key}",
        hide_index=True,
        width="stretch",
        height=min(560, 38 + 35 * max(len(seen), 1)),
        column_config=number_columns(seen),
        on_select="rerun" if has_modules else "ignore",
        selection_mode=("single-row", "single-cell"),
    )
    if has_modules:
        st.caption("Click a row: every view of this run follows its module.")
        chosen = picked["selection"]
        places = [*chosen["rows"], *(row for row, _ in chosen["cells"])]
        if places and places[0] < len(seen):
            open_dialog()
            to_address(module=seen["name"].iloc[places[0]])
            st.rerun()
    if n > len(seen):
        st.caption(f"The first {len(seen):,} of {n:,} rows. The CSV file has all rows.")


def rows(frame: pd.DataFrame, dots: Sequence[str | None] = ()) -> None:
    """Draw a short table for reading: whole numbers with thousands apart, others with equally many places a column.

    Args:
        frame: the table.
        dots: colour of the dot before each row, None for a grey one; empty for no dots.
    """
    columns = {**number_columns(frame), DOT: dot_column("The colour in the charts.")}
    st.dataframe(with_dots(frame, dots), hide_index=True, width="stretch", column_config=columns, placeholder="–")


DOT = "dot"
"""Name of the column of coloured dots."""


def with_dots(frame: pd.DataFrame, dots: Sequence[str | None]) -> pd.DataFrame:
    """Return a table with a column of dots before the others; as it is where there are no dots.

    Args:
        frame: the table.
        dots: a colour for each row, None for a grey one.
    """
    if len(dots) != len(frame) or frame.empty:
        return frame
    marked = frame.copy()
    marked.insert(0, DOT, [dot_picture(dot or colours().muted) for dot in dots])
    return marked


def dot_picture(colour: str) -> str:
    """Return a dot as a picture's address: coloured letters of a pinned column would be paler than the charts."""
    circle = f'<circle cx="10" cy="10" r="5" fill="{colour}"/>'
    whole = f'<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{circle}</svg>'
    return f"data:image/svg+xml;base64,{b64encode(whole.encode()).decode()}"


def dot_column(about: str, *, pinned: bool = False) -> Any:
    """Return how a table shows its column of dots; `about` explains it in the head."""
    return st.column_config.ImageColumn("", width=36, pinned=pinned, help=about)


def number_columns(frame: pd.DataFrame) -> dict[str, Any]:
    """Return how a table shows its columns of numbers: one format a column, modules by the end of their path."""
    return {
        str(name): st.column_config.NumberColumn(short_path(str(name)), format=number_format(frame[name]))
        for name in frame.select_dtypes("number").columns
        if list(frame.columns).count(name) == 1
    }


def texts(frame: pd.DataFrame, key: str = "texts", height: int = 400, whole: pd.DataFrame | None = None) -> None:
    """Draw a list of examples in its order.

    Args:
        frame: one row per example.
        key: of the elements, and the name of the file.
        height: at most, pixels.
        whole: what the file holds in its place.
    """
    st.dataframe(
        frame,
        hide_index=True,
        width="stretch",
        height=min(height, 38 + 35 * max(len(frame), 1)),
        column_config=number_columns(frame),
    )
    table(frame, key, whole)


def snippets(texts: Mapping[str, tuple[str, str]], height: int) -> None:
    """Draw texts to copy, one under each tab: text and its language, by the name of the tab."""
    for tab, (text, language) in zip(st.tabs(list(texts)), texts.values(), strict=True):
        tab.code(text, language=language, height=height, wrap_lines=True)


def command_popover(command: str, key: str) -> None:
    """Draw what opens the command that does the same."""
    with st.popover("Command line", icon=":material/terminal:", type="tertiary", key=key):
        st.code(command, language="bash", wrap_lines=True)


def note(text: str) -> None:
    """Say why a card is empty; plain text."""
    st.caption(markdown_text(text, 800))


def documented(text: str) -> None:
    """Draw a paragraph of a method's documentation, whole, names in backticks as code."""
    st.caption(documentation_text(text))


def safe(text: str) -> str:
    """Return text that streamlit's own elements show as it is."""
    return markdown_text(text, 800)


def figures(values: Mapping[str, str], key: str = "figures") -> None:
    """Draw the figures that matter first, in a row that wraps."""
    with in_row(key, "top"):
        for label, value in values.items():
            st.metric(markdown_text(label), markdown_text(value, 60), width="content")


def badge(status: str) -> None:
    """Draw a status as a word with colour and icon."""
    colour, icon = STATUS_LOOK.get(status, ("gray", ":material/help:"))
    st.badge(markdown_text(status, 20), color=colour, icon=icon)  # pyright: ignore[reportArgumentType]


def usual_silence(summary: RunSummary) -> float:
    """Return how many seconds a run may record nothing before that is odd: a few of its steps, a minute at least."""
    step_ms = summary.time.get("step_ms_median")
    return max(60.0, 5 * step_ms / 1000) if isinstance(step_ms, int | float) else 60.0


def status_line(summary: RunSummary) -> None:
    """Say what is wrong with a run, or what it waits for, and what to do about it."""
    status, error = summary.status, summary.error
    if status == "failed":
        st.error(markdown_text(f"The run failed: {error or 'no reason was recorded'}", 2000))
    elif status == "interrupted":
        st.warning("The process of this run ended unexpectedly. Resume continues from the last checkpoint.")
    elif status == "queued":
        st.info("The run is in the queue. It starts when no other run is training.")
    elif status == "stopped":
        st.info(f"Stopped at step {number(summary.step)}. Resume continues from this step.")
    elif summary.other_host:
        st.warning(
            f"The run trains on another machine. Its last heartbeat was {duration(summary.heartbeat_age_s)} ago."
        )
    elif (summary.stalled_s or 0.0) > usual_silence(summary):
        st.warning(f"The process is alive but has recorded nothing for {duration(summary.stalled_s)}.")
    elif error:
        st.warning(markdown_text(error, 2000))
