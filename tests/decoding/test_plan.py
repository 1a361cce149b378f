"""What is decoded: problems that the target did not learn, and each point once."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynlora.config import parse_config
from dynlora.decoding.plan import _problem_config
from dynlora.decoding.points import points_of
from dynlora.kinds.decode import DecodeSettings
from dynlora.kinds.named_runs import NamedRun
from dynlora.training.inputs import read_data
from tests.tiny_lm import save_lines


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Problems without a held-out side of their own."""
    rows = [{"prompt": f"a{n}:", "completion": f"{'a' * n} #### {n}", "answer": str(n)} for n in range(1, 61)]
    return save_lines(tmp_path / "problems.jsonl", rows)


@pytest.mark.parametrize("names_data", [False, True])
def test_no_problem_is_one_that_the_target_learned(file: Path, names_data: bool) -> None:
    config = parse_config({"seed": 1, "data": {"path": str(file), "task": "causal_lm"}})
    target = NamedRun("target", "a", file.parent, {"config": config.model_dump(mode="json")}, "finished")
    settings = DecodeSettings.of(draft="a", target="a", seed=0, data=str(file) if names_data else None)
    decoded = set(read_data(_problem_config(settings, target)).held_out.text)
    assert decoded
    assert not decoded & set(read_data(config).train.text)
    other = read_data(config.model_copy(update={"seed": 0})).held_out.text
    assert decoded != set(other), "the two seeds would not be distinguished"


def test_values_that_records_cannot_tell_apart_are_one_point() -> None:
    points = points_of("threshold", [0.7, 0.70000001, 0.8], [0.5, 0.5], ends=True)
    assert [point.key for point in points] == ["target", "draft", "threshold=0.7", "threshold=0.8", "constant=0.5"]
    assert points[2].value == 0.7
