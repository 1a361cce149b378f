"""A small table of reviews, and the same with ten odd rows: what people upload."""

from __future__ import annotations

from tests.tiny import BAD, GOOD

CLEAN = [
    {
        "text": f"the {'film' if i % 4 < 2 else 'plot'} was {(GOOD if i % 2 else BAD)[i % 3]} {'very ' * (i // 12)}end",
        "label": ("bad", "good")[i % 2],
        "thread": f"t{i // 5}",
    }
    for i in range(60)
]
ODD = [
    {"text": "", "label": "good", "thread": "a"},
    {"text": "   ", "label": "bad", "thread": "a"},
    {"text": "a story", "label": "", "thread": "a"},
    {"text": "story and cast", "label": "Good", "thread": "b"},
    {"text": "cast and music", "label": "good ", "thread": "b"},
    {"text": "a lovely\nplot", "label": "good", "thread": "b"},
    {"text": "a lovely\nplot", "label": "good", "thread": "b"},
    {"text": "A LOVELY plot!", "label": "good", "thread": "b"},
    {"text": "is and was", "label": "odd", "thread": "c"},
    {"text": "story and cast", "label": "bad", "thread": "c"},
]

WITH_ODD_ROWS = [*{row["text"]: row for row in CLEAN}.values(), *ODD]
"""The distinct clean rows, then the odd ones."""
