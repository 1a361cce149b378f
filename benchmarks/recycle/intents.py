"""Texts by intent: those that teachers learn, and those that nobody trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.recycle.setting import Setting
from dynlora import assets


@dataclass
class Intents:
    """Texts by intent: those that teachers learn, and those of the test."""

    train: pd.DataFrame
    test: pd.DataFrame
    taught: list[str]
    unseen: list[str]

    @classmethod
    def of(cls, folder: Path | None, setting: Setting) -> Intents:
        """Read CLINC150; without it sentiment4, whose classes are domain and sentiment."""
        if folder is not None:
            train, test = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "test"))
        else:
            train = test = _domains()
        order = np.random.default_rng(0).permutation(sorted(train["label"].unique()))
        return cls(train, test, list(order[setting.test_classes :]), sorted(order[: setting.test_classes]))


def _domains() -> pd.DataFrame:
    """Return sentiment4 with its domain and sentiment as one label."""
    file = next(path for path in assets.resolve_data("sentiment4").iterdir() if path.stem == "train")
    rows = pd.read_csv(file) if file.suffix == ".csv" else pd.read_parquet(file)
    rows["label"] = rows["domain"].astype(str) + " " + rows["label"].astype(str)
    return rows.groupby("label").head(60).reset_index(drop=True)
