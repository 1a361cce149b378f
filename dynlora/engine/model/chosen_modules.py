"""Which linear modules of a base model get an adapter, and which of these a gate."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dynlora.engine.model.adapters import replace_module
from dynlora.engine.model.base_model import BaseModel
from dynlora.engine.model.gates import embeddings_of
from dynlora.engine.model.modules import ModuleInfo, by_names, find_modules
from dynlora.engine.randomness import seed_global_stream, stream
from dynlora.errors import ConfigError, first_line

TEXTS, TOKENS = 3, 12
"""Texts of the trial, and tokens of each."""

TEXT, TOKEN = 1, 5
"""Place of the token that is another one in the second forward."""

CLOSE = 1e-5
"""Rows that differ by less than this fraction of the largest number are the same: sums are rounded by their order."""


@dataclass(frozen=True)
class ForwardTrial:
    """What a trial forward showed.

    Attributes:
        unused: names of modules whose adapter would have no effect: neither they nor any of their kind are called, or
            their weight is taken by others, and for more than its type.
        per_example: names of modules whose rows belong to examples, in equal shares.
        per_token: those whose rows are the tokens of the examples, in order.
        reads_embedding: whether the tokens are looked up where gates can see them.
        stacked: names of parameters that hold many matrices in one tensor, as those of experts, which are not adapted.
    """

    unused: frozenset[str]
    per_example: frozenset[str]
    per_token: frozenset[str]
    reads_embedding: bool
    stacked: tuple[str, ...]


def try_forward(model: nn.Module, modules: Sequence[ModuleInfo], *, is_causal: bool = False) -> ForwardTrial:
    """Run a model's forward twice on short random texts and return what it does with the modules.

    The model and torch's global random stream are left as they were.

    Args:
        model: a transformers model, not adapted yet.
        modules: those that are to be adapted.
        is_causal: a token's gate may not depend on those after it, so the changed rows must begin with that token.

    Raises:
        Exception: whatever the model's forward raises when it is given texts alone.
    """
    ids, changed = _texts(model)
    names = [info.name for info in modules]
    looked_up: list[Any] = []
    handles = [one.register_forward_hook(lambda *_: looked_up.append(1)) for one in embeddings_of(model)]
    try:
        first, second = (_watch(model, names, texts) for texts in (ids, changed))
    finally:
        for handle in handles:
            handle.remove()
    called = {_pattern(name) for name in names if first[name].inputs}
    unused = {name for name in names if _pattern(name) not in called or first[name].is_taken}
    calls = {name: (first[name].inputs, second[name].inputs) for name in names}
    examples = {name for name in names if _all_calls(*calls[name], _is_of_examples)}
    tokens = {name for name in examples if _all_calls(*calls[name], _starts(TOKEN if is_causal else None))}
    return ForwardTrial(
        frozenset(unused), frozenset(examples), frozenset(tokens), bool(looked_up), tuple(_stacked(model))
    )


class _ReadWeight(Tensor):
    """A weight that tells the module it is of when its type, place or shape is looked at."""

    reader: _Watched
    LOOKS = (Tensor.dtype, Tensor.device, Tensor.shape)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count a look, and do what is asked."""
        if getattr(func, "__self__", None) in cls.LOOKS and isinstance(args[0], cls):
            args[0].reader.looks += 1
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


class _Watched(nn.Module):
    """A linear module that keeps what it is given; it offers what an adapted one does, and nothing else."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.inputs: list[Tensor] = []
        self.reads = self.looks = 0

    @property
    def weight(self) -> Tensor:
        """The module's own weight, which tells what is asked of it."""
        self.reads += 1
        read = self.base_layer.weight.detach().as_subclass(_ReadWeight)  # pyright: ignore - linear by construction
        read.reader = self
        return read

    @property
    def is_taken(self) -> bool:
        """Whether others took the weight, and not to look at its type."""
        return self.reads > 0 and self.looks == 0

    @property
    def bias(self) -> Tensor | None:
        """The module's own bias."""
        return self.base_layer.bias  # pyright: ignore - linear by construction

    def forward(self, x: Tensor) -> Tensor:
        """Keep x and map it."""
        self.inputs.append(x.detach().reshape(-1, x.shape[-1]).float().cpu())
        return self.base_layer(x)


@torch.no_grad()
def _watch(model: nn.Module, names: Sequence[str], ids: Tensor) -> dict[str, _Watched]:
    """Return the modules with what they were given in one forward of training."""
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "use_cache" in inspect.signature(model.forward).parameters:
        inputs["use_cache"] = False  # pyright: ignore[reportArgumentType]
    with _as_it_was(model, ids.device):
        watched = {name: _Watched(model.get_submodule(name)) for name in names}
        for name, module in watched.items():
            replace_module(model, name, module)
        model.train()  # a model may take another path in training, and that one counts
        for dropout in (module for module in model.modules() if isinstance(module, nn.Dropout)):
            dropout.p = 0.0  # near 1 it makes numbers that are not finite, and which modules read what is unknown then
        seed_global_stream(0, "trial")
        model(**inputs)
    return watched


@contextmanager
def _as_it_was(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Put everything back after the block: attributes, children and buffers of all modules, and random streams."""
    states = [
        (module, dict(vars(module)), dict(module._modules), [(one, one.clone()) for one in module.buffers(False)])
        for module in model.modules()
    ]
    with torch.random.fork_rng([device] if device.type != "cpu" else [], device_type=device.type):
        try:
            yield
        finally:
            for module, attributes, children, buffers in states:
                vars(module).clear()
                vars(module).update(attributes)
                module._modules.clear()
                module._modules.update(children)
                for buffer, before in buffers:
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)


def _texts(model: Any) -> tuple[Tensor, Tensor]:
    """Return random texts and the same with one token changed, (TEXTS, TOKENS) each.

    No token is special but the last: some models read the class off the end token.
    """
    embedding = model.get_input_embeddings().weight
    special = {value for key, value in vars(model.config).items() if key.endswith("_token_id")}
    numbers = {one for value in special if isinstance(value, list | tuple | int) for one in _each(value)}
    plain = torch.tensor([word for word in range(min(len(embedding), 1000)) if word not in numbers])
    ids = plain[torch.randint(len(plain), (TEXTS, TOKENS), generator=stream(0, "trial"))]
    end = getattr(model.config, "eos_token_id", None)
    if isinstance(end, int):
        ids[:, -1] = end
    changed = ids.clone()
    changed[TEXT, TOKEN] = plain[plain != ids[TEXT, TOKEN]][0]
    return ids.to(embedding.device), changed.to(embedding.device)


def _each(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _pattern(name: str) -> str:
    """Return a module's name without its numbers: the same in every block, and of every expert."""
    return re.sub(r"\d+", "*", name)


def _all_calls(first: Sequence[Tensor], second: Sequence[Tensor], holds: Callable[[Tensor], bool]) -> bool:
    """Say whether something holds of the rows that changed in every call, (rows,); not where there is none."""
    if not first or [a.shape for a in first] != [b.shape for b in second]:
        return False
    return all(holds((a - b).abs().amax(1) > CLOSE * a.abs().amax()) for a, b in zip(first, second, strict=True))


def _is_of_examples(changed: Tensor) -> bool:
    """Say whether rows are equal shares, one a text, of which the changed text's alone changed."""
    if len(changed) % TEXTS:
        return False
    return changed.view(TEXTS, -1).any(1).tolist() == [text == TEXT for text in range(TEXTS)]


def _starts(token: int | None) -> Callable[[Tensor], bool]:
    """Return whether rows are the tokens in their order, and change from `token` on where it is given."""

    def holds(changed: Tensor) -> bool:
        if len(changed) != TEXTS * TOKENS:
            return False
        return token is None or int(changed.view(TEXTS, TOKENS)[TEXT].int().argmax()) == token

    return holds


def _stacked(model: nn.Module) -> Iterator[str]:
    """Yield the names of parameters inside blocks that are stacks of matrices; those of torch's own modules are not."""
    for name, module in model.named_modules():
        if type(module).__module__.startswith("torch.nn") or not re.search(r"\.\d+\.", name):
            continue
        for own, tensor in module.named_parameters(recurse=False):
            if tensor.dim() > 2 and min(tensor.shape[-2:]) > 1 and tensor.is_floating_point():
                yield f"{name}.{own}"


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
    key = base.task.is_causal, *(info.name for info in modules)
    try:
        trial = base.trials.get(key) or try_forward(base.model, modules, is_causal=base.task.is_causal)
    except Exception as error:  # whatever a model raises
        if base.tokenizer is None:  # a model of one's own may read anything
            return ChosenModules(modules, is_causal=base.task.is_causal)
        raise ConfigError(
            f"model.name={base.folder}: {type(base.model).__name__} cannot be trained on texts, its forward fails "
            f"({first_line(error)}); use another model, such as minilm"
        ) from error
    base.trials[key] = trial
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
