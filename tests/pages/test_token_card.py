"""The card Tokens and loss mask on Launch: asked for with a button, remembered, and plain about what is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.errors import DataError
from dynlora.jobs import launch, uploads
from tests.pages.app import field, open_page, plain

LINE = b'{"messages": [{"role": "user", "content": "Hi %d"}, {"role": "assistant", "content": "Hello"}]}\n'


def document(text: str = "Hi <b>") -> dict[str, Any]:
    """Return what `dynlora data tokens --json` says."""
    pieces = [
        {"text": f"<user>{text}\n", "tokens": 3, "loss": False, "special": False},
        {"text": "Hello", "tokens": 1, "loss": True, "special": False},
        {"text": "<|end|>", "tokens": 1, "loss": True, "special": True},
    ]
    return {
        "rows": [{"place": "talks.jsonl, line 3", "pieces": pieces, "tokens": 5, "in_loss": 2, "cut": False}],
        "counted": 12,
        "of": 12,
        "lost": {"count": 2, "places": "talks.jsonl, lines 4 and 9"},
        "cut": {"count": 2, "places": "talks.jsonl, lines 4 and 9"},
        "longest": 90,
        "limit": 64,
        "loss_on": "completion",
        "is_chat": True,
        "notes": [],
    }


@pytest.fixture
def app(runs_dir: Path) -> AppTest:
    """The form with an upload of conversations."""
    sent = uploads.keep(runs_dir, "talks.jsonl", b"".join(LINE % number for number in range(12)))
    return open_page("launch", data="upload", upload=sent.parent.name)


def html_of(app: AppTest) -> str:
    return "".join(one.proto.body for one in app.get("html"))


def test_the_tokens_are_shown_when_asked_for_and_forgotten_with_other_settings(
    app: AppTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[dict[str, Any]] = []
    monkeypatch.setattr(launch, "token_preview", lambda config, _: requests.append(config) or document())
    app.button(key="ask-tokens").click().run()
    markup, text = html_of(app), plain(app)
    assert requests[0]["data"]["messages"] == "messages"
    assert "&lt;user&gt;Hi &lt;b&gt;⏎\n" in markup
    assert "3 tokens, not in the loss" in markup
    assert "2 of 12 training examples lose their whole completion after 64 tokens" in text
    assert "data.max_length=90 keeps" in text
    field(app.selectbox, "Loss on").set_value("all").run()
    assert "tokens, in the loss" not in html_of(app)
    field(app.selectbox, "Loss on").set_value("completion").run()
    assert "tokens, not in the loss" in html_of(app)
    assert len(requests) == 1


def test_why_there_are_none_is_a_sentence(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: Any, folder: Any) -> Any:
        raise DataError("data.messages: the tokenizer of model.name has no chat template; use another model")

    monkeypatch.setattr(launch, "token_preview", refuse)
    app.button(key="ask-tokens").click().run()
    assert "no chat template" in app.error[0].value


def test_a_model_that_cannot_write_is_named_before_anything_is_loaded(app: AppTest) -> None:
    assert "minilm is an encoder and cannot write texts" in app.warning[0].value
    preset = open_page("launch", preset="Instruction tuning")
    assert not [one for one in preset.warning if "encoder" in one.value]
    assert preset.button(key="ask-tokens").disabled is False
