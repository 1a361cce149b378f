"""The check of a data file as the Launch page shows it: which repairs were chosen, and what the check needs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.config import parse_config
from dynlora.data_files import binary_file, reader, scan
from dynlora.data_files import repairs as data_files_repairs
from dynlora.errors import DynloraError
from dynlora.text import listed, markdown_text, one_line, plural
from dynlora.viz.ui.cards import card, note, table
from dynlora.viz.ui.live import refusal
from dynlora.viz.ui.url_state import to_address

MAX_CHECKED_BYTES = 100 * 2**20
"""A larger file of this machine is checked by the command line only: a page would wait too long."""


def _files_of(path: Path) -> list[Path]:
    """Return the files that are read for a file or folder."""
    if not path.is_dir():
        return [path]
    if binary_file.is_saved(path):
        folders = [path, *(path / split for split in binary_file.saved_splits(path))]
        return sorted(each for folder in folders for each in folder.iterdir() if each.is_file())
    return [each for files in reader.files_of(path).values() for each in files]


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of the tables of a folder."""
    return sum(each.stat().st_size for each in _files_of(path))


def version_of(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return names, times and sizes of what is read: when one changes, the check is made again."""
    return tuple((str(each), each.stat().st_mtime_ns, each.stat().st_size) for each in _files_of(path))


def chosen(text: str, key: str, start: Sequence[Any]) -> list[Any]:
    """Return the repairs that the address holds for a file, as a configuration holds them.

    Args:
        text: the value in the address, `<key>:<JSON>`; what is not of this file, or no repair, counts for nothing.
        key: of the file.
        start: those that the form starts with, where the address says nothing of this file.
    """
    owner, _, listed = text.partition(":")
    try:
        listed_repairs = json.loads(listed) if owner == key else list(start)
        repairs = parse_config({"data": {"repair": listed_repairs}}).data.repair
    except (ValueError, RecursionError):
        return []
    return [data_files_repairs.plain(repair) for repair in repairs or ()]


def address(key: str, repairs: Sequence[Any]) -> str:
    """Return what the address holds for the repairs of a file."""
    return f"{key}:{json.dumps(list(repairs), ensure_ascii=False, separators=(',', ':'))}"


def added(repairs: Sequence[Any], more: Sequence[Any]) -> list[Any]:
    """Return repairs with more of them behind, each once."""
    every = [*repairs, *more]
    return [repair for place, repair in enumerate(every) if repair not in every[:place]]


def checked(config: Mapping[str, Any], path: Path) -> scan.CheckResult:
    """Return what the check of the data of a configuration found.

    Raises:
        ConfigError, DataError: when the configuration or the file cannot be used.
    """
    parsed = parse_config(config)
    return scan.look(path, scan.wanted_of(parsed.data, parsed.seed))


def check_key(config: Mapping[str, Any]) -> str:
    """Return the part of a configuration that the check depends on, as text: another text is another check."""
    return json.dumps({"data": config.get("data", {}), "seed": config.get("seed", 0)}, sort_keys=True, default=str)


BLOCKS, WARNS = ":red-badge[:material/block: Blocks the start]", ":orange-badge[:material/warning: Warning]"
"""What is before a fault that training refuses, and before one that it takes."""

_SETTING = re.compile(r" with data\.repair=\[.*\]")


def on_page(sentence: str) -> str:
    """Return the sentence of a fault for a page, where a button is beside it in place of the setting."""
    return _SETTING.sub(" with the button", sentence)


def blocking(result: Mapping[str, Any]) -> str:
    """Return why training refuses a file, in a sentence; empty when it takes it."""
    names = [one_line(fault["title"], 60) for fault in result["faults"] if fault["refuses"]]
    if not names:
        return ""
    them = "it" if len(names) == 1 else "them"
    return (
        f"Start waits for the data: {plural(len(names), 'fault')} ({listed(names)}). Repair {them} in the data check."
    )


def sizes(result: Mapping[str, Any], seed: int) -> str:
    """Return the sizes of both parts in a sentence; which rows are held out depends on the seed of the run."""
    rows = result["rows"]
    drawn = f", drawn with seed {seed}" if result["is_drawn"] else ""
    return f"{rows['training']:,} training and {rows['held-out']:,} held-out examples{drawn}."


def examples_frame(fault: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of a fault: where, text, and label or completion."""
    return pd.DataFrame(fault["examples"])


def examples_line(fault: Mapping[str, Any], n: int = 3) -> str:
    """Return the first rows of a fault in one line."""
    return ", ".join(_example(row) for row in fault["examples"][:n])


def _example(row: Mapping[str, str]) -> str:
    """Return a row in words."""
    text = f"“{row['text'][:60]}”" if row["text"] else "empty text"
    if "completion" in row:
        return f"{text} → {row['completion'][:30] or 'empty completion'}"
    return f"{text} ({row['label'][:30] or 'no label'})" if "label" in row else text


PLACE = "repair"
"""Name in the address of the repairs that were chosen."""


def chosen_repairs(key: str, start: Sequence[Any]) -> list[Any]:
    """Return the repairs that were chosen for a file.

    Args:
        key: of the file.
        start: those that the form starts with.
    """
    return chosen(st.query_params.get(PLACE, ""), key, start)


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
            if size_of(path) > MAX_CHECKED_BYTES:
                note(
                    f"The file is larger than {MAX_CHECKED_BYTES // 2**20} MiB. "
                    f"Check it on the command line: dynlora data check {path.name}"
                )
                return ""
            with st.spinner("Checking every row"):
                result = _found(check_key(config), str(path), version_of(path), dict(config))
        except (DynloraError, OSError) as error:  # OSError: a file that went away, or a link that leads nowhere
            st.error(refusal(error))
            _undo_all(key, repairs)
            return "The data cannot be used: see the data check."
        blockers = [fault for fault in result["faults"] if fault["refuses"]]
        warnings = [fault for fault in result["faults"] if not fault["refuses"]]
        _conclusion(result, blockers, key, repairs)
        for number, done in enumerate(result["repaired"]):
            _done(done, number, key, repairs)
        for fault in blockers:
            _fault(fault, key, repairs)
        if warnings:
            with st.expander(f"Review {plural(len(warnings), 'warning')}", expanded=True, key="warnings"):
                for fault in warnings:
                    _fault(fault, key, repairs)
        note(" ".join([*(f"Read {text}." for text in result["notes"]), sizes(result, config.get("seed", 0))]))
    return blocking(result)


@st.cache_data(max_entries=20, ttl=3600, show_spinner=False)
def _found(key: str, path: str, version: Any, _config: dict[str, Any]) -> dict[str, Any]:
    """Return the check of a file as it is now; `key` and `version` say when it is another one."""
    return asdict(checked(_config, Path(path)))


def _conclusion(
    result: Mapping[str, Any], blockers: Sequence[Mapping[str, Any]], key: str, repairs: Sequence[Any]
) -> None:
    """Say the result first, and offer what training needs at once; a warning may be about rows that are right."""
    sentence = markdown_text(result["conclusion"], 400)
    if not result["faults"]:
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
            args=(key, result["needed"]),
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
        look = BLOCKS if fault["refuses"] else WARNS
        sentence = markdown_text(on_page(fault["sentence"]), 800)
        st.markdown(f"{look} **{markdown_text(fault['title'])}**{count}: {sentence}")
        if fault["examples"]:
            note(f"Examples: {examples_line(fault)}")
    with right, st.container(key=f"fault-{fault['kind']}", gap="xsmall"):
        if fault["repair"] is not None:
            st.button(
                markdown_text(fault["action"], 80),
                key=f"repair-{fault['kind']}",
                icon=":material/build:",
                on_click=_choose,
                args=(key, added(repairs, [fault["repair"]])),
                width="stretch",
            )
        if fault["examples"]:
            table(examples_frame(fault), f"fault-{fault['kind']}")


def _undo_all(key: str, repairs: Sequence[Any]) -> None:
    """Offer to take all repairs out: one of them may be what cannot be done."""
    if repairs:
        st.button("Undo all repairs", key="undo-all", icon=":material/undo:", on_click=_choose, args=(key, []))


def _choose(key: str, repairs: Sequence[Any]) -> None:
    """Write the chosen repairs of a file to the address."""
    to_address(**{PLACE: address(key, repairs)})
