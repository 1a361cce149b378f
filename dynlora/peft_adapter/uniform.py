"""Tensor names of other formats, and the uniform form of an adapter, which every engine reads alike.

Engines that serve adapters differ in how they read unequal ranks: some take one alpha / r for all, some need each
module of a type in every layer, some need one shape. In the uniform form r = lora_alpha = R, the largest rank; each A
has R rows and each B has R columns, zeros beyond its own; B is multiplied by its scaling s; a module without rank has
zeros. Then alpha / r = 1 whatever an engine reads, and the update of each module is s · B A as before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynlora.errors import AdapterError
from dynlora.peft_adapter.adapter_config import PREFIX
from dynlora.text import printable


def split_names(names: Iterable[str]) -> dict[str, tuple[str, int | None, str]]:
    """Return (stack of blocks, layer, kind) by module name; outside of the blocks ("", None, name)."""
    return {name: _parts(name) for name in names}


def places(names: Sequence[str]) -> list[tuple[int | None, str]]:
    """Return (layer, kind) of each module: the first number in its name, and what comes after it.

    A module without a number is outside of the blocks, and its kind is its name. Where a model has several stacks of
    blocks, as an encoder and a decoder, the kind begins with the stack's.
    """
    parts = [_parts(name) for name in names]
    owners = _owners([stack for stack, layer, _ in parts if layer is not None])
    return [(layer, kind if layer is None else f"{owners[stack]}{kind}") for stack, layer, kind in parts]


def _parts(name: str) -> tuple[str, int | None, str]:
    """Return (stack, layer, kind) of a name such as `encoder.layer.3.attention.query`."""
    words = name.split(".")
    place = next((i for i, word in enumerate(words) if word.isascii() and word.isdigit() and len(word) < 7), None)
    if place is None:
        return "", None, name
    stack, kind = ".".join(words[:place]), ".".join(words[place + 1 :])
    return stack, int(words[place]), kind or (words[place - 1] if place else "block")


def _owners(stacks: Sequence[str]) -> dict[str, str]:
    """Return what distinguishes the stacks, before each kind: nothing for one, its owner's name, else the whole."""
    distinct = list(dict.fromkeys(stacks))
    if len(distinct) < 2:
        return dict.fromkeys(distinct, "")
    short = [stack.split(".")[-2] if "." in stack else stack for stack in distinct]
    return {stack: f"{word if short.count(word) == 1 else stack}." for stack, word in zip(distinct, short, strict=True)}


Layout = Literal["peft", "kohya", "diffusers", "mlx", "unknown"]

_PATTERNS: Mapping[Layout, re.Pattern[str]] = {
    "kohya": re.compile(r"(?P<part>lora_[a-z]+\d?)_(?P<module>.+)\.(?P<factor>lora_down|lora_up|alpha)(?:\.weight)?\Z"),
    "diffusers": re.compile(
        r"(?P<part>unet|transformer|text_encoder|text_encoder_2)\.(?P<module>.+?)\."
        r"(?:lora\.|lora_)?(?P<factor>down|up|A|B|alpha)(?:\.weight)?\Z"
    ),
    "mlx": re.compile(r"(?P<part>)(?P<module>.+)\.lora_(?P<factor>a|b)\Z"),
    "peft": re.compile(
        r"(?P<part>)(?P<module>.+)\.lora_(?:embedding_)?(?P<factor>[ABE])(?:\.(?!bias\Z)[^.]+){0,2}\Z", re.DOTALL
    ),
}
"""How each format names a tensor, the most special first."""

_FACTOR = {"lora_down": "A", "lora_up": "B", "down": "A", "up": "B", "a": "A", "b": "B"}

WORD = re.compile(
    r"(?:(?:single_)?transformer|down|up|mid|middle|input|output|double|single)_blocks?|(?:in|out|emb)_layers|self_attn|"
    r"(?:add_)?[qkvo]_proj|(?:gate|up|down|out)_proj|proj_(?:in|out|mlp)|to_(?:add_)?(?:q|k|v|out)|(?:img|txt)_(?:attn|mlp|mod)|"
    r"linear_[12]|conv_(?:in|out|shortcut)|context_embedder|x_embedder|text_(?:model|projection)|time_emb(?:ed|edding|_proj)|label_emb|"
    r"lm_head"
)
"""Words of module names that hold an underscore, of transformers, diffusers and the code of Stable Diffusion and Flux.

kohya joins the words of a name with underscores, which cannot be undone without knowing these.
"""


@dataclass
class ForeignModule:
    """Names of a module's tensors.

    Attributes:
        name: of the module in its model.
        part: of a pipeline that it belongs to, such as `unet`; empty for a model alone.
        lora_A, lora_B: of the factors; empty where one is missing.
        lora_E: of AdaLoRA's third factor; empty where there is none.
        alpha: of the scalar; empty where there is none, then s = 1.
    """

    name: str
    part: str = ""
    lora_A: str = ""
    lora_B: str = ""
    lora_E: str = ""
    alpha: str = ""


@dataclass(frozen=True)
class ForeignNames:
    """What the names of a file say.

    Attributes:
        layout: whose names they are.
        modules: by name, after that of the part where there is one.
        others: names that are no factor.
    """

    layout: Layout
    modules: Mapping[str, ForeignModule]
    others: tuple[str, ...] = field(default=())


def read_names(names: Iterable[str], layout: Layout | None = None) -> ForeignNames:
    """Tell whose format the tensors of a file are named in, and which modules they belong to.

    Args:
        names: of the tensors.
        layout: whose names are looked for; None for those that most of them are, since biases and heads may be many.

    Raises:
        AdapterError: when two tensors are the same factor of a module.
    """
    names = list(names)
    layouts: dict[Layout, dict[str, re.Match[str] | None]] = {
        one: {name: pattern.match(name) for name in names}
        for one, pattern in _PATTERNS.items()
        if layout in (None, one)
    }
    best, matches = max(layouts.items(), key=lambda item: sum(match is not None for match in item[1].values()))
    return _modules(best if any(matches.values()) else "unknown", matches)


def _modules(layout: Layout, matches: Mapping[str, re.Match[str] | None]) -> ForeignNames:
    modules: dict[str, ForeignModule] = {}
    others: list[str] = []
    for name, match in matches.items():
        if match is None:
            others.append(name)
            continue
        module = with_dots(match["module"]) if layout == "kohya" else match["module"]
        module, part = module.removeprefix(PREFIX), match["part"].removeprefix("lora_")
        factor = _FACTOR.get(match["factor"], match["factor"])
        names = modules.setdefault(f"{part}.{module}" if part else module, ForeignModule(module, part))
        place = "alpha" if factor == "alpha" else f"lora_{factor}"
        if getattr(names, place):
            raise AdapterError(f"module {printable(module)} has {place} twice; keep one adapter")
        setattr(names, place, name)
    return ForeignNames(layout, modules, tuple(others))


def with_dots(joined: str) -> str:
    """Return a module's name that kohya joined with underscores, `self_attn_q_proj` as `self_attn.q_proj`."""
    rest, words = joined.split("_"), []
    while rest:
        size = next((n for n in (4, 3, 2) if WORD.fullmatch("_".join(rest[:n]))), 1)
        words.append("_".join(rest[:size]))
        rest = rest[size:]
    return ".".join(words)


Shape = tuple[int, int]
"""Of a module: input and output features."""


class Update(NamedTuple):
    """What an adapter adds to a module's weight: s · B A.

    Attributes:
        lora_A: (r, d_in).
        lora_B: (d_out, r).
        scaling: s.
    """

    lora_A: NDArray[Any]
    lora_B: NDArray[Any]
    scaling: float

    @property
    def shape(self) -> Shape:
        """Input and output features."""
        return self.lora_A.shape[1], self.lora_B.shape[0]


@dataclass(frozen=True)
class UniformAdapter:
    """An adapter whose modules all have one rank.

    Attributes:
        rank: R, at least 1.
        factors: A (R, d_in) and B (d_out, R) by module, the scaling in B, float32.
        padded: modules whose own rank is below R.
        filled: modules that had no update and have zeros.
    """

    rank: int
    factors: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    padded: tuple[str, ...]
    filled: tuple[str, ...]

    def config(self) -> dict[str, Any]:
        """Return what of PEFT's LoraConfig follows from the form."""
        return {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.rank,
            "lora_dropout": 0.0,
            "bias": "none",
            "use_rslora": False,
            "use_dora": False,
            "init_lora_weights": True,
            "rank_pattern": {},
            "alpha_pattern": {},
            "inference_mode": True,
        }


def uniform(updates: Mapping[str, Update], shapes: Mapping[str, Shape]) -> UniformAdapter:
    """Return an adapter in the uniform form.

    Args:
        updates: by module.
        shapes: of every module that shall be there, in their order; those without an update get zeros.

    Raises:
        AdapterError: when an update has no place among the modules, or no module has a rank above 0.
    """
    rank = max((len(update.lora_A) for update in updates.values()), default=0)
    if not rank:
        raise AdapterError("the adapter is empty, no module has a rank above 0; keep more of it")
    for name, update in updates.items():
        if shapes.get(name) != update.shape:
            raise AdapterError(f"module {name[:200]}: has no place in the base model; give the adapter's own base")
    factors = {name: _padded(updates.get(name), shape, rank) for name, shape in shapes.items()}
    padded = tuple(name for name in factors if name in updates and len(updates[name].lora_A) < rank)
    return UniformAdapter(rank, factors, padded, tuple(name for name in factors if name not in updates))


def _padded(update: Update | None, shape: Shape, rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return A and s · B with zeros up to a rank."""
    d_in, d_out = shape
    lora_A, lora_B = np.zeros((rank, d_in), np.float32), np.zeros((d_out, rank), np.float32)
    if update is not None:
        own = len(update.lora_A)
        lora_A[:own], lora_B[:, :own] = update.lora_A, update.scaling * update.lora_B
    return lora_A, lora_B


def own_components(lora_A: NDArray[Any], lora_B: NDArray[Any]) -> NDArray[np.bool_]:
    """Say of each component, (r,), whether it is more than padding: zeros in A and in B."""
    return np.logical_or(np.any(lora_A, axis=1), np.any(lora_B, axis=0))


def shapes_in_every_layer(shapes: Mapping[str, Shape], layers: int | None) -> dict[str, Shape]:
    """Return the modules with those of the same type in every other layer, in the order of layers.

    Args:
        shapes: of the modules that an adapter has.
        layers: of the base model; None where it is not known: those up to the last one named.
    """
    parts = split_names(shapes)
    stacks: dict[str, int] = {}
    kinds: dict[tuple[str, str], Shape] = {}
    for name, (stack, layer, kind) in parts.items():
        if layer is None:
            continue
        stacks[stack] = max(stacks.get(stack, 0), layer + 1)
        kinds.setdefault((stack, kind), shapes[name])
    if layers is not None and len(stacks) == 1:
        stacks = {stack: max(named, layers) for stack, named in stacks.items()}
    full = {
        f"{stack}.{layer}.{kind}": shape
        for stack, count in stacks.items()
        for layer in range(count)
        for (of, kind), shape in kinds.items()
        if of == stack
    }
    return full | dict(shapes)


def short_targets(targets: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return `target_modules` for some modules: last names where these fit no other module, else whole names.

    Args:
        targets: modules with an adapter.
        others: all further modules of the base model that a name could fit.
    """
    last: dict[str, list[str]] = {}
    for name in targets:
        last.setdefault(name.rpartition(".")[2], []).append(name)
    taken = {name.rpartition(".")[2] for name in others}
    return [short for name, whole in last.items() for short in (whole if name in taken else [name])]


def peft_tensors(adapter: UniformAdapter, prefix: str) -> dict[str, NDArray[np.float32]]:
    """Return the tensors as PEFT names them."""
    return {
        f"{prefix}{module}.lora_{letter}.weight": factor
        for module, factors in adapter.factors.items()
        for letter, factor in zip("AB", factors, strict=True)
    }
