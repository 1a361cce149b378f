"""The model as a picture that plays, in a notebook: the player of the pages in a frame that can reach nothing else.

The frame holds the pictures and the player, so it plays offline, in Jupyter, in marimo and in a saved page. Its policy
runs the one script that it brings and fetches nothing; the sandbox keeps it away from the notebook around it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from dynlora.safe_files import write_output
from dynlora.viz.kit import theme
from dynlora.viz.kit.sealed_page import digest, policy, script_json
from dynlora.viz.kit.theme import Palette

_PLAYER = files("dynlora").joinpath("viz", "ui", "replay")  # by its path: the package of the player imports streamlit
_START = """
const data = JSON.parse(document.getElementById("data").textContent);
show({ data, parentElement: document.body, setTriggerValue: () => {} });
"""
_PAGE = Markup(
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
    '<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title><style>{style}</style></head>'
    '<body><script id="data" type="application/json">{data}</script><script type="module">{script}</script></body>'
    "</html>"
)
_FRAME = Markup(
    '<iframe title="{title}" sandbox="allow-scripts allow-downloads" loading="lazy" srcdoc="{page}" '
    'style="width: 100%; height: {height}px; border: 0; border-radius: 6px"></iframe>'
)

PITCH, ALL_BARS, LEAST_PITCH = 10.5, 500, 2.4
BLOCK_GAP, AROUND_BLOCK, AROUND_ALL, CONTROLS, MARGIN = 14, 5, 45, 52, 10
"""Pixels as in `replay.js`: a bar, all bars, the thinnest; between blocks and around one; axis, buttons, a margin."""


class Replay:
    """Training as a picture that plays: Play, a slider over the steps, and a button that saves the picture as SVG.

    At the end of a cell it shows itself; `html` is the whole page, `write_html` saves it.

    Attributes:
        data: what the player draws, as the page Capacity hands it to the same player.

    Examples:
        >>> replay = dynlora.open_run("sample_runs/20261125-133850-b965a50f").plot.replay()
        >>> replay.write_html("replay.html")
        >>> "</script>" in replay.html, replay.height > 100, replay.caption[-1]
        (True, True, '.')
    """

    def __init__(self, run_id: str, data: Mapping[str, Any], colours: Palette, plays: bool) -> None:
        """Keep the pictures; use `run.plot.replay`."""
        self._run_id, self._colours = run_id, colours
        self.data = {**data, "plays": plays, "linked": False}

    def __repr__(self) -> str:
        """Return the run and the steps that are played."""
        steps = self.data["steps"]
        return f"Replay({self._run_id!r}, {len(steps)} pictures, steps {steps[0]} to {steps[-1]})"

    @property
    def caption(self) -> str:
        """What the picture shows, in a sentence."""
        return str(self.data["about"])

    @property
    def html(self) -> str:
        """One HTML page with everything in it."""
        script = _script()
        page = _PAGE.format(
            policy=policy(digest(script.encode())),
            title=f"Replay of {self._run_id}",
            style=_style(self._colours),
            data=Markup(script_json(self.data)),
            script=Markup(script),
        )
        return "".join(page)

    @property
    def height(self) -> int:
        """Pixels that the picture and its buttons take, whatever their width."""
        blocks = self.data["blocks"]
        pitch = min(PITCH, max(LEAST_PITCH, ALL_BARS / max(1, len(self.data["modules"]))))
        scale = pitch / PITCH
        bars = sum(block["count"] * pitch + AROUND_BLOCK * scale for block in blocks)
        return round(bars + (len(blocks) - 1) * max(4, BLOCK_GAP * scale)) + AROUND_ALL + CONTROLS + 2 * MARGIN

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, whole or not at all.

        Raises:
            ConfigError: when something else than a file is there.
            StorageError: when it cannot be written.
        """
        write_output(os.fspath(path), self.html.encode("utf-8"))

    def _repr_html_(self) -> str:
        """Return the page in a frame; Jupyter and marimo call this."""
        frame = _FRAME.format(title=f"Replay of {self._run_id}", page=self.html, height=self.height)
        return "".join(frame)  # marimo takes a plain str, and nothing that is derived from it


@cache
def _script() -> str:
    """Return the player of the pages and what starts it; no value of a run is in it."""
    player = _PLAYER.joinpath("replay.js").read_text("utf-8")
    return player.replace("export default function", "const show = function", 1) + _START


def _style(colours: Palette) -> Markup:
    """Return the player's style in a theme, under the names that streamlit gives its colours on the pages."""
    names = {
        "font": theme.FONT,
        "text-color": colours.text,
        "border-color": colours.hairline,
        "primary-color": colours.accent,
    }
    variables = "; ".join(f"--st-{name}: {value}" for name, value in names.items())
    player = _PLAYER.joinpath("replay.css").read_text("utf-8")
    body = f"body {{ margin: {MARGIN}px; background: {colours.panel}; color-scheme: {colours.mode} }}"
    return Markup(f":root {{ {variables} }} {body} {player}")
