"""What the browser gets for a link to a page: streamlit's own document, told where its server is and what comes.

Without the first, the document asks below its own address first (`/run/_stcore/health`), is answered with two errors,
and asks again at the root: a detour at every link that is opened in a new tab. Without the second, a page's first chart
waits for what draws it, a large file that the browser asks for when the chart has arrived. Without the style sheet,
the first heading is there unstyled until the page's first run has sent its sheet, seconds on a busy machine.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from dynlora.server.serve import app_root
from dynlora.viz.kit import theme
from dynlora.viz.kit.page_style import style_sheet

TOLD = '<script>window.__streamlit = { BACKEND_BASE_URL: window.location.origin + "/" }</script>'
"""Streamlit reads this object before it looks for its server."""


WITH_CHARTS = ("run", "capacity", "inputs", "compare", "tour")
"""Pages that open with charts."""


def page_routes() -> list[Route]:
    """Return a route for the address of each page, and of the first one."""
    names = ["", *(path.stem for path in sorted((app_root() / "pages").glob("*.py")))]
    return [Route(f"/{name}", answer) for name in names]


async def answer(request: Request) -> Response:
    """Answer with the document of a page."""
    return HTMLResponse(document(request.url.path.strip("/")), headers={"Cache-Control": "no-cache"})


@cache
def document(page: str) -> str:
    """Return streamlit's document with `TOLD` at the start of its head, and the style sheet at the end of its body.

    A page with charts has what draws them, too. The sheet is not in the head, where streamlit's own rules, which it
    adds later, would come after it. The page's first run sends it again, in the colours of the mode that was chosen.

    Raises:
        FileNotFoundError: streamlit is not installed, or not whole.
    """
    text = streamlit_files().joinpath("index.html").read_text("utf-8")
    early = f'\n    <link rel="modulepreload" href="./{chart_file()}">' if page in WITH_CHARTS and chart_file() else ""
    return text.replace("<head>", f"<head>\n    {TOLD}{early}", 1).replace("</body>", f"{first_style()}\n  </body>", 1)


def first_style() -> str:
    """Return the style sheet of the browser's mode, light or dark."""
    return "\n".join(
        style_sheet(colours).replace("<style>", f'<style media="(prefers-color-scheme: {colours.mode})">', 1)
        for colours in (theme.LIGHT, theme.DARK)
    )


def chart_file() -> str:
    """Return the file that draws charts, within streamlit's; empty where this version of it has another."""
    files = list(streamlit_files().glob("static/js/PlotlyChart.*.js"))
    return files[0].relative_to(streamlit_files()).as_posix() if len(files) == 1 else ""


def streamlit_files() -> Path:
    """Return the folder of what streamlit serves.

    Raises:
        FileNotFoundError: streamlit is not installed.
    """
    spec = find_spec("streamlit")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("streamlit is not installed; install dynlora again")
    return Path(spec.origin).with_name("static")
