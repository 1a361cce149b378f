"""Configs: read, written, overridden; every broken rule is one sentence with key, value, rule and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dynlora.config import DataConfig, config_keys, nearest_key, parse_config
from dynlora.config_files import MAX_CONFIG_BYTES, load_config, parse_value, set_key, split_override, value_text
from dynlora.data_files.repairs import plain
from dynlora.errors import ConfigError

CONTRACT = """
    name seed model.name data.name data.path data.task data.metric data.text data.text_pair data.label data.group_by
    data.eval_fraction data.max_train data.max_eval data.max_length adapter.rank adapter.alpha adapter.dropout
    adapter.targets strategy.name train.steps train.epochs train.batch_size train.lr train.head_lr train.warmup
    train.schedule train.weight_decay train.max_grad_norm train.grad_accum train.precision log.every log.eval_every
    log.checkpoint_every
""".split()  # noqa: SIM905

EVERYTHING: dict[str, Any] = {
    "name": "a « name », with: signs # and\nlines",
    "seed": 7,
    "model": {"name": "someone/some-model", "dropout": 0.2},
    "data": {"path": "rows.csv", "text": "body", "label": "0", "group_by": "none", "max_train": 10, "metric": "f1"},
    "adapter": {"rank": 3, "alpha": 5.5, "dropout": 0.0, "targets": ["query", "value"]},
    "strategy": {"name": "dynamic", "gates": "off", "moves": 3, "budget_share": 0.5},
    "train": {"epochs": 1.5, "lr": 1e-5, "schedule": "cosine", "max_grad_norm": 1.0},
    "log": {"every": 1, "eval_every": 2, "checkpoint_every": 3},
}


@pytest.mark.parametrize("values", [{}, {"seed": 3}, EVERYTHING])
def test_yaml_round_trip(values: dict[str, Any], tmp_path: Path) -> None:
    config = parse_config(values)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), "utf-8")
    assert load_config(path).stored() == config.stored()
    assert load_config(path).to_yaml() == config.to_yaml()


def test_defaults_are_those_of_the_contract() -> None:
    config = parse_config({})
    assert (config.model.name, config.data.name, config.data.path) == ("minilm", "sentiment4", None)
    assert (config.adapter.rank, config.adapter.lora_alpha, config.adapter.dropout) == (8, 16.0, 0.05)
    train = config.train
    assert (train.lr, train.warmup, train.schedule, train.weight_decay) == (2.5e-3, 0.06, "linear", 0.01)
    assert (train.max_grad_norm, train.batch_size, train.precision, train.grad_accum) == (None, 32, "auto", 1)
    assert (config.data.max_length, config.strategy.name, config.strategy.fields) == (128, "dynamic", {})
    assert config == parse_config({})


@pytest.mark.parametrize(("model", "head_lr"), [("minilm", 0.04), ("smollm2-135m", 0.01), ("owner/model", 0.01)])
def test_the_rate_of_a_head_is_that_measured_for_its_model(model: str, head_lr: float) -> None:
    config = parse_config({"model": {"name": model}})
    assert (config.head_lr, config.stored()["train"]["head_lr"]) == (head_lr, head_lr)
    given = {"model": {"name": model}, "train": {"head_lr": None}}
    assert (parse_config(given).head_lr, parse_config(given).stored()["train"]["head_lr"]) == (None, None)


def test_every_key_of_the_contract_is_there() -> None:
    assert set(CONTRACT) <= set(config_keys())


def test_alpha_is_twice_the_rank_unless_set() -> None:
    assert parse_config({"adapter": {"rank": 4}}).adapter.lora_alpha == 8
    assert parse_config({"adapter": {"rank": 4, "alpha": 3}}).adapter.lora_alpha == 3


@pytest.mark.parametrize(
    ("train", "rows", "steps"),
    [
        ({}, 100, 400),
        ({"steps": 7}, 100, 7),
        ({"epochs": 1}, 100, 4),
        ({"epochs": 0.01}, 100, 1),
        ({"epochs": 2, "batch_size": 10, "grad_accum": 2}, 100, 10),
        ({"epochs": 2, "batch_size": 10, "grad_accum": 3}, 100, 7),
    ],
)
def test_length_in_steps(train: dict[str, Any], rows: int, steps: int) -> None:
    assert parse_config({"train": train}).train.max_steps(rows) == steps


def test_title_says_what_the_run_is() -> None:
    assert parse_config({"name": " mine "}).title == "mine"
    assert parse_config({"data": {"path": "some/rows.csv"}, "seed": 2}).title == "dynamic on rows.csv, seed 2"


def test_empty_source_falls_back_to_the_embedded_data() -> None:
    for values in ({}, {"data": None}, {"data": {"max_length": 8}}, {"data": {"name": None, "path": ""}}):
        if (values.get("data") or {}).get("path") == "":
            with pytest.raises(ConfigError, match=r"data\.path"):
                parse_config(values)
        else:
            assert parse_config(values).data.source == "sentiment4"
    assert DataConfig(path="x.csv").source == "x.csv"  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("train.lrr", "did you mean train.lr?"),
        ("adaptor.rank", "did you mean adapter.rank?"),
        ("data.lable", "did you mean data.label?"),
        ("trian", "did you mean train?"),
        ("xyzzy", "valid keys: name, seed, "),
    ],
)
def test_nearest_key(key: str, near: str) -> None:
    assert nearest_key(key).startswith(near)


BAD: dict[str, list[Any]] = {
    "name": ["", "x" * 501, "a\0b", True, ["a"], {}],
    "seed": [-1, 2**31, 1.5, "one", None, True, [1], {"more": 1}],
    "model.name": ["", " ", None, {}],
    "model.dropout": [-0.1, 1, "much", True],
    "model.dtype": ["fp16", 16, None],
    "model.quantization": ["int4", 4],
    "data.name": ["", {}, "x" * 501],
    "data.path": ["", []],
    "data.task": ["ranking", None, 1],
    "data.planted_modules": ["", "x" * 201, None],
    "data.planted_rank": [0, 1025, "many", None],
    "data.planted_strength": [0, 11, "strong", None],
    "data.planted_seed": [-1, 2**31, 1.5, None],
    "data.planted_group": ["", "x" * 201],
    "data.metric": ["bleu", None],
    "data.text": ["", "c" * 201],
    "data.text_pair": [""],
    "data.label": ["", None],
    "data.prompt": ["", "c" * 201],
    "data.completion": [""],
    "data.messages": [""],
    "data.answer": [""],
    "data.loss_on": ["prompt", 1],
    "data.group_by": [""],
    "data.train_groups": ["short", 3, [""], [None]],
    "data.eval_fraction": [0, 1, -1, "half"],
    "data.max_train": [0, 1.5],
    "data.max_eval": [0, "all"],
    "data.max_length": [3, 8193, None],
    "data.packing": ["maybe", 2, None],
    "data.encoding": ["utf-9", 1252, ["utf-8"]],
    "data.repair": [
        "drop_all",
        3,
        ["drop_duplicates", "tidy"],
        [{"merge": {}}],
        [{"merge": {"a": ["b"]}}],
        [{"split_by": ""}],
        [{"split_by": "a", "merge": {"a": "b"}}],
        [None],
        {"drop": "rare"},
    ],
    "adapter.rank": [0, -1, 1025, 2.5, None, "eight", True],
    "adapter.alpha": [0, -1, float("nan"), float("inf"), "big"],
    "model.layers": [0, -1, 1.5, "all", True, "2-1", "1,1", "0-3,,5"],
    "adapter.dropout": [-0.1, 1.0, None],
    "adapter.targets": ["", 3, [""], [None]],
    "strategy.name": ["", None, True],
    "train.steps": [0, -5, 1.5, "many", 10_000_001, False],
    "train.epochs": [0, -1, "two"],
    "train.batch_size": [0, 65_537, None],
    "train.lr": [0, -1e-3, 11, float("nan"), "fast", None],
    "train.head_lr": [0, "slow"],
    "train.warmup": [1, -0.1, "some"],
    "train.schedule": ["step", None],
    "train.weight_decay": [-1, 2],
    "train.max_grad_norm": [0, -1],
    "train.grad_accum": [0, 4097],
    "train.precision": ["fp16", 16],
    "train.gradient_checkpointing": ["maybe", 2, None],
    "log.every": [0, None],
    "log.eval_every": [0, "often"],
    "log.eval_rows": [255, "all"],
    "log.checkpoint_every": [0, 0.5],
    "log.generate_rows": [-1, None, "all"],
    "log.generate_interim": [-1, None, "all"],
    "log.generate_max": [0, 8193, None],
    "log.retention": [-1, 1_001, None, "often"],
    "log.to": ["comet", ["tensorboard", "comet"], 3, [""], [None]],
}


def test_every_key_has_wrong_values_here() -> None:
    assert set(BAD) == set(config_keys())


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_wrong_value_is_one_sentence(key: str, value: Any) -> None:
    values: dict[str, Any] = {}
    set_key(values, key, value)
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(key)
    assert len(message) < 400
    assert "pydantic" not in message
    assert "Input should" not in message
    assert ";" in message, "a remedy, or what the key means"
    if not isinstance(value, dict | list) and value not in (None, "", " ") and value == value:
        assert str(value)[:60] in message


def test_two_sources_and_two_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.path=a.*not both; drop data\.name=b"):
        parse_config({"data": {"path": "a", "name": "b"}})
    with pytest.raises(ConfigError, match=r"train\.epochs=2.*not both"):
        parse_config({"train": {"steps": 3, "epochs": 2}})


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^train\.lrr=1: unknown key; did you mean train\.lr\?$"):
        parse_config({"train": {"lrr": 1}})
    with pytest.raises(ConfigError, match=r"^trian: unknown key; did you mean train\?$"):
        parse_config({"trian": {"lr": 1}})


def test_classes_of_a_merge_may_be_numbers() -> None:
    repairs = parse_config({"data": {"repair": [{"merge": {1: 2}}]}}).data.repair or ()
    assert [plain(repair) for repair in repairs] == [{"merge": {"1": "2"}}]


def test_fields_of_the_strategy_are_left_to_it() -> None:
    assert parse_config({"strategy": {"name": "lora", "anything": [1]}}).strategy.fields == {"anything": [1]}


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("7", 7),
        ("0.5", 0.5),
        ("", None),
        ("null", None),
        ("true", True),
        ("[a, b]", ["a", "b"]),
        ("[a", "[a"),
        ("some text: with colon", {"some text": "with colon"}),
        ("2020-02-31", "2020-02-31"),
        ("nyu-mll/glue:sst2", "nyu-mll/glue:sst2"),
    ],
)
def test_values_are_read_as_yaml(raw: str, value: Any) -> None:
    assert parse_value(raw) == value


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("seed: 1\ntrain:\n  lr: 0.1\nadapter:\n")
    config = load_config(path, ["train.lr=1e-4", "adapter.rank=2", "seed=5", "seed=6"])
    assert (config.train.lr, config.adapter.rank, config.seed) == (1e-4, 2, 6)


def test_config_files_that_are_too_large_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("#" * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load_config(path)
    path.write_text("")
    assert load_config(path) == parse_config({})


@given(st.text())
def test_any_override_is_read_or_refused(text: str) -> None:
    try:
        key, _ = split_override(text)
    except ConfigError:
        refused = True
    else:
        refused = False
        assert key == text.partition("=")[0].strip()
    assert refused == ("=" not in text or not text.partition("=")[0].strip())


@given(st.sampled_from(config_keys()), st.text())
def test_any_value_of_any_key_is_taken_or_refused(key: str, raw: str) -> None:
    values: dict[str, Any] = {}
    set_key(values, *split_override(f"{key}={raw}"))
    try:
        config = parse_config(values)
    except ConfigError:
        return
    assert parse_config(yaml.safe_load(config.to_yaml())).stored() == config.stored()


KEYS = (
    "train",
    "data",
    "model",
    "strategy",
    "adapter",
    "log",
    "seed",
    "name",
    "lr",
    "steps",
    "path",
    "merge",
    "repair",
)
HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=3) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.one_of(st.text(), st.integers(), st.none(), st.sampled_from(KEYS)), inner, max_size=3)
    ),
    max_leaves=6,
)
CONFIGS = st.dictionaries(
    st.one_of(st.sampled_from(KEYS), st.text(), st.integers(), st.floats(), st.none(), st.dates()), HOSTILE, max_size=3
)


def check_config(values: dict[Any, Any]) -> None:
    """Check that a config is taken, and comes back from its file, or is refused in a sentence on what was given."""
    try:
        config = parse_config(values)
    except ConfigError as error:
        message = str(error)
    else:
        assert parse_config(yaml.safe_load(config.to_yaml())).stored() == config.stored()
        return
    assert not message.startswith(":") or any(str(key)[:1] in ("", ":") for key in values), message
    assert len(message) < 3000


@given(CONFIGS)
def test_any_config_is_taken_or_refused(values: dict[Any, Any]) -> None:
    check_config(values)


@pytest.mark.torture
@settings(max_examples=10_000)
@given(CONFIGS)
def test_any_config_is_taken_or_refused_in_full(values: dict[Any, Any]) -> None:
    check_config(values)


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()))
def test_numbers_come_back_from_text(value: Any) -> None:
    raw = "" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    assert parse_value(raw) == value


@pytest.mark.parametrize(
    "value", [["\n"], ["a", "b\u2028c"], [1, "x\ny"], "\n", "a\n", [], ["..."], 3, None, True, "..."]
)
def test_a_value_as_text_is_one_line_that_reads_back(value: object) -> None:
    """A line break inside of a list ended the text in its middle."""
    text = value_text(value)
    assert "\n" not in text
    assert parse_value(text) == value
