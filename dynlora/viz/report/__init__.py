"""What is taken away of a run: a report, pictures to share, and a static site of several.

A report is a run, or a comparison, as one HTML file with interactive charts that needs no network and no dynlora.

It requests nothing: plotly.js is the installed package's own file, packed into the page (`bundle.py`). A content
security policy names the digests of the two scripts that may run; without JavaScript, texts and tables remain. The same
run gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dynlora.analysis import ranks_to_use
from dynlora.analysis.result_strip import result_strip
from dynlora.analysis.run_reading import read_run
from dynlora.analysis.verdict import run_verdict
from dynlora.kinds.run_kind import kind_of_run
from dynlora.store import queries
from dynlora.viz.kit import theme
from dynlora.viz.report.documents import comparison_document, kind_document, run_document
from dynlora.viz.report.page import Comparison, Document, Entry, Replay, index, page
from dynlora.viz.report.pictures import (
    Missing,
    Progress,
    Shared,
    Subject,
    map_picture,
    moving_picture,
    pictures_of,
    untold,
)

__all__ = ["Missing", "Shared", "comparison_report", "gallery", "run_report", "shared_files"]


def run_report(folder: Path) -> bytes:
    """Return the report of one run as HTML.

    Raises:
        DynloraError: when the run cannot be read.
    """
    return page(_document(folder))


def _document(folder: Path, among: Collection[str] | None = None) -> Document:
    """Return what the report of one run says, judged with the runs `among`; with all of its folder by default."""
    kind = kind_of_run(folder)
    return run_document(read_run(folder), among) if kind.allocates else kind_document(folder, kind)


NO_RANKS = "Such a run moves no ranks, so there are no pictures of them. The report has its result."
"""What is said of a run that is no training."""


def shared_files(folder: Path, *, is_dark: bool = False, progress: Progress = untold) -> Iterator[Shared | Missing]:
    """Yield what is shared of a run: its pictures, or why there is none, and its report.

    Args:
        folder: of the run.
        is_dark: whether the pictures are dark.
        progress: is told after each frame of the moving picture.

    Raises:
        DynloraError: when the run cannot be read.
    """
    if kind_of_run(folder).allocates:
        yield from pictures_of(subject_of(folder), theme.palette("dark" if is_dark else "light"), progress)
    else:
        yield Missing("Pictures", NO_RANKS)
    report = f"dynlora-{folder.name}.html"
    yield Shared("Report", report, "text/html", run_report(folder), "Report of the run with interactive charts.")


def subject_of(folder: Path, among: Collection[str] | None = None) -> Subject:
    """Return a training and the answers that are written on its pictures.

    Args:
        folder: of the run.
        among: ids of the runs that it is judged with; all of its folder by default.

    Raises:
        DynloraError: when the run cannot be read.
    """
    run = read_run(folder)
    judged = run_verdict(folder, run.summary, among)
    return Subject(run, result_strip(run.summary, judged, ranks_to_use.evidence_of(run)))


def comparison_report(folders: Sequence[Path]) -> bytes:
    """Return the report of several runs as HTML; one that is damaged is named at its top and left out.

    Raises:
        DynloraError: when no run can be read.
    """
    runs, damaged = queries.readable(folders)
    return page(comparison_document(list(runs), damaged))


COMPARISON = "comparison.html"
"""File of a gallery that compares its runs."""

DARK, STILL = "(prefers-color-scheme: dark)", "(prefers-reduced-motion: reduce)"
"""What a reader's system asks for: dark pages, and no pictures that move."""


def _replay(folder: Path, among: Collection[str]) -> tuple[Replay | None, dict[str, bytes]]:
    """Return the moving picture of a run and the files that it needs, light and dark; the map where nothing moved.

    Raises:
        DynloraError: when the run cannot be read.
    """
    if not kind_of_run(folder).allocates:
        return None, {}
    subject, files = subject_of(folder, among), {}
    by_mode: dict[str, list[Shared]] = {}
    for colours in (theme.LIGHT, theme.DARK):
        for one in (map_picture(subject, colours), moving_picture(subject, colours)):
            if isinstance(one, Shared):
                name = f"{one.name.partition(' ')[0].lower()}-{colours.mode}.{one.mime.removeprefix('image/')}"
                one = replace(one, file=f"{folder.name}-{name}")
                files[one.file] = one.content
                by_mode.setdefault(colours.mode, []).append(one)
    if not files:
        return None, {}
    light, dark = by_mode["light"], by_mode["dark"]
    sources = [(DARK, dark[-1].file)]
    if len(light) > 1:
        sources = [(f"{STILL} and {DARK}", dark[0].file), (STILL, light[0].file), *sources]
    return Replay(light[-1].file, light[-1].alt, sources), files


def gallery(folders: Sequence[Path], title: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a static site of runs by name.

    They are reports, moving pictures, the comparison of trained runs, and the first page.

    Args:
        folders: of the runs, in the order of the first page.
        title: of the first page.

    Raises:
        DynloraError: when a run cannot be read.
    """
    entries: list[Entry] = []
    among = {folder.name for folder in folders}  # the first page compares these, and its cards must agree with it
    for folder in folders:
        picture, files = _replay(folder, among)
        yield from files.items()
        entries.append(Entry(f"{folder.name}.html", _document(folder, among), picture))
        yield entries[-1].file, page(entries[-1].document, picture)
    comparison, trained = None, [folder for folder in folders if kind_of_run(folder).allocates]
    if len(trained) > 1:
        compared = comparison_document(trained)
        first = compared.filled_parts[0].notes
        comparison = Comparison(COMPARISON, compared.title, first[0] if first else compared.about)
        yield COMPARISON, page(compared)
    yield "index.html", index(title, entries, comparison)
