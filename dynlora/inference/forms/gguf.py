"""An adapter as GGUF, which llama.cpp and, with a Modelfile, Ollama load beside a base model in GGUF.

llama.cpp scales each update by alpha / the rank of its tensor, so the adapter is given in the uniform form, where this
is 1. Names are those of the base model's tensors in GGUF; the rows of B of queries and keys are in GGUF's order of a
head's rows, as its converter of the base model turns them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dynlora.errors import ConfigError, NotMergeableError
from dynlora.inference.forms import UNIFORM, Form
from dynlora.peft_adapter.loaded_adapter import LoadedAdapter, base_config
from dynlora.peft_adapter.uniform import UniformAdapter, split_names
from dynlora.text import printable

if TYPE_CHECKING:
    from dynlora.engine.evaluation.export import AdapterFacts
    from dynlora.engine.evaluation.inference import AdaptedModel


GGUF_NAME = "adapter.gguf"

ARCHITECTURES = {"llama": "llama", "mistral": "llama"}
"""GGUF's architecture by `model_type` of transformers."""

BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Names of a block's modules in transformers -> in GGUF."""

Message = Mapping[str, str]
Render = Callable[[Sequence[Message], bool], str]
"""Writes a conversation down: the messages, and whether an answer shall follow."""

ROLES = ("system", "user", "assistant")

NO_TEMPLATE = "the base model has no chat template, or one that cannot be carried over"

_ENDS_QUOTES = re.compile(r'"""|"\Z|[\x00-\x08\x0b-\x1f\x7f]')
_IN_GO = re.compile(rf"[{{}}]|{_ENDS_QUOTES.pattern}")
"""What cannot be quoted in a Modelfile, which knows no escapes, and what also means something in a template of Go's."""

MOST_LETTERS = 20_000
"""Of a template; the longest that is carried over."""

TRIED: tuple[tuple[str, ...], ...] = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user", "assistant", "user"),
)
"""Roles of the conversations that a carried-over template must write as the chat template does."""


class Gguf(Form):
    """One file, beside a base model in GGUF."""

    name, order, format, ranks = "gguf", 20, "gguf", UNIFORM
    engines, goes_to = ("llama.cpp",), "llama.cpp"
    help = "The adapter as GGUF, beside a base model in GGUF; for Llama models."
    is_adapter, generates, library = True, True, "llama.cpp"

    def write(self, model: AdaptedModel, folder: Path, facts: AdapterFacts) -> None:
        """Write the adapter in the uniform form."""
        from dynlora.engine.evaluation.export import uniform_adapter

        adapter = uniform_adapter(model)
        if facts.blocks is not None or model.base.head:
            what = "a trained head" if model.base.head else "some blocks of its base model only"
            raise NotMergeableError(
                f"--format gguf: the adapter has {what}, which GGUF does not hold; use --format merged"
            )
        base = model.base.model.config.to_dict()
        check_gguf(base, adapter.factors)
        folder.mkdir(parents=True, exist_ok=True)
        write_gguf(adapter, base, folder / GGUF_NAME, facts.title)

    def convert(self, adapter: LoadedAdapter, folder: Path, base: str, title: str) -> dict[str, Any]:
        """Write the adapter in the uniform form; the base model's config.json must be on this machine."""
        adapter.check_nothing_else(self.format)
        whole, written = adapter.uniform(base)
        config = base_config(base)
        if config is None:
            raise ConfigError(
                f"--base: the base model {base[:200] or 'of the adapter'} is not on this machine, and --format gguf "
                "needs its config.json; give the folder that holds it"
            )
        write_gguf(whole, config, folder / GGUF_NAME, title)
        return written

    def commands(self, base: str, word: str, rank: int) -> list[str]:
        """Return that of llama.cpp."""
        return [f"llama-server -m BASE.gguf --lora {GGUF_NAME}  # BASE.gguf: {base} in GGUF"]


class Ollama(Gguf):
    """The same, with the Modelfile that `ollama create` reads."""

    name, order = "ollama", 30
    engines, goes_to = ("ollama",), "Ollama"
    help = "The adapter as GGUF with a Modelfile for `ollama create`; for Llama models."

    def write(self, model: AdaptedModel, folder: Path, facts: AdapterFacts) -> None:
        """Write the adapter, and the base model's chat template where a Modelfile can hold it."""
        super().write(model, folder, facts)
        render = _renderer(model.base.tokenizer)
        template = None if render is None else carried_over(render)
        (folder / "Modelfile").write_text(modelfile(facts.base_name, GGUF_NAME, template), "utf-8")

    def convert(self, adapter: LoadedAdapter, folder: Path, base: str, title: str) -> dict[str, Any]:
        """Write the adapter, and a Modelfile without a template."""
        written = super().convert(adapter, folder, base, title)
        text = modelfile(base, GGUF_NAME, None, "the base model was not read")
        (folder / "Modelfile").write_text(text, "utf-8")
        return written

    def commands(self, base: str, word: str, rank: int) -> list[str]:
        """Return that of Ollama."""
        return [f"ollama create {word} -f Modelfile"]


def check_gguf(base: Mapping[str, Any], modules: Mapping[str, Any]) -> None:
    """Refuse what cannot be written as GGUF.

    Args:
        base: `config.json` of the base model.
        modules: with an adapter, by name.

    Raises:
        NotMergeableError: for another architecture, or modules outside of its blocks.
    """
    kind = str(base.get("model_type"))
    if kind not in ARCHITECTURES:
        raise NotMergeableError(
            f"--format gguf: the base model is of type {kind[:60]}, not {' or '.join(ARCHITECTURES)}; "
            "use --format merged and convert the model with llama.cpp's convert_hf_to_gguf.py"
        )
    for name, (_, layer, block) in split_names(modules).items():
        if layer is None or block not in BLOCK:
            raise NotMergeableError(
                f"--format gguf: module {name[:200]} is not one of {', '.join(BLOCK)} in a block; use --format merged"
            )


def write_gguf(adapter: UniformAdapter, base: Mapping[str, Any], path: Path, name: str) -> None:
    """Write an adapter as a GGUF LoRA.

    Args:
        adapter: in the uniform form.
        base: `config.json` of the base model.
        path: of the new file.
        name: of the adapter, for people.

    Raises:
        NotMergeableError: as `check_gguf` does.
    """
    from gguf import GGUFWriter

    check_gguf(base, adapter.factors)
    writer = GGUFWriter(path, ARCHITECTURES[base["model_type"]])
    writer.add_type("adapter")
    writer.add_name(printable(name, 200))
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(adapter.rank))
    for module, (_, layer, block) in split_names(adapter.factors).items():
        lora_A, lora_B = adapter.factors[module]
        tensor = f"blk.{layer}.{BLOCK[block]}.weight"
        writer.add_tensor(f"{tensor}.lora_a", np.ascontiguousarray(lora_A, np.float32))
        writer.add_tensor(f"{tensor}.lora_b", np.ascontiguousarray(_rows(lora_B, block, base), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rows(lora_B: NDArray[Any], block: str, base: Mapping[str, Any]) -> NDArray[Any]:
    """Return the rows of B in GGUF's order: of queries and keys, a head's two halves are interleaved."""
    if not block.endswith(("q_proj", "k_proj")):
        return lora_B
    heads = base.get("num_attention_heads")
    if block.endswith("k_proj"):
        heads = base.get("num_key_value_heads") or heads
    if type(heads) is not int or heads < 1 or len(lora_B) % (2 * heads):
        raise NotMergeableError(
            f"--format gguf: {len(lora_B)} rows of {block} are not whole heads of the base model, which has "
            f"{printable(heads)}; give the adapter's own base with --base"
        )
    return lora_B.reshape(heads, 2, -1, lora_B.shape[1]).swapaxes(1, 2).reshape(lora_B.shape)


def _renderer(tokenizer: Any) -> Render | None:
    """Return what writes a conversation down as the base model's chat template does; None without one."""
    if not getattr(tokenizer, "chat_template", None):
        return None

    from dynlora.tasks.token_rows import by_template

    def render(messages: Sequence[Message], is_asked: bool) -> str:
        return by_template(tokenizer, messages, tokenize=False, add_generation_prompt=is_asked)

    return render


@dataclass(frozen=True)
class Template:
    """A chat template in pieces.

    Attributes:
        around: words before and after a message, by role.
        answer: words before an answer.
        default_system: message that is written where a conversation has no system message; empty for none.
    """

    around: Mapping[str, tuple[str, str]]
    answer: str
    default_system: str

    def render(self, messages: Sequence[Message]) -> str:
        """Write a conversation that an answer shall follow."""
        first = [] if not self.default_system or messages[0]["role"] == "system" else [self._system()]
        text = "".join(
            f"{self.around[message['role']][0]}{message['content']}{self.around[message['role']][1]}"
            for message in [*first, *messages]
        )
        return text + self.answer

    def _system(self) -> Message:
        return {"role": "system", "content": self.default_system}

    def can_be_written(self) -> bool:
        """Say whether a Modelfile can hold the words: none ends a text in quotes, none is an instruction."""
        words = [*(word for pair in self.around.values() for word in pair), self.answer]
        is_plain = not any(map(_IN_GO.search, words)) and not _ENDS_QUOTES.search(self.default_system)
        return is_plain and len("".join([*words, self.default_system])) <= MOST_LETTERS

    def go(self) -> str:
        """Return the template as Ollama takes it."""
        cases = [
            f'{{{{ {"if" if i == 0 else "else if"} eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}'
            for i, (role, (before, after)) in enumerate(self.around.items())
        ]
        return f"{{{{- range .Messages }}}}{''.join(cases)}{{{{ end }}}}{{{{- end }}}}{self.answer}"


def carried_over(render: Render) -> Template | None:
    """Return a chat template in pieces; None where pieces do not give the same texts."""
    try:
        template = _pieces(render)
        if template.can_be_written() and all(_agrees(template, render, roles) for roles in TRIED):
            return template
    except Exception:  # a stranger's template may raise anything
        return None
    return None


def _agrees(template: Template, render: Render, roles: Sequence[str]) -> bool:
    messages = [{"role": role, "content": f"text {i} of {role}"} for i, role in enumerate(roles)]
    return template.render(messages) == render(messages, True)


def _pieces(render: Render) -> Template:
    """Read the words around each role's message from what is between and after marked messages."""
    system, user, reply = ({"role": role, "content": f"«{role}»"} for role in ROLES)
    whole = render([system, user, reply, user], False)
    before_system, after_system, after_user, after_reply, end = _between(whole, ("system", "user", "assistant", "user"))
    end_of_reply = render([system, user, reply], False).rpartition("«assistant»")[2]
    before_user = after_reply.removeprefix(end_of_reply)
    around = {
        "system": (before_system, after_system.removesuffix(before_user)),
        "user": (before_user, end),
        "assistant": (after_user.removeprefix(end), end_of_reply),
    }
    alone = render([user], False).removesuffix(f"{before_user}«user»{end}")
    default = alone.removeprefix(around["system"][0]).removesuffix(around["system"][1])
    answer = render([system, user], True).removeprefix(render([system, user], False))
    return Template(around, answer, default)


def _between(text: str, roles: Sequence[str]) -> list[str]:
    """Return what is before the first marked message, between two, and after the last.

    Raises:
        ValueError: when a mark is missing, as where a template drops a message.
    """
    pieces: list[str] = []
    for role in roles:
        before, mark, text = text.partition(f"«{role}»")
        if not mark:
            raise ValueError(f"the message of {role} is not written")
        pieces.append(before)
    return [*pieces, text]


def modelfile(base: str, adapter: str, template: Template | None, reason: str = NO_TEMPLATE) -> str:
    """Return a Modelfile; where there is no template, a comment says why and Ollama takes the base's own.

    Args:
        base: hub id or folder of the base model.
        adapter: name of the GGUF file beside it.
        template: of the base model.
        reason: why there is none.
    """
    base = printable(base, 200)
    lines = [
        f"# FROM must be {base} in GGUF: a file, or a name that Ollama knows.",
        f"FROM ./{base.rstrip('/').rpartition('/')[2]}.gguf",
        f"ADAPTER ./{adapter}",
    ]
    if template is None:
        lines.append(f"# TEMPLATE: {reason}; that of FROM counts.")
        return "\n".join([*lines, ""])
    lines.append(f'TEMPLATE """{template.go()}"""')
    if template.default_system:
        lines.append(f"SYSTEM {_quoted(template.default_system)}")
    stop = template.around["assistant"][1].strip()
    if stop:
        lines.append(f"PARAMETER stop {_quoted(stop)}")
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    """Return a text as Ollama reads it back: it unescapes nothing."""
    return f'"""{text}"""' if '"' in text or "\n" in text else f'"{text}"'
