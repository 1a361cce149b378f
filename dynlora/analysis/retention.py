"""What a run forgot, as its store has it: adapter against base on general text, by evaluation, and in a sentence."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynlora.assets.cache import cache_dir
from dynlora.safe_files import write_text
from dynlora.store.measurements import COMPRESS_NAME, KNOCKOUT_NAME, Knockouts
from dynlora.store.meta import finite, whole
from dynlora.text import percent, plural, signed

if TYPE_CHECKING:
    import pandas as pd


def knockout_file(folder: Path) -> Path:
    """Return where a run's ablations are read: the user's cache where it holds some of the run, else with the run."""
    spare = _spare_file(folder)
    return spare if spare.exists() else folder / KNOCKOUT_NAME


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
    spare = _spare_file(folder, "compressions")
    return spare if spare.exists() else folder / COMPRESS_NAME


def compress_target(folder: Path, *, is_own: bool = True) -> Path:
    """Return where the sizes of a run's adapter are written: with it, or in the user's cache.

    Raises:
        OSError: when the cache cannot be written.
    """
    own, spare = folder / COMPRESS_NAME, _spare_file(folder, "compressions")
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
