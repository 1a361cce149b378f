"""An experiment in one press: methods x ranks x seeds, one queue, and one page that follows it to the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from streamlit.testing.v1 import AppTest

from dynlora.jobs import launch
from dynlora.store.lifecycle import annotate
from dynlora.viz.ui import run_actions
from tests.pages.app import open_page, plain
from tests.viz.checked import preflight_document
from tests.viz.runs import make_run


def run_id(number: int) -> str:
    return f"20260101-000000-{number:08x}"


def shown_document(app: AppTest) -> dict[str, Any]:
    return yaml.safe_load(next(code.value for code in app.code if code.language == "yaml"))


def test_lora_dynamic_and_the_control_over_three_seeds_are_one_press(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(runs_dir, run_id=run_id(1), gates=False)
    sweeps: list[tuple[dict[str, Any], dict[str, Any], str]] = []

    def enqueue(config: dict[str, Any], lists: dict[str, Any], _: Path, *, key: str) -> list[str]:
        sweeps.append((config, lists, key))
        return [run_id(1)]

    monkeypatch.setattr(run_actions, "enqueue_sweep", enqueue)
    app = open_page("launch", mode="experiment")
    listed = shown_document(app)["sweep"]
    assert listed == {
        "seed": [0, 1, 2],
        "adapter.rank": [4],
        "strategy": [{"name": "lora"}, {"name": "dynamic"}, {"name": "dynamic", "allocation": "random"}],
    }
    button = app.button(key="start-experiment")
    assert button.label == "Start 9 runs"
    button.click().run()
    ((config, lists, _),) = sweeps
    assert lists == listed
    assert config["data"]["name"] == "sentiment4"
    assert "strategy" not in config
    assert "seed" not in config


def test_what_varies_is_chosen_and_kept(runs_dir: Path) -> None:
    app = open_page("launch", mode="experiment", preset="Teaching")
    app.button_group(key="methods").set_value(["lora"]).run()
    app.text_input(key="ranks-4").set_value("2, 8").run()
    app.text_input(key="experiment-seeds-0..2").set_value("0-4").run()
    app.switch_page("pages/methods.py").run()
    app.query_params.clear()
    app.switch_page("pages/launch.py").run()
    assert shown_document(app)["sweep"] == {
        "seed": [0, 1, 2, 3, 4],
        "adapter.rank": [2, 8],
        "strategy": [{"name": "lora"}],
    }


def test_the_chosen_methods_are_in_the_address_and_a_link_restores_them(runs_dir: Path) -> None:
    app = open_page("launch", mode="experiment", methods="lora,<b>,random control of dynamic")
    assert app.button_group(key="methods").value == ["lora", "random control of dynamic"]
    app.button_group(key="methods").set_value(["dynamic"]).run()
    assert app.query_params["methods"] == "dynamic"
    app.button_group(key="methods").set_value([]).run()
    assert "methods: none is chosen" in plain(app).replace("*", "")
    app.button_group(key="methods").set_value(["lora", "dynamic", "random control of dynamic"]).run()
    assert "methods" not in app.query_params, "the usual ones need no address"


def test_what_cannot_be_run_is_one_sentence(runs_dir: Path) -> None:
    app = open_page("launch", mode="experiment")
    app.text_input(key="ranks-4").set_value("0").run()
    assert "rank '0': must be a whole number" in plain(app)


def test_compare_follows_an_experiment_from_its_first_second(runs_dir: Path) -> None:
    ids = [run_id(number) for number in range(4)]
    for number, one in enumerate(ids):
        make_run(
            runs_dir, run_id=one, seed=number // 2, strategy=("dynamic", "lora")[number % 2], gates=False, extras=True
        )
    for one in ids[1:]:
        annotate(runs_dir / one, state="queued")
    app = open_page("compare", runs=",".join(ids))
    assert next(frame for frame in app.dataframe if "configuration" in frame.value).proto.placeholder == "–"
    assert app.get("progress")[0].proto.text.startswith("1 of 4 runs finished")
    for one in ids:
        annotate(runs_dir / one, state="finished")
    app = open_page("compare", runs=",".join(ids))
    assert not app.get("progress")
    assert "##### Verdict" in plain(app)


def test_a_check_says_the_time_of_all_runs_and_each_methods_schedule(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preflight(values: dict[str, Any], _: Path) -> dict[str, Any]:
        return preflight_document(events=[12, 30] if values["strategy"]["name"] == "dynamic" else [])

    monkeypatch.setattr(launch, "preflight", preflight)
    app = open_page("launch", mode="experiment")
    app.button(key="check").click().run()
    assert "= 9 runs. About 23 min in total" in plain(app)  # 9 runs of 2.5 minutes
    methods = next(frame.value for frame in app.dataframe if "time in total" in frame.value)
    assert methods["method"].tolist() == ["lora", "dynamic", "random control of dynamic"]
    assert methods["time in total"].tolist() == ["8 min"] * 3
    assert methods["reallocations"].tolist() == ["none", "2, steps 12 to 30", "2, steps 12 to 30"]
    app.button_group(key="checked-method").set_value("dynamic").run()
    assert "2 possible reallocations between steps 12 and 30" in plain(app)
