"""Which linear modules of a base model get an adapter, and which of these a gate."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dynlora.engine.model.base_model import BaseModel
from dynlora.engine.model.forward_trial import ForwardTrial, try_forward
from dynlora.engine.model.modules import ModuleInfo, by_names, find_modules
from dynlora.errors import ConfigError, first_line


@dataclass(frozen=True)
class ChosenModules:
    """The modules to adapt, and what a trial forward showed of them.

    Attributes:
        modules: those that get an adapter, in order of definition.
        trial: what the forward does with them; None where it was not run, and every module may have a gate.
        unused: names of modules that were asked for and get none, because it would have no effect.
        is_causal: a token's gate depends on the tokens up to it alone.
    """

    modules: list[ModuleInfo]
    trial: ForwardTrial | None = None
    unused: tuple[str, ...] = ()
    is_causal: bool = False

    def can_have_gate(self, name: str, mode: str) -> bool:
        """Say whether a module's rows belong to examples, or are tokens where every token has a gate of its own."""
        if self.trial is None:
            return True
        return name in (self.trial.per_token if self.is_causal or mode == "token" else self.trial.per_example)

    @property
    def mixed(self) -> tuple[str, ...]:
        """Names of the modules whose rows do not belong to examples, in equal shares; none without a trial."""
        if self.trial is None:
            return ()
        return tuple(one.name for one in self.modules if one.name not in self.trial.per_example)

    def check_gates(self, mode: str | None) -> None:
        """Refuse gates where no module can have one.

        Raises:
            ConfigError: naming the setting.
        """
        if mode is None or self.trial is None:
            return
        if not self.trial.reads_embedding or not any(self.can_have_gate(one.name, mode) for one in self.modules):
            raise ConfigError(
                f"strategy.gates={mode}: no module of this model can have a gate, because its rows cannot be assigned "
                "to single texts; set strategy.gates=off"
            )

    def notes(self, mode: str | None) -> list[str]:
        """Return what a person should know of the modules that have no adapter, or no gate, in sentences."""
        if self.trial is None:
            return []
        sentences = []
        if self.unused:
            sentences.append(
                f"{_modules(self.unused, 'no adapter')}: the model does not call them, or computes with their weights "
                "itself, so it would have no effect."
            )
        if self.trial.stacked:
            sentences.append(
                f"{by_names(self.trial.stacked)} hold many matrices in one tensor and are not adapted; the linear "
                "modules of the blocks are."
            )
        bare = [one.name for one in self.modules if mode is not None and not self.can_have_gate(one.name, mode)]
        if bare:
            rows = "the tokens of each text" if self.is_causal or mode == "token" else "single examples"
            sentences.append(f"{_modules(bare, 'no gate')}: the rows of their inputs do not belong to {rows}.")
        return sentences


def choose_modules(
    base: BaseModel, targets: Sequence[str] | None, saved: Collection[str] | None = None
) -> ChosenModules:
    """Return the modules to adapt: those of the targets whose adapter would have an effect.

    Args:
        base: model and head, not adapted yet.
        targets: endings of module names; None takes every linear module of the blocks.
        saved: names of the modules of a saved adapter, which were chosen before.

    Raises:
        ConfigError: when the targets match nothing, or the model's forward fails on texts.
    """
    modules = find_modules(base.model, targets, base.head)
    if saved is not None and all(one.name in saved for one in modules):
        return ChosenModules(modules, is_causal=base.task.is_causal)
    try:
        trial = try_forward(base.model, modules, is_causal=base.task.is_causal)
    except Exception as error:  # whatever a model raises
        if base.tokenizer is None:  # a model of one's own may read anything
            return ChosenModules(modules, is_causal=base.task.is_causal)
        raise ConfigError(
            f"model.name={base.folder}: {type(base.model).__name__} cannot be trained on texts, its forward fails "
            f"({first_line(error)}); use another model, such as minilm"
        ) from error
    used = [one for one in modules if one.name not in trial.unused]
    if not used:
        raise ConfigError(
            f"adapter.targets={by_names([one.name for one in modules])}: the model does not call these modules, or "
            "computes with their weights itself, so an adapter would have no effect; name others"
        )
    unused = tuple(one.name for one in modules if one.name in trial.unused)
    return ChosenModules(used, trial if saved is None else None, unused, base.task.is_causal)


def _modules(names: Sequence[str], lack: str) -> str:
    """Return how many modules of which names lack something, as the beginning of a sentence."""
    return f"{len(names)} {'module has' if len(names) == 1 else 'modules have'} {lack} ({by_names(names)})"
