"""A merge under way: one module after the other is merged, then the merge is measured on the data of each source."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynlora.analysis.stats import per_token
from dynlora.engine.compress.components import Components
from dynlora.engine.compress.orders import by_global_threshold, kept
from dynlora.engine.data.batches import Tokens
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.recorder import Recorder
from dynlora.errors import DynloraError
from dynlora.kinds.merge.result import BASE, MERGE, MERGED, OWN
from dynlora.kinds.merge.work.combine import merged_components
from dynlora.kinds.merge.work.materials import Materials, with_merge
from dynlora.tasks import WritingTask
from dynlora.training.inputs import usable
from dynlora.training.stepwise import Stepwise

BATCH = 32
"""Examples of a forward pass."""

Sums = tuple[Tensor, Tensor]
"""The loss of each example, and over how many tokens it is a sum, one for an example with a label, (n,) each."""


@dataclass
class Merging(Stepwise):
    """Everything a merge has done so far.

    Attributes:
        materials: what it works with.
        recorder: takes what is recorded.
        step: steps done, of both stages together.
        tables: the components of each module that is merged, all of them.
        losses: of each source that is measured, by model; a sentence where its data cannot be read.
    """

    materials: Materials
    recorder: Recorder
    step: int = 0
    tables: list[Components] = field(default_factory=list[Components])
    losses: list[dict[str, Sums] | str] = field(default_factory=list["dict[str, Sums] | str"])

    # --- the plan

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The stages with their first and last step."""
        return self.materials.settings.stages(len(self.materials.modules))

    # --- the work

    def advance(self) -> None:
        """Merge the next module, or measure the merge on the data of the next source."""
        if self.stage() == "modules":
            self._merge_module()
        else:
            self.losses.append(self._measured(len(self.losses)))
        self.step += 1
        if self.step == len(self.materials.modules):
            self.recorder.event(self.step, MERGED, [], self.described())
        self.recorder.progress(self.step)

    def _merge_module(self) -> None:
        materials = self.materials
        info = materials.modules[len(self.tables)]
        updates, most = materials.of_module(info), materials.budget // info.cost
        if updates and most:
            table = merged_components(updates, materials.settings, info.name, info.d_out, info.d_in, most)
        else:
            table = _nothing(info.d_out, info.d_in)
        self.tables.append(table)

    @property
    def merged(self) -> list[Components]:
        """What one threshold over all modules keeps of each within the budget; all modules must be merged."""
        budget, seed = self.materials.budget, self.materials.settings.seed
        chosen = kept(by_global_threshold(self.tables, seed), self.tables, budget)
        return [_first(table, len(positions)) for table, positions in zip(self.tables, chosen, strict=True)]

    def _measured(self, index: int) -> dict[str, Sums] | str:
        """Return the loss of base model, own adapter and merge on the held-out examples of a source."""
        source, settings = self.materials.sources[index], self.materials.settings
        try:
            rows = source.held_out(settings.rows, settings.seed, index)
        except DynloraError as error:
            return f"the data of source {source.run} cannot be read ({str(error)[:200]})"
        model = source.load()
        tokens = usable(model.tokens(rows))
        losses = {}
        for name, state in ((BASE, model.adapters.disabled), (OWN, nullcontext)):
            with state():
                losses[name] = _losses(model, tokens)
        losses[MERGE] = _losses(with_merge(model, self.materials.modules, self.merged, settings.seed), tokens)
        return losses

    # --- the results

    def described(self) -> dict[str, Any]:
        """Return the parameters of the merge, and its ranks beside those of the sources; all modules must be merged."""
        merged = self.merged
        ranks = [
            {"module": info.name, "merge": len(table), "sources": self.materials.ranks_of(info)}
            for info, table in zip(self.materials.modules, merged, strict=True)
        ]
        return {"parameters": sum(len(table) * table.cost for table in merged), "ranks": ranks}

    def document(self, run_id: str) -> dict[str, Any]:
        """Return the results as the command prints them, losses in the unit of the task."""
        materials = self.materials
        measured = {
            source.run: losses
            for source, losses in zip(materials.sources, self.losses, strict=True)
            if not isinstance(losses, str)
        }
        return {
            "id": run_id,
            "method": materials.settings.method,
            "budget": materials.budget,
            "of": sum(materials.parameters),
            **self.described(),
            "loss": {run: {name: _interval(*one) for name, one in losses.items()} for run, losses in measured.items()},
            "against_own": {run: {MERGE: _difference(losses, OWN)} for run, losses in measured.items()},
            "against_base": {run: {MERGE: _difference(losses, BASE)} for run, losses in measured.items()},
            "notes": [
                *(note for one in materials.updates for note in one.notes),
                *(losses for losses in self.losses if isinstance(losses, str)),
                *self._head_notes(),
            ],
        }

    def _head_notes(self) -> list[str]:
        if self.materials.head != OWN:
            return []
        return ["the heads of the sources differ: each was measured with its own, and the merge has none"]

    # --- what survives a stop or a crash

    def state_dict(self) -> dict[str, Any]:
        """Return everything a bit-equal continuation needs."""
        tables = [{"A": one.A, "B": one.B, "effect": one.effect} for one in self.tables]
        return {"step": self.step, "tables": tables, "losses": self.losses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.step = state["step"]
        costs = [info.cost for info in self.materials.modules]
        self.tables = [
            Components(one["A"], one["B"], one["effect"], 1.0, cost)
            for one, cost in zip(state["tables"], costs, strict=False)  # those that were merged
        ]
        self.losses = [
            losses if isinstance(losses, str) else {name: (one[0], one[1]) for name, one in losses.items()}
            for losses in state["losses"]
        ]


def _nothing(d_out: int, d_in: int) -> Components:
    """Return the components of an update of zero."""
    return Components(torch.zeros(0, d_in), torch.zeros(d_out, 0), torch.zeros(0).double(), 1.0, d_in + d_out)


def _first(table: Components, n: int) -> Components:
    """Return the n components of largest effect: a threshold keeps a beginning, since effects fall."""
    return Components(table.A[:n], table.B[:, :n], table.effect[:n], table.scaling, table.cost)


def _losses(model: AdaptedModel, tokens: Tokens) -> Sums:
    """Return the loss of each example as a sum over its tokens, for a model that writes, else as it is."""
    predictions = model.predictions(tokens, BATCH)
    if isinstance(model.task, WritingTask):
        output = torch.from_numpy(predictions.output.astype(np.float64))
        return output[:, 0].clone(), output[:, 2].clone()
    loss = torch.from_numpy(predictions.loss.astype(np.float64))
    return loss, torch.ones_like(loss)


def _interval(sums: Tensor, counts: Tensor) -> dict[str, float]:
    return per_token(sums.numpy(), counts.numpy())


def _difference(losses: Mapping[str, Sums], other: str) -> dict[str, float]:
    """Return the merge's loss less another model's, paired over the same examples."""
    sums, counts = losses[MERGE]
    return _interval(sums - losses[other][0], counts)
