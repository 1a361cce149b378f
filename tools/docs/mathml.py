"""Formulas for MkDocs: `$...$` in a line and `$$...$$` on lines of their own become MathML, which needs no script."""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor

INLINE = r"(?<![\\$\w])\$(?![\s$])([^$\n]*[^$\s\\])\$(?![$\w])"
BLOCK = re.compile(r"^\$\$\n?(.+?)\n?\$\$$", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)


def block(latex: str) -> str:
    """Return a formula on a line of its own; it scrolls where the screen is narrower."""
    return f'<div class="formula">{convert(latex, display="block")}</div>'


class _Inline(InlineProcessor):
    """A formula in a line."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str | Element, int, int]:
        """Return the stored MathML and what it replaces."""
        return self.md.htmlStash.store(convert(m.group(1))), m.start(0), m.end(0)


class _Blocks(Preprocessor):
    """Formulas on lines of their own, outside code."""

    def run(self, lines: list[str]) -> list[str]:
        """Return the lines with each formula replaced by its stored MathML."""
        parts = FENCE.split("\n".join(lines))
        for index in range(0, len(parts), 2):
            parts[index] = BLOCK.sub(self._stored, parts[index])
        return "".join(parts).split("\n")

    def _stored(self, match: re.Match[str]) -> str:
        return f"\n\n{self.md.htmlStash.store(block(match[1]))}\n\n"


class Formulas(Extension):
    """The Markdown extension."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Register both forms; code spans and fences are read before them."""
        md.preprocessors.register(_Blocks(md), "formula-blocks", 24)
        md.inlinePatterns.register(_Inline(INLINE, md), "formula", 185)


def makeExtension(**options: Any) -> Formulas:
    """Return the extension, under the name that Markdown asks for."""
    return Formulas(**options)
