"""The Run page while a run trains: its head, what it learns, what it costs, the machine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from html import escape
from urllib.parse import quote

import streamlit as st

from dynlora.analysis import ranks_to_use, run_summary
from dynlora.analysis.ranks_to_use import Evidence, LoraSettings
from dynlora.analysis.result_strip import Answer, ResultStrip
from dynlora.analysis.retention import retention_conclusion
from dynlora.analysis.run_reading import RunReading, setup_frame
from dynlora.kinds.run_kind import registry
from dynlora.store import queries
from dynlora.store.summary import RunSummary
from dynlora.text import markdown_text
from dynlora.viz.kit.panel import RunView
from dynlora.viz.run.button import export_buttons
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, in_row, note, rows, safe, snippets, status_line
from dynlora.viz.ui.panel_cards import panel_card, panel_cards
from dynlora.viz.ui.replay import replay
from dynlora.viz.ui.run_actions import run_buttons
from dynlora.viz.ui.run_picker import Chosen, is_known, link
from dynlora.viz.ui.url_state import to_address
from dynlora.viz.verdict import JudgedRun, next_step, verdict_evidence

PRESENT = "present"
"""Name in the address of the number of the screen."""

LARGER = 1.6
"""How much larger a chart is than on its page."""

SCREENS = ("replay", "capacity", "effects", "classes", "worst")
"""Panels that a presentation shows, each on a screen: the replay, the map over time, the inputs, and the errors."""

LOOK = """<style>
:root { font-size: clamp(16px, 1.75vw, 30px); }
section[data-testid="stSidebar"], [data-testid="stHeader"], [data-testid="stExpandSidebarButton"],
.st-key-head-of-run .st-key-address-run, .st-key-choice-of-runs, [class*="st-key-table-"] { display: none !important; }
[data-testid="stMainBlockContainer"] { max-width: none !important; padding: 1.4rem 3vw 2rem !important; }
.dl-answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr));
  gap: 2.2rem 3rem; margin-top: 1rem; }
.dl-answers div { min-width: 0; overflow-wrap: anywhere; }
.dl-answers p { margin: 0; opacity: 0.75; font-size: 1.05rem; }
.dl-answers strong { display: block; font-size: 1.7rem; line-height: 1.2; margin: 0.2rem 0 0.4rem; }
.dl-answers div:first-child strong { font-size: 4rem; }
@media (max-width: 640px) {
  .st-key-present-keys { position: fixed; inset: auto 0 0 0; padding: 0.3rem 3vw; z-index: 2;
    backdrop-filter: blur(1rem); }
  [data-testid="stMainBlockContainer"] { padding-bottom: 5rem !important; }
}
@media (min-width: 641px) {
  .st-key-present-keys { position: absolute; right: 3vw; top: 1.4rem; width: auto !important; z-index: 2; }
  [data-testid="stMainBlockContainer"] h1 { padding-right: 21rem !important; }
}
</style><span></span>"""
"""What hides all but the screen; a style alone would stay on the page after the end, so it is not alone."""


def is_presenting() -> bool:
    """Say whether the address asks for the presentation."""
    return PRESENT in st.query_params


def present(screens: Sequence[Callable[[], None]]) -> None:
    """Draw the screen of the address, and the buttons that lead to the others; arrow keys press these.

    Args:
        screens: what draws each.
    """
    st.html(LOOK)
    number = _number(len(screens))
    screens[number - 1]()
    with in_row("present-keys"):
        _key("Previous", "Left", number - 1 if number > 1 else None)
        note(f"{number} of {len(screens)}")
        _key("Next", "Right", number + 1 if number < len(screens) else None)
        leave = partial(to_address, present=None)
        st.button("End", key="present-end", shortcut="Escape", type="tertiary", on_click=leave)


def run_screens(strip: ResultStrip, reading: RunReading, judged: JudgedRun) -> list[Callable[[], None]]:
    """Return what draws each screen of a run: result, replay, map, inputs, errors and verdict, where it has them.

    Args:
        strip: the answers of the run.
        reading: the run.
        judged: it among its like.
    """
    screens: list[Callable[[], None]] = [partial(_result, strip)]
    view = RunView(reading.folder, reading, reading.store)
    panels = (registry()["train"].panel(name) for name in SCREENS)
    shows = (one for one in panels if one.applies(view) and one.data(view) is not None)
    elements = {"replay": partial(replay, plays=True, is_linked=False, is_large=True)}
    screens += [partial(panel_card, one, view, "", elements, LARGER) for one in shows]
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
    st.html(f'<div class="dl-answers">{"".join(_presented_answer(answer) for answer in strip.answers)}</div>')


def _presented_answer(answer: Answer) -> str:
    question, words, basis = (escape(text) for text in (answer.question, answer.answer, answer.basis))
    return f"<div><p>{question}</p><strong>{words}</strong><p>{basis}</p></div>"


def run_strip(
    run: Chosen,
    summary: RunSummary,
    strip: ResultStrip,
    judged: JudgedRun,
    ranks: Evidence | None,
    settings: LoraSettings | None,
    share_button: Callable[[Chosen, ResultStrip], None],
) -> None:
    """Draw the four answers of a run, each with what leads on from it.

    Args:
        run: the run.
        summary: as `queries.run_summary` returns it.
        strip: its answers.
        judged: the run among its like.
        ranks: that it ended with; None before.
        settings: the same ranks as PEFT takes them; None where there are none.
        share_button: draws the button that opens what can be shared.
    """
    with st.container(border=True, key="card-strip"):
        metric, verdict, of_ranks, cost = st.columns(WIDTHS)
        with metric:
            _answer(strip.metric, is_large=True)
        with verdict:
            _answer(strip.verdict)
            next_step(run, summary, judged)
        with of_ranks:
            _answer(strip.ranks)
            if ranks is not None and settings is not None:
                code, *others = ranks_to_use.snippets(settings).items()
                with in_row("strip-ranks"):
                    with st.container(width="content", key="copy-code"):
                        st.code(code[1][0], language=code[1][1])
                    with st.popover("YAML", type="tertiary", key="other-code"):
                        snippets(dict(others), 300)
        with cost:
            _answer(strip.cost)
            share_button(run, strip)


WIDTHS = (5, 9, 8, 5)
"""Of the four answers, the metric first."""


def _answer(answer: Answer, *, is_large: bool = False) -> None:
    """Draw a question, its answer in bold, or large, and what the answer rests on."""
    st.caption(safe(answer.question))
    st.markdown(f"{'### ' if is_large else '**'}{safe(answer.answer)}{'' if is_large else '**'}")
    if answer.basis:
        st.caption(safe(answer.basis))


def run_actions(run: Chosen, summary: RunSummary, *, is_detailed: bool) -> None:
    """Draw what can be done with a run, how far it is while it trains, and what is wrong with it.

    Args:
        run: the run.
        summary: as `queries.run_summary` returns it.
        is_detailed: whether the details are shown; the same link hides them.
    """
    with in_row("actions"):
        with in_row("actions-left"):
            run_buttons(run, summary.status)
            export_buttons(run)
            with st.popover("Run again…", icon=":material/content_copy:", type="tertiary", key="again"):
                start = {"from": run.id}
                link("pages/launch.py", "Duplicate with changes", **start)
                link("pages/launch.py", "Uniform baseline: same budget, equal ranks", **start, twin="uniform")
                link("pages/launch.py", "Random control: same moves, at random", **start, twin="random")
        with in_row("actions-right", width="content"):
            link("pages/compare.py", "Compare", runs=run.id)
            link("pages/run.py", "Present", run=run.id, present="1")
            if is_detailed:
                link("pages/run.py", "Hide details", run=run.id)
            else:
                link("pages/run.py", "Details", run=run.id, section="machine")
    _origin(summary)
    if summary.status in run_summary.ACTIVE and summary.status != "queued":
        phase = run_summary.phase(summary, lambda: queries.logs_frame(run.folder, 20))
        words = run_summary.format_progress(dict(summary), phase)
        st.progress(run_summary.progress_share(dict(summary)), text=markdown_text(words))
    status_line(summary)


def _origin(summary: RunSummary) -> None:
    """Draw which adapter a run starts from, as a link to the run that trained it."""
    origin = summary.origin
    if not origin:
        return
    words = escape(run_summary.origin_words(origin, origin["name"]))
    if origin["run"] and is_known(origin["run"]):
        words = f'<a href="run?run={quote(origin["run"], safe="")}" target="_self">{words}</a>'
    st.html(f'<p class="dl-origin">{words}</p>')


def training_panels(view: RunView, ids: Collection[str] = (), without: Collection[str] = ()) -> None:
    """Draw panels of what a run learns, found and costs.

    Args:
        view: of the run.
        ids: of the panels; empty for all of its training and its cost.
        without: ids of panels that stand elsewhere.
    """
    panels = registry()["train"].panels
    rest = (panel for panel in panels if panel.part in ("Training", "Cost") and panel.id not in without)
    panel_cards((panel for panel in panels if panel.id in ids) if ids else rest, view)


def retention_line(view: RunView) -> None:
    """Say in a line what the run has forgotten; nothing where it was not measured."""
    if view.result.retention:
        note(f"Retention: {retention_conclusion(view.result.retention[-1])}")


def panel_column(view: RunView, ids: Collection[str]) -> None:
    """Draw panels one below the other."""
    for panel in registry()["train"].panels:
        if panel.id in ids and panel.applies(view):
            panel_card(panel, view)


def run_details(view: RunView) -> None:
    """Draw how a run was made, the machine in use, and the log.

    Raises:
        DynloraError: when the run cannot be read.
    """
    with card("Setup", "setup"):
        rows(setup_frame(view.result.summary))
    training_panels(view, ("memory", "processor"))
    with card("Log", "log"):
        lines = run_summary.log_text(cached_queries.ask(queries.logs_frame, view.folder, 200))
        st.code(lines or "The log is empty.", language=None, wrap_lines=True)
