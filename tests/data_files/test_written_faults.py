"""Faults of data for language models: prompts, completions and conversations, by line, and their repairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dynlora.data_files import scan
from tests.data_files.files import json_lines
from tests.data_files.test_faults import lines, wanted


def talk(*turns: str) -> dict[str, Any]:
    """Return a row of messages, each turn a role and what is said."""
    parts = [turn.partition(":") for turn in turns]
    return {"messages": [{"role": role, "content": content} for role, _, content in parts]}


GOOD_TALKS = [talk("system:Be brief.", f"user:Question number {n}", f"assistant:Answer {n}") for n in range(30)]
GOOD_PAIRS = [{"prompt": f"Question number {n}", "completion": f"Answer {n}"} for n in range(30)]
WRITTEN: dict[str, tuple[list[dict[str, Any]], str, bool]] = {
    "empty_prompt": ([{"prompt": " ", "completion": "Yes"}], "data.prompt=prompt", True),
    "empty_completion": ([{"prompt": "Why?", "completion": ""}], "data.completion=completion", True),
    "duplicate": ([GOOD_PAIRS[3]], "prompt and completion repeat an earlier row", False),
    "lost": ([{"prompt": "word " * 300, "completion": "Yes"}], "the completion is cut off", False),
    "no_conversation": ([{"messages": [{"role": "user"}]}], "not a list of messages", True),
    "role_order": ([talk("user:a", "user:b", "assistant:c")], "the order that chat templates expect", False),
    "unanswered": ([talk("user:a", "assistant:b", "user:c")], "the last message is not the assistant's", False),
    "duplicate ": ([GOOD_TALKS[3]], "the messages repeat an earlier row", False),
    "empty_completion ": ([talk("user:a", "assistant:")], "the last answer of the assistant is empty", False),
}


@pytest.mark.parametrize("name", list(WRITTEN))
def test_faults_of_texts_to_be_written_are_found_by_line_and_repaired(name: str, tmp_path: Path) -> None:
    bad, words, refuses = WRITTEN[name]
    good = GOOD_TALKS if "messages" in bad[0] else GOOD_PAIRS
    path = tmp_path / "rows.jsonl"
    path.write_text(json_lines([*good, *bad]), "utf-8")
    (fault,) = scan.look(path, wanted()).faults
    assert (fault["kind"], fault["refuses"]) == (name.strip(), refuses)
    assert words in fault["sentence"]
    assert lines(fault) == [31]
    if fault["repair"] is None:
        return
    repaired = scan.look(path, wanted(repair=[fault["repair"]]))
    assert not repaired.faults
    assert sum(repaired.rows.values()) == 30


def test_the_same_prompt_on_both_sides_is_found_whatever_its_completion(tmp_path: Path) -> None:
    for name, rows in (
        ("train", [*GOOD_PAIRS, {"prompt": "Shared?", "completion": "One way"}]),
        (
            "validation",
            [{"prompt": f"Held out {n}", "completion": "x"} for n in range(9)]
            + [{"prompt": "Shared?", "completion": "Another way"}],
        ),
    ):
        (tmp_path / f"{name}.jsonl").write_text(json_lines(rows), "utf-8")
    (fault,) = scan.look(tmp_path, wanted()).faults
    assert (fault["kind"], lines(fault), fault["repair"]) == ("shared_prompt", [31], "drop_shared_prompts")
    assert not scan.look(tmp_path, wanted(repair=["drop_shared_prompts"])).faults


def test_a_conversation_without_an_answer_is_no_fault_where_all_tokens_count(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json_lines([*GOOD_TALKS, talk("user:a")]), "utf-8")
    assert [fault["kind"] for fault in scan.look(path, wanted()).faults] == ["unanswered"]
    assert not scan.look(path, wanted(loss_on="all")).faults
