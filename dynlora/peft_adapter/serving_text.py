"""How a card says to load and serve what was exported, by the form it was exported in."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dynlora.peft_adapter.engines import VLLM_RANKS
from dynlora.peft_adapter.forms import UNIFORM, Form
from dynlora.peft_adapter.gguf_lora import GGUF_NAME
from dynlora.text import printable

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
