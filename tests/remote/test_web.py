"""Runs on a web server are fetched like any other, and a server that does as it likes is read within limits."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dynlora.errors import ConfigError, CorruptRunError, RemoteError
from dynlora.remote.contents import MANIFEST_NAME, MAX_BYTES
from dynlora.remote.place import MAX_PAGE, Place
from dynlora.remote.sync import manifests, pull, push, run_ids
from tests.remote.places import files_of
from tests.store.builder import finished_run


@contextmanager
def served(handler: Any) -> Generator[str]:
    """Lend the address of a server on the loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, whole files whatever part is asked for."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Endless(BaseHTTPRequestHandler):
    """Sends zeros until the client goes, whatever is asked for, and counts them."""

    sent = 0

    def do_GET(self) -> None:
        """Send without end."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        try:
            while True:
                Endless.sent += self.wfile.write(bytes(2**16))
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def there(runs_dir: Path, tmp_path: Path) -> Path:
    """A folder that two runs were sent to."""
    for name in ("a-run", "b-run"):
        push(finished_run(runs_dir, 20, name), Place(str(tmp_path / "there")))
    return tmp_path / "there"


def test_a_run_is_fetched_from_a_web_server(there: Path, runs_dir: Path, tmp_path: Path) -> None:
    with served(partial(Quiet, directory=str(there))) as url:
        place = Place(url)
        assert run_ids(place) == ["a-run", "b-run"] == list(manifests(place))
        assert pull(place, "a-run", tmp_path / "here").status == "fetched"
        assert files_of(tmp_path / "here" / "a-run") == files_of(runs_dir / "a-run")
        with pytest.raises(RemoteError, match="has no run 'c-run'"):
            pull(place, "c-run", tmp_path / "here")


def test_a_server_without_end_is_read_no_further_than_the_limits(tmp_path: Path) -> None:
    with served(Endless) as url:
        place = Place(url)
        with pytest.raises(CorruptRunError, match=f"has more than {MAX_BYTES:,} bytes"):
            place.read(MANIFEST_NAME, MAX_BYTES)
        with pytest.raises(CorruptRunError, match=f"its page has more than {MAX_PAGE:,} bytes"):
            place.folders()
        with pytest.raises(CorruptRunError, match="is not the file that was sent"):
            place.fetch("weights", tmp_path / "weights", 5 * 2**20 + 1, "0" * 64)
    assert (tmp_path / "weights").stat().st_size == 5 * 2**20 + 1
    assert Endless.sent < 2 * (MAX_BYTES + MAX_PAGE + 5 * 2**20) + 64 * 2**20, "what waits in buffers, no more"


def test_only_folders_below_the_place_are_runs(tmp_path: Path) -> None:
    for name in ("a-run", "not a run", "ä"):
        (tmp_path / name / "deeper").mkdir(parents=True)
    (tmp_path / "a-file").write_text("x", "utf-8")
    with served(partial(Quiet, directory=str(tmp_path))) as url:
        assert Place(url).folders() == ["a-run", "not a run", "ä"]
        assert Place(f"{url}/nothing").folders() == []


def test_nothing_is_sent_to_a_web_server(runs_dir: Path) -> None:
    with pytest.raises(ConfigError, match="https://host/runs: is read only; send runs to a folder or a bucket"):
        push(finished_run(runs_dir), Place("https://me:hunter2@host/runs"))
