"""What a run folder holds: a training, a decode, a recycle or a distillation.

All kinds have one format, one reader and one queue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRAIN, DECODE, RECYCLE, DISTIL, OTHER = "train", "decode", "recycle", "distil", "other"

KINDS: Mapping[str, str] = {
    TRAIN: "adapters trained on data",
    DECODE: "texts that a draft and a target wrote together (reward-guided speculative decoding)",
    RECYCLE: "a meta-LoRA made of finished runs (LoRA Recycle)",
    DISTIL: "one LoRA distilled from texts that finished runs wrote (data-free distillation)",
}
"""Every kind, and what its folder records. The meta key `kind` names it; a run without one is a training."""

FROM_EVENTS = (DECODE,)
"""Kinds that continue from what their own events say, and keep no checkpoint."""


def kind_of(meta: Mapping[str, Any]) -> str:
    """Return the kind of a run from its meta; `other` for one that this version does not know."""
    found = meta.get("kind")
    if found is None:
        return TRAIN
    return found if isinstance(found, str) and found in KINDS else OTHER
