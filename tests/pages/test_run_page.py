"""The Run page: its sections, the health card, results with and without what newer runs record, a live refresh."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dynlora.jobs import launch
from dynlora.store.lifecycle import request_stop, this_process
from tests.pages.app import charts, components, is_text, open_page, plain, verdict_chart, words
from tests.viz.runs import HOSTILE, make_run

RUN = "20260101-000000-00000001"


@pytest.mark.parametrize(("section", "count"), [("results", 8), ("nonsense", 4)])
def test_sections_are_links(section: str, count: int, runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_page("run", run=RUN, section=section)
    assert len(charts(app)) == count


def test_the_result_comes_first_and_it_can_be_run_again(runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_page("run", run=RUN)
    text = plain(app)
    questions = ("Accuracy, held out", "Does dynamic help?", "Ranks to use", "Cost", "##### Training loss")
    places = [text.index(question) for question in questions]
    assert places == sorted(places)
    assert not app.get("progress")
    queries = {link.proto.query_string for link in app.get("page_link")}
    assert {f"from={RUN}", f"from={RUN}&twin=uniform", f"from={RUN}&twin=random"} <= queries


def test_a_kind_and_steps_that_were_selected_elsewhere_are_the_only_ones_here(runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_page("run", run=RUN, kind="key", steps="2-7")
    loss, ranks = charts(app)[:2]
    assert [trace["name"] for trace in ranks["data"]] == ["key"]
    assert [chart["layout"]["xaxis"]["range"] for chart in (loss, ranks)] == [[2, 7]] * 2
    assert "Selected: key, steps 2 to 7." in plain(app)
    app.button(key="show-all").click().run()
    assert not {"kind", "steps"} & set(app.query_params)
    assert len(charts(app)[1]["data"]) > 1


@pytest.mark.parametrize("page", ["run", "shrink"])
def test_the_views_of_a_run_are_a_row_that_keeps_the_selection(page: str, runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_page(page, run=RUN, module="a.b", step="3")
    rows = [link.proto for link in app.get("page_link") if link.proto.query_string.startswith(f"run={RUN}&module=")]
    assert [link.label for link in rows] == ["Result", "Capacity", "Inputs", "Playground", "Shrink"]
    assert {link.query_string for link in rows} == {f"run={RUN}&module=a.b&step=3"}


def test_the_menu_leads_to_the_run_that_is_looked_at_by_its_name(runs_dir: Path) -> None:
    make_run(runs_dir, text="tickets")
    make_run(runs_dir, run_id=f"{RUN[:-1]}2", text="newest", moves=False)
    for page, name in (("run", "newest"), ("capacity", "tickets")):
        entries = [link.proto for link in open_page(page).sidebar.get("page_link") if link.proto.page == "run"]
        assert [entry.label for entry in entries] == [name], page


def test_what_newer_runs_record_is_shown(runs_dir: Path) -> None:
    make_run(runs_dir, extras=True)
    app = open_page("run", run=RUN, section="machine")
    assert len(charts(app)) == 6


def test_health_says_what_is_wrong_and_where_to_see_it(runs_dir: Path) -> None:
    make_run(runs_dir)
    app = open_page("run", run=RUN)
    assert "Importance is mostly noise" in plain(app)
    assert "Passed" in plain(app)
    links = [link.proto for link in app.get("page_link") if link.proto.label.startswith("**")]
    assert [(link.page, link.query_string) for link in links] == [
        ("run", f"run={RUN}"),
        ("capacity", f"run={RUN}&signal=importance"),
    ]


@pytest.mark.parametrize(("text", "section"), [(HOSTILE[0], "results"), (HOSTILE[3], "machine")], ids=range(2))
def test_hostile_text_is_text_in_every_section(text: str, section: str, runs_dir: Path) -> None:
    make_run(runs_dir, text=text, extras=True)
    is_text(open_page("run", run=RUN, section=section))


def downloads(app: AppTest) -> list[str]:
    return [button.label.partition(",")[0] for button in app.download_button if not str(button.key).startswith("csv-")]


SHARED = ["Report", "Map (PNG", "Moving picture (GIF"]


def test_a_run_is_shared_as_pictures_with_words_and_as_a_report(runs_dir: Path) -> None:
    make_run(runs_dir, text="<b>$x$</b>")
    app = open_page("run", run=RUN)
    assert downloads(app) == []
    app.button(key="open-share").click().run()
    assert downloads(app) == SHARED
    pictures = [one.proto.body for one in app.get("html") if 'class="dl-shared"' in one.proto.body]
    alts = [re.findall(r'alt="([^"]*)"', picture) for picture in pictures]
    assert len(alts) == 2
    assert all("Does dynamic help?" in alt[0] for alt in alts)
    assert "<b>" not in "".join(pictures)
    assert any(f"dynlora share {RUN}" in block.value for block in app.code)
    app.button(key="open-loss").click().run()
    assert downloads(app) == [], "one dialog at a time"


def screen(app: AppTest) -> str:
    return next(caption.value for caption in app.caption if re.fullmatch(r"\d of \d", caption.value))


def test_a_presentation_has_result_replay_map_errors_and_verdict_and_nothing_else(runs_dir: Path) -> None:
    make_run(runs_dir, extras=True, gates=False, text="<b>$x$</b>")
    make_run(runs_dir, run_id=f"{RUN[:-1]}2", strategy="lora", extras=True, gates=False, text="<b>$x$</b>", moves=False)
    app = open_page("run", run=RUN, present="1")
    assert screen(app) == "1 of 6"
    assert charts(app) == []
    assert app.download_button == []
    assert [button.key for button in app.main.button] == ["present-previous", "present-next", "present-end"]
    assert app.button(key="present-previous").disabled
    app.button(key="present-next").click().run()
    assert screen(app) == "2 of 6"
    assert len(components(app)) == 1
    for title in ("Rank by module over time", "Scores by class", "Loss from"):
        app.button(key="present-next").click().run()
        assert title in words(app)
    app.button(key="present-next").click().run()
    assert verdict_chart(app) is not None
    assert app.button(key="present-next").disabled
    assert app.query_params["present"] == "6"
    app.button(key="present-end").click().run()
    assert "present" not in app.query_params
    assert "Ranks to use" in plain(app)


@pytest.mark.parametrize(("given", "count"), [("9", "5 of 5"), ("x", "1 of 5")])
def test_a_presentation_without_a_verdict_has_fewer_screens_and_any_address_opens_one(
    given: str, count: str, runs_dir: Path
) -> None:
    make_run(runs_dir, state="running", steps=17)
    assert screen(open_page("run", run=RUN, present=given)) == count


def test_a_run_that_is_stopping_says_so_and_can_be_ended_at_once(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(runs_dir, state="running")
    me = this_process()
    request_stop(folder, me.pid, me.start)
    ended: list[str] = []
    monkeypatch.setattr(launch, "end_now", lambda _, run_id: ended.append(run_id))
    app = open_page("run", run=RUN)
    text = plain(app)
    assert "stopping" in text
    assert "loses the 40 steps since the checkpoint of step 0" in text
    assert not [button for button in app.button if button.label == "Stop"]
    app.button(key="end-now").click().run()
    assert ended == [RUN]


def test_the_run_that_a_run_starts_from_is_text_whatever_it_is_called(runs_dir: Path) -> None:
    origin = {"run": None, "name": "<b>small</b>", "which": "last", "step": 3, "parameters": 5, "of": 20, "share": 0.25}
    folder = make_run(runs_dir, about={"origin": origin})
    text = "".join(element.proto.body for element in open_page("run", run=folder.name).get("html"))
    assert "Starts from adapter &lt;b&gt;small&lt;/b&gt;, shrunk to 25 % of its parameters" in text
    assert "<a href" not in text.partition("dl-origin")[2], "there is no run to lead to"


def test_a_run_without_pictures_has_a_sentence_and_its_report(runs_dir: Path) -> None:
    make_run(runs_dir, state="queued", steps=0)
    app = open_page("run", run=RUN)
    app.button(key="open-share").click().run()
    assert downloads(app) == ["Report"]
    assert plain(app).count("The run has not recorded any ranks yet.") == 2


def test_a_run_in_the_queue_presents_its_state(runs_dir: Path) -> None:
    make_run(runs_dir, state="queued", steps=0)
    assert screen(open_page("run", run=RUN, present="2")) == "1 of 1"
