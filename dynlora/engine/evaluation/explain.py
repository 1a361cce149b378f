"""One text explained: what each token adds to the answer, which gates it opens, which modules carry the answer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dynlora.engine.data.batches import Tokens
from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.evaluate import Predictions
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.engine.strategy import Strategy


@dataclass(frozen=True)
class Piece:
    """One token of a text.

    Attributes:
        text: as it is in the text.
        part: 0 in the first text, 1 in the second, None for a token of the model's own, such as [CLS].
        start: its place in its text, in characters.
    """

    text: str
    part: int | None
    start: int


@dataclass(frozen=True)
class Explanation:
    """What a model made of one text.

    Attributes:
        pieces: its n tokens.
        answer: probabilities of the classes, (n_labels,), or the number, (1,).
        margin: log-odds of the predicted class, or the number.
        contribution: what `margin` loses when a token is hidden, (n,); NaN for the model's own tokens.
        base_contribution: the same with all adapters off, of the class that the adapted model predicts.
        effects: how strongly each module acts, ‖h - h₀‖ / ‖h₀‖ of its output, mean over tokens, (n_modules,).
        gate: (n_modules,), or None without gates.
        token_gate: (n_modules, n), or None where gates are not one a token.
        moved: how far the adapters carry each token's state from where the base has it, ‖h - h₀‖ / ‖h₀‖ after each
            block, (n_layers, n); None for a method whose forward is another.
        without: `margin` with one module off after the other, (n_modules,).
        flipped: whether the prediction is another without the module, (n_modules,).
    """

    pieces: list[Piece]
    answer: np.ndarray
    margin: float
    contribution: np.ndarray
    base_contribution: np.ndarray
    effects: np.ndarray
    gate: np.ndarray | None
    token_gate: np.ndarray | None
    moved: np.ndarray | None
    without: np.ndarray
    flipped: np.ndarray


def explain(model: AdaptedModel, text: str, text_pair: str | None = None) -> Explanation:
    """Return what each token and each module adds to the answer for a text.

    A token is hidden by the tokenizer's mask token, or from attention where it has none. Costs one forward a token,
    with the adapters and without, and one a module.
    """
    rows = Rows([text], None if text_pair is None else [text_pair], model.task.no_labels(1), None)
    tokens = model.tokens(rows)
    pieces = pieces_of(model, text, text_pair)
    whole = model.predictions(tokens)
    prediction = whole.prediction[0]
    margin = margins(model, whole, prediction)[0]
    hidden, places = hiding(model, tokens, pieces)
    contribution, base_contribution = (np.full(len(pieces), np.nan) for _ in range(2))
    contribution[places] = margin - margins(model, model.predictions(hidden), prediction)
    with model.adapters.disabled():
        bare = margins(model, model.predictions(tokens), prediction)[0]
        base_contribution[places] = bare - margins(model, model.predictions(hidden), prediction)
    without, flipped = _without(model, tokens, whole)
    return Explanation(
        pieces=pieces,
        answer=whole.output[0],
        margin=float(margin),
        contribution=contribution,
        base_contribution=base_contribution,
        effects=model.effects(tokens)[0],
        gate=None if whole.gate is None else whole.gate[0],
        token_gate=token_gates(model, tokens, len(pieces)),
        moved=moved(model, tokens),
        without=without,
        flipped=flipped,
    )


def margins(model: AdaptedModel, predictions: Predictions, prediction: Any) -> np.ndarray:
    """Return how strongly every row speaks for one prediction, (n,): the log-odds of its class, or the number."""
    return model.task.margins(predictions.output, prediction)


def pieces_of(model: AdaptedModel, text: str, text_pair: str | None) -> list[Piece]:
    """Return the tokens of a text as they are in it."""
    tokenizer = model.base.tokenizer
    limit = min(model.max_length, tokenizer.model_max_length)
    fast = bool(tokenizer.is_fast)
    encoded = tokenizer(text, text_pair=text_pair, truncation=True, max_length=limit, return_offsets_mapping=fast)
    token_texts = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    if not fast:
        own = set(tokenizer.all_special_tokens)
        return [Piece(str(word), None if word in own else 0, 0) for word in token_texts]
    pieces = []
    for word, part, (start, end) in zip(token_texts, encoded.sequence_ids(0), encoded["offset_mapping"], strict=True):
        source = (text, text_pair or "")[part] if part is not None else ""
        pieces.append(Piece(source[start:end] or str(word), part, int(start)))
    return pieces


def hiding(model: AdaptedModel, tokens: Tokens, pieces: Sequence[Piece]) -> tuple[Tokens, np.ndarray]:
    """Return one row for each token that is hidden in turn, and which tokens these are."""
    mask = model.base.tokenizer.mask_token_id
    places = np.array([index for index, piece in enumerate(pieces) if piece.part is not None], dtype=int)
    features = []
    for position in places:
        row = {name: list(values) for name, values in tokens.features[0].items()}
        if isinstance(mask, int):
            row["input_ids"][position] = mask
        else:
            row["attention_mask"][position] = 0
        features.append(row)
    n = len(places)
    return Tokens(features, np.repeat(tokens.label, n), np.repeat(tokens.length, n), tokens.pad), places


@torch.inference_mode()
def token_gates(model: AdaptedModel, tokens: Tokens, n: int) -> np.ndarray | None:
    """Return the gates of the n tokens of the first row, (n_modules, n); None where gates are not one a token."""
    gates = model.adapters.gates
    if gates is None or gates.mode != "token":
        return None
    model.readings(tokens.take(np.array([0])))
    columns = [gates.column(index) for index in range(len(model.adapters))]
    return np.stack([column[0, :n].float().cpu().numpy() for column in columns if column is not None])


@torch.inference_mode()
def moved(model: AdaptedModel, tokens: Tokens) -> np.ndarray | None:
    """Return how far the adapters carry each token of the first row, by layer, (n_layers, n); see `Explanation`."""
    if type(model.strategy).forward is not Strategy.forward:
        return None
    device = next(model.base.model.parameters()).device
    batch = tokens.batch([0], device)
    del batch["labels"]
    states = []
    for context in (nullcontext(), model.adapters.disabled()):
        with context:
            hidden = model.base.model(**batch, output_hidden_states=True).hidden_states[1:]
        states.append(torch.stack([state[0, : tokens.length[0]].float() for state in hidden]))
    adapted, base = states
    return ((adapted - base).norm(dim=-1) / base.norm(dim=-1).clamp_min(1e-12)).cpu().numpy()


def _without(model: AdaptedModel, tokens: Tokens, whole: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the margin with one module off after the other, and whether the prediction is another then."""
    prediction, margin, flipped = whole.prediction[0], [], []
    for index in range(len(model.adapters)):
        with model.adapters.disabled([index]) if model.adapters[index].rank else nullcontext():
            one = model.predictions(tokens)
        margin.append(margins(model, one, prediction)[0])
        flipped.append(model.task.flips(one.prediction[0], prediction))
    return np.array(margin), np.array(flipped)
