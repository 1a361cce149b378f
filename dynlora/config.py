"""What a run is: every setting with its unit, its range and its default; YAML in and out.

A config is checked when it is read: an unknown key names the nearest valid one, and a value out of range says the
rule. Importing this file pulls in neither torch nor streamlit.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from dynlora.errors import ConfigError

NO_NUL = r"^[^\x00]*$"
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=NO_NUL)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Section(BaseModel):
    """A group of settings: frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)


class ModelConfig(Section):
    """Which transformer is adapted."""

    name: Name = Field("minilm", description="Embedded name, local folder or hub id.")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="Dropout inside the frozen model, probability; empty keeps the model's own."
    )


class DataConfig(Section):
    """Which labelled text is learned."""

    name: Name | None = Field(None, description="Embedded name or hub id such as nyu-mll/glue:sst2.")
    path: Name | None = Field(
        None, description="CSV, JSONL or Parquet file, or a folder with train and held-out files."
    )
    task: Literal["auto", "classification", "regression"] = Field(
        "auto", description="auto: regression when the labels are fractional numbers."
    )
    metric: Literal["auto", "accuracy", "f1", "matthews", "pearson", "spearman", "mse"] = Field(
        "auto", description="The number that decides which checkpoint is best."
    )
    text: Column | None = Field(None, description="Column of the text; empty picks text, sentence or sentence1.")
    text_pair: Column | None = Field(None, description="Column of the second text of a pair; empty picks sentence2.")
    label: Column = Field("label", description="Column of the label.")
    group_by: Column | None = Field(
        None, description="Input groups: a column, or length, label, clusters, none; empty picks domain if there."
    )
    train_groups: tuple[Column, ...] | None = Field(
        None, description="Train on rows of these input groups alone; held-out rows of all groups stay. Empty: on all."
    )
    eval_fraction: float = Field(
        0.1, gt=0, lt=1, description="Share of the rows held out when the data names no held-out part, 0 to 1."
    )
    max_train: int | None = Field(None, ge=1, description="Use at most so many training rows.")
    max_eval: int | None = Field(None, ge=1, description="Use at most so many held-out rows.")
    max_length: int = Field(128, ge=4, le=8192, description="Texts are cut after so many tokens.")

    @model_validator(mode="before")
    @classmethod
    def _default_source(cls, values: Any) -> Any:
        """Fall back to the embedded data set when neither name nor path is given."""
        if isinstance(values, Mapping) and values.get("name") is None and values.get("path") is None:
            return {**values, "name": "sentiment4"}
        return values

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        """Refuse two sources at once."""
        if self.name and self.path:
            raise ValueError(
                f"data.path={self.path}: give data.name or data.path, not both; drop data.name={self.name}"
            )
        return self

    @property
    def source(self) -> str:
        """The name or path the rows come from."""
        return self.path or self.name or ""


class AdapterConfig(Section):
    """How much capacity there is to spend, and where."""

    rank: int = Field(8, ge=1, le=1024, description="Rank of uniform LoRA; it sets the budget, in components a module.")
    alpha: float | None = Field(None, gt=0, description="Scaling is alpha / rank; empty is 2 × rank.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the adapter's input, probability.")
    targets: tuple[Column, ...] | None = Field(
        None, description="Endings of module names to adapt; empty is every linear module of the blocks."
    )

    @property
    def lora_alpha(self) -> float:
        """Alpha, with its default of twice the rank."""
        return 2.0 * self.rank if self.alpha is None else self.alpha


class StrategyConfig(BaseModel):
    """The method and its own fields; these are checked by the method itself."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: Name = Field("dynamic", description="One of `dynlora strategies`.")

    @property
    def fields(self) -> dict[str, Any]:
        """The method's own settings, unchecked."""
        return dict(self.__pydantic_extra__ or {})


class TrainConfig(Section):
    """The optimisation."""

    steps: int | None = Field(None, ge=1, le=10_000_000, description="Optimizer steps; empty: 400, or from epochs.")
    epochs: float | None = Field(None, gt=0, le=10_000, description="Passes over the training rows, instead of steps.")
    batch_size: int = Field(32, ge=1, le=65_536, description="Examples a forward pass, over all processes.")
    lr: float = Field(1e-3, gt=0, le=10, description="Peak learning rate of the adapters.")
    head_lr: float | None = Field(None, gt=0, le=10, description="Peak learning rate of the head; empty is lr.")
    warmup: float = Field(0.06, ge=0, lt=1, description="Share of the steps in which the rate rises, 0 to 1.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="How the rate falls after warm-up.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float | None = Field(None, gt=0, description="Clip the gradient's norm; empty does not clip.")
    grad_accum: int = Field(1, ge=1, le=4096, description="Forward passes an optimizer step.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where the hardware has it."
    )

    @model_validator(mode="after")
    def _one_length(self) -> TrainConfig:
        """Refuse two lengths at once."""
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"train.epochs={self.epochs}: give train.steps or train.epochs, not both")
        return self

    def max_steps(self, n_train: int) -> int:
        """Optimizer steps of the run on `n_train` training rows."""
        if self.epochs is None:
            return 400 if self.steps is None else self.steps
        return max(1, math.ceil(self.epochs * n_train / (self.batch_size * self.grad_accum)))


class LogConfig(Section):
    """How often things are looked at, in optimizer steps."""

    every: int = Field(10, ge=1, description="Steps between gradient and delta norms.")
    eval_every: int | None = Field(None, ge=1, description="Steps between evaluations; empty is a quarter of the run.")
    checkpoint_every: int | None = Field(
        None, ge=1, description="Steps between checkpoints; empty is a tenth of the run."
    )


class RunConfig(Section):
    """Everything a run depends on."""

    name: Name | None = Field(None, description="Display name; any text.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every random draw.")
    model: ModelConfig = ModelConfig()  # pyright: ignore[reportCallIssue]
    data: DataConfig = Field(default_factory=lambda: DataConfig(name="sentiment4"))  # pyright: ignore[reportCallIssue]
    adapter: AdapterConfig = AdapterConfig()  # pyright: ignore[reportCallIssue]
    strategy: StrategyConfig = StrategyConfig()  # pyright: ignore[reportCallIssue]
    train: TrainConfig = TrainConfig()  # pyright: ignore[reportCallIssue]
    log: LogConfig = LogConfig()  # pyright: ignore[reportCallIssue]

    def to_yaml(self) -> str:
        """Return the config as YAML that `load_config` reads back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @property
    def title(self) -> str:
        """The display name, or a description when none was given."""
        return self.name or f"{self.strategy.name} on {Path(self.data.source).name}, seed {self.seed}"


def parse_config(values: Mapping[str, Any]) -> RunConfig:
    """Check plain values and return the config; a section without a value is as its defaults.

    Raises:
        ConfigError: for the first thing wrong: one sentence with key, value, rule and remedy.
    """
    given = {key: value for key, value in values.items() if value is not None or section_of(str(key)) is None}
    for section, keys in given.items():
        for key, value in keys.items() if isinstance(keys, Mapping) and section != "strategy" else ((None, keys),):
            if isinstance(value, bool):  # pydantic would read it as 1 or 0
                name = f"{section}.{key}" if key else str(section)
                raise ConfigError(f"{name}={value}: must not be true or false; {_meaning(name)}")
    try:
        return RunConfig.model_validate(given)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None


def section_of(name: str) -> type[BaseModel] | None:
    """Return the section of that name, or None when the name is that of a plain value or of nothing."""
    field = RunConfig.model_fields.get(name)
    kind = None if field is None else field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def config_keys() -> list[str]:
    """Every dotted key a config may hold, the strategies' own fields excepted."""
    keys = []
    for name in RunConfig.model_fields:
        section = section_of(name)
        keys += [name] if section is None else [f"{name}.{key}" for key in section.model_fields]
    return keys


def nearest_key(key: str, keys: Iterable[str] | None = None) -> str:
    """Return "did you mean ...?" with the nearest valid key, or the list of keys when none is near."""
    options = list(config_keys() if keys is None else keys)
    near = difflib.get_close_matches(key, options, n=1, cutoff=0.6)
    if keys is None and "." not in key:
        near = difflib.get_close_matches(key, list(RunConfig.model_fields), n=1, cutoff=0.6) or near
    if near:
        return f"did you mean {near[0]}?"
    return "valid keys: " + ", ".join(options)


def explain(error: ValidationError) -> str:
    """Turn the first pydantic error into one sentence: key, value, rule, remedy."""
    first = error.errors(include_url=False)[0]
    kind, value = first["type"], first.get("input")
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    shown = f"{key}: " if isinstance(value, Mapping) else f"{key}={_short(value)}: "
    if kind == "extra_forbidden":
        return f"{shown}unknown key; {nearest_key(key)}"
    if kind == "invalid_key":
        return f"{key}: keys are text; {nearest_key(key)}"
    if kind == "value_error":
        return str(first.get("ctx", {}).get("error", first["msg"]))
    if (section := section_of(key)) is not None:
        return f"{shown}{key} is a section; set its keys, such as {key}.{next(iter(section.model_fields))}"
    if isinstance(value, Mapping):
        return f"{key}: a value is wanted, not a section; {_meaning(key)}"
    return f"{shown}must be {_rule(kind, first.get('ctx', {}), first['msg'])}; {_meaning(key)}"


RULES = {
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text without a NUL character",
    "tuple_type": "a list, such as [query, value]",
    "literal_error": "{expected}",
}
"""What each kind of pydantic's errors asks for, in words."""


def _rule(kind: str, context: Mapping[str, Any], message: str) -> str:
    """Return what a value must be."""
    if kind not in RULES:
        return message
    words = {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in context.items()}
    return RULES[kind].format(**words).replace("'", "")


def _meaning(key: str) -> str:
    """Return what a key means and its default, for the end of an error sentence."""
    name, *rest = key.split(".")
    section = section_of(name)
    field = RunConfig.model_fields.get(name) if section is None else section.model_fields.get(rest[0] if rest else "")
    if field is None:
        return nearest_key(key)
    default = "empty" if field.default is None else field.default
    return f"{(field.description or 'see the README').rstrip('.')} (default {default})"


def _short(value: Any) -> str:
    """Return a value for a message, cut after 80 characters."""
    text = "empty" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
