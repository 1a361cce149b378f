"""Commands that serve pages: the dashboard, the demo, the documentation."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from dynlora.cli.options import Whole, in_runs, in_runs_anywhere


@click.command()
@in_runs_anywhere
@click.option("--port", type=Whole(0, 65535), default=8501, show_default=True)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help=("Address to bind; a non-local address makes the dashboard read-only."),
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="File with the token that unlocks launching and deleting on other machines; or set DYNLORA_TOKEN.",
)
def ui(runs_dir: Path | str, **options: Any) -> None:
    """Serve the dashboard."""
    from dynlora.server.serve import ui as serve

    if isinstance(runs_dir, Path):
        sys.exit(serve(runs_dir=runs_dir, **options))
    from dynlora.remote.sync import Mirror, run_ids

    mirror = Mirror(runs_dir)
    there = len(run_ids(mirror.place))  # a place that cannot be reached is said before a server starts
    click.echo(f"read-only copy of {mirror.place.address} (runs there: {there}), in {mirror.folder}", err=True)
    mirror.start()
    sys.exit(serve(runs_dir=mirror.folder, mirror_of=mirror.place.address, **options))


@click.command()
@in_runs
@click.option("--port", type=Whole(0, 65535), default=8501, show_default=True)
def demo(runs_dir: Path, port: int) -> None:
    """Start a dynamic fine-tuning run of the built-in model and serve the dashboard."""
    from dynlora.server.serve import demo as serve

    sys.exit(serve(runs_dir=runs_dir, port=port))


@click.command()
@click.option("--port", type=Whole(0, 65535), default=8502, show_default=True, help="0: any free port.")
def docs(port: int) -> None:
    """Serve the documentation on 127.0.0.1; works offline."""
    from dynlora.server import docs_site

    with docs_site.server(docs_site.site_dir(), port) as server:  # refuses a taken port before a site is built
        docs_site.ready()
        click.echo(f"documentation on http://127.0.0.1:{server.server_port}; Ctrl-C ends it", err=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
