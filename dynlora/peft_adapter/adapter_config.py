"""`adapter_config.json`: what of it says how strongly an adapter acts."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
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

MOST_ALPHA = 1e300
"""Of lora_alpha; above, no scaling is a number."""

_DEFAULTS = {"LORA": ("r", 8, 8.0), "ADALORA": ("init_r", 12, 8.0)}
"""PEFT's: key of the rank a module starts with, its default, the default of lora_alpha."""

_PLAIN_PATTERN = re.compile(r"\^?(?:[\w .-]|\\\.)+\Z")

MATCHING_S = 5.0
"""Most that regular expressions of an adapter may take."""

_MATCHER = """
import json, re, sys
form, patterns, names = json.load(sys.stdin)
match = re.fullmatch if form == "{}" else re.match
json.dump([[bool(match(form.format(pattern), name)) for name in names] for pattern in patterns], sys.stdout)
"""


@dataclass(frozen=True)
class Settings:
    """What an adapter's configuration says, as far as it is asked for.

    Attributes:
        peft_type: one of `FORMATS`.
        base_model: what it was trained on; text of its author.
        start_rank: rank each module started with.
        alpha: lora_alpha, where no pattern says otherwise.
        alphas: lora_alpha by pattern, see `first_fitting`.
        is_rank_stabilised: the update is divided by the root of the rank (rsLoRA).
        is_decomposed: the base weights' columns are scaled too (DoRA), which needs the base model to be seen.
    """

    peft_type: str
    base_model: str
    start_rank: int
    alpha: float
    alphas: Mapping[str, Any]
    is_rank_stabilised: bool
    is_decomposed: bool

    def scalings(self, ranks: Mapping[str, int]) -> dict[str, float]:
        """Return the factor s of each module's update s · B A.

        LoRA: alpha / r, rsLoRA: alpha / √r, with r the components stored. AdaLoRA: alpha / (r₀ + 1e-5), with r₀ the
        rank it started with, whatever was pruned since.

        Args:
            ranks: components that the file holds of each module; names are without PEFT's prefix.

        Raises:
            AdapterError: when a pattern cannot be matched, or what it gives is no number.
        """
        if self.peft_type == "ADALORA":
            alpha = self.alpha if self.alpha > 0 else float(self.start_rank)
            return dict.fromkeys(ranks, alpha / (self.start_rank + ADALORA_EPSILON))
        patterns = first_fitting("alpha_pattern", self.alphas, list(ranks))
        alphas = dict.fromkeys(ranks, self.alpha) | {
            module: _number(f"alpha_pattern.{printable(pattern)}", self.alphas[pattern], MOST_ALPHA)
            for module, pattern in patterns.items()
        }
        roots = {module: math.sqrt(rank) if self.is_rank_stabilised else rank for module, rank in ranks.items()}
        return {module: alphas[module] / root if root else 0.0 for module, root in roots.items()}


def first_fitting(key: str, patterns: Iterable[str], modules: Sequence[str]) -> dict[str, str]:
    """Return the first pattern that fits each module, as PEFT looks for it; modules without one are left out.

    A pattern is a regular expression of a module's name, or of its end after a dot.

    Args:
        key: of the configuration that holds them, for messages.
        patterns: in the order of the file.
        modules: their names.

    Raises:
        AdapterError: when a pattern cannot be matched.
    """
    places = {pattern: place for place, pattern in enumerate(patterns)}
    plain = {pattern.replace("\\.", "."): pattern for pattern in reversed(places) if _PLAIN_PATTERN.match(pattern)}
    others = [pattern for pattern in places if not _PLAIN_PATTERN.match(pattern)]
    rows = fits(key, others, modules, r"(.*\.)?({})$")
    fitting = {
        module: [plain[end] for end in _ends(module) if end in plain]
        + [pattern for pattern, row in zip(others, rows, strict=True) if row[i]]
        for i, module in enumerate(modules)
    }
    return {module: min(some, key=places.__getitem__) for module, some in fitting.items() if some}


def has_expressions(patterns: Iterable[str]) -> bool:
    """Say whether a pattern is more than a name."""
    return not all(_PLAIN_PATTERN.match(pattern) for pattern in patterns)


def _ends(module: str) -> list[str]:
    """Return the plain patterns that fit a module: its name, the ends of it after a dot, and the whole of it."""
    parts = module.split(".")
    return [f"^{module}", *(".".join(parts[start:]) for start in range(len(parts)))]


def fits(key: str, patterns: Sequence[str], names: Sequence[str], form: str = "{}") -> list[list[bool]]:
    """Say of each regular expression which names it fits; untrusted, they run in a process that is ended when slow.

    Args:
        key: of the configuration that holds them, for messages.
        patterns: the expressions.
        names: what they are matched with.
        form: expression that each is put into, which fits the beginning of a name; by default each fits a whole name.

    Raises:
        AdapterError: when one is no regular expression, or they take longer than `MATCHING_S`.
    """
    if not patterns:
        return []
    task, command = json.dumps([form, patterns, names]), [sys.executable, "-I", "-S", "-c", _MATCHER]
    try:
        run = subprocess.run(command, input=task, capture_output=True, text=True, timeout=MATCHING_S, check=True)
    except subprocess.SubprocessError as error:
        is_slow = isinstance(error, subprocess.TimeoutExpired)
        what = f"takes over {MATCHING_S:g} s to match" if is_slow else "is no regular expression"
        raise AdapterError(
            f"{CONFIG_NAME}: {key} {printable(', '.join(patterns))} {what}; name modules there"
        ) from None
    return json.loads(run.stdout)


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
    return Settings(
        peft_type,
        clean_text(str(values.get("base_model_name_or_path") or "")),
        max(1, round(_number(rank_key, values.get(rank_key, rank)))),
        _number("lora_alpha", values.get("lora_alpha", alpha), MOST_ALPHA),
        patterns,
        bool(values.get("use_rslora")),
        bool(values.get("use_dora")),
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
        values = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise AdapterError(f"{path.name}: not a JSON object; give the file that PEFT wrote next to the tensors")
    return values


def _number(key: str, value: object, most: float = 1e9) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most:
        raise AdapterError(f"{CONFIG_NAME}: {key} is {printable(value)!r}; it must be a number of at most {most:.3g}")
    return float(value)
