"""The cards of the Shrink page: the size to keep, what it costs, where rank stays, and what to take along."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import ranks_to_use
from dynlora.analysis.retention import compress_target, keep_ranks
from dynlora.analysis.run_summary import ACTIVE
from dynlora.errors import DynloraError
from dynlora.jobs.export import compressed as compressed_file
from dynlora.jobs.export import kept_adapter, recovery_name, recovery_values, usual_steps
from dynlora.kinds.train.panels import measured as viz_measured
from dynlora.store import queries
from dynlora.store.measurements import Compressed, Size
from dynlora.store.schema import command_text
from dynlora.store.summary import RunSummary, recorded_adapter
from dynlora.text import percent
from dynlora.viz.kit import rank_picture
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import (
    card,
    chart,
    colours,
    command_popover,
    in_row,
    note,
    picture,
    rows,
    safe,
    snippets,
    under,
)
from dynlora.viz.ui.live import announce, refusal
from dynlora.viz.ui.model_client import in_background
from dynlora.viz.ui.panel_cards import conclusion
from dynlora.viz.ui.run_actions import start_once
from dynlora.viz.ui.run_picker import Chosen, has_model, is_read_only, link, runs_dir
from dynlora.viz.ui.url_state import choose, slide

ROWS = (256, 512, 1024, 2048)
"""Held-out examples that the sizes can be measured on."""


@dataclass(frozen=True)
class Shown:
    """What the page is about.

    Attributes:
        run: the run.
        summary: as `queries.run_summary` returns it.
        modules: as `analysis.frames.described` returns them.
        compressed: the measured sizes.
        size: the one that is looked at.
        tolerance: nats that count as none.
    """

    run: Chosen
    summary: RunSummary
    modules: pd.DataFrame
    compressed: Compressed
    size: Size
    tolerance: float


def has_adapter(folder: Path) -> int:
    """Say whether an ended run has an adapter, its own or recorded: 2 where its sizes are known, 0 without one."""
    if not has_model(folder) and recorded_adapter(folder) is None:
        return 0
    try:
        summary = cached_queries.ask(queries.run_summary, folder)
        known = viz_measured.measured(folder, summary) is not None
    except (DynloraError, OSError):
        return 0
    return 0 if summary.status in ACTIVE else 1 + known


def measured(run: Chosen, summary: RunSummary) -> Compressed | None:
    """Return the sizes that were measured of the adapter as it is now, None where there are none to choose from."""
    return viz_measured.measured(run.folder, summary)


def measuring(run: Chosen, result: Compressed | None) -> None:
    """Draw what measures the sizes, and how far it has come."""
    if recorded_adapter(run.folder):
        command = command_text("compress", run.id, "--curve", "--set", "data.path=FILE", runs_dir=run.folder.parent)
        note(
            "This run was recorded, so its dataset is not available. Measure its sizes on the command line, with the "
            f"rows that it was evaluated on: `{command}`"
        )
        return
    if is_read_only():
        note("This dashboard is read-only. No new measurement is possible.")
        return
    if not has_model(run.folder):
        by = cached_queries.ask(queries.recorded_by, run.folder)
        note(viz_measured.without_adapter(by))
        if by is None:
            link("pages/launch.py", "Train it again", **{"from": run.id})
        return
    size = choose("heldout", "Held-out examples", ROWS, ROWS[1], width=160)
    label = "Measure the sizes" if result is None else "Measure again"
    file = compress_target(run.folder, is_own=run.is_own)
    done = in_background("shrink", label, "sizes measured", run.folder, "compress", file=str(file), rows=int(size))
    if done and st.session_state.get("shrink-seen") != (run.id, len(done), size):
        st.session_state["shrink-seen"] = (run.id, len(done), size)
        st.rerun()


def chosen_size(result: Compressed) -> tuple[Size, float]:
    """Draw the slider of the sizes and the tolerance, and return what they say; first the smallest good enough."""
    sizes = viz_measured.offered(result)
    with in_row("shrink-controls", "bottom"):
        tolerance = float(
            choose("tolerance", "Tolerance (nats)", viz_measured.TOLERANCES, viz_measured.TOLERANCES[1], width=150)
        )
        best = viz_measured.best(result, tolerance)
        by_parameters = {size.parameters: size for size in sizes}
        shares = {n: percent(viz_measured.kept_share(result, size), 0) for n, size in by_parameters.items()}
        picked = slide("size", "Parameters kept", list(shares), best.parameters, shares.__getitem__)
    return by_parameters[picked], tolerance


def conclusion_card(view: Shown) -> None:
    """Draw the result, and what to take along."""
    result, size = view.compressed, view.size
    with conclusion(viz_measured.headline(result, size), viz_measured.basis(result, size, view.tolerance)):
        if not is_read_only() and has_model(view.run.folder):
            share = f"{100 * viz_measured.kept_share(result, size):.0f}"
            st.download_button(
                "Download adapter",
                partial(compressed_file, view.run.folder, size.share, result.rows, result.weighting),
                f"{view.run.id}-{share}-percent.zip",
                "application/zip",
                key="shrink-download",
                type="primary",
                icon=":material/download:",
                help="Zip file that PEFT loads; made when pressed, which takes a moment.",
            )
            if st.button("Train with these ranks", icon=":material/rocket_launch:", key="shrink-train"):
                _train(view, ranks=True)
            steps = _recovery_steps(view)
            if st.button(
                f"Recover with {steps:,} steps",
                icon=":material/healing:",
                key="shrink-recover",
                help="Queue a run that starts from this adapter: its weights and its head, with the run's own data, "
                "seed and settings.",
            ):
                _recover(view, steps)
            if st.button("Train a uniform baseline", key="shrink-baseline", type="tertiary"):
                _train(view, ranks=False)
        command_popover(_commands(view), "shrink-command")


def _commands(view: Shown) -> str:
    """Return the commands that do the same; a sample is only to be read, so no run is queued beside it."""
    out, folder = f"{view.run.id}-small", view.run.folder
    examples, weighting = view.compressed.rows, view.compressed.weighting
    size = ["--budget", f"{view.size.share:g}", "--rows", str(examples), "--weighting", weighting]
    compress = ["dynlora", "compress", view.run.id, *size, "--runs-dir", str(folder.parent)]
    ranks = viz_measured.values_text({"strategy": "{name: lora, ranks_from: " + out + "}"})
    commands = [[*compress, "--out", out], ["dynlora", "train", "--config", str(folder / "config.yaml"), *ranks]]
    if view.run.is_own:
        commands.append([*compress, "--recover", str(_recovery_steps(view))])
    return "\n".join(map(shlex.join, commands))


def _recovery_steps(view: Shown) -> int:
    """Return how many steps a run that starts from the adapter is given."""
    return usual_steps(view.summary.max_steps)


def _train(view: Shown, *, ranks: bool) -> None:
    """Queue plain LoRA with the kept ranks, or with one rank and about as many parameters; the scaling stays."""
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in view.summary.config.items()}
    adapter = config.get("adapter") or {}
    if ranks:
        ranks_of = view.compressed.ranks_of(view.size)
        path = keep_ranks(view.run.folder, ranks_of, view.size.parameters, is_own=view.run.is_own)
        config["strategy"] = {"name": "lora", "ranks_from": str(path)}
        title = f"lora, ranks of {view.summary.name}"
    else:
        rank, before = viz_measured.uniform_rank(view.size, view.modules), int(adapter.get("rank") or 1)
        alpha = float(adapter.get("alpha") or 2 * before) * rank / before
        config["strategy"], config["adapter"] = {"name": "lora"}, {**adapter, "rank": rank, "alpha": alpha}
        title = f"lora, rank {rank}"
    config["name"] = f"{title}, {view.size.parameters:,} parameters"[:200]
    _queue(config)


def _recover(view: Shown, steps: int) -> None:
    """Queue a run that starts from the adapter at this size; the adapter is written first."""
    try:
        with st.spinner("Writing the adapter"):
            place = kept_adapter(view.run.folder, view.compressed, view.size, runs_dir())
    except (DynloraError, OSError) as error:
        st.error(refusal(error))
        return
    name = recovery_name(view.summary.name, viz_measured.kept_share(view.compressed, view.size), steps)
    _queue(recovery_values(view.summary.config, place, steps, name))


def _queue(config: Mapping[str, Any]) -> None:
    """Queue a run and remember it for the link."""
    made = start_once(config, "shrink")
    if made is None:
        return
    announce("Queued: " + config["name"])
    st.session_state["shrink-made"] = made.id
    st.rerun()


def launched_link() -> None:
    """Draw the link to the run that was queued from here last."""
    if made := st.session_state.get("shrink-made"):
        link("pages/run.py", "Open the run that was queued", run=made)


def curve_card(view: Shown) -> None:
    """Draw the cost of every size, and of the other ways to choose at this one."""
    with card("Loss by size", "shrink-curve"):
        picture(viz_measured.curve_picture(view.compressed, view.size, view.tolerance, colours()), "shrink-curve")
        near = viz_measured.compared_share(view.compressed, view.size.share)
        if near is not None:
            st.markdown(f"**Ways to choose, at {safe(percent(near, 0))} of the parameters**")
            rows(viz_measured.compared(view.compressed, near).round(4))


def picture_card(view: Shown) -> None:
    """Draw the model at the chosen size."""
    with card("Where rank stays", "shrink-picture"):
        pattern = viz_measured.pattern(view.compressed, view.size, view.modules)
        if pattern.empty:
            note("The modules of this run are outside of layers.")
            return
        ranks = pd.DataFrame({"module": view.compressed.modules, "rank": view.size.ranks})
        chart(rank_picture.model_picture(pattern, colours()), viz_measured.picture(view.size), ranks, "shrink-model")
        kinds = viz_measured.by_kind(view.compressed, view.size, view.modules)
        rows(kinds.assign(kept=[percent(share, 0) for share in kinds["kept"]]).round(2))


def config_card(view: Shown) -> None:
    """Draw the ranks as a LoraConfig, and as settings of a run."""
    settings = ranks_to_use.lora_settings(view.summary, view.compressed.ranks_of(view.size))
    if settings is None:
        return
    with card("Ranks for other trainers", "shrink-config"):
        snippets(ranks_to_use.snippets(settings), 300)
        ranks = view.compressed.ranks_of(view.size)
        frame = pd.DataFrame({"module": list(ranks), "rank": list(ranks.values())})
        under("Ranks by module. A dynlora run takes them as strategy.ranks_from.", frame, "shrink-ranks")
