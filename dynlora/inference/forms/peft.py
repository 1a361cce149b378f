"""The adapter as PEFT loads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynlora.inference.forms import UNIFORM, Form
from dynlora.peft_adapter.engines import VLLM_RANKS

if TYPE_CHECKING:
    from torch import Tensor

    from dynlora.engine.evaluation.export import AdapterFacts
    from dynlora.engine.evaluation.inference import AdaptedModel
    from dynlora.peft_adapter.loaded_adapter import LoadedAdapter


class Peft(Form):
    """The adapter as it was trained: each module with its own rank."""

    name, order, format = "peft", 0, "peft"
    engines, goes_to = ("peft", "vllm"), "PEFT, vLLM"
    help = "The adapter as it was trained: each module with its own rank."
    is_adapter, starts_runs, library = True, True, "peft"
    other_engines = (
        "PEFT and vLLM read this form, in which each module has its own rank. Other engines misread unequal ranks: "
        "for SGLang, TGI and LoRAX convert it (`dynlora convert FOLDER --ranks uniform --out OUT`), for llama.cpp, "
        "Ollama and MLX too (`--for llama.cpp`, `--for ollama`, `--for mlx`). `dynlora check FOLDER` says how each "
        "engine reads it."
    )

    def files(self, model: AdaptedModel, facts: AdapterFacts) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and config.

        Raises:
            NotMergeableError: when PEFT has no format that holds the update.
        """
        from dynlora.engine.evaluation.export import peft_adapter

        return peft_adapter(model, facts)

    def write(self, model: AdaptedModel, folder: Path, facts: AdapterFacts) -> None:
        """Write `adapter_model.safetensors` and `adapter_config.json`, and the tokenizer."""
        from dynlora.engine.evaluation.export import write_peft

        write_peft(model, folder, *self.files(model, facts))

    def convert(self, adapter: LoadedAdapter, folder: Path, base: str, title: str) -> dict[str, Any]:
        """Write the adapter with the ranks that it has."""
        adapter.write_peft(folder, adapter.own_ranks(), adapter.factors(), base)
        return {"rank": max(len(one.lora_A) for one in adapter.updates.values()), "modules": len(adapter.updates)}

    def commands(self, base: str, word: str, rank: int) -> list[str]:
        """Return that of vLLM."""
        fitting = next((size for size in VLLM_RANKS if size >= rank), rank)
        return [f"vllm serve {base} --enable-lora --max-lora-rank {fitting} --lora-modules {word}=./{word}"]


class Uniform(Peft):
    """The adapter with one rank for all modules."""

    name, order, ranks = "uniform", 10, UNIFORM
    engines, goes_to = ("sglang", "tgi", "lorax"), "SGLang, TGI, LoRAX"
    help = "The adapter with one rank for all modules, padded with zeros: these engines misread unequal ranks."
    other_engines = "All modules have one rank, padded with zeros: the update is that of the adapter as it was trained."

    def files(self, model: AdaptedModel, facts: AdapterFacts) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and config in the uniform form; see `peft_adapter.uniform`."""
        from dynlora.engine.evaluation.export import uniform_adapter, uniform_peft

        return uniform_peft(model, uniform_adapter(model), facts)

    def convert(self, adapter: LoadedAdapter, folder: Path, base: str, title: str) -> dict[str, Any]:
        """Write the adapter in the uniform form."""
        from dynlora.peft_adapter.adapter_config import PREFIX
        from dynlora.peft_adapter.uniform import peft_tensors

        whole, written = adapter.uniform(base)
        settings = {**whole.config(), "target_modules": adapter.targets(whole)}
        adapter.write_peft(folder, settings, peft_tensors(whole, PREFIX), base)
        return written

    def commands(self, base: str, word: str, rank: int) -> list[str]:
        """Return those of vLLM, SGLang, TGI and LoRAX."""
        return [
            *super().commands(base, word, rank),
            f"python -m sglang.launch_server --model-path {base} --enable-lora --max-lora-rank {rank} "
            f"--lora-paths {word}=./{word}",
            f"text-generation-launcher --model-id {base} --lora-adapters {word}=./{word}  # TGI",
            f"lorax-launcher --model-id {base} --adapter-source local --adapter-id ./{word}",
        ]
