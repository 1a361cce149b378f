"""GLoRA: a super-net of scaled and shifted weights and biases, and a search for the best path of every module.

W = W0 + W0 ⊙ A + s · B and b = b0 + b0 ⊙ D + E + W0 C. A path names the form of each in five letters, in this order:
l low-rank, v vector, c constant, n none. All forms of a support are slices of one set of tensors, so that training a
path trains parts of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from dynlora.engine.context import Probe, Step
from dynlora.engine.data.held_back import HeldBack
from dynlora.engine.edits import Edit
from dynlora.engine.edits.values import Change
from dynlora.engine.evaluation.evaluate import predict
from dynlora.engine.model.adapters import Adapters
from dynlora.engine.model.lora_linear import LoraLinear
from dynlora.engine.model.modules import ModuleInfo, check_weights
from dynlora.engine.randomness import stream, stream_seed
from dynlora.engine.strategy import OwnSignal, Strategy, setting, start_setting
from dynlora.errors import ConfigError, NotMergeableError

FORMS = ("lvcn", "lvcn", "lvn", "vcn", "vcn")
"""What each of A, B, C, D and E may be."""

PATHS = tuple("".join(path) for path in product(*FORMS))
"""All 432 paths of a module with a bias."""

WITHOUT_BIAS = tuple(path for path in PATHS if path.endswith("nnn"))
"""The 16 paths of a module without a bias, where C, D and E have nothing to act on."""

LORA = "nlnnn"
"""The path that is LoRA."""

SIZE = "ncvl"
"""The forms by how much they hold; the place of a form is its number in the recorded signals."""


def usable(path: str, biased: bool) -> str:
    """Return a path as a module can take it: without a bias its C, D and E are none."""
    return path if biased else path[:2] + "nnn"


def path_cost(path: str, info: ModuleInfo, rank: int) -> int:
    """Return the numbers that a path uses of a module."""
    matrix = {"l": rank * (info.d_in + info.d_out), "v": info.d_out, "c": 1, "n": 0}
    column = {"l": rank * (info.d_in + 1), "v": info.d_in, "n": 0}
    bias = {"v": info.d_out, "c": 1, "n": 0}
    return sum(part[form] for part, form in zip((matrix, matrix, column, bias, bias), path, strict=True))


class GloraLinear(LoraLinear):
    """A module whose weight and bias are scaled and shifted, in the forms its path names.

    B is LoRA's own: lora_B lora_A, or its first column over all inputs, or its first number. A scales W0: as a vector
    or a constant it multiplies the output; as a low-rank matrix it makes a tensor of W0's size and costs one product
    forward and two backward. C needs W0 once a forward, as one more token would.

    Attributes:
        A_down, A_up: (d_out, max_rank), zero at the start, and (max_rank, d_in).
        C_down, C_up: (d_in, max_rank), zero at the start, and (max_rank, 1); None without a bias, as D and E.
        D, E: (d_out,), zero at the start.
        path: the path that is used, as numbers of forms by `SIZE`, (5,).
        sampled: whether every training step draws a path of its own, (); an evaluation always takes `path`.
        samples: the same as a plain value.
        is_fixed: whether the path was given, so that nothing else was ever trained.
    """

    path: Tensor
    sampled: Tensor

    def __init__(
        self, base_layer: nn.Module, info: ModuleInfo, *, rank: int, scaling: float, path: str | None = None
    ) -> None:
        """Wrap `base_layer`; a fixed `path` trains what it uses and nothing else, None begins at LoRA's and samples."""
        super().__init__(base_layer, info, rank=rank, max_rank=rank, scaling=scaling)
        device, biased = self.lora_A.device, self.base_bias is not None
        self.A_down = nn.Parameter(torch.zeros(info.d_out, rank, device=device))
        self.A_up = nn.Parameter(torch.zeros(rank, info.d_in, device=device))
        self.C_down = nn.Parameter(torch.zeros(info.d_in, rank, device=device)) if biased else None
        self.C_up = nn.Parameter(torch.zeros(rank, 1, device=device)) if biased else None
        self.D = nn.Parameter(torch.zeros(info.d_out, device=device)) if biased else None
        self.E = nn.Parameter(torch.zeros(info.d_out, device=device)) if biased else None
        self.is_fixed = path is not None
        self.register_buffer("path", torch.zeros(5, dtype=torch.int64, device=device))
        self.register_buffer("sampled", torch.tensor(False, device=device))
        self.settle(path or LORA)
        if path is None:
            self.sampled.fill_(True)
            self.loaded()
            return
        used = {id(tensor) for tensor, _ in self.active_parts()}
        for parameter in self.parameters(recurse=False):
            parameter.requires_grad_(id(parameter) in used)

    def reset_parameters(self, seed: int, gaussian: float | None = None) -> None:
        """Draw lora_A as LoRA does, A_up likewise, C_up from U(-1, 1), each from its own stream; the rest is zero."""
        super().reset_parameters(seed, gaussian)
        bound = 1 / math.sqrt(self.info.d_in)
        with torch.no_grad():
            for name, tensor, reach in (("A_up", self.A_up, bound), ("C_up", self.C_up, 1.0)):
                if tensor is not None:
                    draw = torch.empty(tensor.shape)
                    tensor.copy_(draw.uniform_(-reach, reach, generator=stream(seed, self.info.name, name)))

    @property
    def base_bias(self) -> Tensor | None:
        """The frozen bias, (d_out,), or None."""
        return self.base_layer.bias  # pyright: ignore - linear by construction

    @property
    def matrix(self) -> Tensor:
        """The frozen weight, (d_out, d_in), however it is."""
        weight: Tensor = self.base_layer.weight  # pyright: ignore - linear by construction
        return weight if isinstance(self.base_layer, nn.Linear) else weight.t()

    @property
    def paths(self) -> Sequence[str]:
        """The paths that this module can take."""
        return WITHOUT_BIAS if self.base_bias is None else PATHS

    @torch.no_grad()
    def settle(self, path: str) -> None:
        """Take a path from now on, also in training; without a bias its C, D and E are none."""
        forms = usable(path, self.base_bias is not None)
        self.path.copy_(torch.tensor([SIZE.index(form) for form in forms]))
        self.sampled.fill_(False)
        self.loaded()

    def loaded(self) -> None:
        """Read the path off its tensor, once: the forward must not wait for the device."""
        self._path = "".join(SIZE[int(place)] for place in self.path)
        self.samples = bool(self.sampled)

    @contextmanager
    def trying(self, path: str) -> Iterator[None]:
        """Take another path inside the block."""
        before, self._path = self._path, path
        try:
            yield
        finally:
            self._path = before

    def taken(self) -> str:
        """Return the path of this forward: one drawn by module and step while a super-net trains, else the settled."""
        if not (self.samples and self.training):
            return self._path
        return self.drawn()

    def drawn(self) -> str:
        """Return the path of the current step: the same in every process and for all parts of a batch."""
        seed, step = (0, 0) if self.streams is None else (self.streams.seed, self.streams.key[0])
        return self.paths[stream_seed(seed, self.info.name, "path", step) % len(self.paths)]

    def _adapted(self, x: Tensor) -> Tensor:
        """Return W x + b in the forms of the path, without a tensor of W0's size unless A is low-rank."""
        path = self.taken()
        if path[:2] == "nl":
            output = super()._adapted(x)
        else:
            frozen = self._frozen(x) if self.fused and not torch._C._are_functorch_transforms_active() else None
            output = self.base_layer(x) if frozen is None else frozen(x.to(frozen.weight.dtype))
            dtype = output.dtype
            scaled, shifted = self._scaled(x, output, path[0]), self._shifted(x, path[1])
            output = output + sum(part.to(dtype) for part in (scaled, shifted) if part is not None)
        bias = self._bias(path)
        if path[0] in "vc" and self.base_bias is not None:  # what scaled the output also scaled the bias in it
            undo = -self._column(self.A_down, path[0]) * self.base_bias
            bias = undo if bias is None else bias + undo
        if bias is not None:
            output = output + bias.to(output.dtype)
        return output if self.is_fixed or not self.training else output + self._nothing().to(output.dtype)

    def added(self, x: Tensor, output: Tensor) -> Tensor:
        """Return what the path adds to the frozen map of x; of any but LoRA's, by computing that map too."""
        return super().added(x, output) if self._path == LORA else output - self.base_layer(x)

    def _scaled(self, x: Tensor, output: Tensor, form: str) -> Tensor | None:
        """Return (W0 ⊙ A) x; as a vector or a constant, times the output, which holds the bias too."""
        if form == "n":
            return None
        if form == "l":
            return F.linear(x, self.matrix * (self.A_down @ self.A_up))
        return output * self._column(self.A_down, form).to(output.dtype)

    def _shifted(self, x: Tensor, form: str) -> Tensor | None:
        """Return s · B x: as a vector or a constant the sum of x over its features is added to the output."""
        if form == "n":
            return None
        if form == "l":
            dropped = self._dropped(x) if self.training and self.dropout > 0.0 else None
            scaling = self.scaling if dropped is None else self.scaling / (1 - self.dropout)
            return self._update(x, self.rank, scaling, None, None, dropped)
        return x.sum(-1, keepdim=True) * (self.scaling * self._column(self.lora_B, form)).to(x.dtype)

    def _bias(self, path: str) -> Tensor | None:
        """Return b0 ⊙ D + E + W0 C, (d_out,), or None where the path has none of them."""
        parts = []
        shift = self._input_shift(path[2])
        if shift is not None:
            parts.append(self.matrix @ shift)
        if path[3] != "n" and self.D is not None and self.base_bias is not None:
            parts.append(self.base_bias * (self.D if path[3] == "v" else self.D[0]))
        if path[4] != "n" and self.E is not None:
            parts.append(self.E if path[4] == "v" else self.E[0].expand(self.info.d_out))
        return sum(parts[1:], parts[0]) if parts else None

    def _input_shift(self, form: str) -> Tensor | None:
        """Return C, (d_in,), what is in effect added to every input; None without it."""
        if form == "n" or self.C_down is None or self.C_up is None:
            return None
        return self.C_down[:, 0] if form == "v" else (self.C_down @ self.C_up)[:, 0]

    def _column(self, tensor: Tensor, form: str) -> Tensor:
        """Return the first column of a factor, (d_out,), or its first number, ()."""
        return tensor[:, 0] if form == "v" else tensor[0, 0]

    def _nothing(self) -> Tensor:
        """Return zero, with a gradient of zero for every support: processes wait for each other's gradients."""
        return torch.stack([tensor[:0].sum() for tensor in self.adapter_parameters().values()]).sum()

    def active_parts(self) -> list[tuple[Tensor, int]]:
        """Return the tensors that the path uses, and how many of their numbers."""
        size, (d_in, d_out), A, B, C, D, E = self.rank, (self.info.d_in, self.info.d_out), *self._path
        parts: list[tuple[Tensor | None, int]] = []
        for form, down, up in ((A, self.A_down, self.A_up), (B, self.lora_B, self.lora_A)):
            parts.append((down, {"l": size * d_out, "v": d_out, "c": 1, "n": 0}[form]))
            parts.append((up, size * d_in if form == "l" else 0))
        parts += [(self.C_down, {"l": size * d_in, "v": d_in, "n": 0}[C]), (self.C_up, size if C == "l" else 0)]
        parts += [(tensor, {"v": d_out, "c": 1, "n": 0}[form]) for tensor, form in ((self.D, D), (self.E, E))]
        return [(tensor, numbers) for tensor, numbers in parts if tensor is not None and numbers]

    def active_rank_on_device(self) -> int:
        """Return the components of the low-rank forms in the weight: those of A and of B."""
        return self.rank * self._path[:2].count("l")

    def delta_weight(self) -> Tensor:
        """Return W0 ⊙ A + s · B, (d_out, d_in)."""
        A, B = self._path[:2]
        delta = torch.zeros_like(self.matrix)
        if A != "n":
            delta = delta + self.matrix * self._support(self.A_down, self.A_up, A)
        return delta if B == "n" else delta + self.scaling * self._support(self.lora_B, self.lora_A, B)

    def _support(self, down: Tensor, up: Tensor, form: str) -> Tensor:
        """Return a support of the weight as it multiplies or adds: (d_out, d_in), (d_out, 1) or ()."""
        return down @ up if form == "l" else self._column(down, form).unsqueeze(-1)

    def delta_bias(self) -> Tensor | None:
        """Return b0 ⊙ D + E + W0 C, (d_out,), or None."""
        return self._bias(self._path)

    def outer_tensors(self) -> list[Tensor]:
        """Return the first factor of each support: all of its forms are linear in it."""
        parts = (self.lora_B, self.A_down, self.C_down, self.D, self.E)
        return [part for part in parts if part is not None]

    def low_rank(self) -> tuple[Tensor, Tensor]:
        """Return A and B where the path is LoRA's, or empty ones where it uses nothing.

        Raises:
            NotMergeableError: on any other path.
        """
        if self._path == "nnnnn":
            return self.lora_A[:0], self.lora_B[:, :0]
        if self._path != LORA:
            raise NotMergeableError(
                f"{self.info.name}: takes the path {self._path}, which is not LoRA; use --format merged"
            )
        return super().low_rank()

    def peft_forms(self) -> dict[str, dict[str, Tensor]]:
        """Return LoRA's format where the path is LoRA's, and PEFT's GLoRA for any: its widest forms hold all others."""
        forms = super().peft_forms() if self._path in (LORA, "nnnnn") else {}
        if not isinstance(self.base_layer, nn.Linear):
            return forms
        A_down, A_up = self._widened(self.A_down, self.A_up, self._path[0])
        B_down, B_up = self._widened(self.lora_B, self.lora_A, self._path[1])
        glora = {"glora_A.Xd": A_down, "glora_A.Xu": A_up, "glora_B.Xd": self.scaling * B_down, "glora_B.Xu": B_up}
        if self.C_down is not None and self.D is not None and self.E is not None:
            C = self._input_shift(self._path[2])
            glora["glora_C.X"] = torch.zeros_like(self.C_down[:, :1]) if C is None else C.unsqueeze(1)
            for name, tensor, form in (("D", self.D, self._path[3]), ("E", self.E, self._path[4])):
                widest = {"v": tensor, "c": tensor[0].expand(len(tensor)), "n": torch.zeros_like(tensor)}
                glora[f"glora_{name}.X"] = widest[form]
        return {**forms, "GLORA": glora}

    def _widened(self, down: Tensor, up: Tensor, form: str) -> tuple[Tensor, Tensor]:
        """Return the factors whose product is a support of the weight in any form."""
        if form == "l":
            return down, up
        wide, ones = torch.zeros_like(down), torch.zeros_like(up)
        ones[0] = 1
        if form != "n":
            wide[:, 0] = self._column(down.detach(), form)
        return wide, ones

    def measured(self) -> tuple[Tensor | None, Tensor]:
        """Return A and B where the path is LoRA's, else the whole update over the scaling."""
        if self._path in (LORA, "nnnnn"):
            return self.low_rank()
        return None, self.delta_weight() / self.scaling


@dataclass(frozen=True)
class SettlePaths(Change):
    """Let each module take a path; `history` tells how the search came to them, round by round."""

    paths: tuple[str, ...]
    history: tuple[Mapping[str, Any], ...] = field(default=(), compare=False, repr=False)

    def perform(self, adapters: Adapters, optimizer: Optimizer | None, step: int) -> None:
        """Settle them; what a path leaves out stays as it was trained."""
        for module, path in zip(adapters, self.paths, strict=True):
            if not isinstance(module, GloraLinear):
                raise TypeError(f"{module.info.name}: a {type(module).__name__} has no paths to choose from")
            module.settle(path)

    def described(self) -> dict[str, Any]:
        """Return the row of the decision log."""
        return {"edit": "paths", "paths": list(self.paths), "history": [dict(entry) for entry in self.history]}


BATCH = 64
"""Rows a forward pass, whatever the run trains with, so that it does not decide between close candidates."""

DIGITS = 5
"""Decimals of a loss that count: many paths do not change the function, and rounding must not choose among them."""

Candidate = tuple[str, ...]
"""One path a module."""


@dataclass(frozen=True)
class Space:
    """What may be chosen.

    Attributes:
        modules: of the model.
        paths: that each may take.
        ranks: of each module's low-rank forms.
        limit: parameters that a candidate may use.
    """

    modules: Sequence[ModuleInfo]
    paths: Sequence[Sequence[str]]
    ranks: Sequence[int]
    limit: int

    def cost(self, candidate: Candidate) -> int:
        """Return the parameters that a candidate uses."""
        return sum(map(path_cost, candidate, self.modules, self.ranks))

    def drawn(self, rng: np.random.Generator) -> Candidate:
        """Return a candidate drawn uniformly, and made to fit."""
        return self.fitted(tuple(paths[int(rng.integers(len(paths)))] for paths in self.paths), rng)

    def fitted(self, candidate: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a candidate within the limit: modules drawn at random lose A, then B, then all, until it fits."""
        paths, left = list(candidate), self.cost(candidate)
        for keep in (1, 2, 5):
            for index in rng.permutation(len(paths)).tolist():
                if left <= self.limit:
                    return tuple(paths)
                smaller = "n" * keep + paths[index][keep:]
                info, rank = self.modules[index], self.ranks[index]
                left += path_cost(smaller, info, rank) - path_cost(paths[index], info, rank)
                paths[index] = smaller
        return tuple(paths)

    def crossed(self, one: Candidate, other: Candidate, rng: np.random.Generator) -> Candidate:
        """Return a candidate whose every module comes from either of two."""
        from_one = rng.random(len(one)) < 0.5
        return self.fitted(tuple(a if first else b for a, b, first in zip(one, other, from_one, strict=True)), rng)

    def mutated(self, one: Candidate, probability: float, rng: np.random.Generator) -> Candidate:
        """Return a candidate with some of its modules' paths drawn again."""
        new = rng.random(len(one)) < probability
        parts = zip(one, self.paths, new, strict=True)
        drawn = [paths[int(rng.integers(len(paths)))] if again else path for path, paths, again in parts]
        return self.fitted(tuple(drawn), rng)


def evolve(
    space: Space,
    loss: Callable[[Candidate], float],
    rng: np.random.Generator,
    *,
    first: Candidate,
    population: int,
    rounds: int,
    kept: int,
    mutation: float,
) -> tuple[Candidate, list[dict[str, Any]]]:
    """Return the best candidate that was found, the cheapest of equals, and what each round found.

    Args:
        space: of the candidates.
        loss: of a candidate; asked once of each. What is no number counts as worst.
        rng: of all draws.
        first: a member of the first population; it must fit, so the result is never worse than it.
        population: candidates a round.
        rounds: after the first population.
        kept: best ones so far that the next are bred from.
        mutation: probability that a module's path is drawn again.
    """
    losses: dict[Candidate, float] = {}
    made = [first, *(space.drawn(rng) for _ in range(population - 1))]
    history: list[dict[str, Any]] = []
    for number in range(rounds + 1):
        for candidate in made:
            if candidate not in losses:
                value = loss(candidate)
                losses[candidate] = round(value, DIGITS) if np.isfinite(value) else float(np.finfo(np.float32).max)
        best = sorted(losses, key=lambda candidate: (losses[candidate], space.cost(candidate)))[:kept]
        seen = [[space.cost(candidate), losses[candidate]] for candidate in dict.fromkeys(made)]
        round_ = {"round": number, "best_loss": losses[best[0]], "parameters": space.cost(best[0])}
        history.append({**round_, "tried": len(losses), "population": seen})
        made = [
            space.crossed(best[rng.integers(len(best))], best[rng.integers(len(best))], rng)
            if index % 2
            else space.mutated(best[rng.integers(len(best))], mutation, rng)
            for index in range(population)
        ]
    return min(losses, key=lambda candidate: (losses[candidate], space.cost(candidate))), history


def loss_of(held_back: HeldBack, modules: Sequence[GloraLinear], candidate: Candidate, rows: int) -> float:
    """Return the mean loss of a candidate on the first of the reserved rows, each counted once."""
    tokens = held_back.reserve.take(np.arange(min(rows, len(held_back.reserve))))
    with ExitStack() as stack:
        for module, path in zip(modules, candidate, strict=True):
            stack.enter_context(module.trying(path))
        predictions = predict(
            held_back.model, held_back.forward, tokens, held_back.task, batch_size=BATCH, autocast=held_back.autocast
        )
    return float(predictions.loss.mean())


FLOOR = 1e-6
"""AdamW's epsilon for a super-net. Some forms cannot change the function, such as a constant before a layer norm or a
shift of the keys; their gradient is rounding noise, which the usual 1e-8 would blow up to steps of the full rate."""


@dataclass
class Glora(Strategy):
    """W = W0 + W0 ⊙ A + s · B, b = b0 + b0 ⊙ D + E + W0 C, each support low-rank, a vector, a constant or none.

    Every training step draws one of 432 paths for each module and trains what it uses: a super-net whose forms are
    slices of shared tensors. After the last step an evolutionary search on reserved training examples finds one path
    per module that uses no more parameters than uniform LoRA. The result is folded into weight and bias. Until then
    evaluations take LoRA's path, which costs exactly the budget. With `search_after` below 1 the search comes earlier,
    and the chosen paths train on.

    Paper: Chavan et al. 2023, One-for-All: Generalized LoRA for Parameter-Efficient Fine-tuning, arXiv 2306.07967, with
    the authors' published code; PEFT's GLoRA on the same tensors gives the same output.
    Differs: candidates are ranked on examples kept from training; the published code ranks them on the test set. B
    carries LoRA's s and dropout, so that the path nlnnn is LoRA, and up factors are drawn as LoRA's A, not xavier.
    Where a module has no bias, C, D and E are none. The limit is uniform LoRA's parameters. The search is smaller (20
    candidates, 5 rounds, where the paper takes 50 and 20), half of a round crossed and half mutated. A candidate over
    the limit is made to fit instead of drawn again, and LoRA's path is among the first candidates. A super-net's AdamW
    has ε = 1e-6, not 1e-8, under which forms that cannot change the function would take steps of the full learning rate
    on rounding noise.
    """

    title = "GLoRA"
    summary = (
        "Scales and shifts the frozen weights and biases, each in one of four forms. Trains all forms at once and then "
        "searches the best one for every module. Inference costs nothing extra."
    )
    formula = r"W = W_0 + W_0 \odot A + s B, \quad b = b_0 + b_0 \odot D + E + W_0 C"
    paper = "Chavan et al. 2023, arXiv 2306.07967"
    fidelity = "code"
    cost = "2.5 + 1 / r times LoRA's numbers, twice without biases; three products of the weight's size where A is "
    cost += "low-rank (a quarter of the modules per step); after training about 120 evaluations of 256 examples"
    step_cost = "more"
    state_memory = "more"
    as_lora = {"path": LORA}
    own_signals = {
        f"path_{support}": OwnSignal(
            f"path of {support}",
            f"Which form the support {support} takes",
            choices=("none", "constant", "vector", "low-rank"),
        )
        for support in "ABCDE"
    }

    init: str = start_setting(("kaiming", "gaussian", "eva"))
    path: str | None = setting(
        None,
        "One path for every module, without a search: five letters for A, B, C, D, E; l low-rank, v vector, "
        "c constant, n none. Empty: sampled while training, then searched.",
    )
    search_after: float = setting(
        1.0, "Fraction of the steps after which the search runs; the chosen paths train on to the end.", gt=0, le=1
    )
    limit: float = setting(
        1.0, "Parameters that the chosen paths may use, as a fraction of uniform LoRA's.", gt=0, le=1
    )
    reserve: float = setting(0.05, "Fraction of the training examples reserved for the search.", gt=0, le=0.5)
    search_rows: int = setting(256, "Reserved examples that rank a candidate, at most.", unit="examples", ge=1)
    population: int = setting(20, "Candidates per round.", ge=2, le=1000)
    rounds: int = setting(5, "Rounds of crossing and mutation after the first population.", ge=0, le=1000)
    kept: int = setting(6, "Best candidates that the next are bred from.", ge=1, le=1000)
    mutation: float = setting(0.2, "Probability that a mutation redraws a module's path.", gt=0, le=1)

    def check(self, total: int, rank: int) -> None:
        """Refuse what is no path, and more parents than there are candidates."""
        path = self.path
        if path is not None and (len(path) != 5 or any(f not in forms for f, forms in zip(path, FORMS, strict=True))):
            raise ConfigError(
                f"strategy.path={path}: must be five letters, A and B of l, v, c, n; C of l, v, n; D and E of v, c, n; "
                f"{LORA} is LoRA"
            )
        if self.kept > self.population:
            raise ConfigError(
                f"strategy.kept={self.kept}: must not exceed strategy.population={self.population}; lower it"
            )

    def reserved_share(self) -> float:
        """Return the fraction of rows the search ranks candidates on; a fixed path needs none."""
        return self.reserve if self.path is None else 0.0

    def check_model(self, modules: Sequence[ModuleInfo], probe: Probe) -> None:
        """Refuse weights that cannot be scaled number by number, and a fixed path that no rank fits into the budget."""
        check_weights(probe.model, modules, "strategy.name=glora: scales the frozen weights number by number")
        least = 0 if self.path is None else self._cost(self.path, modules, probe.model, 1)
        if least > probe.budget:
            enough = math.ceil(least / sum(info.cost for info in modules))
            raise ConfigError(
                f"strategy.path={self.path}: takes {least:,} parameters at rank 1, adapter.rank={probe.rank} allows "
                f"{probe.budget:,}, those of uniform LoRA; raise adapter.rank to {enough}, or choose a path that takes "
                f"less, such as {LORA}"
            )

    def ranks(self, modules: Sequence[ModuleInfo], probe: Probe) -> list[int]:
        """Return uniform ranks, or the highest with which a fixed path stays within uniform LoRA's parameters."""
        if self.path is None:
            return super().ranks(modules, probe)
        fits = [r for r in range(1, probe.rank + 1) if self._cost(self.path, modules, probe.model, r) <= probe.budget]
        return [max(fits)] * len(modules)

    def start(self, adapters: Adapters) -> None:
        """Make sure that there are rows to search on.

        Raises:
            ConfigError: when paths are to be searched for and no rows are kept from training.
        """
        if self.path is None and (self.held_back is None or not len(self.held_back.reserve)):
            raise ConfigError(
                f"strategy.path=: the search for paths needs rows that are kept from training, and there are none; set "
                f"a path, such as {LORA}, or train with dynlora's own loop"
            )

    def adapter(self, module: ModuleInfo, base: nn.Module, rank: int, max_rank: int, probe: Probe) -> GloraLinear:
        """Return an adapter with all five supports."""
        adapter = GloraLinear(base, module, rank=rank, scaling=self.module_scaling(probe), path=self.path)
        adapter.reset_parameters(probe.seed, gaussian=1 / probe.rank if self.init == "gaussian" else None)
        return adapter

    def groups(self, adapters: Adapters) -> list[dict[str, Any]]:
        """Return the groups; a super-net's with a minimum of the second moments."""
        floor = {"eps": FLOOR} if self.path is None else {}
        return [{**group, **floor} for group in super().groups(adapters)]

    def events(self, total: int, rank: int) -> list[int]:
        """Return the step after which the search is made, where that is not the last."""
        step = max(1, round(self.search_after * total))
        return [step] if self.path is None and step < total else []

    def allocate(self, adapters: Adapters, step: Step) -> list[Edit]:
        """Settle on paths when that is due before the end."""
        return self.settled(adapters) if step.index in self.events(step.total, adapters.reference_rank) else []

    def finish(self, adapters: Adapters) -> list[Edit]:
        """Settle on paths, unless that was done."""
        return self.settled(adapters)

    def settled(self, adapters: Adapters) -> list[Edit]:
        """Search, where a super-net trains and there are rows to search on, and return the best paths found."""
        held_back = self.held_back
        modules = [module for module in adapters if isinstance(module, GloraLinear) and module.samples]
        if not modules or held_back is None or len(held_back.reserve) == 0:
            return []
        infos, ranks = [module.info for module in modules], [module.rank for module in modules]
        space = Space(infos, [module.paths for module in modules], ranks, int(self.limit * adapters.budget))
        rng = np.random.default_rng(stream_seed(adapters.seed, "path search"))
        device = adapters[0].lora_A.device

        def loss(candidate: Candidate) -> float:
            """Return a candidate's loss, the mean over the processes: they must all come to the same choice."""
            value = loss_of(held_back, modules, candidate, self.search_rows)
            return float(adapters.over_processes(torch.tensor(value, device=device)))

        best, history = evolve(
            space,
            loss,
            rng,
            first=space.fitted((LORA,) * len(modules), rng),
            population=self.population,
            rounds=self.rounds,
            kept=self.kept,
            mutation=self.mutation,
        )
        return [SettlePaths(best, tuple(history))]

    def _cost(self, path: str, modules: Sequence[ModuleInfo], model: nn.Module, rank: int) -> int:
        """Return the numbers that a path uses of all modules."""
        biased = [model.get_submodule(info.name).bias is not None for info in modules]
        return sum(path_cost(usable(path, has), info, rank) for has, info in zip(biased, modules, strict=True))

    def signals(self, adapters: Adapters) -> dict[str, Tensor]:
        """Record the form of each support in the path of this step: 0 none, 1 constant, 2 vector, 3 low-rank."""
        taken = [module.taken() for module in adapters if isinstance(module, GloraLinear)]
        forms = torch.tensor([[float(SIZE.index(form)) for form in path] for path in taken])
        return {f"path_{support}": forms[:, place] for place, support in enumerate("ABCDE")}
