"""A plain transformers model with the update folded in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dynlora.inference.forms import Form

if TYPE_CHECKING:
    from dynlora.engine.evaluation.export import AdapterFacts
    from dynlora.engine.evaluation.inference import AdaptedModel


class Merged(Form):
    """A folder of transformers, which no PEFT is needed for."""

    name, order, format = "merged", 50, "merged"
    goes_to = "any engine: merged"
    help = "A plain transformers model; no PEFT needed."
    holds_model = True

    def write(self, model: AdaptedModel, folder: Path, facts: AdapterFacts) -> None:
        """Merge the adapters into the model and write it with its tokenizer."""
        from dynlora.engine.evaluation.export import export_merged
        from dynlora.engine.evaluation.inference import merge

        merge(model)
        export_merged(model, folder)

    def commands(self, base: str, word: str, rank: int) -> list[str]:
        """Return those of vLLM and SGLang."""
        return [f"vllm serve {word}", f"python -m sglang.launch_server --model-path {word}"]
