"""`RunKind`: what a kind of run is, declared once; commands, pages and pickers ask it and know no kind by name."""

from __future__ import annotations

import functools
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import dynlora.kinds
from dynlora.config import RunConfig, Section
from dynlora.config_files import read_run_config
from dynlora.discovery import classes_in, joined, plugged_in
from dynlora.errors import ConfigError
from dynlora.store.meta import kind_of
from dynlora.store.reader import RunReader
from dynlora.text import sentence_case

if TYPE_CHECKING:
    from dynlora.viz.kit.panel import Choice, Panel


NOTHING: Mapping[str, str] = MappingProxyType({})
"""No choice of a reader."""


@dataclass(frozen=True)
class Conclusion:
    """What a run is about, in sentences.

    Attributes:
        text: the result with n and interval, or what the run does now.
        basis: what it rests on and what limits it.
    """

    text: str
    basis: str = ""


@dataclass(frozen=True)
class Trial:
    """Where the model of a run is tried on the Playground.

    Attributes:
        label: of the link.
        tab: of the page; empty for the tab of a run.
        parameter: of the address that names the run.
    """

    label: str
    tab: str = ""
    parameter: str = "run"

    def address(self, run_id: str) -> dict[str, str]:
        """Return the values of the page's address."""
        return {**({"tab": self.tab} if self.tab else {}), self.parameter: run_id}


@dataclass(frozen=True)
class StartForm:
    """What the form says that starts a run of a kind.

    Attributes:
        purpose: of such a run, for a person who has none yet.
        way: what is made, where a page makes several things.
        button: that starts it.
        missing: what to do first where no run can be used.
        preparation: arguments of the command that makes what is missing; empty for none.
        remark: above the settings; empty for none.
        evidence: where recorded runs won and where they did not, under the purpose; empty for none.
    """

    purpose: str
    way: str
    button: str
    missing: str
    preparation: tuple[str, ...] = ()
    remark: str = ""
    evidence: str = ""


def interval_words(row: Mapping[str, Any]) -> str:
    """Return a mean with its interval as commands print it."""
    return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


class RunKind(ABC):
    """A kind of run: a folder of `dynlora/kinds/` whose `kind.py` holds a subclass is registered by existing.

    A package of its own names the subclass as an entry point of `dynlora.kinds`, under the name of the kind.

    Nothing here loads torch before `resume`, `estimate` or `export` is called.

    Attributes:
        name: in the store, in commands and in addresses; the name of its folder.
        command: of dynlora that makes one; several kinds may share it; empty for none. That of a plug-in has the name
            of the kind, and is made of the settings.
        about: what its run folders record.
        page: name of the page that shows it; kinds of plug-ins share one.
        settings: class of its settings.
        form: what its form says; a training has one of its own.
        models: folders of a run that hold a model for use, the first that exists counts.
        trial: where its model is tried on the Playground; None where it has none to try.
        formats: in which its model can be exported.
        done: how far a run is, on its page; `step` and `total` are filled in.
        allocates: whether it moves adapter capacity, so that it has the views of a training.
    """

    name: ClassVar[str]
    command: ClassVar[str] = ""
    about: ClassVar[str]
    page: ClassVar[str] = "plugins"
    settings: ClassVar[type[Section]]
    form: ClassVar[StartForm]
    models: ClassVar[tuple[str, ...]] = ("adapter",)
    trial: ClassVar[Trial | None] = None
    formats: ClassVar[tuple[str, ...]] = ()
    done: ClassVar[str] = "Step {step:,} of {total:,}"
    allocates: ClassVar[bool] = False

    # --- the work

    @property
    def work(self) -> Any:
        """The module `work/run.py` in the folder of the kind, which does the work; loads torch."""
        return importlib.import_module(f"{type(self).__module__.rpartition('.')[0]}.work.run")

    def resume(self, folder: Path, *, force: bool = False, progress: bool = False, is_new: bool = False) -> Any:
        """Start or continue a run and return its `training.folder_work.Outcome`; loads torch.

        Args:
            folder: of the run.
            force: also when another machine claims to be working on it.
            progress: draw a bar.
            is_new: whether the folder was made for this call.

        Raises:
            ConfigError: when it is finished, running, or may be running elsewhere.
            CorruptRunError: when it cannot be read.
        """
        return self.work.resume(folder, force=force, progress=progress, is_new=is_new)

    def estimate(self, settings: Any, runs_dir: Path) -> tuple[dict[str, Any], str]:
        """Return how long a run will take, as a document with `minutes` and in words; loads torch.

        Raises:
            ConfigError: for a kind that cannot say.
        """
        raise ConfigError(f"--estimate: the time of a {self.name} run is not known before it starts; leave it out")

    # --- what it records

    @abstractmethod
    def read(self, folder: Path) -> Any:
        """Return what a run has recorded so far.

        Raises:
            RunNotFoundError: when there is no such run.
            CorruptRunError: when it cannot be read.
        """

    def follow(self, folder: Path) -> Any:
        """Return what `read` does of a run at work, which is read again and again."""
        return self.read(folder)

    def choice(self, result: Any) -> Choice | None:
        """Return what a reader can choose for the whole page; None for nothing."""
        return None

    @abstractmethod
    def conclusion(self, result: Any, chosen: Mapping[str, str] = NOTHING) -> Conclusion:
        """Return the result of a finished run in sentences.

        Args:
            result: as `read` returns it.
            chosen: what the reader chose for the whole page.
        """

    def facts(self, folder: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Return what `dynlora show --json` adds to the summary: `verdict`, `lora_config` and `conclusion`, a sentence.

        Args:
            folder: of the run.
            summary: as plain values.
        """
        conclusion = self.conclusion(self.read(folder))
        words = f"{conclusion.text} {conclusion.basis}".strip()
        return {"verdict": None, "lora_config": None, "conclusion": words}

    def standing(self, document: Mapping[str, Any]) -> str:
        """Return how far a run is, in words, from its summary."""
        return f"{document['status']} at step {document['step']}/{document['max_steps']}, a {self.name} run"

    def progress(self, result: Any, step: int, chosen: Mapping[str, str] = NOTHING) -> Conclusion:
        """Return what a run at work does now; the conclusion where it has one already."""
        return self.conclusion(result, chosen)

    def headline(self, result: Any) -> str:
        """Return the line under the title of the page."""
        return sentence_case(self.about)

    def lines(self, document: Mapping[str, Any], runs_dir: Path) -> Iterator[str]:
        """Yield what the command prints under the conclusion: the next command, and the tables of the results.

        Args:
            document: results as `--json` prints them, with `id`.
            runs_dir: of the run.
        """
        yield from ()

    def tables(self, result: Any) -> Mapping[str, Any]:
        """Return data frames beside the conclusion, by the name of their file."""
        return {}

    @functools.cached_property
    def panels(self) -> tuple[Panel[Any], ...]:
        """The figures of its page, in their order: those of its folder `panels/`, and those of plug-ins."""
        from dynlora.viz.kit.panel import panels_in, panels_of_plugins

        package = f"{type(self).__module__.rpartition('.')[0]}.panels"
        own = panels_in(importlib.import_module(package)) if importlib.util.find_spec(package) else ()
        return tuple(sorted((*own, *panels_of_plugins(self.name)), key=lambda panel: panel.order))

    def panel(self, name: str) -> Panel[Any]:
        """Return a panel by its id."""
        return next(panel for panel in self.panels if panel.id == name)

    # --- its model

    def has_model(self, folder: Path) -> bool:
        """Say whether a run has ended with a model for use."""
        return any((folder / name).is_dir() for name in self.models)

    def model_config(self, folder: Path) -> RunConfig:
        """Return the config that loads the model of a run.

        Raises:
            ConfigError: when the run trained nothing that is loaded so.
        """
        return read_run_config(folder)

    def usage(self, run_id: str, runs_dir: Path) -> str:
        """Return the command that uses the model of a run; empty for none."""
        return ""

    def load(self, folder: Path) -> Any:
        """Return the model of a run, adapted, on the CPU; loads torch.

        Raises:
            ConfigError: when the run kept none.
            CorruptRunError: when it cannot be read.
        """
        raise ConfigError(f"run {folder.name}: a {self.name} run has no model of its own; load one of its runs")

    @property
    def operations(self) -> Mapping[str, Callable[..., Any]]:
        """What the inference child does with a loaded model beside what it does with any, by name.

        Each takes the model and the arguments of the question; one that returns an iterator is read as it grows.
        """
        return {}

    def model_version(self, folder: Path) -> tuple[object, ...]:
        """Return what changes when the model of a run is saved again: times of its files, ns since the epoch."""
        files = [folder / name / "state.json" for name in self.models]
        return tuple(file.stat().st_mtime_ns for file in files if file.is_file())

    def export(
        self, folder: Path, out: Path, format: str, which: str = "last", measure: str = "sample"
    ) -> tuple[dict[str, Any], str]:
        """Write the model of a run for others, and return what was written, as a document and in words; loads torch.

        Args:
            folder: of the run.
            out: a new or empty folder, or a new file that ends in .zip.
            format: name of a form, see `inference.forms`.
            which: last or best; a kind that keeps one model has no choice.
            measure: where gates are averaged, on which held-out examples the change is measured: sample or all.

        Raises:
            ConfigError: when it has none, or `out` is taken.
            StorageError: when `out` cannot be written.
        """
        raise ConfigError(f"export {folder.name}: a {self.name} run has no adapter of its own; export one of its runs")


@functools.cache
def registry() -> Mapping[str, RunKind]:
    """Return every kind by its name: that of its folder, or that a plug-in declares."""
    folders = classes_in(
        dynlora.kinds, RunKind, lambda item: f"{item.name}.kind" * (item.ispkg and item.name != "sources")
    )
    own = {kind.name: kind for _, kind in folders}
    kinds: dict[str, Callable[[], RunKind]] = {**joined(own, plugged_in("kinds", RunKind))}
    return {name: made() for name, made in kinds.items()}


def kind_of_run(folder: Path) -> RunKind:
    """Return the kind of a run.

    Raises:
        ConfigError: when this version does not know it.
        RunNotFoundError: when there is no such run.
        CorruptRunError: when it cannot be read.
    """
    with RunReader(folder) as reader:
        name = kind_of(reader.meta(("kind",)))
    kind = registry().get(name)
    if kind is None:
        raise ConfigError(f"run {folder.name}: this version does not know its kind; use a newer one")
    return kind
