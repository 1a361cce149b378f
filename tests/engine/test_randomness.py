"""The global stream is what `torch.manual_seed` would leave, whichever device draws from it."""

from __future__ import annotations

import pytest
import torch

from dynlora.engine.randomness import seed_global_stream, stream_seed


@pytest.mark.parametrize("has_accelerator", [False, True])
def test_the_global_stream_is_that_of_manual_seed(has_accelerator: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: has_accelerator)
    torch.manual_seed(stream_seed(3, "forward", 7))
    expected = torch.rand(5)
    seed_global_stream(3, "forward", 7)
    assert torch.equal(torch.rand(5), expected)


def test_accelerators_are_seeded_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    seed_global_stream(3, "head")
    assert seeds == [stream_seed(3, "head")]
