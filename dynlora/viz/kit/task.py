"""What a trained model predicts."""

from __future__ import annotations

from dataclasses import dataclass

from dynlora.text import listed, one_line


@dataclass(frozen=True)
class Task:
    """What a model takes and what it may predict; predictions of models with the same task can be compared.

    Attributes:
        kind: classification or regression, None where it was not recorded.
        labels: names of the classes in alphabetical order, none for numbers.
        paired: whether a question is a pair of texts.
        writes: whether the model continues texts.
    """

    kind: str | None
    labels: tuple[str, ...]
    paired: bool
    writes: bool = False

    @property
    def words(self) -> str:
        """The task in words."""
        if self.writes:
            return "texts to write"
        asked = "pairs of texts" if self.paired else "single texts"
        if self.kind is None:
            return f"{asked}, with unknown labels"
        said = listed([one_line(name, 24) for name in self.labels], 6) if self.labels else "a number"
        return f"{asked}, with the labels {said}" if self.labels else f"{asked}, with {said} as the label"
