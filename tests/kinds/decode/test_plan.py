"""What is decoded: problems that the target did not learn, and each point once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dynlora.config import RunConfig, parse_config
from dynlora.kinds.decode.settings import DecodeSettings
from dynlora.kinds.decode.work.results import points_of
from dynlora.kinds.decode.work.run import _problem_config
from dynlora.kinds.named_runs import NamedRun
from dynlora.training.inputs import read_data
from tests.tiny_lm import save_lines


def problems_file(folder: Path, prompt: str = "prompt", twice: int = 0) -> Path:
    """Write problems without a held-out side of their own; the first `twice` of them again at the end."""
    rows = [{prompt: f"a{n}:", "completion": f"{'a' * n} #### {n}", "answer": str(n)} for n in range(1, 61)]
    return save_lines(folder / "problems.jsonl", [*rows, *rows[:twice]])


def target_of(folder: Path, data: dict[str, Any]) -> tuple[NamedRun, RunConfig]:
    """Return a run that learned from data, and its settings."""
    config = parse_config({"seed": 1, "data": {"task": "causal_lm", **data}})
    return NamedRun("target", "a", folder, {"config": config.model_dump(mode="json")}, "finished"), config


def decode_of(data: str | None) -> DecodeSettings:
    return DecodeSettings.of(draft="a", target="a", seed=0, data=data)


OWN: dict[str, dict[str, Any]] = {
    "plain": {},
    "few held out": {"eval_fraction": 0.02},
    "many held out": {"eval_fraction": 0.5},
    "repaired": {"repair": ["drop_duplicates"]},
    "few trained": {"max_train": 20},
    "another column": {"prompt": "question"},
}
"""What a target may say of its own data."""


@pytest.mark.parametrize("names_data", [False, True])
@pytest.mark.parametrize("own", OWN)
def test_no_problem_is_one_that_the_target_learned(own: str, names_data: bool, tmp_path: Path) -> None:
    values = OWN[own]
    file = problems_file(tmp_path, values.get("prompt", "prompt"), twice=20 if "repair" in values else 0)
    target, config = target_of(tmp_path, {"path": str(file), **values})
    decoded = set(read_data(_problem_config(decode_of(str(file) if names_data else None), target)).held_out.text)
    assert decoded
    assert not decoded & set(read_data(config).train.text)
    other = read_data(config.model_copy(update={"seed": 0})).held_out.text
    assert decoded != set(other), "the two seeds would not be distinguished"


@pytest.mark.parametrize("spelling", ["problems.jsonl", "./problems.jsonl", "linked.jsonl", "{}/../{}/problems.jsonl"])
def test_a_file_is_the_targets_own_however_its_path_is_written(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = problems_file(tmp_path)
    (tmp_path / "linked.jsonl").symlink_to(file)
    monkeypatch.chdir(tmp_path)
    named = spelling.format(tmp_path, tmp_path.name)
    target, config = target_of(tmp_path, {"path": str(file), "eval_fraction": 0.02, "max_eval": 1})
    assert _problem_config(decode_of(named), target).data == config.data.model_copy(update={"max_eval": None})


def test_a_data_set_is_the_targets_own_by_its_name_and_another_is_not(tmp_path: Path) -> None:
    target, config = target_of(tmp_path, {"name": "arithmetic", "max_train": 9, "repair": ["drop_duplicates"]})
    assert _problem_config(decode_of("arithmetic"), target).data == config.data
    other = _problem_config(decode_of(str(problems_file(tmp_path))), target).data
    assert (other.name, other.max_train, other.repair) == (None, None, None)


def test_values_that_records_cannot_tell_apart_are_one_point() -> None:
    points = points_of("threshold", [0.7, 0.70000001, 0.8], [0.5, 0.5], ends=True)
    assert [point.key for point in points] == ["target", "draft", "threshold=0.7", "threshold=0.8", "constant=0.5"]
    assert points[2].value == 0.7
