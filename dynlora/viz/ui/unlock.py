"""Where a dashboard that serves other machines asks for its token, once a session."""

from __future__ import annotations

import os

import streamlit as st

from dynlora.jobs.environment import TOKEN_VARIABLE
from dynlora.server.token import is_token
from dynlora.text import markdown_text
from dynlora.viz.ui.run_picker import UNLOCKED, is_read_only, mirror_of, serves_others


def say_read_only() -> None:
    """Say where a form stands otherwise that nothing can be started here, and what to do."""
    if mirror := mirror_of():
        st.info(f"This dashboard is a read-only copy of {markdown_text(mirror)}. Launch where the runs are trained.")
        return
    st.info(
        "This dashboard serves other machines and is read-only. Launch on its own machine, or unlock it with its token."
    )


def unlock() -> None:
    """Say in the menu that the dashboard only looks, and ask for the token where there is one; nothing otherwise."""
    if mirror := mirror_of():
        st.caption(f"Read-only copy of {markdown_text(mirror)}. New states of runs appear by themselves.")
        return
    if not serves_others():
        return
    if not is_read_only():
        st.caption("Unlocked for this session. Runs can be started and deleted.")
        return
    st.caption("Read-only, because it serves other machines.")
    if not os.environ.get(TOKEN_VARIABLE):
        return
    with st.form("unlock", clear_on_submit=True, border=False):
        entered = st.text_input("Token", type="password", max_chars=512, autocomplete="off")
        if st.form_submit_button("Unlock", width="stretch"):
            st.session_state[UNLOCKED] = is_token(entered)
            if is_read_only():
                st.error("Wrong token. Enter the token of the token file of dynlora ui.")
            else:
                st.rerun()
