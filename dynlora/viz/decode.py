"""A decode: who wrote each step, what the reward said, and what that saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.kinds.decode import frames
from dynlora.kinds.decode.kind import DecodeKind
from dynlora.kinds.decode.result import Step
from dynlora.store.meta import count, finite, table
from dynlora.text import one_line
from dynlora.viz.ui.cards import card, colours, note, safe, titled, under
from dynlora.viz.ui.live import fragment
from dynlora.viz.ui.model_client import POLL_S, Streamed, begun
from dynlora.viz.ui.run_picker import find_run, link, list_all, run_labels
from dynlora.viz.ui.url_state import choose

KIND = DecodeKind()

EXAMPLE = "Tom has 14 books. Tom buys 9 more. How many books does Tom have?"
MOST_CHARACTERS = 4000
MOST_TEXT = 20_000
ASKED = "decode-live"
"""Key of the session: what was asked last, and its stream."""


def can_try() -> bool:
    """Say whether there is a decode whose roles can be asked."""
    return not _able().empty


def _able() -> pd.DataFrame:
    """Return the decodes whose draft, target and reward are there; those of most samples are not kept."""
    runs = list_all((KIND.name,))
    return runs[[has_roles(str(folder)) for folder in runs["folder"]]]


@st.cache_data(max_entries=500, ttl=60, show_spinner=False)
def has_roles(folder: str) -> bool:
    """Say whether the runs that a decode names are still there."""
    return KIND.has_model(Path(folder))


def live_tab() -> None:
    """Draw the tab: whose roles, the problem, the threshold, and the steps as they are written."""
    runs = _able()
    titled("Playground: decode", "Type a problem and watch who writes each step.")
    if runs.empty:
        note(f"{frames.WHAT} No decode here has its draft, target and reward at hand.")
        link("pages/decode.py", "Start a decode")
        return
    words = run_labels(runs)
    run_id = choose("decode", "Draft, target and reward of", list(words), next(iter(words)), words.__getitem__)
    with card("Problem", "decode-live-problem"):
        question = st.text_area("Problem", EXAMPLE, key="decode-live-question", height=80, max_chars=MOST_CHARACTERS)
        threshold = st.slider(
            "Threshold",
            0.0,
            1.0,
            0.7,
            0.05,
            key="decode-live-threshold",
            help="0 accepts every step of the draft; 1 lets the target rewrite almost all.",
        )
        request = (run_id, question, threshold)
        is_new = st.session_state.get(ASKED, (None, None))[0] != request
        has_begun = st.session_state.get(ASKED) is not None
        pressed = st.button("Decode", type="primary", icon=":material/play_arrow:", key="decode-live-start")
        if pressed or (has_begun and is_new):
            _begin(request, find_run(run_id).folder, question, threshold)
    if st.session_state.get(ASKED) is not None:
        _steps_card(st.session_state[ASKED][1], threshold)


def _begin(request: tuple[Any, ...], folder: Path, question: str, threshold: float) -> None:
    """Ask the child; what was asked before ends."""
    before = st.session_state.get(ASKED)
    if before is not None:
        before[1].stop()
    with st.spinner("Loading draft, target and reward"):
        stream = begun(folder, "decode", question=question, threshold=threshold)
        # Within the spinner: its end draws, and a press meanwhile would draw the page again there and lose the stream.
        st.session_state[ASKED] = (request, stream)


def _steps_card(stream: Streamed, threshold: float) -> None:
    """Draw the steps, again and again while they are written."""

    @fragment(run_every=None if stream.ended else POLL_S)
    def live() -> None:
        was_writing = not stream.ended
        stream.read()
        if was_writing and stream.ended:
            st.rerun()
        with card("Solution, step by step", "decode-live-steps"):
            if stream.error:
                st.error(safe(stream.error))
            steps = [_step(message) for message in stream.messages if "by" in message]
            st.html(frames.steps_html(steps, threshold, colours()))
            end = next((message for message in stream.messages if "ended" in message), None)
            if end is not None:
                under(_ending(end), _frame(steps), "decode-live")
            elif not stream.ended:
                note("Writing the next step.")

    live()


def _step(message: Mapping[str, Any]) -> Step:
    """Return a step of a message; a value of another kind counts as none."""
    text = message.get("discarded")
    return Step.model_validate({**message, "discarded": None if text is None else {"text": text}})


def _ending(end: Mapping[str, Any]) -> str:
    """Return what it took."""
    tokens = table(end.get("tokens"))
    accepted, gone, target = (count(tokens.get(name)) for name in ("draft_kept", "draft_discarded", "target"))
    mine, whole = finite(end.get("flops")), finite(end.get("target_flops"))
    share = f" {100 * mine / whole:.0f} % of the decode FLOPs that the target alone needs." if mine and whole else ""
    answer = one_line(end.get("answer") or "none", 60)
    tokens_text = f"{accepted:,} of the draft kept, {gone:,} discarded, {target:,} of the target"
    return f"Answer: {answer}. Tokens: {tokens_text}.{share}"


def _frame(steps: Sequence[Step]) -> pd.DataFrame:
    rows = [[step.by, step.text.strip(), step.reward, step.accepted, step.discarded] for step in steps]
    return pd.DataFrame(rows, columns=["by", "text", "reward", "accepted", "discarded"])
