"""A data file on the Launch page: its first rows, its columns, the check of it and the repairs that were chosen."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.config import GENERATIVE, parse_config
from dynlora.data_files import reader, scan
from dynlora.data_files import repairs as data_files_repairs
from dynlora.data_files.columns import conversation, guessed, guessed_kind, guessed_written, is_conversation, plain
from dynlora.data_files.opening import DROP_LONG_ROWS, LongRowError, ending_of, is_table
from dynlora.errors import DataError, DynloraError
from dynlora.text import listed, markdown_text, one_line, plural
from dynlora.viz.ui.cards import card, note, table
from dynlora.viz.ui.live import refusal
from dynlora.viz.ui.url_state import to_address

KINDS = {
    "labelled": "Text and label",
    "completion": "Prompt and completion",
    "messages": "Conversations",
    "text": "Plain text",
}
"""Words for each kind of data."""

ROLES: Mapping[str, Sequence[str]] = {
    "labelled": ("text", "text_pair", "label", "group_by"),
    "completion": ("prompt", "completion", "answer", "group_by"),
    "messages": ("messages", "answer", "group_by"),
    "text": ("text", "group_by"),
}
"""Settings of section `data` that name the columns of each kind."""

ROLE_WORDS = {
    "text": "Text column",
    "text_pair": "Second text column",
    "label": "Label column",
    "group_by": "Input groups",
    "prompt": "Prompt column",
    "completion": "Completion column",
    "messages": "Messages column",
    "answer": "Answer column",
}
"""Labels of the pickers of columns."""

OPTIONAL = ("text_pair", "answer")
"""Columns that need not be there."""

LOSS_ON: Mapping[str, Sequence[str]] = {
    "completion": ("completion", "all"),
    "messages": ("completion", "assistant", "all"),
}
"""Values of `data.loss_on` that fit a kind, the default first."""

LOSS_WORDS = {
    "completion": {"completion": "Completion", "all": "Prompt and completion"},
    "messages": {"completion": "Last answer", "assistant": "All assistant turns", "all": "All messages"},
}
"""What each of them is called."""


def is_written(kind: str) -> bool:
    """Say whether a kind of data is for a language model: nothing is labelled, texts are to be written."""
    return kind != "labelled"


def task_of(kind: str) -> dict[str, str]:
    """Return the task of a kind of data by dotted key; none for labels, which say it themselves."""
    return {"data.task": GENERATIVE[0]} if is_written(kind) else {}


def of_start(start: Mapping[str, Any]) -> str | None:
    """Return the kind of data that starting values have; None where they leave it open."""
    if start.get("data.messages"):
        return "messages"
    if start.get("data.completion") or start.get("data.prompt"):
        return "completion"
    if start.get("data.task") in GENERATIVE:
        return "completion" if start.get("data.text_pair") else "text" if start.get("data.text") else None
    return "labelled" if start.get("data.text") else None


def of_columns(names: Sequence[str]) -> str:
    """Return the kind of a built-in data set by its columns."""
    if "messages" in names:
        return "messages"
    if "completion" in names:
        return "completion"
    return "labelled" if "label" in names else "text"


def caption(kind: str, rows: pd.DataFrame, values: Mapping[str, Any]) -> str:
    """Say in a sentence what the columns of texts to be written hold in the first rows.

    Args:
        kind: of the data.
        rows: the first rows.
        values: the chosen columns by dotted key.
    """
    head = f"In the first {plural(len(rows), 'row')}"
    if kind == "messages":
        return f"{head} {_said_of_conversations(rows, str(values['data.messages']))}."
    columns = {ROLE_WORDS[role].removesuffix(" column").lower(): values.get(f"data.{role}") for role in ROLES[kind]}
    sizes = [
        f"the {word} has {rows[name].astype(str).str.len().mean():,.0f} characters on average"
        for word, name in columns.items()
        if name in rows and word in ("prompt", "completion", "text")
    ]
    return f"{head} {' and '.join(sizes)}."


def _said_of_conversations(rows: pd.DataFrame, name: str) -> str:
    """Return how long conversations are, and who speaks."""
    lengths, faulty = [], 0
    for cell in rows.get(name, []):
        try:
            lengths.append(conversation(plain(cell)))
        except ValueError:
            faulty += 1
    if not lengths:
        return "no cell of the column is a list of messages with role and content"
    sizes = sorted({len(turns) for turns in lengths})
    span = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    roles = dict.fromkeys(one_line(turn["role"], 20) for turns in lengths for turn in turns)
    bad = f"; {plural(faulty, 'cell')} cannot be read as messages" if faulty else ""
    return f"a conversation has {span} messages of {listed(list(roles), 5)}{bad}"


def as_text(value: Any) -> str:
    """Return a cell for reading: a conversation as its turns, each after its role."""
    try:
        return " ⏎ ".join(f"{turn['role']}: {turn['content']}" for turn in conversation(plain(value)))
    except ValueError:
        return str(value)


__all__ = [
    "first_rows",
    "groupable",
    "guessed",
    "guessed_kind",
    "guessed_written",
    "has_encoding",
    "label_caption",
    "preview_rows",
    "table_of",
    "why_no_table",
    "with_values",
]

READ_ROWS = 200
"""Rows of the preview."""

MAX_CLASSES = 50


def table_of(path: Path) -> Path | None:
    """Return the table a path stands for: the file itself, or the training file of a folder; None for neither.

    A folder of `datasets.save_to_disk` stands for itself.
    """
    if path.is_dir():
        if reader.is_saved(path):
            return path
        return next((entry for entry in reader.files_of(path).get("train", [])), None)
    return path if is_table(path) and path.is_file() else None


def why_no_table(folder: Path) -> str:
    """Return why no table of a folder can be trained on, as training says it."""
    try:
        reader.read_sides(folder, 1)
    except DataError as error:
        return str(error)
    return f"{folder.name}: has no table to pick columns of"  # the folder has changed meanwhile


def has_encoding(path: Path) -> bool:
    """Say whether a table is a text file, whose encoding may be given."""
    return path.is_file() and ending_of(path) in (".csv", ".tsv", ".json", ".jsonl")


def first_rows(path: Path, encoding: str | None = None, repairs: Sequence[Any] = ()) -> pd.DataFrame:
    """Return at most `READ_ROWS` rows of a table.

    Args:
        path: of the table.
        encoding: of a text file; None: found from its bytes.
        repairs: those that reading carries out.

    Raises:
        DataError: when it cannot be read, or holds no rows.
    """
    rows = reader.read_sides(path, READ_ROWS, encoding, repairs).train.rows.slice(0, READ_ROWS)
    return rows.to_pandas()


def groupable(rows: pd.DataFrame) -> list[str]:
    """Return the columns with few enough values to group the inputs by."""
    return [name for name in rows.columns if rows[name].astype(str).nunique() <= MAX_CLASSES]


def with_values(rows: pd.DataFrame, name: str, n: int = 3) -> str:
    """Return a column's name with its first different values, for a picker."""
    cells = rows[name].dropna()
    if len(cells) and not isinstance(cells.iloc[0], str) and is_conversation(cells.iloc[0]):
        return f"{one_line(name, 40)} (messages)"
    values = [one_line(value, 24) for value in cells.astype(str).unique()[:n]]
    return f"{one_line(name, 40)} ({', '.join(values)})" if values else f"{one_line(name, 40)} (empty)"


def preview_rows(rows: pd.DataFrame, n: int = 8) -> pd.DataFrame:
    """Return the first rows for reading: everything as text, each cell on one line and cut."""
    return pd.DataFrame(
        {one_line(name, 60): [one_line(_cell(cell), 300) for cell in rows[name].head(n)] for name in rows}
    )


def _cell(value: object) -> object:
    """Return a cell for reading; a list of messages as a conversation, a cell without a value as nothing."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value if isinstance(value, str | int | float) else as_text(value)


def label_caption(rows: pd.DataFrame, label: str, *, is_repaired: bool = False) -> str:
    """Say in a sentence what the label column holds in the first rows of the file.

    Args:
        rows: of the file, as `first_rows` returns them.
        label: name of the column.
        is_repaired: repairs were chosen, so training reads other rows than these.
    """
    values = rows[label]
    head = f"In the first {len(rows):,} rows" if len(rows) >= READ_ROWS else f"In its {plural(len(rows), 'row')}"
    head += ", before the repairs," if is_repaired else ""
    counts = values.astype(str).value_counts()
    if values.isna().any():
        return f"{head} the label is empty {plural(int(values.isna().sum()), 'time')}."
    if pd.api.types.is_numeric_dtype(values) and len(counts) > 20:
        return f"{head} the label is a number from {values.min():g} to {values.max():g}."
    if len(counts) < 2:
        return f"{head} the label is always {one_line(counts.index[0], 40)}, so there is nothing to learn."
    if len(counts) > MAX_CLASSES:
        return f"{head} the label has {len(counts):,} values; check that it is the label."
    return (
        f"{head} the label is " + listed([f"{one_line(name, 40)} {n:,} times" for name, n in counts.items()], 5) + "."
    )


MAX_CHECKED_BYTES = 100 * 2**20
"""A larger file of this machine is checked by the command line only: a page would wait too long."""


def _files_of(path: Path) -> list[Path]:
    """Return the files that are read for a file or folder."""
    if not path.is_dir():
        return [path]
    if reader.is_saved(path):
        folders = [path, *(path / split for split in reader.saved_splits(path))]
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
        _conclusion(result, key, repairs)
        for number, done in enumerate(result["repaired"]):
            _done(done, number, key, repairs)
        for fault in blockers:
            _fault(fault, key, repairs)
        if warnings:
            with st.expander(f"Review {plural(len(warnings), 'warning')}", key="warnings"):
                for fault in warnings:
                    _fault(fault, key, repairs)
        note(" ".join([*(f"Read {text}." for text in result["notes"]), sizes(result, config.get("seed", 0))]))
    return blocking(result)


@st.cache_data(max_entries=20, ttl=3600, show_spinner=False)
def _found(key: str, path: str, version: Any, _config: dict[str, Any]) -> dict[str, Any]:
    """Return the check of a file as it is now; `key` and `version` say when it is another one."""
    return asdict(checked(_config, Path(path)))


SAFE = "All that blocks the start, rows that are there twice, and training texts that are held out too."


def _conclusion(result: Mapping[str, Any], key: str, repairs: Sequence[Any]) -> None:
    """Say the result first, and offer what is right in any data; another warning may be about rows that are right."""
    sentence = markdown_text(result["conclusion"], 400)
    if not result["faults"]:
        st.success(sentence, icon=":material/check:")
        return
    st.warning(sentence, icon=":material/rule:")
    more = [repair for repair in result["safe"] if repair not in repairs]
    if more:
        st.button(
            f"Repair all safe ({len(more)})",
            key="repair-safe",
            icon=":material/done_all:",
            on_click=_choose,
            args=(key, result["safe"]),
            help=SAFE,
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


def leave_out_long_rows(error: LongRowError, key: str, repairs: Sequence[Any]) -> None:
    """Say which row of a file has more cells than the header, and offer to leave such rows out."""
    st.error(markdown_text(on_page(f"{error}."), 2000))
    st.button(
        "Leave out rows with too many cells",
        key="repair-long-rows",
        icon=":material/build:",
        on_click=_choose,
        args=(key, added(repairs, [DROP_LONG_ROWS])),
    )


def _undo_all(key: str, repairs: Sequence[Any]) -> None:
    """Offer to take all repairs out: one of them may be what cannot be done."""
    if repairs:
        st.button("Undo all repairs", key="undo-all", icon=":material/undo:", on_click=_choose, args=(key, []))


def _choose(key: str, repairs: Sequence[Any]) -> None:
    """Write the chosen repairs of a file to the address."""
    to_address(**{PLACE: address(key, repairs)})
