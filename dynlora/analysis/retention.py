"""What a run forgot, and what it loses without a module, beside every score that claims to know that."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynlora.analysis.stats import bootstrap_interval, spearman, spearman_interval
from dynlora.assets.hub import cache_dir
from dynlora.safe_files import write_text
from dynlora.store.measurements import COMPRESS_NAME, EFFECTS_NAME, KNOCKOUT_NAME, KnockedOut, Knockouts
from dynlora.store.meta import finite, whole
from dynlora.text import listed, one_line, percent, plural, signed


def knockout_file(folder: Path) -> Path:
    """Return where a run's ablations are read: the user's cache where it holds some of the run, else with the run."""
    return _read_at(folder, KNOCKOUT_NAME, "knockouts")


def knockout_target(folder: Path, *, is_own: bool = True) -> Path:
    """Return where a run's ablations are written: with it, or in the user's cache where it is only to be read.

    What such a run came with is copied there first, so that it is gone on with and not hidden.

    Raises:
        OSError: when the cache cannot be written.
    """
    own, spare = folder / KNOCKOUT_NAME, _spare_file(folder)
    if is_own and os.access(folder, os.W_OK):
        return own if not spare.exists() else spare
    spare.parent.mkdir(parents=True, exist_ok=True)
    came = Knockouts.read(own)
    if came is not None and not spare.exists():
        came.write(spare)
    return spare


def compress_file(folder: Path) -> Path:
    """Return where the sizes of a run's adapter are read: the user's cache where it holds some, else with the run."""
    return _read_at(folder, COMPRESS_NAME, "compressions")


def effects_file(folder: Path) -> Path:
    """Return where the measured effects of a run's modules are read: as `compress_file` does."""
    return _read_at(folder, EFFECTS_NAME, "effects")


def effects_target(folder: Path, *, is_own: bool = True) -> Path:
    """Return where the measured effects of a run's modules are written: as `compress_target` does.

    Raises:
        OSError: when the cache cannot be written.
    """
    return _written_at(folder, EFFECTS_NAME, "effects", is_own=is_own)


def _read_at(folder: Path, name: str, kind: str) -> Path:
    spare = _spare_file(folder, kind)
    return spare if spare.exists() else folder / name


def compress_target(folder: Path, *, is_own: bool = True) -> Path:
    """Return where the sizes of a run's adapter are written: with it, or in the user's cache.

    Raises:
        OSError: when the cache cannot be written.
    """
    return _written_at(folder, COMPRESS_NAME, "compressions", is_own=is_own)


def _written_at(folder: Path, name: str, kind: str, *, is_own: bool) -> Path:
    own, spare = folder / name, _spare_file(folder, kind)
    if is_own and os.access(folder, os.W_OK) and not spare.exists():
        return own
    spare.parent.mkdir(parents=True, exist_ok=True)
    return spare


def keep_ranks(folder: Path, ranks: Mapping[str, int], parameters: int, *, is_own: bool = True) -> Path:
    """Write ranks by module where `strategy.ranks_from` of another run reads them, and return the file.

    Args:
        folder: of the run that they were found on.
        ranks: by module.
        parameters: that they come to; part of the file's name.
        is_own: whether the run may be written to.

    Raises:
        OSError: when it cannot be written.
    """
    place = compress_target(folder, is_own=is_own).with_name(f"{folder.name}-ranks-{parameters}.json")
    write_text(place, json.dumps(dict(ranks), indent=1) + "\n")
    return place


def _spare_file(folder: Path, kind: str = "knockouts") -> Path:
    place = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    return cache_dir() / kind / f"{folder.name}-{place}.json"


RETENTION = "retention"
"""Kind of the events that hold it, and split of its numbers."""

LITTLE = 0.05
"""Rise of the loss, nats per token, up to which an adapter forgets little: perplexity rises by 5 %."""


@dataclass(frozen=True)
class Retention:
    """Adapter against base on general text, at one evaluation.

    Attributes:
        step: of the evaluation.
        texts: that were read.
        base_loss, loss: mean over tokens, nats; None for a model that predicts labels.
        kl: mean over tokens of KL(base || adapter), nats; None for the same.
        cosine: of the pooled states of a text, mean; None for a model that writes.
        agreement: fraction of the texts with the same nearest text as in the base, 0 to 1; None for the same.
        low, high: 95 % interval over the texts of the rise of the loss, or of the cosine; None of one text.
    """

    step: int
    texts: int
    base_loss: float | None = None
    loss: float | None = None
    kl: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, step: int, payload: Any) -> Retention | None:
        """Return what an event says; None where it cannot be read: a run may be anybody's."""
        if not isinstance(payload, Mapping):
            return None
        texts = whole(payload.get("texts"))
        names = ("base_loss", "loss", "kl", "cosine", "agreement", "low", "high")
        numbers = {name: finite(payload.get(name)) for name in names}
        is_whole = all(numbers[name] is not None for name in names[:3]) or numbers["cosine"] is not None
        return cls(step, texts, **numbers) if texts is not None and texts > 0 and is_whole else None

    @property
    def rise(self) -> float | None:
        """Loss of the adapter minus that of the base, nats per token; None for a model that predicts labels."""
        return None if self.loss is None or self.base_loss is None else self.loss - self.base_loss

    @property
    def forgotten(self) -> float:
        """How much was forgotten, in `unit`: the rise of the loss, or 1 - cosine."""
        return self.rise if self.rise is not None else 1 - (self.cosine or 0.0)

    @property
    def unit(self) -> str:
        """What `forgotten` counts."""
        return "nats per token" if self.rise is not None else "1 − cosine"


def retentions(events: pd.DataFrame) -> list[Retention]:
    """Return what was measured at each evaluation, in order; what is unreadable is left out."""
    rows = events[events["kind"] == RETENTION]
    read = [Retention.of(int(step), payload) for step, payload in zip(rows["step"], rows["payload"], strict=True)]
    return [one for one in read if one is not None]


def retention_conclusion(last: Retention) -> str:
    """Return what was forgotten in a sentence or two, with the interval."""
    texts = plural(last.texts, "public sentence")
    if last.rise is not None:
        verb = "rises" if last.rise >= 0 else "falls"
        return (
            f"On {texts} the loss {verb} from {last.base_loss:.3f} to {last.loss:.3f} nats per token "
            f"({signed(last.rise, 3)}{_interval(last)}): {_verdict(last)}. KL to the base model {last.kl:.3f}."
        )
    near = "" if last.agreement is None else f" {percent(last.agreement)} of them keep their nearest sentence."
    return (
        f"On {texts} the hidden states have a mean cosine of {last.cosine:.3f}{_interval(last)} to those of the base "
        f"model.{near}"
    )


def _interval(last: Retention) -> str:
    """Return the interval after a comma; empty where there is none."""
    if last.low is None or last.high is None:
        return ""
    is_rise = last.rise is not None
    ends = [signed(end, 3) if is_rise else f"{end:.3f}" for end in (last.low, last.high)]
    return f", 95 % CI {ends[0]} to {ends[1]}{'' if is_rise else ','}"


def _verdict(last: Retention) -> str:
    """Return what the interval of a rise shows."""
    if last.low is not None and last.high is not None and last.low > 0:
        return "the adapter forgets little" if last.high < LITTLE else "the adapter forgets"
    if last.high is not None and last.high < 0:
        return "the adapter reads them better than the base model"
    return "no forgetting is shown"


Judged = tuple[np.ndarray, np.ndarray]
"""Loss and prediction of each row, (n,) both."""


def effect_of(modules: Sequence[int], whole: Judged, without: Judged, seed: int = 0) -> KnockedOut:
    """Return what rows lose without some modules.

    Args:
        modules: positions of those that are off.
        whole: the rows with all modules.
        without: the same rows without these.
        seed: of the resampling; the same draws for every module, so that their intervals can be compared.
    """
    delta = without[0].astype(float) - whole[0]
    low, high = bootstrap_interval(delta, seed)
    return KnockedOut(
        modules=tuple(modules),
        loss=float(without[0].mean()),
        delta=float(delta.mean()),
        low=low,
        high=high,
        changed=float((without[1] != whole[1]).mean()),
        halves=(float(delta[::2].mean()), float(delta[1::2].mean())) if len(delta) > 1 else None,
    )


LEAST = 4
"""Modules below which no agreement is reported: with so few any order is likely."""


@dataclass(frozen=True)
class Agreement:
    """How well a score ranks the modules by what their ablation does.

    Attributes:
        rho: Spearman's correlation over the modules, NaN where one side does not vary.
        low, high: 95 % bootstrap interval over the modules.
        n: modules.
    """

    rho: float
    low: float
    high: float
    n: int


def kept(folder: Path) -> Knockouts | None:
    """Return what is kept of a run's ablations, None where there is nothing or no place to look."""
    try:
        return Knockouts.read(knockout_file(folder))
    except OSError:  # the run is only to be read, and so is the user's cache
        return None


def effects(knockouts: Knockouts | None, modules: pd.DataFrame) -> pd.DataFrame:
    """Return the effect of each module alone, in the order of `modules`, those not yet measured left out.

    Columns: position, name, short, label, layer, delta (nats lost without it), low, high, changed (fraction of the
    predictions that change), sure (whether the interval excludes zero), half and other_half (`delta` of every second
    row and of the others, NaN where they were not measured).
    """
    alone = {} if knockouts is None or knockouts.n_modules != len(modules) else knockouts.alone
    rows = [
        (position, name, short, label, layer, one.delta, one.low, one.high, one.changed, one.low > 0 or one.high < 0)
        + (one.halves or (np.nan, np.nan))
        for position, name, short, label, layer in modules[["position", "name", "short", "label", "layer"]].itertuples(
            index=False
        )
        if (one := alone.get(int(position))) is not None
    ]
    names = ["position", "name", "short", "label", "layer", "delta", "low", "high", "changed", "sure"]
    return pd.DataFrame(rows, columns=[*names, "half", "other_half"])


def by_group(knockouts: Knockouts, modules: pd.DataFrame) -> pd.DataFrame:
    """Return `delta` of each input group (rows) and module alone (columns, in the order of `modules`)."""
    alone = knockouts.alone if knockouts.n_modules == len(modules) else {}
    series = [
        (short, alone[int(position)].by_group)
        for position, short in zip(modules["position"], modules["short"], strict=True)
        if int(position) in alone and alone[int(position)].by_group
    ]
    return pd.DataFrame({short: [np.nan if v is None else v for v in values] for short, values in series}).set_axis(
        list(knockouts.groups) if series else [], axis=0
    )


def pairs(knockouts: Knockouts, modules: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs that were measured: modules, delta together, the sum of each alone, and what is left.

    Above zero, `beyond` says that each can replace the other: together they matter more than alone.
    """
    short = {int(position): name for position, name in zip(modules["position"], modules["short"], strict=True)}
    alone = knockouts.alone
    rows = []
    for effect in knockouts.effects:
        a, b = sorted((*effect.modules, -1, -1)[:2])
        if len(effect.modules) == 2 and a in short and b in short:
            parts = [alone[index].delta if index in alone else np.nan for index in (a, b)]
            rows.append((f"{short[a]} + {short[b]}", effect.delta, effect.low, effect.high, sum(parts)))
    frame = pd.DataFrame(rows, columns=["modules", "delta", "low", "high", "sum of each alone"])
    return frame.assign(beyond=frame["delta"] - frame["sum of each alone"])


def agreement(score: np.ndarray, effect: pd.DataFrame) -> Agreement:
    """Return how well a score by module, as recorded, ranks the modules of `effects`."""
    values = np.asarray(score, dtype=float)[effect["position"].to_numpy(int)]
    delta = effect["delta"].to_numpy(float)
    known = np.isfinite(values) & np.isfinite(delta)
    values, delta = values[known], delta[known]
    if len(values) < LEAST:
        return Agreement(np.nan, np.nan, np.nan, len(values))
    return Agreement(spearman(values, delta), *spearman_interval(values, delta), len(values))


ITSELF = "loss change on the other half of the examples"
"""Name of what the ablation agrees with itself, beside the scores: each half has half of the examples, a score all."""


def agreements(scores: Mapping[str, np.ndarray], effect: pd.DataFrame) -> pd.DataFrame:
    """Return the agreement of each score, the best first: columns score, spearman, low, high, modules.

    The ablation itself is one of them, measured on two halves of the examples.
    """
    results = {name: agreement(score, effect) for name, score in scores.items()}
    if effect["half"].notna().all():
        other = effect.set_index("position")["other_half"].reindex(range(int(effect["position"].max()) + 1))
        results[ITSELF] = agreement(other.to_numpy(), effect.assign(delta=effect["half"]))
    rows = [(name, one.rho, one.low, one.high, one.n) for name, one in results.items()]
    frame = pd.DataFrame(rows, columns=["score", "spearman", "low", "high", "modules"])
    return frame.dropna(subset="spearman").sort_values("spearman", ascending=False).reset_index(drop=True)


def misjudged(score: np.ndarray, effect: pd.DataFrame, most: int = 6) -> pd.DataFrame:
    """Return the modules whose place by the score is farthest from their place by the effect.

    Columns: short, score, delta, place by score, place by effect (1 is the most important), verdict.
    """
    values = np.asarray(score, dtype=float)[effect["position"].to_numpy(int)]
    frame = effect.assign(score=values).dropna(subset=["score", "delta"])
    frame = frame.assign(
        by_score=frame["score"].rank(ascending=False, method="min"),
        by_effect=frame["delta"].rank(ascending=False, method="min"),
    )
    off = (frame["by_score"] - frame["by_effect"]).abs()
    worst = frame.loc[off[off > 0].sort_values(ascending=False, kind="stable").index[:most]]
    verdict = np.where(worst["by_score"] > worst["by_effect"], "underrated", "overrated")
    return pd.DataFrame(
        {
            "module": worst["short"].to_numpy(),
            "score": worst["score"].to_numpy(),
            "loss change": worst["delta"].to_numpy(),
            "rank by score": worst["by_score"].to_numpy(int),
            "rank by loss change": worst["by_effect"].to_numpy(int),
            "verdict": verdict,
        }
    )


def effect_caption(effect: pd.DataFrame, of: int, rows: int) -> str:
    """Return the sentence under the chart of effects."""
    if effect.empty:
        return "No module has been measured yet."
    worst = effect.sort_values("delta", ascending=False)
    sure = int((effect["sure"] & (effect["delta"] > 0)).sum())
    harm = int((effect["sure"] & (effect["delta"] < 0)).sum())
    part = "" if len(effect) == of else f" {len(effect)} of {of} measured."
    names = listed([one_line(name, 30) for name in worst["short"].head(3)])
    most = f"The loss rises most without {names}, by {signed(worst['delta'].iloc[0], 4)} for the first"
    return (
        f"Of {plural(len(effect), 'module')}, {sure} help and {harm} harm (95 % CI excludes 0), on {rows:,} held-out "
        f"examples. {most}.{part}"
    )


def adapter_caption(knockouts: Knockouts, step: int) -> str:
    """Return on which adapter ablations were measured, and whether the run has gone on since.

    Args:
        knockouts: the ablations.
        step: of the run.
    """
    words = f"Measured with the {knockouts.which} adapter of step {knockouts.step:,}."
    if knockouts.step == step or knockouts.which == "best":
        return words
    return f"{words} The run is now at step {step:,}; measure again for the current modules."


def agreement_caption(name: str, agreement: Agreement) -> str:
    """Return the sentence under the scatter of a score against the effects."""
    if not np.isfinite(agreement.rho):
        return f"There are too few measurements to compare {one_line(name, 40)} with the loss changes."
    relation = "excludes 0" if agreement.low > 0 or agreement.high < 0 else "includes 0"
    return (
        f"Spearman correlation with the loss changes {signed(agreement.rho, 2)} (95 % CI {signed(agreement.low, 2)} to "
        f"{signed(agreement.high, 2)}, {agreement.n} modules); "
        f"the CI {relation}."
    )
