"""How a card says to load and serve what was exported, by the form it was exported in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from dynlora.peft_adapter.engines import VLLM_RANKS
from dynlora.peft_adapter.forms import UNIFORM, Form
from dynlora.peft_adapter.gguf_lora import GGUF_NAME

OWN_CODE = {
    "gated": """
import dynlora
from transformers import AutoTokenizer

model = dynlora.load("FOLDER")  # or dynlora.load("FOLDER", base) with a transformers model of yours
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
""",
    "onnx": """
import json
from onnxruntime import InferenceSession
from transformers import AutoTokenizer

tokenizer, session = AutoTokenizer.from_pretrained("FOLDER"), InferenceSession("FOLDER/model.onnx")
names = {one.name for one in session.get_inputs()}
tokens = tokenizer(["Your text"], return_tensors="np", padding=True)
(logits,) = session.run(None, {name: tokens[name] for name in names})
labels = json.load(open("FOLDER/config.json"))["id2label"]
print(labels[str(logits[0].argmax())])
""",
}
"""Python that loads a form of ours, by format."""


def load_block(form: Form, python: Mapping[str, str], base: str, name: str) -> str:
    """Return the code that loads an export: Python for PEFT and transformers, a command for the others.

    Args:
        form: of the export.
        python: code by format.
        base: hub id or folder of the base model.
        name: of the folder.
    """
    code = python.get(form.format) or OWN_CODE.get(form.format)
    if code is not None:
        return f"```python\n{code.replace('FOLDER', name).strip()}\n```"
    return f"```bash\n{_commands(form, base, name, 1)[0]}\n```"


def serving(form: Form, *, base: str, name: str, rank: int) -> str:
    """Return how engines serve an export of a model that writes texts: commands, and what else they need.

    Args:
        form: of the export.
        base: hub id or folder of the base model.
        name: of the folder, which is also what the adapter is called.
        rank: the largest of a module.
    """
    block = "\n".join(_commands(form, base, name, rank))
    return f"```bash\n{block}\n```\n\n{_other_engines(form)}".strip()


def _commands(form: Form, base: str, name: str, rank: int) -> list[str]:
    """Return the commands that serve a form; each reads it right as `dynlora check` has it."""
    base, word = shlex.quote(base), shlex.quote(name)
    if form.format == "merged":
        return [f"vllm serve {word}", f"python -m sglang.launch_server --model-path {word}"]
    if form.format == "mlx":
        prompt = json.dumps("Your text")
        return [f"mlx_lm.generate --model {base} --adapter-path {word} --prompt {prompt}"]
    if "ollama" in form.engines:
        return [f"ollama create {word} -f Modelfile"]
    if form.format == "gguf":
        return [f"llama-server -m BASE.gguf --lora {GGUF_NAME}  # BASE.gguf: {base} in GGUF"]
    fitting = next((size for size in VLLM_RANKS if size >= rank), rank)
    vllm = f"vllm serve {base} --enable-lora --max-lora-rank {fitting} --lora-modules {word}=./{word}"
    if form.ranks != UNIFORM:
        return [vllm]
    return [
        vllm,
        f"python -m sglang.launch_server --model-path {base} --enable-lora --max-lora-rank {rank} "
        f"--lora-paths {word}=./{word}",
        f"text-generation-launcher --model-id {base} --lora-adapters {word}=./{word}  # TGI",
        f"lorax-launcher --model-id {base} --adapter-source local --adapter-id ./{word}",
    ]


def _other_engines(form: Form) -> str:
    """Return which engines need another form, and the command that makes it."""
    if form.format == "merged":
        return ""
    if form.name == "peft":
        return (
            "PEFT and vLLM read this form, in which each module has its own rank. Other engines misread unequal ranks: "
            "for SGLang, TGI and LoRAX convert it (`dynlora convert FOLDER --ranks uniform --out OUT`), for llama.cpp, "
            "Ollama and MLX too (`--for llama.cpp`, `--for ollama`, `--for mlx`). `dynlora check FOLDER` says how each "
            "engine reads it."
        )
    if form.name == "uniform":
        return "All modules have one rank, padded with zeros: the update is that of the adapter as it was trained."
    return ""
