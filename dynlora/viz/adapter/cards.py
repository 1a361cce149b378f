"""An adapter that somebody brings along, on the Capacity page: its two files are sent, its ranks and norms are seen."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dynlora.analysis import adapter_frames
from dynlora.jobs import uploads
from dynlora.peft_adapter import Adapter, read_adapter
from dynlora.peft_adapter.engines import check_engines
from dynlora.peft_adapter.header import read_header
from dynlora.text import one_line, sentence_case
from dynlora.viz.adapter import figures as adapter_figures
from dynlora.viz.ui.cards import card, chart, colours, figures, note, rows, titled
from dynlora.viz.ui.guard import guarded
from dynlora.viz.ui.run_picker import is_read_only, link, runs_dir
from dynlora.viz.ui.url_state import segmented, to_address

ADDRESS = "adapter"
"""Name in the address: the digest of an adapter that was sent, or `SEND`."""

SEND = "send"
"""Asks for the page that takes the files."""


def adapter_link() -> None:
    """Draw the link to where an adapter folder is opened; the address keeps the run, for the way back."""
    if not is_read_only():
        link("pages/capacity.py", "Open adapter", **_run(), **{ADDRESS: SEND})


def _run() -> dict[str, str]:
    run = st.query_params.get("run") or st.session_state.get("last_run")
    return {"run": run} if run else {}


def adapter_in_address() -> bool:
    """Say whether the address asks for an adapter instead of a run."""
    return ADDRESS in st.query_params


def adapter_view() -> None:
    """Draw the adapter in the address, or what takes the files of one, then end the page."""
    wanted = st.query_params.get(ADDRESS, "")
    with guarded():
        folder = uploads.find_adapter(runs_dir(), wanted)
        if folder is None:
            _none_yet(wanted)
        else:
            _show(folder)
    with st.container(horizontal=True, gap="small"):
        link("pages/capacity.py", "Capacity of a run", **_run())
        link("pages/tour.py", "Tour: what is rank")
    st.stop()


def _none_yet(wanted: str) -> None:
    """Ask for the files of an adapter."""
    titled("Open adapter", "Ranks, norms and spectra of any PEFT LoRA or AdaLoRA adapter.")
    if wanted != SEND:
        st.warning("There is no adapter at this address. Upload its two files again.")
    _take(wanted)
    with card("Command line", "adapter-command"):
        st.code("dynlora inspect FOLDER", language="bash", wrap_lines=True)
        note("The command has no size limit. To write the adapter of a run, use `dynlora export ID`.")


def _take(digest: str) -> None:
    """Draw the upload; what is sent is kept by its digest, which goes to the address in place of what is shown."""
    if is_read_only():
        note("This dashboard is read-only. Upload adapters to a dashboard on your own machine.")
        return
    names = " and ".join(uploads.ADAPTER_FILES.values())
    sent = st.file_uploader(
        f"{names}, both together, at most {uploads.MAX_BYTES // 2**20} MiB each",
        type=list(uploads.ADAPTER_FILES),
        accept_multiple_files=True,
        key=f"adapter-files-{digest[:12]}",
        help="Saved in the runs folder, read as numbers, never executed.",
    )
    if not sent:
        return
    folder = uploads.keep_adapter(runs_dir(), {file.name: file.getvalue() for file in sent})
    _read(str(folder), _changed(folder))  # what cannot be read is said here, and shown nowhere
    if folder.name != digest:
        to_address(**{ADDRESS: folder.name})
        st.rerun()


def _changed(folder: Path) -> tuple[int, ...]:
    """Return what changes when a file of the folder does."""
    stats = [(folder / name).stat() for name in uploads.ADAPTER_FILES.values()]
    return tuple(number for about in stats for number in (about.st_mtime_ns, about.st_size))


@st.cache_data(max_entries=10, ttl=3600, show_spinner="Reading the adapter")
def _read(folder: str, changed: tuple[int, ...]) -> Adapter:
    return read_adapter(folder)


def _show(folder: Path) -> None:
    """Draw an adapter."""
    adapter = _read(str(folder), _changed(folder))
    modules = adapter_frames.described(adapter)
    titled("Adapter", one_line(adapter_frames.overview(adapter, modules), 300))
    for words in adapter.notes:
        note(words)
    figures(adapter_frames.headline(adapter, modules))
    _engines(folder)
    table = adapter_frames.table(modules)
    with card("Map by module kind and layer", "adapter-map"):
        column = segmented(
            "number",
            "Value shown",
            list(adapter_frames.NUMBERS),
            "rank",
            lambda name: sentence_case(adapter_frames.NUMBERS[name][0]),
        )
        title, unit = adapter_frames.NUMBERS[column]
        grid = adapter_frames.over_depth(modules, column)
        words = adapter_frames.depth_caption(modules, column, title)
        chart(adapter_figures.depth_map(grid, title, unit, colours()), words, table, f"adapter-{column}")
    values = adapter_frames.spectra(modules)
    spectra = adapter_figures.spectra_map(values, modules, colours())
    left, right = st.columns(2)
    with left, card("Update norm by layer", "adapter-norms"):
        norms = adapter_frames.over_depth(modules, "norm")
        height = spectra.layout.height  # pyright: ignore[reportAttributeAccessIssue] - plotly types no layout
        figure = adapter_figures.norm_lines(norms, colours(), min(height, 520))
        chart(figure, adapter_frames.norms(modules), table, "adapter-norms")
    with right, card("Singular values of the updates", "adapter-spectra"):
        words = adapter_frames.spectra_caption(modules, len(values))
        chart(spectra, words, adapter_frames.spectra_table(modules), "adapter-spectra")
    with st.expander("Open another adapter", icon=":material/upload_file:"):
        _take(folder.name)


def _engines(folder: Path) -> None:
    """Draw how engines read the adapter, and the command that writes it as another engine needs it."""
    readings = check_engines(read_header(folder))
    with card("Engines", "adapter-engines", f"{adapter_frames.engines_headline(readings)}."):
        rows(adapter_frames.engines(readings))
        note(
            "Read off the configuration and the shapes of the tensors, by each engine's source in the version named. "
            "FOLDER is that of the adapter; dynlora check FOLDER says the same on the command line."
        )
