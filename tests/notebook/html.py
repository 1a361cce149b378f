"""HTML of a notebook, read as a browser reads it: what could run, and what it says."""

from __future__ import annotations

from html.parser import HTMLParser

INERT = {"div", "span", "svg", "rect", "text", "title", "table", "thead", "tbody", "tr", "th", "td"}
"""Elements of a card: none of them runs or fetches anything."""


class Card(HTMLParser):
    """What a card holds.

    Attributes:
        elements: names of its elements.
        attributes: names of all attributes.
        styles: values of the styles.
        words: its text.
        sources: values of `srcdoc`.
    """

    def __init__(self, html: str) -> None:
        """Read it."""
        super().__init__(convert_charrefs=True)
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.styles: list[str] = []
        self.sources: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.styles += [value or "" for name, value in attrs if name == "style"]
        self.sources += [value or "" for name, value in attrs if name == "srcdoc"]

    def handle_data(self, data: str) -> None:
        self.words += data


def inert(html: str) -> Card:
    """Check that nothing in a card can run or be fetched, and return it."""
    card = Card(html)
    assert card.elements <= INERT
    assert not [name for name in card.attributes if name.startswith("on") or name in ("href", "src", "srcdoc")]
    assert not [style for style in card.styles if "url(" in style or "expression" in style]
    return card
