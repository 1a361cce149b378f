"""Inversion: synthetic inputs that a teacher assigns to its classes, found without its data.

For inputs z of some classes of one teacher, Adam minimises

    cross entropy(teacher(x), class) + a · distance of hidden moments + b · distance to the word embeddings

with x = mean + deviation · z, a random shift of the slots at each step, and the best inputs by loss kept. After a
quarter of the steps the slots with the smallest gradient are dropped: the published method takes the attention of the
class token, which a model that averages its tokens does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from dynlora.engine.loop.checkpoint import copy_into, load_optimizer_state, optimizer_state
from dynlora.engine.randomness import stream
from dynlora.kinds.recycle.settings import RecycleSettings

BETAS = (0.5, 0.99)
"""Of Adam, as published."""

SHIFT = 8
"""Slots are shifted by at most this part of their number, as images are by an eighth of their width."""

LOOK_UP_EVERY = 10
"""Steps between two searches for the nearest word embeddings, which cost as much as a forward."""


class Searched(Protocol):
    """What inversion needs of a teacher and the base model, text or pictures."""

    def start(self, n: int, generator: torch.Generator) -> Tensor:
        """Return where the search of n inputs starts, standardised, (n, slots, d)."""
        ...

    def logits(self, z: Tensor, kept: Tensor | None) -> Tensor:
        """Return what the teacher says of inputs, (n, classes)."""
        ...

    def strangeness(self, z: Tensor, kept: Tensor | None) -> Tensor:
        """Return the distance of the base model's hidden moments to those of public inputs, ()."""
        ...

    def nearest(self, z: Tensor) -> Tensor:
        """Return the nearest thing that exists to each slot, (n, slots): the id of a token."""
        ...

    def unlike(self, z: Tensor, nearest: Tensor) -> Tensor:
        """Return the distance of slots to what exists, ()."""
        ...

    def may_drop(self) -> Tensor:
        """Return which slots may be dropped, (slots,), bool."""
        ...


@dataclass
class Inversion:
    """The inputs of some classes of one teacher, under search.

    Attributes:
        space: of the teacher.
        classes: indices of the classes among the teacher's.
        settings: of the recycle.
        key: names the random streams.
        step: optimizer steps done.
        z: the inputs as they are searched, (n, slots, d); of the kept slots alone once some are dropped.
        best: the inputs of the lowest loss so far, as z.
        best_loss: their loss; infinite before the first step, and again when slots are dropped.
        kept: slots of each input that are left, (n, k), in order; None before any is dropped.
        target: class of each input, (n,).
        near: the token nearest to each slot when it was last looked up, (n, slots).
        importance: sum of the gradient's norm by slot so far, (n, slots).
        agreement: fraction of each class's inputs that the teacher assigns to it, (classes,).
        best_agreement: that of the best inputs; of those before, until the first step after slots are dropped.
    """

    space: Searched
    classes: list[int]
    settings: RecycleSettings
    key: tuple[object, ...]
    step: int = 0
    best_loss: float = float("inf")
    kept: Tensor | None = None
    near: Tensor | None = None
    z: torch.nn.Parameter = field(init=False)
    best: Tensor = field(init=False)
    importance: Tensor = field(init=False)
    target: Tensor = field(init=False)
    agreement: Tensor = field(init=False)
    best_agreement: Tensor = field(init=False)
    optimizer: torch.optim.Adam = field(init=False)

    def __post_init__(self) -> None:
        """Draw what the search starts from."""
        n = len(self.classes) * self.settings.inputs
        start = self.space.start(n, stream(self.settings.seed, "inversion", *self.key))
        self._search_from(start)
        self.best = start.clone()
        self.importance = torch.zeros(start.shape[:2], device=start.device)
        self.target = torch.tensor(self.classes, device=start.device).repeat_interleave(self.settings.inputs)
        self.agreement = torch.zeros(len(self.classes), device=start.device)
        self.best_agreement = torch.zeros_like(self.agreement)

    def _search_from(self, z: Tensor) -> None:
        """Search from here on, with a new optimizer."""
        self.z = torch.nn.Parameter(z.clone())
        self.optimizer = torch.optim.Adam([self.z], lr=self.settings.inversion_lr, betas=BETAS)

    @property
    def is_done(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self.settings.iterations

    def advance(self) -> float:
        """Take one step and return the loss before it."""
        self.step += 1
        shifted = torch.roll(self.z, self._shift(), 1)
        logits = self.space.logits(shifted, self.kept)
        loss = F.cross_entropy(logits.float(), self.target)
        if self.settings.moments:
            loss = loss + self.settings.moments * self.space.strangeness(shifted, self.kept)
        if self.settings.table:
            if self.near is None or self.step % LOOK_UP_EVERY == 0:
                self.near = self.space.nearest(self.z.detach())
            loss = loss + self.settings.table * self.space.unlike(self.z, self.near)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        right = (logits.argmax(1) == self.target).view(len(self.classes), -1)
        self.agreement = right.float().mean(1)
        self._keep_best(float(loss.detach()), shifted.detach())
        self._weigh_slots()
        self.optimizer.step()
        if self.step == self.settings.drop_at:
            self._drop()
        return float(loss.detach())

    def _shift(self) -> int:
        """Return by how many slots this step's inputs are shifted."""
        most = self.settings.tokens // SHIFT
        generator = stream(self.settings.seed, "shift", *self.key, self.step)
        return int(torch.randint(-most, most + 1, (), generator=generator))

    def _keep_best(self, loss: float, inputs: Tensor) -> None:
        """Keep the inputs that this loss was measured on, before the optimizer changes them."""
        if loss < self.best_loss:
            self.best_loss, self.best, self.best_agreement = loss, inputs.clone(), self.agreement.clone()

    def _weigh_slots(self) -> None:
        """Add up the gradient of each slot until some are dropped."""
        if self.settings.drop_at is not None and self.step <= self.settings.drop_at:
            gradient: Tensor = self.z.grad  # pyright: ignore[reportAssignmentType]
            self.importance += gradient.norm(dim=-1)

    def _drop(self) -> None:
        """Drop the slots of each input whose gradient was smallest, and search the others from where they are."""
        fixed = ~self.space.may_drop().to(self.importance.device)
        weighed = self.importance.masked_fill(fixed, float("inf"))
        self.kept = weighed.topk(self.settings.kept, 1).indices.sort(1).values
        self._search_from(at_slots(self.z.detach(), self.kept))
        self.near = None
        self.best, self.best_loss = self.z.detach().clone(), float("inf")

    def state_dict(self) -> dict[str, Any]:
        """Return everything a bit-equal continuation needs."""
        return {
            "step": self.step,
            "z": self.z.detach(),
            "best": self.best,
            "best_loss": self.best_loss,
            "kept": self.kept,
            "near": self.near,
            "importance": self.importance,
            "agreement": self.agreement,
            "best_agreement": self.best_agreement,
            "optimizer": optimizer_state(self.optimizer),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self._search_from(state["z"])
        self.best, self.kept, self.near = state["best"], state["kept"], state["near"]
        copy_into(self.importance, state["importance"])
        copy_into(self.agreement, state["agreement"])
        # a checkpoint of an earlier version knows that of its last step alone
        copy_into(self.best_agreement, state.get("best_agreement", state["agreement"]))
        self.step, self.best_loss = state["step"], state["best_loss"]
        load_optimizer_state(self.optimizer, state["optimizer"])


def at_slots(values: Tensor, slots: Tensor) -> Tensor:
    """Return the values (n, slots, d) of the slots that are kept, (n, k)."""
    return values.gather(1, slots.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
