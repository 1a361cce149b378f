"""What kind of run a folder holds, as the store names it: all kinds have one format, one reader and one queue.

`dynlora/kinds/` holds the kinds themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TRAIN, OTHER = "train", "other"

FROM_EVENTS = "continues_from_events"
"""Meta key of a run that continues from its own events, and keeps no checkpoint."""

DECODE = "decode"
"""Runs of this kind that were made before they said `FROM_EVENTS` themselves."""

NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


def kind_of(meta: Mapping[str, Any]) -> str:
    """Return the kind of a run from its meta key `kind`; a run without one is a training, one that is odd is other."""
    name = meta.get("kind")
    if name is None:
        return TRAIN
    return name if isinstance(name, str) and NAME.fullmatch(name) else OTHER


def continues_from_events(meta: Mapping[str, Any]) -> bool:
    """Say whether a run needs no checkpoint to continue.

    Args:
        meta: of the run, at least `kind` and `FROM_EVENTS`.
    """
    return meta.get(FROM_EVENTS) is True or kind_of(meta) == DECODE
