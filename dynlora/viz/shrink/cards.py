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

from dynlora.analysis import ranks_to_use, ranks_to_use_text
from dynlora.analysis.measurement_files import compress_target, keep_ranks
from dynlora.analysis.run_summary import ACTIVE
from dynlora.errors import DynloraError
from dynlora.jobs.export import compressed as compressed_file
from dynlora.jobs.export import kept_adapter, recovery_name, recovery_values, usual_steps
from dynlora.store import queries
from dynlora.store.compressions import Compressed, Size
from dynlora.store.recorded import recorded_adapter
from dynlora.store.schema import command_text
from dynlora.text import percent
from dynlora.viz.kit import rank_picture
from dynlora.viz.shrink import model as shrink_model
from dynlora.viz.shrink import pictures as shrink_pictures
from dynlora.viz.shrink import text as shrink_text
from dynlora.viz.ui import cached_queries
from dynlora.viz.ui.cards import card, chart, colours, note, picture, rows, safe, snippets, under
from dynlora.viz.ui.guard import announce, refusal
from dynlora.viz.ui.model_client import in_background
from dynlora.viz.ui.panel_cards import conclusion
from dynlora.viz.ui.run_actions import start_once
from dynlora.viz.ui.run_picker import Chosen, has_model, is_read_only, link, runs_dir
from dynlora.viz.ui.url_state import choose, from_address, put, to_address

ROWS = (256, 512, 1024, 2048)
"""Held-out examples that the sizes can be measured on."""


@dataclass(frozen=True)
class Shown:
    """What the page is about.

    Attributes:
        run: the run.
        summary: as `queries.run_summary` returns it.
        modules: as `kit.modules.described` returns them.
        found: the measured sizes.
        size: the one that is looked at.
        tolerance: nats that count as none.
    """

    run: Chosen
    summary: Mapping[str, Any]
    modules: pd.DataFrame
    found: Compressed
    size: Size
    tolerance: float


def has_adapter(folder: Path) -> int:
    """Say whether an ended run has an adapter, its own or recorded: 2 where its sizes are known, 0 without one."""
    if not has_model(folder) and recorded_adapter(folder) is None:
        return 0
    try:
        summary = cached_queries.ask(queries.run_summary, folder)
        known = shrink_model.measured(folder, summary) is not None
    except (DynloraError, OSError):
        return 0
    return 0 if summary["status"] in ACTIVE else 1 + known


def measured(run: Chosen, summary: Mapping[str, Any]) -> Compressed | None:
    """Return the sizes that were measured of the adapter as it is now, None where there are none to choose from."""
    return shrink_model.measured(run.folder, summary)


def measuring(run: Chosen, found: Compressed | None) -> None:
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
        note(shrink_text.without_adapter(by))
        if by is None:
            link("pages/launch.py", "Train it again", **{"from": run.id})
        return
    size = choose("heldout", "Held-out examples", ROWS, ROWS[1], width=160)
    label = "Measure the sizes" if found is None else "Measure again"
    file = compress_target(run.folder, is_own=run.is_own)
    done = in_background("shrink", label, "sizes measured", run.folder, "compress", file=str(file), rows=int(size))
    if done and st.session_state.get("shrink-seen") != (run.id, len(done), size):
        st.session_state["shrink-seen"] = (run.id, len(done), size)
        st.rerun()


def chosen_size(found: Compressed) -> tuple[Size, float]:
    """Draw the slider of the sizes and the tolerance, and return what they say; first the smallest good enough."""
    sizes = shrink_model.offered(found)
    with st.container(horizontal=True, vertical_alignment="bottom", key="shrink-controls"):
        tolerance = float(
            choose("tolerance", "Tolerance (nats)", shrink_model.TOLERANCES, shrink_model.TOLERANCES[1], width=150)
        )
        best = shrink_model.best(found, tolerance)
        by_parameters = {size.parameters: size for size in sizes}
        options = list(by_parameters)
        current = from_address("size", options, best.parameters)
        put("address-size", current)
        picked = (
            st.select_slider(
                "Parameters kept",
                options,
                key="address-size",
                on_change=_sized,
                format_func=lambda n: percent(shrink_model.kept_share(found, by_parameters[n]), 0),
            )
            if len(options) > 1
            else current
        )
    return by_parameters[picked], tolerance


def _sized() -> None:
    """Write the chosen size into the address."""
    to_address(size=st.session_state["address-size"])


def conclusion_card(shown: Shown) -> None:
    """Draw the result, and what to take along."""
    found, size = shown.found, shown.size
    with conclusion(shrink_text.headline(found, size), shrink_text.basis(found, size, shown.tolerance)):
        if not is_read_only() and has_model(shown.run.folder):
            share = f"{100 * shrink_model.kept_share(found, size):.0f}"
            st.download_button(
                "Download adapter",
                partial(compressed_file, shown.run.folder, size.share, found.rows, found.weighting),
                f"{shown.run.id}-{share}-percent.zip",
                "application/zip",
                key="shrink-download",
                type="primary",
                icon=":material/download:",
                help="Zip file that PEFT loads; made when pressed, which takes a moment.",
            )
            if st.button("Train with these ranks", icon=":material/rocket_launch:", key="shrink-train"):
                _train(shown, ranks=True)
            steps = _recovery_steps(shown)
            if st.button(
                f"Recover with {steps:,} steps",
                icon=":material/healing:",
                key="shrink-recover",
                help="Queue a run that starts from this adapter: its weights and its head, with the run's own data, "
                "seed and settings.",
            ):
                _recover(shown, steps)
            if st.button("Train a uniform baseline", key="shrink-baseline", type="tertiary"):
                _train(shown, ranks=False)
        with st.popover("Command line", icon=":material/terminal:", type="tertiary", key="shrink-command"):
            st.code(_commands(shown), language="bash", wrap_lines=True)


def _commands(shown: Shown) -> str:
    """Return the commands that do the same; a sample is only to be read, so no run is queued beside it."""
    out, folder = f"{shown.run.id}-small", shown.run.folder
    size = ["--budget", f"{shown.size.share:g}", "--rows", str(shown.found.rows), "--weighting", shown.found.weighting]
    compress = ["dynlora", "compress", shown.run.id, *size, "--runs-dir", str(folder.parent)]
    ranks = shrink_model.values_text({"strategy": "{name: lora, ranks_from: " + out + "}"})
    commands = [[*compress, "--out", out], ["dynlora", "train", "--config", str(folder / "config.yaml"), *ranks]]
    if shown.run.is_own:
        commands.append([*compress, "--recover", str(_recovery_steps(shown))])
    return "\n".join(map(shlex.join, commands))


def _recovery_steps(shown: Shown) -> int:
    """Return how many steps a run that starts from the adapter is given."""
    return usual_steps(int(shown.summary["max_steps"] or 0))


def _train(shown: Shown, *, ranks: bool) -> None:
    """Queue plain LoRA with the kept ranks, or with one rank and about as many parameters; the scaling stays."""
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in shown.summary["config"].items()}
    adapter = config.get("adapter") or {}
    if ranks:
        ranks_of = shown.found.ranks_of(shown.size)
        path = keep_ranks(shown.run.folder, ranks_of, shown.size.parameters, is_own=shown.run.is_own)
        config["strategy"] = {"name": "lora", "ranks_from": str(path)}
        title = f"lora, ranks of {shown.summary['name']}"
    else:
        rank, before = shrink_model.uniform_rank(shown.size, shown.modules), int(adapter.get("rank") or 1)
        alpha = float(adapter.get("alpha") or 2 * before) * rank / before
        config["strategy"], config["adapter"] = {"name": "lora"}, {**adapter, "rank": rank, "alpha": alpha}
        title = f"lora, rank {rank}"
    config["name"] = f"{title}, {shown.size.parameters:,} parameters"[:200]
    _queue(config)


def _recover(shown: Shown, steps: int) -> None:
    """Queue a run that starts from the adapter at this size; the adapter is written first."""
    try:
        with st.spinner("Writing the adapter"):
            place = kept_adapter(shown.run.folder, shown.found, shown.size, runs_dir())
    except (DynloraError, OSError) as error:
        st.error(refusal(error))
        return
    name = recovery_name(shown.summary["name"], shrink_model.kept_share(shown.found, shown.size), steps)
    _queue(recovery_values(shown.summary["config"], place, steps, name))


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


def curve_card(shown: Shown) -> None:
    """Draw the cost of every size, and of the other ways to choose at this one."""
    with card("Loss by size", "shrink-curve"):
        picture(shrink_pictures.curve(shown.found, shown.size, shown.tolerance, colours()), "shrink-curve")
        near = shrink_model.compared_share(shown.found, shown.size.share)
        if near is not None:
            st.markdown(f"**Ways to choose, at {safe(percent(near, 0))} of the parameters**")
            rows(shrink_model.compared(shown.found, near).round(4))


def picture_card(shown: Shown) -> None:
    """Draw the model at the chosen size."""
    with card("Where rank stays", "shrink-picture"):
        pattern = shrink_model.pattern(shown.found, shown.size, shown.modules)
        if pattern.empty:
            note("The modules of this run are outside of layers.")
            return
        ranks = pd.DataFrame({"module": shown.found.modules, "rank": shown.size.ranks})
        chart(rank_picture.model_picture(pattern, colours()), shrink_text.picture(shown.size), ranks, "shrink-model")
        kinds = shrink_model.by_kind(shown.found, shown.size, shown.modules)
        rows(kinds.assign(kept=[percent(share, 0) for share in kinds["kept"]]).round(2))


def config_card(shown: Shown) -> None:
    """Draw the ranks as a LoraConfig, and as settings of a run."""
    settings = ranks_to_use.lora_settings(shown.summary, shown.found.ranks_of(shown.size))
    if settings is None:
        return
    with card("Ranks for other trainers", "shrink-config"):
        snippets(ranks_to_use_text.snippets(settings), 300)
        kept = shown.found.ranks_of(shown.size)
        frame = pd.DataFrame({"module": list(kept), "rank": list(kept.values())})
        under("Ranks by module; as settings of dynlora: strategy.ranks_from.", frame, "shrink-ranks")
