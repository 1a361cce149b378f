"""What switching modules off did to held-out rows, kept as `knockout.json` beside `run.db`.

Not in `run.db`, which has one writer, the training process. The file is as little trusted as the rest of a run: what
cannot be read, or does not fit the run, counts as not measured.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from dynlora.safe_files import write_text
from dynlora.store.plain_values import count, items, number, read_checked

KNOCKOUT_NAME = "knockout.json"
FORMAT = 1
MAX_BYTES = 16_000_000
MAX_EFFECTS = 50_000
MAX_GROUPS = 200


@dataclass(frozen=True)
class KnockedOut:
    """What held-out rows lose without some modules.

    Attributes:
        modules: which are off, by position.
        loss: mean loss of the rows without them.
        delta: `loss` less that with all modules; above zero they help.
        low, high: 95 % interval of `delta` over the rows.
        changed: share of the rows whose prediction is another, 0 to 1.
        by_group: `delta` by input group, None for one without rows.
    """

    modules: tuple[int, ...]
    loss: float
    delta: float
    low: float
    high: float
    changed: float
    by_group: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Knockouts:
    """All that was measured on one adapter and the same rows.

    Attributes:
        which: last or best adapter.
        step: optimizer steps the adapter had behind it.
        rows: held-out rows.
        loss: their mean loss with all modules.
        groups: names of the input groups, in order.
        n_modules: modules of the run.
        effects: by what was switched off; modules alone and together.
    """

    which: str
    step: int
    rows: int
    loss: float
    groups: tuple[str, ...]
    n_modules: int
    effects: tuple[KnockedOut, ...] = ()

    @property
    def alone(self) -> dict[int, KnockedOut]:
        """The modules that were switched off alone, by position."""
        return {effect.modules[0]: effect for effect in self.effects if len(effect.modules) == 1}

    def having(self, effect: KnockedOut) -> Knockouts:
        """Return these with one more, in the place of an earlier one of the same modules."""
        others = tuple(one for one in self.effects if one.modules != effect.modules)
        return replace(self, effects=(*others, effect))

    def without(self, sets: Collection[tuple[int, ...]]) -> Knockouts:
        """Return these less what was measured of some sets of modules."""
        return replace(self, effects=tuple(one for one in self.effects if one.modules not in sets))

    def same_rows(self, other: Knockouts | None) -> bool:
        """Say whether the other was measured on the same adapter and rows, so that its effects hold here."""
        return other is not None and replace(other, effects=()) == replace(self, effects=())

    def replaces(self, other: Knockouts | None) -> bool:
        """Say whether nothing whole is lost when these take the other's place."""
        if other is None or len(other.alone) < other.n_modules:
            return True
        if self.same_rows(other):
            return {one.modules for one in self.effects} >= {one.modules for one in other.effects}
        return len(self.alone) == self.n_modules


def read_knockouts(path: Path) -> Knockouts | None:
    """Return what a file holds, None when there is none or it cannot be trusted."""
    return read_checked(path, MAX_BYTES, _checked)


def write_knockouts(path: Path, found: Knockouts) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: when it cannot be written.
    """
    write_text(path, json.dumps({"format": FORMAT, **asdict(found)}, allow_nan=False) + "\n")


def kept_knockouts(path: Path) -> tuple[Knockouts, ...]:
    """Return what is kept at a path: first what was begun and not ended, then what the file itself holds."""
    found = (read_knockouts(_begun(path)), read_knockouts(path))
    return tuple(one for one in found if one is not None)


def keep_knockouts(path: Path, found: Knockouts) -> None:
    """Keep what is known so far; beside the file as long as taking its place would lose something whole.

    Raises:
        OSError: when it cannot be written.
    """
    if not found.effects:
        return
    if not found.replaces(read_knockouts(path)):
        write_knockouts(_begun(path), found)
        return
    write_knockouts(path, found)
    _begun(path).unlink(missing_ok=True)


def _begun(path: Path) -> Path:
    return path.with_name(f"{path.stem}-begun{path.suffix}")


def _checked(found: Mapping[str, Any]) -> Knockouts:
    """Return a file's content, each value of its kind and size; anything else raises."""
    if found["format"] != FORMAT or found["which"] not in ("last", "best"):
        raise ValueError("another format")
    n_modules, effects, groups = count(found["n_modules"]), found["effects"], found["groups"]
    names = tuple(str(name)[:200] for name in items(groups, MAX_GROUPS))
    read = [_effect(item, n_modules, len(names)) for item in items(effects, MAX_EFFECTS)]
    return Knockouts(
        found["which"],
        count(found["step"]),
        count(found["rows"]),
        number(found["loss"]),
        names,
        n_modules,
        tuple({effect.modules: effect for effect in read}.values()),
    )


def _effect(item: Any, n_modules: int, n_groups: int) -> KnockedOut:
    """Return one effect of a file."""
    values = cast(Mapping[str, Any], item) if isinstance(item, dict) else {}
    modules = tuple(count(value) for value in items(values["modules"], 64))
    if not modules or len(set(modules)) < len(modules) or max(modules) >= n_modules:
        raise ValueError("modules that the run does not have")
    numbers = [number(values[name]) for name in ("loss", "delta", "low", "high", "changed")]
    by_group = tuple(None if value is None else number(value) for value in items(values["by_group"], MAX_GROUPS))
    if len(by_group) not in (0, n_groups) or not 0 <= numbers[4] <= 1:
        raise ValueError("values that do not fit")
    return KnockedOut(modules, *numbers, by_group=by_group)
