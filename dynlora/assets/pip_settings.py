"""The package index the user has set up for pip: its address, proxy, certificates and time-out."""

from __future__ import annotations

import ast
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_INDEX = "https://pypi.org/simple/"
"""pip's own default, used when the user has set no other."""

_CONFIG_TIMEOUT_S = 20.0
_log = logging.getLogger(__name__)


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
