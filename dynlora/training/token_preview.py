"""What a model sees of the data before a run is made: tokens, and which of them count in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from dynlora import assets
from dynlora.config import RunConfig
from dynlora.config_files import with_absolute_paths
from dynlora.engine.data.batches import IGNORED, Tokens
from dynlora.engine.data.tables import Places
from dynlora.engine.data.text_data import Rows
from dynlora.engine.model.base_model import load_tokenizer
from dynlora.errors import ConfigError
from dynlora.tasks import WritingTask
from dynlora.training.inputs import Inputs, data_folder, read_data

SHOWN_ROWS = 6
SHOWN_PIECES = 400
"""Rows of a preview, and the most pieces of text of each."""

COUNTED_ROWS = 20_000
"""Rows that are turned into tokens to count those that lose something."""

WHOLE = 2**20
"""Tokens of a row that nothing is cut from."""


def token_preview(settings: RunConfig) -> dict[str, Any]:
    """Return the tokens of a few training examples, and how many rows lose something to truncation; no model is loaded.

    Args:
        settings: a run's config, of a task that writes texts.

    Returns:
        rows (place, pieces, tokens, in_loss, cut), counted and of (rows looked at, and all), lost and cut (rows that
        lose their whole completion, or anything: count, places), longest (tokens of the longest row), limit, loss_on,
        is_chat, and notes in sentences.

    Raises:
        ConfigError: when the task has labels.
        AssetError, DataError: exactly where `train` would refuse, in the same sentence.
    """
    config = with_absolute_paths(settings)
    data = read_data(config)
    task = data.task
    if not isinstance(task, WritingTask):
        raise ConfigError(f"data.task={task.name}: every row has one label; `dynlora preflight` shows its tokens")
    tokenizer = load_tokenizer(assets.resolve_model(config.model.name))
    task.check_tokenizer(tokenizer, data.train)
    limit = min(config.data.max_length, tokenizer.model_max_length)
    rows = data.train.take(np.arange(min(COUNTED_ROWS, len(data.train))))
    encoded = task.encode_rows(tokenizer, rows, WHOLE)
    targets = encoded.targets or []
    ids = [feature["input_ids"] for feature in encoded.features]
    length = np.array([len(row) for row in ids])
    is_kept = np.array([counted(row[:limit]) > 0 for row in targets], bool)
    lost = np.flatnonzero(~is_kept & np.array([counted(row) > 0 for row in targets], bool))
    where = Places(config.data, data_folder(config), config.seed, len(data.train))
    return {
        "rows": [
            {
                "place": where.text([row]),
                "pieces": pieces(tokenizer, ids[row][:limit], targets[row][:limit]),
                "tokens": min(len(ids[row]), limit),
                "in_loss": counted(targets[row][:limit]),
                "cut": len(ids[row]) > limit,
            }
            for row in shown_rows(length)
        ],
        "counted": len(rows),
        "of": len(data.train),
        "lost": {"count": len(lost), "places": where.text(lost)},
        "cut": {"count": int((length > limit).sum()), "places": where.text(np.flatnonzero(length > limit))},
        "longest": int(length.max()),
        "limit": limit,
        "loss_on": task.settings().get("loss_on", ""),
        "is_chat": "messages" in rows.fields,
        "notes": list(encoded.notes),
    }


def shown_rows(length: np.ndarray, n: int = SHOWN_ROWS) -> list[int]:
    """Return rows of a preview: evenly spread, and the longest among them, so that a cut shows where there is one."""
    spread = np.linspace(0, len(length) - 1, min(n, len(length))).astype(int)
    return [int(row) for row in np.unique([*spread[: n - 1], int(length.argmax())])]


def counted(targets: Sequence[int]) -> int:
    """Return how many tokens count in the loss."""
    return sum(target != IGNORED for target in targets)


def pieces(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], targets: Sequence[int] | None
) -> list[dict[str, Any]]:
    """Return a row as pieces of text: a token each, or several that make one character together.

    Each has `text`, `tokens`, `loss` (whether it counts in the loss) and `special` (a token of the tokenizer's own).

    Args:
        tokenizer: of the model.
        ids: tokens of the row.
        targets: label of each; None where a row has one label, and none counts.
    """
    special, rows = set(tokenizer.all_special_ids), list[dict[str, Any]]()
    held: list[int] = []
    for index, token in enumerate(ids):
        held.append(token)
        counts = targets is not None and targets[index] != IGNORED
        text = str(tokenizer.decode(held, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        is_last = index + 1 == len(ids) or (targets is not None and (targets[index + 1] != IGNORED) != counts)
        if text.endswith("\N{REPLACEMENT CHARACTER}") and not is_last and token not in special:
            continue  # the first bytes of a character
        rows.append({"text": text, "tokens": len(held), "loss": counts, "special": token in special})
        held = []
        if len(rows) == SHOWN_PIECES:
            break
    return rows


def format_preview(document: dict[str, Any]) -> str:
    """Return a preview for a terminal: what counts in the loss in double brackets, then what is lost."""
    lines = []
    for row in document["rows"]:
        runs = groupby(row["pieces"], key=lambda one: one["loss"])
        spans = [(counts, "".join(one["text"] for one in span)) for counts, span in runs]
        text = "".join(f"[[{span}]]" if counts else span for counts, span in spans)
        lines += [f"{row['place']}: {row['in_loss']} of {row['tokens']} tokens in the loss", f"    {text!r}"]
    lost, limit = document["lost"], document["limit"]
    lines.append(
        f"{lost['count']:,} of {document['counted']:,} training examples lose their whole completion at "
        f"data.max_length={limit}{': ' + lost['places'] if lost['count'] else ''}"
    )
    return "\n".join([*lines, *document["notes"]])


FIGURE_ROWS = 8
SHOWN_CHARACTERS = 2000
"""Training examples of the preview, and the most characters of each text in it; the tokens are whole."""


@dataclass(frozen=True)
class Encoded:
    """One side of the data as tokens, rows from which nothing is learned included.

    Attributes:
        inputs: what the run is made of.
        rows: of this side.
        tokens: of each row.
    """

    inputs: Inputs
    rows: Rows
    tokens: Tokens

    @classmethod
    def of(cls, inputs: Inputs, side: str) -> Encoded:
        """Return the side `train` or `held_out`."""
        return cls(inputs, getattr(inputs.data, side), inputs.encoded(side))

    @property
    def notes(self) -> Sequence[str]:
        """What a person should know of how rows became tokens, in sentences."""
        return self.tokens.notes

    def figures(self) -> dict[str, Any]:
        """Return rows, mean and maximum tokens a row, the limit, and the fraction of rows that are cut."""
        length = self.tokens.length
        limit = min(self.inputs.config.data.max_length, self.inputs.base.tokenizer.model_max_length)
        whole = self._whole(np.flatnonzero(length >= limit))
        return {
            "rows": len(self.rows),
            "mean": float(length.mean()),
            "max": int(length.max()),
            "limit": limit,
            "cut_share": sum(size > limit for size in whole) / len(self.rows),
        }

    def preview(self) -> list[dict[str, Any]]:
        """Return a few rows and exactly the tokens that the model sees of each, special ones included."""
        tokenizer, task = self.inputs.base.tokenizer, self.inputs.data.task
        chosen = np.array(shown_rows(self.tokens.length, FIGURE_ROWS))
        rows, whole = self.rows.take(chosen), self._whole(chosen)
        targets = self.tokens.targets
        examples = []
        for index, row in enumerate(chosen):
            ids = self.tokens.features[row]["input_ids"]
            label = None if targets is not None else task.describe(rows.label[index])
            examples.append(
                {
                    "row": int(row) + 1,
                    "text": rows.text[index][:SHOWN_CHARACTERS],
                    "text_pair": rows.text_pair[index][:SHOWN_CHARACTERS] if rows.text_pair else None,
                    "label": label,
                    "group": rows.group[index] if rows.group else None,
                    "tokens": tokenizer.convert_ids_to_tokens(ids),
                    "cut": whole[index] > len(ids),
                    **(
                        {}
                        if targets is None
                        else {
                            "pieces": pieces(tokenizer, ids, targets[row]),
                            "in_loss": counted(targets[row]),
                        }
                    ),
                }
            )
        return examples

    def _whole(self, chosen: np.ndarray) -> list[int]:
        """Return how many tokens rows have when nothing is cut."""
        if not len(chosen):
            return []
        return self.inputs.data.task.whole_lengths(self.inputs.base.tokenizer, self.rows.take(chosen))
