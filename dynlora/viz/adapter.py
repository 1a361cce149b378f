"""An adapter that somebody brings along, on the Capacity page: its two files are sent, its ranks and norms are seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dynlora.analysis import adapter_frames
from dynlora.jobs import uploads
from dynlora.peft_adapter import Adapter, read_adapter
from dynlora.peft_adapter.engines import check_engines
from dynlora.peft_adapter.read import read_header
from dynlora.text import number, one_line, plotly_text, sentence_case
from dynlora.viz.kit import theme
from dynlora.viz.kit.module_map import MapView, colour_of, label_rows, row_edges, with_gaps
from dynlora.viz.kit.theme import Palette
from dynlora.viz.ui.cards import card, chart, colours, figures, note, rows, titled
from dynlora.viz.ui.live import guarded
from dynlora.viz.ui.run_picker import is_read_only, link, runs_dir
from dynlora.viz.ui.url_state import segmented, to_address

NAMED_CELLS = 400
"""Most cells of a map whose numbers are written into them."""


def depth_map(grid: pd.DataFrame, title: str, unit: str, colours: Palette) -> go.Figure:
    """Draw a number of each module over depth and kind.

    Args:
        grid: kinds by layers, as `adapter_spectra.over_depth` returns it.
        title: what the number is.
        unit: its unit.
        colours: of the mode.
    """
    values = grid.to_numpy(float)
    drawn = theme.figure(colours, int(np.clip(120 + 34 * len(grid), 190, 760)), left=78)
    drawn.add_heatmap(
        z=values,
        x=list(range(grid.shape[1])),
        y=list(range(len(grid))),
        xgap=2,
        ygap=2,
        hoverongaps=False,
        customdata=[[[_place(kind, layer)] for layer in grid.columns] for kind in grid.index],
        hovertemplate=f"%{{customdata[0]}}<br>{plotly_text(title)} %{{z:.4~g}}<extra></extra>",
        **colour_of(grid, MapView(title, unit), colours, 1.0),
    )
    if values.size <= NAMED_CELLS and grid.shape[1] <= 16:
        words = [[number(cell) if np.isfinite(cell) else "" for cell in row] for row in values.tolist()]
        drawn.update_traces(text=words, texttemplate="%{text}")
    ticks = {"tickmode": "array", "showgrid": False}
    layers = [plotly_text(name, 12) for name in grid.columns]
    every = max(1, len(layers) // 24)
    drawn.update_xaxes(**ticks, tickvals=list(range(0, len(layers), every)), ticktext=layers[::every])
    drawn.update_xaxes(title_text="Layer")
    drawn.update_yaxes(
        **ticks,
        tickvals=list(range(len(grid))),
        ticktext=[plotly_text(kind, 24) for kind in grid.index],
        autorange="reversed",
    )
    return drawn


def _place(kind: object, layer: object) -> str:
    word = str(layer)
    return plotly_text(f"{kind}, {f'layer {word}' if word.isdigit() else word}")


def norm_lines(grid: pd.DataFrame, colours: Palette, height: int = 300) -> go.Figure:
    """Draw the norm of the update over depth, a line for each kind; `grid` as in `depth_map`, `height` in pixels."""
    drawn = theme.figure(colours, height)
    places = list(range(grid.shape[1]))
    for kind, (colour, symbol, dash) in theme.kind_styles([str(kind) for kind in grid.index]).items():
        drawn.add_scatter(
            x=places,
            y=grid.loc[kind],
            mode="lines+markers",
            name=plotly_text(kind, 24),
            connectgaps=False,
            line={"color": colour, "width": 1.6, "dash": dash},
            marker={"symbol": symbol, "size": 7},
            hovertemplate="%{fullData.name}, layer %{x}<br>norm %{y:.4~g}<extra></extra>",
        )
    drawn.update_layout(showlegend=len(grid) <= 16)
    every = max(1, len(places) // 24)
    layers = [plotly_text(name, 12) for name in grid.columns]
    drawn.update_xaxes(title_text="Layer", tickmode="array", tickvals=places[::every], ticktext=layers[::every])
    drawn.update_yaxes(title_text="Frobenius norm of the update", rangemode="tozero")
    return drawn


def spectra_map(values: pd.DataFrame, modules: pd.DataFrame, colours: Palette) -> go.Figure:
    """Draw the singular values of each module's update, the largest on the left.

    Args:
        values: as `adapter_spectra.spectra` returns them.
        modules: as `adapter_spectra.described` returns them.
        colours: of the mode.
    """
    visible = modules.head(len(values)).assign(group=modules["label"], side="")
    edges, centres = row_edges(visible["group"])
    drawn = theme.figure(colours, int(np.clip(150 + 10.5 * len(visible), 260, 900)), left=78)
    drawn.add_heatmap(
        z=with_gaps(values.to_numpy(float), visible["group"]),
        x=list(values.columns),
        y=edges,
        xgap=1,
        ygap=0.6,
        hoverongaps=False,
        hovertemplate="%{y}<br>component %{x}<br>singular value %{z:.4~g}<extra></extra>",
        **colour_of(values, MapView("singular value"), colours),
    )
    label_rows(drawn, visible, centres, colours)
    drawn.update_yaxes(range=[edges[-1], edges[0]], showgrid=False)
    drawn.update_xaxes(
        title_text="Component (largest first)", showgrid=False, dtick=1 if len(values.columns) < 13 else None
    )
    return drawn


ADDRESS = "adapter"
"""Name in the address: the digest of an adapter that was sent, or `SEND`."""

SEND = "send"
"""Asks for the page that takes the files."""


def adapter_link() -> None:
    """Draw the link to where an adapter folder is opened; the address keeps the run, for the way back."""
    if not is_read_only():
        link("pages/capacity.py", "Open another adapter", **_run(), **{ADDRESS: SEND})


def _run() -> dict[str, str]:
    run = st.query_params.get("run") or st.session_state.get("last_run")
    return {"run": run} if run else {}


def adapter_in_address() -> bool:
    """Say whether the address asks for an adapter instead of a run."""
    return ADDRESS in st.query_params


def adapter_view() -> None:
    """Draw the adapter in the address, or what takes the files of one, then end the page."""
    adapter_id = st.query_params.get(ADDRESS, "")
    with guarded():
        folder = uploads.find_adapter(runs_dir(), adapter_id)
        if folder is None:
            _none_yet(adapter_id)
        else:
            _show(folder)
    with st.container(horizontal=True, gap="small"):
        link("pages/capacity.py", "Capacity of a run", **_run())
        link("pages/tour.py", "Tour: what is rank")
    st.stop()


def _none_yet(adapter_id: str) -> None:
    """Ask for the files of an adapter."""
    titled("Open adapter", "Ranks, norms and spectra of any PEFT LoRA or AdaLoRA adapter.")
    if adapter_id != SEND:
        st.warning("There is no adapter at this address. Upload its two files again.")
    _take(adapter_id)
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
        numbers = {name: sentence_case(title) for name, (title, _) in adapter_frames.NUMBERS.items()}
        column = segmented("number", "Value shown", numbers, "rank")
        title, unit = adapter_frames.NUMBERS[column]
        grid = adapter_frames.over_depth(modules, column)
        words = adapter_frames.depth_caption(modules, column, title)
        chart(depth_map(grid, title, unit, colours()), words, table, f"adapter-{column}")
    values = adapter_frames.spectra(modules)
    spectra = spectra_map(values, modules, colours())
    left, right = st.columns(2)
    with left, card("Update norm by layer", "adapter-norms"):
        norms = adapter_frames.over_depth(modules, "norm")
        height = spectra.layout.height  # pyright: ignore[reportAttributeAccessIssue] - plotly types no layout
        figure = norm_lines(norms, colours(), min(height, 520))
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
