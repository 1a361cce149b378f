"""Opening the dashboard's pages in streamlit's test harness, and reading what they show."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest, local_script_runner

from dynlora.viz.ui import run_picker
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
VERDICT = "chart-verdict"
"""Key of the figure of the verdict."""
PAGES = (
    "home",
    "runs",
    "launch",
    "run",
    "capacity",
    "inputs",
    "compare",
    "playground",
    "shrink",
    "decode",
    "recycle",
    "methods",
    "tour",
)
RUN_PAGES = ("run", "capacity", "inputs", "playground", "shrink")
CATALOG = {
    "strategies": [
        {
            "name": "dynamic",
            "title": "Dynamic LoRA",
            "summary": "Moves rank.",
            "formula": "h = W x",
            "paper": "a paper",
            "fidelity": "reconstruction",
            "cost": "little",
            "doc": "",
            "fields": [
                {
                    "name": "allocation",
                    "type": "str",
                    "optional": False,
                    "default": "rank",
                    "help": "What moves.",
                    "unit": "",
                    "choices": ["rank", "random"],
                },
                {
                    "name": "moves",
                    "type": "int",
                    "optional": True,
                    "default": None,
                    "help": "Moves.",
                    "unit": "components",
                    "choices": [],
                    "ge": 1,
                },
            ],
        },
        {"name": "lora", "title": "LoRA", "summary": "Uniform.", "fidelity": "code", "cost": "none", "fields": []},
    ]
}


def _no_manifests(max_workers: int | None = None) -> list[Any]:
    """Find no components of other packages: a server reads once what every installed package says of itself, AppTest
    at each run of a script, which is two thirds of the time of a page's test."""
    return []


_wait = local_script_runner.require_widgets_deltas


def _wait_for_the_end(runner: Any, timeout: float = 3) -> None:
    """Wait without looking every millisecond, which takes the interpreter from the script that is waited for."""
    runner._script_thread.join(timeout)
    _wait(runner, 0.1 if runner._script_thread.is_alive() else PATIENCE_S)


_run = AppTest._run


def _run_without_exception(self: AppTest, *args: Any, **more: Any) -> AppTest:
    """Run a script and check that nothing broke."""
    _run(self, *args, **more)
    assert not self.exception, [str(error.value) for error in self.exception]
    return self


AppTest._run = _run_without_exception
manifest_scanner.scan_component_manifests = _no_manifests
local_script_runner.require_widgets_deltas = _wait_for_the_end


def open_page(page: str, **address: str | list[str]) -> AppTest:
    """Open a page inside the app, as a link does."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=PATIENCE_S)
    for name, value in address.items():
        app.query_params[name] = value
    return app.switch_page(f"pages/{page}.py").run()


OPENERS = {
    "capacity": {"section": ["transfers", "method", "ablation", "ranks"]},
    "inputs": {"section": ["groups", "examples", "tokens", "shift"]},
    "compare": {"part": ["pairs", "parameters", "retention", "examples"]},
}
"""What opens every part of a page, in its address."""


def open_whole(page: str, **address: str | list[str]) -> AppTest:
    """Open a page with all its parts."""
    return open_page(page, **OPENERS.get(page, {}), **address)


def actions(app: AppTest) -> list[str]:
    """Return the labels of the buttons of a page but those that open a card's table."""
    return [button.label for button in app.button if not str(button.key).startswith("open-")]


def words(app: AppTest) -> str:
    """Return what the page says."""
    kinds = ("title", "caption", "markdown", "error", "warning", "info", "success")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(app, kind))


def plain(app: AppTest) -> str:
    """Return what the page says, without what keeps it from being markup."""
    return words(app).replace("\\", "").replace("\u200b", "")


UNSAFE = re.compile(r"(?<!\\)(<img|\$x|\*\*bold|\[link|`code)|:material/home:|:red\[|:smile:")


def is_text(app: AppTest) -> str:
    """Check that no text of a run is more than text, and return what the page says, without escapes."""
    assert UNSAFE.search(words(app)) is None
    assert re.search(r"<img|\$x|%\{customdata\[0\]\} ", json.dumps(charts(app))) is None
    return plain(app)


def field(controls: Any, label: str) -> Any:
    """Return the control that has a label."""
    return next(control for control in controls if control.label == label)


def press(app: AppTest, label: str) -> AppTest:
    """Press the button of a label."""
    return field(app.button, label).click().run()


def shown_config(app: AppTest) -> dict[str, Any]:
    """Return the configuration that the page shows as a file."""
    return yaml.safe_load(next(code.value for code in app.code if code.language == "yaml"))


def charts(app: AppTest) -> list[dict]:
    """Return the plotly figures on the page but that of the verdict, which comes first where there is one."""
    return [json.loads(one.proto.spec) for one in app.get("plotly_chart") if not one.proto.id.endswith(VERDICT)]


def verdict_chart(app: AppTest) -> dict | None:
    """Return the figure of the verdict; None where nothing could be drawn."""
    drawings = [json.loads(one.proto.spec) for one in app.get("plotly_chart") if one.proto.id.endswith(VERDICT)]
    return next(iter(drawings), None)


def components(app: AppTest, name: str = "replay") -> list[Any]:
    """Return the elements of our own of one name on the page."""
    return [one for one in app.get("bidi_component") if one.proto.component_name == f"dynlora_{name}"]


ALONE = """
import json, sys
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest
manifest_scanner.scan_component_manifests = lambda: []  # a server looks once, and not at each run of a script
for page in json.loads(sys.argv[1]):
    app = AppTest.from_file("app.py", default_timeout=300)
    app.query_params.update(json.loads(sys.argv[2]) | json.loads(sys.argv[3]).get(page, {}))
    app.switch_page(f"pages/{page}.py").run()
    assert not app.exception, app.exception
    assert len(app.dataframe) > 0, page
sys.exit(", ".join({"torch", "transformers", "datasets"} & set(sys.modules)) or 0)
"""


def draw_alone(pages: Sequence[str], runs_dir: Path, **address: str) -> None:
    """Draw pages with their tables in a process of their own and check that it loads neither torch nor data sets."""
    command = [sys.executable, "-c", ALONE, json.dumps(pages), json.dumps(address), json.dumps(OPENERS)]
    environment = {**os.environ, run_picker.RUNS_DIR_VARIABLE: str(runs_dir)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
