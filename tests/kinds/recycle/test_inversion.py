"""Inversion: a teacher recognises what was found, the best is kept, and a search continues bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dynlora.engine.loop.checkpoint import read_checkpoint, write_checkpoint
from dynlora.kinds.recycle.settings import RecycleSettings
from dynlora.kinds.recycle.work.materials import Inversion, Materials


def settings_of(teachers: list[str], **values: Any) -> RecycleSettings:
    small = {"iterations": 24, "inputs": 6, "tokens": 8, "shots": [1], "ways": 2, "episodes": 4, "test_episodes": 10}
    return RecycleSettings.parse({"teachers": teachers, **small, **values})


@dataclass(frozen=True)
class Planted:
    """A teacher that knows three classes by the direction that a text's mean points to."""

    direction: Tensor
    slots: int = 8

    def start(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, self.slots, self.direction.shape[1], generator=generator)

    def logits(self, z: Tensor, kept: Tensor | None) -> Tensor:
        return 4 * z.mean(1) @ self.direction.t()

    def strangeness(self, z: Tensor, kept: Tensor | None) -> Tensor:
        return (z.std() - 1).square()

    def nearest(self, z: Tensor) -> Tensor:
        return torch.zeros(z.shape[:2], dtype=torch.long)

    def unlike(self, z: Tensor, nearest: Tensor) -> Tensor:
        return z.square().mean()

    def may_drop(self) -> Tensor:
        return torch.tensor([True] * (self.slots - 1) + [False])


PLANTED: Any = Planted(torch.eye(3, 5))


def run(search: Inversion) -> list[float]:
    losses = []
    while not search.is_done:
        losses.append(search.advance())
    return losses


def test_inversion_raises_the_agreement_of_a_planted_teacher_to_over_95_percent() -> None:
    search = Inversion(PLANTED, [0, 1, 2], settings_of(["a"], iterations=60, inputs=20), (0,))
    first = search.advance()
    before = float(search.agreement.mean())
    losses = run(search)
    assert before < 0.6
    assert float(search.agreement.mean()) > 0.95
    assert losses[-1] < first


def test_inversion_raises_the_agreement_of_a_trained_teacher(taught: Path, teacher_ids: list[str]) -> None:
    materials = Materials.load(settings_of(teacher_ids, iterations=60), taught)
    assert [part.first for part in materials.parts] == [0, 2, 5]
    for number in range(len(materials.parts)):
        search = materials.inversion(number)
        run(search)
        assert float(search.agreement.mean()) > 0.95, materials.teachers[number].name


def test_the_best_inputs_are_those_whose_loss_was_measured() -> None:
    """The published code keeps the inputs of one step later."""
    settings = settings_of(["a"], drop=0, table=0, moments=0)
    search = Inversion(PLANTED, [0, 1, 2], settings, (0,))
    losses = run(search)
    again = torch.nn.functional.cross_entropy(PLANTED.logits(search.best, None), search.target)
    assert search.best_loss == min(losses)
    assert float(again) == pytest.approx(search.best_loss, abs=1e-6)


def test_the_agreement_of_the_best_is_kept_with_it() -> None:
    settings = settings_of(["a"], drop=0, table=0, moments=0, inversion_lr=5.0)
    search = Inversion(PLANTED, [0, 1, 2], settings, (0,))
    steps = []
    while not search.is_done:
        steps.append((search.advance(), search.agreement.tolist()))
    assert search.best_agreement.tolist() == min(steps, key=lambda step: step[0])[1]


def test_a_checkpoint_of_an_earlier_version_has_no_agreement_of_the_best() -> None:
    first, second = (Inversion(PLANTED, [0, 1, 2], settings_of(["a"]), (5,)) for _ in range(2))
    first.advance()
    state = first.state_dict()
    del state["best_agreement"]
    second.load_state_dict(state)
    assert torch.equal(second.best_agreement, first.agreement)


def test_the_slots_of_the_smallest_gradient_are_dropped_after_a_quarter() -> None:
    settings = settings_of(["a"], drop=0.5)
    search = Inversion(PLANTED, [0, 1], settings, (0,))
    for _ in range(5):
        search.advance()
    assert search.kept is None
    search.advance()
    assert search.kept is not None
    assert search.kept.shape == (12, 4)
    assert search.z.shape == (12, 4, 5)
    assert (search.kept[:, -1] == 7).all(), "the last slot may not be dropped"
    assert (search.kept.diff(dim=1) > 0).all()
    weakest = search.importance[:, :-1].argmin(1, keepdim=True)
    assert not (search.kept == weakest).any()


@pytest.mark.parametrize("after", [3, 6, 11])
def test_a_search_continues_bit_for_bit(after: int, tmp_path: Path) -> None:
    settings = settings_of(["a"])
    whole, first = (Inversion(PLANTED, [0, 1, 2], settings, (5,)) for _ in range(2))
    run(whole)
    for _ in range(after):
        first.advance()
    write_checkpoint(tmp_path / "checkpoint", first.state_dict())
    second = Inversion(PLANTED, [0, 1, 2], settings, (5,))
    second.load_state_dict(read_checkpoint(tmp_path / "checkpoint"))
    run(second)
    assert torch.equal(second.z, whole.z)
    assert torch.equal(second.best, whole.best)
    assert torch.equal(second.best_agreement, whole.best_agreement)
    assert second.best_loss == whole.best_loss
