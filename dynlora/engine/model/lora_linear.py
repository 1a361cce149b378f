"""An adapted module: h = W0 x + s · B(e ⊙ g ⊙ A x), with room to grow and the active components packed first."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynlora.engine.model.gates import GateReader, gate_of
from dynlora.engine.model.gradient_sketch import GradientSketch
from dynlora.engine.model.lowrank_function import DropoutStreams, Frozen, low_rank_linear, zero_
from dynlora.engine.model.modules import ModuleInfo, linear_features
from dynlora.engine.randomness import stream

KNOWN = ("torch.nn.modules.linear", "transformers.pytorch_utils")
"""Where the linear modules come from whose product is known; a quantised one of another package computes its own."""


def resized(tensor: Tensor, dim: int, size: int, fill: float = 0.0) -> Tensor:
    """Return a copy with `size` entries along `dim`: the first ones as they are, what is new `fill`."""
    shape = list(tensor.shape)
    shape[dim] = size
    result, common = tensor.new_full(shape, fill), min(size, tensor.shape[dim])
    result.narrow(dim, 0, common).copy_(tensor.narrow(dim, 0, common))
    return result


class LoraLinear(nn.Module):
    """A frozen linear module with a low-rank update of changeable rank.

    h = W0 x + scaling · B[:, :rank] (scale[:rank] ⊙ gate ⊙ A[:rank] x), where a learned scale of the whole module,
    g = 2 σ(scale_logit), may take the place of a gate.

    Rows `rank ..` of A and columns `rank ..` of B are inactive and zero; the forward does not touch them, so the cost
    follows the rank while parameters keep their identity for the optimizer. Memory is held for `max_rank` components,
    or, after `hold_live`, for the active ones: edits make room where a module grows.

    Attributes:
        base_layer: the frozen module, W0 of shape (d_out, d_in).
        lora_A: (held, d_in), held being max_rank or the rank.
        lora_B: (d_out, held).
        scale: per-component scale e, (held,), or None when it is one everywhere.
        scale_logit: of the learned scale of the module, (), or None where there is none.
        rank: number of active components, 0 to max_rank.
        scaling: alpha / reference rank; a rank change never alters it.
        enabled: False leaves the frozen module alone, as if the adapter were not there.
        sketch: sums up the gradient of W0 while training, or None while nobody reads it.
        holds_live: whether memory is held for active components alone.
        fused: False computes the update in plain operations, slower and otherwise equal, as torch.func always gets it.
    """

    lora_A: nn.Parameter
    lora_B: nn.Parameter
    scale: Tensor | None
    scale_logit: nn.Parameter | None

    def __init__(self, base_layer: nn.Module, info: ModuleInfo, *, rank: int, max_rank: int, scaling: float) -> None:
        """Wrap `base_layer`; A is filled by `reset_parameters`, B is zero.

        Raises:
            ValueError: when rank is outside 0 to max_rank.
        """
        super().__init__()
        if not 0 <= rank <= max_rank:
            raise ValueError(f"rank={rank}: must be from 0 to max_rank={max_rank}")
        weight = next(base_layer.parameters())
        self.base_layer = base_layer.requires_grad_(False)
        self.info = info
        self.max_rank = max_rank
        self.rank = rank
        self.scaling = scaling
        self.enabled = True
        self.holds_live = False
        self.fused = True
        self._cast: tuple[Any, Frozen] | None = None
        self.dropout = 0.0
        self.lora_A = nn.Parameter(torch.zeros(max_rank, info.d_in, device=weight.device))
        self.lora_B = nn.Parameter(torch.zeros(info.d_out, max_rank, device=weight.device))
        self.register_buffer("scale", None)
        self.register_parameter("scale_logit", None)
        self.gates: GateReader | None = None
        self.streams: DropoutStreams | None = None
        self.sketch: GradientSketch | None = None

    @property
    def weight(self) -> Tensor:
        """The frozen weight: some models read the type they compute in off a linear module."""
        return self.base_layer.weight  # pyright: ignore - linear by construction

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.base_layer.bias  # pyright: ignore - linear by construction

    @property
    def is_off(self) -> bool:
        """Whether the frozen module is alone."""
        return not self.enabled

    def trained_tensors(self) -> list[nn.Parameter]:
        """Return the parameters of the update, whether they require a gradient or not."""
        return [tensor for name, tensor in self.named_parameters() if not name.startswith("base_layer.")]

    def reset_parameters(self, seed: int, gaussian: float | None = None) -> None:
        """Draw A from the module's own stream and set B = 0.

        Args:
            seed: of the run.
            gaussian: deviation of a normal draw; None draws kaiming-uniform(√5), that is U(-1/√d_in, 1/√d_in).
        """
        draw = torch.empty(self.rank, self.info.d_in)
        generator = stream(seed, self.info.name, "lora_A")
        if gaussian is None:
            bound = 1 / math.sqrt(self.info.d_in)
            draw.uniform_(-bound, bound, generator=generator)
        else:
            draw.normal_(0, gaussian, generator=generator)
        with torch.no_grad():
            self.lora_A.zero_()
            self.lora_A[: self.rank] = draw
            self.lora_B.zero_()

    def share(self, name: str, parameter: nn.Parameter) -> None:
        """Use another module's lora_A or lora_B in the place of the own one."""
        setattr(self, name, parameter)

    @property
    def held(self) -> int:
        """Components that memory is held for, `rank` to `max_rank`."""
        return len(self.lora_A)

    def hold_live(self) -> None:
        """Hold memory for active components alone, where the tensors are of no more than A, B and scale, and its own.

        Not for a loop that keeps an earlier graph alive, or several processes: both remember the shapes they saw.
        A module at its highest rank does so too: a resume may begin there, and sums round as the tensors are cut.
        """
        if type(self) is LoraLinear:
            self.holds_live = True
            self.hold(self.rank)

    @torch.no_grad()
    def hold(self, rows: int) -> None:
        """Hold memory for `rows` components; the first ones stay, new ones are zero, their scale one."""
        for tensor, dim in self.component_parts():
            usual = 0.0 if dim or tensor.dim() > 1 or isinstance(tensor, nn.Parameter) else 1.0
            if isinstance(tensor, nn.Parameter):
                tensor.data = resized(tensor.data, dim, rows, usual)
            else:
                self.scale = resized(tensor, dim, rows, usual)

    def use_scale(self, value: float, *, trainable: bool) -> None:
        """Give every component a scale e = value, trained or set by edits."""
        tensor = torch.full((self.held,), value, device=self.lora_A.device)
        del self.scale
        if trainable:
            self.scale = nn.Parameter(tensor)
        else:
            self.register_buffer("scale", tensor)

    def learn_scale(self) -> None:
        """Begin to learn one scale of the whole module; it is one at the start."""
        self.scale_logit = nn.Parameter(torch.zeros((), device=self.lora_A.device))

    def module_scale(self) -> Tensor | None:
        """Return the learned scale of the module, (), from 0 to 2; None where none is learned."""
        return None if self.scale_logit is None else gate_of(self.scale_logit)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, ..., d_in) to (batch, ..., d_out)."""
        if not self.enabled:
            return self.base_layer(x)
        output = self._adapted(x)
        if self.sketch is not None and self.training:
            self.sketch.record(x, output)
        return output

    def _adapted(self, x: Tensor) -> Tensor:
        """Return the frozen map and the update, in one product where its kind is known."""
        live = self.rank
        dropped = self._dropped(x) if self.training and self.dropout > 0.0 and live else None
        scaling = self.scaling if dropped is None else self.scaling / (1 - self.dropout)
        scale = self.factors(live)
        gate = self.gate(live)
        frozen = self._frozen(x) if self.fused and not torch._C._are_functorch_transforms_active() else None
        if frozen is None:
            return self.base_layer(x) + self._update(x, live, scaling, scale, gate, dropped)
        return low_rank_linear(
            x,
            frozen,
            self.lora_A,
            self.lora_B,
            live=live,
            scaling=scaling,
            scale=scale,
            gate=gate,
            dropped=dropped,
        )

    def _update(
        self, x: Tensor, live: int, scaling: float, scale: Tensor | None, gate: Tensor | None, dropped: Tensor | None
    ) -> Tensor:
        """Return the update alone, in operations that every transform of torch knows."""
        if dropped is not None:
            x = torch.where(zero_(torch.ones_like(x, dtype=torch.bool), dropped), x, 0.0)
        inner = F.linear(x, self.lora_A[:live])
        if gate is not None:
            inner = inner * _by_row(gate, x)
        factor = scaling if scale is None else scaling * scale
        return F.linear(inner * factor, self.lora_B[:, :live])

    def added(self, x: Tensor, output: Tensor) -> Tensor:
        """Return what the adapter adds to the frozen map of x, where `output` is what a forward in eval mode gave."""
        return self._update(x, self.rank, self.scaling, self.factors(self.rank), self.gate(self.rank), None)

    def _frozen(self, x: Tensor) -> Frozen | None:
        """Return the frozen map in the precision of this forward, or None where only the module itself knows it.

        Autocast casts frozen weights again in every forward; here the copy is kept, half as large as the weights, until
        they change.
        """
        base = self.base_layer
        weight: Tensor = base.weight  # pyright: ignore
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        plain = linear_features(base) and type(base).__module__ in KNOWN and not weight.requires_grad
        if not plain or base._forward_hooks or base._forward_pre_hooks:
            return None
        bias: Tensor | None = base.bias  # pyright: ignore
        key = (dtype, weight.data_ptr(), weight._version, None if bias is None else bias._version)
        if self._cast is None or self._cast[0] != key:
            with torch.inference_mode(False), torch.no_grad():  # an evaluation may cast, training continues with it
                cast = None if bias is None else bias.to(dtype)
                self._cast = (key, Frozen(self.frozen_weight().to(dtype), cast, not isinstance(base, nn.Linear)))
        return self._cast[1]

    def frozen_weight(self) -> Tensor:
        """Return the weight the update is added to, as the base's is: for LoRA the base's own."""
        return self.base_layer.weight  # pyright: ignore - linear by construction

    def copied_bytes(self) -> int:
        """Return the bytes of the copy that computes in another precision than the frozen weights are in."""
        if self._cast is None:
            return 0
        frozen, base = self._cast[1], self.base_layer
        copies = [
            t for t, own in ((frozen.weight, base.weight), (frozen.bias, base.bias)) if t is not None and t is not own
        ]
        return sum(tensor.numel() * tensor.element_size() for tensor in copies)

    def factors(self, live: int) -> Tensor | None:
        """Return the factor of each of the first `live` components, (live,), or None where all are one."""
        return None if self.scale is None else self.scale[:live]

    def gate(self, live: int) -> Tensor | None:
        """Return factors for equal parts of the rows, (parts,) for all components or (live, parts), or None."""
        if self.gates is not None:
            return self.gates.read(live)
        scale = self.module_scale()
        return None if scale is None else scale.reshape(1)

    def low_rank(self) -> tuple[Tensor, Tensor]:
        """Return A, (rank, d_in), and B, (d_out, rank), with factors and scale in B: the update is scaling · B A.

        A method whose update has no such form raises NotMergeableError.
        """
        A, B = self.lora_A[: self.rank], self.lora_B[:, : self.rank]
        for factor in (self.factors(self.rank), self.module_scale()):
            B = B if factor is None else B * factor
        return A, B

    def peft_forms(self) -> dict[str, dict[str, Tensor]]:
        """Return the formats of PEFT that can hold the module, with its tensors in each by their names below its own.

        Empty tensors: the module is as the base model's. No format: there is none for the update.

        Raises:
            NotMergeableError: where there is no one update at all.
        """
        A, B = self.low_rank()
        return {"LORA": {"lora_A.weight": A, "lora_B.weight": B} if len(A) else {}}

    def measured(self) -> tuple[Tensor | None, Tensor]:
        """Return A and B of the update whose norm and effective rank are recorded: those of `low_rank`.

        Where there is no low-rank form, None and the update over the scaling, (d_out, d_in).
        """
        return self.low_rank()

    def delta_weight(self) -> Tensor:
        """Return what the frozen weight lacks, scaling · B diag(factors) A, (d_out, d_in); gates count as one."""
        A, B = self.low_rank()
        return self.scaling * (B @ A)

    def delta_bias(self) -> Tensor | None:
        """Return what the frozen bias lacks, (d_out,); LoRA has nothing."""
        return None

    def active_rank_on_device(self) -> int | Tensor:
        """Return the components that reach the output: packed and with a factor other than zero.

        Where there are factors it is a number on their device, (), so that nothing waits for it.
        """
        factors = self.factors(self.rank)
        return self.rank if factors is None else (factors != 0).sum()

    def idle(self) -> list[int]:
        """Return the components that can go and leave the function as it is: those whose scale is zero."""
        return [] if self.scale is None else (self.scale[: self.rank] == 0).nonzero().flatten().tolist()

    def active_rank(self) -> int:
        """Return `active_rank_on_device` as a plain number; with factors this waits for the device."""
        return int(self.active_rank_on_device())

    def active_parts(self) -> list[tuple[Tensor, int | Tensor]]:
        """Return the trained tensors with how many of their numbers reach the output: rank · d_in and rank · d_out.

        A method with tensors of its own adds them. A tensor that several modules share is counted once. Counts may be
        on the device, as in `active_rank_on_device`.
        """
        rank = self.active_rank_on_device()
        parts: list[tuple[Tensor, int | Tensor]] = [
            (self.lora_A, rank * self.info.d_in),
            (self.lora_B, rank * self.info.d_out),
        ]
        return parts if self.scale_logit is None else [*parts, (self.scale_logit, 1)]

    def component_parts(self) -> list[tuple[Tensor, int]]:
        """Return the tensors that hold something of each component, with the dimension that counts components."""
        parts: list[tuple[Tensor, int]] = [(self.lora_A, 0), (self.lora_B, 1)]
        return parts if self.scale is None else [*parts, (self.scale, 0)]

    def outer_tensors(self) -> list[Tensor]:
        """Return the tensors that the update is linear in, all at once: twice as large, they double it."""
        return [self.lora_B]

    def rescaled(self, factor: float) -> None:
        """Do what is left to do once the outer tensors were multiplied by a factor; LoRA has nothing."""

    def packed(self) -> None:
        """Do what is left to do once components have gone and the others moved up; LoRA has nothing."""

    def allocated_parameters(self) -> int:
        """Return the adapter's parameters that memory is held for, in use or not; a method may hold others."""
        own = (tensor for tensor in self.own_tensors().values() if tensor.requires_grad)
        return self.held * self.info.cost + sum(tensor.numel() for tensor in own)

    def loaded(self) -> None:
        """Do what is left to do once a saved state was loaded; LoRA has nothing."""

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """Return the trainable tensors by their own names."""
        return {name: tensor for name, tensor in self.named_parameters(recurse=False) if tensor.requires_grad}

    def own_tensors(self) -> dict[str, Tensor]:
        """Return what a method keeps beside A, B and scale, parameters and buffers: checkpoints carry them whole."""
        named = [*self.named_parameters(recurse=False), *self.named_buffers(recurse=False)]
        return {name: tensor for name, tensor in named if name not in ("lora_A", "lora_B", "scale")}

    def _dropped(self, x: Tensor) -> Tensor:
        """Return what the update does not see of x, from the module's own stream."""
        if self.streams is None:
            return torch.rand(x.shape, device=x.device) < self.dropout
        return self.streams.dropped(self.info.name, x, self.dropout)


def _by_row(gate: Tensor, x: Tensor) -> Tensor:
    """Return gates of equal parts of the rows so that they broadcast over (batch, ..., live)."""
    if x.dim() == 3 and gate.shape[-1] == x.shape[0]:  # one a sequence: a graph of any batch and length knows it
        return gate.t().unsqueeze(1) if gate.dim() == 2 else gate.view(-1, 1, 1)
    rows = x.numel() // x.shape[-1]
    return gate.t().repeat_interleave(rows // gate.shape[-1], 0).view(*x.shape[:-1], -1)
