"""Present mode: a few screens of a run for a room, full width, in large type, and nothing else.

The address holds which screen is shown, from 1, so that a link opens it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape

import streamlit as st

from dynlora.analysis.result_strip import Answer, ResultStrip
from dynlora.analysis.run_reading import RunReading
from dynlora.kinds.train.panels.replay import ModelReplay
from dynlora.viz.kit.panel import RunView
from dynlora.viz.ui.cards import card, colours, note
from dynlora.viz.ui.replay import replay
from dynlora.viz.ui.url_state import to_address
from dynlora.viz.verdict.cards import JudgedRun, verdict_evidence

PRESENT = "present"
"""Name in the address of the number of the screen."""

LARGER = 1.6
"""How much larger a chart is than on its page."""

LOOK = """<style>
:root { font-size: clamp(16px, 1.75vw, 30px); }
section[data-testid="stSidebar"], [data-testid="stHeader"], [data-testid="stExpandSidebarButton"],
.st-key-head-of-run .st-key-address-run, [class*="st-key-table-"] { display: none !important; }
[data-testid="stMainBlockContainer"] { max-width: none !important; padding: 1.4rem 3vw 2rem !important; }
.dl-answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr));
  gap: 2.2rem 3rem; margin-top: 1rem; }
.dl-answers div { min-width: 0; overflow-wrap: anywhere; }
.dl-answers p { margin: 0; opacity: 0.75; font-size: 1.05rem; }
.dl-answers strong { display: block; font-size: 1.7rem; line-height: 1.2; margin: 0.2rem 0 0.4rem; }
.dl-answers div:first-child strong { font-size: 4rem; }
@media (min-width: 641px) {
  .st-key-present-keys { position: absolute; right: 3vw; top: 1.4rem; width: auto !important; z-index: 2; }
  [data-testid="stMainBlockContainer"] h1 { padding-right: 21rem !important; }
}
</style><span></span>"""
"""What hides all but the screen; a style alone would stay on the page after the end, so it is not alone."""


def is_presenting() -> bool:
    """Say whether the address asks for the presentation."""
    return PRESENT in st.query_params


def present(strip: ResultStrip, reading: RunReading, judged: JudgedRun) -> None:
    """Draw the screen of the address, and the buttons that lead to the others; arrow keys press these.

    Args:
        strip: the answers of the run.
        reading: the run.
        judged: it among its like.
    """
    st.html(LOOK)
    screens = _screens(strip, reading, judged)
    number = _number(len(screens))
    screens[number - 1]()
    with st.container(horizontal=True, vertical_alignment="center", key="present-keys"):
        _key("Previous", "Left", number - 1 if number > 1 else None)
        note(f"{number} of {len(screens)}")
        _key("Next", "Right", number + 1 if number < len(screens) else None)
        leave = partial(to_address, present=None)
        st.button("End", key="present-end", shortcut="Escape", type="tertiary", on_click=leave)


def _screens(strip: ResultStrip, reading: RunReading, judged: JudgedRun) -> list[Callable[[], None]]:
    """Return what draws each screen of a run: its result, the replay and the verdict, where it has them."""
    screens: list[Callable[[], None]] = [partial(_result, strip)]
    if reading.has_ranks:
        screens.append(partial(_replay, reading))
    if judged.verdict is not None and judged.verdict.contests:
        screens.append(partial(verdict_evidence, judged, LARGER))
    return screens


def _number(n: int) -> int:
    """Return the number of the screen in the address, the nearest of `n` for others."""
    value = st.query_params.get(PRESENT, "")
    return min(max(int(value), 1), n) if value.isdecimal() and len(value) < 4 else 1


def _key(label: str, key: str, number: int | None) -> None:
    """Draw the button that leads to a screen, and that a key presses; there is none for None."""
    st.button(
        label,
        key=f"present-{label.lower()}",
        shortcut=key,
        type="tertiary",
        disabled=number is None,
        on_click=partial(to_address, present=number),
    )


def _result(strip: ResultStrip) -> None:
    st.html(f'<div class="dl-answers">{"".join(_answer(answer) for answer in strip.answers)}</div>')


def _answer(answer: Answer) -> str:
    question, words, basis = (escape(text) for text in (answer.question, answer.answer, answer.basis))
    return f"<div><p>{question}</p><strong>{words}</strong><p>{basis}</p></div>"


def _replay(reading: RunReading) -> None:
    panel = ModelReplay()
    data = panel.data(RunView(reading.folder, reading, reading.store))
    with card(panel.title, "present-replay"):
        replay(panel.element_values(data, colours()), plays=True, is_linked=False, is_large=True)
        note(panel.caption(data))
