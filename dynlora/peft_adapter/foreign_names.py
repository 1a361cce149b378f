"""Tensor names of other formats: kohya's, diffusers' and mlx-lm's, recognised and turned into modules.

kohya joins the words of a module's name with underscores, which cannot be undone without knowing which words hold an
underscore themselves: `WORD` fits those of transformers, diffusers and the original Stable Diffusion and Flux code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

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
"""Words of module names that hold an underscore."""


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
