"""Causal language modelling: texts that are to be written, a token at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from dynlora.data_files.columns import Columns
from dynlora.errors import DataError
from dynlora.tasks import labels as tasks_labels
from dynlora.tasks.base import WritingTask
from dynlora.tasks.token_loss import TokenOutput, judged_tokens, next_tokens, token_loss
from dynlora.tasks.token_rows import EncodedRows, Prompt, TextRows, encode_texts, encoder, end_token, prompt_of


@dataclass(frozen=True)
class CausalLM(WritingTask):
    """p(text) = Π_t p(token_t | tokens before it); the loss is the mean over tokens of -log p, in nats.

    The loss of a step is the sum over its tokens that count divided by their number, over all parts of the batch and
    all processes, so that it equals that of one large batch. That of an example is the mean over its own tokens.

    Attributes:
        loss_on: which tokens count: completion, all or assistant.
        reads: what the rows are: text, completion (after a prompt) or messages.
    """

    loss_on: str = "completion"
    reads: str = "text"

    name: ClassVar[str] = "causal_lm"
    order: ClassVar[int] = 10
    peft_task_type: ClassVar[str] = "CAUSAL_LM"
    metrics: ClassVar[Mapping[str, bool]] = {"perplexity": False, "token_accuracy": True, "exact_match": True}
    group_metrics: ClassVar[Sequence[str]] = ("token_accuracy",)
    prediction_unit: ClassVar[str] = "right tokens"
    output_unit: ClassVar[str] = "probability"

    # --- data

    @classmethod
    def claims_columns(cls, columns: Columns) -> bool:
        """Take texts that have no labels: conversations, completions, or a text alone."""
        return bool(columns.is_generative)

    @classmethod
    def of_columns(cls, section: Any, columns: Columns) -> CausalLM:
        """Return the task of texts, completions or conversations."""
        pair = "text" if columns.text_pair is None else "completion"
        return cls((), section.loss_on or "completion", pair if columns.messages is None else "messages")

    def check_tokenizer(self, tokenizer: Any, rows: TextRows) -> None:
        """Refuse a tokenizer without an end token, or without the chat template that conversations need."""
        end_token(tokenizer)
        encoder(tokenizer, rows, self.loss_on)

    def encode_rows(self, tokenizer: Any, rows: TextRows, max_length: int) -> EncodedRows:
        """Return texts as tokens, and the token that each position is to predict as -100 where none counts."""
        return encode_texts(tokenizer, rows, max_length, self.loss_on)

    def whole_lengths(self, tokenizer: Any, rows: TextRows) -> list[int]:
        """Return the tokens of prompt, completion and end, or of a conversation."""
        encode = encoder(tokenizer, rows, self.loss_on)
        return [len(encode(index).ids) for index in range(len(rows.text))]

    def group_of(self, label: Any) -> str:
        """Return nothing: there are no labels.

        Raises:
            DataError: always.
        """
        raise DataError("data.group_by=label: language modelling has no labels; group by a column or length")

    def usual_metric(self, data_name: str) -> str:
        """Return perplexity."""
        return "perplexity"

    # --- model

    @classmethod
    def made(cls, model: Any) -> bool:
        """Say whether a model was made to write texts: by its class, since its config may be that of a checkpoint."""
        return type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()

    def model_class(self) -> Any:
        """Return the class that puts a language-modelling head on a transformer."""
        return AutoModelForCausalLM

    def configure(self, config: Any) -> None:
        """Leave the config as it is: the head is the model's own."""

    # --- loss and predictions

    def forward(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> TokenOutput:
        """Return the last hidden states and the head, without the logits of all positions."""
        return next_tokens(model, inputs)

    def example_loss(self, output: TokenOutput, labels: Tensor) -> Tensor:
        """Return the mean loss over each example's own tokens in nats, (batch,); zero where none counts."""
        loss, count = token_loss(output, labels)
        return loss / count.clamp_min(1)

    def batch_loss(self, output: TokenOutput, labels: Tensor) -> Tensor:
        """Return the sum of the losses of all tokens that count over their number, ()."""
        loss, count = token_loss(output, labels)
        return loss.sum() / count.sum().clamp_min(1)

    def judged(self, output: TokenOutput, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of each example, and (sum of losses, right tokens, tokens), (batch, 3)."""
        return self.judged_by_token(output, labels)[:2]

    def judged_by_token(self, output: TokenOutput, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `judged` returns, and the loss of each token, (batch, seq), NaN where one does not count."""
        loss, right, count, each = judged_tokens(output, labels)
        return loss / count.clamp_min(1), torch.stack([loss, right, count], 1), each

    def readings(self, output: TokenOutput, labels: Tensor) -> Tensor:
        """Return the mean loss over each example's own tokens, (batch, 1)."""
        return self.example_loss(output, labels).unsqueeze(1)

    def prediction(self, output: np.ndarray) -> np.ndarray:
        """Return how many tokens of each example are predicted, (n,)."""
        return output[:, 1]

    def confidence(self, output: np.ndarray) -> np.ndarray:
        """Return the mean probability of each example's tokens, the geometric one, (n,)."""
        return np.exp(-output[:, 0] / np.maximum(output[:, 2], 1))

    def evaluate(self, label: np.ndarray, prediction: np.ndarray, output: np.ndarray) -> dict[str, float]:
        """Return loss, perplexity and token accuracy over all tokens, and how many these are.

        perplexity = exp(Σ -log p / number of tokens), of the whole set and not the mean of batches.
        """
        loss, right, count = output.sum(0, dtype=np.float64)
        mean = float(loss / max(count, 1))
        return {
            "loss": mean,
            "perplexity": float(np.exp(min(mean, 700.0))),
            "token_accuracy": float(right / max(count, 1)),
            "tokens": float(count),
        }

    # --- words

    def describe(self, value: Any) -> str | float:
        """Return a number of tokens in words."""
        return f"{int(value):,} {'token' if int(value) == 1 else 'tokens'}"

    def margins(self, output: np.ndarray, prediction: Any) -> np.ndarray:
        """Return the log-probability of each example's tokens, (n,)."""
        return -output[:, 0].astype(float)

    def said_labels(self) -> str:
        """Return what is in the place of labels, for a message."""
        return "texts to write"

    def prompt_fields(self, texts: Sequence[str]) -> Mapping[str, list[Any]]:
        """Return what is beside texts that are to be continued: each is a user's turn of a conversation."""
        if self.reads != "messages":
            return {}
        return {"messages": [[{"role": "user", "content": text}] for text in texts]}

    def prompt(self, tokenizer: Any, rows: TextRows, index: int, *, is_whole: bool = False) -> Prompt:
        """Return what is before a row's completion, or the beginning of a text that has none; whole where asked."""
        return prompt_of(tokenizer, rows, index, is_whole=is_whole or self.reads != "text")

    def after_prompts(self) -> CausalLM:
        """Return the task with its loss on completions or answers."""
        return replace(self, loss_on="assistant" if self.loss_on == "assistant" else "completion")

    def halves(self, text: str) -> tuple[str, str]:
        """Return the first and the second half of a text, which begins with the space between two words."""
        gaps = [match.start() for match in re.finditer(r"\s+(?=\S)", text) if match.start()]
        middle = min(gaps, key=lambda gap: abs(gap - len(text) / 2)) if gaps else len(text) // 2
        return text[:middle], text[middle:]

    def is_right(self, answer: str, written: str) -> bool:
        """Say whether a written text gives the right answer; see `answers.is_right`."""
        return tasks_labels.is_right(answer, written)
