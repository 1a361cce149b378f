"""Opening the dashboard's pages in streamlit's test harness, and reading what they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
VERDICT = "chart-verdict"
"""Key of the figure of the verdict."""
PAGES = ("home", "runs", "launch", "run", "capacity", "inputs", "compare", "playground", "methods", "tour")
RUN_PAGES = ("run", "capacity", "inputs", "playground")
CATALOG = {
    "strategies": [
        {
            "name": "dynamic", "title": "Dynamic LoRA", "summary": "Moves rank.", "formula": "h = W x",
            "paper": "a paper",
            "fidelity": "reconstruction", "cost": "little", "doc": "",
            "fields": [
                {"name": "allocation", "type": "str", "optional": False, "default": "rank", "help": "What moves.",
                 "unit": "", "choices": ["rank", "random"]},
                {"name": "moves", "type": "int", "optional": True, "default": None, "help": "Moves.",
                 "unit": "components", "choices": [], "ge": 1},
            ],
        },
        {"name": "lora", "title": "LoRA", "summary": "Uniform.", "fidelity": "code", "cost": "none", "fields": []},
    ]
}  # fmt: skip


def open_page(page: str, **address: str | list[str]) -> AppTest:
    """Open a page inside the app, as a link does."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=PATIENCE_S)
    for name, value in address.items():
        app.query_params[name] = value
    app.switch_page(f"pages/{page}.py").run()
    assert not app.exception, [str(error.value) for error in app.exception]
    return app


def words(app: AppTest) -> str:
    """Return what the page says."""
    kinds = ("title", "caption", "markdown", "error", "warning", "info", "success")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(app, kind))


def charts(app: AppTest) -> list[dict]:
    """Return the plotly figures on the page but that of the verdict, which comes first where there is one."""
    return [json.loads(one.proto.spec) for one in app.get("plotly_chart") if not one.proto.id.endswith(VERDICT)]


def verdict_chart(app: AppTest) -> dict | None:
    """Return the figure of the verdict; None where nothing could be drawn."""
    found = [json.loads(one.proto.spec) for one in app.get("plotly_chart") if one.proto.id.endswith(VERDICT)]
    return next(iter(found), None)


def components(app: AppTest, name: str = "replay") -> list[Any]:
    """Return the elements of our own of one name on the page."""
    return [one for one in app.get("bidi_component") if one.proto.component_name == f"dynlora_{name}"]
