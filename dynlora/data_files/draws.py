"""Seeds of keyed random streams: every draw names what it is for, so no draw can shift another."""

from __future__ import annotations

import hashlib


def stream_seed(seed: int, *key: object) -> int:
    """Return a 63-bit seed from the run's seed and a key such as (module name, "lora_A")."""
    text = "\x1f".join(str(part) for part in (seed, *key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
