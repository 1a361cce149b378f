"""The Tour page: six stops with the real charts of a sample run, in the address; polite without one."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.viz import tour
from tests.pages.app import charts, components, open_page, words
from tests.viz.runs import make_run


def way(app: AppTest) -> list[tuple[str, str]]:
    """Return the links between stops: label and what their address holds."""
    links = [link.proto for link in app.get("page_link")]
    return [(link.label, link.query_string) for link in links if link.page == "tour" and link.query_string]


@pytest.mark.usefixtures("_samples")
@pytest.mark.parametrize(
    "stop",
    [  # test_newcomer_journey.py goes to each of them
        stop if at in (0, 2, len(tour.STOPS) - 1) else pytest.param(stop, marks=pytest.mark.torture)
        for at, stop in enumerate(tour.STOPS)
    ],
    ids=lambda stop: stop.key,
)
def test_every_stop_shows_its_chart(stop: tour.Stop) -> None:
    app = open_page("tour", stop=stop.key)
    assert not app.error
    assert stop.question in [element.value for element in app.subheader]
    assert len(charts(app)) == {"rank": 0, "worth": 2}.get(stop.key, 1)
    assert len(components(app)) == (stop.key == "rank")
    _, before, after, number = tour.neighbours(stop.key)
    assert f"Stop {number} of 6" in words(app)
    expected = [f"stop={one.key}" for one in (before, after) if one]
    assert [query for _, query in way(app) if query.startswith("stop=")] == expected


@pytest.mark.usefixtures("_samples")
def test_nonsense_in_the_address_starts_at_the_first_stop() -> None:
    app = open_page("tour", stop="<b>", step="x")
    assert "What is rank?" in [element.value for element in app.subheader]


def test_without_a_run_to_show_it_says_so(runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_page("tour")
    assert not app.error
    assert "The tour needs a finished run" in words(app)
    assert not charts(app)
