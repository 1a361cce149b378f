"""A tab is told of the runs that end while it is open: each once, none that was over before, and its title follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from dynlora.store.lifecycle import annotate
from tests.pages.app import components, open_page
from tests.store.builder import finished_run, new_run

RUN, OTHER = "20260101-000000-00000001", "20260101-000000-00000002"


def notices(app: AppTest) -> list[dict[str, str]]:
    (element,) = components(app, "notice")
    proto: Any = element.proto
    return json.loads(proto.mixed.json if proto.HasField("mixed") else proto.json)["ended"]


def test_a_run_that_ends_is_told_once_with_how_it_ended(runs_dir: Path) -> None:
    finished_run(runs_dir, 3, OTHER, name="over before")
    new_run(runs_dir, RUN, "queued", name="<b>mine</b>")
    app = open_page("methods")
    assert notices(app) == []
    annotate(runs_dir / RUN, state="stopped")
    assert notices(app.run()) == [{"id": RUN, "name": "<b>mine</b>", "status": "stopped"}]
    annotate(runs_dir / RUN, state="queued")
    assert notices(app.run()) == [], "a run that goes on has not ended"
    assert notices(open_page("methods")) == []


def test_a_run_that_was_removed_meanwhile_is_no_news(runs_dir: Path) -> None:
    new_run(runs_dir, RUN, "queued")
    app = open_page("methods")
    (runs_dir / RUN).rename(runs_dir / ".gone")
    assert notices(app.run()) == []
