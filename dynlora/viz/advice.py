"""Ranks and modules that a short look at gradients suggests before training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from dynlora.analysis import advice_text as text
from dynlora.analysis import ranks_to_use_text
from dynlora.analysis.frames import described
from dynlora.analysis.ranks_to_use import LoraSettings, lora_settings
from dynlora.jobs import advice
from dynlora.text import markdown_text, sentence_case
from dynlora.viz.kit import rank_picture
from dynlora.viz.ui.cards import card, chart, colours, note, rows, safe, snippets, under
from dynlora.viz.ui.guard import announce, fragment, guarded
from dynlora.viz.ui.run_actions import start_once
from dynlora.viz.ui.run_picker import is_read_only, link, runs_dir


def module_rows(answer: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row for each module, as `analysis.frames.described` returns them, with gain_share and rank."""
    frame = pd.DataFrame(answer["modules"])
    return described(frame.assign(layer=frame["layer"].astype(float)))


def family_rows(answer: Mapping[str, Any]) -> pd.DataFrame:
    """Return the families as a table that people read, the largest gain per parameter first."""
    return pd.DataFrame(
        [
            {
                "family": row["name"],
                "modules": row["modules"],
                "mean rank": round(row["mean_rank"], 2),
                "parameters (%)": round(100 * row["parameters_share"], 1),
                "predicted gain (%)": round(100 * row["gain_share"], 1),
                "gain per parameter": round(row["gain_per_parameter"], 2),
                "from": round(row["low"], 2),
                "to": round(row["high"], 2),
                "may be left out": "yes" if row["can_go"] else "no",
            }
            for row in answer["families"]
        ]
    )


def rank_rows(answer: Mapping[str, Any]) -> pd.DataFrame:
    """Return the modules as a table that people read."""
    frame = module_rows(answer)
    return pd.DataFrame(
        {
            "module": frame["short"],
            "name": frame["name"],
            "rank": frame["rank"],
            "predicted gain (%)": (100 * frame["gain_share"]).round(2),
        }
    )


def lora_settings_of(answer: Mapping[str, Any], config: Mapping[str, Any]) -> LoraSettings | None:
    """Return the suggested ranks as PEFT's `LoraConfig` takes them.

    Args:
        answer: the advice.
        config: that it was asked for, as plain values.
    """
    summary = {"config": config, "scaling": answer["scaling"], "peft_task_type": answer["task_type"]}
    return lora_settings(summary, answer["ranks"])


POLL_S = 1.0
"""Seconds between two questions whether the look is done."""

MADE = "advice-made"
"""Key of the run that was queued from here last."""


def advise_button(config: Mapping[str, Any], missing: str = "") -> None:
    """Draw the button that asks which ranks to use.

    Args:
        config: the configuration, as plain values.
        missing: what has to be given first, in a sentence; the button waits for it.
    """
    if is_read_only():
        return
    pressed = st.button(
        "Suggest ranks",
        icon=":material/tune:",
        key="advise",
        disabled=bool(missing),
        help=missing or "A short look at gradients, about a minute: which modules and ranks to use. Trains no run.",
    )
    if pressed:
        with guarded():
            advice.ask(config, runs_dir())


def show_advice(config: Mapping[str, Any]) -> None:
    """Draw the state of the question for these settings; nothing where none was asked."""
    job = advice.look(config, runs_dir())
    if job is None:
        return
    if job.status == "running":
        _running(dict(config))
    elif job.error is not None:
        st.error(markdown_text(job.error.message, 2000))
    elif job.status == "done":
        _draw(job.result, config)


@fragment(run_every=POLL_S)
def _running(config: dict[str, Any]) -> None:
    """Draw how far the look is, again and again, and what cancels it."""
    job = advice.look(config, runs_dir())
    if job is None or job.status != "running":
        st.rerun()
    done, of, phase = job.progress.done, job.progress.of, job.progress.phase or "loading model and data"
    step = f": step {done} of {of}" if 0 < done < of else ""
    st.progress(done / max(1, of), f"{sentence_case(phase)}{step}")
    if st.button("Cancel", icon=":material/stop:", key="advise-cancel"):
        advice.cancel(config, runs_dir())
        st.rerun()


def _draw(answer: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Draw the conclusion, what to do next, and the evidence."""
    with card("Suggested ranks", "advice"):
        st.markdown(f"**{safe(text.headline(answer))}**")
        note(f"{text.confidence(answer)} {text.leave_out(answer)}")
        note(text.EVIDENCE)
        if not is_read_only():
            with st.container(horizontal=True, vertical_alignment="center", key="advice-next"):
                if st.button("Train with these ranks", icon=":material/rocket_launch:", key="advice-train"):
                    file = advice.answer_file(config, runs_dir())
                    _train(config, {"name": "lora", "ranks_from": str(file)}, "suggested ranks")
                if st.button("Train a uniform baseline", key="advice-baseline", type="tertiary"):
                    _train(config, {"name": "lora"}, f"rank {answer['uniform_rank']}")
                if made := st.session_state.get(MADE):
                    link("pages/run.py", "Open the run that was queued", run=made)
        _picture(answer)
        rows(family_rows(answer))
        for row in answer["layers"]:
            note(text.layer(row))
        settings = lora_settings_of(answer, config)
        if settings is not None:
            snippets(ranks_to_use_text.snippets(settings), 250)
        note(text.look(answer))


def _picture(answer: Mapping[str, Any]) -> None:
    """Draw the rank of each module; the modules as a table where they are outside of layers."""
    modules, table = module_rows(answer), rank_rows(answer)
    pattern = rank_picture.pattern(answer["ranks"], modules)
    if pattern.empty:
        under("The modules are outside of layers.", table, "advice-ranks")
        return
    caption = f"Suggested rank of each module; {answer['parameters']:,} of {answer['budget']:,} parameters."
    chart(rank_picture.model_picture(pattern, colours()), caption, table, "advice-model")


def _train(config: Mapping[str, Any], strategy: dict[str, Any], words: str) -> None:
    """Queue plain LoRA with these settings."""
    made = start_once({**config, "strategy": strategy, "name": f"lora, {words}"}, f"advice-{words}")
    if made is None:
        return
    announce(f"Queued: lora, {words}")
    st.session_state[MADE] = made.id
    st.rerun()
