"""A hub on this machine that takes commits: as much of its interface as the hub's own client needs to send files."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.packages_on_disk import send, server

USER = "owner"


@dataclass
class Repo:
    """A repository as it is now.

    Attributes:
        files: content by path.
        private: whether only its owner sees it.
        tags: that its card has.
        commits: what each commit said and changed, oldest first.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    tags: list[str] = field(default_factory=list)
    commits: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sha(self) -> str:
        """Id of the last commit."""
        return hashlib.sha1(f"commit {len(self.commits)}".encode()).hexdigest()


class Hub:
    """What the server holds.

    Attributes:
        token: the only one that may write.
        repos: repositories by name.
        large: content that was sent before its commit, by digest.
        requests: method, path and whether a token came along.
        refuse: commits are refused with this status.
    """

    def __init__(self, token: str) -> None:
        """Begin without repositories."""
        self.token = token
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, bool]] = []
        self.refuse = 0
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        path = unquote(urlsplit(handler.path).path).strip("/")
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        known = handler.headers.get("Authorization") == f"Bearer {self.token}"
        self.requests.append((handler.command, path, known))
        if not known and not path.startswith("lfs/"):
            refuse(handler, 401, "Invalid username or password.")
        elif path == "api/whoami-v2":
            reply(handler, {"type": "user", "name": USER, "auth": {"accessToken": {"role": "write"}}})
        elif path == "api/repos/create":
            self._create(handler, json.loads(body))
        elif path == "api/validate-yaml":
            reply(handler, {"errors": [], "warnings": []})
        elif path.startswith("lfs/"):
            self.large[path.removeprefix("lfs/")] = body
            reply(handler, {})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(handler, json.loads(body))
        else:
            self._of_repo(handler, path, body)

    def _create(self, handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        name = f"{request.get('organization') or USER}/{request['name']}"
        if request.get("organization") not in (None, USER):
            refuse(handler, 403, "You don't have the rights to create a model under this namespace")
            return
        if name in self.repos:
            refuse(handler, 409, "You already created this model repo")
            return
        self.repos[name] = Repo({".gitattributes": b""}, private=request.get("visibility") == "private")
        reply(handler, {"url": f"{self.url}/{name}"})

    def _batch(self, handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        objects = [
            {**row, "actions": {"upload": {"href": f"{self.url}/lfs/{row['oid']}", "header": {}}}}
            for row in request["objects"]
        ]
        reply(handler, {"transfer": "basic", "objects": objects})

    def _of_repo(self, handler: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        kind, name, rest = split(path)
        repo = self.repos.get(kind + name)
        if repo is None:
            missing(handler, "RepoNotFound")
        elif rest.startswith("preupload/"):
            files = [
                {
                    "path": row["path"],
                    "uploadMode": "lfs" if row["path"].endswith("safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for row in json.loads(body)["files"]
            ]
            reply(handler, {"files": files})
        elif rest.startswith("commit/"):
            self._commit(handler, name, repo, body)
        elif rest.startswith(("tree/", "resolve/")):
            self._read(handler, repo, *rest.split("/", 2))
        else:
            siblings = [{"rfilename": file, "size": len(data)} for file, data in repo.files.items()]
            document = {
                "_id": "0",
                "id": name,
                "sha": repo.sha,
                "siblings": siblings,
                "tags": repo.tags,
                "private": repo.private,
                "downloads": 0,
            }
            reply(handler, document)

    def _read(self, handler: BaseHTTPRequestHandler, repo: Repo, act: str, _: str, path: str = "") -> None:
        """Answer with what is in a folder of a repository, or with a part of a file."""
        if act == "resolve" and path in repo.files:
            start, _, end = (handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")
            part = repo.files[path][int(start) : int(end) + 1 if end else None]
            send(handler, part, "application/octet-stream", ETag='"0"', **{"X-Repo-Commit": repo.sha})
            return
        inside = {name: data for name, data in repo.files.items() if name.startswith(f"{path}/" if path else "")}
        if act == "resolve" or not inside:
            missing(handler, "EntryNotFound")
            return
        deep = "recursive=true" in urlsplit(handler.path).query.lower()
        depth = len(path.split("/")) if path else 0
        folders = {"/".join(name.split("/")[:level]) for name in inside for level in range(1, name.count("/") + 1)}
        rows = [{"type": "directory", "path": name, "size": 0, "oid": "0"} for name in sorted(folders)]
        rows += [{"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in inside.items()]
        chosen = [row for row in rows if len(row["path"].split("/")) > depth]
        reply(handler, [row for row in chosen if deep or len(row["path"].split("/")) == depth + 1])

    def _commit(self, handler: BaseHTTPRequestHandler, name: str, repo: Repo, body: bytes) -> None:
        rows = [json.loads(line) for line in body.splitlines()]
        header = rows[0]["value"]
        if self.refuse:
            refuse(handler, self.refuse, "refused by the test")
            return
        if header.get("parentCommit") not in (None, repo.sha):
            refuse(handler, 412, "A commit has happened since. Please refresh and try again.")
            return
        for row in rows[1:]:
            value = row["value"]
            data = self.large.get(value.get("oid", "")) if row["key"] == "lfsFile" else None
            repo.files[value["path"]] = base64.b64decode(value["content"]) if data is None else data
        card = repo.files.get("README.md", b"").decode()
        line = next((line for line in card.splitlines() if line.startswith("tags: ")), "tags: []")
        repo.tags = json.loads(line.removeprefix("tags: "))
        repo.commits.append({"summary": header["summary"], "files": [row["value"]["path"] for row in rows[1:]]})
        reply(handler, {"success": True, "commitUrl": f"{self.url}/{name}/commit/{repo.sha}", "commitOid": repo.sha})


def split(path: str) -> tuple[str, str, str]:
    """Return the kind (a prefix, empty for models), the name and the rest of a path."""
    path = path.removeprefix("api/").removeprefix("models/")
    kind = "datasets/" if path.startswith("datasets/") else ""
    parts = path.removeprefix(kind).split("/", 2)
    return kind, "/".join(parts[:2]), parts[2] if len(parts) > 2 else ""


def missing(handler: BaseHTTPRequestHandler, code: str) -> None:
    """Answer that something is not there, as the hub words it."""
    handler.send_response(404)
    handler.send_header("X-Error-Code", code)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def reply(handler: BaseHTTPRequestHandler, body: object) -> None:
    """Answer with a JSON document."""
    send(handler, json.dumps(body).encode(), "application/json")


def refuse(handler: BaseHTTPRequestHandler, status: int, message: str) -> None:
    """Answer with an error as the hub words it."""
    body = json.dumps({"error": message}).encode()
    handler.send_response(status)
    handler.send_header("X-Error-Message", message)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def uploading_hub(token: str) -> Iterator[Hub]:
    """Serve a hub that takes commits of one user."""
    hub = Hub(token)
    with server(hub.answer) as url:
        hub.url = url
        yield hub
