"""The card Data check: every fault of the chosen file with its lines, and a button for each repair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import streamlit as st

from dynlora.errors import DynloraError
from dynlora.text import markdown_text, plural
from dynlora.viz.launch import data_check
from dynlora.viz.ui.cards import card, note, table
from dynlora.viz.ui.guard import refusal
from dynlora.viz.ui.url_state import to_address

PLACE = "repair"
"""Name in the address of the repairs that were chosen."""


def chosen_repairs(key: str, start: Sequence[Any]) -> list[Any]:
    """Return the repairs that were chosen for a file.

    Args:
        key: of the file.
        start: those that the form starts with.
    """
    return data_check.chosen(st.query_params.get(PLACE, ""), key, start)


def draw(config: Mapping[str, Any], path: Path, key: str, repairs: Sequence[Any]) -> str:
    """Draw the card and return why no run can start on the file, in a sentence; empty when one can.

    Args:
        config: the configuration as the form has it, its repairs included.
        path: of the file or folder.
        key: of the file in the address.
        repairs: those that were chosen.
    """
    with card("Data check", "data-check"):
        try:
            if data_check.size_of(path) > data_check.MAX_CHECKED_BYTES:
                note(
                    f"The file is larger than {data_check.MAX_CHECKED_BYTES // 2**20} MiB. "
                    f"Check it on the command line: dynlora data check {path.name}"
                )
                return ""
            with st.spinner("Checking every row"):
                found = _found(data_check.asked(config), str(path), data_check.version_of(path), dict(config))
        except (DynloraError, OSError) as error:  # OSError: a file that went away, or a link that leads nowhere
            st.error(refusal(error))
            _undo_all(key, repairs)
            return "The data cannot be used: see the data check."
        blockers = [fault for fault in found["faults"] if fault["refuses"]]
        warnings = [fault for fault in found["faults"] if not fault["refuses"]]
        _conclusion(found, blockers, key, repairs)
        for number, done in enumerate(found["repaired"]):
            _done(done, number, key, repairs)
        for fault in blockers:
            _fault(fault, key, repairs)
        if warnings:
            with st.expander(f"Review {plural(len(warnings), 'warning')}", expanded=True, key="warnings"):
                for fault in warnings:
                    _fault(fault, key, repairs)
        note(" ".join([*(f"Read {text}." for text in found["notes"]), data_check.sizes(found, config.get("seed", 0))]))
    return data_check.blocking(found)


@st.cache_data(max_entries=20, ttl=3600, show_spinner=False)
def _found(asked: str, path: str, version: Any, _config: dict[str, Any]) -> dict[str, Any]:
    """Return the check of a file as it is now; `asked` and `version` say when it is another one."""
    return asdict(data_check.checked(_config, Path(path)))


def _conclusion(
    found: Mapping[str, Any], blockers: Sequence[Mapping[str, Any]], key: str, repairs: Sequence[Any]
) -> None:
    """Say the result first, and offer what training needs at once; a warning may be about rows that are right."""
    sentence = markdown_text(found["conclusion"], 400)
    if not found["faults"]:
        st.success(sentence, icon=":material/check:")
        return
    st.warning(sentence, icon=":material/rule:")
    repairable = sum(fault["repair"] is not None for fault in blockers)
    if repairable > 1:
        st.button(
            f"Repair {repairable} blockers",
            key="repair-blockers",
            icon=":material/done_all:",
            on_click=_choose,
            args=(key, found["needed"]),
        )


def _done(done: Mapping[str, Any], number: int, key: str, repairs: Sequence[Any]) -> None:
    """Draw a repair that is in the configuration, with a button that takes it out."""
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.markdown(f":material/check: {markdown_text(done['sentence'], 400)}")
    rest = [repair for repair in repairs if repair != done["repair"]]
    right.button(
        "Undo",
        key=f"undo-{number}",
        type="tertiary",
        icon=":material/undo:",
        on_click=_choose,
        args=(key, rest),
        width="stretch",
    )


def _fault(fault: Mapping[str, Any], key: str, repairs: Sequence[Any]) -> None:
    """Draw one kind of fault: what and where, examples, and its repair."""
    count = f" ({fault['count']:,})" if fault["count"] else ""
    left, right = st.columns([4, 1], vertical_alignment="center")
    with left:
        look = data_check.BLOCKS if fault["refuses"] else data_check.WARNS
        sentence = markdown_text(data_check.on_page(fault["sentence"]), 800)
        st.markdown(f"{look} **{markdown_text(fault['title'])}**{count}: {sentence}")
        if fault["examples"]:
            note(f"Examples: {data_check.examples_line(fault)}")
    with right, st.container(key=f"fault-{fault['kind']}", gap="xsmall"):
        if fault["repair"] is not None:
            st.button(
                markdown_text(fault["action"], 80),
                key=f"repair-{fault['kind']}",
                icon=":material/build:",
                on_click=_choose,
                args=(key, data_check.added(repairs, [fault["repair"]])),
                width="stretch",
            )
        if fault["examples"]:
            table(data_check.examples_frame(fault), f"fault-{fault['kind']}")


def _undo_all(key: str, repairs: Sequence[Any]) -> None:
    """Offer to take all repairs out: one of them may be what cannot be done."""
    if repairs:
        st.button("Undo all repairs", key="undo-all", icon=":material/undo:", on_click=_choose, args=(key, []))


def _choose(key: str, repairs: Sequence[Any]) -> None:
    """Write the chosen repairs of a file to the address."""
    to_address(**{PLACE: data_check.address(key, repairs)})
