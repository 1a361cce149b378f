"""Which data is trained on: built-in, uploaded, a file of this machine, or the hub's; and which column is what."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora import assets
from dynlora.assets.hub import is_off
from dynlora.config import GENERATIVE, OWN_DATA
from dynlora.data_files.opening import DROP_LONG_ROWS, ENCODINGS, LongRowError
from dynlora.errors import DynloraError, system_message
from dynlora.jobs import uploads
from dynlora.text import markdown_text
from dynlora.viz.launch import data_check, form, form_model
from dynlora.viz.launch.form import config_grid, kept_text
from dynlora.viz.ui import url_state
from dynlora.viz.ui.cards import note
from dynlora.viz.ui.live import guarded, refusal
from dynlora.viz.ui.run_picker import is_read_only, runs_dir
from dynlora.viz.ui.url_state import from_where_it_started, segmented, to_address

GROUPINGS = {None: "automatic", "length": "length", "label": "label", "clusters": "clusters", "none": "No groups"}
"""Input groups that are no column."""


def pick_kind(start: str, key: str) -> str:
    """Draw the choice of the kind of data and return it.

    Args:
        start: the kind that is chosen first.
        key: of the source.
    """
    kind_name = url_state.kept(
        f"kind-{key}-{start}",
        st.segmented_control,
        start,
        "Kind of data",
        list(data_check.KINDS),
        format_func=data_check.KINDS.__getitem__,
        help="What a row is. A label is predicted; prompts, conversations and plain text are continued by a language "
        "model.",
    )
    return kind_name or start


def typed(start: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Draw kind and columns of a table that cannot be read yet as fields of text, and return them by dotted key."""
    kind = pick_kind(data_check.of_start(start) or "labelled", key)
    values = config_grid([f"data.{role}" for role in data_check.ROLES[kind]], start, 4)
    return values | chosen_loss(kind, start, key) | data_check.task_of(kind)


def of_table(
    rows: pd.DataFrame, start: Mapping[str, Any], key: str, place: Any, *, is_same: bool
) -> tuple[str, dict[str, Any]]:
    """Draw kind and columns of a table and return the kind, and what was chosen by dotted key.

    Args:
        rows: the first of the table.
        start: starting values by dotted key.
        key: of the table.
        place: container of the choice of the kind.
        is_same: the starting values are of this table.
    """
    known = (data_check.of_start(start) if is_same else None) or data_check.guessed_kind(rows)
    with place:
        kind = pick_kind(known, key)
    guess = data_check.guessed(rows) | data_check.guessed_written(rows)
    suggested = {
        role: start.get(f"data.{role}") if is_same and kind == known else guess.get(role)
        for role in data_check.ROLES[kind]
    }
    places = st.columns(len(suggested) + (kind in data_check.LOSS_ON), vertical_alignment="bottom")
    values = _columns(rows, kind, suggested, key, places)
    if kind in data_check.LOSS_ON:
        with places[len(suggested)]:
            values |= chosen_loss(kind, start if is_same else {}, key)
    return kind, values | data_check.task_of(kind)


def chosen_loss(kind: str, start: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Draw the choice of the tokens that count in the loss, where a kind of data has one; return it by dotted key."""
    options = data_check.LOSS_ON.get(kind)
    if not options:
        return {}
    begin = start.get("data.loss_on") if start.get("data.loss_on") in options else options[0]
    name = f"loss-{kind}-{key}-{begin}"
    about = markdown_text(form_model.config_field("data.loss_on").about, 600)
    words = data_check.LOSS_WORDS[kind].__getitem__
    choice = url_state.kept(name, st.selectbox, begin, "Loss on", list(options), help=about, format_func=words)
    return {} if choice == options[0] else {"data.loss_on": choice}


def pick_encoding(place: Any, start: Any, key: str) -> str | None:
    """Draw the choice of a text file's encoding and return it; None: found from the bytes."""
    options = ["auto", *ENCODINGS]
    begin = start if start in options else "auto"
    name = f"encoding-{key}-{begin}"
    about = markdown_text(form_model.config_field("data.encoding").about, 600)
    words = {"auto": "automatic"}
    with place:
        encoding = url_state.kept(
            name, st.selectbox, begin, "Encoding", options, help=about, format_func=lambda one: words.get(one, one)
        )
    return None if encoding == "auto" else encoding


def _columns(
    rows: pd.DataFrame, kind: str, suggested: Mapping[str, Any], key: str, places: Sequence[Any]
) -> dict[str, Any]:
    """Draw the choice of columns side by side and return it by dotted key."""
    names: list[Any] = list(rows.columns)
    written = data_check.is_written(kind)
    taken = [suggested[role] for role in ("prompt", "completion", "messages") if suggested.get(role)]
    groups = [name for name in data_check.groupable(rows) if name not in GROUPINGS and name not in taken]
    columns = {}
    for place, role in zip(places, data_check.ROLES[kind], strict=False):
        options = names
        if role in data_check.OPTIONAL:
            options = [None, *names]
        if role == "group_by":
            options = [*(name for name in GROUPINGS if not (written and name == "label")), *groups]
        about = form_model.config_field(f"data.{role}").about
        start = suggested[role] if suggested[role] in options else options[0]
        name = f"column-{role}-{key}-{options.index(start)}"
        words = GROUPINGS if role == "group_by" else {None: "None"}
        with place:
            columns[f"data.{role}"] = url_state.kept(
                name,
                st.selectbox,
                start,
                data_check.ROLE_WORDS[role],
                options,
                help=markdown_text(about, 600),
                placeholder=words.get(None),
                format_func=lambda name, words=words: words.get(name) or data_check.with_values(rows, str(name)),
            )
    if "label" in data_check.ROLES[kind]:
        columns["data.label"] = columns["data.label"] or form_model.config_field("data.label").default
    return columns


KINDS = {"embedded": "Built-in", "upload": "Upload a file", "file": "File or folder", "hub": "From the hub"}
"""Where data can come from: name in the address, and words."""


@dataclass(frozen=True)
class Source:
    """Data that was chosen.

    Attributes:
        values: of the configuration, by dotted key.
        missing: what has to be given before anything can start, in a sentence; empty when nothing.
        path: the file or folder of this machine that can be checked, or None.
        key: of that file in the address.
    """

    values: dict[str, Any] = field(default_factory=dict)
    missing: str = ""
    path: Path | None = None
    key: str = ""

    @property
    def is_written(self) -> bool:
        """Whether a language model learns to write the data."""
        name = self.values.get("data.name") or ""
        embedded = None if name in OWN_DATA.values() else assets.DATASETS.get(name)
        if embedded is not None and self.values.get("data.task") is None:
            return data_check.is_written(data_check.of_columns(list(embedded.columns)))
        return self.values.get("data.task") in GENERATIVE

    @property
    def repairs(self) -> list[Any]:
        """The repairs that were chosen."""
        return list(self.values.get("data.repair") or [])


def pick_source(start: Mapping[str, Any]) -> Source:
    """Draw the choice of data and return it.

    Args:
        start: starting values by dotted key.
    """
    kinds = [kind for kind in KINDS if kind in ("embedded", "hub") or not is_read_only()]
    usual = _kind_of(start)
    kind = segmented("data", "Data source", kinds, usual if usual in kinds else kinds[0], KINDS.__getitem__)
    pick = {"embedded": _embedded, "upload": _uploaded, "file": _local, "hub": _from_hub}[kind]
    source = pick(start)
    rows = config_grid(form_model.ROWS, start, 3)
    with st.expander("More data settings", icon=":material/tune:"):
        more = config_grid([key for key in form_model.MORE_DATA if key not in source.values], start, 4)
        if source.values.get("data.name") in OWN_DATA.values() or more.get("data.task") in OWN_DATA:
            more |= config_grid(form_model.PLANTED, start, 4)
    return replace(source, values=source.values | rows | more)


def check_source(config: Mapping[str, Any], source: Source, place: Any) -> str:
    """Draw the card of a chosen source, where it is a file that can be read, and return why no run can start on it.

    Args:
        config: the whole configuration, as the form has it.
        source: the choice of data.
        place: container of the card.
    """
    if source.path is None:
        return ""
    with place:
        return data_check.draw(config, source.path, source.key, source.repairs)


def _kind_of(start: Mapping[str, Any]) -> str:
    """Return the kind of source that starting values have."""
    path, name = start.get("data.path"), start.get("data.name")
    if path:
        return "upload" if _uploads() in Path(str(path)).parents else "file"
    return "embedded" if not name or name in assets.DATASETS else "hub"


def _uploads() -> Path:
    return runs_dir() / uploads.UPLOADS_DIR


def _embedded(start: Mapping[str, Any]) -> Source:
    """Draw the choice among the data sets that a name alone is enough for."""
    names = list(assets.DATASETS)
    start_name = start.get("data.name")
    left, right = st.columns([1, 2], vertical_alignment="bottom")
    with left:
        usual = start_name if start_name in names else names[0]
        name = url_state.kept(f"embedded-{usual}", st.selectbox, usual, "Data set", names)
    dataset = assets.DATASETS[name]
    kind = data_check.of_columns(list(dataset.columns))
    with right, st.container(horizontal=True, vertical_alignment="bottom"):
        values = chosen_loss(kind, start if start_name == name else {}, name)
        values |= config_grid(["data.group_by"], start, 1)
    sizes = ", ".join(f"{count:,} {split} examples" for split, count in dataset.rows.items())
    note(
        f"{data_check.KINDS[kind]}. {dataset.description}; {sizes}. Columns: {', '.join(dataset.columns)}. "
        f"Licence: {dataset.licence}."
    )
    return Source({"data.name": name} | values | _kept_repairs(start, name))


def _kept_repairs(start: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the repairs that the form starts with, for the data set they are of."""
    repairs = start.get("data.repair") if start.get("data.name") == name else None
    return {"data.repair": repairs} if repairs else {}


def _from_hub(start: Mapping[str, Any]) -> Source:
    """Draw the fields of a data set of the hub."""
    start_name = start.get("data.name")
    value = str(start_name) if start_name and start_name not in assets.DATASETS else ""
    about = "Repository, then a colon and its subset, such as nyu-mll/glue:sst2. Key: data.name."
    form.pick("dataset", f"hub-{value}")
    name = kept_text("Hub id", value, "hub", 500, about)
    folder = assets.cached_hub_dataset(name)
    if folder is not None:
        values = _picked(folder / "train.parquet", f"hub-{name}", start, name, is_same=start_name == name)
        return Source({"data.name": name} | values | _kept_repairs(start, name))
    if name:
        _fetch_button(name)
    values = typed(start, f"hub-{value}")
    if not name:
        return Source(values, "Enter the hub id of a data set first.")
    return Source({"data.name": name} | values | _kept_repairs(start, name))


def _fetch_button(name: str) -> None:
    """Offer to fetch a data set of the hub now, as a run does later, so that its columns can be picked by values."""
    if is_read_only() or is_off():
        return
    help_text = (
        "Downloads the data set as a run does, at most 2 GiB. It is kept, and its columns are shown with values."
    )
    if st.button("Download and show columns", icon=":material/download:", key="hub-fetch", help=help_text):
        try:
            with st.spinner("Downloading the data set"):
                assets.resolve_hub_dataset(name)
        except DynloraError as error:
            st.error(refusal(error))
        else:
            st.rerun()


def _uploaded(start: Mapping[str, Any]) -> Source:
    """Draw the upload and the columns of what was uploaded; the address remembers the file."""
    endings = [*uploads.ENDINGS, uploads.PACKED]
    sent = st.file_uploader(
        "CSV, TSV, JSON, JSON lines, Parquet or Excel with a text and a label column, a prompt and a completion, "
        "conversations (messages), or plain text; also as .gz, at most "
        f"{uploads.MAX_BYTES // 2**20} MiB",
        type=endings,
        key="upload",
        help=("Saved in the runs folder, read as data, never executed."),
        on_change=_forget_upload,
    )
    with guarded():
        if sent is not None:
            path: Path | None = uploads.keep(runs_dir(), sent.name, sent.getvalue())
            to_address(upload=path.parent.name)  # pyright: ignore[reportOptionalMemberAccess]
        else:
            upload = st.query_params.get("upload") or Path(str(start.get("data.path") or "")).parent.name
            path = uploads.find(runs_dir(), upload)
    if path is None:
        return Source(missing="Upload a file first.")
    return _table(path, path, start)


def _forget_upload() -> None:
    """Drop the file that the address remembers: another one is sent, or none any more."""
    to_address(upload=None, repair=None)


def _local(start: Mapping[str, Any]) -> Source:
    """Draw the path of a file or folder of this machine, and its columns where they can be read."""
    value = str(start.get("data.path") or "")
    about = (
        "CSV, TSV, JSON, JSON lines, Parquet or Excel, also as .gz; a folder with train.* and validation.* files; or a "
        "folder of datasets.save_to_disk. Key: data.path."
    )
    text = kept_text("Path on this machine", value, "path", 500, about)
    if not text:
        return Source(missing="Enter the path of a file or folder first.")
    if text.startswith(("//", "\\\\")):  # another machine's: looking there would tell it who we are
        return Source({"data.path": text} | typed(start, "path"))
    path = from_where_it_started(text)
    try:
        table = data_check.table_of(path)
    except (DynloraError, OSError, ValueError) as error:  # the last for a NUL
        return Source(missing=f"{system_message(error, text) if isinstance(error, OSError) else error}.")
    if table is None:
        if path.is_dir():
            return Source(missing=f"{data_check.why_no_table(path)}.")
        if not path.exists():
            note(f"{path} does not exist; check the path.")
        return Source({"data.path": str(path)} | typed(start, "path"))
    return _table(path, table, start)


def _table(path: Path, table: Path, start: Mapping[str, Any]) -> Source:
    """Draw the columns of a table and its first rows; return which column is what."""
    is_same = start.get("data.path") == str(path)
    key = hashlib.sha256(str(table).encode()).hexdigest()[:12]
    repairs = data_check.chosen_repairs(key, start.get("data.repair") or [] if is_same else [])
    values = _picked(table, key, start, table.name, is_same=is_same, repairs=repairs)
    chosen = {"data.repair": repairs} if repairs else {}
    return Source({"data.path": str(path)} | values | chosen, path=path, key=key)


def _picked(
    table: Path, key: str, start: Mapping[str, Any], title: str, *, is_same: bool, repairs: Sequence[Any] = ()
) -> dict[str, Any]:
    """Draw kind, encoding and columns of a table and its first rows; return what was chosen by dotted key.

    Args:
        table: that can be read.
        key: of the elements.
        start: starting values by dotted key.
        title: of the table, for a person.
        is_same: the starting values are of this table.
        repairs: those that were chosen, so that training reads other rows than the file's first ones.
    """
    has_encoding = data_check.has_encoding(table)
    left, right = st.columns([4, 1], vertical_alignment="bottom") if has_encoding else (st.container(), None)
    encoding = None
    if right is not None:
        encoding = pick_encoding(right, start.get("data.encoding") if is_same else None, key)
    with guarded():
        try:
            rows = _first_rows(str(table), data_check.version_of(table), encoding, DROP_LONG_ROWS in repairs)
        except LongRowError as error:
            data_check.leave_out_long_rows(error, key, repairs)
            st.stop()
    kind, values = of_table(rows, start, key, left, is_same=is_same)
    values |= {"data.encoding": encoding} if encoding else {}
    note(f"{title}, {rows.shape[1]} columns. {_caption(kind, rows, values, is_repaired=bool(repairs))} First rows:")
    st.dataframe(data_check.preview_rows(rows), hide_index=True, width="stretch")
    return values


def _caption(kind: str, rows: pd.DataFrame, values: Mapping[str, Any], *, is_repaired: bool) -> str:
    """Say what the chosen columns hold."""
    if data_check.is_written(kind):
        return data_check.caption(kind, rows, values)
    return data_check.label_caption(rows, values["data.label"], is_repaired=is_repaired)


@st.cache_data(max_entries=20, ttl=3600, show_spinner=False)
def _first_rows(path: str, version: Any, encoding: str | None, drops_long_rows: bool) -> pd.DataFrame:
    """Return the first rows of a file as it is now; `version` says when it is another one."""
    return data_check.first_rows(Path(path), encoding, [DROP_LONG_ROWS] * drops_long_rows)
