"""Cards of the panels that are declared: each with its choice, figure, caption and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import streamlit as st

from dynlora.text import first_sentence, markdown_text
from dynlora.viz.kit.panel import Choice, Panel, RunView
from dynlora.viz.kit.theme import enlarged
from dynlora.viz.ui.cards import card, chart, colours, in_row, note, rows, safe, texts, under
from dynlora.viz.ui.url_state import choose, segmented

Elements = Mapping[str, Callable[[dict[str, Any]], None]]
Card = tuple[Panel[Any], RunView, str]
"""A panel, what it draws, and the end of its card's key."""


@contextmanager
def conclusion(sentence: str, then: str = "") -> Iterator[None]:
    """Draw the card; what is drawn inside the block, such as links, is what to do next.

    Args:
        sentence: the result, with its n; plain text.
        then: what limits it, or what to do next; plain text. All but its first sentence is in the menu.
    """
    first, method = first_sentence(then)
    with card("Conclusion", "conclusion", method=method):
        st.markdown(f"**{safe(sentence)}**")
        if first:
            note(first)
        with in_row("conclusion-next"):
            yield


NONE: Elements = MappingProxyType({})
"""No elements but charts."""


def panel_cards(panels: Iterable[Panel[Any]], view: RunView, elements: Elements = NONE) -> None:
    """Draw the cards of the panels that apply to a run, in rows of two; wide ones take a row.

    Args:
        panels: in their order.
        view: of the run.
        elements: draw the panels that are no chart, by the name of the element.
    """
    narrow: list[Card] = []
    for panel in (panel for panel in panels if panel.applies(view)):
        for end, one in panel.views(view).items():
            if not panel.is_wide:
                narrow.append((panel, one, end))
                continue
            pairs(narrow, elements)
            narrow = []
            panel_card(panel, one, end, elements)
    pairs(narrow, elements)


def pairs(cards: Sequence[Card], elements: Elements = NONE) -> None:
    """Draw cards in rows of two, so that a narrow screen shows them in their order too."""
    for start in range(0, len(cards), 2):
        pair = cards[start : start + 2]
        widths = [panel.width for panel, _, _ in pair] + [4] * (2 - len(pair))
        for column, (panel, view, end) in zip(st.columns(widths), pair, strict=False):
            with column:
                panel_card(panel, view, end, elements)


def panel_card(panel: Panel[Any], view: RunView, end: str = "", elements: Elements = NONE, times: float = 1.0) -> None:
    """Draw the card of a panel.

    Args:
        panel: the panel.
        view: of the run.
        end: of the card's key.
        elements: draw the panels that are no chart.
        times: how much larger the figure is than on its page.
    """
    key = (panel.card or panel.id) + end
    with card(panel.heading(view), key, method=panel.subtitle(view)):
        choice = panel.choice(view)
        if choice is not None:
            view = replace(view, chosen={**view.chosen, choice.name: pick(choice)})
        data = panel.data(view)
        if data is None:
            note(panel.reason_missing(view))
            return
        figure, caption, numbers = panel.figure(data, colours()), panel.caption(data), panel.table(data)
        if figure is not None:
            chart(enlarged(figure, times), caption, numbers, key, panel.picks(view))
        elif panel.element:
            elements[panel.element](panel.element_values(data, colours()))
            under(caption, numbers, key)
        elif html := panel.html(data, colours()):
            st.html(html)
            under(caption, numbers, key)
        else:
            texts(panel.short_table(data), key, whole=numbers)
            note(caption)
        for title, frame in panel.more(data).items():
            with st.expander(title, icon=":material/table_rows:"):
                rows(frame)


def pick(choice: Choice) -> str:
    """Draw a choice and return the chosen value."""
    if choice.is_row:
        return segmented(choice.name, choice.label, choice.options, choice.usual)
    more = {"help": choice.help, "width": 260} if choice.help else {}
    return choose(choice.name, choice.label, choice.options, choice.usual, **more)


def facts(pairs: Sequence[tuple[str, str]], source: str | None = None) -> None:
    """Draw pairs of what and words.

    Args:
        pairs: plain text.
        source: address that the last pair's words lead to; made by ourselves, never a user's.
    """
    lines = [f"**{markdown_text(what, 40)}**: {markdown_text(words, 400)}" for what, words in pairs]
    if source and pairs:
        what, words = pairs[-1]
        lines[-1] = f"**{markdown_text(what, 40)}**: [{markdown_text(words, 400)}]({source})"
    st.caption("\n\n".join(lines))
