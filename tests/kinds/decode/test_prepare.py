"""What makes the three runs: rows of partial solutions, labelled and split by problem, and a judge of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from dynlora.engine.data.text_data import Rows
from dynlora.errors import ConfigError
from dynlora.kinds.decode.settings import Preparation
from dynlora.kinds.decode.work.prepare import draft_config, judged_rows, labelled, steps_of, write_rows
from dynlora.kinds.decode.work.rewards import judged_text
from dynlora.store.summary import run_summary
from tests.command_line import document, run
from tests.kinds.decode.conftest import STEP, Runs
from tests.tiny import save_tiny
from tests.tiny_lm import save_problems, save_tiny_lm


def test_a_partial_solution_is_right_while_all_its_steps_are() -> None:
    rows = Rows(["How many?\n"], ["2 * 3 = 6\n6 + 1 = 7\n#### 7"], np.zeros(1), None, {"answer": ["7"]})
    labels = list(labelled(rows, 0, "2 * 3 = 6\n6 + 1 = 8\n#### 7", "\n"))
    assert [row["label"] for row in labels] == ["right", "wrong", "wrong"]
    assert [row["text"] for row in labels] == [
        "How many?\n2 * 3 = 6",
        "How many?\n2 * 3 = 6\n6 + 1 = 8",
        "How many?\n2 * 3 = 6\n6 + 1 = 8\n#### 7",
    ]
    assert labels[0]["text"] == judged_text("How many?\n", "2 * 3 = 6\n"), "the judge is asked as it learned"
    both = judged_rows(rows, 0, "2 * 3 = 6\n6 + 1 = 8\n#### 7", "\n")
    assert [row["label"] for row in both] == ["right", "wrong", "wrong", "right", "right"], "the worked one too, once"
    assert steps_of("a\n\nb\nc", "\n") == ["a\n", "b\n", "c"]


def test_rows_are_split_by_problem_and_the_same_every_time(runs: Runs, tmp_path: Path) -> None:
    wanted = Preparation.of(problems=40, step_string=STEP)
    counts = write_rows(runs.folder / runs.draft, tmp_path / "one", wanted)
    again = write_rows(runs.folder / runs.draft, tmp_path / "two", wanted)
    sides = {}
    for side in ("train", "validation"):
        text = (tmp_path / "one" / f"{side}.jsonl").read_text("utf-8")
        assert text == (tmp_path / "two" / f"{side}.jsonl").read_text("utf-8")
        sides[side] = {json.loads(line)["problem"] for line in text.splitlines()}
    assert sides["train"]
    assert sides["validation"]
    assert not sides["train"] & sides["validation"]
    assert {**counts, "folder": ""} == {**again, "folder": ""}
    assert 0 < counts["right"] < 1


def test_steps_of_one_label_are_one_sentence(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynlora.kinds.decode.work.prepare.Reference.is_right", lambda reference, step: True)
    with pytest.raises(ConfigError, match=r"--problems 10: all steps of the draft are right"):
        write_rows(runs.folder / runs.draft, tmp_path / "rows", Preparation.of(problems=10, step_string=STEP))


def test_a_draft_is_the_blocks_that_were_named() -> None:
    config = draft_config(Preparation.of(layers="0-9,28-29"))
    assert (config.model.name, config.model.layers, config.train.steps) == ("smollm2-135m", "0-9,28-29", 1000)


def test_a_number_of_blocks_takes_the_most_influential(tmp_path: Path) -> None:
    folder = save_tiny_lm(tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for name, tensor in model.model.layers[0].named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                tensor.zero_()  # a block that changes nothing
    model.save_pretrained(folder)
    (tmp_path / "problems").mkdir()
    problems = save_problems(tmp_path / "problems")
    wanted = Preparation.of(model=str(folder), data=str(problems), layers=1)
    assert draft_config(wanted).model.layers == "1-1"
    with pytest.raises(ConfigError, match=r"--layers 4: the model has 2 blocks"):
        draft_config(wanted.model_copy(update={"layers": 4}))


@pytest.mark.journey
def test_prepare_trains_a_judge_that_a_decode_takes(runs: Runs, tmp_path: Path) -> None:
    arguments = (
        "--draft",
        str(runs.folder / runs.draft),
        "--target",
        str(runs.folder / runs.target),
        "--problems",
        "40",
        "--judge-model",
        str(save_tiny("bert", tmp_path / "bert")),
        "--judge-steps",
        "10",
        "--step-string",
        STEP,
    )
    report = document(run(tmp_path / "runs", "rsd", "prepare", *arguments, "--json"))
    judge = run_summary(tmp_path / "runs" / report["judge"])
    assert (judge.status, sorted(judge.labels)) == ("finished", ["right", "wrong"])
    assert report["command"].startswith(f"dynlora rsd --draft {runs.draft} --target {runs.target}")
    decoded = document(
        run(
            tmp_path / "runs",
            "rsd",
            *arguments[:4],
            "--reward",
            report["judge"],
            "--step-string",
            STEP,
            "--limit",
            "2",
            "--max-tokens",
            "10",
            "--json",
        )
    )
    assert decoded["points"][0]["prefilled"]["reward"] > 0
