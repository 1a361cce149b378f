"""A hub on this machine: just enough of its interface for the hub's own client to list and download files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from tests.packages_on_disk import send, server

COMMIT = "0123456789abcdef0123456789abcdef01234567"

Repositories = Mapping[tuple[str, str], Mapping[str, bytes]]
"""(kind in `models`, `datasets`; repository) -> file -> content."""


@contextmanager
def fake_hub(repositories: Repositories) -> Iterator[tuple[str, list[str]]]:
    """Serve repositories; yields the address and the list of files that were downloaded."""
    downloaded: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(handler.path).path).strip("/")
        if path in ("api/models", "api/datasets"):
            _list(handler, path.partition("/")[2], repositories)
            return
        kind, repo, rest = _split(path, repositories)
        files = repositories.get((kind, repo))
        if files is None:
            _refuse(handler, "RepoNotFound")
        elif path.startswith("api/") and "refs/convert" in rest:
            _refuse(handler, "RevisionNotFound")
        elif path.startswith("api/"):
            _describe(handler, repo, rest, files)
        elif (name := rest.partition("resolve/")[2].partition("/")[2]) in files:
            if handler.command == "GET":
                downloaded.append(name)
            etag = hashlib.sha1(files[name]).hexdigest()
            send(handler, files[name], "application/octet-stream", ETag=f'"{etag}"', **{"X-Repo-Commit": COMMIT})
        else:
            _refuse(handler, "EntryNotFound")

    with server(answer) as url:
        yield url, downloaded


def _list(handler: BaseHTTPRequestHandler, kind: str, repositories: Repositories) -> None:
    """Answer a search: the repositories of a kind with the word in their id, in the order they were given."""
    word = parse_qs(urlsplit(handler.path).query).get("search", [""])[0]
    ids = [repo for own, repo in repositories if own == kind and word.lower() in repo.lower()]
    body = [
        {"_id": str(n), "id": repo, "downloads": 1000 - n, "tags": [], "private": False} for n, repo in enumerate(ids)
    ]
    send(handler, json.dumps(body).encode(), "application/json")


def _split(path: str, repositories: Repositories) -> tuple[str, str, str]:
    api = path.startswith("api/")
    kind, rest = "models", path.removeprefix("api/")
    for prefix in ("models/", "datasets/"):
        if rest.startswith(prefix):
            kind, rest = prefix[:-1], rest.removeprefix(prefix)
    parts = rest.split("/")
    length = 2 if api or len(parts) > 3 else 1
    return kind, "/".join(parts[:length]), "/".join(parts[length:])


def _refuse(handler: BaseHTTPRequestHandler, code: str) -> None:
    handler.send_response(404)
    handler.send_header("X-Error-Code", code)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def _describe(handler: BaseHTTPRequestHandler, repo: str, rest: str, files: Mapping[str, bytes]) -> None:
    if rest.startswith("tree/"):
        body: object = [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
        ]
    else:
        siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
        body = {"id": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False, "downloads": 0}
    send(handler, json.dumps(body).encode(), "application/json")
