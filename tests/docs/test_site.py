"""The site has a page or an entry for everything a user can name, and asks no other machine."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from dynlora import config, strategies
from dynlora.cli.main import main
from dynlora.server import docs_site
from dynlora.viz.ui.frame import EXPLAINED_BY
from tests.waiting import PATIENCE_MS, PATIENCE_S, until
from tools.docs import pages, tables

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return pages.generated()


@pytest.mark.parametrize("name", strategies.registry())
def test_every_method_has_its_page_with_formula_and_every_setting(name: str, generated: dict[str, str]) -> None:
    page, described = generated[f"methods/{name}.md"], strategies.describe(name)
    assert described["formula"] in page
    assert described["summary"] in page
    assert [field["name"] for field in described["fields"] if f"| `{field['name']}` |" not in page] == []


@pytest.mark.parametrize("name", main.commands)
def test_every_command_and_option_is_on_the_page_of_the_command_line(name: str, generated: dict[str, str]) -> None:
    section = re.split(r"^## ", generated["reference/cli.md"].split(f"\n## {name}\n", 1)[1], flags=re.MULTILINE)[0]
    parameters = [parameter for parameter in main.commands[name].params if not getattr(parameter, "hidden", False)]
    options = [option for parameter in parameters for option in parameter.opts if option[:1] == "-"]
    assert [option for option in options if option not in section] == []


@pytest.mark.parametrize("key", config.config_keys())
def test_every_setting_is_on_the_page_of_the_configuration(key: str, generated: dict[str, str]) -> None:
    expected = r"\| `strategy\.name` \|" if key.startswith("strategy.") else rf"\| `{re.escape(key)}` \| [^|]+ \| [^|]"
    assert re.search(expected, generated["reference/config.md"])


def test_the_overview_of_methods_lists_each_one() -> None:
    listed = set(re.findall(r"^\| \[?`(\w+)`", (ROOT / "docs" / "METHODS.md").read_text("utf-8"), re.MULTILINE))
    assert set(strategies.registry()) <= listed


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_and_pictures_at_the_top_of_the_repository_are_there(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    links = re.findall(r"\]\(([^)#]+)", text) + re.findall(r'src="([^"]+)"', text)
    assert [path for path in links if "://" not in path and not (ROOT / path).exists()] == []


def test_pictures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs" / "images").iterdir()}
    assert [name for name, size in sizes.items() if size > 3_000_000] == []


def test_notes_belong_to_methods() -> None:
    assert {path.stem for path in pages.NOTES.glob("*.md")} <= set(strategies.registry())


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_tables_are_those_of_the_benchmarks_and_the_code(path: Path) -> None:
    text = path.read_text("utf-8")
    assert tables.renewed(text) == text, "python -m tools.docs.tables writes them again"


class _Fetched(HTMLParser):
    """Addresses that a browser asks for by itself: everything but links to follow."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"a": (), "link": ("href",)}.get(tag, ("src", "srcset", "href", "data", "poster"))
        self.addresses += [value for name, value in attrs if name in names and value]


@pytest.mark.journey
def test_no_page_or_style_names_another_machine_to_fetch_from(site: Path) -> None:
    broken = []
    for path in site.rglob("*.html"):
        parser = _Fetched()
        parser.feed(path.read_text("utf-8"))
        broken += [f"{path.name}: {address}" for address in parser.addresses if re.match(r"(https?:)?//", address)]
    for path in site.rglob("*.css"):
        broken += [
            f"{path.name}: {address}" for address in re.findall(r"url\([\"']?(?:https?:)?//[^)]+", path.read_text())
        ]
    assert broken == []


@pytest.mark.journey
def test_formulas_are_drawn_and_none_is_left_as_source(site: Path) -> None:
    for name in strategies.registry():
        text = (site / "methods" / f"{name}.html").read_text("utf-8")
        assert "<math" in text, name
        assert "$$" not in text, name
        assert "<merror" not in text, name


@pytest.fixture
def served(site: Path) -> Iterator[int]:
    with docs_site.server(site, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.journey
@pytest.mark.browser
def test_a_browser_reads_and_searches_it_without_another_machine(browser: Browser, served: int) -> None:
    origin = f"http://127.0.0.1:{served}"
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    for path in ("index", "methods/dynamic", "RESULTS", "reference/python"):
        page.goto(f"{origin}/{path}.html", wait_until="networkidle")
    page.goto(f"{origin}/index.html")
    search = page.get_by_label("Search").first
    search.click()

    def is_found() -> bool:
        search.fill("")
        search.press_sequentially("reallocation")  # the page listens to keys, from when its search is loaded
        return page.locator(".md-search-result__item").count() > 0

    until(is_found, "a result of the search", pause_s=0.5)
    assert [url for url in requests if not url.startswith((origin, "data:", "blob:"))] == []
    page.close()


@pytest.mark.journey
def test_it_is_served_under_this_machines_own_name_only(served: int) -> None:
    for host, expected in ((f"127.0.0.1:{served}", 200), ("localhost", 200), ("rebound.example", 403)):
        connection = http.client.HTTPConnection("127.0.0.1", served, timeout=PATIENCE_S)
        connection.request("GET", "/index.html", headers={"Host": host})
        assert connection.getresponse().status == expected
        connection.close()


def test_odd_requests_are_not_found_and_leave_no_trace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.html").write_text("page")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "secret.png").touch()
    with docs_site.server(tmp_path, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        for path in ("/%00", "/images/", "/a%00b.html", "/nothing.html"):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=PATIENCE_S)
            connection.request("GET", path)
            answered = connection.getresponse()
            assert (answered.status, b"secret" in answered.read()) == (404, False), path
            connection.close()
        with socket.socket() as request:
            try:
                raise ConnectionResetError("the browser left")
            except ConnectionResetError:
                server.handle_error(request, ("127.0.0.1", 1))
        server.shutdown()
        thread.join()
    assert capfd.readouterr().err == ""


def test_a_taken_port_is_told_before_a_site_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def built() -> Path:
        raise AssertionError("it was built")

    monkeypatch.setattr(docs_site, "ready", built)
    with docs_site.server(tmp_path, 0) as first:
        result = CliRunner().invoke(main, ["docs", "--port", str(first.server_port)])
    assert result.exit_code == 2
    assert "give another port" in result.output


def test_a_site_that_is_not_there_is_one_sentence_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs_site, "app_root", lambda: tmp_path)
    result = CliRunner().invoke(main, ["docs"])
    assert result.exit_code == 2
    assert result.output.splitlines() == [f"Error: {docs_site.not_built()}"]


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with docs_site.server(tmp_path, 0) as first, pytest.raises(docs_site.DynloraError, match="give another port"):
        docs_site.server(tmp_path, first.server_port)


@pytest.mark.journey
def test_the_dashboard_serves_it_too(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(Starlette(routes=[Mount(docs_site.MOUNTED_AT, docs_site.answer)]))
    monkeypatch.setattr(docs_site, "site_dir", lambda: site)
    assert "<math" in client.get(docs_site.docs_url("methods/dynamic")).text
    assert client.get("/docs/").status_code == 200
    assert client.get("/docs/nothing.html").status_code == 404
    monkeypatch.setattr(docs_site, "site_dir", lambda: site / "nowhere")
    answered = client.get("/docs/guides/compare.html")
    assert (
        answered.text == f"{docs_site.not_built()}.\n\n{(ROOT / 'docs' / 'guides' / 'compare.md').read_text('utf-8')}"
    )
    for path in ("/docs/nothing.html", "/docs/%2e%2e/pyproject.html", "/docs/..%2fSECURITY.html"):
        assert client.get(path).status_code == 404


@pytest.mark.journey
def test_links_from_the_dashboard_reach_pages(site: Path) -> None:
    assert docs_site.docs_url("methods/dynamic", "settings") == "/docs/methods/dynamic.html#settings"
    assert [page for page in EXPLAINED_BY.values() if not (site / f"{page}.html").is_file()] == []
    assert set(EXPLAINED_BY) <= {path.stem for path in (ROOT / "pages").glob("*.py")}
