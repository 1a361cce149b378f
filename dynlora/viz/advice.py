"""Ranks and modules that a short look at gradients suggests before training, and the learning rate of a range test."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dynlora.analysis import advice as analysis_advice
from dynlora.analysis import ranks_to_use
from dynlora.analysis.advice import curves_of, mean_curve, suggested_rate
from dynlora.analysis.frames import described
from dynlora.analysis.ranks_to_use import LoraSettings, lora_settings
from dynlora.assets.catalog import MODELS
from dynlora.config import ModelConfig
from dynlora.jobs import advice
from dynlora.jobs.advice import RANKS, RATE, Topic
from dynlora.store.meta import section
from dynlora.store.summary import RunSummary
from dynlora.text import markdown_text, sentence_case
from dynlora.viz.kit import rank_picture, theme
from dynlora.viz.kit.theme import Palette
from dynlora.viz.ui.cards import card, chart, colours, in_row, note, rows, safe, snippets, under
from dynlora.viz.ui.live import announce, fragment, guarded
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
    summary = RunSummary.model_construct(config=config, scaling=answer["scaling"], peft_task_type=answer["task_type"])
    return lora_settings(summary, answer["ranks"])


POLL_S = 1.0
"""Seconds between two questions whether the look is done."""

MADE = "advice-made"
"""Key of the run that was queued from here last."""


NOT_MEASURED = "The default was measured with the built-in models only."
"""What is known of the rate of another model."""


def rate_gain(config: Mapping[str, Any]) -> str:
    """Return what a suggested rate gains over the default with the model of a configuration; empty: nothing."""
    model = MODELS.get(section(config, "model").get("name", ModelConfig.model_fields["name"].default))
    return NOT_MEASURED if model is None else model.rate_gain


BUTTONS = (
    (RATE, ":material/speed:", "advise-rate", "A range test, about a minute: which learning rate to use."),
    (RANKS, ":material/tune:", "advise", "A short look at gradients, about a minute: which modules and ranks to use."),
)
"""Topic, icon, key and what it is, of each button."""


def advise_buttons(config: Mapping[str, Any], missing: str = "") -> None:
    """Draw the buttons that ask which ranks to use and, where it may gain, which learning rate.

    Args:
        config: the configuration, as plain values.
        missing: what has to be given first, in a sentence; the buttons wait for it.
    """
    if is_read_only():
        return
    gain = rate_gain(config)
    for topic, icon, key, about in BUTTONS if gain else BUTTONS[1:]:
        about = f"{about} {gain}" if topic is RATE else about
        pressed = st.button(
            f"Suggest {topic.name}",
            icon=icon,
            key=key,
            disabled=bool(missing),
            help=missing or f"{about} Trains no run.",
        )
        if pressed:
            with guarded():
                advice.ask(config, runs_dir(), topic)


def show_advice(config: Mapping[str, Any], rate_field: str) -> None:
    """Draw the state of the questions for these settings; nothing where none was asked.

    Args:
        config: the configuration, as plain values.
        rate_field: key of the field of the learning rate in the form.
    """
    _show(config, RATE, lambda answer: _draw_rate(answer, rate_field))
    _show(config, RANKS, lambda answer: _draw(answer, config))


def _show(config: Mapping[str, Any], topic: Topic, draw: Callable[[Mapping[str, Any]], None]) -> None:
    job = advice.look(config, runs_dir(), topic)
    if job is None:
        return
    if job.status == "running":
        _running(dict(config), topic)
    elif job.error is not None:
        st.error(markdown_text(job.error.message, 2000))
    elif job.status == "done":
        draw(job.result)


@fragment(run_every=POLL_S)
def _running(config: dict[str, Any], topic: Topic) -> None:
    """Draw how far the look is, again and again, and what cancels it."""
    job = advice.look(config, runs_dir(), topic)
    if job is None or job.status != "running":
        st.rerun()
    done, of, phase = job.progress.done, job.progress.of, job.progress.phase or "loading model and data"
    step = f": step {done} of {of}" if 0 < done < of else ""
    st.progress(done / max(1, of), f"{sentence_case(phase)}{step}")
    if st.button("Cancel", icon=":material/stop:", key=f"cancel-{topic.name}"):
        advice.cancel(config, runs_dir(), topic)
        st.rerun()


def _draw(answer: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Draw the conclusion, what to do next, and the evidence."""
    with card("Suggested ranks", "advice"):
        st.markdown(f"**{safe(analysis_advice.headline(answer))}**")
        note(f"{analysis_advice.confidence(answer)} {analysis_advice.leave_out(answer)}")
        note(analysis_advice.EVIDENCE)
        if not is_read_only():
            with in_row("advice-next"):
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
            note(analysis_advice.layer(row))
        settings = lora_settings_of(answer, config)
        if settings is not None:
            snippets(ranks_to_use.snippets(settings), 250)
        note(analysis_advice.look(answer))


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


# --- the learning rate


def _draw_rate(answer: Mapping[str, Any], field: str) -> None:
    """Draw the conclusion, what puts it into the form, and the evidence."""
    with card("Suggested learning rate", "advice-rate"):
        st.markdown(f"**{safe(analysis_advice.rate_headline(answer))}**")
        note(analysis_advice.rate_confidence(answer))
        note(analysis_advice.RATE_EVIDENCE)
        if answer["rate"] is not None and not is_read_only():
            rate = float(f"{answer['rate']:.3g}")
            with in_row("advice-rate-next"):
                st.button(
                    f"Use {rate:g}", icon=":material/check:", key="advice-use-rate", on_click=_use, args=(field, rate)
                )
        chart(
            rate_picture(answer, colours()), analysis_advice.rate_curve(answer), rate_rows(answer), "advice-rate-curve"
        )
        if line := analysis_advice.rank_capacity(answer):
            note(line)
        note(analysis_advice.rate_look(answer))


def _use(field: str, rate: float) -> None:
    """Put a rate into the form; before it is drawn, so a callback does it."""
    st.session_state[field] = rate
    announce(f"Learning rate: {rate:g}")


def rate_rows(answer: Mapping[str, Any]) -> pd.DataFrame:
    """Return the steps of all tests as a table that people read; with the control where there was one."""
    tables = []
    for test, curve in zip(answer["tests"], curves_of(answer), strict=True):
        table = pd.DataFrame({"seed": test["seed"], "learning rate": curve.rates, "loss (nats)": curve.losses})
        if curve.control:
            table["without adapters (nats)"], table[DIFFERENCE] = curve.control, curve.effect
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


DIFFERENCE = "difference (nats)"
"""Column of the loss less that of the same steps without adapters."""


def rate_picture(answer: Mapping[str, Any], colours: Palette) -> go.Figure:
    """Draw what the adapters do over the rate, smoothed, with the suggested rate and the one that breaks training."""
    drawn = theme.figure(colours, 260)
    steps = rate_rows(answer)
    column = DIFFERENCE if DIFFERENCE in steps else "loss (nats)"
    drawn.add_scatter(
        x=steps["learning rate"],
        y=steps[column],
        mode="markers",
        name="Step",
        marker={"size": 4, "color": theme.faded(colours.accent, 0.35)},
        hovertemplate="rate %{x:.3g}<br>%{y:.4f} nats<extra></extra>",
    )
    curve = mean_curve(curves_of(answer))
    smooth = suggested_rate(curve).smoothed
    drawn.add_scatter(
        x=curve.rates[: len(smooth)],
        y=smooth,
        mode="lines",
        name="Smoothed",
        line={"color": colours.accent, "width": 2},
        hovertemplate="rate %{x:.3g}<br>smoothed %{y:.4f}<extra></extra>",
    )
    for rate, words, colour in (
        (answer["rate"], "suggested", colours.text),
        (answer["breaks"], "breaks", colours.muted),
    ):
        if rate is not None:
            drawn.add_vline(
                x=rate,
                line={"color": colour, "width": 1.4, "dash": "dot"},
                annotation={"text": words, "font": {"size": 11, "color": colour}, "x": math.log10(rate)},
            )
    drawn.update_xaxes(type="log", title_text="Learning rate", exponentformat="power")
    drawn.update_yaxes(title_text="Loss minus that without adapters (nats)" if column == DIFFERENCE else "Loss (nats)")
    return drawn
