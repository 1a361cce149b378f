"""The forms that an adapter is exported in: a class in a file each, found by existing.

A form declares its words without torch. It writes a trained model (`Form.write`), converts the files of an adapter that
anyone trained (`Form.convert`), and says how it is loaded and served.
"""

from __future__ import annotations

import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dynlora.discovery import classes_in
from dynlora.errors import ConfigError

if TYPE_CHECKING:
    from dynlora.engine.evaluation.export import AdapterFacts
    from dynlora.engine.evaluation.inference import AdaptedModel
    from dynlora.peft_adapter.loaded_adapter import LoadedAdapter

AS_TRAINED, UNIFORM = "as-trained", "uniform"
RANKS = (AS_TRAINED, UNIFORM)
"""How an adapter in PEFT's format holds its ranks."""


class Form(ABC):
    """A form of an exported adapter.

    Attributes:
        name: by which it is asked for.
        order: its place in the list; the usual one is first.
        format: of its files, which several forms may have; the name of the usual one of these.
        ranks: as trained, each module its own, or one for all.
        engines: that read it, as `dynlora check` names them.
        goes_to: the same for people.
        help: what it holds.
        keeps_gates: whether the gates react to the input as they were trained; else their means stand for them.
        is_adapter: it holds factors alone, so that it can be made of an adapter's files, without the model.
        holds_model: it holds the base model too.
        starts_runs: a training can start from it.
        library: the hub's name of what loads it.
        python: code that loads it from `FOLDER`, where no run is needed to write the code; else empty.
        generates: whether it is for models that write texts, or for those that classify; None for both.
        other_engines: which engines need another form, and the command that makes it; empty for nothing to say.
    """

    name: ClassVar[str]
    order: ClassVar[int]
    format: ClassVar[str]
    ranks: ClassVar[str] = AS_TRAINED
    engines: ClassVar[tuple[str, ...]] = ()
    goes_to: ClassVar[str]
    help: ClassVar[str]
    keeps_gates: ClassVar[bool] = False
    is_adapter: ClassVar[bool] = False
    holds_model: ClassVar[bool] = False
    starts_runs: ClassVar[bool] = False
    library: ClassVar[str] = "transformers"
    python: ClassVar[str] = ""
    generates: ClassVar[bool | None] = None
    other_engines: ClassVar[str] = ""

    @abstractmethod
    def write(self, model: AdaptedModel, folder: Path, facts: AdapterFacts) -> None:
        """Write a model; gates that the form does not keep are baked before.

        Args:
            model: with its adapters.
            folder: that is made.
            facts: what is in the files.

        Raises:
            NotMergeableError: when the form cannot hold the method's update; nothing is written then.
        """

    def convert(self, adapter: LoadedAdapter, folder: Path, base: str, title: str) -> dict[str, Any]:
        """Write the numbers of an adapter that was read from files, and return rank, modules and what was filled.

        Args:
            adapter: for one model.
            folder: that exists.
            base: folder or name of the base model.
            title: of the adapter, for people.

        Raises:
            ConfigError: when the form needs the base model.
            NotMergeableError: when the form cannot hold the adapter.
        """
        fitting = ", ".join(name for name, form in forms().items() if form.is_adapter)
        raise ConfigError(
            f"--format {self.name}: cannot be made of an adapter's files alone; choose one of {fitting}, or merge the "
            "adapter with PEFT's merge_and_unload"
        )

    def commands(self, base: str, word: str, rank: int) -> list[str]:
        """Return the commands that serve it; each reads it right as `dynlora check` has it.

        Args:
            base: hub id or folder of the base model, quoted for a shell.
            word: name of the folder, quoted.
            rank: the largest of a module.
        """
        return []

    def load_block(self, python: Mapping[str, str], base: str, name: str) -> str:
        """Return how it is loaded, as Markdown: Python where there is some, else a command.

        Args:
            python: code by format, of a run.
            base: hub id or folder of the base model.
            name: of the folder.
        """
        code = python.get(self.format) or self.python
        if code:
            return f"```python\n{code.replace('FOLDER', name).strip()}\n```"
        return f"```bash\n{self.commands(shlex.quote(base), shlex.quote(name), 1)[0]}\n```"

    def serving(self, base: str, name: str, rank: int) -> str:
        """Return how engines serve it, as Markdown: commands, and what else they need.

        Args:
            base: hub id or folder of the base model.
            name: of the folder, which is also what the adapter is called.
            rank: the largest of a module.
        """
        block = "\n".join(self.commands(shlex.quote(base), shlex.quote(name), rank))
        return f"```bash\n{block}\n```\n\n{self.other_engines}".strip()


@cache
def forms() -> Mapping[str, Form]:
    """Return all forms by name, the usual one first."""
    classes: list[Callable[[], Form]] = [one for _, one in classes_in(sys.modules[__name__], Form, lambda it: it.name)]
    return {form.name: form for form in sorted((made() for made in classes), key=lambda form: form.order)}


def forms_for(names: Iterable[str], *, generates: bool, has_gates: bool) -> list[Form]:
    """Return the forms that an adapter can have, of those that its kind of run is exported in.

    Args:
        names: of the forms of the kind.
        generates: whether the model writes texts.
        has_gates: whether there are gates to keep.
    """
    of_kind = [forms()[name] for name in names]
    return [form for form in of_kind if form.generates in (None, generates) and (has_gates or not form.keeps_gates)]


def targets() -> dict[str, Form]:
    """Return the engines that a form can be asked for by, with the form of each."""
    return {engine: form for form in forms().values() for engine in form.engines}


def form_of(format: str = "peft", ranks: str | None = None, engine: str | None = None) -> Form:
    """Return the form that options ask for.

    Args:
        format: of the files, or the name of a form.
        ranks: as-trained or uniform; None for what the format or the engine takes.
        engine: that shall read it; None for any.

    Raises:
        ConfigError: when a value is unknown, or two of them contradict each other.
    """
    if ranks is not None and ranks not in RANKS:
        raise ConfigError(f"--ranks {ranks}: must be one of {', '.join(RANKS)}")
    if engine is not None:
        form = targets().get(engine)
        if form is None:
            raise ConfigError(f"--for {engine}: must be one of {', '.join(targets())}")
        if format not in ("peft", form.format, form.name):
            raise ConfigError(f"--format {format}: {engine} reads {form.format}; leave --format out")
        format = form.name
    if format not in forms():
        raise ConfigError(f"--format {format}: must be one of {', '.join(forms())}")
    form = forms()["uniform"] if format == "peft" and ranks == UNIFORM else forms()[format]
    if ranks is not None and form.ranks != ranks:
        raise ConfigError(f"--ranks {ranks}: {format} holds ranks {form.ranks}; leave --ranks out")
    return form


def convert(folder: Path, out: Path, form: Form, base: str | None = None) -> dict[str, Any]:
    """Write an adapter folder in another form; nothing is left at `out` unless all could be written.

    Args:
        folder: of PEFT, mlx-lm, or with one .safetensors file of kohya or diffusers.
        out: a new or empty folder, or a new file that ends in .zip.
        form: to write; merged needs the model and is refused.
        base: folder or name of the base model; None for the one that the adapter names.

    Returns:
        folder, form, layout, rank, modules, padded and filled; where a file held parts of a pipeline, those of each.

    Raises:
        AdapterError: when the folder holds no adapter that is a sum of s · B A.
        ConfigError: when `out` is taken, or the form needs the base model.
        NotMergeableError: when the form cannot hold the adapter.
        StorageError: when `out` cannot be written.
    """
    from dynlora.peft_adapter.loaded_adapter import load_adapters
    from dynlora.peft_adapter.read import read_header
    from dynlora.training.folder_work import staged

    header = read_header(folder)
    parts = load_adapters(folder, header)
    document: dict[str, Any] = {"folder": str(out), "form": form.name, "layout": header.layout}
    with staged(out) as staging:
        if len(parts) == 1:
            (adapter,) = parts.values()
            return document | form.convert(adapter, staging, base or adapter.base_name, folder.name)
        written = {}
        for part, adapter in parts.items():
            (staging / part).mkdir()
            written[part] = form.convert(adapter, staging / part, base or adapter.base_name, part)
        return document | {"parts": written}


COSTLY = 1.005
"""Held-out loss after the gates were averaged, over that before, from which an export says so first."""


def raised_loss(report: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the held-out loss before and after the gates were averaged, where that made it worse; else None."""
    before, after = (dict(report.get(f"metrics_{when}") or {}).get("loss") for when in ("before", "after"))
    if before is None or after is None or after <= COSTLY * before:
        return None
    return before, after
