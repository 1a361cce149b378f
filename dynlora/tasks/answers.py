"""Answers that can be checked: what a generated text says, against what is right."""

from __future__ import annotations

import re
import unicodedata

MARKERS = ("####", "The answer is", "the answer is", "Answer:", "answer:")
"""What is before an answer; the last one in a text counts."""

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")


def is_right(answer: str, written: str) -> bool:
    """Say whether a text gives the right answer.

    A number: the first one after the last marker, or the last one of a text without markers, has its value. Else the
    text after the last marker, or the whole, is the same but for case, punctuation at the ends and white space.
    """
    right, given = number(answer), answer_in(written)
    if right is not None:
        return given is not None and number(given) == right
    return normalised(tail(written)) == normalised(answer)


def tail(written: str) -> str:
    """Return what follows the last marker, or the whole text."""
    places = [(written.rfind(marker) + len(marker), marker) for marker in MARKERS if marker in written]
    return written[max(places)[0] :] if places else written


def answer_in(written: str) -> str | None:
    """Return the number that a text gives as its answer, None without one."""
    after = tail(written)
    numbers = _NUMBER.findall(after)
    if not numbers:
        return None
    return numbers[0] if len(after) < len(written) else numbers[-1]


def number(text: str) -> float | None:
    """Return the value of a text that is one number, such as 1,234 or 3/4 or 50%; None for any other."""
    text = text.strip().strip("$€£ ").rstrip(".").strip()
    if not _NUMBER.fullmatch(text):
        return None
    share = 100.0 if text.endswith("%") else 1.0
    above, _, below = text.rstrip("%").replace(",", "").partition("/")
    if below and float(below) == 0:
        return None
    return float(above) / (float(below) if below else 1.0) / share


def normalised(text: str) -> str:
    """Return a text in small letters, with single spaces, without punctuation at its ends."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).strip(" .,;:!?\"'`*()[]")
