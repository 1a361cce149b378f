"""Words and numbers as people read them: short module names, sensible digits, and text made safe to draw.

Names, texts and messages of a run are untrusted. `plotly_text` is for everything put into a figure, `markdown_text`
for everything put into a title, a caption or a label.
"""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

_ENDINGS = {
    "query": "query q_proj q_lin query_proj SelfAttention.q",
    "key": "key k_proj k_lin key_proj SelfAttention.k",
    "value": "value v_proj v_lin value_proj SelfAttention.v",
    "qkv": "query_key_value c_attn qkv_proj Wqkv",
    "attn out": "attention.output.dense o_proj out_proj out_lin attn.c_proj SelfAttention.o attention.dense attn.Wo",
    "ff in": "intermediate.dense up_proj lin1 c_fc fc1 dense_h_to_4h mlp.Wi",
    "ff gate": "gate_proj",
    "ff out": "output.dense down_proj lin2 mlp.c_proj fc2 dense_4h_to_h mlp.Wo",
}
KIND_WORDS = {ending: word for word, endings in _ENDINGS.items() for ending in endings.split()}
"""How the field's libraries end the names of a block's linear modules, and what these are."""

LARGE = 1e15
"""From here on a number is written as a power of ten: 309 digits are no number to read."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u200b-\u200f\u2028-\u202f\u2066-\u2069]+")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$&^=\"'])")
_BREAK = "\u200b"
_QUOTED = re.compile(r"(`[^`]*`)")
_CODE = re.compile(r"`[\w .,:=/+-]+`")


def one_line(text: object, limit: int = 200) -> str:
    """Return text on one line, without control and direction characters, cut after `limit` characters."""
    line = _CONTROL.sub(" ", str(text)).strip()
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def short_names(names: Sequence[object], limit: int) -> list[str]:
    """Return names on one line each, of at most `limit` characters, distinct for distinct names.

    A long name loses its end; names that look alike then lose their middle instead, and where that does not tell them
    apart either, each gets a number in brackets.
    """
    whole = [one_line(name, 10_000) for name in names]
    cut = _where_alike([one_line(name, limit) for name in whole], whole, lambda name, _: _without_middle(name, limit))
    return _where_alike(cut, whole, lambda name, place: f"{one_line(name, limit - len(str(place)) - 3)} ({place})")


def _where_alike(labels: list[str], whole: list[str], other: Callable[[str, int], str]) -> list[str]:
    """Return what is shown of names, another way where two different names are shown alike."""
    names = dict.fromkeys(zip(labels, whole, strict=True))
    alike = {name: [one for short, one in names if short == name] for name in dict.fromkeys(labels)}
    return [
        short if len(alike[short]) == 1 else other(name, alike[short].index(name) + 1)
        for short, name in zip(labels, whole, strict=True)
    ]


def _without_middle(name: str, limit: int) -> str:
    """Return a name of at most `limit` characters, both of its ends kept."""
    last = (limit - 1) // 2
    return name if len(name) <= limit else f"{name[: limit - 1 - last].rstrip()}…{name[-last:].lstrip()}"


def source_name(text: object) -> str:
    """Return what a model or data set is called: the last part of a path on this machine, a name or hub id whole."""
    words = str(text)
    local = words.startswith(("/", "~", ".")) or re.match(r"[A-Za-z]:[\\/]", words) is not None
    return re.split(r"[\\/]", words.rstrip("\\/"))[-1] or words if local else words


def plotly_text(text: object, limit: int = 200) -> str:
    """Return text for a figure: no tags, no formulas, no `%{...}` of plotly's own."""
    return _plotly_text(str(text), limit)


@lru_cache(maxsize=20_000)  # a map of 448 modules names each of them again at every refresh
def _plotly_text(text: str, limit: int) -> str:
    return html.escape(one_line(text, limit)).replace("$", "&#36;").replace("%{", "%&#123;")


def plotly_lines(text: object, width: int, limit: int = 120) -> str:
    """Return text for a figure in lines of at most about `width` characters; what is in brackets begins its own."""
    words = one_line(text, limit)
    parts = [words] if len(words) <= width else re.split(r" (?=\()", words)
    return "<br>".join(plotly_text(line) for part in parts for line in textwrap.wrap(part, width))


def markdown_text(text: object, limit: int = 200) -> str:
    """Return text for a title, caption or label: shown as it is, whatever markdown or streamlit would make of it.

    A zero-width space is after each colon and in `www.`, because emoji, icons and links are found after escapes
    are gone.
    """
    return _escaped(one_line(text, limit))


def documentation_text(text: object, limit: int = 4000) -> str:
    """Return a paragraph of documentation for a page: as `markdown_text`, but plain words in backticks are code."""
    pieces = _QUOTED.split(one_line(text, limit))
    return "".join(piece if _CODE.fullmatch(piece) else _escaped(piece) for piece in pieces)


def _escaped(text: str) -> str:
    escaped = _MARKDOWN.sub(r"\\\1", text)
    return escaped.replace(":", f":{_BREAK}").replace("www", f"www{_BREAK}").replace("@", f"@{_BREAK}")


def kind_labels(kinds: Iterable[str]) -> dict[str, str]:
    """Return a short word for each kind of module, distinct for distinct kinds."""
    known = list(dict.fromkeys(kinds))
    short = {kind: _kind_word(kind) for kind in known}
    words = list(short.values())
    return {kind: word if words.count(word) == 1 else kind for kind, word in short.items()}


def _kind_word(kind: str) -> str:
    parts = kind.split(".")
    for start in range(len(parts)):
        ending = ".".join(parts[start:])
        if ending in KIND_WORDS:
            return KIND_WORDS[ending]
    return ".".join(parts[-2:])


def number(value: float | int | None, digits: int = 3) -> str:
    """Return a number with thousands separated and `digits` significant digits; an en dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) < LARGE and (isinstance(value, int) or float(value).is_integer() and abs(value) >= 1000):
        return f"{int(value):,}"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e7):
        return f"{value:.{max(digits - 1, 1)}e}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def score(value: float | None) -> str:
    """Return a metric with three decimals, one that is beyond reading as a power of ten."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < LARGE else f"{value:.2e}"


METRIC_WORDS = {
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
    "f1": "F1",
    "macro_f1": "macro F1",
    "mae": "mean absolute error",
    "matthews": "Matthews correlation",
    "mse": "mean squared error",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}


def metric_words(name: str) -> str:
    """Return what people call a metric, on one line."""
    return METRIC_WORDS.get(name) or one_line(name.replace("_", " "), 40)


def signed(value: float, digits: int) -> str:
    """Return a number with its sign, a true minus where it is negative; one beyond reading as a power of ten."""
    return f"{value:+.{digits}{'f' if abs(value) < LARGE else 'e'}}".replace("-", "−")


def minus(number: str) -> str:
    """Return a number with a true minus in place of a hyphen."""
    return number.replace("-", "−")


def percent(share: float | None, digits: int = 1) -> str:
    """Return a fraction as a percentage with `digits` decimals."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f} %"


def duration(seconds: float | None) -> str:
    """Return a length of time in the two units that matter."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def rough_duration(seconds: float | None) -> str:
    """Return an estimate of time with no more digits than are certain: to 5 seconds, a minute, or half an hour."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 57.5:
        return f"{5 * max(1, math.floor(seconds / 5 + 0.5))} s"
    minutes = math.floor(seconds / 60 + 0.5)
    if minutes < 60:
        return f"{minutes} min"
    halves = math.floor(minutes / 30 + 0.5)
    return f"{halves / 2:g} h" if halves < 20 else f"{math.floor(minutes / 60 + 0.5):,} h"


def ago(seconds: float | None) -> str:
    """Return how long ago something was, in its larger unit; empty where that is not known."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return ""
    minutes, hours, days = (int(seconds // unit) for unit in (60, 3600, 86_400))
    if days:
        return f"{plural(days, 'day')} ago"
    return f"{hours} h ago" if hours else f"{minutes} min ago" if minutes else "just now"


def listed(words: Sequence[str], limit: int = 3) -> str:
    """Return words as a phrase: a, b and c; more than `limit` end in "and n more"."""
    if len(words) > limit:
        words = [*words[:limit], f"{len(words) - limit} more"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"


_END = re.compile(r"(?<!\b[A-Z])(?<!\b[A-Z][a-z])(?<!\b[A-Z][a-z]{2})\. (?=[^\W_a-z])")
"""Where a sentence ends: not after "Dr.", "Inc." or an initial, which names of groups and classes may have."""


def first_sentence(text: str) -> tuple[str, str]:
    """Return the first sentence of a text, and the others."""
    first, *others = _END.split(text, maxsplit=1)
    return first + "." * len(others), "".join(others)


def sentence_case(text: str) -> str:
    """Return text with a capital at its start; the rest stays, so that names keep theirs."""
    return text[:1].upper() + text[1:]


def short_path(name: str) -> str:
    """Return the path of a module from the number of its layer on, where it is long; other names as they are."""
    numbered = re.search(r"\.(\d+\.[^\s]*?)\Z", name) if len(name) > LONG_PATH else None
    return numbered[1] if numbered else name


LONG_PATH = 24
"""Characters of a path beyond which the head of a column has its end only."""


def plural(n: int, word: str) -> str:
    """Return a count with its word: 1 row, 2 rows."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def spans(numbers: Iterable[int]) -> str:
    """Return whole numbers as spans, 0 to 2 and 5 as `0–2, 5`."""
    ranges: list[list[int]] = []
    for value in sorted(set(numbers)):
        if ranges and value == ranges[-1][-1] + 1:
            ranges[-1].append(value)
        else:
            ranges.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}\N{EN DASH}{run[-1]}" for run in ranges)


def clean_text(text: str) -> str:
    """Return the text with a question mark in the place of each lone surrogate, which nothing can encode."""
    return text if is_text(text) else text.encode("utf-8", "replace").decode("utf-8")


def is_text(text: str) -> bool:
    """Say whether text can be encoded: a lone surrogate, half of a character, cannot."""
    try:
        return text.isascii() or bool(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def as_text(value: object) -> str:
    """Return a value as text for a message; of a whole number that is too long for that, its number of digits."""
    try:
        return str(value)
    except (ValueError, RecursionError):
        if isinstance(value, int):
            return f"a whole number of {int(value.bit_length() * math.log10(2)) + 1:,} digits"
        return f"a {type(value).__name__} that cannot be shown"


def printable(text: object, limit: int = 80) -> str:
    """Return text of an untrusted file for a message: printable, on one line, cut to `limit` characters."""
    plain = "".join(filter(str.isprintable, as_text(text)))
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"
