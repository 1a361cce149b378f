"""The parts of a report that conclude: the verdict, and the ranks to use."""

from __future__ import annotations

from functools import partial

from dynlora.analysis import ranks_to_use, ranks_to_use_text, verdict_text
from dynlora.analysis.run_reading import RunReading
from dynlora.analysis.verdict import Verdict
from dynlora.viz.report.document import Block, Chart, Part, Table, Text
from dynlora.viz.verdict import figures as verdict_figures


def verdict_part(verdict: Verdict) -> Part:
    """Return which configuration to use, how sure that is, and every difference from the baseline."""
    notes = (verdict_text.headline(verdict), verdict_text.outlook(verdict), verdict_text.left_out(verdict))
    drawn, table = verdict_figures.drawable(verdict), verdict_text.table(verdict)
    title, blocks = "Differences from the baseline", list[Block]()
    if drawn:
        words = verdict_text.drawn(verdict, len(drawn))
        blocks.append(Chart(title, partial(verdict_figures.differences, verdict), words, table, is_wide=True))
    elif verdict.contests:
        blocks.append(Table(title, table, is_wide=True))
    return Part("Verdict", blocks, [note for note in notes if note])


def ranks_part(run: RunReading) -> Part:
    """Return the ranks that a finished or stopped run ended with, as a table by kind and as code for PEFT."""
    summary, title = run.summary, "Ranks to use"
    evidence, settings = ranks_to_use.evidence_of(run), ranks_to_use.lora_settings(summary, summary["ranks"])
    if evidence is None or settings is None:
        return Part(title, [])
    kinds = ranks_to_use_text.kinds_table(evidence)
    return Part(
        title,
        [
            Table("Ranks by kind of module", kinds, ranks_to_use_text.columns(kinds), is_wide=True),
            *(Text(name, text, is_wide=True) for name, (text, _) in ranks_to_use_text.snippets(settings).items()),
        ],
        [ranks_to_use_text.headline(evidence)],
    )
