"""A sweep from a file and from a page: values listed, counted, checked together, queued once."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dynlora.cli.sweep import combinations
from dynlora.config import parse_config
from dynlora.errors import ConfigError, DynloraError
from dynlora.integrations.search.driver import space_of
from dynlora.jobs import launch
from dynlora.jobs import sweep as sweep_requests
from dynlora.jobs.sweep import choices_of, count, enqueue_sweep, listed, section_choices
from dynlora.store.queries import list_runs
from dynlora.training import inputs
from dynlora.training.run import plan, plans
from tests.command_line import document, run
from tests.jobs.helpers import helper
from tests.tiny import tiny_arguments, tiny_config

CHILD = """
import json, sys, yaml
from pathlib import Path
config, root = Path(sys.argv[1]), Path(sys.argv[2])
values = yaml.safe_load(config.read_text())
if values["sweep"].get("train.lr") == "bad":
    helper_job.fail(ConfigError("train.lr=bad: must be a number"))
    sys.exit(2)
with open(root / "calls", "a") as file:
    file.write(json.dumps(values) + "\\n")
helper_job.finish(values.get("name") == "odd" and 3 or [{"id": "one"}, {"id": "two"}], "")
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sweep_requests, "sweep_command", lambda c, r: helper(CHILD, str(c), str(r)))
    monkeypatch.setattr(sweep_requests, "wake", lambda _: None)
    return tmp_path


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        ("0..2", [0, 1, 2]),
        ("lora, dynamic", ["lora", "dynamic"]),
        ("1e-3,2", [0.001, 2]),
        ("[a, b]", [["a", "b"]]),
        ("", [None]),
        ("-1..1", [-1, 0, 1]),
        ("true,false", [True, False]),
    ],
)
def test_listed_values(raw: str, values: list) -> None:
    assert choices_of(raw) == values


def test_a_file_lists_values_or_text(tmp_path: Path) -> None:
    section = yaml.safe_load("seed: 0..1\ntrain.lr: [1e-3, 1e-4]\nadapter.targets: [[query], [value]]\nadapter.rank: 4")
    assert section_choices(section) == {
        "seed": [0, 1],
        "train.lr": [0.001, 0.0001],
        "adapter.targets": [["query"], ["value"]],
        "adapter.rank": [4],
    }
    assert count(section_choices(section)) == 8


@pytest.mark.parametrize("section", [3, [1], "seed", {"seed": []}, {"seed": "5..1"}, {"seed": "0..900"}])
def test_a_section_that_lists_nothing_sound_is_refused(section: object) -> None:
    with pytest.raises(ConfigError):
        count(section_choices(section))


@pytest.mark.parametrize("lines", ["seed", "=1", "seed=1\nseed=2"])
def test_a_line_that_is_no_list_is_refused(lines: str) -> None:
    with pytest.raises(ConfigError, match=r"key=value|twice"):
        listed(lines)


def test_combinations_keep_what_they_share_and_are_named_after_what_varies() -> None:
    base = parse_config({"train": {"steps": 20}, "name": "try"}).model_dump(mode="json")
    configs = combinations(base, {"seed": [0, 1], "train.lr": [0.01]}, None)
    assert [(item.title, item.seed, item.train.steps, item.train.lr) for item in configs] == [
        ("try, seed 0", 0, 20, 0.01),
        ("try, seed 1", 1, 20, 0.01),
    ]
    choices = {"seed": [0], "strategy.name": ["lora", "dynamic"], "train.lr": [0.01, 0.02], "data.name": ["ag_news"]}
    titles = [item.title for item in combinations({}, choices, None)]
    assert titles[0] == "lora on ag_news, lr 0.01, seed 0", "as a single run is named"


def test_what_a_user_chose_travels_in_a_file_and_is_queued_once(root: Path) -> None:
    config = {"name": "x; touch /tmp/never", "train": {"steps": 20}}
    lists = listed("seed=0..1\n\n name=$(id)\n")
    assert enqueue_sweep(config, lists, root, key="k") == ["one", "two"]
    assert enqueue_sweep(config, lists, root, key="k") == ["one", "two"]
    calls = (root / "calls").read_text().splitlines()
    assert [yaml.safe_load(call) for call in calls] == [{**config, "sweep": {"seed": "0..1", "name": "$(id)"}}]


def test_a_refusal_is_the_childs_sentence(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"^train.lr=bad: must be a number$"):
        enqueue_sweep({}, {"train.lr": "bad"}, root, key="k")
    with pytest.raises(ConfigError, match="more than 200"):
        enqueue_sweep({}, {"seed": "0..900"}, root, key="k")
    with pytest.raises(ConfigError, match="letters"):
        enqueue_sweep({}, {"seed": "0..1"}, root, key="../k")
    with pytest.raises(DynloraError, match="returned no runs"):
        enqueue_sweep({"name": "odd"}, {"seed": "0..1"}, root, key="k2")


def test_the_command_reads_the_file(
    tiny_bert: Path, tiny_data: Path, runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "wake", lambda _: None)
    path = tmp_path / "sweep.yaml"
    path.write_text("name: both\nsweep:\n  seed: 0..1\n  strategy.name: [lora]\n")
    arguments = tiny_arguments(tiny_bert, tiny_data, "train.steps=5")
    queued = document(run(runs_dir, "sweep", *arguments, "--config", str(path), "--json"))
    assert [item["name"] for item in queued] == ["both, seed 0", "both, seed 1"]
    path.write_text("sweep: 3\n")
    refused = run(runs_dir, "sweep", *arguments, "--config", str(path))
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "seed=0,0"], "seed: has 0 twice; give each value once"),
        (["--set", "seed=0", "--rates"], "--rates: belongs to a search; add --search, or drop it"),
        (["--set", "seed=0", "--gpus", "1"], "--gpus: belongs to a cluster; add --on ray, or drop it"),
        (["--search", "--set", "train.lr=1e-3,1e-3"], "train.lr: has 0.001 twice"),
        (["--search", "--set", "train.lr=1e-4..1e-2:exp"], "train.lr=1e-4..1e-2:exp: is not a range that can be read"),
        (["--search", "--set", "seed=0..3", "--study", ""], "--study : must be 1 to 40 letters"),
    ],
)
def test_what_a_sweep_would_ignore_or_train_twice_is_refused(
    arguments: list[str], message: str, runs_dir: Path
) -> None:
    refused = run(runs_dir, "sweep", *arguments)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert not runs_dir.exists() or not list_runs(runs_dir).size


def test_a_list_of_paths_is_no_range() -> None:
    space = space_of({"data.path": "../a.csv,../b.csv", "train.lr": "1e-3,2e-3"})
    assert space["data.path"].text() == "../a.csv,../b.csv"


def test_runs_of_a_sweep_are_checked_as_alone_and_load_the_same_model_once(
    tiny_bert: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [
        tiny_config(tiny_bert, tiny_data, strategy__name=name, seed=seed, data__max_train=rows)
        for rows, name, seed in itertools.product((40, 30), ("lora", "dynamic"), (1, 0))
    ]
    loaded: list[Path] = []
    load = inputs.load_base
    monkeypatch.setattr(inputs, "load_base", lambda folder, **rest: (loaded.append(folder), load(folder, **rest))[1])
    together = plans(configs)
    assert len(loaded) == 2  # the task may be another one with other data
    assert together == [replace(plan(config), inputs=None) for config in configs]
