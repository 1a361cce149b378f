"""Gates that read more than the embeddings: what the module itself reads, or the adapter's A x. A benchmark's, no mode.

    python -m benchmarks.conflict
    python -m benchmarks.tuned --data benchmarks/out/conflict/turned --rates 0.004 --seeds 2 \
        --methods "dynamic, scale, head at 0.01;dynamic, own tokens at 10, head at 0.01"

`dynlora.engine.model.gates` describes a sequence by the mean and deviation of its embeddings, before the first block.
Here the gate of module m is g = 2 σ(u_m · φ_m + c_m), where φ_m is

- `own sequence`: the mean over tokens of the module's input, projected at random to 8 numbers and standardised;
- `own tokens`: the same of each token, which then has a gate of its own;
- `A x`: √d_in · cos(a_i, x) of each token and each of the module's r components, so that u_m has r numbers.

Projection, mean and deviation are fixed on the calibration batches, as there. No gradient flows through φ_m.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynlora.engine import adapt
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.gates import FEATURES, Gates, gate_of
from dynlora.engine.randomness import stream

READS = ("own sequence", "own tokens", "A x")


class OwnInputGates(Gates):
    """Gates that are computed as each module is reached, from what it reads.

    Attributes:
        reads: one of `READS`.
        projections: of each module's input, (d_in, FEATURES).
        means, deviations: of the projected features over the calibration batches, (n_modules, FEATURES).
    """

    def __init__(self, adapters: Adapters, reads: str, d_embedding: int, device: torch.device) -> None:
        """Make gates that are one everywhere, and hook into every module of `adapters`."""
        by_token = reads != "own sequence"
        widest = max(FEATURES, *(module.max_rank for module in adapters))
        mode = "token" if by_token else "module"
        super().__init__(len(adapters), d_embedding, adapters.seed, device=device, mode=mode)
        self.weight = nn.Parameter(torch.zeros(len(adapters), widest, device=device))
        self.reads = reads
        self.projections = [
            (torch.randn(one.info.d_in, FEATURES, generator=stream(adapters.seed, "own gates", one.info.name))).to(
                device
            )
            / one.info.d_in**0.5
            for one in adapters
        ]
        self.means = torch.zeros(len(adapters), FEATURES, device=device)
        self.deviations = torch.ones(len(adapters), FEATURES, device=device)
        self._own: list[Tensor | None] = [None] * len(adapters)
        self._read: list[list[Tensor]] | None = None
        for index, module in enumerate(adapters):
            module.register_forward_pre_hook(partial(self._see_own, index))

    def column(self, index: int) -> Tensor | None:
        """Return the gate of one module in this forward, (batch,) or (batch, seq)."""
        return self._own[index]

    @torch.no_grad()
    def calibrate(self, model: nn.Module, batches: Iterable[dict[str, Tensor]]) -> None:
        """Fix mean and deviation of every module's features from whole forwards: B is 0, so they are the base's."""
        if self.reads == "A x":
            return
        self._read = [[] for _ in self._own]
        training = model.training
        model.eval()
        try:
            for batch in batches:
                model(**{name: tensor for name, tensor in batch.items() if name != "labels"})
        finally:
            model.train(training)
        rows = [torch.cat(read) for read in self._read]
        self.means = torch.stack([one.mean(0) for one in rows])
        self.deviations = torch.stack([one.std(0, correction=0).clamp_min(1e-6) for one in rows])
        self._read = None

    def see(self, forward: Callable[[], object]) -> None:
        """Run a whole forward: the last gate is known at the last module."""
        forward()

    def _see_embedding(self, _module: nn.Module, _args: tuple, output: Tensor) -> None:
        """Begin a forward: every gate is one until its module is reached."""
        self._own = [None] * len(self._own)
        self.values = torch.ones(len(output), len(self._own), device=output.device)

    def _see_own(self, index: int, module: Any, args: tuple[Any, ...]) -> None:
        """Set the gate of a module from its input, (batch, seq, d_in)."""
        x = args[0].detach().float()
        mask = torch.ones(x.shape[:2], device=x.device) if self._mask is None else self._mask.float()
        weights = (mask / mask.sum(1, keepdim=True).clamp_min(1.0)).unsqueeze(1)
        features = self._features(index, module, x, weights)
        if self._read is not None:
            self._read[index].append(features if features.dim() == 2 else features[mask.bool()])
            return
        gate = gate_of(
            F.linear(features, self.weight[index : index + 1, : features.shape[-1]]).squeeze(-1) + self.bias[index]
        )
        if self._held is not None:
            gate = self._held[index].to(gate).expand_as(gate)
        self._own[index] = gate
        if self.values is not None:
            values = gate if gate.dim() == 1 else torch.bmm(weights, gate.unsqueeze(-1)).reshape(-1)
            self.values[:, index] = values.detach()

    def _features(self, index: int, module: Any, x: Tensor, weights: Tensor) -> Tensor:
        """Return φ of a module's input, (batch, k) or (batch, seq, k)."""
        if self.reads == "A x":
            A = F.normalize(module.lora_A[: module.rank].detach().float(), dim=1)
            return F.linear(F.normalize(x, dim=-1), A) * x.shape[-1] ** 0.5
        projected = (torch.bmm(weights, x).squeeze(1) if self.mode == "module" else x) @ self.projections[index]
        return projected if self._read is not None else (projected - self.means[index]) / self.deviations[index]


@contextmanager
def gates_that_read(reads: str | None) -> Iterator[None]:
    """Let the adapters made inside the block have gates that read one of `READS`; None leaves them as they are."""
    if reads is None:
        yield
        return

    def made(model: Any, adapters: Adapters, *_: Any, **__: Any) -> Gates:
        width = int(model.get_input_embeddings().weight.shape[1])
        gates = OwnInputGates(adapters, reads, width, next(model.parameters()).device)
        gates.install(model, getattr(model, "base_model", model), [model.get_input_embeddings()])
        return gates

    with mock.patch.object(adapt, "_gates", made):
        yield
