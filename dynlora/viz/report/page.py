"""A report as one HTML file: everything it needs is in it, nothing in it is run but two scripts of ours.

Jinja fills the template and escapes every value; only what this file makes itself (style, script, bundle and
JSON that cannot end its element) is marked as safe.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

import jinja2
from markupsafe import Markup

from dynlora.text import one_line
from dynlora.viz.kit import strong_language, theme
from dynlora.viz.kit.sealed_page import digest, policy, script_json
from dynlora.viz.report import document
from dynlora.viz.report.bundle import plotly_bundle
from dynlora.viz.report.charts import chart_data

_FILES = files("dynlora.viz.report")
MOST_LINE = 2000
"""Characters of one line of text."""


def page(report: document.Document) -> bytes:
    """Return a report as HTML; the same report always gives the same bytes."""
    script, bundle = _read("report.js"), plotly_bundle()
    return (
        _templates()
        .get_template("report.html")
        .render(
            policy=policy(digest(script.encode()), bundle.digest),
            report=report,
            cards=document.cards(report),
            versions=f"Written by dynlora {_version('dynlora')} with plotly {_version('plotly')}.",
            style=Markup(_style()),
            charts=Markup(script_json(chart_data(report.charts))),
            plotly=Markup(bundle.packed),
            script=Markup(script),
        )
        .encode()
    )


@cache
def _templates() -> jinja2.Environment:
    """Return the templates: every value is escaped, a name that nobody gave is an error."""
    found = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    found.filters.update(line=lambda value, limit=MOST_LINE: one_line(value, limit), lines=document.cut_lines)
    found.filters["grid"] = document.grid
    found.tests["strong"] = strong_language.is_strong
    return found


def _style() -> str:
    """Return the style with the colours of both modes; no value of a run is in it."""
    return jinja2.Template(_read("report.css")).render(
        light=theme.css_variables(theme.LIGHT), dark=theme.css_variables(theme.DARK), font=theme.FONT
    )


def _read(name: str) -> str:
    return _FILES.joinpath(name).read_text("utf-8")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout on the path, not installed
        return "(checkout)"
