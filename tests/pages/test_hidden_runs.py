"""An eye hides a run from the charts of Compare, a button from the list of runs; the address says which."""

from __future__ import annotations

from pathlib import Path

from streamlit.testing.v1 import AppTest

from tests.pages.app import charts, open_page, words
from tests.pages.test_run_panel import pick
from tests.viz.runs import make_run

IDS = [f"20260101-000000-0000000{number}" for number in range(3)]
STRATEGIES = ("sora", "dynamic", "adalora")


def three_runs(runs_dir: Path) -> None:
    for run_id, strategy in zip(IDS, STRATEGIES, strict=True):
        make_run(runs_dir, run_id=run_id, text=f"run of {strategy}", strategy=strategy, moves=strategy != "sora")


def colours_of(app: AppTest) -> dict[str, str]:
    """Return the colour of each line in the chart of the loss, by its strategy."""
    lines = [line for line in charts(app)[0]["data"] if line.get("showlegend")]
    colours = {name: line["line"]["color"] for line in lines for name in STRATEGIES if name in line["name"]}
    assert len(colours) == len(lines)
    return colours


def test_an_eye_hides_a_run_and_all_colours_stay(runs_dir: Path) -> None:
    three_runs(runs_dir)
    app = open_page("compare", runs=",".join(IDS))
    before = colours_of(app)
    assert set(before) == set(STRATEGIES)
    app.button_group(key="eyes").set_value([IDS[0], IDS[2]]).run()
    assert "".join(app.query_params["hide"]) == IDS[1]
    assert colours_of(app) == {name: colour for name, colour in before.items() if name != "dynamic"}
    app.button_group(key="eyes").set_value(IDS).run()
    assert "hide" not in app.query_params
    assert colours_of(app) == before


def test_a_link_that_hides_all_runs_or_none_that_there_are_shows_them(runs_dir: Path) -> None:
    three_runs(runs_dir)
    for hide in (",".join(IDS), "gone,<b>,,"):
        assert len(colours_of(open_page("compare", runs=",".join(IDS), hide=hide))) == 3


def test_a_hidden_run_leaves_the_list_until_it_is_shown_again(runs_dir: Path) -> None:
    three_runs(runs_dir)
    app = pick(open_page("runs", sort="name"), [1], [])
    app.button(key="hide").click().run()
    assert app.dataframe[0].value["id"].tolist() == [IDS[2], IDS[0]]
    assert "".join(app.query_params["hide"]) == IDS[1]
    assert "1 hidden" in words(app)
    app.button(key="show-hidden").click().run()
    assert "hide" not in app.query_params
    assert len(app.dataframe[0].value) == 3
