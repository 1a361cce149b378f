"""Tiny finished trainings on disk, for kinds of run that begin with trained runs: two that classify, two that write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dynlora.config import parse_config
from dynlora.contracts import overridden
from dynlora.contracts.harness import tiny_decoder
from dynlora.store.reader import RunReader
from dynlora.training.run import train

END, PAD, BEGIN = "<|end|>", "<|pad|>", "<|begin|>"

TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
"""A chat template that marks the assistant's turns, and writes a line break after the end of each."""


def byte_tokenizer(*, pad_is_end: bool = False, begins: bool = False, template: str | None = TEMPLATE) -> Any:
    """Return a tokenizer with a token for each byte.

    Args:
        pad_is_end: the padding token is the end token.
        begins: each text is preceded by a token of its own.
        template: of conversations.
    """
    import tokenizers
    import transformers
    from tokenizers import decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([END, PAD, BEGIN, *letters])}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    made.add_special_tokens([END, PAD, BEGIN])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # pyright: ignore
    made.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    if begins:
        made.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, vocabulary[BEGIN])]
        )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=END,
        pad_token=END if pad_is_end else PAD,
        bos_token=BEGIN,
        model_max_length=256,
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.chat_template = template
    return tokenizer


def train_tiny_runs(folder: Path) -> Path:
    """Train two runs that classify and two that write, of ranks 2 and 3, and return their runs folder.

    All adapt one decoder with two blocks; each takes a second.

    Args:
        folder: an empty one, which also gets the model and the data.
    """
    model = folder / "model"
    tiny_decoder().save_pretrained(model)
    byte_tokenizer().save_pretrained(model)
    for number, letters in enumerate(("ab", "cde")):
        labelled = [{"text": letter * (2 + n % 4), "label": letter} for n in range(16) for letter in letters]
        _train(folder, f"classifier {number}", model, labelled, adapter__rank=2 + number)
    for number, letters in enumerate(("ab", "cd")):
        counted = [
            {"prompt": f"{letter}{n}:", "completion": f"{letter * n} #### {n}", "answer": str(n)}
            for n in (1, 2, 3)
            for letter in letters * 4
        ]
        _train(folder, f"writer {number}", model, counted, adapter__rank=2 + number, data__task="causal_lm")
    return folder / "runs"


def _train(folder: Path, name: str, model: Path, rows: Iterable[Mapping[str, Any]], **overrides: Any) -> None:
    data = folder / name
    data.mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for part in ("train", "validation"):
        (data / f"{part}.jsonl").write_text(text, "utf-8")
    values: dict[str, Any] = {
        "name": name,
        "model": {"name": str(model)},
        "data": {"path": str(data), "max_length": 32},
        "train": {"steps": 10, "batch_size": 8, "lr": 1e-2, "precision": "fp32"},
        "log": {"eval_every": 10, "checkpoint_every": 10, "generate_rows": 2, "generate_max": 8},
    }
    outcome = train(parse_config(overridden(values, overrides)), folder / "runs")
    assert outcome.state == "finished", outcome.error


CLOCK = ("id", "seconds", "created", "time", "machine", "estimate", "checkpoint_step")
"""Keys of documents, and names of series, that differ between two runs of the same work."""


def recorded(folder: Path) -> dict[str, Any]:
    """Return everything that a run recorded but what a clock said: equal for two runs of the same work."""
    tensors = folder / "adapter" / "tensors.safetensors"
    with RunReader(folder) as reader:
        status = reader.status()
        events = [event for event in reader.events() if event.kind != "resume"]
        return {
            "status": (status.status, status.step, status.max_steps),
            "adapter": hashlib.sha256(tensors.read_bytes()).hexdigest() if tensors.exists() else None,
            "checkpoint": sorted(path.name for path in folder.glob("*checkpoint*")),
            "signals": {name: [one.tobytes() for one in reader.signal(name)] for name in reader.signals()},
            "scalars": {
                (one.name, one.split): [one.steps.tobytes(), one.values.tobytes()]
                for one in reader.scalars()
                if one.name not in CLOCK
            },
            "events": [(event.step, event.kind, without_clock(event.payload)) for event in events],
            "groups": reader.groups(),
            "meta": without_clock(reader.meta()),
        }


def without_clock(record: Any) -> Any:
    """Return a document without what differs between two runs of the same work."""
    if isinstance(record, dict):
        return {key: without_clock(value) for key, value in record.items() if key not in CLOCK}
    return [without_clock(value) for value in record] if isinstance(record, list) else record
