"""The texts that teachers wrote: how many, and some of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from dynlora.kinds.distil import result as distil_result
from dynlora.kinds.distil.result import Distil, Written
from dynlora.text import short_names
from dynlora.viz.kit.panel import Choice, Panel, RunView


@dataclass(frozen=True)
class TeacherTexts:
    """The texts of one teacher beside the counts of all."""

    result: Distil
    written: Written


class Texts(Panel[TeacherTexts]):
    """Texts of the chosen teacher."""

    id = "texts"
    order = 3
    title = "Texts of the teachers"
    about = "Written from the start token, without any data"
    missing = "The first texts appear here."

    def choice(self, view: RunView) -> Choice | None:
        """Return the teachers that have written."""
        names = short_names(list(view.result.names().values()), 80)
        options = {str(place): names[place] for place in sorted(_by_teacher(view.result))}
        return Choice("teacher", "Teacher", options, next(iter(options))) if options else None

    def data(self, view: RunView) -> TeacherTexts | None:
        """Return the last texts of the chosen teacher."""
        choice = self.choice(view)
        return None if choice is None else TeacherTexts(view.result, _by_teacher(view.result)[int(choice.of(view))])

    def caption(self, data: TeacherTexts) -> str:
        """Return how the texts were drawn, and what is odd about them."""
        result = data.result
        start = f" Each begins with {result.start}." if result.start else ""
        odd = [
            f"{distil_result.teacher_name(result, one.teacher)}: {one.empty:,} empty, {one.repeated:,} repeated"
            for one in result.counted
            if one.empty or one.repeated
        ]
        faults = f" {'; '.join(odd)}." if odd else " None is empty or repeats another." if result.counted else ""
        return f"Texts drawn at temperature 1, of at most {result.tokens:,} tokens.{start}{faults}"

    def table(self, data: TeacherTexts) -> pd.DataFrame:
        """Return the texts: columns text, tokens, ended."""
        rows = [[sample.text or "(empty)", sample.tokens, sample.ended] for sample in data.written.samples]
        return pd.DataFrame(rows, columns=["text", "tokens", "ended"])

    def more(self, data: TeacherTexts) -> Mapping[str, pd.DataFrame]:
        """Return the counts of all teachers: as far as they are, or at the end."""
        counts = (
            distil_result.counted_frame(data.result)
            if data.result.counted
            else distil_result.written_frame(data.result)
        )
        return {"Texts by teacher": counts}


def _by_teacher(result: Distil) -> dict[int, Written]:
    """Return the texts of each teacher that has some, by its position."""
    return {one.teacher: one for one in result.written if one.teacher < len(result.sources) and one.samples}
