"""A page of another port, a name that was rebound, and requests by hand: none of them gets into the dashboard."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.browser.chromium import find_chromium
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.browser.conftest import Window

ATTACK = """
async (target) => {
  const found = {};
  const socket = (protocols) => new Promise((done) => {
    const one = new WebSocket(target.replace("http", "ws") + "/_stcore/stream", protocols);
    one.onopen = () => done("open");
    one.onerror = () => done("refused");
  });
  const request = async (options, path) => {
    try {
      const answer = await fetch(target + path, options);
      return answer.type === "opaque" ? "sent, unreadable" : "read " + answer.status;
    } catch { return "refused"; }
  };
  found.socket = await socket(["streamlit"]);
  found.bare_socket = await socket([]);
  found.read = await request({}, "/_stcore/health");
  found.put = await request({method: "PUT", headers: {"X-Xsrftoken": "x"}, body: "x", credentials: "include"},
                            "/_stcore/upload_file/a/b");
  found.post = await request({method: "POST", body: "x"}, "/_stcore/upload_file/a/b");
  found.delete = await request({method: "DELETE", credentials: "include"}, "/_stcore/upload_file/a/b");
  return found;
}
"""


class _Elsewhere(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>elsewhere</title>")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A page of somebody else's, on another port of this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def status(server: str, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """Return the status and body of a request whose headers were written by hand."""
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=PATIENCE_S)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": urlsplit(server).netloc, "Content-Length": "0", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read(4000) if answer.status != 101 else b""
    finally:
        connection.close()


def handshake(server: str, **headers: str) -> int:
    """Return the status of a web socket's opening."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    return status(server, "/_stcore/stream", **upgrade, **{"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}, **headers)[
        0
    ]


def test_nobody_else_gets_in(server: str, elsewhere: str, browser: Browser, window: Window, page: Page) -> None:
    own = urlsplit(server).netloc
    assert handshake(server, Origin=server) == 101
    for refused in (elsewhere, "null", "http://evil.example", "https://" + own + ".evil.example"):
        assert handshake(server, Origin=refused) == 403, refused
    for path in ("/", "/run", "/_stcore/health", "/_stcore/host-config", "/media/x", "/component/x/y"):
        code, body = status(server, path, Host="evil.example")
        assert code == 403, path
        assert b"Traceback" not in body
    assert status(server, "/_stcore/upload_file/a/b", "PUT")[0] == 403, "XSRF is on"
    assert status(server, "/_stcore/upload_file/a/b", "PUT", X_Xsrftoken="x", Cookie="_streamlit_xsrf=y")[0] == 403
    for path in ("/%2e%2e/%2e%2e/etc/passwd", "/..%5c..%5cwindows/win.ini", "//evil/share", "/\\\\evil\\share"):
        code, body = status(server, path)
        assert b"root:" not in body, path
        assert b"Traceback" not in body, path

    stranger = window().new_page()
    stranger.goto(elsewhere)
    answers = stranger.evaluate(ATTACK, server)
    stranger.context.close()
    assert set(answers.values()) == {"refused"}, answers

    rebound = browser.browser_type.launch(
        executable_path=find_chromium(),
        args=[
            "--no-sandbox",
            "--disable-gpu",
            f"--host-resolver-rules=MAP evil.example 127.0.0.1:{urlsplit(server).port}",
        ],
    )
    answer = rebound.new_page().goto("http://evil.example/")
    assert answer is not None
    assert answer.status == 403
    rebound.close()

    page.goto(server)
    page.get_by_role("link", name="Launch").first.wait_for()
