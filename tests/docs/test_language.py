"""What a user reads is plain English with the words of the field: short sentences, none of the project's old words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dynlora import strategies
from tools.docs import pages

ROOT = Path(__file__).resolve().parents[2]
AT_THE_TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
DOCUMENTS = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in AT_THE_TOP)])
GENERATED = {"LICENCES.md"}
LATER: set[str] = set()
"""Documents that are still in the old words; each leaves this set with its rewriting."""

DOCUMENTS = [path for path in DOCUMENTS if path.name not in LATER]

NOT_OURS = [
    r"by lot\b|\blots\b(?! of)", r"told (?:apart|from)", r"clear of zero", r"(?:, |both |it |them )open\b(?!\.| the)",
    r"promise[sd]?\b", r"\blisten(?:s|ing|ed)?\b", r"\b(?:hears?|heard)\b", r"\bcommitment\b", r"\bworth\b",
    r"\bpull(?:s|ed)?\b(?! request)(?! URL)", r"\blies?\b", r"\bstands?\b", r"\bcame of\b", r"\b(?:goes|went|go) on\b",
    r"\banew\b", r"\bowed to\b", r"in the mean\b", r"\bcomes to\b", r"under the lens",
    r"\b(?:gate|file|component|column|row|page|number|value|command|rate|seed) an? "
    r"(?:sequence|token|module|component|method|command|run|step|claim|copy|row|stage|example|second)\b",
    "\u2014",
]  # fmt: skip
"""Words that only this project used, and em dashes."""

MEAN, LONGEST = 20, 40


def prose(text: str) -> str:
    """Return running text: no code, tables, headings, links' addresses or HTML."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$|<!--.*?-->", "", text, flags=re.DOTALL)
    lines = [line for line in text.split("\n") if not re.match(r"\s*(\||#|!\[|:::)", line)]
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"<[^>]+>", "", "\n".join(lines)))
    text = re.sub(r"`[^`]*`|\$[^$\n]+\$", "CODE", text)
    return re.sub(r"^\s*(?:[-*]|\d+\.)\s", "\n\n", text, flags=re.MULTILINE)


def sentences(text: str) -> list[str]:
    """Return the sentences of running text; a list item ends one."""
    found = []
    for paragraph in re.split(r"\n\s*\n", prose(text)):
        joined = re.sub(r"(?:et al|e\.g|i\.e)\.", "", " ".join(paragraph.split()))
        found += [part for part in re.split(r"(?<=[.!?])[*)]*\s+", joined) if words(part) > 1]
    return found


def words(sentence: str) -> int:
    """Return how many words a sentence has; a figure with its sign or unit counts as one."""
    return len(re.findall(r"[^\W_][\w.,'’\-−/×%]*", sentence))


def named(path: Path) -> str:
    """Return a document's path in the repository."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_no_word_of_the_old_dialect(path: Path) -> None:
    text = re.sub(r"```.*?```", lambda code: "\n" * code[0].count("\n"), path.read_text("utf-8"), flags=re.DOTALL)
    found = [
        f"{named(path)}:{number}: {match[0]!r} in {line.strip()[:80]}"
        for number, line in enumerate(re.sub(r"`[^`\n]*`", "", text).split("\n"), 1)
        for pattern in NOT_OURS
        for match in [re.search(pattern, line)]
        if match
    ]
    assert found == []


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name not in GENERATED], ids=named)
def test_sentences_are_short(path: Path) -> None:
    found = sentences(path.read_text("utf-8"))
    assert [f"{words(one)}: {one}" for one in found if words(one) > LONGEST] == []
    assert sum(map(words, found)) / max(1, len(found)) <= MEAN


@pytest.mark.parametrize("name", strategies.registry())
def test_pages_of_methods_keep_to_the_same_words(name: str) -> None:
    text = re.sub(r"`[^`\n]*`", "", pages.method(strategies.describe(name)))
    assert [match[0] for pattern in NOT_OURS for match in re.finditer(pattern, text)] == []
