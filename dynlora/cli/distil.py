"""A data-free distillation on the command line: `dynlora recycle` with teachers that write texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dynlora.kinds.distil import NOT_RECYCLE, DistilSettings
from dynlora.store.schema import command_text


def estimated(settings: DistilSettings, runs_dir: Path) -> tuple[Any, str]:
    """Return how long a distillation will take, as a document and in words."""
    from dynlora.distilling.estimate import estimated as estimate
    from dynlora.distilling.materials import Materials

    found = {"method": settings.method, **estimate(Materials.load(settings, runs_dir))}
    words = (
        f"about {found['minutes']:.1f} minutes: {found['writing_minutes']:.1f} to write {found['texts']:,} texts, "
        f"{found['learning_minutes']:.1f} for {settings.train_steps:,} steps of the student; the test comes after "
        f"that\n{NOT_RECYCLE}"
    )
    return found, words


def result_lines(document: Mapping[str, Any], runs_dir: Path) -> Iterator[str]:
    """Yield the next command after a distillation, and the tables of its results."""
    run_id, names = document["id"], document.get("methods") or {}
    export = command_text("export", run_id, "--out", "DIR", runs_dir=runs_dir)
    predict = command_text("predict", run_id, "--text", "TEXT", runs_dir=runs_dir)
    yield f"next: {export}, or {predict}"
    yield f"{run_id}, KL(teacher || model) on held-out texts, nats per token (95 % CI over texts)"
    for method, by_teacher in (document.get("kl") or {}).items():
        for teacher, row in by_teacher.items():
            yield f"  {names.get(method, method):36} {teacher:32} {_interval(row)}"
    for teacher, by_method in (document.get("loss") or {}).items():
        yield f"held-out loss on the data of {teacher}, nats per token (95 % CI over examples)"
        for method, row in by_method.items():
            yield f"  {names.get(method, f'teacher {method}'):36} {_interval(row)}"
    for row in document.get("texts") or ():
        yield (
            f"{row['texts']:,} texts of {row['teacher']} ({row['stage'].replace('_', '-')}), {row['tokens']:,} tokens, "
            f"{row['empty']:,} empty, {row['repeated']:,} repeated, sha256 {row['digest'][:12]}"
        )
    for note in document.get("notes") or ():
        yield f"note: {note}"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
