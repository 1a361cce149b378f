"""Whole recycles as `dynlora recycle` makes them, one a seed: what another draw of inputs and episodes changes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from scipy import stats

from benchmarks import results
from benchmarks.recycle.setting import MODULE, SHOTS
from benchmarks.recycle.work import Work
from dynlora.cli.kinds import worked_on

PARTS = ("accuracy", "against_base", "against_averaged", "test")
"""What is kept of the results of a run."""


def repeat(work: Work, file: str) -> None:
    """Make a recycle with each seed from the same teachers, and write what it gains, by seed and over seeds."""
    seeds = {str(seed): _recycled(work, seed) for seed in range(work.setting.seeds)}
    over_seeds = {
        part: {str(shots): over([run[part]["meta"][str(shots)]["mean"] for run in seeds.values()]) for shots in SHOTS}
        for part in ("against_base", "against_averaged")
    }
    print(json.dumps(over_seeds, indent=2))
    results.write(f"{file}-seeds", {"seeds": seeds, "over_seeds": over_seeds}, MODULE)


def over(gains: list[float]) -> list[float]:
    """Return the mean over seeds and the ends of its 95 % interval by Student's t; the mean alone of one seed."""
    mean = float(np.mean(gains))
    if len(gains) < 2:
        return [mean]
    half = float(stats.t.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / len(gains) ** 0.5)
    return [mean, mean - half, mean + half]


def _recycled(work: Work, seed: int) -> dict[str, Any]:
    """Return the results of the recycle with a seed, which is made where it is not there yet."""
    place = work.folder / f"whole, seed {seed}.json"
    if not place.exists():
        test = work.folder / "unseen.csv"
        rows = work.intents.test
        rows[rows["label"].isin(work.intents.unseen)][["text", "label"]].to_csv(test, index=False)
        settings = work.settings(seed=seed, noise=True, test=str(test), test_episodes=work.setting.test_episodes)
        document, words, code = worked_on(settings, work.folder / "runs")
        if code:
            raise SystemExit(words)
        place.write_text(json.dumps({part: document[part] for part in PARTS}), "utf-8")
    return json.loads(place.read_text("utf-8"))
