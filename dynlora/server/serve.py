"""The dashboard's server, and the demo that starts a run beside it."""

from __future__ import annotations

import errno
import hmac
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import click

from dynlora.config_files import set_key
from dynlora.errors import ConfigError, DynloraError
from dynlora.jobs import launch
from dynlora.jobs.environment import MIRROR_VARIABLE, TIED_VARIABLE, TOKEN_VARIABLE, WARM_VARIABLE, python_command
from dynlora.safe_files import read_plain
from dynlora.server.host_check import EVERYWHERE, HOSTS_VARIABLE, LOCAL, served_names
from dynlora.store.lifecycle import find

_PACKAGE = Path(__file__).resolve().parents[1]


def app_root() -> Path:
    """The folder that holds `app.py`, `pages/` and `.streamlit/config.toml`.

    Raises:
        FileNotFoundError: The installation is incomplete.
    """
    for folder in (_PACKAGE.parent, _PACKAGE / "_app"):
        if (folder / "app.py").is_file() and (folder / "pages").is_dir():
            return folder
    raise FileNotFoundError(f"the dashboard's app.py is missing in and next to {_PACKAGE}; install dynlora again")


def sample_runs_dir() -> Path:
    """The folder of the sample runs that come with dynlora; it may be read-only."""
    return app_root() / "sample_runs"


MIN_LENGTH = 16
MAX_LENGTH = 512
WRONG_COSTS_S = 1.0
"""How long a wrong token is thought about, one at a time over the whole server."""

_one_at_a_time = threading.Lock()


def read_token(path: Path | None) -> str | None:
    """Return the token in a file, else that of the environment; None when neither holds one.

    Raises:
        ConfigError: when the file cannot be read, or the token is too short, too long or holds odd characters.
    """
    if path is None:
        source, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return None
    else:
        source = f"--token-file {path}"
        content = read_plain(os.path.realpath(path), MAX_LENGTH + 2)  # secrets are often mounted as links
        if content is None:
            raise ConfigError(
                f"{source}: is not a regular file of at most {MAX_LENGTH} characters; write the token into such a file"
            )
        token = content.strip()
    if not MIN_LENGTH <= len(token) <= MAX_LENGTH or not (token.isascii() and token.isprintable()):
        raise ConfigError(
            f"{source}: has {len(token)} characters; give {MIN_LENGTH} to {MAX_LENGTH} letters, digits and "
            "signs, such as the output of `openssl rand -hex 16`"
        )
    return token


def is_token(entered: str) -> bool:
    """Say whether this is the token of the environment, in a time that tells nothing about it; a wrong one takes long.

    Without a token nothing is one.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    if token and hmac.compare_digest(entered.strip().encode("utf-8", "replace"), token.encode("utf-8", "replace")):
        return True
    with _one_at_a_time:
        time.sleep(WRONG_COSTS_S)
    return False


DEMO = {
    "dynamic on sentiment4": {
        "train.steps": 120,
        "adapter.rank": 4,
        "data.max_eval": 600,
        "log.eval_every": 20,
        "strategy.gates": "module",
    }
}
"""The demo's run, by its name: short enough to be watched to its end on two cores."""

PLANTED_DEMO = {
    "lora on planted": {"strategy.name": "lora"},
    "dynamic on planted": {"strategy.name": "dynamic", "strategy.explore": 8, "strategy.gates": "off"},
}
"""What the runs of the demo of planted ranks differ in, by their names."""


LOOKED_EVERY_S = 0.2
"""Seconds between two looks whether the server answers yet."""


def ui(*, runs_dir: Path, port: int, host: str, token_file: Path | None = None, mirror_of: str = "") -> int:
    """Serve the dashboard until it is stopped; returns its exit code.

    Args:
        runs_dir: folder of the runs.
        port: of the server.
        host: address to bind; anything but this machine's own makes the dashboard read-only.
        token_file: holds the token that lets others do more than read.
        mirror_of: address that `runs_dir` is a copy of; a copy is read-only for everybody.

    Raises:
        ConfigError: when the token or the port cannot be used.
    """
    environment, notice = server_environment(runs_dir, host, read_token(token_file), mirror_of)
    port = port or _free_port()
    _check_free(host, port)
    if notice:
        click.echo(notice, err=True)
    threading.Thread(target=_warm, daemon=True).start()
    threading.Thread(target=_say_when_ready, args=(host, port), daemon=True).start()
    return _serve(server_command(host, port), environment)


def _check_free(host: str, port: int) -> None:
    """Refuse an address that the server could not bind: it would be announced as the dashboard's.

    Raises:
        ConfigError: when another program uses the port, or this machine has no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                holder = find(server_command(host, port))
                user = "another program" if holder is None else f"the dashboard of process {holder[0]}"
                way = "give a free one" if holder is None else f"open {address(host, port)}, or end that process"
                raise ConfigError(f"--port {port}: {user} uses it; leave --port out, or {way}") from None
            if error.errno in (errno.EACCES, errno.EPERM):
                raise ConfigError(f"--port {port}: {error.strerror}; give a port above 1023") from None
            raise ConfigError(
                f"--host {host}: cannot be used ({error.strerror or error}); give an address of this machine, such as "
                "127.0.0.1"
            ) from None
        except UnicodeError:  # a name with a part that is empty or longer than 63 characters
            raise ConfigError(
                f"--host {host:.80}: is not an address; give one of this machine, such as 127.0.0.1"
            ) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _say_when_ready(host: str, port: int) -> None:
    """Say the dashboard's address, the only one that is printed, once a browser that opens it is answered."""
    own_host = LOCAL[0] if host in EVERYWHERE else host
    while True:
        with suppress(OSError, HTTPException):
            connection = HTTPConnection(own_host, port, timeout=5)
            connection.request("GET", "/_stcore/health")
            connection.getresponse().read()
            break
        time.sleep(LOOKED_EVERY_S)
    click.echo(f"dashboard: {address(host, port)}", err=True)


def address(host: str, port: int) -> str:
    """Return the address of the dashboard's first page, for a browser."""
    name = socket.gethostname() if host in EVERYWHERE else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}"


def _serve(command: list[str], environment: dict[str, str]) -> int:
    """Run the server to its end and return its exit code; SIGTERM ends it with this process, a second one at once.

    Its standard input is a pipe from here, whose end says that this process is gone, however it was ended.
    """
    servers: list[subprocess.Popen[bytes]] = []
    requests: list[int] = []

    def pass_on(number: int, _: object) -> None:
        requests.append(number)
        for server in servers:
            server.terminate() if len(requests) == 1 else server.kill()

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, pass_on) if is_main else None
    try:
        variables = {**environment, TIED_VARIABLE: "1"}
        servers.append(subprocess.Popen(command, stdin=subprocess.PIPE, cwd=app_root(), env=variables))
        if requests:
            servers[0].terminate()
        with suppress(KeyboardInterrupt):
            return _code(servers[0].wait())
        return _code(servers[0].wait())
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)


def _code(returned: int) -> int:
    """Return the exit code of a process as a shell says it, which a signal may have ended."""
    return 128 - returned if returned < 0 else returned


def server_command(host: str, port: int) -> list[str]:
    """Return the command of the server; who may do what is in its environment."""
    command = python_command("streamlit", "run", str(Path(__file__).with_name("asgi.py")), f"--server.port={port}")
    command += [f"--server.address={host}", "--server.headless=true", "--browser.gatherUsageStats=false"]
    command += ["--logger.hideWelcomeMessage=true"]  # its address and ours would be two
    if host not in LOCAL:  # else streamlit asks a server on the internet for this machine's address
        command.append(f"--browser.serverAddress={socket.gethostname() if host in EVERYWHERE else host}")
    return [*command, *(f"--server.allowedHosts={name}" for name in served_names(host))]


def server_environment(runs_dir: Path, host: str, token: str | None, mirror_of: str = "") -> tuple[dict[str, str], str]:
    """Return the environment of the server, and what to tell whoever starts it; nothing for this machine alone."""
    variables = {name: value for name, value in os.environ.items() if name not in (TOKEN_VARIABLE, MIRROR_VARIABLE)}
    variables |= {"DYNLORA_RUNS_DIR": os.path.realpath(runs_dir), "DYNLORA_STARTED_IN": os.getcwd()}
    variables.setdefault(WARM_VARIABLE, "1")
    variables[HOSTS_VARIABLE] = ",".join(served_names(host))
    if mirror_of:
        warning = "" if host in LOCAL else f"bound to {host}: all who reach it can read the copy of {mirror_of}"
        return variables | {"DYNLORA_READ_ONLY": "1", MIRROR_VARIABLE: mirror_of}, warning
    if host in LOCAL:
        return variables, ""
    variables["DYNLORA_READ_ONLY"] = "1"
    if token is None:
        return variables, f"bound to {host}: the dashboard is read-only; use --token-file to allow unlocking it"
    variables[TOKEN_VARIABLE] = token
    return variables, (
        f"bound to {host}: read-only until a user enters the token, which allows starting and deleting runs; "
        "without a TLS proxy the token is sent unencrypted"
    )


def _warm() -> None:
    """Have the list of strategies ready before a page asks for it; a page that needs it says what went wrong."""
    with suppress(DynloraError):
        launch.catalog()


ON_WINDOWS = (
    "dynlora is tested on Linux and macOS; on Windows these are missing: a limit on the memory of models that answer, "
    "lower priority for checks, and an end to processes that a stopped check has started. WSL has all of them"
)


def demo(*, runs_dir: Path, port: int, planted: bool = False) -> int:
    """Serve the dashboard at once, and start the demo through the queue beside it; the first page shows its runs.

    What the system lacks is said first.

    Args:
        runs_dir: folder of the runs.
        port: of the server.
        planted: train uniform LoRA and `dynamic` on planted ranks, and say at their end where components are.
    """
    if sys.platform == "win32":
        click.echo(ON_WINDOWS, err=True)
    threading.Thread(target=_start_demo, args=(runs_dir, planted), daemon=True).start()
    return ui(runs_dir=runs_dir, port=port, host="127.0.0.1")


def _start_demo(runs_dir: Path, planted: bool) -> None:
    """Put the runs of the demo into the queue and say so, or why one cannot be started; of two say how they ended."""
    from dynlora.analysis.planted_ranks import PLANTED_SETTINGS

    click.echo("loading the demo's model and data; what it trains appears on the dashboard's first page", err=True)
    common, runs = (PLANTED_SETTINGS, PLANTED_DEMO) if planted else ({}, DEMO)
    handles: dict[str, launch.RunHandle] = {}
    for name, settings in runs.items():
        config: dict[str, Any] = {"name": f"demo: {name}"}
        for key, value in {**common, **settings}.items():
            set_key(config, key, value)
        try:
            handles[name] = launch.enqueue(config, runs_dir, key=f"demo-{len(handles)}-{int(time.time())}")
        except DynloraError as error:
            click.echo(f"the demo was not started: {error}", err=True)
            return
        click.echo(f"training {handles[name].id}", err=True)
    if planted:
        _say_conclusion(handles)


def _say_conclusion(handles: Mapping[str, launch.RunHandle]) -> None:
    """Wait until runs have ended, and say their results beside each other."""
    from dynlora.analysis.planted_ranks import compared_sentence
    from dynlora.analysis.run_summary import ACTIVE
    from dynlora.store import queries

    while any(handle.status().status in ACTIVE for handle in handles.values()):
        time.sleep(LOOKED_EVERY_S)
    summaries = {name: [queries.run_summary(handle.folder)] for name, handle in handles.items()}
    click.echo(compared_sentence(summaries) or "the runs of the demo cannot be compared: see their pages", err=True)
