"""Runs of other kinds than training on their page: picked, started from a form, watched; each kind brings its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.jobs.launch import RunHandle
from dynlora.store import queries
from dynlora.store.kinds import DISTIL
from dynlora.viz.kit.run_summary import ACTIVE
from dynlora.viz.ui.cards import badge, card, note, status_line, titled
from dynlora.viz.ui.frame import enter
from dynlora.viz.ui.guard import guarded
from dynlora.viz.ui.run_actions import run_buttons
from dynlora.viz.ui.run_picker import Chosen, Others, find_run, kinds_of_page, list_all, pick_run
from dynlora.viz.ui.start_run import queued_once
from dynlora.viz.ui.toasts import announce


def is_student(folder: Path) -> bool:
    """Say whether a distillation has ended with a student; its checkpoint on the way holds no model to ask."""
    return (folder / "adapter").is_dir()


ASKABLE: Others = MappingProxyType({DISTIL: is_student})
"""Kinds of run beside trainings whose model answers, and what says whether that in a folder does."""


@dataclass(frozen=True)
class KindPage:
    """The page of a kind of run, and the form on it that starts one.

    Attributes:
        kind: of its runs, a key of `store.kinds.KINDS`; also the name of the page, and what widgets' keys begin with.
        what: the page is about, for a person who has no such run yet.
    """

    kind: str
    what: str

    @property
    def title(self) -> str:
        """What the kind is called on the page."""
        return self.kind.capitalize()

    # --- the page

    def picked(self, form: Callable[..., None]) -> tuple[Chosen, bool]:
        """Return the run of the page and whether it is at work; where there is none, draw the form and end the page."""
        enter()
        if list_all(kinds_of_page(self.kind)).empty and "run" not in st.query_params:
            titled(self.title, self.what)
            form(is_open=True)
            st.stop()
        run = pick_run(self.title, kind=self.kind)
        with guarded():
            return run, queries.run_summary(run.folder)["status"] in ACTIVE

    def head(self, run: Chosen, summary: Mapping[str, Any], about: str, done: str) -> None:
        """Draw the head of the page: what the run is, how far it is, its buttons, and what is wrong with it.

        Args:
            run: of the page.
            summary: of the run.
            about: line under the title.
            done: how far it is.
        """
        titled(f"{self.title}: {summary['name']}", about)
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"{self.kind}-head"):
            badge(summary["status"])
            st.caption(done, width="content")
            run_buttons(run, summary["status"])
        status_line(summary)

    # --- the form

    @contextmanager
    def form(self, *, is_open: bool) -> Iterator[None]:
        """Draw what is around the form; the block draws what is in it.

        Args:
            is_open: whether it is shown without a click.
        """
        name = f"New {self.kind}"
        with st.expander(name, expanded=is_open, icon=":material/add:"), card(name, f"{self.kind}-new"):
            yield

    def start(
        self, label: str, settings: Mapping[str, Any], queue: Callable[[str], RunHandle], said: str, command: str,
        *, is_ready: bool = True,
    ) -> None:  # fmt: skip
        """Draw the last row of the form: the button that queues the run and opens it, a line, and the command.

        Args:
            label: of the button.
            settings: as plain values; the same ones are queued once.
            queue: puts the run into the queue under a key; a refusal is said on the page.
            said: what the run will take, or what is missing.
            command: does the same.
            is_ready: whether nothing is missing.
        """
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"{self.kind}-actions"):
            pressed = st.button(
                label, type="primary", icon=":material/play_arrow:", key=f"{self.kind}-start", disabled=not is_ready
            )
            if pressed and (made := queued_once(self.kind, settings, queue)) is not None:
                announce(f"{self.title} queued")
                st.switch_page(f"pages/{self.kind}.py", query_params={"run": made.id})
            note(said)
            with st.popover("Command line", icon=":material/terminal:", type="tertiary", key=f"{self.kind}-command"):
                st.code(command, language="bash", wrap_lines=True)


def usable_runs() -> pd.DataFrame:
    """Return the trained runs that another run can use: those that kept an adapter when they ended."""
    runs = list_all()
    return runs[runs["status"].isin(("finished", "stopped"))]


def source_of(run_id: str) -> str:
    """Return how settings name a run: by its id, or by its folder where it is a sample."""
    run = find_run(run_id)
    return run.id if run.is_own else str(run.folder)
