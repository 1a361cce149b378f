"""What a merge says, as frames: loss by source and model, ranks by module, the sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from dynlora.kinds.merge.result import BASE, MERGE, OWN, Loss, Merge

MODELS = {MERGE: "Merge", OWN: "Its own adapter", BASE: "Base model"}
"""What each model is called, in the order in which they are shown."""

COLUMNS = ["data of", "model", "mean", "low", "high", "examples"]


def source_names(merge: Merge) -> dict[str, str]:
    """Return what each source is called, by its run; equal names get the end of the run's id."""
    times = Counter(source.name for source in merge.sources)
    return {one.run: one.name if times[one.name] == 1 else f"{one.name} ({one.run[-4:]})" for one in merge.sources}


def row_of(rows: Sequence[Loss], source: str, model: str = MERGE) -> Loss | None:
    """Return the row of a source and a model; None where it was not measured."""
    return next((row for row in rows if (row.source, row.model) == (source, model)), None)


def loss_frame(merge: Merge) -> pd.DataFrame:
    """Return the losses: columns data of, model, mean, low, high, examples; the sources in order."""
    names = source_names(merge)
    rows = [
        [names[source], label, row.mean, row.low, row.high, row.n]
        for source in names
        for model, label in MODELS.items()
        if (row := row_of(merge.loss, source, model)) is not None
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def difference_frame(merge: Merge) -> pd.DataFrame:
    """Return the paired differences of the merge's loss: columns data of, against, difference, low, high, examples."""
    names = source_names(merge)
    rows = [
        [names[source], MODELS[model], row.mean, row.low, row.high, row.n]
        for source in names
        for model, differences in ((OWN, merge.against_own), (BASE, merge.against_base))
        if (row := row_of(differences, source)) is not None
    ]
    return pd.DataFrame(rows, columns=["data of", "against", "difference", "low", "high", "examples"])


def ranks_frame(merge: Merge) -> pd.DataFrame:
    """Return the rank of each module: columns module, Merge, and one for each source by its name."""
    names = list(source_names(merge).values())
    rows = [[one.module, one.merge, *one.sources] for one in merge.ranks if len(one.sources) == len(names)]
    return pd.DataFrame(rows, columns=["module", MODELS[MERGE], *names])


def sources_frame(merge: Merge) -> pd.DataFrame:
    """Return the sources: columns source, strategy, rank, weight, run."""
    weights = merge.weights if len(merge.weights) == len(merge.sources) else (None,) * len(merge.sources)
    rows = [
        [one.name, one.strategy, one.rank, weight, one.run] for one, weight in zip(merge.sources, weights, strict=True)
    ]
    return pd.DataFrame(rows, columns=["source", "strategy", "rank", "weight", "run"])
