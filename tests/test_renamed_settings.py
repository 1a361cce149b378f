"""Settings under the names they had before: accepted, told to the log once, and equal to the bit."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from dynlora import renamed_settings
from dynlora.config import RunConfig, parse_config
from dynlora.config_files import load_config, read_run_config, set_key
from dynlora.contracts.harness import MemoryKeeper, make_trainer, same, tiny_config, weights
from dynlora.engine.fields import settings_of
from dynlora.errors import ConfigError
from dynlora.renamed_settings import CHANGED_DEFAULTS, GONE, RENAMED
from dynlora.store import meta
from dynlora.strategies import registry, strategy_class
from dynlora.training.folder_work import check_method

OLD = {
    "dynamic": {"lot": 3, "guard": 0.3},
    "elalora": {"counted_in": "components", "restart": True, "guard": 0.3},
    "l1ra": {"counted_in": "components", "restart": True},
    "eva": {"budget": "components"},
    "lora": {"guard": 0.3},
}
NEW = {
    "dynamic": {"allocation_seed": 3, "lr_backoff": 0.3},
    "elalora": {"budget_unit": "components", "reset_optimizer": True, "lr_backoff": 0.3},
    "l1ra": {"budget_unit": "components", "reset_optimizer": True},
    "eva": {"budget_unit": "components"},
    "lora": {"lr_backoff": 0.3},
}


@pytest.fixture(autouse=True)
def _told_anew() -> None:
    renamed_settings._say_once.cache_clear()
    renamed_settings._say_gone.cache_clear()


def trained(fields: dict[str, object]) -> tuple[dict[str, Any], list[int]]:
    trainer = make_trainer(tiny_config(str(fields["name"]), strategy=fields, adapter__rank=4, train__steps=24))
    trainer.train(MemoryKeeper())
    return weights(trainer), [module.rank for module in trainer.adapters]


def test_every_old_name_is_tried_here() -> None:
    tried = {(name, key) for name, fields in OLD.items() for key in fields}
    assert {(name, key) for name, keys in RENAMED.items() if name for key in keys} <= tried
    assert {("lora", key) for key in RENAMED[""]} <= tried


def test_new_names_are_settings_and_old_ones_are_not() -> None:
    for name in registry():
        there = settings_of(strategy_class(name))
        for old, new in {**RENAMED[""], **RENAMED.get(name, {})}.items():
            assert new in there
            assert old not in there


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "dynamic" else pytest.mark.torture) for name in OLD]
)
def test_a_config_of_old_names_trains_to_the_same_bits(name: str) -> None:
    (before, ranks), (after, ranks_after) = trained({"name": name, **OLD[name]}), trained({"name": name, **NEW[name]})
    assert same(before, after)
    assert ranks == ranks_after


@pytest.mark.parametrize("name", list(OLD))
def test_a_config_is_read_under_the_names_of_today(name: str) -> None:
    config = parse_config({"strategy": {"name": name, **OLD[name]}})
    assert config.strategy.fields == NEW[name]
    assert RunConfig.model_validate(config.model_dump()) == config


def test_the_log_says_each_old_name_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            parse_config({"strategy": {"name": "dynamic", "lot": 3, "guard": 0.3}})
    assert [record.getMessage() for record in caplog.records] == [
        "strategy.lot=3 is now called strategy.allocation_seed=3; the old name is still accepted",
        "strategy.guard=0.3 is now called strategy.lr_backoff=0.3; the old name is still accepted",
    ]


@pytest.mark.parametrize("name", list(GONE))
def test_a_setting_that_is_gone_is_left_out_and_the_log_says_so(name: str, caplog: pytest.LogCaptureFixture) -> None:
    now = settings_of(strategy_class(name))
    with caplog.at_level(logging.WARNING):
        for key, taken in GONE[name].items():
            assert key not in now
            assert parse_config({"strategy": {"name": name, key: taken}}).strategy.fields == {}
            assert parse_config({"strategy": {"name": name, key: "other"}}).strategy.fields == {}
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2 * len(GONE[name])
    for key, taken in GONE[name].items():
        assert f"strategy.{key}={taken} is no longer a setting: it is what the method does; leave it out" in messages
        assert any(text.startswith(f"strategy.{key}=other is no longer a setting, as it was not") for text in messages)


def test_a_config_with_settings_that_are_gone_trains_as_the_default_does() -> None:
    (before, ranks), (after, ranks_after) = (trained({"name": "dynamic", **old}) for old in (GONE["dynamic"], {}))
    assert same(before, after)
    assert ranks == ranks_after


def test_a_page_shows_no_setting_that_is_gone() -> None:
    assert meta.config({"strategy": {"name": "dynamic", "growth": "probe", "moves": 2}})["strategy"] == {
        "name": "dynamic",
        "gates": "module",
        "explore": 1.0,
        "scale_lr_ratio": 1.0,
        "moves": 2,
    }


def test_a_run_trained_with_a_value_that_is_gone_does_not_go_on_without_it() -> None:
    check_method("a", {"strategy": {"name": "dynamic", "growth": "weakest", "moves": 2}})
    check_method("a", {"strategy": {"name": "lora"}})
    check_method("a", {"strategy": {"name": "dynamic", "rank_by": "layer"}})  # its ranks are set, or soon moved
    with pytest.raises(ConfigError, match=r"resume a: strategy.growth=probe is no longer a setting, and a run keeps"):
        check_method("a", {"strategy": {"name": "dynamic", "growth": "probe"}})


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"strategy.lot=1: is the old name of strategy.allocation_seed, also given"):
        parse_config({"strategy": {"name": "dynamic", "lot": 1, "allocation_seed": 2}})


@pytest.mark.parametrize("name", list(OLD))
def test_a_run_written_before_shows_the_names_of_today(name: str, caplog: pytest.LogCaptureFixture) -> None:
    earlier = {key: before for key, (before, _) in CHANGED_DEFAULTS.get(name, {}).items()}
    assert meta.config({"strategy": {"name": name, **OLD[name]}})["strategy"] == {"name": name, **earlier, **NEW[name]}
    assert not caplog.records, "a page that reads old runs says nothing"


@pytest.mark.parametrize("strategy", [{"name": []}, {"name": "dynamic", "score": {}}, {"lot": 1, "allocation_seed": 2}])
def test_what_no_version_wrote_is_read_without_a_complaint(strategy: dict[str, object]) -> None:
    assert isinstance(json.dumps(meta.config({"strategy": strategy})), str)


def test_a_method_of_ones_own_may_use_an_old_name(tmp_path: Path) -> None:
    assert parse_config({"strategy": {"name": "mine", "rows": 3, "budget": 1}}).strategy.fields == {
        "rows": 3,
        "budget": 1,
    }


def test_a_changed_default_is_that_of_the_method() -> None:
    for name, keys in CHANGED_DEFAULTS.items():
        defaults = {key: field.default for key, field in settings_of(strategy_class(name)).items()}
        assert {key: defaults[key] for key in keys} == {key: now for key, (_, now) in keys.items()}
        assert all(before != now for before, now in keys.values())


@pytest.mark.parametrize("written", [{}, {"gates": "off"}, {"gates": "module"}, {"gates": "scale"}])
def test_a_run_keeps_the_defaults_that_it_was_made_with(tmp_path: Path, written: dict[str, str]) -> None:
    """A folder of before names no default that changed, one of now does; both are read alike wherever they are read."""
    before = {"strategy": {"name": "dynamic", **written}, "data": {"name": "sentiment4"}}
    (tmp_path / "run.db").touch()
    (tmp_path / "config.yaml").write_text(json.dumps(before), "utf-8")
    gates = written.get("gates", "module")
    assert read_run_config(tmp_path).strategy.fields["gates"] == gates
    assert load_config(tmp_path / "config.yaml").strategy.fields["gates"] == gates
    assert meta.config(before)["strategy"]["gates"] == gates
    ratio = 1.0 if gates == "module" else None  # gates that see the input had the rate of A
    assert read_run_config(tmp_path).strategy.fields["scale_lr_ratio"] == ratio

    now = parse_config(before)
    (tmp_path / "config.yaml").write_text(now.to_yaml(), "utf-8")
    kept = read_run_config(tmp_path).strategy.fields
    assert (kept["gates"], kept["scale_lr_ratio"]) == (written.get("gates", "scale"), None)
    assert meta.meta_of(now, None, {})["config"]["strategy"]["gates"] == written.get("gates", "scale")


@pytest.mark.parametrize("written", [{}, {"train": {"lr": 0.004}}, {"train": {"head_lr": None}}])
def test_the_head_of_a_run_of_before_keeps_the_rate_of_its_adapters(tmp_path: Path, written: dict[str, Any]) -> None:
    (tmp_path / "run.db").touch()
    (tmp_path / "config.yaml").write_text(json.dumps({"data": {"name": "sentiment4"}, **written}), "utf-8")
    assert read_run_config(tmp_path).train.head_lr is None
    assert read_run_config(tmp_path).train.lr == written.get("train", {}).get("lr", 0.001)
    assert load_config(tmp_path / "config.yaml").train.head_lr is None
    now = parse_config({"data": {"name": "sentiment4"}})
    (tmp_path / "config.yaml").write_text(now.to_yaml(), "utf-8")
    assert (read_run_config(tmp_path).train.lr, read_run_config(tmp_path).train.head_lr) == (0.0025, 0.04)


def test_a_file_of_ones_own_takes_the_defaults_of_now(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("strategy: {name: dynamic}", "utf-8")
    assert "gates" not in load_config(tmp_path / "mine.yaml").strategy.fields
    assert load_config(tmp_path / "mine.yaml").train.head_lr == "auto"


@pytest.mark.parametrize(("gates", "left"), [("scale", {}), ("module", {"gates": "module"})])
def test_another_method_leaves_what_a_run_wrote_down_for_its_own(gates: str, left: dict[str, str]) -> None:
    values: dict[str, Any] = {"strategy": {"name": "dynamic", "gates": gates}}
    set_key(values, "strategy.name", "dynamic")
    assert values["strategy"]["gates"] == gates
    set_key(values, "strategy.name", "lora")
    assert values["strategy"] == {"name": "lora", **left}
