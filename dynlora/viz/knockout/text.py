"""Why an ablation cannot be made, in words."""

from __future__ import annotations

from dynlora.store.recorded import CALLBACK


def why_not(recorded_by: str | None) -> str:
    """Return why a run without an adapter that could be loaded here is not ablated, and where it is instead.

    Args:
        recorded_by: as `queries.recorded_by` returns it.
    """
    if recorded_by is None:
        return "This run has no saved adapter, so no new measurement is possible."
    if recorded_by == CALLBACK:
        return "This run was recorded, so it is ablated in its own script: RecordCallback(..., ablate_rows=256)."
    return "This run was recorded, and its adapter is not here, so no new measurement is possible."
