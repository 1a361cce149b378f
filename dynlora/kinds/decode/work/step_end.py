"""Where a step ends: at a text such as a line break, which may lie across tokens or inside of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StopStringCriteria

from dynlora.errors import ConfigError


class StepEnd:
    """Says of the tokens of a step whether they hold the text that ends it.

    A token that has more after the end ends a step too; what it has beyond stays in the step.

    Attributes:
        text: that ends a step.
    """

    def __init__(self, tokenizer: Any, text: str, role: str) -> None:
        """Prepare the criterion of transformers for a tokenizer.

        Args:
            tokenizer: of the role.
            text: that ends a step.
            role: for the message.

        Raises:
            ConfigError: when the text is empty, or the tokenizer cannot write it.
        """
        if not text:
            raise ConfigError("--step-string: is empty; give the text that ends a step, such as a line break")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if text not in tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False):
            raise ConfigError(
                f"--step-string {text!r}: the tokenizer of the {role} cannot write it; give a text that it can, or "
                "another run"
            )
        self.text = text
        self._criterion = StopStringCriteria(tokenizer, [text])

    def __call__(self, ids: Sequence[int]) -> bool:
        """Say whether the last token of a step ends it."""
        return bool(self._criterion(torch.tensor([list(ids)]), None)[0])  # pyright: ignore[reportArgumentType]
