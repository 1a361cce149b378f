"""Planted ranks: the model learns a teacher that differs from it in known modules, by updates of known rank."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForCausalLM

from dynlora.data_files.columns import Columns
from dynlora.errors import ConfigError, CorruptRunError, DataError
from dynlora.tasks.base import UnlabelledTask
from dynlora.tasks.token_rows import EncodedRows, TextRows

RELATIVE_ERROR = "relative_error"


class Truth(BaseModel):
    """The updates of a teacher, by the seed that they are drawn from.

    Attributes:
        seed: of the draw.
        rank: R of each update.
        sizes: singular value of each update, by module name; all R of one update are equal.
        distance: mean distance between teacher and base model over texts: squared, of hidden states, or in nats.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int
    rank: int = Field(ge=1, le=1024)
    sizes: dict[str, float]
    distance: float = Field(default=1.0, gt=0)

    def factors(self, name: str, module: nn.Module) -> tuple[Tensor, Tensor]:
        """Return ΔW = U Vᵀ of a module as U, (d_out, R), and Vᵀ, (R, d_in): random orthonormal directions."""
        left, right = _directions(f"planted:{self.seed}:{name}", self.rank, *_shape(module))
        return left * self.sizes[name], right.T


@functools.lru_cache(maxsize=512)  # a forward pass asks for them again
def _directions(key: str, rank: int, d_out: int, d_in: int) -> tuple[Tensor, Tensor]:
    """Return orthonormal columns by key, (d_out, R) and (d_in, R); R is at most either dimension."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "little")
    generator = torch.Generator().manual_seed(seed)
    rank = min(rank, d_in, d_out)
    left, right = (torch.linalg.qr(torch.randn(d, rank, generator=generator))[0] for d in (d_out, d_in))
    return left, right


@dataclass(frozen=True)
class Answers:
    """What teacher, student and base model say of a batch.

    Attributes:
        student, teacher, base: last hidden states, (batch, seq, d), or logits, (batch, seq, vocabulary).
        mask: 1 for tokens, 0 for padding, (batch, seq).
        is_distribution: they are logits of the next token.
    """

    student: Tensor
    teacher: Tensor
    base: Tensor | None
    mask: Tensor
    is_distribution: bool

    def distance(self, answer: Tensor) -> Tensor:
        """Return the mean distance of an answer to the teacher's over the tokens of each example, (batch,).

        It is ‖h - h_teacher‖² of hidden states, and KL(teacher ‖ student) in nats of next-token distributions.
        """
        if self.is_distribution:
            teacher = self.teacher.float().log_softmax(-1)
            by_token = F.kl_div(answer.float().log_softmax(-1), teacher, reduction="none", log_target=True).sum(-1)
        else:
            by_token = (answer.float() - self.teacher.float()).square().sum(-1)
        return (by_token * self.mask).sum(1) / self.mask.sum(1).clamp_min(1)


class _EncoderOrDecoder:
    """Loads the bare encoder, or the language model where the checkpoint is one."""

    @staticmethod
    def _kind(config: Any) -> Any:
        names = getattr(config, "architectures", None) or ()
        return AutoModelForCausalLM if any(name.endswith("ForCausalLM") for name in names) else AutoModel

    @classmethod
    def from_pretrained(cls, folder: Any, *, config: Any, **options: Any) -> Any:
        """Return what transformers loads from a local folder; no code of it is run, whatever the options say."""
        fixed = ("local_files_only", "trust_remote_code")
        rest = {name: value for name, value in options.items() if name not in fixed}
        kind = cls._kind(config)
        return kind.from_pretrained(folder, config=config, local_files_only=True, trust_remote_code=False, **rest)

    @classmethod
    def from_config(cls, config: Any) -> Any:
        """Return a model with random weights."""
        return cls._kind(config).from_config(config)


@dataclass(frozen=True)
class Planted(UnlabelledTask):
    """Learn h of a teacher, W_teacher = W0 + U Vᵀ in a few modules and W0 in all others.

    The loss is the distance to the teacher over the base model's mean distance to it, so that it starts near one. The
    relative error of a set of texts is Σ distance(student) / Σ distance(base). With a group, the updates act on its
    texts only, h = W0 x + 1[group] U Vᵀ x, and on all other texts the teacher is the base model.

    Attributes:
        modules, rank, strength, seed, group: what is planted; see section `data` of the configuration.
        truth: what was planted; None before `prepared`.
    """

    modules: str = "4"
    rank: int = 8
    strength: float = 0.3
    seed: int = 0
    group: str | None = None
    truth: Truth | None = field(default=None)

    name: ClassVar[str] = "planted"
    order: ClassVar[int] = 95
    peft_task_type: ClassVar[str] = "FEATURE_EXTRACTION"
    metrics: ClassVar[Mapping[str, bool]] = {RELATIVE_ERROR: False}
    loss_unit: ClassVar[str] = "relative to the base model"
    prediction_unit: ClassVar[str] = "distance"
    output_unit: ClassVar[str] = "distance"
    disagreement_unit: ClassVar[str] = "distance"

    # --- data

    @classmethod
    def of_columns(cls, section: Any, columns: Columns) -> Self:
        """Return the task that section `data` describes; of a row only the text is read."""
        of = section
        return cls((), of.planted_modules, of.planted_rank, of.planted_strength, of.planted_seed, of.planted_group)

    def settings(self) -> dict[str, str]:
        """Return what was planted: the teacher is drawn again from it."""
        group = {} if self.group is None else {"group": self.group}
        return {} if self.truth is None else {"truth": self.truth.model_dump_json(), **group}

    def __post_init__(self) -> None:
        """Take the truth of a checkpoint, which is text.

        Raises:
            CorruptRunError: when it is none.
        """
        if self.truth is not None and not isinstance(self.truth, Truth):
            try:
                object.__setattr__(self, "truth", Truth.model_validate_json(self.truth))
            except ValidationError:
                raise CorruptRunError("the saved state is damaged: what was planted cannot be read") from None

    def encode_rows(self, tokenizer: Any, rows: TextRows, max_length: int) -> EncodedRows:
        """Return texts as the tokenizer has them."""
        limit = min(max_length, tokenizer.model_max_length)
        encoded = tokenizer(rows.text, truncation=True, max_length=limit)
        names = [name for name in tokenizer.model_input_names if name in encoded]
        return EncodedRows([{name: encoded[name][index] for name in names} for index in range(len(rows.text))])

    def whole_lengths(self, tokenizer: Any, rows: TextRows) -> list[int]:
        """Return the tokens of each text."""
        return [len(ids) for ids in tokenizer(rows.text, verbose=False)["input_ids"]]

    def labels_by_group(self, groups: Sequence[str] | None, labels: np.ndarray) -> np.ndarray:
        """Return 1 for each row that the updates act on and 0 for the others, (n,), int64; 0 where they act on all.

        Raises:
            DataError: when no row is in the group that they act on.
        """
        if self.group is None:
            return labels
        if self.group not in (groups or ()):
            known = ", ".join(sorted(set(groups or ()))[:20])
            remedy = f"groups are {known}" if known else "set data.group_by to a column or length"
            raise DataError(f"data.planted_group={self.group}: no example is in this input group; {remedy}")
        return (np.array(groups) == self.group).astype(np.int64)

    def group_of(self, label: Any) -> str:
        """Return nothing: there are no labels.

        Raises:
            DataError: always.
        """
        raise DataError("data.group_by=label: planted ranks have no labels; group by a column or length")

    def usual_metric(self, data_name: str) -> str:
        """Return the relative error."""
        return RELATIVE_ERROR

    # --- model

    @classmethod
    def made(cls, model: Any) -> bool:
        """Take no model: a teacher is only known from settings."""
        return False

    def model_class(self) -> Any:
        """Return what loads the bare encoder, or the language model."""
        return _EncoderOrDecoder

    def configure(self, config: Any) -> None:
        """Turn the model's own dropout off: the teacher has none, and noise in the student would be its error."""
        for key, value in vars(config).items():
            if isinstance(value, float) and "dropout" in key:
                setattr(config, key, 0.0)

    def loader(self, model: Any) -> str:
        """Return the name of the class that loads the model, by whether it has logits of the next token."""
        return (AutoModel if model.get_output_embeddings() is None else AutoModelForCausalLM).__name__

    def prepared(
        self, model: nn.Module, modules: Callable[[], Sequence[str]], batches: Callable[[int], list[Any]]
    ) -> Self:
        """Return the task with its updates drawn, each as strong as the others in what it changes at the output.

        ‖ΔW‖ = strength · ‖W‖ first. Then each is scaled so that alone it moves the output by the same distance, the
        geometric mean of theirs: no module is needed more than another.

        Args:
            model: the base model, without adapters.
            modules: gives the names of those that may be planted in.
            batches: gives n batches of training texts.

        Raises:
            ConfigError: when `data.planted_modules` names none of them.
        """
        looks = batches(2)

        def truth_of(sizes: dict[str, float]) -> Truth:
            """Return these updates and what they change."""
            truth = Truth(seed=self.seed, rank=self.rank, sizes=sizes)
            return truth.model_copy(update={"distance": _distance(model, truth, looks)})

        frozen = {name: model.get_submodule(name) for name in self._chosen(model, modules())}
        raw = {
            name: self.strength * _norm(module) / min(self.rank, *_shape(module)) ** 0.5
            for name, module in frozen.items()
        }
        moved = {name: truth_of({name: size}).distance for name, size in raw.items()}
        mean = math.exp(sum(math.log(max(value, 1e-30)) for value in moved.values()) / len(moved))
        sizes = {name: size * (mean / max(moved[name], 1e-30)) ** 0.5 for name, size in raw.items()}
        return replace(self, truth=truth_of(sizes))

    def _chosen(self, model: nn.Module, modules: Sequence[str]) -> list[str]:
        """Return the modules to plant in, in the model's order."""
        if not self.modules.isdecimal():
            parts = [part.strip() for part in self.modules.split(",") if part.strip()]
            chosen = [name for name in modules if any(f".{part}." in f".{name}." for part in parts)]
            if not chosen:
                raise ConfigError(
                    f"data.planted_modules={self.modules}: names no module of the model; give a number, or parts of "
                    f"names such as {modules[0]}"
                )
            return chosen
        count = int(self.modules)
        if not 1 <= count <= len(modules):
            raise ConfigError(
                f"data.planted_modules={count}: the model has {len(modules)} modules; give 1 to that many"
            )
        costs = {name: sum(_shape(model.get_submodule(name))) for name in modules}
        budget = -(-count * self.rank // len(modules)) * sum(costs.values())
        rng = np.random.default_rng((self.seed, 20_250_114))
        while True:  # the mean draw costs no more than the budget, so some draw fits
            drawn = {str(name) for name in rng.permutation(list(modules))[:count]}
            if sum(costs[name] * self.rank for name in drawn) <= budget:
                return [name for name in modules if name in drawn]

    def facts(self) -> dict[str, Any]:
        """Return what pages need to know, what was planted among it."""
        return {**super().facts(), "planted": None if self.truth is None else self.truth.model_dump()}

    # --- loss and predictions

    def forward(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Answers:
        """Return what student and teacher say, and the base model where no gradient is asked for.

        Raises:
            DataError: when the teacher is not known.
        """
        if self.truth is None:
            raise DataError("data.task=planted: the teacher is not known; train the run again")
        is_judged, base = not torch.is_grad_enabled(), None
        with torch.no_grad():
            with teaching(model, self.truth):
                teacher, is_distribution = _answer(model(**inputs))
            if is_judged or self.group is not None:  # a step of training needs it where the updates act on one group
                with teaching(model, None):
                    base = _answer(model(**inputs))[0]
        student = _answer(model(**inputs))[0]
        return Answers(student, teacher, base, inputs["attention_mask"].to(student.device), is_distribution)

    def example_loss(self, output: Answers, labels: Tensor) -> Tensor:
        """Return each example's distance to the teacher over the mean one of the base model, (batch,)."""
        return self._targeted(output, labels).distance(output.student) / self._distance()

    def _targeted(self, output: Answers, labels: Tensor) -> Answers:
        """Return the answers with the base model as the teacher of the rows that the updates do not act on."""
        if self.group is None or output.base is None:
            return output
        acts = labels.to(output.teacher.device).bool().view(-1, 1, 1)
        return replace(output, teacher=torch.where(acts, output.teacher, output.base))

    def _distance(self) -> float:
        return 1.0 if self.truth is None else self.truth.distance

    def batch_loss(self, output: Answers, labels: Tensor) -> Tensor:
        """Return the mean loss over examples, ()."""
        return self.example_loss(output, labels).mean()

    def judged(self, output: Answers, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each example, and the distances (student, base) to the teacher, (batch, 2)."""
        output = self._targeted(output, labels)
        student = output.distance(output.student)
        base = student if output.base is None else output.distance(output.base)
        return student / self._distance(), torch.stack([student, base], 1)

    def readings(self, output: Answers, labels: Tensor) -> Tensor:
        """Return the loss of each example, (batch, 1)."""
        return self.example_loss(output, labels).unsqueeze(1)

    def prediction(self, output: np.ndarray) -> np.ndarray:
        """Return each example's distance to the teacher, (n,)."""
        return output[:, 0]

    def evaluate(self, label: np.ndarray, prediction: np.ndarray, output: np.ndarray) -> dict[str, float]:
        """Return the error relative to the base model: 1 without training, 0 for the teacher, NaN where none acts."""
        base = float(output[:, 1].sum())
        return {RELATIVE_ERROR: float(output[:, 0].sum()) / base if base else math.nan}

    def confidence(self, output: np.ndarray) -> np.ndarray:
        """Return how near each example is to the teacher, (n,)."""
        return -output[:, 0]

    def describe(self, value: Any) -> str | float:
        """Return the distance."""
        return float(value)

    def margins(self, output: np.ndarray, prediction: Any) -> np.ndarray:
        """Return how near every row is to the teacher, (n,)."""
        return -output[:, 0].astype(float)


def _answer(output: Any) -> tuple[Tensor, bool]:
    """Return the logits of the next token, else the last hidden states; and which of them it is."""
    logits = getattr(output, "logits", None)
    return (output.last_hidden_state, False) if logits is None else (logits, True)


def _shape(module: Any) -> tuple[int, int]:
    """Return (d_out, d_in) of a linear module; the weight of GPT-2's Conv1D is transposed."""
    if hasattr(module, "out_features"):
        return int(module.out_features), int(module.in_features)
    d_in, d_out = module.weight.shape
    return int(d_out), int(d_in)


@torch.no_grad()
def _norm(module: Any) -> float:
    """Return the Frobenius norm of a frozen weight; of a quantised one, of what it computes with."""
    weight = module.weight
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    unit = torch.eye(_shape(module)[1], device=weight.device, dtype=dtype)
    return float((module(unit) - module(torch.zeros_like(unit[:1]))).float().norm())


@torch.no_grad()
def _distance(model: nn.Module, truth: Truth, batches: Iterable[Mapping[str, Tensor]]) -> float:
    """Return the mean distance between a teacher and the base model over batches."""
    was_training = model.training
    model.eval()
    values = []
    for batch in batches:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        with teaching(model, truth):
            teacher, is_distribution = _answer(model(**inputs))
        base = _answer(model(**inputs))[0]
        values.append(Answers(base, teacher, None, inputs["attention_mask"], is_distribution).distance(base).mean())
    model.train(was_training)
    return float(torch.stack(values).mean())


@contextmanager
def teaching(model: nn.Module, truth: Truth | None) -> Generator[None]:
    """Let a model be the teacher inside the block, or the base model where there is no truth: adapters are off.

    A module's frozen map is its own, or that of the adapter which wraps it, in `base_layer`.
    """
    plain: Any = getattr(model, "module", model)
    modules = list(plain.modules())
    adapters = [(m, m.enabled) for m in modules if hasattr(m, "base_layer") and hasattr(m, "enabled")]
    training, handles = [(module, module.training) for module in modules], []
    try:
        plain.eval()  # no dropout in what is learned
        for module, _ in adapters:
            module.enabled = False
        if truth is not None:
            owners = {name: plain.get_submodule(name) for name in truth.sizes}
            frozen = {name: getattr(owner, "base_layer", owner) for name, owner in owners.items()}
            handles = [m.register_forward_hook(_adding(*truth.factors(name, m))) for name, m in frozen.items()]
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, is_enabled in adapters:
            module.enabled = is_enabled
        for module, is_training in training:
            module.training = is_training


def _adding(left: Tensor, right: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a forward hook that adds U Vᵀ x."""

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        return output + F.linear(F.linear(x, right.to(x)), left.to(x))

    return add
