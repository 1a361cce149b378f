"""Reports: one file with everything in it, the same bytes for the same run, and text that stays text."""

from __future__ import annotations

import base64
import copy
import gzip
import hashlib
import json
import re
import sqlite3
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dynlora.analysis import retention
from dynlora.analysis.run_reading import read_run
from dynlora.server.serve import sample_runs_dir
from dynlora.store.measurements import KnockedOut, Knockouts
from dynlora.viz.kit.theme import script_json
from dynlora.viz.report import comparison_report, documents, run_report
from dynlora.viz.report.documents import shared
from dynlora.viz.report.page import Part, differences
from tests.command_line import document, run
from tests.viz.runs import GROUPS, HOSTILE, N_MODULES, make_run

pytestmark = pytest.mark.slow  # together: each report holds plotly, packed anew

RUN = "20260101-000000-00000001"
BREAK_OUT = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)><!--<script> $x$ {{plotly}} %{customdata[0]} "
)
MOST_BYTES = 3_000_000
"""What can be mailed; plotly.js is 2 MB of it."""


class Read(HTMLParser):
    """Reads a page: its tags, the addresses in them, its scripts by id, and its words."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.scripts: dict[str, str] = {}
        self.policy = ""
        self.words: list[str] = []
        self._script: str | None = None
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [str(values[name]) for name in ("src", "href", "action", "data") if name in values]
        self.handlers += [name for name in values if name.startswith("on")]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(values["content"])
        if tag == "script":
            self._script = values.get("id") or "loader"

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.words.append(data)
        else:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def charts(self) -> list[dict[str, Any]]:
        return json.loads(self.scripts["charts"])


@pytest.fixture(scope="module")
def sample() -> Path:
    """A finished sample run that moved rank."""
    return next(path for path in sorted(sample_runs_dir().iterdir()) if "dynamic" in _config(path))


def _config(path: Path) -> str:
    file = path / "config.yaml"
    return file.read_text() if file.is_file() else ""


@pytest.fixture(scope="module")
def page(sample: Path) -> bytes:
    """Its report."""
    return run_report(sample)


def test_a_report_holds_all_of_a_run_in_one_small_file(page: bytes, sample: Path) -> None:
    read = Read(page)
    assert len(page) < MOST_BYTES
    for words in (
        "Configuration",
        "Versions, machine and size",
        "Verdict",
        "Differences from the baseline",
        "from peft import LoraConfig",
    ):
        assert words in read.text, words
    assert len(read.charts) == page.count(b'class="plot"') > 12
    assert page == run_report(sample), "the same run must give the same bytes"


def test_no_path_of_this_machine_is_in_a_report(runs_dir: Path) -> None:
    """The configuration in a report named folders of whoever trained the run."""
    folders = []
    for place, name in enumerate(("tickets.csv", "letters.csv")):
        source = {"path": f"/home/someone/secret/{name}", "text": "body", "train_groups": ["/home/someone/secret/a"]}
        config = {
            "name": None,
            "seed": place,
            "model": {"name": "/home/someone/secret/own-model"},
            "data": source,
            "adapter": {"rank": 4},
            "strategy": {"name": "lora"},
            "train": {"steps": 40},
        }
        about = {"config": config, "model": config["model"]["name"], "data": source["path"]}
        folders.append(make_run(runs_dir, run_id=f"{RUN[:-1]}{place}", strategy="lora", extras=True, about=about))
    for page in (run_report(folders[0]), comparison_report(folders), comparison_report(folders[:1] * 2)):
        assert b"someone" not in page
        assert "own-model" in Read(page).text
        assert "tickets.csv" in Read(page).text
    assert "letters.csv" in Read(comparison_report(folders)).text


def test_nothing_is_fetched_and_only_two_scripts_may_run(page: bytes) -> None:
    read = Read(page)
    assert [address for address in read.addresses if not address.startswith(("#part-", "data:,"))] == []
    assert read.handlers == []
    assert list(read.scripts) == ["charts", "plotly", "loader"]
    allowed = re.findall(r"'sha256-[^']+'", read.policy)
    plotly = gzip.decompress(base64.b64decode(read.scripts["plotly"]))
    for script in (plotly, read.scripts["loader"].encode()):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" in allowed
    assert len(allowed) == 2
    assert "default-src 'none'" in read.policy
    assert "unsafe-eval" not in read.policy
    assert "http" not in read.policy


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BREAK_OUT, id="markup", marks=pytest.mark.torture),
        pytest.param(HOSTILE[3] + BREAK_OUT, id="markup in a long text"),
    ],
)
def test_hostile_text_stays_text(text: str, runs_dir: Path) -> None:
    folders = [
        make_run(runs_dir, text=text, extras=True, own=True, error=text, state="failed"),
        make_run(runs_dir, run_id=RUN[:-1] + "2", text=text, strategy="lora", extras=True),
    ]
    effects = tuple(
        one.model_copy(update={"loss": -1e308, "delta": 1e308 * (-1) ** i, "by_group": (1e308, None)})
        for i, one in enumerate(MEASURED.effects)
    )
    MEASURED.model_copy(update={"groups": (text, HOSTILE[3]), "effects": effects}).write(folders[0] / "knockout.json")
    with sqlite3.connect(folders[0] / "run.db") as database:
        for position in range(N_MODULES):
            kind = f"{position}{text}"
            database.execute("UPDATE modules SET name = ?, kind = ? WHERE position = ?", (kind, kind, position))
    database.close()
    assert "Module ablation" in Read(run_report(folders[0])).text
    for page in (run_report(folders[0]), comparison_report(folders)):
        read = Read(page)
        assert len(page) < MOST_BYTES
        assert list(read.scripts) == ["charts", "plotly", "loader"]
        assert not {"img", "iframe", "object", "embed", "form", "base", "svg"} & set(read.tags)
        assert read.tags.count("script") == 3
        assert read.handlers == []
        drawn = json.dumps(read.charts, ensure_ascii=False)
        assert "<img" not in drawn
        assert "<script" not in drawn
        assert "$x" not in drawn
        assert re.search(r"%\{customdata\[0\]\} ", drawn) is None
        assert "\u202e" not in page.decode()


def test_a_gallery_lists_each_run_plays_what_moved_and_stays_text(runs_dir: Path, tmp_path: Path) -> None:
    ids = [RUN, RUN[:-1] + "2"]
    moved, still = ids
    make_run(runs_dir, run_id=moved, text=BREAK_OUT)
    make_run(runs_dir, run_id=still, text="second", strategy="lora", moves=False)
    out = tmp_path / "site" / "runs"
    written = document(run(runs_dir, "gallery", str(out), *ids, "--title", BREAK_OUT, "--json"))
    assert sorted(written["files"]) == sorted(path.name for path in out.iterdir())
    first = Read((out / "index.html").read_bytes())
    assert [address for address in first.addresses if address.endswith(".html")] == [
        "comparison.html",
        *(f"{run_id}.html" for run_id in ids),
    ]
    pages = [first, *(Read((out / f"{run_id}.html").read_bytes()) for run_id in ids)]
    for read in pages:
        own = [address for address in read.addresses if not address.startswith(("data:", "#part-"))]
        assert all((out / address).is_file() for address in own)
        assert read.handlers == []
        assert "img-src data: blob: 'self';" in read.policy
    assert "script" not in first.tags
    assert [read.tags.count("img") for read in pages] == [2, 1, 1]
    refused = run(runs_dir, "gallery", str(out / "index.html"), ids[0])
    assert refused.exit_code == 2
    for name in ("index.html", f"{moved}.html"):
        (picture,) = re.findall(
            rf"<picture[^>]*>(?:(?!</picture>).)*src=\"{moved}.*?</picture>", (out / name).read_text(), re.DOTALL
        )
        assert re.findall(r'media="([^"]*)" srcset="([^"]*)"', picture) == [
            ("(prefers-reduced-motion: reduce) and (prefers-color-scheme: dark)", f"{moved}-map-dark.png"),
            ("(prefers-reduced-motion: reduce)", f"{moved}-map-light.png"),
            ("(prefers-color-scheme: dark)", f"{moved}-moving-dark.gif"),
        ]
        assert f'src="{moved}-moving-light.gif" alt="The rank of 12 modules from step 0 to 40, ' in picture
    page = (out / f"{still}.html").read_text()
    assert f'src="{still}-map-light.png" alt="Map of the rank of 12 modules' in page
    assert f"{still}-moving" not in page
    for mode in ("light", "dark"):
        with Image.open(out / f"{moved}-moving-{mode}.gif") as image:
            assert getattr(image, "n_frames", 1) > 10
    alone = run_report(runs_dir / moved).decode()
    assert "<img" not in alone
    assert "This file is complete and loads nothing" in alone


def test_a_gallery_replaces_nothing_but_a_gallery(runs_dir: Path, tmp_path: Path) -> None:
    """The user's `index.html` was replaced without a word, also behind a link."""
    make_run(runs_dir, strategy="lora", moves=False)
    site, link = tmp_path / "site", tmp_path / "link"
    for title in ("first", "again"):
        document(run(runs_dir, "gallery", str(site), RUN, "--title", title, "--json"))
        assert title in (site / "index.html").read_text()
    link.symlink_to(site)
    for name in ("index.html", "notes.txt"):
        (site / "index.html").unlink()
        (site / name).write_text("mine")
        for out in (site, link):
            refused = run(runs_dir, "gallery", str(out), RUN)
            assert refused.exit_code == 2
            assert refused.stderr == f"Error: OUT {out}: exists and is not an empty folder; give another name\n"
        assert (site / name).read_text() == "mine"


def test_what_is_no_training_has_its_report_in_a_gallery(tmp_path: Path) -> None:
    sample = next(path for path in sorted(sample_runs_dir().iterdir()) if _config(path).startswith("kind: decode"))
    out = tmp_path / "site"
    report = document(run(sample.parent, "gallery", str(out), sample.name, "--json"))
    assert sorted(report["files"]) == [f"{sample.name}.html", "index.html"]
    assert "<img" not in (out / "index.html").read_text()


@pytest.mark.parametrize(("state", "steps"), [("queued", 0), ("running", 0), ("failed", 17), ("stopped", 17)])
def test_every_state_of_a_run_has_a_report(state: str, steps: int, runs_dir: Path) -> None:
    folder = make_run(runs_dir, state=state, steps=steps, gates=False, error="the disk is full")
    read = Read(run_report(folder))
    assert state in read.text
    assert "Configuration" in read.text
    assert bool(read.charts) == (state != "queued")
    assert ("Training loss" in read.text) == (steps > 0)


def test_a_comparison_holds_the_paired_seeds_the_configuration_and_the_versions(runs_dir: Path) -> None:
    folders = [
        make_run(runs_dir, run_id=f"20260101-000000-0000000{i}", seed=i % 2, strategy=name, gates=False, extras=True)
        for i, name in enumerate(["dynamic", "dynamic", "lora", "lora"])
    ]
    for folder in folders:
        made_with(folder, {"torch": "2.9.1+cpu", "python": "3.11.9", "cpu": "a processor"})
    read = Read(comparison_report(folders))
    alike = next(words for words in read.words if "model:" in words)
    assert alike.splitlines() == [
        "name: null",
        "model:",
        "  name: minilm",
        "data:",
        "  name: sentiment4",
        "  metric: auto",
        "adapter:",
        "  rank: 4",
        "train:",
        "  steps: 40",
    ]
    for words in (
        "Paired over 2 common seeds",
        "strategy.name",
        "2.9.1+cpu",
        "3.11.9",
        "a processor",
    ):
        assert words in read.text, words
    assert sum(len(words) for name, words in read.scripts.items() if name != "plotly") < 400_000


def made_with(folder: Path, machine: dict[str, str]) -> None:
    """Write the versions and the machine of a run into it."""
    with sqlite3.connect(folder / "run.db") as database:
        database.execute("INSERT OR REPLACE INTO meta VALUES ('machine', ?)", (json.dumps(machine),))
    database.close()


def test_what_configurations_share_is_what_no_run_has_otherwise() -> None:
    first = {"seed": 0, "train": {"steps": 40, "lr": 1.0}, "data": {"name": "a"}, "model": {}, "only": 1, "on": True}
    second = {"seed": 1, "train": {"steps": 40, "lr": 2.0}, "data": {"name": "b"}, "model": {}, "on": 1}
    assert shared([first, second]) == {"train": {"steps": 40}, "model": {}}
    assert shared([first, first, first]) == first
    assert shared([first, {}]) == {}
    assert shared([{"data": {"name": "a"}}, {"data": "a"}]) == {}


MEASURED = Knockouts(
    which="last",
    step=40,
    rows=512,
    loss=0.6,
    groups=GROUPS,
    n_modules=N_MODULES,
    effects=tuple(
        KnockedOut(
            modules=(i,),
            loss=0.6 + 0.01 * i,
            delta=0.01 * i,
            low=0.01 * i - 0.005,
            high=0.01 * i + 0.005,
            changed=i / 100,
        )
        for i in range(12)
    ),
)


def test_knock_outs_that_do_not_fit_the_run_are_not_in_its_report(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(runs_dir)
    plain, file = run_report(folder), folder / "knockout.json"

    def part() -> Part:
        return documents.panel_part("Module ablation", documents.document_view(read_run(folder)))

    nothing = part()
    assert nothing.blocks == []
    for measured in (MEASURED.model_copy(update={"effects": ()}), MEASURED.model_copy(update={"n_modules": 13})):
        measured.write(file)
        assert part() == nothing
    assert run_report(folder) == plain
    for content in ("", "[]", "{", '{"format": 1}', file.read_text().replace("512", '"512"')):
        file.write_text(content)
        assert part() == nothing
    MEASURED.model_copy(update={"step": 20}).write(file)
    assert "The run is now at step 40" in str(part())
    monkeypatch.setattr(retention, "knockout_file", nowhere)
    assert part() == nothing


def nowhere(_: Path) -> Path:
    """Find no place for ablations, as on a disk where nothing may be written."""
    raise PermissionError


def test_a_large_run_is_still_mailed(runs_dir: Path) -> None:
    folder = make_run(runs_dir, steps=3000, extras=True)
    assert len(run_report(folder)) < MOST_BYTES


def test_the_command_writes_reports_and_refuses_in_a_sentence(runs_dir: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        make_run(runs_dir, run_id=f"20260101-000000-0000000{number}", seed=number)
    out = tmp_path / "report.html"
    report = document(run(runs_dir, "report", RUN, "--out", str(out), "--json"))
    assert report == {"runs": [RUN], "out": str(out), "bytes": out.stat().st_size}
    assert RUN.encode() in out.read_bytes()
    ids = [RUN, RUN[:-1] + "2", RUN]
    assert document(run(runs_dir, "report", *ids, "--out", str(out), "--json"))["runs"] == ids[:2]
    assert b"Comparison of 2 runs" in out.read_bytes()
    for arguments, words in (
        (["20260101-000000-00000009", "--out", str(out)], "20260101-000000-00000009"),
        ([RUN, "--out", str(tmp_path / "no" / "report.html")], "no/report.html: its folder does not exist"),
        ([f"r{i}" for i in range(51)] + ["--out", str(out)], "at most 50"),
        ([RUN], "--out"),
    ):
        result = run(runs_dir, "report", *arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert words in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.html"]


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=4)),
    max_leaves=12,
)


@given(first=PLAIN, second=PLAIN)
def test_the_differences_make_the_second_of_the_first(first: Any, second: Any) -> None:
    rebuilt = {"it": copy.deepcopy(first)}
    for place, value in differences({"it": first}, {"it": second}):
        owner: Any = rebuilt
        for key in place[:-1]:
            owner = owner[key]
        owner[place[-1]] = value
    assert rebuilt["it"] == second


@given(value=PLAIN)
def test_json_in_a_script_ends_nothing_and_reads_back(value: Any) -> None:
    written = script_json(value)
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == value
