"""What a run is: every setting with its unit, its range and its default; YAML in and out.

A config is checked when it is read: an unknown key names the nearest valid one, and a value out of range says the
rule. Importing this file loads neither torch nor streamlit.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from dynlora.assets.catalog import MODELS, EmbeddedModel
from dynlora.blocks import SOME_BLOCKS, SomeBlocks
from dynlora.data_files import repairs
from dynlora.data_files.opening import Encoding
from dynlora.discovery import declared
from dynlora.errors import ConfigError, checked, keys_of, nearest, section_in
from dynlora.renamed_settings import accept_old_names, with_written_defaults
from dynlora.text import printable

TASKS: Mapping[str, bool | None] = {
    "auto": None,
    "classification": True,
    "regression": False,
    "causal_lm": False,
    "planted": False,
}
"""Every task, and whether its labels are classes; None: the data says so."""

GENERATIVE = ("causal_lm",)
"""Tasks that learn to write texts; they need no labels."""

UNLABELLED = (*GENERATIVE, "planted")
"""Tasks that read no column of labels."""

OWN_DATA: Mapping[str, str] = {"planted": "planted"}
"""The built-in data set of each task that has one."""

NO_NUL = r"^[^\x00]*$"
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=NO_NUL)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Tracker = Literal["tensorboard", "trackio", "mlflow", "wandb", "aim"]


def _parts(value: Any) -> Any:
    """Take a text as a list of what its commas separate."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


Targets = Annotated[tuple[Column, ...] | None, BeforeValidator(_parts)]


class Section(BaseModel):
    """A group of settings: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Check plain values and return the settings.

        Raises:
            ConfigError: for the first thing wrong: one sentence with key, value, rule and remedy.
        """
        return checked(cls, values)

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Return settings given by name, as `parse` does."""
        return cls.parse(values)


BOUNDS = ("ge", "gt", "le", "lt")
"""Bounds of a number, as pydantic and the module `operator` name them."""


@dataclass(frozen=True)
class Setting:
    """What a field of settings declares, as plain values: all that forms, options, tables and quick checks need.

    Attributes:
        name: its key, dotted where it is in a section.
        type: int, float, str, bool, or tuple for several values; what takes several types is text.
        optional: may stay empty.
        default: its value when nothing is given; None for empty.
        help: what it means.
        unit: of the value, may be empty.
        choices: the values it can take, empty for any.
        ge: least value.
        gt: what it must exceed.
        le: greatest value.
        lt: what it must stay below.
    """

    name: str
    type: str
    optional: bool = False
    default: Any = None
    help: str = ""
    unit: str = ""
    choices: Sequence[str] = ()
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    @classmethod
    def of(cls, name: str, info: FieldInfo) -> Self:
        """Return what a field of pydantic declares."""
        hint: Any = info.annotation
        options = get_args(hint)
        if get_origin(hint) in (Union, UnionType):
            first, *others = (option for option in options if option is not NoneType)
            hint = str if others else get_args(first)[0] if get_origin(first) is Annotated else first
        item = get_args(hint)[0] if get_origin(hint) is tuple else hint
        extra = info.json_schema_extra
        return cls(
            name,
            "str" if get_origin(hint) is Literal else (get_origin(hint) or hint).__name__,
            NoneType in options,
            None if info.is_required() else info.get_default(),
            info.description or "",
            str(extra.get("unit", "")) if isinstance(extra, dict) else "",
            get_args(item) if get_origin(item) is Literal else (),
            **{bound: getattr(rule, bound) for rule in info.metadata for bound in BOUNDS if hasattr(rule, bound)},
        )

    @property
    def low(self) -> Any:
        """The lower bound, which may be one to exceed; None for none."""
        return self.gt if self.ge is None else self.ge

    @property
    def high(self) -> Any:
        """The upper bound, which may be one to stay below; None for none."""
        return self.lt if self.le is None else self.le

    def takes(self, value: Any) -> bool:
        """Say whether a plain value surely is one that it can take."""
        if value is None:
            return self.optional
        types = ("int", "float") if self.type == "float" else (self.type,)
        items = value if isinstance(value, tuple) else (value,)
        bounds = [(getattr(operator, name), getattr(self, name)) for name in BOUNDS]
        return (
            type(value).__name__ in types
            and (not self.choices or all(item in self.choices for item in items))
            and all(bound is None or keeps(value, bound) for keeps, bound in bounds)
        )


class ModelConfig(Section):
    """Which transformer is adapted."""

    name: Name = Field("minilm", description="Built-in name, local folder or hub id.")
    layers: SomeBlocks = Field(None, description=SOME_BLOCKS)
    dropout: float | None = Field(None, ge=0, lt=1, description="Dropout in the model, probability; empty: its own.")
    dtype: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="Precision in which the frozen weights are kept; bf16 halves their memory and computes in bf16. "
        "Adapters and head stay in fp32.",
    )
    quantization: Literal["nf4", "int8"] | None = Field(
        None,
        description="Quantise the frozen linear modules to 4 bits (nf4, as QLoRA) or 8 bits (int8) with bitsandbytes; "
        "the adapters stay in fp32. Empty: not quantised.",
    )


class DataConfig(Section):
    """Which labelled text is learned."""

    name: Name | None = Field(None, description="Built-in name or hub id, such as nyu-mll/glue:sst2.")
    path: Name | None = Field(
        None, description="CSV, TSV, JSON, JSONL, Parquet or Excel file, or a folder with train and held-out files."
    )
    task: Literal["auto", "classification", "regression", "causal_lm", "planted"] = Field(
        "auto",
        description="auto: causal_lm (language modelling) for conversations, completions or a text without label; else "
        "regression when the labels are fractional numbers, and classification. planted: learn a teacher whose ranks "
        "are known.",
    )
    metric: Literal[
        "auto",
        "accuracy",
        "f1",
        "matthews",
        "pearson",
        "spearman",
        "mse",
        "perplexity",
        "token_accuracy",
        "exact_match",
        "relative_error",
    ] = Field("auto", description="The metric that decides which checkpoint is best.")
    text: Column | None = Field(None, description="Column of the text; empty: text, sentence or sentence1.")
    text_pair: Column | None = Field(None, description="Column of the second text of a pair; empty: sentence2.")
    label: Column = Field("label", description="Column of the label.")
    prompt: Column | None = Field(None, description="Column of what comes before a completion; empty: prompt.")
    completion: Column | None = Field(None, description="Column of the text that is learned to follow the prompt.")
    messages: Column | None = Field(None, description="Column of conversations, lists of {role, content}.")
    answer: Column | None = Field(
        None, description="Column of what a generated text is checked against (exact match); empty: answer, if any."
    )
    loss_on: Literal["completion", "all", "assistant"] | None = Field(
        None,
        description="Tokens that a language model learns from: the completion, where there is one; all; or every turn "
        "of the assistant, which needs generation markers in the chat template. Empty: completion.",
    )
    group_by: Column | None = Field(
        None, description="Input groups: a column, or length, label, clusters, none; empty: the column domain, if any."
    )
    train_groups: tuple[Column, ...] | None = Field(
        None, description="Train only on these input groups; held-out examples of all groups stay. Empty: all groups."
    )
    eval_fraction: float = Field(
        0.1, gt=0, lt=1, description="Fraction of the examples held out when the data has no held-out part, 0 to 1."
    )
    max_train: int | None = Field(None, ge=1, description="Maximum number of training examples.")
    max_eval: int | None = Field(None, ge=1, description="Maximum number of held-out examples.")
    max_length: int = Field(
        128, ge=4, le=8192, description="Maximum length of a text in tokens; longer texts are truncated."
    )
    packing: bool = Field(
        False,
        description="Put several training texts of a language model into one sequence of max_length tokens; each still "
        "sees itself only. train.batch_size counts these sequences.",
    )
    encoding: Encoding | None = Field(
        None, description="Encoding of a CSV, TSV or JSON file, such as windows-1251; empty: found from its bytes."
    )
    planted_modules: Column = Field(
        "4",
        description="data.task=planted: modules that the teacher changes, a number drawn at random, or parts of their "
        "names such as query or layer.2.",
    )
    planted_rank: int = Field(8, ge=1, le=1024, description="data.task=planted: rank of each update of the teacher.")
    planted_strength: float = Field(
        0.3, gt=0, le=10, description="data.task=planted: norm of each update over that of its frozen weight."
    )
    planted_seed: int = Field(
        0, ge=0, le=2**31 - 1, description="data.task=planted: seed that the teacher is drawn by."
    )
    planted_group: Column | None = Field(
        None,
        description="data.task=planted: the only input group (data.group_by) whose texts the teacher's updates act on; "
        "empty: all texts.",
    )
    repair: tuple[repairs.Repair, ...] | None = Field(
        None,
        description="Repairs of the rows before training, such as drop_duplicates; `dynlora data check` names them.",
    )

    @field_validator("encoding", mode="before")
    @classmethod
    def _open_encoding(cls, value: Any) -> Any:
        """Take auto for an encoding that is found."""
        return None if value in ("", "auto") else value

    @field_validator("repair", mode="before")
    @classmethod
    def _known_repairs(cls, value: Any) -> Any:
        """Refuse what is no repair, in one sentence."""
        return repairs.checked(value)

    @model_validator(mode="before")
    @classmethod
    def _default_source(cls, values: Any) -> Any:
        """Fall back to the built-in data set when neither name nor path is given; one may be named as its task is."""
        if isinstance(values, Mapping) and values.get("name") is None and values.get("path") is None:
            values = {**values, "name": OWN_DATA.get(str(values.get("task")), "sentiment4")}
        if isinstance(values, Mapping) and values.get("task", "auto") == "auto":
            own = [task for task, name in OWN_DATA.items() if values.get("name") == name]
            return {**values, "task": own[0]} if own else values
        return values

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        """Refuse two sources at once."""
        if self.name and self.path:
            raise ValueError(
                f"data.path={self.path}: give data.name or data.path, not both; drop data.name={self.name}"
            )
        return self

    @model_validator(mode="after")
    def _one_text(self) -> DataConfig:
        """Refuse two columns for one text."""
        for new, old in (("prompt", "text"), ("completion", "text_pair")):
            if (value := getattr(self, new)) is not None and getattr(self, old) is not None:
                raise ValueError(f"data.{new}={value}: give data.{new} or data.{old}, not both")
        return self

    @field_validator("task", mode="wrap")
    @classmethod
    def _of_a_plug_in(cls, value: Any, of_dynlora: ValidatorFunctionWrapHandler) -> Any:
        """Accept the name of a task that an installed plug-in brings; it is looked up, and nothing of it is loaded."""
        return value if value not in TASKS and value in declared("tasks") else of_dynlora(value)

    @field_validator("metric", mode="wrap")
    @classmethod
    def _of_a_plug_in_task(cls, value: Any, of_dynlora: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """Accept any metric of a plug-in's task, which alone knows them and refuses others when the data is read."""
        return value if isinstance(value, str) and info.data.get("task", "auto") not in TASKS else of_dynlora(value)

    @property
    def has_classes(self) -> bool | None:
        """Whether the labels are classes; None where the labels say so, and of a plug-in's task."""
        return TASKS.get(self.task)

    @property
    def is_generative(self) -> bool | None:
        """Whether the texts are to be written, not labelled; None where the columns say so."""
        if self.task != "auto":
            return self.task in UNLABELLED
        return True if self.prompt or self.completion or self.messages else None

    @property
    def source(self) -> str:
        """The name or path the rows come from."""
        return self.path or self.name or ""


class AdapterConfig(Section):
    """How much capacity there is to spend, and where."""

    rank: int = Field(
        8, ge=1, le=1024, description="Rank of uniform LoRA; it sets the budget, in components per module."
    )
    alpha: float | None = Field(None, gt=0, le=1e9, description="Scaling is alpha / rank; empty: 2 × rank.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the adapter's input, probability.")
    targets: Targets = Field(
        None,
        description="What to adapt: attention, mlp or all (linear modules of the blocks), or endings of module names "
        "such as q_proj; empty: all.",
    )

    @property
    def lora_alpha(self) -> float:
        """Alpha, with its default of twice the rank."""
        return 2.0 * self.rank if self.alpha is None else self.alpha


class StrategyConfig(BaseModel):
    """The method and its own fields; these are checked by the method itself."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: Name = Field("dynamic", description="One of `dynlora strategies`.")

    @model_validator(mode="before")
    @classmethod
    def _current_names(cls, values: Any) -> Any:
        """Take settings and values under the names they had before."""
        return accept_old_names(values) if isinstance(values, Mapping) else values

    @property
    def fields(self) -> dict[str, Any]:
        """The method's own settings, unchecked."""
        return dict(self.__pydantic_extra__ or {})


PROBE_ROWS = 256
"""Most held-out examples of the probe set, which every evaluation takes."""

ALL_ROWS = 100_000_000
"""As `log.eval_rows`: more than any data has, so that every evaluation takes all held-out examples."""


class TrainConfig(Section):
    """The optimisation."""

    steps: int | None = Field(None, ge=1, le=10_000_000, description="Optimizer steps; empty: 400, or from epochs.")
    epochs: float | None = Field(
        None, gt=0, le=10_000, description="Passes over the training examples, instead of steps."
    )
    batch_size: int = Field(32, ge=1, le=65_536, description="Examples per forward pass, over all processes.")
    lr: float = Field(2.5e-3, gt=0, le=10, description="Peak learning rate of the adapters.")
    head_lr: Annotated[float, Field(gt=0, le=10)] | Literal["auto"] | None = Field(
        "auto",
        description="Peak learning rate of the output layer of a classifier's head; auto: the one measured for a "
        "built-in model, 0.04 for minilm, and 0.01 for others; empty: lr.",
    )
    warmup: float = Field(
        0.06, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises, 0 to 1."
    )
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="Learning rate after warm-up.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float | None = Field(None, gt=0, description="Largest norm of the gradient; empty: no clipping.")
    grad_accum: int = Field(1, ge=1, le=4096, description="Forward passes per optimizer step.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where the hardware multiplies bf16 faster, else fp32."
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Compute each block again in the backward pass instead of keeping what it computed: less memory, "
        "one more forward pass.",
    )

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        """Refuse two lengths at once."""
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"train.epochs={self.epochs}: give train.steps or train.epochs, not both")
        return self

    def max_steps(self, n_train: int) -> int:
        """Optimizer steps of the run on `n_train` training examples."""
        if self.epochs is None:
            return 400 if self.steps is None else self.steps
        return max(1, math.ceil(self.epochs * n_train / (self.batch_size * self.grad_accum)))


class LogConfig(Section):
    """How often things are looked at, in optimizer steps, and how many held-out examples each time."""

    every: int = Field(10, ge=1, description="Steps between records of gradient and update norms.")
    eval_every: int | None = Field(None, ge=1, description="Steps between evaluations; empty: a quarter of the run.")
    eval_rows: int = Field(
        256,
        ge=PROBE_ROWS,
        le=ALL_ROWS,
        description="Held-out examples of each evaluation before the last: a fixed "
        "sample, the probe set first, or all where there are no more; the last evaluation takes all.",
    )
    checkpoint_every: int | None = Field(None, ge=1, description="Steps between checkpoints; empty: a tenth of all.")
    generate_rows: int = Field(
        32,
        ge=0,
        le=10_000,
        description="Held-out prompts that a language model continues at the last evaluation; 0: none at any.",
    )
    generate_interim: int = Field(
        4,
        ge=0,
        le=10_000,
        description="Of these prompts, how many evaluations before the last continue: none where "
        "that would take more than a fifth of the run, all where data.metric is exact_match.",
    )
    generate_max: int = Field(128, ge=1, le=8192, description="Most tokens that are generated after a prompt.")
    retention: int = Field(
        0,
        ge=0,
        le=1_000,
        description="Measure what was forgotten at every n-th evaluation and at the last: the adapter against the base "
        "model on the public text of the package. 1: at each; 0: never. Training does not change.",
    )
    to: tuple[Tracker, ...] | None = Field(None, description="Trackers to write to while training; empty: none.")
    _one_text = field_validator("to", mode="before")(_parts)


class RunConfig(Section):
    """Everything a run depends on."""

    name: Name | None = Field(None, description="Display name; any text.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of all random numbers.")
    model: ModelConfig = ModelConfig()  # pyright: ignore[reportCallIssue]
    data: DataConfig = Field(default_factory=lambda: DataConfig(name="sentiment4"))  # pyright: ignore[reportCallIssue]
    adapter: AdapterConfig = AdapterConfig()  # pyright: ignore[reportCallIssue]
    strategy: StrategyConfig = StrategyConfig()  # pyright: ignore[reportCallIssue]
    train: TrainConfig = TrainConfig()  # pyright: ignore[reportCallIssue]
    log: LogConfig = LogConfig()  # pyright: ignore[reportCallIssue]

    @model_validator(mode="after")
    def _one_precision(self) -> RunConfig:
        """Refuse to compute in fp32 with weights that are kept in bf16."""
        if self.model.dtype == "bf16" and self.train.precision == "fp32":
            remedy = "drop train.precision, or set model.dtype=fp32"
            raise ValueError(f"train.precision=fp32: weights kept in bf16 compute in bf16; {remedy}")
        return self

    @property
    def head_lr(self) -> float | None:
        """Peak learning rate of the head's output layer, that of the model where it is automatic; None: `train.lr`."""
        if self.train.head_lr != "auto":
            return self.train.head_lr
        return MODELS[self.model.name].head_lr if self.model.name in MODELS else EmbeddedModel.head_lr

    def stored(self) -> dict[str, Any]:
        """Return the config as plain values for a run's folder: defaults that changed between versions are in them."""
        values = self.model_dump(mode="json")
        train = {**values["train"], "head_lr": self.head_lr}
        return {**values, "strategy": with_written_defaults(values["strategy"]), "train": train}

    def to_yaml(self) -> str:
        """Return the config as YAML for a run's folder; `load_config` reads one that means the same."""
        return yaml.safe_dump(self.stored(), sort_keys=False, allow_unicode=True)

    @property
    def title(self) -> str:
        """The display name, or a description when none was given."""
        return self.name or f"{self.strategy.name} on {Path(self.data.source).name}, seed {self.seed}"


def parse_config(values: Mapping[str, Any]) -> RunConfig:
    """Check plain values and return the config; a section without a value is as its defaults.

    Raises:
        ConfigError: for the first thing wrong: one sentence with key, value, rule and remedy.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"config={printable(repr(values), 60)}: must be settings by name, such as {{'seed': 0}}")
    given = {key: value for key, value in values.items() if value is not None or section_of(str(key)) is None}
    return checked(RunConfig, given)


def section_of(name: str) -> type[BaseModel] | None:
    """Return the section of that name, or None when the name is that of a plain value or of nothing."""
    return section_in(RunConfig, name)


def config_keys() -> list[str]:
    """Every dotted key a config may hold, the strategies' own fields excepted."""
    return keys_of(RunConfig)


def nearest_key(key: str, keys: Iterable[str] | None = None) -> str:
    """Return "did you mean ...?" with the nearest valid key, or the list of keys when none is near."""
    return nearest(key, config_keys() if keys is None else keys)
