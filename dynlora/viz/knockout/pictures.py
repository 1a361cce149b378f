"""The pictures of a run's ablations, as the page Capacity and notebooks show them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dynlora.analysis import ablations
from dynlora.analysis.ablations import Agreement
from dynlora.store.knockouts import Knockouts
from dynlora.viz.kit.picture import Picture
from dynlora.viz.kit.theme import Palette
from dynlora.viz.knockout import figures as knockout_figures


def effects(found: Knockouts, modules: pd.DataFrame, colours: Palette, module: str | None = None) -> Picture:
    """Return what held-out examples lose without each module, with its interval.

    Args:
        found: the ablations; at least one of a module alone.
        modules: as `kit.modules.described` returns them.
        colours: of the mode.
        module: name of the module to mark.
    """
    effect = ablations.effects(found, modules)
    words = ablations.effect_caption(effect, len(modules), found.rows)
    figure = knockout_figures.effect_bars(effect, colours, module)
    return Picture(figure, words, effect.drop(columns="position"))


def by_group(found: Knockouts, modules: pd.DataFrame, colours: Palette) -> Picture:
    """Return what each input group loses without each module; of ablations with groups."""
    groups = ablations.by_group(found, modules)
    words = "Blue: the group's loss rises without the module, which helps it. Orange: the module harms the group."
    return Picture(knockout_figures.group_effects(groups, colours), words, groups.reset_index(names="group"))


def against_score(
    effect: pd.DataFrame, score: np.ndarray, name: str, colours: Palette, uniform: Agreement | None = None
) -> Picture:
    """Return a recorded score of each module against what is lost without it.

    Args:
        effect: as `ablations.effects` returns it.
        score: by module as recorded.
        name: of the score.
        colours: of the mode.
        uniform: agreement of the same score with the effects in a uniform baseline run; None without one.
    """
    figure = knockout_figures.score_against_effect(effect, score, name, colours)
    words = ablations.agreement_caption(name, ablations.agreement(score, effect), uniform)
    return Picture(figure, words, effect.assign(score=score[effect["position"]]))
