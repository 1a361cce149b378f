"""What a step costs beside time: floating-point operations, by formula and counted, and the memory at its peak."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dynlora.engine.data.batches import BatchOrder
from dynlora.engine.loop.trainer import Trainer
from dynlora.engine.model.gates import FEATURES
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.strategy import Strategy
from dynlora.training.preflight import saved_bytes

MIB = 2**20


class SeenInputs:
    """What every linear module was given in a forward: tokens, and whether a gradient goes back through it."""

    def __init__(self, model: nn.Module) -> None:
        """Hook into the adapted modules and the other linear ones that are no part of them."""
        inner = {id(module.base_layer) for module in model.modules() if isinstance(module, LoraLinear)}
        self.seen: dict[nn.Module, tuple[int, bool]] = {}
        self._handles = [
            module.register_forward_pre_hook(self._see)
            for module in model.modules()
            if isinstance(module, LoraLinear | nn.Linear) and id(module) not in inner
        ]

    def _see(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.seen[module] = (args[0].numel() // args[0].shape[-1], args[0].requires_grad)

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()


def flops(trainer: Trainer, order: BatchOrder) -> dict[str, float]:
    """Take one step that is recorded nowhere; return its floating-point operations, one multiply-add being two.

    Keys: `counted` by torch's counter, which sees matrix products; by formula `frozen` (the frozen linear modules and
    the head), `adapters`, `gates`, `scoring` (elementwise: the counter does not see it), `attention` and their sum
    `formula`; and `to_be_counted`, what the counter is to find: the matrix products of these. Attention is among them
    where torch splits it into products, as with dropout on a CPU, and not where it is one fused operation.
    """
    inputs = SeenInputs(trainer.model)
    with FlopCounterMode(display=False) as counter:
        trainer.probe_step(order)
    inputs.remove()
    batch, width = _shape(trainer, order)
    counts = {"counted": float(counter.get_total_flops()), "frozen": 0.0, "adapters": 0.0}
    for module, (tokens, back) in inputs.seen.items():
        if isinstance(module, LoraLinear):
            info = module.info
            counts["frozen"] += 2 * tokens * info.d_in * info.d_out * (1 + back)
            # A x and B a, the gradients of A, B and a; that of x only where something in front of it learns
            counts["adapters"] += 2 * tokens * module.rank * ((2 + back) * info.d_in + 3 * info.d_out)
        elif isinstance(module, nn.Linear):
            learned = module.weight.requires_grad
            counts["frozen"] += 2 * tokens * module.weight.numel() * (1 + learned + back)
    counts |= _gates(trainer, batch, width)
    scored = type(trainer.strategy).observe is not Strategy.observe
    counts["scoring"] = float(sum(2 * m.lora_B.numel() for m in trainer.adapters)) if scored else 0.0
    config: Any = trainer.model.config
    # QKᵀ and PV forward, and four products of that size backward
    counts["attention"] = 6.0 * 2 * batch * width**2 * config.hidden_size * config.num_hidden_layers
    counts["formula"] = sum(counts[key] for key in ("frozen", "adapters", "gates", "scoring", "attention"))
    batched = sum(n for op, n in counter.get_flop_counts()["Global"].items() if str(op) in ("aten.bmm", "aten.baddbmm"))
    split = batched > counts["gate_products"]
    counts["to_be_counted"] = (
        sum(counts[key] for key in ("frozen", "adapters", "gate_products")) + split * counts["attention"]
    )
    return counts


def _shape(trainer: Trainer, order: BatchOrder) -> tuple[int, int]:
    """Return (batch, padded tokens) of the step just taken."""
    ids = trainer.tokens.batch(order[trainer.step - 1])["input_ids"]
    return ids.shape[0], ids.shape[1]


def _gates(trainer: Trainer, batch: int, width: int) -> dict[str, float]:
    """Return operations of the gates: all, and the matrix products among them."""
    gates = trainer.adapters.gates
    if gates is None:
        return {"gates": 0.0, "gate_products": 0.0}
    d = gates.projection.shape[0] // 2
    modules = len(trainer.adapters)
    # means and mean squares over the tokens, the projection, u · φ and its gradient
    products = 2.0 * batch * (2 * width * d + 2 * d * FEATURES + 2 * FEATURES * modules)
    # squares of the embeddings; the gate times s, and its gradient summed over tokens and components
    rest = batch * width * (d + sum(4.0 * module.rank for module in trainer.adapters))
    return {"gates": products + rest, "gate_products": products}


def memory(trainer: Trainer, order: BatchOrder) -> dict[str, float]:
    """Take one step and return the memory of its peak, MiB.

    On an accelerator what its allocator says; on a CPU weights, gradients and moments, and what autograd keeps for the
    backward pass, counted tensor by tensor.
    """
    device = trainer.accelerator.device
    trainer.model.train()  # as the loop does
    if device.type == "cuda":
        trainer.probe_step(order)  # the moments exist from here on
        torch.cuda.reset_peak_memory_stats(device)
        trainer.probe_step(order)
        return {"total": torch.cuda.max_memory_allocated(device) / MIB}
    with saved_bytes(trainer.model) as saved:
        trainer.probe_step(order)
    parts = {
        "weights": sum(p.numel() * p.element_size() for p in trainer.model.parameters()),
        "gradients and moments": 12 * sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "kept for backward": saved[0],
    }
    return {"total": sum(parts.values()) / MIB, **{name: value / MIB for name, value in parts.items()}}
