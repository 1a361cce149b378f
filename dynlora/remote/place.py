"""A place beyond this disk: a folder that fsspec reaches, in which files appear whole or not at all.

fsspec takes credentials from the environment, as the tools of each service do. What is secret in an address is never
shown, stored or part of a message.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urljoin

from dynlora.addresses import hidden, is_url, without_secrets
from dynlora.assets.hub import is_hub_id
from dynlora.errors import ConfigError, CorruptRunError, DynloraError, RemoteError, storing, system_reason
from dynlora.safe_files import NotPlainFileError, open_plain, sync
from dynlora.text import printable

OURS = "dynlora"
"""Tag of a repository that an export of dynlora was sent to; others are not written to."""

MARKS = {"peft": "adapter_config.json", "merged": "model.safetensors"}
"""The file that each format has and the other has not."""

FIRST = (".gitattributes",)
"""Files that the hub itself puts into a new repository."""


@dataclass(frozen=True)
class Repository:
    """Where an export is sent.

    Attributes:
        name: `owner/name`.
        private: whether a new one is private.
        commit: the last one there; None where the repository is made.
    """

    name: str
    private: bool
    commit: str | None


def find_repository(name: str, *, format: str, private: bool) -> Repository:
    """Look whether an export can be sent to a repository; nothing is sent or made.

    Args:
        name: `owner/name`.
        format: peft or merged.
        private: make it private where it is not there yet.

    Raises:
        ConfigError: when the name is none, the hub does not know the user, or something else is there.
        RemoteError: when the hub cannot be reached.
    """
    if not is_hub_id(name) or "/" not in name:
        raise ConfigError(f"--push-to {printable(name)!r}: must be owner/name of letters, digits, '-', '_' and '.'")
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if get_token() is None:
        raise ConfigError(f"--push-to {name}: the hub asks who you are; run `hf auth login`, or set HF_TOKEN")
    with _reached(name):
        HfApi().whoami()
        try:
            info = HfApi().model_info(name)
        except RepositoryNotFoundError:
            return Repository(name, private, None)
    _check_content(name, info, format)
    if private and info.private is False:
        raise ConfigError(f"--private: {name} is there and public; make it private on its page, or leave --private out")
    return Repository(name, bool(info.private), info.sha)


def _check_content(name: str, info: Any, format: str) -> None:
    """Refuse a repository that holds something else, or another format."""
    files = [sibling.rfilename for sibling in info.siblings or []]
    if all(file in FIRST for file in files):
        return
    if OURS not in (info.tags or []):
        raise ConfigError(f"--push-to {name}: holds something that dynlora did not write; give another name")
    other = next(kind for kind in MARKS if kind != format)
    if MARKS[other] in files:
        raise ConfigError(f"--push-to {name}: holds an export in the format {other}; give another name, or --format")


def send_folder(folder: Path, repository: Repository, message: str) -> dict[str, str]:
    """Send the files of a folder in one commit, and return repo, url and commit.

    Raises:
        ConfigError: when the user may not write there.
        RemoteError: when the hub cannot be reached, or the repository was changed meanwhile.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi()
    files = [CommitOperationAdd(path.name, str(path)) for path in sorted(folder.iterdir()) if path.is_file()]
    with _reached(repository.name):
        if repository.commit is None:
            api.create_repo(repository.name, private=repository.private)
        done = api.create_commit(
            repository.name, files, commit_message=printable(message, 200), parent_commit=repository.commit
        )
    return {"repo": repository.name, "url": f"{api.endpoint}/{repository.name}", "commit": done.oid}


@contextmanager
def _reached(name: str) -> Generator[None]:
    """A `with` block in which what the hub's client raises is a sentence without the token."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        yield
    except OfflineModeIsEnabled:
        raise ConfigError(f"--push-to {name}: HF_HUB_OFFLINE is set; unset it to send something") from None
    except RepositoryNotFoundError:
        raise
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise ConfigError(
                f"--push-to {name}: the hub does not let you write there; use a token that may, or a name of your own"
            ) from None
        raise RemoteError(f"--push-to {name}: the hub refused it ({_said(error, get_token())}); try again") from None
    except Exception as error:  # of httpx, of the hub's client, and of what it uses to upload
        raise RemoteError(
            f"--push-to {name}: the hub cannot be used ({_said(error, get_token())}); check the network, then try again"
        ) from None


def _said(error: BaseException, token: str | None) -> str:
    """Return what a library says, or what it says was the cause, one line without the token."""
    error = error.__cause__ or error
    lines = str(error).strip().splitlines()
    text = (lines[0] if lines else "").replace(token or "\0", "***")
    return f"{type(error).__name__}: {printable(text, 200).rstrip('.')}"


T = TypeVar("T")

WHOLE_PUTS = {"s3", "s3a", "gs", "gcs", "hf", "abfs", "az", "memory"}
"""Protocols of places where an upload that breaks leaves nothing; elsewhere a file is sent aside and then renamed."""

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Extras of dynlora that bring what a protocol needs."""

CHUNK = 16 * 2**20
"""Bytes that are fetched at a time."""

AT_ONCE = 16
"""Small files that are fetched together."""


class Place:
    """A folder of runs, or the folder of one run, somewhere.

    Attributes:
        address: its own without secrets.
        root: its path in the file system.
    """

    def __init__(self, url: str) -> None:
        """Find the file system of an address; nothing is asked of it yet.

        Args:
            url: such as `s3://bucket/runs`, or the path of a folder on this machine.

        Raises:
            ConfigError: when it is no address, or what its protocol needs is not installed.
        """
        url = url.rstrip("/") if is_url(url.rstrip("/")) or not is_url(url) else url  # of file:/// the slashes stay
        if url and not is_url(url):
            url = os.path.abspath(url)
        if url.startswith("file://localhost/"):
            url = url.replace("localhost", "", 1)
        self.address = printable(without_secrets(url), 300).rstrip("/")
        is_bare = is_url(url) and not url.partition("://")[2]
        is_elsewhere = url.startswith("file://") and not os.path.isabs(url.removeprefix("file://"))
        if not url or is_bare or is_elsewhere or "::" in url or not url.isprintable():
            raise ConfigError(
                f"URL {self.address!r}: is not the address of a folder; give one such as s3://bucket/runs, or a path"
            )
        from fsspec.core import url_to_fs

        self._url = url
        with self._reached():
            self.fs, root = url_to_fs(url, use_listings_cache=False)
            protocol = self.fs.protocol
        self.protocol: str = protocol if isinstance(protocol, str) else protocol[0]
        self.root = str(root).rstrip("/")
        self.address = self.address if self.root else "file:///"
        self.is_local = "file" in self.fs.protocol
        self.is_web = self.protocol in PROTOCOLS

    def below(self, name: str) -> Place:
        """Return the folder of that name in this one."""
        return self._at(f"{self.root}/{name}", f"{self.address}/{name}")

    @property
    def name(self) -> str:
        """Last part of its path."""
        return self.root.rpartition("/")[2]

    def parent(self) -> Place:
        """Return the folder that holds this one."""
        return self._at(self.root.rpartition("/")[0], self.address.rpartition("/")[0])

    def _at(self, root: str, title: str) -> Place:
        place = copy(self)
        place.root, place.address = root, title
        return place

    def folders(self) -> list[str]:
        """Return the names of the folders in it, in order; none where it is not there.

        Raises:
            RemoteError: when it cannot be reached.
        """
        with self._reached():
            self.fs.invalidate_cache()
            try:
                if self.is_web:
                    return folders(self.fs, self.root, self.address)
                entries: list[Mapping[str, Any]] = self.fs.ls(self.root or "/", detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
            return sorted(
                str(entry["name"]).rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory"
            )

    def sizes(self) -> dict[str, int]:
        """Return the size of each file in it and below, in bytes; none where it is not there.

        Raises:
            RemoteError: when it cannot be reached.
        """
        with self._reached():
            self.fs.invalidate_cache()
            try:
                entries: Mapping[str, Mapping[str, Any]] = self.fs.find(self.root, detail=True)
            except FileNotFoundError:
                return {}
            start = len(self.root.lstrip("/")) + 1
            return {name.lstrip("/")[start:]: int(entry["size"] or 0) for name, entry in entries.items()}

    def read(self, name: str, limit: int) -> bytes | None:
        """Return a small file, None where there is none.

        Raises:
            CorruptRunError: when it has more than `limit` bytes or is a link.
            RemoteError: when it cannot be reached.
        """
        with self._reached():
            self.fs.invalidate_cache()  # of listings: somebody else may have written it since
            try:
                data = self._start(name, limit + 1)
            except FileNotFoundError:
                return None
        if len(data) > limit:
            raise CorruptRunError(f"{self.address}/{name}: has more than {limit:,} bytes, over the limit of dynlora")
        return data

    def read_each(self, names: Iterable[str], one: Callable[[str], T]) -> list[T]:
        """Return what `one` returns for each name, in order; several are asked at once."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(one, names))

    def fetch(self, name: str, target: Path, size: int, sha256: str) -> None:
        """Fetch a file of known size and digest.

        Raises:
            CorruptRunError: when it is another file than the one that is known.
            RemoteError: when it cannot be reached.
            StorageError: when the disk does not take it.
        """
        digest, got = hashlib.sha256(), 0
        with storing(target.name), target.open("xb") as file, closing(self._pieces(name, size)) as pieces:
            for data in pieces:
                digest.update(data)
                got += len(data)
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if got != size or digest.hexdigest() != sha256:
            raise CorruptRunError(
                f"{self.address}/{name}: is not the file that was sent, its digest differs; send it again"
            )

    def _pieces(self, name: str, size: int) -> Generator[bytes]:
        """Yield the content of a file, at most `size` bytes of it."""
        if self.is_web and size:
            with self._reached(), stream(self.fs, f"{self.root}/{name}", size) as pieces:
                yield from pieces
        got = size if self.is_web else 0
        while got < size:
            with self._reached():
                data = self._bytes(name, got, min(size, got + CHUNK))
            if not data:
                return
            got += len(data)
            yield data

    def _start(self, name: str, limit: int) -> bytes:
        """Return the first bytes of a file."""
        if self.is_web:
            return first_bytes(self.fs, f"{self.root}/{name}", limit)
        return self._bytes(name, 0, limit)

    def _bytes(self, name: str, start: int, end: int) -> bytes:
        path = f"{self.root}/{name}"
        if not self.is_local:
            return self.fs.cat_file(path, start=start, end=end)
        try:
            file, _ = open_plain(path)
        except NotPlainFileError:
            raise CorruptRunError(
                f"{self.address}/{name}: is a link or no regular file; dynlora does not follow it"
            ) from None
        with file:
            file.seek(start)
            return file.read(end - start)

    def put(self, source: Path, name: str) -> None:
        """Send a file; it is there whole or not at all.

        Raises:
            RemoteError: when it cannot be sent.
        """
        path = f"{self.root}/{name}"
        with self._reached():
            if self.protocol in WHOLE_PUTS:
                self.fs.put_file(str(source), path)
                return
            aside = f"{path}.{secrets.token_hex(4)}.part"
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            try:
                self.fs.put_file(str(source), aside)
                if self.is_local:
                    sync(Path(aside))
                self.fs.mv(aside, path)
            except BaseException:
                with suppress(Exception):  # what broke is said already
                    self.fs.rm_file(aside)
                raise

    def remove(self, names: Iterable[str]) -> None:
        """Remove files as far as that can be done: nobody needs them, and none may be missed."""
        for name in names:
            with suppress(Exception):
                self.fs.rm_file(f"{self.root}/{name}")

    def age_s(self, name: str, reference: str) -> float | None:
        """Return by how many seconds a file is older than another; None where the place does not say."""
        try:
            times = [self.fs.modified(f"{self.root}/{one}").timestamp() for one in (reference, name)]
        except Exception:  # each file system has its own errors here, and some know no times
            return None
        return times[0] - times[1]

    @contextmanager
    def _reached(self) -> Generator[None]:
        """A `with` block in which what a file system, or a library below it, raises is a sentence without secrets."""
        try:
            yield
        except DynloraError:
            raise
        except ImportError as error:
            extra = EXTRAS.get(self.address.partition("://")[0])
            remedy = f"pip install 'dynlora[{extra}]'" if extra else "install it"
            raise ConfigError(f"URL {self.address}: {self._said(error)}; {remedy}") from None
        except Exception as error:  # botocore, aiohttp and others have classes of their own
            if isinstance(error, OSError) and error.errno and getattr(self, "is_local", False):
                raise RemoteError(f"{self.address}: {system_reason(error)}") from None
            raise RemoteError(
                f"{self.address} cannot be used ({self._said(error)}); check address, credentials and network"
            ) from None

    def _said(self, error: BaseException) -> str:
        """Return what a library says, one line without secrets."""
        text = (str(error).strip().splitlines() or [""])[0]
        return f"{type(error).__name__}: {printable(hidden(text, self._url), 200).rstrip('.')}"


PROTOCOLS = ("http", "https")
"""Places that are read here, and never written to."""

MAX_PAGE = 8 * 2**20
"""Of a page that lists a folder, bytes."""

MAX_FOLDERS = 100_000
"""Links of such a page that are followed up."""

PIECE = 2**20
"""Bytes that are taken at a time."""

_SLOWEST = 20_000
"""Bytes a second below which a file counts as never ending."""
_PATIENCE_S, _SILENT_S = 300.0, 60.0


def first_bytes(fs: Any, url: str, limit: int) -> bytes:
    """Return the start of a file, at most `limit` bytes.

    Raises:
        FileNotFoundError: when there is none.
    """
    with stream(fs, url, limit) as pieces:
        return b"".join(pieces)


@contextmanager
def stream(fs: Any, url: str, limit: int) -> Generator[Generator[bytes]]:
    """Lend the pieces of a file, as they come, at most `limit` bytes together.

    Raises:
        FileNotFoundError: when there is none.
        TimeoutError: when the server falls silent, or takes too long over so many bytes.
    """
    aiohttp: Any = import_module("fsspec.implementations.http").aiohttp
    longest = aiohttp.ClientTimeout(_PATIENCE_S + limit / _SLOWEST, sock_connect=_SILENT_S, sock_read=_SILENT_S)
    headers = {"Range": f"bytes=0-{limit - 1}", "Accept-Encoding": "identity"}
    file = fs.open(url, "rb", block_size=0, size=limit, headers=headers, timeout=longest)
    try:
        yield _pieces(file, limit)
    finally:
        file.close()


def _pieces(file: Any, left: int) -> Generator[bytes]:
    while left and (piece := file.read(min(left, PIECE))):
        left -= len(piece)
        yield piece


def folders(fs: Any, url: str, address: str) -> list[str]:
    """Return the names of folders that the page of a folder links to, in order.

    Raises:
        CorruptRunError: when the page is longer than any list of runs.
        FileNotFoundError: when there is none.
    """
    base = f"{url.rstrip('/')}/"
    page = first_bytes(fs, base, MAX_PAGE + 1)
    if len(page) > MAX_PAGE:
        raise CorruptRunError(f"{address}: its page has more than {MAX_PAGE:,} bytes, over the limit of dynlora")
    links = _Links()
    links.feed(page.decode("utf-8", "replace"))
    addresses = {urljoin(base, link) for link in links.links}
    below = {link.removeprefix(base) for link in addresses if link.startswith(base) and link.endswith("/")}
    return sorted(unquote(name[:-1]) for name in below if name.count("/") == 1)[:MAX_FOLDERS]


class _Links(HTMLParser):
    """Collects where the links of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the address of a link."""
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]
