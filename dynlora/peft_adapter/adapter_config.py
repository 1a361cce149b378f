"""`adapter_config.json`: what of it says how strongly an adapter acts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynlora.errors import AdapterError
from dynlora.peft_adapter.safetensors import open_adapter_file
from dynlora.text import clean_text, printable

CONFIG_NAME = "adapter_config.json"
PREFIX = "base_model.model."
"""What PEFT puts before the name of every tensor."""

MAX_BYTES = 4 * 2**20
FORMATS = ("LORA", "ADALORA")
"""Values of `peft_type` whose update is a product of small factors."""

ADALORA_EPSILON = 1e-5
"""What PEFT adds to the rank that AdaLoRA's update is divided by."""

_DEFAULTS = {"LORA": ("r", 8, 8.0), "ADALORA": ("init_r", 12, 8.0)}
"""PEFT's: key of the rank a module starts with, its default, the default of lora_alpha."""

_PLAIN_PATTERN = re.compile(r"\^?(?:[\w .-]|\\\.)+\Z")


@dataclass(frozen=True)
class Settings:
    """What an adapter's configuration says, as far as it is asked for.

    Attributes:
        peft_type: one of `FORMATS`.
        base_model: what it was trained on; text of its author.
        start_rank: rank each module started with.
        alpha: lora_alpha, where no pattern says otherwise.
        alphas: (position, lora_alpha) by pattern: the end of a module's name, or with `^` the whole; the first counts.
        is_rank_stabilised: the update is divided by the root of the rank (rsLoRA).
        is_decomposed: the base weights' columns are scaled too (DoRA), which needs the base model to be seen.
        unread: patterns of alpha that are regular expressions: untrusted ones are not run.
    """

    peft_type: str
    base_model: str
    start_rank: int
    alpha: float
    alphas: Mapping[str, tuple[int, float]]
    is_rank_stabilised: bool
    is_decomposed: bool
    unread: tuple[str, ...]

    def scaling(self, module: str, stored_rank: int) -> float:
        """Return the factor s of a module's update s · B A.

        LoRA: alpha / r, rsLoRA: alpha / √r, with r the components stored. AdaLoRA: alpha / (r₀ + 1e-5), with r₀ the
        rank it started with, whatever was pruned since.

        Args:
            module: its name, without PEFT's prefix.
            stored_rank: components that the file holds of it.
        """
        if self.peft_type == "ADALORA":
            alpha = self.alpha if self.alpha > 0 else float(self.start_rank)
            return alpha / (self.start_rank + ADALORA_EPSILON)
        if not stored_rank:
            return 0.0
        fitting = [self.alphas[name] for name in _patterns(module) if name in self.alphas]
        alpha = min(fitting)[1] if fitting else self.alpha
        return alpha / (math.sqrt(stored_rank) if self.is_rank_stabilised else stored_rank)


def _patterns(module: str) -> list[str]:
    """Return the plain patterns that fit a module: its name, the ends of it after a dot, and the whole of it."""
    parts = module.split(".")
    return [f"^{module}", *(".".join(parts[start:]) for start in range(len(parts)))]


def read_settings(folder: Path) -> Settings:
    """Read the configuration of an adapter folder.

    Raises:
        AdapterError: when it is missing, no JSON object, another kind of adapter, or says what cannot be.
    """
    return settings_of(read_object(folder / CONFIG_NAME))


def settings_of(values: Mapping[str, Any]) -> Settings:
    """Return what a configuration says.

    Raises:
        AdapterError: when it is of another kind of adapter, or says what cannot be.
    """
    peft_type = values.get("peft_type")
    if peft_type not in FORMATS:
        raise AdapterError(
            f"{CONFIG_NAME}: peft_type is {printable(peft_type)!r}; only {' and '.join(FORMATS)} adapters can be opened"
        )
    rank_key, rank, alpha = _DEFAULTS[peft_type]
    patterns = values.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise AdapterError(f"{CONFIG_NAME}: alpha_pattern is not an object of numbers by module; correct or remove it")
    alphas = {name: _number(f"alpha_pattern.{printable(name)}", value) for name, value in patterns.items()}
    return Settings(
        peft_type,
        clean_text(str(values.get("base_model_name_or_path") or "")),
        max(1, round(_number(rank_key, values.get(rank_key, rank)))),
        _number("lora_alpha", values.get("lora_alpha", alpha)),
        {name.replace("\\.", "."): (i, alphas[name]) for i, name in enumerate(alphas) if _PLAIN_PATTERN.match(name)},
        values.get("use_rslora") is True,
        values.get("use_dora") is True,
        tuple(name for name in alphas if not _PLAIN_PATTERN.match(name)),
    )


def whole_number(value: float) -> int | float:
    """Return an alpha as an integer where it is one: some engines take no other."""
    return int(value) if float(value).is_integer() else value


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file.

    Raises:
        AdapterError: when it is missing, too large, or no JSON object.
    """
    file, size = open_adapter_file(path)
    with file:
        if size > MAX_BYTES:
            raise AdapterError(f"{path.name}: {size:,} bytes are more than {MAX_BYTES:,}; give PEFT's own file")
        raw = file.read(MAX_BYTES + 1)
    try:
        values = json.loads(raw.decode("utf-8-sig"), parse_int=_whole)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise AdapterError(f"{path.name}: not a JSON object; give the file that PEFT wrote next to the tensors")
    return values


def _whole(digits: str) -> int | float:
    """Return a whole number; one of more digits than any that counts here as the infinity that is refused."""
    return int(digits) if len(digits) < 100 else math.inf


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e9:
        raise AdapterError(f"{CONFIG_NAME}: {key} is {printable(value)!r}; it must be a number of at most 1e9")
    return float(value)
