"""What PEFT 0.21.2 does with an adapter folder: what it refuses, and which tensors it leaves out with a warning alone.

Without the base model it cannot be told whether modules and sizes are those of the model. PEFT 0.20, the lowest version
that the contracts accept, differs in 4 of 330 generated folders: it leaves out tensors whose names hold the adapter's,
reads `use_bdlora: false`, and does not use projections of VeRA that 0.21.2 uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dynlora.errors import AdapterError
from dynlora.peft_adapter.adapter_config import (
    CONFIG_NAME,
    FORMATS,
    PREFIX,
    TENSORS_NAME,
    first_fitting,
    fits,
    settings_of,
)
from dynlora.peft_adapter.read import AdapterHeader
from dynlora.text import printable

METHODS = re.compile(
    "ADALORA|ADAMSS|ADAPTION_PROMPT|BEFT|BOFT|C3A|CARTRIDGE|CPT|DELORA|FOURIERFT|FROD|GLORA|GRALORA|HIRA|HRA|IA3|LILY|"
    "LN_TUNING|LOHA|LOKR|LORA|MISS|MULTITASK_PROMPT_TUNING|OFT|OSF|POLY|PREFIX_TUNING|PROMPT_TUNING|PSOFT|PVERA|P_TUNING|"
    "RANDLORA|ROAD|SHIRA|TINYLORA|TRAINABLE_TOKENS|UNILORA|VBLORA|VERA|WAVEFT|XLORA"
)
"""Values of `peft_type`."""

TASKS = ("SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
CLASSIFIERS = frozenset({"classifier", "score"})
HEADS = {"SEQ_CLS": CLASSIFIERS, "TOKEN_CLS": CLASSIFIERS, "QUESTION_ANS": frozenset({"qa_outputs"})}
"""Modules that PEFT trains in full by task, one of them at least."""

GUESSED = ({"q_proj", "v_proj"}, {"query_key_value"}, {"query", "value"}, {"q", "v"}, {"c_attn"})
"""Last names of the modules that PEFT takes in most types of model where the configuration names none."""

VARIANTS = ("velora_config", "kasa_config", "arrow_config", "use_bdlora", "monteclora_config")
LINEAR = re.compile(r"(?:[qkvo]|gate|up|down|out)_proj|query|key|value|dense|fc\d?|lm_head|classifier|score")
"""Last names of modules that are never convolutions."""

FACTOR_NAMES = {
    "LORA": (("A.weight", "B.weight"), ("A.default.weight", "B.default.weight"), ("embedding_A", "embedding_B")),
    "ADALORA": (("A", "B", "E"), ("A.default", "B.default", "E.default")),
}
"""What a module's factors are called after `lora_`, by method."""

_INITS = re.compile(r"(?i:gaussian|olora|mica)|pissa(?:_niter_\d+)?|eva|orthogonal|lora_ga|loftq|True|False|None|0|")
_NAME = re.compile(r"(?!base_model\.)(?:[\w-]+\.)*[\w-]+")


def _is_list(value: object) -> bool:
    return isinstance(value, list) and not any(isinstance(item, list | dict) for item in value)


def _are_names(value: object) -> bool:
    return not value or isinstance(value, str) or _is_list(value)


_NAMES = "names, or a regular expression"
RULES: Mapping[str, tuple[Callable[[Any], object], str]] = {
    "task_type": (lambda value: value is None or value in TASKS, f"one of {', '.join(TASKS)}"),
    "target_modules": (lambda value: value is None or (value and _are_names(value)), _NAMES),
    "exclude_modules": (_are_names, _NAMES),
    "modules_to_save": (lambda value: value is None or _is_list(value), "a list of names"),
    "bias": (lambda value: value in ("none", "all") or str(value).endswith("_only"), "none, all or lora_only"),
    "lora_dropout": (lambda value: isinstance(value, int | float) and value <= 1, "a number up to 1"),
    "layers_to_transform": (lambda value: not isinstance(value, str), "a list of layers"),
    "init_lora_weights": (lambda value: _INITS.fullmatch(str(value)), "an initialisation that it loads"),
    "megatron_config": (lambda value: not value, "left out: it needs megatron"),
    **dict.fromkeys(
        (*VARIANTS, "eva_config", "corda_config", "lora_ga_config"),
        (lambda value: value is None or isinstance(value, dict), "an object of settings"),
    ),
}
"""Settings, what PEFT takes of each, and that in words; methods other than LoRA have the first two."""


def faults(header: AdapterHeader) -> Iterator[tuple[bool, str]]:
    """Return what PEFT does not read right: whether it raises an error, and why."""
    if reason := next(_of_config(header), ""):
        yield True, reason
    elif header.peft_type not in FORMATS:
        for name in header.infos:
            if ".lora_" in name or ("." in name and not name.startswith("base_model.")):
                yield False, f"{header.peft_type} has no place for tensor {printable(name)}"
    elif header.layout != "peft":
        yield False, "none of its tensors is a factor of PEFT's, and they are left out"
    else:
        try:
            yield from _of_tensors(header)
        except AdapterError as error:
            yield True, str(error)


def _of_config(header: AdapterHeader) -> Iterator[str]:
    """Faults of the configuration, and of files that are missing."""
    config, method = header.config, header.config.get("peft_type")
    if not config or header.file != TENSORS_NAME:
        yield f"{TENSORS_NAME if config else CONFIG_NAME} is missing"
    elif header.has_mark:
        yield f"{CONFIG_NAME} begins with a byte order mark"
    elif not isinstance(method, str) or not METHODS.fullmatch(method):
        yield f"peft_type={printable(method)}: it does not know this method"
    else:
        for key, (is_right, rule) in list(RULES.items())[: None if method in FORMATS else 2]:
            if key in config and not is_right(config[key]):
                yield f"{key}={printable(config[key])}: must be {rule}"
        if method in FORMATS:
            yield from _contradictions(config)
            yield from _announced(header)


def _contradictions(config: Mapping[str, Any]) -> Iterator[str]:
    """Settings that cannot be together."""
    layers, pattern = config.get("layers_to_transform"), config.get("layers_pattern")
    init = config.get("init_lora_weights", True)
    if isinstance(config.get("target_modules"), str) and (layers is not None or pattern is not None):
        yield "layers_to_transform and layers_pattern: must be left out where target_modules is a regular expression"
    if pattern and layers is None:
        yield "layers_pattern: needs layers_to_transform"
    if init == "loftq" and not config.get("loftq_config"):
        yield "init_lora_weights=loftq: needs loftq_config"
    if config.get("lora_bias") and (config.get("use_dora") or init not in (True, False)):
        yield "lora_bias: cannot be with use_dora, or with an initialisation of its own"
    if config["peft_type"] == "ADALORA":
        steps, start, end = (config.get(key) or 0 for key in ("total_step", "tinit", "tfinal"))
        if config.get("use_dora") or config.get("loftq_config") or steps <= 0 or start >= steps - end:
            yield "AdaLoRA: needs total_step above tinit + tfinal, and neither DoRA nor LoftQ"


def _announced(header: AdapterHeader) -> Iterator[str]:
    """Tensors that the configuration announces, PEFT asks for by name, and the file lacks."""
    config = header.config
    others = [name for name in header.names.others if name.startswith(PREFIX)]
    saved = _saved(config)
    for names in [saved & CLASSIFIERS, *({name} for name in saved - CLASSIFIERS)]:
        if names and not any(name in other for name in names for other in others):
            yield f"modules_to_save={printable(', '.join(names))}: the file holds no tensor of it"
    tokens = config.get("trainable_token_indices")
    counts = {header.infos[name].shape[0] for name in others if name.endswith("trainable_tokens_delta")}
    if tokens is not None and (not counts or (isinstance(tokens, list) and counts != {len(tokens)})):
        yield "trainable_token_indices: the file does not hold these tokens"


def _saved(config: Mapping[str, Any]) -> set[str]:
    """Return the names of modules that are trained in full."""
    return {str(name) for name in config.get("modules_to_save") or ()} | HEADS.get(str(config.get("task_type")), set())


def _of_tensors(header: AdapterHeader) -> Iterator[tuple[bool, str]]:
    """Faults of tensors, those that raise an error first."""
    modules, others = header.names.modules, header.names.others
    targets = _targeted(header, [*modules, *map(_owner, others)])
    misnamed = [name for name in modules if not _is_named(header, name)]
    for reason in _misfits(header, [name for name in modules if name in targets and name not in misnamed]):
        yield True, reason
    lost = [f"the factors of {printable(name)}, whose names it does not look for" for name in misnamed]
    if not header.config.get("target_parameters"):
        lost += [f"{printable(name)}, which the configuration does not name" for name in modules if name not in targets]
    lost += [f"tensor {printable(name)}" for name in others if not _has_place(header, name, targets)]
    for reason in lost:
        yield False, f"it leaves out {reason}, and says so in a warning alone"
    for reason in _drawn(header, targets):
        yield False, f"it draws {reason} at random, which the file does not hold"


def _misfits(header: AdapterHeader, modules: Sequence[str]) -> Iterator[str]:
    """Modules whose ranks differ from the configuration's, or cannot be."""
    config = header.config
    for module, rank in _ranks(header, modules).items():
        lora_A = header.names.modules[module].lora_A
        shape = header.infos[lora_A].shape
        if type(rank) is not int or rank <= 0:
            yield f"the rank of {printable(module)} is {printable(rank)}: must be a whole number above 0"
        elif shape[0] != rank:
            yield f"{printable(module)} has rank {shape[0]} in the file, and {printable(rank)} in the configuration"
        elif len(shape) != 2 and LINEAR.fullmatch(module.rpartition(".")[2]):
            yield f"the factors of {printable(module)} have {len(shape)} dimensions, as those of a convolution"
        elif config.get("init_lora_weights") == "orthogonal" and rank % 2:
            yield f"init_lora_weights=orthogonal: needs even ranks, and {printable(module)} has {rank}"
        elif config.get("lora_bias") and ".lora_embedding" in lora_A:
            yield f"lora_bias: {printable(module)} is an embedding, which has none"


def _ranks(header: AdapterHeader, modules: Sequence[str]) -> dict[str, Any]:
    """Return the rank that the configuration gives each module.

    Raises:
        AdapterError: when a pattern is no object or cannot be matched, or a scaling is no number.
    """
    config, is_adalora = header.config, header.peft_type == "ADALORA"
    own, alphas = config.get("rank_pattern", {}), config.get("alpha_pattern", {})
    if is_adalora and own is None:
        own = {}
    known = {f"{module}.lora_E" for module in modules}
    is_right = isinstance(own, dict) and (
        all(map(_is_list, own.values())) and set(own) <= known if is_adalora else isinstance(alphas, dict)
    )
    if not is_right:
        raise AdapterError("rank_pattern or alpha_pattern: must have a number by module")
    if is_adalora:
        ranks = {name.removesuffix(".lora_E"): sum(map(bool, components)) for name, components in own.items()}
        return dict.fromkeys(modules, config.get("init_r", 12)) | ranks
    settings_of(config).scalings(dict.fromkeys(modules, 1))
    patterns = first_fitting("rank_pattern", own, modules)
    return dict.fromkeys(modules, config.get("r", 8)) | {name: own[key] for name, key in patterns.items()}


def _is_named(header: AdapterHeader, module: str) -> bool:
    """Say whether a module's factors have the names that PEFT gives them."""
    one, start = header.names.modules[module], f"{PREFIX}{module}.lora_"
    ends = tuple(name.removeprefix(start) for name in (one.lora_A, one.lora_B, one.lora_E) if name)
    return ends in FACTOR_NAMES[header.peft_type] and _NAME.fullmatch(module) is not None


def _drawn(header: AdapterHeader, targets: set[str]) -> Iterator[str]:
    """What the base model gets and the file does not hold."""
    config, init = header.config, header.config.get("init_lora_weights", True)
    for module in header.names.modules:
        for key, tensor in (("use_dora", "lora_magnitude_vector"), ("lora_bias", "lora_B.bias")):
            if config.get(key) and f"{PREFIX}{module}.{tensor}" not in header.infos:
                yield f"{tensor} of {printable(module)}"
    named = config.get("target_modules")
    lacks_kind = isinstance(named, list) and not all(_fitting("target_modules", [one], targets) for one in named)
    if str(init).startswith("pissa_niter") or (not init and (header.missing or lacks_kind)):
        yield f"init_lora_weights={printable(init)}"


def _owner(name: str) -> str:
    """Return the module of the base model that a tensor belongs to."""
    return name.removeprefix(PREFIX).rpartition(".")[0].removesuffix(".base_layer")


def _has_place(header: AdapterHeader, name: str, targets: set[str]) -> bool:
    """Say whether PEFT has a place for a tensor that is no factor."""
    config, place = header.config, name.removeprefix(PREFIX)
    module, _, leaf = place.rpartition(".")
    if not name.startswith(PREFIX) or not _NAME.fullmatch(place):
        return False
    owner, is_of_lora, ending = place.partition(".lora_")
    if is_of_lora:
        key = {"magnitude_vector": "use_dora", "B.bias": "lora_bias"}.get(ending)
        return owner in header.names.modules and any(config.get(one) for one in ([key] if key else VARIANTS))
    if leaf == "trainable_tokens_delta":
        return config.get("trainable_token_indices") is not None
    is_of_base = leaf in ("weight", "bias") and module.endswith(".base_layer") == (_owner(name) in targets)
    return is_of_base or any(one in place for one in _saved(config))


def _targeted(header: AdapterHeader, modules: Sequence[str]) -> set[str]:
    """Return the modules that the configuration names, as PEFT reads it."""
    config, factors = header.config, header.names.modules
    targets, excluded = config.get("target_modules"), config.get("exclude_modules") or []
    if targets is None:
        kinds = {name.rpartition(".")[2] for name in factors}
        named = list(factors) if any(kinds <= one for one in GUESSED) else []
    elif isinstance(targets, str) and targets.lower() == "all-linear":
        named = [name for name, one in factors.items() if ".lora_embedding" not in one.lora_A and name != "lm_head"]
    else:
        some, layers = config.get("layers_to_transform"), _layers(config, modules)
        some = [some] if isinstance(some, int) else some
        fitting = _fitting("target_modules", targets, modules)
        named = [name for name in fitting if name in targets or not some or layers.get(name) in some]
    out = _fitting("exclude_modules", excluded, modules)
    saved = _saved(config)
    return {name for name in named if name not in out and not any(f".{one}." in f".{name}." for one in saved)}


def _fitting(key: str, value: str | Sequence[object], modules: Iterable[str]) -> list[str]:
    """Return the modules that a regular expression fits, or whose names end with one of a list."""
    if isinstance(value, str):
        (row,) = fits(key, [value], list(modules))
        return [name for name, is_fitting in zip(modules, row, strict=True) if is_fitting]
    return [name for name in modules if any(f".{name}".endswith(f".{end}") for end in value)]


def _layers(config: Mapping[str, Any], modules: Sequence[str]) -> dict[str, int]:
    """Return the layer of each module that has one: the first number in its name after what `layers_pattern` fits."""
    patterns = config.get("layers_pattern") or []
    numbers = [(module, match) for module in modules for match in re.finditer(r"\.(\d+)(?=\.)", module)]
    before = [module[: match.start()] for module, match in numbers]
    some = [patterns] if isinstance(patterns, str) else patterns
    rows = fits("layers_pattern", some, before, r"(?:^|.*?\.){}\Z") or [["." in name for name in before]]
    layers: dict[str, int] = {}
    for row in rows:
        for (module, match), is_fitting in zip(numbers, row, strict=True):
            if is_fitting:
                layers.setdefault(module, int(match[1]))
    return layers
