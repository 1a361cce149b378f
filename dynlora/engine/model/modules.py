"""Which modules of a transformer are adapted: found by type and place, described once, never parsed again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from dynlora.errors import ConfigError

ROOM = 4
"""Components that every module can come to hold: at rank 1 a factor alone would leave no room for modules to differ."""


ALL, ATTENTION, MLP = "all", "attention", "mlp"

KINDS = (ATTENTION, MLP, ALL)
"""What `adapter.targets` may hold beside endings of names."""

PARTS = {ATTENTION: r"attn|attention", "mixer": r"mixer|mamba|ssm|recurrent"}
"""How the parts of a block are told by the names in it; what is left belongs to the MLP."""


@dataclass(frozen=True)
class ModuleInfo:
    """An adapted linear module.

    Attributes:
        name: dotted name inside the model.
        layer: index of its block, None outside of blocks.
        kind: what it computes, such as query or output.dense: its name inside the block.
        d_in: input features.
        d_out: output features.
    """

    name: str
    layer: int | None
    kind: str
    d_in: int
    d_out: int

    @property
    def cost(self) -> int:
        """Parameters of one component: d_in + d_out."""
        return self.d_in + self.d_out


def rank_limit(module: ModuleInfo, rank: int, uniform: int, growth_limit: float) -> int:
    """Return how many components a module may come to hold: its own, or `growth_limit` uniform ranks, at least `ROOM`.

    Never more than the smaller of its dimensions, unless it starts with more.
    """
    return max(rank, min(max(round(growth_limit * uniform), ROOM), module.d_in, module.d_out))


def linear_features(module: nn.Module) -> tuple[int, int] | None:
    """Return (d_in, d_out) of a linear module, or None for any other; Conv1D is GPT-2's transposed linear."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    return None


def find_modules(model: nn.Module, targets: Sequence[str] | None = None, head: Sequence[str] = ()) -> list[ModuleInfo]:
    """Return the linear modules to adapt, in order of definition.

    A target is the dotted name of a linear module, or its ending. One that is neither may be a kind (`KINDS`):
    `attention`, `mlp`, or `all`, which is also what no targets mean: every linear module inside a block, a block being
    an entry of an outermost `ModuleList`. The head and the embeddings are never adapted.

    Raises:
        ConfigError: when a target matches no linear module, or the head or an embedding; or the model has none.
    """
    linears = {
        name: size
        for name, module in model.named_modules()
        if (size := linear_features(module)) and not any(_ends_within(name, part) for part in head)
    }
    infos = describe_modules(model, linears)
    meant = [_meant_by(target, infos, model, head) for target in targets or (ALL,)]
    chosen = [info for info in infos if any(info in matching for matching in meant)]
    if not chosen:
        raise ConfigError(
            f"adapter.targets={targets}: the model {type(model).__name__} has no linear module in its blocks; "
            f"use some of {', '.join(list(linears)[:5]) or 'another model'}"
        )
    return chosen


def by_names(names: Sequence[str]) -> str:
    """Return names of modules for a message: the same in several blocks once, with * in the place of their number."""
    kinds = list(dict.fromkeys(re.sub(r"\d+", "*", name) for name in names))
    return ", ".join(kinds[:6]) + (f" and {len(kinds) - 6} more" if len(kinds) > 6 else "")


def check_weights(model: nn.Module, modules: Sequence[ModuleInfo], setting: str) -> None:
    """Refuse modules whose weights do not be as d_in · d_out floating-point numbers, as those of quantised ones.

    Args:
        model: holds the modules.
        modules: those to look at.
        setting: the setting that needs such weights, and why, as the sentence begins.

    Raises:
        ConfigError: naming the first such module.
    """
    for info in modules:
        weight: Tensor = model.get_submodule(info.name).weight  # pyright: ignore - linear by construction
        narrow = not weight.is_floating_point() or weight.element_size() < 2
        if narrow or weight.numel() != info.d_in * info.d_out:
            kind = str(weight.dtype).removeprefix("torch.")
            raise ConfigError(
                f"{setting}, and the weight of {info.name} has {weight.numel():,} numbers of type {kind}, not "
                f"{info.d_in * info.d_out:,} in floating point; load the model without quantisation"
            )


def head_names(model: PreTrainedModel, fresh: Sequence[str] = ()) -> list[str]:
    """Return the dotted names of the modules trained in full.

    These are the children beside the pretrained part (the classification head), and the owners of weights that the
    checkpoint did not hold (`fresh`), such as a pooler that was never trained. A bare encoder is that part itself.
    """
    backbone = getattr(model, model.base_model_prefix, None)
    names = [
        name
        for name, child in model.named_children()
        if backbone is not None and child is not backbone and any(True for _ in child.parameters())
    ]
    for weight in fresh:
        owner = weight.rpartition(".")[0]
        if owner and not any(_ends_within(owner, name) for name in names):
            names.append(owner)
    return names


def describe_modules(model: nn.Module, linears: dict[str, tuple[int, int]]) -> list[ModuleInfo]:
    """Give each linear module its block index and kind; the kind names its stack where a model has two of them."""
    stacks = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outermost = [name for name in stacks if not any(name.startswith(other + ".") for other in stacks)]
    used = [stack for stack in outermost if any(name.startswith(stack + ".") for name in linears)]
    infos = []
    for name, (d_in, d_out) in linears.items():
        stack = next((stack for stack in used if name.startswith(stack + ".")), None)
        if stack is None:
            infos.append(ModuleInfo(name, None, name, d_in, d_out))
            continue
        index, _, kind = name[len(stack) + 1 :].partition(".")
        owner = stack.split(".")[-2] + "." if len(used) > 1 and "." in stack else ""
        infos.append(ModuleInfo(name, int(index), owner + (kind or stack.rpartition(".")[2]), d_in, d_out))
    return infos


def _ends_with(name: str, target: str) -> bool:
    """Say whether a dotted name is `target` or ends with it at a dot."""
    return name == target or name.endswith("." + target)


def _ends_within(name: str, parent: str) -> bool:
    """Say whether `name` is `parent` or is in it."""
    return name == parent or name.startswith(parent + ".")


def _meant_by(target: str, infos: Sequence[ModuleInfo], model: nn.Module, head: Sequence[str]) -> list[ModuleInfo]:
    """Return the modules that a target names: by the ending of their names, or where none has it, by their kind.

    Raises:
        ConfigError: when there is none, or it is the head or an embedding.
    """
    named = [info for info in infos if _ends_with(info.name, target)]
    _check_ends(target, [info.name for info in named], model, head)
    blocks = [info for info in infos if info.layer is not None]
    if named or (target == ALL and not blocks):
        return named
    meant = blocks if target == ALL else [info for info in blocks if _part_of(info, model) == target]
    if not meant:
        kinds = sorted({info.kind for info in blocks or infos})
        lacks = f"the model has no {target} modules" if target in KINDS else "no linear module has this name"
        raise ConfigError(f"adapter.targets={target}: {lacks}; the model has {', '.join(kinds[:20]) or 'none'}")
    return meant


def _check_ends(target: str, named: Sequence[str], model: nn.Module, head: Sequence[str]) -> None:
    """Refuse a target that is the head or an embedding.

    Raises:
        ConfigError: naming the target and why.
    """
    output, tokens = (getattr(model, get, lambda: None)() for get in ("get_output_embeddings", "get_input_embeddings"))
    places = {module: name for name, module in model.named_modules()}
    others = [name for module, name in places.items() if isinstance(module, nn.Embedding) and _ends_with(name, target)]
    reason = None
    if output is not None and places.get(output) in named:
        is_tied = tokens is not None and output.weight is tokens.weight
        reason = (
            "is the output head, whose weight is that of the embeddings too: a merged adapter would change both"
            if is_tied
            else "is the output head, which takes no adapter"
        )
    elif not named and any(_ends_with(name, target) or _ends_within(target, name) for name in head):
        reason = "is the head, which is trained in full and takes no adapter"
    elif not named and others:
        reason = "is an embedding, which takes no adapter"
    if reason is not None:
        raise ConfigError(f"adapter.targets={target}: {reason}; leave it out, or use all")


def _part_of(info: ModuleInfo, model: nn.Module) -> str:
    """Return what part of its block a module belongs to: attention, mlp, or mixer for that of a state-space model.

    Told by the name of its stack, the names inside the block and the classes of the modules there.
    """
    inside = info.name.split(".")
    first = next(index for index, part in enumerate(inside) if part == str(info.layer))
    owners = [model.get_submodule(".".join(inside[:end])) for end in range(first + 2, len(inside))]
    around = " ".join([inside[max(0, first - 1)], *inside[first + 1 :], *(type(owner).__name__ for owner in owners)])
    return next((part for part, pattern in PARTS.items() if re.search(pattern, around, re.IGNORECASE)), MLP)
