"""How long a recycle will take on this machine, from a few of its steps that are thrown away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dynlora.kinds.recycle.work.materials import Materials
from dynlora.kinds.recycle.work.meta_training import MetaTraining
from dynlora.kinds.recycle.work.pool import SyntheticPool
from dynlora.training.stepwise import fastest_s


def estimated(materials: Materials) -> dict[str, Any]:
    """Return minutes (of all, and by stage), steps, parts and classes of a recycle; nothing is kept.

    The test at the end is left out: it reads each test text once for every teacher.
    """
    of, parts = materials.settings, materials.parts
    search = materials.inversion(0)
    step_s = fastest_s(search.advance)
    drop_at = of.drop_at or of.iterations
    later = of.kept / of.tokens if materials.space.gathers else 1.0
    inversion_s = len(parts) * step_s * (drop_at + later * (of.iterations - drop_at))
    training = MetaTraining(materials.meta, _probe_pool(materials), of, materials.autocast)
    episodes_s = of.episodes * (2 if of.noise else 1) * (fastest_s(training.advance) if of.episodes else 0.0)
    materials.forget_learning()
    return {
        "minutes": round((inversion_s + episodes_s) / 60, 2),
        "inversion_minutes": round(inversion_s / 60, 2),
        "episodes_minutes": round(episodes_s / 60, 2),
        "parts": len(parts),
        "classes": sum(len(part.classes) for part in parts),
    }


def _probe_pool(materials: Materials) -> SyntheticPool:
    """Return a pool of the right size whose inputs nobody searched: those of one class stand for all."""
    of, space = materials.settings, materials.space
    search = materials.inversion(0)
    z = search.z.detach()[: of.inputs]
    inputs = space.inputs(space.place(z))
    length = len(space.before) + of.kept + len(space.after)
    short = replace(
        inputs,
        embedded=inputs.embedded[:, :length],
        positions=inputs.positions[:, :length],
        mask=inputs.mask[:, :length],
    )
    return SyntheticPool([np.arange(of.inputs)] * of.ways, short)
