"""The Home page: where to begin, what runs now, and the links that led to the list of runs before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.viz.tour import is_tour_taken, mark_tour_taken
from dynlora.viz.ui import run_picker
from tests.pages.app import charts, components, open_page, plain, words
from tests.viz.growing import RUN, Running
from tests.viz.runs import make_run


def links(app: AppTest) -> dict[str, tuple[str, str]]:
    """Return the links of the page and its menu: label to page and address."""
    return {link.proto.label: (link.proto.page, link.proto.query_string) for link in app.get("page_link")}


def picture(app: AppTest) -> dict:
    """Return what the picture shows."""
    (element,) = components(app)
    return json.loads(element.proto.mixed.json if element.proto.HasField("mixed") else element.proto.json)


@pytest.mark.usefixtures("_samples")
def test_the_first_page_says_what_dynlora_is_and_leads_on() -> None:
    app = open_page("home")
    assert not app.error
    assert "trains LoRA adapters" in app.title[0].value
    player = picture(app)
    assert player["plays"]
    assert not player["linked"]
    addresses = links(app)
    page, address = addresses["See rank move"]
    assert page == "capacity"
    assert address.startswith("run=")
    assert addresses["Launch on my data"] == ("launch", "data=upload")
    assert addresses["Compare methods"] == ("compare", "")
    assert addresses["Take the tour"][0] == "tour"
    assert len(charts(app)) == 2
    assert "Undecided: +0.1 points against lora" in plain(app)


@pytest.mark.usefixtures("_samples")
def test_a_run_of_ones_own_that_moved_rank_takes_the_place_of_the_sample(runs_dir: Path) -> None:
    own = make_run(runs_dir, text="tickets")
    app = open_page("home")
    assert "Rank over training: tickets" in plain(app)
    assert links(app)["See rank move"] == ("capacity", f"run={own.name}")


@pytest.mark.usefixtures("_samples")
def test_the_tour_is_offered_until_it_was_taken(runs_dir: Path) -> None:
    open_page("tour", stop="gates")
    assert not is_tour_taken(runs_dir)
    open_page("tour", stop="worth")
    assert is_tour_taken(runs_dir)
    assert "Take the tour" not in links(open_page("home"))


def test_the_offer_of_the_tour_can_be_hidden(runs_dir: Path) -> None:
    app = open_page("home")
    app.button(key="hide-tour").click().run()
    assert "Take the tour" not in links(app)
    assert is_tour_taken(runs_dir)


def test_whoever_may_only_look_hides_the_offer_for_this_visit(runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(run_picker.READ_ONLY_VARIABLE, "1")
    app = open_page("home")
    app.button(key="hide-tour").click().run()
    assert "Take the tour" not in links(app)
    assert not is_tour_taken(runs_dir)


def test_a_run_that_trains_is_the_picture_and_the_way_to_capacity(runs_dir: Path) -> None:
    mark_tour_taken(runs_dir)
    make_run(runs_dir, text="tickets")
    make_run(runs_dir, run_id="20260101-000000-00000002", state="queued", steps=0, text="waits")
    run = Running(runs_dir)
    run.advance(30)
    app = open_page("home")
    assert "grows, step 30 of 400" in words(app)
    assert not picture(app)["plays"]
    addresses = links(app)
    assert addresses["See rank move"] == ("capacity", f"run={RUN}")
    assert addresses["tickets"] == ("run", "run=20260101-000000-00000001")
    assert addresses["waits"] == ("run", "run=20260101-000000-00000002")
    assert "Runs :blue-badge[2]" in addresses
    run.writer.finish("finished")
    run.writer.close()
    after = open_page("home")
    assert "Training now" not in words(after)
    assert addresses.keys() - links(after).keys() == {"Runs :blue-badge[2]"}


def test_an_old_link_to_the_list_leads_to_it(runs_dir: Path) -> None:
    """The list of runs was the first page: its links had no name of a page."""
    address: dict[str, str | list[str]] = {"status": ["failed", "finished"], "run": ["x"]}
    make_run(runs_dir)
    make_run(runs_dir, run_id="20260101-000000-00000002", state="failed")
    app = open_page("home", **address)
    assert [title.value for title in app.title] == ["Runs"]
    kept = {name: app.query_params[name] for name in address}
    assert {name: [value] if isinstance(value, str) else value for name, value in kept.items()} == address


def test_the_menu_keeps_the_run_for_the_pages_of_a_run_only(runs_dir: Path) -> None:
    """The tour's link bore the run that was looked at, and so left its sample."""
    make_run(runs_dir)
    app = open_page("run", run="20260101-000000-00000001")
    addresses = {link.proto.page: link.proto.query_string for link in app.sidebar.get("page_link")}
    assert {page for page, address in addresses.items() if address} == {
        "run",
        "capacity",
        "inputs",
        "playground",
        "shrink",
    }
