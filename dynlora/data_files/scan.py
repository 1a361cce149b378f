"""The check of a data file: read, repaired as a run would, and every fault listed with its lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dynlora.data_files import columns as data_files_columns
from dynlora.data_files import faults, repairs
from dynlora.data_files.columns import Columns
from dynlora.data_files.examples import Examples, counted
from dynlora.data_files.faults import EXAMPLES, Fault
from dynlora.data_files.reader import Sides, read_sides
from dynlora.data_files.repairs import Repair, plain
from dynlora.errors import DataError
from dynlora.text import printable

MAX_CHECKED = 200_000
"""Rows of each side that are checked; where a file has more, the check says so."""

GUESS_ROWS = 200
"""Rows by which columns are guessed."""

MAX_PLACES = 1000
"""Lines that a fault lists; more are counted."""


@dataclass(frozen=True)
class CheckConfig:
    """What of a configuration the check needs; the fields are those of section `data`, and the seed."""

    text: str | None = None
    text_pair: str | None = None
    label: str = "label"
    group_by: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    answer: str | None = None
    is_generative: bool | None = None
    has_classes: bool | None = None
    max_length: int = 128
    loss_on: str | None = None
    encoding: str | None = None
    eval_fraction: float = 0.1
    repair: tuple[Repair, ...] = ()
    seed: int = 0
    class_names: tuple[str, ...] = field(default=())

    @property
    def columns(self) -> Columns:
        """The columns that were named."""
        text, pair = self.prompt or self.text, self.completion or self.text_pair
        return Columns(text, pair, self.label, self.group_by, self.messages, self.answer, self.is_generative)


def wanted_of(section: Any, seed: int, class_names: Sequence[str] = ()) -> CheckConfig:
    """Return what the check needs of section `data` of a configuration.

    Args:
        section: the section, a `DataConfig`.
        seed: of the run.
        class_names: what the numbers of the label column mean, where the data itself does not say so.
    """
    keys = [key for key in CheckConfig.__dataclass_fields__ if key not in ("seed", "class_names", "repair")]
    values = {key: getattr(section, key) for key in keys}
    return CheckConfig(**values, repair=section.repair or (), seed=seed, class_names=tuple(class_names))


@dataclass(frozen=True)
class CheckResult:
    """What a check found, as plain values.

    Attributes:
        conclusion: the result in a sentence.
        file: name of the file or folder.
        rows: rows of each part, after repairs.
        is_drawn: the held-out part is drawn from the one table by the seed.
        columns: which column is what.
        classes: rows of each class, the most frequent first, at most 50.
        notes: how the file was read.
        repaired: what each repair of the configuration did: repair, count, sentence.
        faults: each kind: kind, title, sentence, count, places, examples, repair, action, refuses.
        repairs: all that can be repaired, behind the repairs of the configuration, as `data.repair` holds it.
        needed: of these, the ones of the configuration and of faults that training refuses; the others are of warnings.
        safe: those of `needed`, and repairs of warnings that are right in any data.
    """

    conclusion: str
    file: str
    rows: dict[str, int]
    is_drawn: bool
    columns: dict[str, str | None]
    classes: dict[str, int]
    notes: list[str]
    repaired: list[dict[str, Any]]
    faults: list[dict[str, Any]]
    repairs: list[Any]
    needed: list[Any]
    safe: list[Any]


SAFE = ("drop_duplicates", "drop_shared")
"""Repairs of warnings that are right in any data: what they leave out is there a second time."""


COVERED_BY = {
    "drop_shared": "drop_conflicts",
    "drop_near_shared": "drop_near_duplicates",
    "drop_similar_shared": "drop_similar",
    "split_by": "drop_duplicates",
}
"""Repairs that another one makes needless, where one file is split."""


def look(path: Path, wanted: CheckConfig) -> CheckResult:
    """Check a file or folder and return what was found.

    Raises:
        DataError: when it cannot be read, or lacks a column that is named.
    """
    sides, is_part = _first_rows(read_sides(path, MAX_CHECKED + 1, wanted.encoding, wanted.repair))
    chosen = data_files_columns.resolved(sides.train.columns, wanted.columns)
    rows = Examples.of(sides, chosen, wanted.class_names or None)
    draw = repairs.Draw(wanted.seed, wanted.eval_fraction)
    early, split, done = _repaired(rows, wanted.repair, draw)
    problems = list(faults.found_in(early, split, wanted.has_classes, wanted.max_length, wanted.loss_on))
    known = split if split is not None else early
    held_out = faults.held_out_count(known) if split is not None else 0
    given = [plain(repair) for repair in wanted.repair]
    refused = [fault for fault in problems if fault.refuses]
    safe = [fault for fault in problems if fault.refuses or fault.repair in SAFE]
    return CheckResult(
        conclusion=_conclusion(path.name, len(known), problems, done, is_part=is_part),
        file=path.name,
        rows={"training": len(known) - held_out, "held-out": held_out},
        is_drawn=sides.held_out is None,
        columns=asdict(chosen),
        classes=dict(Counter(name for name in known.classes if name is not None).most_common(50)),
        notes=[*_notes(sides), *([f"only the first {MAX_CHECKED:,} rows"] if is_part else [])],
        repaired=[asdict(item) for item in done],
        faults=[
            _plain(fault, split if split is not None and fault.kind in LATE_KINDS else early) for fault in problems
        ],
        repairs=_all_repairs(given, problems, sides.held_out is None),
        needed=_all_repairs(given, refused, sides.held_out is None),
        safe=_all_repairs(given, safe, sides.held_out is None),
    )


def _first_rows(sides: Sides) -> tuple[Sides, bool]:
    """Return the rows that are checked, and whether there are more: a check takes as long as its rows are many."""
    tables = [sides.train, *([] if sides.held_out is None else [sides.held_out])]
    return Sides(*(table.head(MAX_CHECKED) for table in tables)), any(len(table) > MAX_CHECKED for table in tables)


def split_rows(path: Path, wanted: CheckConfig) -> Examples:
    """Return the rows of a file or folder on both sides, repaired as training repairs them.

    Raises:
        DataError: when it cannot be read or split, or lacks a column that is named.
    """
    sides = read_sides(path, encoding=wanted.encoding, repairs=wanted.repair)
    chosen = data_files_columns.resolved(sides.train.columns, wanted.columns)
    rows = Examples.of(sides, chosen, wanted.class_names or None)
    return repairs.repaired(rows, wanted.repair, repairs.Draw(wanted.seed, wanted.eval_fraction))[0]


def _all_repairs(done: list[Any], problems: Sequence[Fault], is_split_here: bool) -> list[Any]:
    """Return repairs that are in the configuration and those of all faults, each once."""
    more = [fault.repair for fault in problems if fault.repair is not None]
    needed = [
        repair
        for repair in more
        if not is_split_here or COVERED_BY.get(repair if isinstance(repair, str) else next(iter(repair))) not in more
    ]
    return [*done, *(repair for place, repair in enumerate(needed) if repair not in [*done, *needed[:place]])]


def guess(
    path: Path, keys: Sequence[str], encoding: str | None = None, repairs: Sequence[Repair] = ()
) -> dict[str, str]:
    """Return likely columns of a file for keys of section `data` that were left open.

    Where the file holds conversations, completions or plain text, and neither text nor label is named, these are found.

    Raises:
        DataError: when the file cannot be read.
    """
    if not keys:
        return {}
    rows = read_sides(path, GUESS_ROWS, encoding, repairs).train.rows.to_pandas()
    kind = data_files_columns.guessed_kind(rows)
    if kind != "labelled" and {"text", "label"} <= {*keys}:
        written = data_files_columns.guessed_written(rows)
        roles = {"completion": ("prompt", "completion"), "messages": ("messages",)}.get(kind, ())
        return {role: name for role in roles if (name := written[role]) is not None}
    columns = data_files_columns.guessed(rows)
    return {key: name for key in keys if (name := columns[key]) is not None}


LATE_KINDS = ("shared", "shared_prompt", "shared_other_label", "near_shared", "similar_shared", "unseen")
"""Faults that are looked for after the split."""


def _repaired(
    rows: Examples, repair_list: Sequence[Repair], draw: repairs.Draw
) -> tuple[Examples, Examples | None, list[repairs.Done]]:
    """Return the repaired rows on one side, and on both unless they are too few, and what was done."""
    if len(rows) < 2 and len(rows.tables) == 1:
        return rows, None, []
    split, done = repairs.repaired(rows, repair_list, draw)
    one_side = split if len(split.tables) > 1 else split.with_side(np.zeros(len(split), np.int64))
    return one_side, split, done


def first_refusal(path: Path, wanted: CheckConfig) -> str | None:
    """Return the sentence of the first fault for which training refuses the data, None where there is none."""
    try:
        refusals = [fault for fault in look(path, wanted).faults if fault["refuses"]]
    except DataError:
        return None
    if not refusals:
        return None
    more = f" ({counted(len(refusals) - 1, 'more fault')}: dynlora data check {path.name})" if len(refusals) > 1 else ""
    return f"{refusals[0]['sentence'].rstrip('.')}{more}"


def _conclusion(
    name: str, n: int, problems: Sequence[Fault], done: Sequence[repairs.Done], *, is_part: bool = False
) -> str:
    """Return the result in a sentence."""
    after = f" after {counted(len(done), 'repair')}" if done else ""
    file, rows = printable(name, 80), f"{'the first ' if is_part else ''}{counted(n, 'row')}"
    if not problems:
        return f"{file}: no faults in {rows}{after}."
    refusing = sum(fault.refuses for fault in problems)
    stops = "; training refuses the file until it is repaired" if refusing else ""
    return f"{file}: {counted(len(problems), 'fault')} in {rows}{after}{stops}."


def _notes(sides: Sides) -> list[str]:
    """Return how the files were read: name, encoding, separator."""
    tables = (sides.train, *([sides.held_out] if sides.held_out is not None else []))
    return [f"{table.names[0]}: {', '.join(table.notes)}" for table in tables if table.notes]


def _plain(fault: Fault, rows: Examples) -> dict[str, Any]:
    """Return a fault as plain values."""
    chosen = fault.rows[:EXAMPLES]
    return {
        "kind": fault.kind,
        "title": fault.title,
        "sentence": fault.sentence,
        "count": len(fault.rows),
        "places": [_place(rows, int(row)) for row in fault.rows[:MAX_PLACES]],
        "examples": [_example(rows, int(row)) for row in chosen],
        "repair": fault.repair,
        "action": fault.action,
        "refuses": fault.refuses,
    }


def _place(rows: Examples, row: int) -> dict[str, Any]:
    name, unit, place = rows.where(row)
    return {"file": name, unit: place}


def _example(rows: Examples, row: int) -> dict[str, Any]:
    """Return a row for reading."""
    name, unit, place = rows.where(row)
    cells = {"place": f"{name}, {unit} {place:,}", "text": _cut(rows.text[row])}
    if rows.columns.is_generative:
        return cells | ({"completion": _cut(rows.pair[row])} if rows.pair else {})
    return cells | {"label": _cut(rows.label[row] if rows.label else None)}


def _cut(value: Any) -> str:
    return "" if value is None else printable(" ".join(str(value).split()), 300)
