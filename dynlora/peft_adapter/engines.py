"""How engines read an adapter: one pure function each, of its configuration and header alone.

Each rule names the version that was read and the places in its source. Versions change: a rule is right for the one it
names. What was executed and what was only read is in `docs/guides/serve.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from dynlora.peft_adapter.adapter_config import CONFIG_NAME, FORMATS, has_expressions
from dynlora.peft_adapter.peft_loading import faults
from dynlora.peft_adapter.read import REPLACED_BASE, AdapterHeader
from dynlora.text import printable

Verdict = Literal["reads it right", "refuses it", "reads it wrong"]

RIGHT: Verdict = "reads it right"
REFUSES: Verdict = "refuses it"
WRONG: Verdict = "reads it wrong"

Problem = tuple[Verdict, str, str]
"""How an engine fails, why, and what to do."""

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's `--max-lora-rank`."""

LLAMA_KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Types of modules in a block of a Llama."""

_FACTOR = re.compile(r"\.lora_(?:A\.weight|embedding_A)\Z")

UNIFORM = "dynlora convert FOLDER --ranks uniform --out OUT"
SAVE = f"save the adapter with PEFT's save_pretrained, or correct {CONFIG_NAME}"
MERGE = "merge it into the base model: PEFT's merge_and_unload, or dynlora export ID --format merged"
CONVERT = "dynlora convert FOLDER --out OUT"
GGUF = "dynlora convert FOLDER --format gguf --out OUT"
MLX = "dynlora convert FOLDER --format mlx --out OUT"


@dataclass(frozen=True)
class Engine:
    """A program that runs models with adapters.

    Attributes:
        name: as it is asked for.
        version: that the rule was read in.
        source: files and lines of that version.
        problems: what it does not read right, the first counts.
        note: what must be set where it reads right; empty for nothing.
    """

    name: str
    version: str
    source: str
    problems: Callable[[AdapterHeader], Iterator[Problem]]
    note: Callable[[AdapterHeader], str] = lambda header: ""


@dataclass(frozen=True)
class Reading:
    """How one engine reads an adapter.

    Attributes:
        engine: its name.
        version: that the rule was read in.
        source: of the rule.
        verdict: one of the three.
        reason: a sentence; empty where it reads it right and nothing must be set.
        remedy: what to do; empty for nothing.
    """

    engine: str
    version: str
    source: str
    verdict: Verdict
    reason: str
    remedy: str


def check_engines(header: AdapterHeader, names: tuple[str, ...] = ()) -> tuple[Reading, ...]:
    """Return how engines read an adapter, all of them unless some are named."""
    return tuple(_reading(ENGINES[name], header) for name in names or ENGINES)


def _reading(engine: Engine, header: AdapterHeader) -> Reading:
    problem = next(engine.problems(header), None)
    verdict, reason, remedy = problem or (RIGHT, engine.note(header), "")
    return Reading(engine.name, engine.version, engine.source, verdict, reason, remedy)


# --- what several rules ask


def _not_peft(header: AdapterHeader) -> Iterator[Problem]:
    """Names that are not PEFT's, which a reader of PEFT's format does not find."""
    if header.layout in ("kohya", "diffusers", "mlx"):
        yield REFUSES, f"its tensors are named as {header.layout} names them, not as PEFT does", CONVERT
    elif header.layout == "unknown" and header.peft_type == "LORA":
        yield REFUSES, "none of its tensors is a lora_A of PEFT", SAVE
    elif header.peft_type == "LORA" and not all(_FACTOR.search(one.lora_A) for one in header.names.modules.values()):
        yield REFUSES, "its tensors have more in their names than PEFT's, such as an adapter's name", CONVERT


def _not_lora(header: AdapterHeader) -> Iterator[Problem]:
    """Methods whose update is not s · B A."""
    if header.peft_type == "ADALORA":
        yield REFUSES, "AdaLoRA keeps a third factor, lora_E, which it does not know", UNIFORM
    elif header.peft_type != "LORA":
        yield REFUSES, f"its method is {header.peft_type}, not LoRA", MERGE
    elif header.config.get("use_dora"):
        yield REFUSES, "DoRA scales the columns of the base weights too, which it does not do", MERGE


def _replaced_base(header: AdapterHeader) -> Iterator[Problem]:
    """Initialisations that change the base model's weights: on the plain base the adapter is another."""
    init = str(header.config.get("init_lora_weights") or "").lower()
    if init.startswith(REPLACED_BASE):
        yield (
            WRONG,
            f"init_lora_weights={init}: the adapter belongs to base weights that this initialisation changed, and it "
            "is put on the plain ones",
            "save it with PEFT's path_initial_model_for_weight_conversion, or merge it",
        )


def _extras(header: AdapterHeader, verdict: Verdict) -> Iterator[Problem]:
    """Trained biases, and modules trained in full."""
    if header.config.get("bias", "none") != "none":
        yield verdict, f"bias={printable(header.config['bias'])}: trained biases are not read", MERGE
    if saved := header.config.get("modules_to_save"):
        yield verdict, f"modules_to_save ({printable(saved)}): modules trained in full are not read", MERGE
    if others := header.names.others:
        yield verdict, f"{len(others)} tensors, such as {printable(others[0])}, are no factors and are not read", MERGE


def _scaling_ratios(header: AdapterHeader, alpha: float, ranks: Mapping[str, float]) -> float:
    """Return the largest factor by which a scaling is off where an engine takes alpha / rank; 1 for none."""
    factors = [1.0]
    for name, scaling in header.scalings.items():
        read = alpha / ranks[name] if ranks.get(name) else 0.0
        if scaling and read:
            factors.append(max(scaling / read, read / scaling))
    return max(factors)


def _is_off(factor: float) -> bool:
    return factor > 1 + 1e-6


def _gaps(header: AdapterHeader) -> str:
    """Return which type of module is missing in which layers; empty where none is."""
    for kind, layers in header.missing.items():
        numbers = ", ".join(map(str, layers[:4])) + (", …" if len(layers) > 4 else "")
        return f"{kind} is missing in layer{'s' if len(layers) > 1 else ''} {numbers}"
    return ""


def _unequal(header: AdapterHeader) -> str:
    """Return how unequal the ranks are; empty where they are equal to r."""
    ranks = sorted(set(header.ranks.values()) | {int(header.number("r", 8))})
    return f"its modules have ranks from {ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else ""


# --- the engines


def _peft(header: AdapterHeader) -> Iterator[Problem]:
    """PEFT reads its own methods, patterns and biases; see `peft_loading`."""
    for is_error, reason in faults(header):
        yield REFUSES if is_error else WRONG, reason, SAVE if header.layout in ("peft", "unknown") else CONVERT


def _peft_note(header: AdapterHeader) -> str:
    return "" if header.peft_type in FORMATS else f"the shapes of a {header.peft_type} were not looked at"


def _vllm(header: AdapterHeader) -> Iterator[Problem]:
    """vLLM: alpha / r or each module's own where there are patterns; no biases, no modules trained in full, no DoRA."""
    yield from _not_peft(header)
    yield from _not_lora(header)
    if header.config.get("layer_replication"):
        yield REFUSES, "layer_replication: the base model would need other layers", MERGE
    saved, heads = header.config.get("modules_to_save"), {"score", "classifier"}
    is_head = isinstance(saved, list) and all(name in heads for name in saved) and header.config.get("bias") == "none"
    if not is_head or any(heads.isdisjoint(name.split(".")) for name in header.names.others):
        yield from _extras(header, REFUSES)
    if max(header.ranks.values(), default=1) > VLLM_RANKS[-1]:
        yield REFUSES, f"its largest rank is above {VLLM_RANKS[-1]}", "dynlora compress FOLDER, or merge it"
    yield from _replaced_base(header)
    if header.settings is not None and has_expressions(header.settings.alphas):
        yield WRONG, "alpha_pattern holds regular expressions, which are not known to be read as PEFT does", UNIFORM


def _vllm_rank(header: AdapterHeader) -> str:
    largest = max([*header.ranks.values(), int(header.number("r", 8))])
    fitting = next((rank for rank in VLLM_RANKS if rank >= largest), VLLM_RANKS[-1])
    return f"needs --max-lora-rank {fitting}" if fitting > 16 else ""


def _sglang(header: AdapterHeader) -> Iterator[Problem]:
    """SGLang: one rank for all modules, asserted; q, k and v are stacked, so each layer needs all that are targeted."""
    yield from _not_peft(header)
    yield from _not_lora(header)
    yield from _extras(header, REFUSES)
    if unequal := _unequal(header):
        yield REFUSES, f"{unequal}, and it takes one rank, r, for all", UNIFORM
    if gaps := _gaps(header):
        yield REFUSES, f"{gaps}, and it needs a targeted module in every layer", UNIFORM
    yield from _one_alpha(header)
    yield from _replaced_base(header)


def _one_alpha(header: AdapterHeader) -> Iterator[Problem]:
    """One scaling alpha / r for all modules, whatever alpha_pattern says."""
    rank = header.number("r", 8)
    factor = _scaling_ratios(header, header.number("lora_alpha", 8), dict.fromkeys(header.ranks, rank))
    if header.config.get("use_rslora") is True:
        return  # taken as alpha / sqrt(r) for all
    if _is_off(factor):
        yield WRONG, f"it takes one alpha / r for all: a module's scaling is off by a factor of {factor:.3g}", UNIFORM


def _llama_cpp(header: AdapterHeader) -> Iterator[Problem]:
    """llama.cpp: its converter writes one alpha, and the scaling is alpha / the rank of each tensor."""
    yield from _not_peft(header)
    yield from _not_lora(header)
    yield from _extras(header, REFUSES)
    rank_stabilised = header.config.get("use_rslora") is True
    factor = _scaling_ratios(header, header.number("lora_alpha", 8), header.ranks)
    if _is_off(factor):
        why = "it does not know rsLoRA" if rank_stabilised else "it takes one alpha over each tensor's rank"
        yield WRONG, f"{why}: a module's scaling is off by a factor of {factor:.3g}", GGUF
    yield from _replaced_base(header)


def _ollama(header: AdapterHeader) -> Iterator[Problem]:
    """Ollama: reads lora_alpha as a whole number, then converts as llama.cpp does."""
    alpha = header.config.get("lora_alpha")
    if isinstance(alpha, float):
        yield REFUSES, f"lora_alpha is {alpha}, and it takes whole numbers only", UNIFORM
    yield from _llama_cpp(header)


def _stacked(header: AdapterHeader) -> Iterator[Problem]:
    """TGI and LoRAX: a type of module that one layer lacks is dropped everywhere; ranks are padded, then stacked."""
    yield from _not_peft(header)
    yield from _not_lora(header)
    yield from _extras(header, WRONG)
    if gaps := _gaps(header):
        yield WRONG, f"{gaps}, and it drops this type in all layers", UNIFORM
    if (unequal := _unequal(header)) and max(header.ranks.values(), default=0) > 8:
        yield REFUSES, f"{unequal}, and above 8 it stacks equal ones only", UNIFORM
    yield from _one_alpha(header)
    yield from _replaced_base(header)


def _mlx(header: AdapterHeader) -> Iterator[Problem]:
    """mlx-lm: its own file, names, one rank and one scale."""
    if header.layout != "mlx":
        yield from _not_lora(header) if header.layout == "peft" and header.peft_type != "ADALORA" else ()
        yield from _extras(header, REFUSES)
        yield REFUSES, "it reads adapters.safetensors with its own names, one rank and one scale", MLX


ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            "peft", "0.21.2", "peft/peft_model.py load_adapter, tuners/lora/layer.py update_layer", _peft, _peft_note
        ),
        Engine("vllm", "0.33.0", "vllm/lora/peft_helper.py:81, :131", _vllm, _vllm_rank),
        Engine("sglang", "0.5.23", "sglang/srt/lora/mem_pool.py:908, :918", _sglang),
        Engine("llama.cpp", "of 19 October 2026", "convert_lora_to_gguf.py, src/llama-adapter.h get_scale", _llama_cpp),
        Engine("ollama", "fb307609", "convert/convert.go:35", _ollama),
        Engine("tgi", "db931fcf", "server/text_generation_server/adapters/lora.py:235", _stacked),
        Engine("lorax", "a7394ba3", "server/lorax_server/adapters/lora.py:174", _stacked),
        Engine("mlx", "d78bf58e", "mlx_lm/tuner/utils.py:61, :155", _mlx),
    )
}
"""All engines, by name."""
