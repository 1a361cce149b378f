"""What a recycle says, in sentences: the conclusion, and what it does now."""

from __future__ import annotations

from collections.abc import Sequence

from dynlora.kinds.recycle import frames
from dynlora.kinds.recycle.result import Accuracy, Recycle
from dynlora.store.meta import count, table
from dynlora.text import one_line, percent, plural, rough_duration, signed

TEACH = "Runs teach one LoRA"
"""What teachers are picked for."""

NO_TEACHER = (
    "No finished run can teach yet. A teacher is a run that classifies, or writes texts, and kept its adapter: launch "
    "one first."
)

WHAT = (
    "Finished classifiers teach one meta-LoRA, without their data: synthetic inputs are made of each teacher, and the "
    "meta-LoRA learns to tell their classes by a few examples. A new task then needs a few examples and no training."
)
STAGES = {"inversion": "making synthetic inputs", "episodes": "learning from episodes", "noise": "learning from noise"}
"""What happens in each stage."""

WITHOUT_TRAINING = {
    "averaged": "Averaging the adapters, without training,",
    "best_teacher": "The best teacher alone, without training,",
}
"""Ways that need no meta-LoRA, as the subject of a sentence."""


def about(result: Recycle) -> str:
    """Return the line under the title: who taught, and what."""
    ways = f"; an episode asks for {result.ways} of them" if result.ways else ""
    return f"{plural(len(result.teachers), 'teacher')} with {len(result.classes):,} classes{ways}"


def headline(result: Recycle) -> str:
    """Return the conclusion: how the meta-LoRA compares with the base model, and a way that always beats it."""
    gaps = sorted((one for one in result.against_base if one.method == frames.META), key=lambda one: one.shots)
    simpler = _always_better(result)
    if not gaps:
        reason = "Not tested yet." if not result.accuracy else "Few-shot accuracy was measured without a base model."
        return f"{reason} {simpler}".strip()
    better = [one for one in gaps if one.low > 0]
    worse = [one for one in gaps if one.high < 0]
    if better:
        but = f" It is worse {_gaps(worse)}." if worse else ""
        return f"The meta-LoRA beats the base model {_gaps(better)}.{but} {simpler}".strip()
    instead = simpler or "Use the base model."
    if worse:
        return f"The meta-LoRA is worse than the base model {_gaps(worse)}. {instead}"
    return f"The meta-LoRA is not significantly different from the base model {_gaps(gaps)}. {instead}"


def _at_each(by_shots: Sequence[tuple[int, str]]) -> str:
    """Return what is said of each number of examples, the unit once: at 1 example per class: a; at 5: b."""
    first = by_shots[0][0] if by_shots else 0
    unit = " example per class" if first == 1 else " examples per class"
    return "; ".join(f"at {shots}{unit if shots == first else ''}: {what}" for shots, what in by_shots)


def _gaps(rows: Sequence[Accuracy]) -> str:
    """Return the difference from the base model at each number of examples, with its interval."""
    return _at_each([(row.shots, _gap(row)) for row in rows])


def _gap(row: Accuracy) -> str:
    low, mean, high = (signed(100 * value, 1) for value in (row.low, row.mean, row.high))
    return f"{mean} points (95 % CI {low} to {high})"


def basis(result: Recycle) -> str:
    """Return what the conclusion rests on."""
    if not result.accuracy:
        return WHAT
    tested, notes = result.tested, one_line(" ".join(result.notes), 400)
    classes = tested.get("classes")
    of = f" of {classes} classes" if isinstance(classes, int) else ""
    new = (
        "The test is a file that was given, not compared with the teachers' data."
        if tested.get("is_new") is True
        else "The teachers know these classes, so a new task may be harder: test one with --test FILE."
    )
    paired = f"Paired over {_episodes(result):,} episodes{of}, {result.ways} at a time."
    return f"{_simpler(result)}{paired} {new} {notes}".strip()


def _simpler(result: Recycle) -> str:
    """Return which ways are better at some numbers of examples, the best at each; nothing that the headline says."""
    pairs = [pair for pair in frames.better_than_meta(result) if pair.method != frames.always_better(result)]
    best = {pair.shots: pair for pair in sorted(pairs, key=lambda pair: pair.other)}
    better = [best[shots] for shots in sorted(best)]
    methods = dict.fromkeys(pair.method for pair in better)
    return "".join(
        f"{frames.method_name(method)} is better {_against([pair for pair in better if pair.method == method])}. "
        for method in methods
    )


def _always_better(result: Recycle) -> str:
    """Return the way that is better than the meta-LoRA at every number of examples; nothing where it is the base."""
    method = frames.always_better(result)
    if method in (None, frames.BASE):
        return ""
    pairs = [pair for pair in frames.better_than_meta(result) if pair.method == method]
    return f"{WITHOUT_TRAINING.get(method, frames.method_name(method))} is better {_against(pairs)}."


def _against(pairs: Sequence[frames.Better]) -> str:
    """Return the accuracies of a way and of the meta-LoRA at each number of examples."""
    return _at_each([(pair.shots, f"{percent(pair.other)} against {percent(pair.meta)}") for pair in pairs])


def _episodes(result: Recycle) -> int:
    """Return the episodes of the test; 0 where unknown."""
    return max((count(value) for value in table(result.tested.get("episodes")).values()), default=0)


def progress(result: Recycle, step: int) -> str:
    """Return what happens now, and the time that was estimated."""
    stage = frames.stage_at(result, step)
    minutes = "" if result.minutes is None else f"; estimated before the start: {rough_duration(60 * result.minutes)}"
    return f"Now {STAGES.get(stage, stage or 'loading')}{minutes}."
