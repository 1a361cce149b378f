"""A chat with a run that learned from conversations, in a browser with the real inference child behind it."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynlora.config import parse_config
from dynlora.training import run
from tests.browser.conftest import DRAWING, MODES, Picture, fits, settled, show, wait_while_drawn
from tests.tiny_lm import byte_tokenizer, lm_values, save_lines, tiny_problems
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture
def chat_run(runs_dir: Path, tmp_path: Path) -> str:
    """Id of a run that learned to answer in conversations; its model is slow enough to be stopped while it writes."""
    (tmp_path / "data").mkdir()
    for name, n, seed in (("train", 120, 1), ("validation", 24, 2)):
        talks = [
            {
                "messages": [
                    {"role": "user", "content": row["prompt"]},
                    {"role": "assistant", "content": row["completion"]},
                ]
            }
            for row in tiny_problems(n, seed)
        ]
        save_lines(tmp_path / "data" / f"{name}.jsonl", talks)
    values = lm_values(save_deep_lm(tmp_path / "model"), tmp_path / "data", train__steps=40, data__max_eval=16)
    outcome = run.train(parse_config(values), runs_dir, progress=False)
    assert outcome.state == "finished", outcome.error
    return outcome.folder.name


def save_deep_lm(folder: Path) -> Path:
    """Write a narrow decoder with many blocks and room for long texts."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=259,
        bos_token_id=2,
        eos_token_id=0,
        pad_token_id=1,
        initializer_range=0.1,
        hidden_size=32,
        num_hidden_layers=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=48,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.model_max_length = 2048
    tokenizer.save_pretrained(folder)
    return folder


def send(page: Page, message: str) -> None:
    """Send a message of a chat."""
    field = page.get_by_label("Message", exact=True)
    field.fill(message)
    field.press("Enter")


@pytest.mark.journey
def test_a_chat_is_streamed_stopped_and_kept_over_pages(server: str, page: Page, chat_run: str) -> None:
    from playwright.sync_api import TimeoutError as NotInTime
    from playwright.sync_api import expect

    page.goto(f"{server}/playground?run={chat_run}&tokens=12")
    settled(page)
    card = page.locator('[class*="st-key-card-answers"]')
    send(page, "a2:")
    expect(card.get_by_text(re.compile(r"^Adapter · \d+ tokens?"))).to_be_visible()
    expect(card.get_by_text(re.compile(r"^Base model · \d+ tokens?"))).to_be_visible()
    expect(card.get_by_text(re.compile("The adapter answers"))).to_be_visible()
    expect(page).to_have_url(re.compile("text=a2"))

    tokens = page.get_by_role("spinbutton", name="Max new tokens")
    tokens.fill("1024")
    tokens.press("Enter")
    expect(page).to_have_url(re.compile("tokens=1024"))
    settled(page)
    page.remove_locator_handler(page.locator(DRAWING))  # the answer is stopped while it is written
    stop = page.get_by_role("button", name="Stop", exact=True)

    def is_stopped() -> bool:
        send(page, "b1:")
        expect(card.get_by_text(re.compile("so far")).first).to_be_visible()
        with suppress(NotInTime):  # on a busy machine the whole answer may be there before the press
            stop.click(timeout=20_000)
        expect(card.get_by_text(re.compile("so far"))).to_have_count(0)
        return card.get_by_text(re.compile(", stopped")).count() > 0

    until(is_stopped, "an answer that is stopped while it is written")
    expect(stop).to_have_count(0)
    expect(card.get_by_text("b1:", exact=True).last).to_be_visible()
    prompts = page.locator(".dl-asked").count()
    wait_while_drawn(page)

    page.locator(".st-key-views-of-run").get_by_role("link", name="Inputs").click()
    page.get_by_text("Loss by example and token").click()
    expect(page.get_by_role("heading", name="Loss by token")).to_be_visible()
    page.locator(".st-key-views-of-run").get_by_role("link", name="Playground").click()
    expect(page.locator(".dl-asked")).to_have_count(prompts)
    settled(page)
    page.get_by_role("button", name="Clear conversation").click()
    expect(page.locator(".dl-asked")).to_have_count(0)


@pytest.mark.journey
def test_an_answer_is_looked_at_token_by_token_and_module_by_module(
    server: str, page: Page, chat_run: str, picture: Picture
) -> None:
    from playwright.sync_api import expect

    page.goto(f"{server}/playground?run={chat_run}&text=a2:")
    coloured = page.locator('[class*="st-key-card-tokens"] .dl-tokens span')
    expect(coloured.first).to_have_attribute("title", re.compile(r"p\(token\): adapter .* base "))
    settled(page)
    page.get_by_role("button", name="Measure all modules").click()
    expect(page.get_by_text(re.compile("greedy decoding (would|does) not"))).to_be_visible()
    settled(page)
    for scheme in MODES:
        show(page, scheme=scheme)
        page.goto(f"{server}/playground?run={chat_run}&text=a2:")
        expect(coloured.first).to_be_visible()
        for width in (1280, 375):
            show(page, width, 1000, scheme)
            fits(page, scheme)
            picture(page, f"chat-{scheme}-{width}", full_page=True)
