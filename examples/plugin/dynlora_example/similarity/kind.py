"""What a comparison of two runs is: its settings, its record, and what its result says; nothing here loads torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any, ClassVar

from pydantic import Field

from dynlora.errors import ConfigError
from dynlora.kinds.named_runs import NamedRun, RunField, named_runs
from dynlora.kinds.run_kind import Conclusion, RunKind, StartForm
from dynlora.kinds.settings import FormField, KindSettings
from dynlora.store.meta import finite, short_text, table, text
from dynlora.store.reader import RunReader
from dynlora.text import minus

COMPARED = "compared"
"""Kind of the event of a module that is compared."""


def check_ended(run: NamedRun) -> None:
    """Refuse a run that still learns.

    Raises:
        ConfigError: one sentence that says what to do instead.
    """
    if run.status not in ("finished", "stopped"):
        raise ConfigError(f"run {run.id}: is {run.status}; let it finish, or give another run")


class SimilaritySettings(KindSettings):
    """Which runs are compared."""

    kind: ClassVar[str] = "similarity"
    method: ClassVar[str] = "cosine"
    fidelity: ClassVar[str] = "code"

    runs: Annotated[tuple[str, ...], RunField("run", check_ended), FormField("Runs")] = Field(
        ..., min_length=2, max_length=2, description="Two finished runs of one base model: their ids, or their folders."
    )

    def named(self, runs_dir: Path) -> list[NamedRun]:
        """Return both runs.

        Raises:
            DynloraError: when one is not there, or still learns.
        """
        return named_runs("run", self.runs, runs_dir, check_ended)

    def modules(self, runs_dir: Path) -> list[str]:
        """Return the modules that both runs adapt, in the model's order."""
        adapted = []
        for run in self.named(runs_dir):
            with RunReader(run.folder) as reader:
                adapted.append([module.name for module in reader.modules()])
        return [name for name in adapted[0] if name in adapted[-1]]

    def check(self, runs_dir: Path) -> None:
        """Refuse runs that adapt no module in common."""
        if not self.modules(runs_dir):
            raise ConfigError(f"runs {' and '.join(self.runs)}: adapt no module in common; give two of one base model")

    def title(self) -> str:
        """Return the display name, or what a comparison is."""
        return self.name or "Similarity of two runs"

    def model_and_data(self, runs_dir: Path) -> tuple[str, str]:
        """Return the base model, and what both runs learned from."""
        model, *_ = [text(run.meta.get("model")) or "" for run in self.named(runs_dir)]
        return model, ", ".join(text(run.meta.get("data")) or "" for run in self.named(runs_dir))

    def steps(self, runs_dir: Path) -> int:
        """Return a step for each module."""
        return len(self.modules(runs_dir))


class SimilarityKind(RunKind):
    """The cosine similarity of the updates that two runs learned, module by module."""

    name = "similarity"
    command = "similarity"
    about = "similarity of two updates"
    settings = SimilaritySettings
    models = ()
    form = StartForm(
        purpose="See in which modules two runs learned the same update.",
        way="Compare updates",
        button="Compare",
        missing="No finished run kept an adapter yet: launch two of one base model first.",
    )
    done = "{step:,} of {total:,} modules"

    def resume(self, folder: Path, *, force: bool = False, progress: bool = False, is_new: bool = False) -> Any:
        """Start a comparison, or continue it at the module where it ended."""
        from dynlora_example.similarity.work import resume

        return resume(folder, force=force, progress=progress, is_new=is_new)

    def read(self, folder: Path) -> Mapping[str, float]:
        """Return the cosine of each module that is compared; a value of another kind counts as never written."""
        with RunReader(folder) as reader:
            rows = [table(event.payload) for event in reader.events(kinds=[COMPARED])]
        cosines = {short_text(row.get("module"), 200): finite(row.get("cosine")) for row in rows}
        return {module: cosine for module, cosine in cosines.items() if cosine is not None}

    def conclusion(self, result: Mapping[str, float], chosen: Mapping[str, str] | None = None) -> Conclusion:
        """Return the median cosine with its range, and what a cosine of zero means."""
        if not result:
            return Conclusion("No module is compared yet.")
        cosines = result.values()
        low, middle, high = (minus(f"{one:.2f}") for one in (min(cosines), median(cosines), max(cosines)))
        return Conclusion(
            f"The median cosine similarity of the two updates is {middle} over {len(result)} modules, from {low} to "
            f"{high}.",
            "At 0 the runs changed a module in unrelated directions; gates count as 1.",
        )

    def lines(self, document: Mapping[str, Any], runs_dir: Path) -> Iterator[str]:
        """Yield a line for each module."""
        yield from (f"{cosine:7.3f}  {module}" for module, cosine in table(document.get("cosine")).items())
