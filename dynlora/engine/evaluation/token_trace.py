"""The loss of single tokens at every evaluation, of as many probe examples as a fixed number of tokens allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from dynlora.engine.data.batches import Tokens
from dynlora.engine.recorder import Recorder

MOST_TOKENS = 8192
"""Tokens, those of prompts included, whose loss each evaluation records: 32 KiB."""

SIGNAL, EVENT = "probe_token_loss", "probe_tokens"
"""The losses at an evaluation, one example after the other; and once, at step 0, what each token adds to its text."""


@dataclass(frozen=True)
class TokenTrace:
    """Examples whose losses are recorded token by token: the first of the probe set, each whole.

    Attributes:
        rows: which held-out examples they are, (n,), in the order of the probe set.
        texts: what each token of each of them adds to the text.
    """

    rows: np.ndarray
    texts: Sequence[Sequence[str]]

    @classmethod
    def of(
        cls, tokens: Tokens, probe: np.ndarray, tokenizer: PreTrainedTokenizerBase, most: int = MOST_TOKENS
    ) -> TokenTrace | None:
        """Return the first examples of a probe set with at most `most` tokens in all; None where one has more.

        Args:
            tokens: held-out examples.
            probe: row indices of the probe set.
            tokenizer: of the model.
            most: tokens in all.
        """
        n = int((np.cumsum(tokens.length[probe]) <= most).sum())
        rows = probe[:n]
        texts = [token_texts(tokenizer, tokens.features[int(row)]["input_ids"]) for row in rows]
        return cls(rows, texts) if n else None

    def record(self, recorder: Recorder, step: int, token_loss: np.ndarray) -> None:
        """Record the losses of an evaluation.

        Args:
            recorder: takes them.
            step: of the evaluation.
            token_loss: of the whole probe set, as `Predictions.token_loss` has it.
        """
        if step == 0:
            recorder.event(step, EVENT, [], {"tokens": [list(text) for text in self.texts]})
        values = np.concatenate(list(token_loss[: len(self.rows)]))
        recorder.define_signal(SIGNAL, "example", "nats", len(values))
        recorder.vector(SIGNAL, step, values)


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Return what each token adds to a text; a piece of a letter is shown as the tokenizer names it."""
    names = tokenizer.convert_ids_to_tokens(list(ids))
    texts = [str(tokenizer.decode([token])) for token in ids]
    broken = "\N{REPLACEMENT CHARACTER}"
    return [str(name) if broken in text or not text else text for text, name in zip(texts, names, strict=True)]
