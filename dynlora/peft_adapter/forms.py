"""The forms that an adapter is exported in, and where each goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dynlora.errors import ConfigError

AS_TRAINED, UNIFORM = "as-trained", "uniform"
RANKS = (AS_TRAINED, UNIFORM)
"""How an adapter in PEFT's format holds its ranks."""


@dataclass(frozen=True)
class Form:
    """A form of an exported adapter.

    Attributes:
        name: it is asked for by.
        format: of the files: peft, gguf, mlx, onnx, gated or merged.
        ranks: as trained, each module its own, or one for all.
        engines: that read it, as `dynlora check` names them.
        goes_to: the same for people.
        help: what it holds.
        keeps_gates: whether the gates react to the input as they were trained; else their means stand for them.
    """

    name: str
    format: str
    ranks: str
    engines: tuple[str, ...]
    goes_to: str
    help: str
    keeps_gates: bool = False


FORMS: Mapping[str, Form] = {
    form.name: form
    for form in (
        Form(
            "peft",
            "peft",
            AS_TRAINED,
            ("peft", "vllm"),
            "PEFT, vLLM",
            "The adapter as it was trained: each module with its own rank.",
        ),
        Form(
            "uniform",
            "peft",
            UNIFORM,
            ("sglang", "tgi", "lorax"),
            "SGLang, TGI, LoRAX",
            "The adapter with one rank for all modules, padded with zeros: these engines misread unequal ranks.",
        ),
        Form(
            "gguf",
            "gguf",
            UNIFORM,
            ("llama.cpp",),
            "llama.cpp",
            "The adapter as GGUF, beside a base model in GGUF; for Llama models.",
        ),
        Form(
            "ollama",
            "gguf",
            UNIFORM,
            ("ollama",),
            "Ollama",
            "The adapter as GGUF with a Modelfile for `ollama create`; for Llama models.",
        ),
        Form("mlx", "mlx", UNIFORM, ("mlx",), "MLX", "The adapter as mlx-lm loads it."),
        Form("merged", "merged", AS_TRAINED, (), "any engine: merged", "A plain transformers model; no PEFT needed."),
        Form("onnx", "onnx", AS_TRAINED, (), "ONNX", "The merged model as an ONNX graph; for models that classify."),
        Form(
            "onnx-gated",
            "onnx",
            AS_TRAINED,
            (),
            "ONNX, gates kept",
            "The model as an ONNX graph whose gates react to each input, as trained; for models that classify.",
            True,
        ),
        Form(
            "gated",
            "gated",
            AS_TRAINED,
            (),
            "Python, gates kept",
            "The adapter as it was trained, its gates too: `dynlora.load(FOLDER)` puts it on the base model.",
            True,
        ),
    )
}
"""All forms by name, the usual one first."""

TARGETS = tuple(engine for form in FORMS.values() for engine in form.engines)
"""Engines that a form can be asked for by."""

PEFT = FORMS["peft"]
"""The usual form."""


COSTLY = 1.005
"""Held-out loss after the gates were averaged, over that before, from which an export says so first."""


def forms_for(names: Iterable[str], *, generates: bool, has_gates: bool) -> list[Form]:
    """Return the forms that an adapter can have, of those that its kind of run is exported in.

    Args:
        names: of the forms of the kind.
        generates: whether the model writes texts; ONNX is for models that classify, the engines for those that write.
        has_gates: whether there are gates to keep.
    """
    of_format = {"gguf": generates, "mlx": generates, "onnx": not generates}
    forms = [FORMS[name] for name in names]
    return [form for form in forms if of_format.get(form.format, True) and (has_gates or not form.keeps_gates)]


def raised_loss(report: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the held-out loss before and after the gates were averaged, where that made it worse; else None."""
    before, after = (dict(report.get(f"metrics_{when}") or {}).get("loss") for when in ("before", "after"))
    if before is None or after is None or after <= COSTLY * before:
        return None
    return before, after


def form_of(format: str = "peft", ranks: str | None = None, engine: str | None = None) -> Form:
    """Return the form that options ask for.

    Args:
        format: of the files, or the name of a form.
        ranks: as-trained or uniform; None for what the format or the engine takes.
        engine: that shall read it; None for any.

    Raises:
        ConfigError: when a value is unknown, or two of them contradict each other.
    """
    if ranks is not None and ranks not in RANKS:
        raise ConfigError(f"--ranks {ranks}: must be one of {', '.join(RANKS)}")
    if engine is not None:
        form = next((form for form in FORMS.values() if engine in form.engines), None)
        if form is None:
            raise ConfigError(f"--for {engine}: must be one of {', '.join(TARGETS)}")
        if format not in ("peft", form.format, form.name):
            raise ConfigError(f"--format {format}: {engine} reads {form.format}; leave --format out")
        format = form.name
    if format not in FORMS:
        raise ConfigError(f"--format {format}: must be one of {', '.join(FORMS)}")
    form = FORMS["uniform"] if format == "peft" and ranks == UNIFORM else FORMS[format]
    if ranks is not None and form.ranks != ranks:
        raise ConfigError(f"--ranks {ranks}: {format} holds ranks {form.ranks}; leave --ranks out")
    return form
