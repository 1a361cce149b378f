"""What a model sees before a run is made: tokens, loss mask, lost completions, what writing costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from dynlora.config import parse_config
from dynlora.contracts.tiny_runs import END
from dynlora.errors import ConfigError, DataError
from dynlora.training.preflight import format_preflight, format_preview, preflight, token_preview
from tests.tiny import tiny_values
from tests.tiny_lm import lm_values, save_lines, save_tiny_lm


def talk(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny Llama with a chat template."""
    return save_tiny_lm(tmp_path / "model")


def values(model: Path, rows: list[dict[str, Any]], **overrides: Any) -> Any:
    data = save_lines(model.parent / "rows.jsonl", rows)
    return parse_config(lm_values(model, data, **overrides))


def test_the_last_answer_and_its_end_are_in_the_loss_and_nothing_else(model: Path) -> None:
    preview = token_preview(values(model, [talk(f"Say {n}", f"é{n}") for n in range(20)]))
    assert preview["is_chat"]
    for row in preview["rows"]:
        learned = "".join(piece["text"] for piece in row["pieces"] if piece["loss"])
        read = "".join(piece["text"] for piece in row["pieces"] if not piece["loss"])
        number = learned.removeprefix("é").removesuffix(END)
        assert learned == f"é{number}{END}"
        assert read == f"<user>Say {number}{END}\n<assistant>"
        assert [piece["text"] for piece in row["pieces"] if piece["special"]] == [END, END]
        assert next(piece for piece in row["pieces"] if piece["text"] == "é")["tokens"] == 2, "bytes of one character"
        assert row["in_loss"] == sum(piece["tokens"] for piece in row["pieces"] if piece["loss"])
    assert f"<assistant>[[é0{END}]]" in format_preview(preview)


@pytest.mark.parametrize(("loss_on", "learned"), [("assistant", 2), ("all", 4), ("completion", 1)])
def test_the_loss_mask_follows_its_setting(loss_on: str, learned: int, model: Path) -> None:
    turns = [talk("a", "b")["messages"] + talk("c", "d")["messages"]] * 20
    preview = token_preview(values(model, [{"messages": one} for one in turns], data__loss_on=loss_on))
    pieces = preview["rows"][0]["pieces"]
    assert sum(piece["text"] == END and piece["loss"] for piece in pieces) == learned


def test_rows_that_lose_their_completion_are_counted_by_line(model: Path) -> None:
    rows = [{"prompt": "a" * (40 if n in (3, 11) else 4), "completion": "bc"} for n in range(30)]
    preview = token_preview(values(model, rows, data__max_length=16, data__eval_fraction=0.05))
    train = [line for line in (4, 12) if str(line) in preview["lost"]["places"]]
    assert preview["lost"]["count"] == len(train) >= 1
    assert preview["lost"]["places"].startswith("rows.jsonl, line")
    assert (preview["longest"], preview["limit"]) == (43, 16)
    assert not token_preview(values(model, rows, data__max_length=preview["longest"]))["lost"]["count"]


def test_it_refuses_where_training_does_and_tasks_with_labels(
    model: Path, tmp_path: Path, tiny_bert: Path, tiny_data: Path
) -> None:
    with pytest.raises(ConfigError, match="every row has one label"):
        token_preview(parse_config(tiny_values(tiny_bert, tiny_data)))
    bare = save_tiny_lm(tmp_path / "bare", template=None)
    with pytest.raises(DataError, match="has no chat template"):
        token_preview(values(bare, [talk("a", "b")] * 20))


def test_preflight_says_what_generated_texts_cost_and_shows_the_rows_it_trains_on(model: Path) -> None:
    rows = [{"prompt": f"{'a' * (40 if n % 4 == 0 else 4)}{n}", "completion": f"bc{n}"} for n in range(60)]
    report = preflight(values(model, rows, data__max_length=24))
    cost = report["time"]["generation"]
    assert (cost["new_tokens"], cost["evaluations"]) == (12, 3)
    assert 0 < cost["share"] < 1
    assert cost["seconds"] > 0
    assert cost["evaluations"] * cost["seconds"] <= 60 * report["time"]["total_minutes"]
    assert "generation  " in format_preflight(report)
    assert any("lose their whole completion" in sentence for sentence in report["warnings"])
    tokenizer = AutoTokenizer.from_pretrained(model)
    for row in report["preview"]:
        text = tokenizer.convert_tokens_to_string(row["tokens"])
        assert f"{row['text']}{row['text_pair']}{END}".startswith(text), "text and tokens are of one row"
        assert row["label"] is None
    silent = preflight(values(model, rows, data__max_length=24, log__generate_rows=0))
    assert silent["time"]["generation"] is None
