"""Advice as tables; plain values in, pandas out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dynlora.analysis.modules import described
from dynlora.analysis.ranks_to_use import LoraSettings, lora_settings


def modules(answer: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row for each module, as `kit.modules.described` returns them, with gain_share and rank."""
    frame = pd.DataFrame(answer["modules"])
    return described(frame.assign(layer=frame["layer"].astype(float)))


def families(answer: Mapping[str, Any]) -> pd.DataFrame:
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


def ranks(answer: Mapping[str, Any]) -> pd.DataFrame:
    """Return the modules as a table that people read."""
    frame = modules(answer)
    return pd.DataFrame(
        {
            "module": frame["short"],
            "name": frame["name"],
            "rank": frame["rank"],
            "predicted gain (%)": (100 * frame["gain_share"]).round(2),
        }
    )


def settings(answer: Mapping[str, Any], config: Mapping[str, Any]) -> LoraSettings | None:
    """Return the suggested ranks as PEFT's `LoraConfig` takes them.

    Args:
        answer: the advice.
        config: that it was asked for, as plain values.
    """
    summary = {"config": config, "scaling": answer["scaling"], "peft_task_type": answer["task_type"]}
    return lora_settings(summary, answer["ranks"])
