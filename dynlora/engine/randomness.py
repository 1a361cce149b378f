"""Keyed random streams: every draw names what it is for, so no draw can shift another.

A stream is a pure function of (seed, purpose, ...): buffers of another size, another strategy, or logging leave all
other streams as they were, and a resumed run needs no saved generator to continue bit for bit.
"""

from __future__ import annotations

import torch

from dynlora.data_files.similarity import stream_seed

__all__ = ["seed_global_stream", "stream", "stream_seed"]


def stream(seed: int, *key: object) -> torch.Generator:
    """Return a CPU generator for one keyed stream."""
    return torch.Generator().manual_seed(stream_seed(seed, *key))


def seed_global_stream(seed: int, *key: object) -> None:
    """Seed torch's global generators (CPU and accelerators): dropout inside the frozen model draws from them.

    `torch.manual_seed` also keeps a traceback for every kind of accelerator that is not there, in each step.
    """
    number = stream_seed(seed, *key)
    if torch.accelerator.is_available():
        torch.manual_seed(number)
    else:
        torch.default_generator.manual_seed(number)
