"""How many tokens the rows have, how many are cut, and a few of them as the model sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynlora.engine.data.batches import Tokens
from dynlora.engine.data.text_data import Rows
from dynlora.training.inputs import Inputs
from dynlora.training.token_preview import counted, pieces, shown_rows

SHOWN_ROWS = 8
SHOWN_CHARACTERS = 2000
"""Training rows of the preview, and the most characters of each text in it; the tokens are whole."""


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
        """Return rows, mean and maximum tokens a row, the limit, and the share of rows that are cut."""
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
        chosen = np.array(shown_rows(self.tokens.length, SHOWN_ROWS))
        shown, whole = self.rows.take(chosen), self._whole(chosen)
        targets = self.tokens.targets
        found = []
        for place, row in enumerate(chosen):
            ids = self.tokens.features[row]["input_ids"]
            label = None if targets is not None else task.describe(shown.label[place])
            found.append({
                "row": int(row) + 1,
                "text": shown.text[place][:SHOWN_CHARACTERS],
                "text_pair": shown.text_pair[place][:SHOWN_CHARACTERS] if shown.text_pair else None,
                "label": label,
                "group": shown.group[place] if shown.group else None,
                "tokens": tokenizer.convert_ids_to_tokens(ids),
                "cut": whole[place] > len(ids),
                **({} if targets is None else {
                    "pieces": pieces(tokenizer, ids, targets[row]), "in_loss": counted(targets[row]),
                }),
            })  # fmt: skip
        return found

    def _whole(self, chosen: np.ndarray) -> list[int]:
        """Return how many tokens rows have when nothing is cut."""
        if not len(chosen):
            return []
        return self.inputs.data.task.whole_lengths(self.inputs.base.tokenizer, self.rows.take(chosen))
