"""Why adapters do not learn: what the first steps show, with the usual cause and the line that mends it.

The engine looks once, after `LOOK_STEPS` steps or the last one, and records an event of kind `learning`. Pages,
warnings and `dynlora doctor RUN` put the same words to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dynlora.store.meta import finite, text
from dynlora.text import listed, number, one_line, plural

LEARNING = "learning"
"""Kind of the event that holds what was seen."""

LOOK_STEPS = 20
"""Steps after which adapters are looked at."""

TOO_SMALL, TOO_LARGE = 1e-5, 10.0
"""‖ΔW‖ / ‖W‖ outside of which an update is no fine-tuning.

Healthy adapters end at 0.001 to 0.1 of their weights. A hundredth of that, reckoned for the end of the run, is too
small, and a hundred times that is too large.
"""


@dataclass(frozen=True)
class Symptom:
    """One reason why adapters do not learn.

    Attributes:
        kind: a key of `MEANINGS`.
        modules: names of the adapted modules that it is about.
        of: adapted modules with components, in all.
        ratio: ‖ΔW‖ / ‖W‖, their median; None where it does not matter.
    """

    kind: str
    modules: tuple[str, ...]
    of: int
    ratio: float | None = None

    def payload(self) -> dict[str, Any]:
        """Return it as an event keeps it."""
        return {"kind": self.kind, "modules": list(self.modules), "of": self.of, "ratio": self.ratio}


@dataclass(frozen=True)
class Meaning:
    """What a symptom means.

    Attributes:
        title: in a few words, for the Health card.
        effect: what is the case, the end of a sentence about the modules.
        cause: the usual one.
        remedy: the line that mends it.
    """

    title: str
    effect: str
    cause: str
    remedy: str


MEANINGS: Mapping[str, Meaning] = {
    "frozen": Meaning(
        "Adapters are frozen",
        "A and B do not require a gradient",
        "the adapter was loaded for inference, or its parameters were frozen with those of the base model",
        "PeftModel.from_pretrained(base, folder, is_trainable=True), or freeze the base before get_peft_model",
    ),
    "outside": Meaning(
        "Adapters are not in the optimizer",
        "A and B are in no parameter group of the optimizer",
        "the optimizer was made before the adapters, or of another adapter's parameters",
        "make the optimizer after get_peft_model, of the parameters that require a gradient",
    ),
    "disabled": Meaning(
        "Adapters are switched off",
        "the adapter is disabled or merged, so the output does not depend on it",
        "disable_adapter_layers() or merge_adapter() was called before training",
        "model.enable_adapter_layers(), or model.unmerge_adapter()",
    ),
    "checkpointing": Meaning(
        "Gradient checkpointing hides the adapters",
        "no gradient reaches A and B while gradient checkpointing is on",
        "reentrant checkpointing drops a graph whose input requires no gradient, such as frozen embeddings",
        'model.enable_input_require_grads(), or gradient_checkpointing_kwargs={"use_reentrant": False}',
    ),
    "no_gradient": Meaning(
        "No gradient reaches the adapters",
        "no gradient reached A and B in any step",
        "the loss does not depend on these modules: detached, computed without gradients, or not called",
        "leave the modules out of target_modules, or remove detach() and no_grad() between them and the loss",
    ),
    "no_scaling": Meaning(
        "The scaling is zero",
        "the scaling alpha / r is 0, which multiplies output and gradient",
        "lora_alpha=0",
        "LoraConfig(lora_alpha=2 * r)",
    ),
    "zero_gradient": Meaning(
        "The gradient is zero",
        "the gradient of A and B is exactly 0",
        "A and B are both zero, dropout is 1, no label counts, or half precision rounds the gradient away",
        "initialise A at random, look at dropout and labels, and train the adapter in float32",
    ),
    "no_rate": Meaning(
        "The learning rate is zero",
        "the optimizer steps at a learning rate of 0",
        "the rate, or the schedule, is zero in the adapter's parameter group",
        "set learning_rate; 0.0002 to 0.001 is usual for LoRA with AdamW",
    ),
    "unmoved": Meaning(
        "B is still zero",
        "B is still exactly 0, so the update is",
        "the optimizer does not step, or skips its steps because gradients are not finite",
        "call optimizer.step() after backward(), and look at the gradient scaler",
    ),
    "rounded": Meaning(
        "Steps are rounded away",
        "the optimizer's step is smaller than the precision of A and B, and leaves most numbers as they are",
        "the adapter was cast to half precision with the model",
        "cast the base model before get_peft_model, and keep A and B in float32",
    ),
    "small": Meaning(
        "The updates are too small",
        f"at this pace the update ends below {TOO_SMALL:.5f} of its weight, where 0.001 to 0.1 is usual",
        "the learning rate or the scaling alpha / r is too small",
        "raise the learning rate tenfold, or set lora_alpha to twice the rank",
    ),
    "large": Meaning(
        "The updates are too large",
        f"the update is more than {TOO_LARGE:.0f} times as large as its weight",
        "the learning rate or the scaling alpha / r is too large",
        "lower the learning rate tenfold, or set lora_alpha to twice the rank",
    ),
}
"""Symptoms in the order in which they are looked for: a module has the first that fits."""


def message(symptom: Symptom, step: int) -> str:
    """Return what is wrong, why, and what mends it, in plain text."""
    meaning = MEANINGS[symptom.kind]
    of = "all adapters" if len(symptom.modules) == symptom.of else f"{len(symptom.modules)} of {symptom.of} adapters"
    names = "" if len(symptom.modules) == symptom.of else f" ({listed([one_line(one, 80) for one in symptom.modules])})"
    ratio = "" if symptom.ratio is None else f"; now it is {number(symptom.ratio)} times its weight"
    return (
        f"After {plural(step, 'step')}, {meaning.effect}{ratio}: {of}{names}. Usual cause: {meaning.cause}. "
        f"Remedy: {meaning.remedy}."
    )


def payload(symptoms: Iterable[Symptom]) -> dict[str, Any]:
    """Return what the event of a look holds."""
    return {"symptoms": [symptom.payload() for symptom in symptoms]}


def symptoms_of(read: object) -> list[Symptom]:
    """Return the symptoms of an event's payload; what cannot be read, or is of a later version, is left out."""
    rows = read.get("symptoms") if isinstance(read, Mapping) else None
    return [one for row in (rows if isinstance(rows, Sequence) else ()) if (one := _symptom(row)) is not None]


def _symptom(row: object) -> Symptom | None:
    if not isinstance(row, Mapping) or row.get("kind") not in MEANINGS:
        return None
    names, of = row.get("modules"), row.get("of")
    modules = tuple(name for name in names if text(name) is not None) if isinstance(names, list) else ()
    if not modules or not isinstance(of, int):
        return None
    return Symptom(str(row["kind"]), modules, max(of, len(modules)), finite(row.get("ratio")))
