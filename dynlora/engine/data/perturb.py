"""Text as it arrives in practice: cut short, mistyped, in other letters, turned round. The same text gives the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dynlora.engine.data.text_data import Rows
from dynlora.engine.randomness import stream_seed
from dynlora.errors import ConfigError
from dynlora.tasks import WritingTask

_VERB = re.compile(
    r"\b(is|are|was|were|am|has|have|had|will|would|can|could|should|must|may|might|does|do|did)\b(?!\s+not\b)",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")
_NEIGHBOURS = {
    "a": "qs",
    "b": "vn",
    "c": "xv",
    "d": "sf",
    "e": "wr",
    "f": "dg",
    "g": "fh",
    "h": "gj",
    "i": "uo",
    "j": "hk",
    "k": "jl",
    "l": "k",
    "m": "n",
    "n": "bm",
    "o": "ip",
    "p": "o",
    "q": "wa",
    "r": "et",
    "s": "ad",
    "t": "ry",
    "u": "yi",
    "v": "cb",
    "w": "qe",
    "x": "zc",
    "y": "tu",
    "z": "x",
}


def cut(text: str, strength: float, draw: np.random.Generator) -> str:
    """Return the first words of a text; `strength` is the fraction that goes."""
    words = text.split()
    return " ".join(words[: max(1, round(len(words) * (1 - strength)))])


def typos(text: str, strength: float, draw: np.random.Generator) -> str:
    """Return a text in which a fraction of the words of three letters and more is mistyped once.

    A letter is swapped with the next, left out, doubled, or becomes its neighbour on the keyboard.
    """
    return _WORD.sub(lambda m: _mistyped(m[0], draw) if len(m[0]) > 2 and draw.random() < strength else m[0], text)


def upper(text: str, strength: float, draw: np.random.Generator) -> str:
    """Return a text with a fraction of its words in capitals."""
    return _WORD.sub(lambda m: m[0].upper() if draw.random() < strength else m[0], text)


def dropped(text: str, strength: float, draw: np.random.Generator) -> str:
    """Return a text without a fraction of its words, at least one stays."""
    words = text.split()
    remaining = [word for word in words if draw.random() >= strength]
    return " ".join(remaining or words[:1])


def negated(text: str, strength: float, draw: np.random.Generator) -> str:
    """Return a text whose first verbs are negated, or that is denied as a whole where none is known.

    What a label means may turn with it: how many predictions change says more than the metric.
    """
    if draw.random() >= strength:
        return text
    negation, count = _VERB.subn(lambda m: f"{m[0]} not", text, count=1)
    return negation if count else f"It is not true that {text}"


KINDS: dict[str, Callable[[str, float, np.random.Generator], str]] = {
    "cut": cut,
    "typos": typos,
    "dropped": dropped,
    "upper": upper,
    "negated": negated,
}
"""Every perturbation by its name."""


def perturbed(texts: Sequence[str], kind: str, strength: float, seed: int) -> list[str]:
    """Return texts after a perturbation.

    Args:
        texts: as they are.
        kind: one of `KINDS`.
        strength: fraction of the words, or of the texts, that it befalls, 0 to 1.
        seed: of the draws; each text has its own stream, so that its neighbours do not matter.

    Raises:
        ConfigError: when kind or strength is not one.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind={kind}: unknown perturbation; use one of {', '.join(KINDS)}")
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength={strength}: must be between 0 and 1")
    return [KINDS[kind](text, strength, np.random.default_rng(stream_seed(seed, kind, repr(text)))) for text in texts]


def _mistyped(word: str, draw: np.random.Generator) -> str:
    """Return a word with one mistake."""
    position, way = int(draw.integers(0, len(word) - 1)), int(draw.integers(0, 4))
    before, letter, after = word[:position], word[position], word[position + 1 :]
    if way == 0:
        return before + after[0] + letter + after[1:]
    if way == 1:
        return before + after
    if way == 2:
        return before + letter + letter + after
    near = _NEIGHBOURS.get(letter.lower(), letter)
    other = near[int(draw.integers(0, len(near)))]
    return before + (other.upper() if letter.isupper() else other) + after


def conditioned_rows(task: WritingTask, rows: Rows) -> tuple[Rows, str]:
    """Return rows in which what is written is apart from what it is conditioned on, and what is scored.

    That is the completion or the answer; of a text without a prompt the second half, given the first (half).
    """
    if rows.text_pair is not None or "messages" in rows.fields:
        return rows, "completion"
    halves = [task.halves(text) for text in rows.text]
    return replace(rows, text=[first for first, _ in halves], text_pair=[second for _, second in halves]), "half"


def perturbed_rows(rows: Rows, kind: str, strength: float, seed: int, *, is_written: bool) -> Rows:
    """Return rows whose inputs are perturbed; where texts are to be written, what is to be written stays.

    Raises:
        ConfigError: when kind or strength is not one.
    """
    text = perturbed(rows.text, kind, strength, seed)
    if not is_written:
        pair = None if rows.text_pair is None else perturbed(rows.text_pair, kind, strength, seed)
        return replace(rows, text=text, text_pair=pair)
    talks = rows.fields.get("messages")
    if talks is None:
        return replace(rows, text=text)
    contents = iter(perturbed([turn["content"] for talk in talks for turn in talk], kind, strength, seed))
    changed = [
        [
            {**turn, "content": new if turn["role"] == "user" else turn["content"]}
            for turn, new in zip(talk, contents, strict=False)
        ]
        for talk in talks
    ]
    return replace(rows, text=text, fields={**rows.fields, "messages": changed})
