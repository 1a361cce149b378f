"""The part of a run's report about the ablation of its modules, for runs where somebody measured it."""

from __future__ import annotations

from functools import partial

import pandas as pd

from dynlora.analysis import ablations
from dynlora.analysis.run_reading import RunReading
from dynlora.store.run import module_scores
from dynlora.viz.knockout import figures as knockout_figures
from dynlora.viz.report.document import Block, Chart, Part, Table

TITLE = "Module ablation"


def knockouts_part(run: RunReading) -> Part:
    """Return the loss change without each module, and how well recorded scores predict it."""
    found = None if run.modules.empty else ablations.kept(run.folder)
    effect = ablations.effects(found, run.modules)
    if found is None or effect.empty:
        return Part(TITLE, [])
    words = ablations.effect_caption(effect, len(run.modules), found.rows)
    drawn = partial(knockout_figures.effect_bars, effect)
    title = "Module ablation"
    blocks: list[Block] = [Chart(title, drawn, words, _table(effect), is_wide=True)]
    return Part(TITLE, [*blocks, *_agreements(run, effect)], [ablations.adapter_caption(found, run.summary["step"])])


def _table(effect: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers behind the chart of effects, with names that need no page beside them."""
    return pd.DataFrame(
        {
            "module": effect["short"], "loss change (nats)": effect["delta"], "low": effect["low"],
            "high": effect["high"], "changed predictions (%)": 100 * effect["changed"],
            "CI excludes 0": ["yes" if sure else "no" for sure in effect["sure"]], "name": effect["name"],
        }
    )  # fmt: skip


def _agreements(run: RunReading, effect: pd.DataFrame) -> list[Block]:
    """Return how well each recorded score ranks the modules; a score of another width is none of this run's."""
    scores = {name: score for name, score in module_scores(run.folder).items() if len(score) == len(run.modules)}
    agreed = ablations.agreements(scores, effect)
    if agreed.empty:
        return []
    rounded = agreed[["spearman", "low", "high"]].round(3) + 0.0  # none of them is -0
    words = "Spearman correlation with the loss change; low and high are the 95 % CI over modules."
    table = agreed.assign(**{name: rounded[name] for name in rounded.columns})
    return [Table("Rank correlation of each score with the loss change", table, words, is_wide=True)]
