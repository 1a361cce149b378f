"""Instruction tuning in a browser: conversations uploaded, their loss mask, texts that change, and PEFT at the end."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
import transformers

from dynlora.store import queries
from tests.browser.conftest import MODES, OTHER, Picture, Window, fill, fits, open_run, settled
from tests.tiny_lm import save_tiny_lm, tiny_problems
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

STEPS = 40


def save_talks(path: Path) -> Path:
    """Write conversations in which a letter is said once or twice, as JSON lines, and return the file."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{row['prompt']} ({number})"},
                {"role": "assistant", "content": row["completion"]},
            ],
            "answer": row["answer"],
            "difficulty": row["difficulty"],
        }
        for number, row in enumerate(tiny_problems(80))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.journey
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
def test_conversations_are_uploaded_learned_and_taken_to_peft(
    server: str, page: Page, window: Window, picture: Picture, runs_dir: Path, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    model, talks = save_tiny_lm(tmp_path / "model"), save_talks(tmp_path / "talks.jsonl")
    page.goto(f"{server}/launch?data=upload&strategy=lora")
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(talks)
    expect(page.get_by_text("a conversation has 2 messages of user and assistant")).to_be_visible()
    expect(page.get_by_role("radio", name="Conversations")).to_have_attribute("aria-checked", "true")
    expect(page.get_by_text("no faults in 80 rows")).to_be_visible()
    command = page.locator('[class*="st-key-card-command"] code').first
    expect(command).to_contain_text("data.messages=messages")
    fill(
        page,
        {
            "Model": str(model),
            "Steps": str(STEPS),
            "Batch size (examples)": "8",
            "Learning rate": "0.02",
            "Maximum length (tokens)": "64",
        },
    )

    _look_at_tokens(page, window, picture)
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.get_by_text("Generation: 8 prompts at the last evaluation")).to_be_visible()
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_text(re.compile(r"Started as \S+\."))).to_be_visible()
    open_run(page)
    expect(page.get_by_text("· finished").first).to_be_visible()
    [run_id] = [run for run in queries.list_runs(runs_dir)["id"] if run != OTHER]

    page.goto(f"{server}/run?run={run_id}&section=results")
    settled(page)
    written = _texts(runs_dir / run_id)
    first, last = written[0][0], written[STEPS][0]
    assert first["text"] != last["text"]
    expect(page.get_by_text(re.compile(rf"At step {STEPS}, \d of 8 answers are correct"))).to_be_visible()
    card = page.locator('[class*="st-key-card-generations"]').first
    expect(card).to_contain_text(f"Step {STEPS}")
    expect(card).to_contain_text("Base model")
    expect(card).to_contain_text(last["text"])
    picture(card, "instruction-texts")

    _same_in_peft(_downloaded(page, tmp_path, "Adapter"), run_id, model, last)


def _look_at_tokens(page: Page, window: Window, picture: Picture) -> None:
    """Ask for the tokens: the end of the answer is in the loss, that of the question is not."""
    from playwright.sync_api import expect

    page.get_by_role("button", name="Show tokens").click()
    tokens = page.locator('[class*="st-key-card-tokens"]').first
    end = tokens.locator('span[title="1 token, in the loss"]', has_text="◆").first
    expect(end).to_be_visible()
    end_token = tokens.locator('span[title="1 token, not in the loss"]', has_text="◆").first
    expect(end_token).to_be_visible()
    picture(tokens, "instruction-tokens")
    for mode in MODES:
        narrow = window(width=375, height=800, color_scheme=mode).new_page()
        narrow.goto(page.url)
        expect(narrow.get_by_text("no faults in 80 rows")).to_be_visible()
        fits(narrow, mode)
        narrow.context.close()


def _texts(run: Path) -> dict[int, list[dict[str, Any]]]:
    """Return what was written at evaluations, by step: on a slow machine at the first and the last alone."""
    until(lambda: STEPS in set(queries.events_frame(run, ("generations",))["step"]), "the texts of the last evaluation")
    events = queries.events_frame(run, ("generations",))
    return {int(step): payload["rows"] for step, payload in zip(events["step"], events["payload"], strict=True)}


def _downloaded(page: Page, folder: Path, button: str) -> Path:
    """Download what a button gives and return the folder that it is unpacked in."""
    with page.expect_download() as started:
        page.get_by_role("button", name=button, exact=True).click()
    started.value.save_as(folder / "export.zip")
    with zipfile.ZipFile(folder / "export.zip") as archive:
        archive.extractall(folder)
    return folder


def _same_in_peft(folder: Path, run_id: str, model: Path, last: dict[str, Any]) -> None:
    """Check that PEFT writes after a prompt what the run wrote at its end."""
    place = folder / f"{run_id}-peft"
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    base = transformers.AutoModelForCausalLM.from_pretrained(model)
    adapted: Any = peft.PeftModel.from_pretrained(base, str(place)).eval()
    turns = [{"role": "user", "content": last["prompt"]}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        token_ids = adapted.generate(**inputs, max_new_tokens=128, do_sample=False)
    written = tokenizer.decode(token_ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert written == last["text"]
