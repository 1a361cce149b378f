"""Settings of a merge: finished adapters of unequal rank on one base model become one adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from dynlora.config import Name
from dynlora.config_files import read_run_config
from dynlora.errors import ConfigError
from dynlora.kinds.named_runs import NamedRun, RunField, SourcedSettings, check_ended, check_one_base, named_runs
from dynlora.kinds.settings import FormField, stages_of
from dynlora.store.meta import count, table
from dynlora.store.reader import RunReader
from dynlora.store.rows import ModuleRow
from dynlora.text import plural

STACK = "stack"
"""The weighted sum of the updates, the usual method."""

USUAL_DENSITY = 0.5
"""Fraction of the entries that ties and dare keep where nothing else is asked for."""

METHODS = {"Weighted sum": STACK, "TIES": "ties", "DARE": "dare"}
"""Methods by what a person reads."""

BUDGETS = {"As the largest run": None, "Half of all together": 0.5, "All together": 1.0}
"""Budgets that the form offers."""

Weight = Annotated[float, Field(gt=0, le=100)]


def check_source(run: NamedRun) -> None:
    """Refuse a run that cannot be merged.

    Raises:
        ConfigError: one sentence that says why.
    """
    check_ended(run)
    if read_run_config(run.folder).model.quantization is not None:
        raise ConfigError(
            f"source {run.id}: its base model is quantised, so its update is that of other weights; give runs without "
            "model.quantization"
        )


class MergeSettings(SourcedSettings):
    """Which runs are merged, how, and how large the merge may become."""

    kind: ClassVar[str] = "merge"
    fidelity: ClassVar[str] = "description"
    example: ClassVar[Mapping[str, Any]] = {"rows": 4}

    sources: Annotated[tuple[Name, ...], RunField("source", check_source), FormField("Runs")] = Field(
        ..., min_length=1, max_length=100, description="Finished runs that are merged: their ids, or their folders."
    )
    method: Annotated[Literal["stack", "ties", "dare"], FormField("Method", METHODS)] = Field(  # pyright: ignore[reportIncompatibleVariableOverride] - a setting
        STACK, description="How the updates are combined: their weighted sum, TIES, or DARE."
    )
    weights: Annotated[tuple[Weight, ...], FormField("Weights")] = Field(
        (), max_length=100, description="Weight of each run, in their order, such as 0.7,0.3; empty: equal, 1 together."
    )
    density: float | None = Field(
        None, gt=0, le=1, description=f"Fraction of the entries that ties and dare keep; empty: {USUAL_DENSITY}."
    )
    budget: Annotated[float | None, FormField("Parameters, at most", BUDGETS)] = Field(
        None,
        gt=0,
        le=1e12,
        description="Parameters of the merge at most; up to 1, a fraction of those of all runs together; empty: those "
        "of the largest run.",
    )
    rows: int = Field(200, ge=2, le=100_000, description="Held-out examples of each run's data in the test, at most.")

    @field_validator("weights", mode="before")
    @classmethod
    def _split(cls, weights: Any) -> Any:
        """Take weights as a person types them."""
        return [part.strip() for part in weights.split(",")] if isinstance(weights, str) else weights

    @model_validator(mode="after")
    def _fits(self) -> MergeSettings:
        """Refuse one run alone or twice, weights of another number, and a density that nothing would use."""
        if len(self.sources) == 1:
            raise ValueError(f"sources {self.sources[0][:80]}: is one run; give two or more")
        if twice := next((one for one in self.sources if self.sources.count(one) > 1), None):
            raise ValueError(f"sources {twice[:80]}: is given twice; give each run once, and use weights")
        if self.weights and len(self.weights) != len(self.sources):
            raise ValueError(
                f"weights {','.join(f'{one:g}' for one in self.weights)[:80]}: are {len(self.weights)} for "
                f"{len(self.sources)} runs; give one for each"
            )
        if self.density is not None and self.method == STACK:
            raise ValueError(f"density {self.density:g}: is for method ties or dare; leave it out")
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """The weight of each run."""
        return self.weights or (1 / len(self.sources),) * len(self.sources)

    @property
    def kept_share(self) -> float:
        """Fraction of the entries that ties and dare keep."""
        return USUAL_DENSITY if self.density is None else self.density

    def allowed(self, parameters: Sequence[int]) -> int:
        """Return how many parameters the merge may have, of those of each run."""
        if self.budget is None:
            return max(parameters)
        return int(self.budget * sum(parameters)) if self.budget <= 1 else int(self.budget)

    def runs(self, runs_dir: Path) -> list[NamedRun]:
        """Return the runs to merge.

        Raises:
            DynloraError: when one is not there, has not finished, or they do not fit together.
        """
        runs = named_runs("source", self.sources, runs_dir, check_source)
        check_one_base(runs)
        other = next((run for run in runs if run.task != runs[0].task), None)
        if other is not None:
            raise ConfigError(
                f"source {other.id}: learned {other.task}, and {runs[0].id} learned {runs[0].task}; give runs of one "
                "kind of task"
            )
        return runs

    def check(self, runs_dir: Path) -> None:
        """Refuse runs that cannot be merged, and a budget that holds no component of any module."""
        runs = self.runs(runs_dir)
        parameters = [_parameters_of(run) for run in runs]
        if self.budget is not None and (self.budget > 1 or all(parameters)):
            self.check_budget(parameters, [module.d_in + module.d_out for module in modules_of(runs)])

    def check_budget(self, parameters: Sequence[int], costs: Sequence[int]) -> None:
        """Refuse a budget that holds no component of any module.

        Args:
            parameters: of each run.
            costs: parameters of one component, by module.

        Raises:
            ConfigError: that says how large it must be.
        """
        allowed, least = self.allowed(parameters), min(costs, default=0)
        if allowed < least:
            raise ConfigError(
                f"budget {self.budget or 0:g}: holds {plural(allowed, 'parameter')}, fewer than one component of any "
                f"module; give {least:,} or more"
            )

    def stages(self, modules: int) -> list[dict[str, Any]]:
        """Return the stages with their first and last step; the step before `first` is done when a stage begins."""
        return stages_of({"modules": modules, "test": len(self.sources)})

    def steps(self, runs_dir: Path) -> int:
        """Return a step for each module, and one for each run."""
        return int(self.stages(len(modules_of(self.runs(runs_dir))))[-1]["last"])

    def takes(self) -> str:
        """Return that a merge takes no training."""
        return "It takes no training: a step for each module, then a test on the data of each run."

    def title(self) -> str:
        """Return the display name, or a description when none was given."""
        return self.name or f"Merge of {len(self.sources)} runs ({self.method})"

    def meta(self, runs_dir: Path) -> dict[str, Any]:
        """Return what the store keeps of a run before it starts: also how the merge is loaded, as a config."""
        stored, runs = super().meta(runs_dir), self.runs(runs_dir)
        names = [module.name for module in modules_of(runs)]
        rank = max(read_run_config(run.folder).adapter.rank for run in runs)
        stored["strategy"] = f"merge_{self.method}"
        stored["config"] |= {
            **self.as_config(runs_dir),
            "adapter": {"rank": rank, "alpha": float(rank), "dropout": 0.0, "targets": names},
        }
        return stored


def _parameters_of(run: NamedRun) -> int:
    """Return the parameters that a run recorded of its adapter; 0 where it recorded none."""
    with RunReader(run.folder) as reader:
        return count(table(reader.meta(("params",)).get("params")).get("allocated"))


def modules_of(runs: Sequence[NamedRun]) -> list[ModuleRow]:
    """Return the modules that any of the runs adapts, each once."""
    modules: dict[str, ModuleRow] = {}
    for run in runs:
        with RunReader(run.folder) as reader:
            modules |= {module.name: module for module in reader.modules() if module.name not in modules}
    return list(modules.values())
