"""Runs of other kinds than training on their page: picked, started from a form, watched; each kind brings its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dynlora.analysis.run_summary import ACTIVE
from dynlora.jobs.launch import RunHandle
from dynlora.kinds.registry import kind_of_run, registry
from dynlora.kinds.run_kind import RunKind
from dynlora.store import queries
from dynlora.text import sentence_case
from dynlora.viz.kit.panel import RunView
from dynlora.viz.report.button import report_button
from dynlora.viz.run.button import adapter_button, export_buttons
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import badge, card, note, status_line, table, titled
from dynlora.viz.ui.frame import enter
from dynlora.viz.ui.guard import announce, guarded
from dynlora.viz.ui.panel_cards import conclusion, panel_cards, pick
from dynlora.viz.ui.run_actions import queued_once, run_buttons
from dynlora.viz.ui.run_picker import Chosen, kinds_of_page, link, list_all, pick_run


@dataclass(frozen=True)
class KindPage:
    """The page of a kind of run, and the form on it that starts one.

    Attributes:
        name: of the page, that of one kind where it has a page of its own. Widgets' keys begin with it.
        noun: what one of its runs is called; its name without one.
    """

    name: str
    noun: str = ""

    @property
    def title(self) -> str:
        """What its runs are called on the page."""
        return sentence_case(self.noun or self.name)

    @property
    def kinds(self) -> list[RunKind]:
        """The kinds that the page shows, that of its own name first."""
        return [registry()[name] for name in sorted(kinds_of_page(self.name), key=lambda name: name != self.name)]

    # --- the page

    def picked(self, form: Callable[..., None]) -> tuple[Chosen, bool]:
        """Return the run of the page and whether it is at work; where there is none, draw the form and end the page."""
        enter()
        start = self.kinds[0].form
        if list_all(kinds_of_page(self.name)).empty and "run" not in st.query_params:
            titled(self.title, start.purpose)
            if start.evidence:
                note(start.evidence)
            form(self, is_open=True)
            st.stop()
        note(start.purpose)
        if start.evidence:
            note(start.evidence)
        run = pick_run(self.title, page=self.name)
        with guarded():
            return run, queries.run_summary(run.folder)["status"] in ACTIVE

    def draw(self, run: Chosen, *, was_active: bool) -> None:
        """Draw all that the kind of a run declares: the head, the conclusion with what to do next, and the panels."""
        summary = cached_queries.live_summary(run.folder, was_active=was_active)
        kind = kind_of_run(run.folder)
        result = kind.follow(run.folder) if was_active else cached_queries.ask(kind.read, run.folder)
        done = kind.done.format(step=summary["step"], total=summary["max_steps"])
        self._head(run, summary, kind.headline(result), done)
        place, choice = st.container(), kind.choice(result)
        chosen = {} if choice is None else {choice.name: pick(choice)}
        with place:
            step = summary["step"]
            words = kind.progress(result, step, chosen) if was_active else kind.conclusion(result, chosen)
            with conclusion(words.text, words.basis):
                for name, frame in kind.tables(result).items():
                    table(frame, name)
                if any((run.folder / name).is_dir() for name in kind.models):
                    _next_steps(kind, run)
        panel_cards(kind.panels, RunView(run.folder, result, cached_queries.CachedQueries(), chosen))

    def _head(self, run: Chosen, summary: Mapping[str, Any], about: str, done: str) -> None:
        """Draw what the run is, how far it is, its buttons, and what is wrong with it."""
        name = str(summary["name"])
        titled(name if self.noun or name.lower().startswith(self.name) else f"{self.title}: {name}", about)
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"{self.name}-head"):
            badge(summary["status"])
            st.caption(done, width="content")
            run_buttons(run, summary["status"])
            report_button([run])
        status_line(summary)

    # --- the form

    @contextmanager
    def form(self, *, is_open: bool) -> Iterator[None]:
        """Draw what is around the form; the block draws what is in it.

        Args:
            is_open: whether it is shown without a click.
        """
        name = f"New {self.noun or self.name}"
        with st.expander(name, expanded=is_open, icon=":material/add:"), card(name, f"{self.name}-new"):
            yield

    def start(
        self,
        label: str,
        settings: Mapping[str, Any],
        queue: Callable[[str], RunHandle],
        caption: str,
        command: str,
        *,
        is_ready: bool = True,
    ) -> None:
        """Draw the last row of the form: the button that queues the run and opens it, a line, and the command.

        Args:
            label: of the button.
            settings: as plain values; the same ones are queued once.
            queue: puts the run into the queue under a key; a refusal is said on the page.
            caption: what the run will take, or what is missing.
            command: does the same.
            is_ready: whether nothing is missing.
        """
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"{self.name}-actions"):
            pressed = st.button(
                label, type="primary", icon=":material/play_arrow:", key=f"{self.name}-begin", disabled=not is_ready
            )
            if pressed and (made := queued_once(self.name, settings, queue)) is not None:
                announce(f"{self.title} queued")
                st.switch_page(f"pages/{self.name}.py", query_params={"run": made.id})
            note(caption)
            with st.popover("Command line", icon=":material/terminal:", type="tertiary", key=f"{self.name}-command"):
                st.code(command, language="bash", wrap_lines=True)


def _next_steps(kind: RunKind, run: Chosen) -> None:
    """Draw where the model of a run is tried, what takes it away, and the command that uses it."""
    if kind.trial is not None and kind.has_model(run.folder):
        link("pages/playground.py", kind.trial.label, **kind.trial.address(run.id))
    if "merged" in kind.formats:
        export_buttons(run)
    elif kind.formats:
        adapter_button(run)
    if command := kind.usage(run.id, run.folder.parent):
        with st.popover("Command line", icon=":material/terminal:", type="tertiary", key=f"{kind.name}-usage"):
            st.code(command, language="bash", wrap_lines=True)
