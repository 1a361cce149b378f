"""A report as one HTML file: everything it needs is in it, nothing in it is run but two scripts of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from dynlora.viz.kit import theme
from dynlora.viz.report import document
from dynlora.viz.report.bundle import digest, plotly_bundle, policy
from dynlora.viz.report.charts import chart_data, script_json

_FILES = files("dynlora.viz.report")
_PLACE = re.compile(r"\{\{(\w+)\}\}")


def page(report: document.Document) -> bytes:
    """Return a report as HTML; the same report always gives the same bytes."""
    script, bundle = _read("report.js"), plotly_bundle()
    values = {
        "policy": policy(digest(script.encode()), bundle.digest),
        "title": document.text(report.title, 120),
        "style": _style(),
        "head": document.head(report),
        "body": document.body(report),
        "versions": document.text(f"Written by dynlora {_version('dynlora')} with plotly {_version('plotly')}."),
        "charts": script_json(chart_data(report.charts)),
        "plotly": bundle.packed,
        "script": script,
    }
    return _filled(_read("report.html"), values).encode()


def _style() -> str:
    modes = {"light": theme.css_variables(theme.LIGHT), "dark": theme.css_variables(theme.DARK)}
    return _filled(_read("report.css"), {**modes, "font": theme.FONT})


def _read(name: str) -> str:
    return _FILES.joinpath(name).read_text("utf-8")


def _filled(template: str, values: Mapping[str, str]) -> str:
    """Return a template with its places filled once: what a value holds is not filled again."""
    return _PLACE.sub(lambda match: values[match[1]], template)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout on the path, not installed
        return "(checkout)"
