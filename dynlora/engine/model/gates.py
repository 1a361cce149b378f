"""Input gates: a scalar a module and sequence, component or token, from eight numbers that describe the input.

g_m(x) = 2 σ(u_m · φ(x) + c_m), u = c = 0 at the start, so that g = 1 exactly.

φ(x) are the masked mean and standard deviation over the tokens of the embedding output (mode `module`), or the
embedding output of each token (mode `token`), projected to their k = 8 leading principal components and standardised.
Projection, mean and deviation are fixed from a few calibration batches before step 1: running statistics would drift,
and differ between processes. Random directions, which were taken before December 2026, hardly know where a text is
from (docs/research/gates.md).

Where a model writes texts, φ of a token are the mean and deviation over the tokens up to it: the gate of a whole
sequence would tell every token of those that follow. While a text is written token by token, the sums over what is
written already are carried along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from dynlora.engine.model.gradient_sketch import TokenSums, WrittenSoFar, exact, packed_mask, restarting_positions
from dynlora.engine.randomness import stream

CHILD = "dynlora_gates"
"""Name of the gates as a child of the model, so that they move and save with it."""

FEATURES = 8
"""Numbers that describe an input."""

CALIBRATION_ROWS = 512
"""Most inputs, or tokens, whose principal components are taken."""

MODES = ("module", "rank", "token")
"""One gate per module and sequence; one per component and sequence; one per module and token."""


class _FeaturesKnownError(Exception):
    """Ends a forward that was begun for the features of its inputs alone."""


def embeddings_of(model: Any) -> list[nn.Module]:
    """Return the modules that look up a model's tokens, its own first: encoder and decoder may have one each.

    They are told by their weights, which are the same tensor.
    """
    own = model.get_input_embeddings()
    return [
        own,
        *(
            one
            for one in model.modules()
            if isinstance(one, nn.Embedding) and one is not own and one.weight is own.weight
        ),
    ]


def gate_of(logit: Tensor) -> Tensor:
    """Return g = 2 σ(logit), from 0 to 2 and one at zero; never zero, because its gradient divides by it."""
    return (2 * torch.sigmoid(logit)).clamp_min(1e-30)


def gate_numbers(mode: str | None) -> int:
    """Return the parameters of one gate, that of a module or, in mode `rank`, of a component; 0 without gates."""
    return 0 if mode is None else FEATURES + 1


class Gates(nn.Module):
    """The gates of all adapted modules, computed in one product a forward.

    Attributes:
        mode: module (one gate per sequence), rank (one per component and sequence) or token (one per token).
        is_causal: a token's gates depend on the tokens up to it alone; every mode has one gate per token then.
        weight: u, (n_modules, FEATURES), or (n_modules, widest max_rank, FEATURES) for components.
        bias: c, (n_modules,), or (n_modules, widest max_rank) for components.
        projection: (2 · d_embedding, FEATURES), or (d_embedding, FEATURES) for tokens, fixed; random until `calibrate`.
        mean, deviation: of the projected features over the calibration batches, (FEATURES,), fixed.
        has_gate: which modules have one, (n_modules,), bool; the others' is one, whatever the input.
        values: gates of the current forward, (batch, n_modules), averaged over tokens and components; None outside.
        features: φ of the current forward, (batch, FEATURES) or (batch, seq, FEATURES), or None.
    """

    projection: Tensor
    mean: Tensor
    deviation: Tensor
    has_gate: Tensor

    def __init__(
        self,
        n_modules: int,
        d_embedding: int,
        seed: int,
        device: torch.device | None = None,
        mode: str = "module",
        max_rank: int = 1,
        is_causal: bool = False,
    ) -> None:
        """Make gates that are one everywhere; `max_rank` is the widest module's, for one gate per component."""
        super().__init__()
        self.mode = mode
        self.is_causal = is_causal
        size = (n_modules, max_rank) if mode == "rank" else (n_modules,)
        width = d_embedding if mode == "token" else 2 * d_embedding
        draw = torch.randn(width, FEATURES, generator=stream(seed, "gates", "projection"))
        self.weight = nn.Parameter(torch.zeros(*size, FEATURES, device=device))
        self.bias = nn.Parameter(torch.zeros(size, device=device))
        self.register_buffer("projection", (draw / width**0.5).to(device))
        self.register_buffer("mean", torch.zeros(FEATURES, device=device))
        self.register_buffer("deviation", torch.ones(FEATURES, device=device))
        self.register_buffer("has_gate", torch.ones(n_modules, dtype=torch.bool))
        self.values: Tensor | None = None
        self.features: Tensor | None = None
        self.ranks: Callable[[], list[int]] = list
        self._columns: tuple[Tensor, ...] = ()
        self._mask: Tensor | None = None
        self._places: Tensor | None = None
        self._sums: Tensor | None = None
        self._held: Tensor | None = None
        self._written: TokenSums | None = None
        self._is_alone = False
        self._handles: list[RemovableHandle] = []

    @property
    def is_writing(self) -> bool:
        """Whether sums over tokens are carried from forward to forward."""
        return self._written is not None

    def column(self, index: int) -> Tensor | None:
        """Return the gates of one module in this forward.

        (batch,) or (batch, max_rank); with gates of every token (batch, seq) or (batch, seq, max_rank).
        """
        return self._columns[index] if self._columns else None

    def install(self, model: nn.Module, backbone: nn.Module, embeddings: Iterable[nn.Module]) -> None:
        """Become a child of the model and hook into it.

        The forward starts with the mask: the backbone's, or the model's where that calls a part of the backbone alone.
        The gates are set once the first of the embeddings is known.
        """
        model.add_module(CHILD, self)
        starts = [model] if backbone is model else [model, backbone]
        self._handles = [
            *(part.register_forward_pre_hook(self._see_inputs, with_kwargs=True) for part in starts),
            *(embedding.register_forward_hook(self._see_embedding) for embedding in embeddings),
        ]

    def uninstall(self, model: nn.Module) -> None:
        """Take the gates off the model's forward and out of what it saves."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        delattr(model, CHILD)

    @torch.no_grad()
    def calibrate(self, model: nn.Module, batches: Iterable[dict[str, Tensor]]) -> None:
        """Fix projection, mean and deviation of the features from `batches`; the model's function stays as it is.

        The features are known before the first block, so each forward ends there.
        """
        seen: list[Tensor] = []

        def keep_and_end(_module: nn.Module, args: tuple[Any, ...], _output: Tensor) -> None:
            seen.append(_of_inputs(self._described(*args), args[1]))  # pyright: ignore
            raise _FeaturesKnownError

        keep = self.register_forward_hook(keep_and_end)
        training = model.training
        model.eval()
        try:
            for batch in batches:
                with suppress(_FeaturesKnownError):
                    model(**{name: tensor for name, tensor in batch.items() if name != "labels"})
        finally:
            keep.remove()
            model.train(training)
        described = torch.cat(seen)
        leading = principal_directions(described[:: -(-len(described) // CALIBRATION_ROWS)], FEATURES)
        self.projection[:, : leading.shape[1]] = leading
        projected = described @ self.projection
        self.mean.copy_(projected.mean(0))
        self.deviation.copy_(projected.std(0, correction=0).clamp_min(1e-6))

    def forward(self, embedded: Tensor, mask: Tensor | None) -> Tensor:
        """Return φ of embeddings (batch, seq, d_embedding) and a mask (batch, seq).

        Its shape is (batch, FEATURES), or (batch, seq, FEATURES) for tokens.
        """
        return (self._described(embedded, mask) @ self.projection - self.mean) / self.deviation

    def _described(self, embedded: Tensor, mask: Tensor | None) -> Tensor:
        """Return the numbers that are projected, (batch, 2 · d_embedding), or (batch, seq, ...) for tokens."""
        embedded = embedded.detach().float()
        if self.mode == "token":
            return embedded
        if self.is_causal:
            return self._so_far(embedded, mask)
        weights = _token_weights(embedded, mask)
        mean = torch.bmm(weights, embedded).squeeze(1)
        square = torch.bmm(weights, embedded.square()).squeeze(1)
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        return torch.cat([mean, deviation], 1)

    def _so_far(self, embedded: Tensor, mask: Tensor | None) -> Tensor:
        """Return what describes every token from the tokens up to it, (batch, seq, 2 · d_embedding)."""
        weight = torch.ones(embedded.shape[:2], device=embedded.device) if mask is None else mask.float()
        weight = weight.unsqueeze(-1)
        if self._places is not None:
            embedded, weight = exact(embedded), exact(weight)
        sums = TokenSums((embedded * weight).cumsum(1), (embedded.square() * weight).cumsum(1), weight.cumsum(1))
        if self._places is not None:
            sums = sums.of_own_text(self._places)
        if self._written is not None:
            sums = sums.after(self._written)
            self._written = sums.last()
        n = sums.n.clamp_min(1.0)
        mean = sums.value / n
        deviation = (sums.square / n - mean.square()).clamp_min(0).sqrt()
        return torch.cat([mean, deviation], -1).float()

    @contextmanager
    def writing(self, texts: WrittenSoFar | None = None) -> Iterator[None]:
        """Carry the sums over tokens from forward to forward inside the block: each continues the same texts.

        Args:
            texts: which texts are continued, where other forwards come between; new ones without it.
        """
        texts = WrittenSoFar() if texts is None else texts
        self._written = texts.sums or TokenSums.nothing()
        try:
            yield
        finally:
            texts.sums, self._written = self._written, None

    def _see_inputs(self, _module: nn.Module, _args: tuple, kwargs: dict[str, Any]) -> None:
        """Begin a forward: forget the last one's gates and remember the attention mask of this one.

        The gates are not forgotten at the forward's end: gradient checkpointing runs the blocks again in the backward.
        """
        self._columns = ()
        mask = kwargs.get("attention_mask")
        self._mask = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None
        self._places = restarting_positions(kwargs.get("position_ids")) if mask is None else None
        if self._places is not None:
            self._mask = packed_mask(self._places)

    def _see_embedding(self, _module: nn.Module, _args: tuple, output: Tensor) -> None:
        """Compute the gates of this forward; only the first embedding of a forward counts."""
        if self._columns or output.dim() != 3:
            return
        mask = _of_tokens(self._mask, output)
        with torch.autocast(output.device.type, enabled=False):
            features: Tensor = self(output, mask)
            weight, bias = self.weight.reshape(-1, FEATURES), self.bias.reshape(-1)
            gates = gate_of(F.linear(features, weight, bias))
            if self._held is not None:
                gates = self._held.to(gates).reshape(-1).expand_as(gates)
        self.features = features
        self._set(gates, output, mask)
        if self._is_alone:
            raise _FeaturesKnownError

    def see(self, forward: Callable[[], object]) -> None:
        """Run a forward as far as the gates need it: they are known before the first block, and it ends there."""
        self._is_alone = True
        try:
            with suppress(_FeaturesKnownError):
                forward()
        finally:
            self._is_alone = False

    @contextmanager
    def adding_up(self, sums: Tensor) -> Iterator[None]:
        """Add the gates of every component, over the sequences of each forward inside the block, to `sums`."""
        self._sums = sums
        try:
            yield
        finally:
            self._sums = None

    @contextmanager
    def holding(self, mean: Tensor) -> Iterator[None]:
        """Let `mean`, (n_modules,) or (n_modules, max_rank), stand for every input's gates inside the block."""
        self._held = mean
        try:
            yield
        finally:
            self._held = None

    def _set(self, gates: Tensor, output: Tensor, mask: Tensor | None) -> None:
        """Keep the gates of this forward for the modules that read them, and their means for what is recorded."""
        means = torch.bmm(_token_weights(output, mask), gates).squeeze(1) if gates.dim() == 3 else gates
        if self.mode == "rank":
            self._columns = gates.view(*gates.shape[:-1], *self.bias.shape).unbind(-2)
            means = means.view(-1, *self.bias.shape)
            self.values = self._over_components(means)
            if self._sums is not None:
                self._sums += means.sum(0)
            return
        self._columns, self.values = gates.unbind(-1), means

    def _over_components(self, gates: Tensor) -> Tensor:
        """Return the mean over each module's active components, (batch, n_modules), of (batch, n_modules, max_rank).

        One where a module has none.
        """
        ranks = torch.tensor(self.ranks(), device=gates.device).unsqueeze(1)
        active = torch.arange(gates.shape[2], device=gates.device) < ranks
        return 1 + ((gates - 1) * active).sum(2) / ranks.clamp_min(1).squeeze(1)


def _token_weights(embedded: Tensor, mask: Tensor | None) -> Tensor:
    """Return weights (batch, 1, seq) that average over the tokens the mask leaves."""
    weights = torch.ones(embedded.shape[:2], device=embedded.device) if mask is None else mask.float()
    return (weights / weights.sum(1, keepdim=True).clamp_min(1.0)).unsqueeze(1)


def principal_directions(rows: Tensor, n: int) -> Tensor:
    """Return the leading principal directions of standardised rows, for rows as they are, (d, at most n).

    Args:
        rows: (m, d).
        n: how many; rows that vary in fewer directions have fewer.
    """
    deviation = rows.std(0, correction=0)
    scale = deviation.clamp_min(max(1e-3 * float(deviation.max()), 1e-12))  # a number that never varies tells nothing
    _, values, directions = torch.linalg.svd((rows - rows.mean(0)) / scale, full_matrices=False)
    leading = directions[:n][values[:n] > 1e-4 * values.max()]
    largest = leading.gather(1, leading.abs().argmax(1, keepdim=True))
    return (leading * largest.sign() / scale).T


def _of_inputs(features: Tensor, mask: Tensor | None) -> Tensor:
    """Return features as rows, those of padding left out, (n, d)."""
    if features.dim() == 2:
        return features
    return features.flatten(0, 1) if mask is None else features[mask.bool()]


def _of_tokens(mask: Tensor | None, embedded: Tensor) -> Tensor | None:
    """Return the part of a mask that belongs to the tokens of the input: the last ones, where earlier ones are kept."""
    if mask is None or mask.shape[0] != embedded.shape[0] or mask.shape[1] < embedded.shape[1]:
        return None
    return mask[:, mask.shape[1] - embedded.shape[1] :]


@dataclass
class GateReader:
    """One module's view of the gates of the current forward."""

    gates: Gates
    index: int

    def read(self, live: int) -> Tensor | None:
        """Return the gate of every sequence or token, or None when no forward set it.

        Its shape is (batch,) or (batch · seq,), or (live, ...) where each of `live` components has its own. Some models
        flatten (batch, seq) before their linear modules: a gate holds for a part of the rows.
        """
        column = self.gates.column(self.index)
        if column is None or column.dim() == 1:
            return column
        return column[..., :live].flatten(0, -2).t() if self.gates.mode == "rank" else column.reshape(-1)
