"""What a decode is: a draft writes steps, a reward judges them, a target rewrites those that score too low."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynlora.errors import DynloraError
from dynlora.kinds.decode import frames
from dynlora.kinds.decode.result import Decode, follow_decode, read_decode
from dynlora.kinds.decode.settings import DecodeSettings
from dynlora.kinds.run_kind import NOTHING, Conclusion, RunKind, StartForm, Trial, kind_of_run

if TYPE_CHECKING:
    from pandas import DataFrame

    from dynlora.viz.kit.panel import Choice


class DecodeKind(RunKind):
    """Reward-guided speculative decoding."""

    name = "decode"
    command = "rsd"
    about = "texts that a draft and a target wrote together (reward-guided speculative decoding)"
    page = "decode"
    settings = DecodeSettings
    form = StartForm(
        frames.PURPOSE,
        "Decode",
        "Start decoding",
        "There is no finished run of a language model: a target, a draft and a judge on arithmetic can be trained.",
        ("rsd", "prepare"),
    )
    models = ()
    trial = Trial("Try a problem of your own", "decode", "decode")
    done = "{step:,} of {total:,} solutions"

    def read(self, folder: Path) -> Decode:
        """Return what a decode has recorded so far."""
        return read_decode(folder)

    def follow(self, folder: Path) -> Decode:
        """Return what a decode at work has recorded so far; only what is new is read."""
        return follow_decode(folder)

    def choice(self, result: Decode) -> Choice | None:
        """Return the points, each a decode of all problems."""
        from dynlora.kinds.decode.frames import point_choice

        return point_choice(result)

    def conclusion(self, result: Decode, chosen: Mapping[str, str] = NOTHING) -> Conclusion:
        """Return how a point compares with the target alone; without a choice the point to recommend."""
        from dynlora.kinds.decode.frames import POINT, point_named

        point = point_named(result, chosen[POINT]) if POINT in chosen else frames.best(result)
        return Conclusion(frames.headline(result, point), frames.basis(result, point))

    def headline(self, result: Decode) -> str:
        """Return who plays the roles."""
        return frames.about(result)

    def lines(self, document: Mapping[str, Any], runs_dir: Path) -> Iterator[str]:
        """Yield the table of the points."""
        from dynlora.kinds.decode.work.results import words

        if document.get("points") is not None:
            yield words(document)

    def tables(self, result: Decode) -> Mapping[str, DataFrame]:
        """Return the results by point."""
        results = frames.by_point(result)
        return {"decode-results": results.drop(columns="key")} if len(results) else {}

    def has_model(self, folder: Path) -> bool:
        """Say whether the runs that a decode names are still there."""
        try:
            DecodeSettings.of_run(folder).check(folder.parent)
        except DynloraError:
            return False
        return True

    def load(self, folder: Path) -> Any:
        """Return the roles of a decode, in memory."""
        from dynlora.kinds.decode.work.live import load_live

        return load_live(folder)

    def model_version(self, folder: Path) -> tuple[object, ...]:
        """Return when the settings and the adapter of each role were last written.

        Raises:
            DynloraError: when a run cannot play its role.
        """
        settings = DecodeSettings.of_run(folder)
        runs = (*settings.writers(folder.parent), settings.judge(folder.parent))
        roles = [kind_of_run(run.folder).model_version(run.folder) for run in runs if run is not None]
        return ((folder / "config.yaml").stat().st_mtime_ns, *roles)

    @property
    def operations(self) -> Mapping[str, Callable[..., Any]]:
        """A problem solved step by step, at a threshold."""
        return {"decode": lambda live, question, threshold: live.solved(question, threshold)}
