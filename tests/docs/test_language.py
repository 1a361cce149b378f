"""Documents keep to short sentences, generated pages of methods to the list of `tools.words` as all other texts do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dynlora import strategies
from tools import words as phrases
from tools.docs import pages

ROOT = Path(__file__).resolve().parents[2]
AT_THE_TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
DOCUMENTS = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in AT_THE_TOP)])
GENERATED = {"LICENCES.md"}
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
    parts = []
    for paragraph in re.split(r"\n\s*\n", prose(text)):
        joined = re.sub(r"(?:et al|e\.g|i\.e)\.", "", " ".join(paragraph.split()))
        parts += [part for part in re.split(r"(?<=[.!?])[*)]*\s+", joined) if words(part) > 1]
    return parts


def words(sentence: str) -> int:
    """Return how many words a sentence has; a figure with its sign or unit counts as one."""
    return len(re.findall(r"[^\W_][\w.,'’\-−/×%]*", sentence))


def named(path: Path) -> str:
    """Return a document's path in the repository."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name not in GENERATED], ids=named)
def test_sentences_are_short(path: Path) -> None:
    texts = sentences(path.read_text("utf-8"))
    assert [f"{words(one)}: {one}" for one in texts if words(one) > LONGEST] == []
    assert sum(map(words, texts)) / max(1, len(texts)) <= MEAN


@pytest.mark.parametrize("name", strategies.registry())
def test_pages_of_methods_keep_to_the_same_words(name: str) -> None:
    text = pages.method(strategies.describe(name))
    assert [phrase for _, line in phrases.of_markdown(text) for phrase in phrases.matches(line)] == []
