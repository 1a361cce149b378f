"""What was found before, and a method can start from: ranks by module, or a whole adapter with its head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dynlora.engine.edits.components import StartAt
from dynlora.engine.edits.values import Edit
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.modules import ModuleInfo
from dynlora.errors import ConfigError


def ranks_by_module(setting: str, ranks: Mapping[str, int], modules: Sequence[ModuleInfo]) -> list[int]:
    """Return ranks that were found before, by module of this model; a module without one gets 0.

    Args:
        setting: that names where they are from, with its value.
        ranks: by name of the module.
        modules: of this model that are adapted.

    Raises:
        ConfigError: when none of the modules has a rank, or a rank is that of a module which is not adapted.
    """
    given = {name: rank for name, rank in ranks.items() if rank}
    strange = sorted(set(given) - {info.name for info in modules})
    if strange or not given:
        what = f"has a rank for {strange[0]}, which is not adapted here" if strange else "has no rank above 0"
        raise ConfigError(f"{setting}: {what}; take ranks of the same model, and leave adapter.targets empty")
    return [given.get(info.name, 0) for info in modules]


@dataclass(frozen=True)
class GivenModule:
    """The update of one module, scaling · B A.

    Attributes:
        A: (r, d_in).
        B: (d_out, r).
        scaling: factor of the product.
    """

    A: Tensor
    B: Tensor
    scaling: float


@dataclass(frozen=True)
class GivenStart:
    """An adapter that training starts from.

    Attributes:
        setting: that names it, with its value.
        modules: updates by name of the module.
        rest: what else it holds by name, such as the tensors of a head.
    """

    setting: str
    modules: Mapping[str, GivenModule]
    rest: Mapping[str, Tensor]

    def ranks(self, modules: Sequence[ModuleInfo]) -> list[int]:
        """Return the rank of each module to adapt, 0 for one that the adapter leaves alone.

        Raises:
            ConfigError: when the adapter is that of other modules, or of modules of another shape.
        """
        by_module = ranks_by_module(self.setting, {name: len(one.A) for name, one in self.modules.items()}, modules)
        for info, rank in zip(modules, by_module, strict=True):
            one = self.modules.get(info.name)
            if rank and one is not None and (one.A.shape[1], one.B.shape[0]) != (info.d_in, info.d_out):
                raise ConfigError(
                    f"{self.setting}: its module {info.name} has {one.A.shape[1]} inputs and {one.B.shape[0]} outputs, "
                    f"and that of the model {info.d_in} and {info.d_out}; set model.name to the adapter's own base"
                )
        return by_module

    def check_rest(self, head: Mapping[str, nn.Parameter]) -> None:
        """Refuse an adapter that holds another head, or something that is not trained here.

        Args:
            head: tensors of the model's head by name.

        Raises:
            ConfigError: naming the first tensor that does not fit.
        """
        strange = sorted(set(self.rest) - set(head))
        if strange:
            raise ConfigError(
                f"{self.setting}: holds {strange[0]}, which is not trained for this task; set data.task and data.path "
                "to those of the adapter, or merge it with PEFT and train from the merged model"
            )
        wrong = [n for n, t in head.items() if self.rest and (n not in self.rest or self.rest[n].shape != t.shape)]
        if wrong:
            raise ConfigError(
                f"{self.setting}: its head does not fit {wrong[0]} of this model; give data with the labels that the "
                "adapter was trained on"
            )

    @torch.no_grad()
    def place_head(self, head: Mapping[str, nn.Parameter]) -> None:
        """Set the model's head to that of the adapter; without one it stays as it was drawn."""
        for name, tensor in self.rest.items():
            head[name].copy_(tensor.to(head[name]))

    def edits(self, adapters: Adapters) -> list[Edit]:
        """Return the edits that set A, B and scaling of every module that the adapter has."""
        starts = [(index, self.modules.get(module.info.name)) for index, module in enumerate(adapters) if module.rank]
        return [StartAt(index, one.A, one.B, scaling=one.scaling) for index, one in starts if one is not None]
