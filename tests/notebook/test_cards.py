"""Cards of runs and the replay: what they say, now and while a run trains, and that no text of a run can act."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import dynlora
from dynlora.notebook.figure import Replay
from tests.notebook.html import Card, inert
from tests.viz.growing import Running
from tests.viz.runs import HOSTILE, make_run

SAMPLES = Path(__file__).resolve().parents[2] / "sample_runs"
MOVED = "20261205-150635-e9038c42"
RUN = "20260101-000000-00000007"


def test_a_card_says_what_the_run_is_and_how_well_it_did() -> None:
    words = inert(dynlora.open_run(SAMPLES / MOVED)._repr_html_()).words
    for text in (
        "dynamic · minilm on sentiment4 · 300 steps · seed 0",
        "86.1 % 95 % CI 85.0 to 87.2",
        "165,156 parameters, 99.6 % of budget",
        MOVED,
    ):
        assert text in " ".join(words.split())


def test_a_card_draws_each_rank_with_its_module() -> None:
    run = dynlora.open_run(SAMPLES / MOVED)
    html = run._repr_html_()
    ranks = re.findall(r"<title>layer \d+, [^<]*: rank (\d+)</title>", html)
    assert sorted(map(int, ranks)) == sorted(run.summary["ranks"].values())


def test_the_card_of_a_running_run_shows_what_is_there_now(runs_dir: Path) -> None:
    going = Running(runs_dir)
    run = dynlora.open_run(going.folder)
    going.advance(100)
    first = inert(run._repr_html_())
    assert "step 100 of 400" in first.words
    assert any("width: 25.0%" in style for style in first.styles)
    going.advance(200)
    assert "step 200 of 400" in inert(run._repr_html_()).words


@pytest.mark.parametrize("state", ["queued", "finished", "failed", "stopped"])
def test_a_card_of_any_state_is_there(runs_dir: Path, state: str) -> None:
    steps, error = (0 if state == "queued" else 40), "out of memory at step 7" if state == "failed" else None
    run = dynlora.open_run(make_run(runs_dir, run_id=RUN, state=state, steps=steps, error=error))
    words = inert(run._repr_html_()).words
    assert error is None or error in words
    assert state in words
    assert ("Accuracy" in words) == (state != "queued")


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_run_can_act_in_a_card(runs_dir: Path, text: str) -> None:
    run = dynlora.open_run(make_run(runs_dir, run_id=RUN, text=text, own=True, error=text))
    card = inert(run._repr_html_())
    assert text[:12].strip() in card.words


@pytest.fixture
def replay() -> Replay:
    """The replay of a sample run."""
    return dynlora.open_run(SAMPLES / MOVED).plot.replay()


def test_the_replay_is_one_frame_that_reaches_nothing_else(replay: Replay) -> None:
    frame = Card(replay._repr_html_())
    assert frame.elements == {"iframe"}
    assert frame.sources == [replay.html]
    assert 'sandbox="allow-scripts allow-downloads"' in replay._repr_html_()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', replay.html)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert policy[1].count("sha256-") == 1
    assert "http:" not in replay.html.replace("http://www.w3.org/2000/svg", "")
    assert "https:" not in replay.html


def test_what_is_shown_is_plain_text_for_every_notebook(replay: Replay) -> None:
    assert type(replay._repr_html_()) is str  # marimo hands on nothing that is derived from it
    assert type(replay.html) is str
    assert type(dynlora.open_run(SAMPLES / MOVED)._repr_html_()) is str


def test_the_replay_holds_the_ranks_of_the_run(replay: Replay) -> None:
    data = json.loads(re.findall(r'<script id="data" type="application/json">(.*?)</script>', replay.html, re.S)[0])
    assert data["steps"][-1] == 300
    assert sorted(data["rank"][-1]) == sorted(dynlora.open_run(SAMPLES / MOVED).summary["ranks"].values())
    assert data["plays"] is False
    assert repr(replay) == f"Replay('{MOVED}', {len(data['steps'])} pictures, steps {data['steps'][0]} to 300)"


def test_the_replay_is_saved_as_a_page(replay: Replay, tmp_path: Path) -> None:
    replay.write_html(tmp_path / "replay.html")
    assert (tmp_path / "replay.html").read_text("utf-8") == replay.html


@pytest.mark.parametrize("text", [*HOSTILE, "</script><script>alert(1)</script>"])
def test_no_text_of_a_run_can_act_in_the_replay(runs_dir: Path, text: str) -> None:
    run = dynlora.open_run(make_run(runs_dir, run_id=RUN, text=text, own=True))
    html = run.plot.replay()._repr_html_()
    assert Card(html).elements == {"iframe"}
    inside = Card(Card(html).sources[0])
    assert inside.elements == {"html", "head", "meta", "title", "style", "body", "script"}
    assert Card(html).sources[0].count("<script") == 2
