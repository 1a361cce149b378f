"""Who may speak to the dashboard, and what its server is started with."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from starlette.websockets import WebSocket, WebSocketDisconnect

from dynlora.cli.main import main
from dynlora.errors import ConfigError
from dynlora.jobs import environment
from dynlora.jobs import spawn as children
from dynlora.server import serve
from dynlora.server.host_check import (
    HOSTS_VARIABLE,
    LOCAL,
    SPACE_VARIABLE,
    OwnPagesOnly,
    is_local,
    is_own_page,
    is_welcome,
    served_names,
)

HERE = "127.0.0.1:8501"
TOKEN = "0123456789abcdef-token"


@pytest.mark.parametrize("host", [HERE, "localhost:8501", "LOCALHOST.:8501", "[::1]:8501", "[0:0:0:0:0:0:0:1]:8501"])
def test_own_pages_pass(host: str) -> None:
    assert is_welcome(host, None, LOCAL)
    assert is_welcome(host, f"http://{host}", LOCAL)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "127.0.0.1.evil.example:8501",
        "evil@127.0.0.1:8501",
        "127.0.0.1:99999",
        "127.0.0.1:x",
        "127.0.0.1/evil",
        "localhost.evil",
        "0.0.0.0:8501",
        "[::1",
        "127.0.0.1:8501, evil.example",
        "\u2488.example",
    ],
)
def test_a_name_that_is_not_this_machines_is_refused(host: str | None) -> None:
    assert not is_welcome(host, None, LOCAL)


@pytest.mark.parametrize(
    "origin",
    [
        "http://127.0.0.1:8502",
        "http://localhost:8501",
        "http://127.0.0.1",
        "null",
        "",
        "file://",
        "http://evil.example",
        "http://127.0.0.1:8501.evil.example",
        "http://a@127.0.0.1:8501",
        "chrome-extension://127.0.0.1:8501",
        "http://[",
    ],
)
def test_a_page_of_another_port_or_place_is_refused(origin: str) -> None:
    """Streamlit lets any port of this machine open a web socket: a notebook's page could start runs."""
    assert not is_welcome(HERE, origin, LOCAL)


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_text_in_a_header_gets_through_or_breaks(host: str, origin: str) -> None:
    assert not is_welcome(host, origin, ["only.this.name"])
    assert not is_own_page(HERE, origin)


def answer(headers: list[tuple[bytes, bytes]], kind: str = "http") -> list[dict[str, Any]]:
    """Return what the door sends for a request, `passed` when it let it through."""
    sent: list[Any] = []

    async def inside(*_: Any) -> None:
        sent.append({"type": "passed"})

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(OwnPagesOnly(inside)({"type": kind, "headers": headers}, receive, send))
    return sent


def test_the_door_refuses_before_anything_is_read() -> None:
    assert answer([(b"host", HERE.encode())]) == [{"type": "passed"}]
    assert answer([], "lifespan") == [{"type": "passed"}]
    for headers in ([], [(b"host", b"evil.example")], [(b"host", HERE.encode()), (b"host", b"evil.example")]):
        assert answer(headers)[0]["status"] == 403
        assert answer(headers, "websocket") == [{"type": "websocket.close", "code": 1008}]


def headers_of(inner: list[tuple[bytes, bytes]], host: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers of the door's answer to a request when the app inside answers with its own."""
    sent: list[Any] = []

    async def inside(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": inner})
        await send({"type": "http.response.body", "body": b"a page"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    asyncio.run(OwnPagesOnly(inside)({"type": "http", "headers": [(b"host", host)]}, receive, send))
    assert sent[1]["type"] == "http.response.body"
    return list(sent[0]["headers"])


@pytest.mark.parametrize("host", [HERE.encode(), b"evil.example"])
def test_no_page_of_somebody_elses_shows_the_dashboard_in_a_frame(host: bytes) -> None:
    """A page could lay its own words over the button that deletes a run."""
    headers = headers_of([(b"x-own", b"1"), (b"X-Frame-Options", b"SAMEORIGIN")], host)
    for name, value in {
        b"x-frame-options": b"DENY",
        b"content-security-policy": b"frame-ancestors 'none'",
        b"x-content-type-options": b"nosniff",
    }.items():
        assert [header_value for header, header_value in headers if header.lower() == name] == [value]
    assert ((b"x-own", b"1") in headers) == (host == HERE.encode())


def test_a_socket_gets_no_headers_of_a_page() -> None:
    assert answer([(b"host", HERE.encode())], "websocket") == [{"type": "passed"}]


def test_the_server_itself_sends_the_headers() -> None:
    """What streamlit serves of its own, and what it refuses, carries them too."""
    from starlette.testclient import TestClient

    from dynlora.server.asgi import app

    client = TestClient(app, base_url=f"http://{HERE}")
    for path in ("/", "/_stcore/health", "/nothing/at/all.js"):
        response = client.get(path)
        assert response.headers["x-frame-options"] == "DENY", (path, response.status_code)
        assert response.headers["content-security-policy"] == "frame-ancestors 'none'"
        assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("", False),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("box.example", False),
        ("localhost.evil", False),
    ],
)
def test_an_address_that_others_reach_is_told_from_this_machines_own(host: str, local: bool) -> None:
    assert is_local(host) is local


def test_bound_to_everything_it_answers_to_this_machines_names_only() -> None:
    names = served_names("0.0.0.0")
    assert set(LOCAL) < set(names)
    assert "0.0.0.0" not in names
    assert served_names("box.example") == ("box.example", *LOCAL)
    assert not is_welcome("evil.example:8501", None, names)


@pytest.mark.parametrize(("name", "is_known"), [("owner-dynlora.hf.space", True), ("evil.example", False)])
def test_in_a_space_it_answers_to_the_name_of_the_space(
    name: str, is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SPACE_VARIABLE, name)
    assert is_welcome(name, f"https://{name}", served_names("0.0.0.0")) is is_known
    assert not is_welcome(name, None, served_names("127.0.0.1"))


def test_bound_elsewhere_it_is_read_only_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.TOKEN_VARIABLE, "a stale one of the shell")
    variables, notice = serve.server_environment(tmp_path, "127.0.0.1", TOKEN)
    assert (notice, variables.get("DYNLORA_READ_ONLY"), variables.get(environment.TOKEN_VARIABLE)) == ("", None, None)
    variables, notice = serve.server_environment(tmp_path, "192.0.2.1", None)
    assert (variables["DYNLORA_READ_ONLY"], variables.get(environment.TOKEN_VARIABLE)) == ("1", None)
    assert "read-only" in notice
    assert variables[HOSTS_VARIABLE] == "192.0.2.1,127.0.0.1,localhost,::1"
    variables, notice = serve.server_environment(tmp_path, "192.0.2.1", TOKEN)
    assert (variables["DYNLORA_READ_ONLY"], variables[environment.TOKEN_VARIABLE]) == ("1", TOKEN)
    assert TOKEN not in notice


def test_the_token_is_in_no_list_of_arguments_and_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.TOKEN_VARIABLE, TOKEN)
    assert TOKEN not in " ".join(serve.server_command("0.0.0.0", 8501))
    assert TOKEN not in children.child_environment().values()


def test_no_address_of_this_machine_is_asked_for_on_the_internet() -> None:
    """Bound elsewhere, streamlit asked checkip.amazonaws.com which address this machine has."""
    assert any(part.startswith("--browser.serverAddress=") for part in serve.server_command("0.0.0.0", 8501))


def test_tokens_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environment.TOKEN_VARIABLE, raising=False)
    monkeypatch.setattr(serve, "WRONG_COSTS_S", 0.0)
    assert serve.read_token(None) is None
    assert not serve.is_token("")
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert serve.read_token(file) == TOKEN
    monkeypatch.setenv(environment.TOKEN_VARIABLE, TOKEN)
    assert serve.read_token(None) == TOKEN
    assert serve.is_token(TOKEN)
    for wrong in ("", TOKEN[:-1], TOKEN + "0", TOKEN.upper(), "\ud800", "é" * 20):
        assert not serve.is_token(wrong)


@pytest.mark.parametrize("content", [None, b"", b"short", b"x" * 600, b"\xff" * 20, b"two lines of\na token in it"])
def test_a_token_that_cannot_be_one_is_refused_without_showing_it(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="--token-file"):
        serve.read_token(file)
    done = CliRunner().invoke(main, ["ui", "--host", "0.0.0.0", "--token-file", str(file)])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "two lines" not in done.stderr


def test_a_socket_that_sends_text_is_closed_without_an_error() -> None:
    """Streamlit's socket reads bytes alone: what it raised for text left a traceback in the server's log."""
    sent: list[Any] = []
    frames: list[bytes] = []
    incoming = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "bytes": b"one"},
        {"type": "websocket.receive", "text": "two"},
    ]

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        with suppress(WebSocketDisconnect):
            while True:
                frames.append(await socket.receive_bytes())
        await send({"type": "websocket.send", "bytes": b"from a task that has not ended"})

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "headers": [(b"host", HERE.encode())]}
    asyncio.run(OwnPagesOnly(inside)(scope, receive, send))
    assert frames == [b"one"]
    assert [(message["type"], message.get("code")) for message in sent] == [
        ("websocket.accept", None),
        ("websocket.close", 1003),
    ]
