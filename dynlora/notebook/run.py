"""`Run`: one run for a notebook or a script: its frames, figures, card and model; `RemoteRun` is one at an address.

A run that was sent somewhere is opened where it is: the same frames as of a run here, and nothing fetched twice.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynlora.addresses import is_url
from dynlora.errors import ConfigError, CorruptRunError, RemoteError
from dynlora.remote.contents import Entry, Manifest
from dynlora.remote.place import Place
from dynlora.remote.sync import TRIES, fetch_files, make_store, manifest_of
from dynlora.store.run import StoredRun
from dynlora.store.run import open_run as open_stored
from dynlora.store.schema import DEFAULT_RUNS_DIR, check_run_id, command_text
from dynlora.store.whole_tables import SERIES, TABLES

if TYPE_CHECKING:
    from dynlora.notebook.plots import Plots


class Run(StoredRun):
    """A run folder; each call reads what is there now, so a run can be watched while it trains.

    Examples:
        >>> run = dynlora.open_run("sample_runs/20261205-150635-e9038c42")
        >>> run.id, run.status, run.address == str(run.folder)
        ('20261205-150635-e9038c42', 'finished', True)
        >>> run.config["strategy"]["name"], run.summary["step"]
        ('dynamic', 300)
        >>> run.command("report").split()[:3]
        ['dynlora', 'report', '20261205-150635-e9038c42']
        >>> "rank" in run.signals(), "rank" in run.recorded()
        (True, True)
        >>> run.signal("rank", start=100, stop=102).columns[0], len(run.modules)
        ('step', 36)
        >>> frames = [run.scalars("loss", "train"), run.events("reallocate"), run.groups(), run.examples()]
        >>> all(len(frame) for frame in frames)
        True
        >>> run.plot.flow().caption[-1]
        '.'
    """

    def _repr_html_(self) -> str:
        """Return the run as a card, as it is now; notebooks call this."""
        from dynlora.notebook.run_card import run_card

        return run_card(self.folder)

    @property
    def plot(self) -> Plots:
        """The figures of the dashboard's pages, for a notebook: see `dynlora.notebook.plots.Plots`."""
        from dynlora.notebook.plots import Plots

        return Plots(self)

    def load(self) -> Any:
        """Return the adapted model; needs torch.

        Of a recycle it is the meta-LoRA, whose `fewshot` takes examples, and of a distillation the student.

        Examples:
            >>> model = dynlora.open_run("trained").load()
            >>> len(model.answers(["a good film", "a bad film"]))
            2
        """
        from dynlora.kinds.run_kind import kind_of_run

        return kind_of_run(self.folder).load(self.folder)


SMALL = frozenset(TABLES) - set(SERIES)
"""Tables that every question needs; the others grow with the steps."""


class RemoteRun(Run):
    """A run at an address, read-only.

    Each call asks whether the run was sent again, and then reads what is there now. Tables are fetched when they are
    first asked for, into a folder of this process that goes with it; weights only by `load`.
    """

    def __init__(self, place: Place, run_id: str) -> None:
        """Point at a run in a folder of runs; use `open_run`, which checks it."""
        self._place = place
        self._id = run_id
        self._spare = Path(tempfile.mkdtemp(prefix="dynlora-remote-"))
        self._place_of_store = self._spare / "run" / run_id
        weakref.finalize(self, shutil.rmtree, self._spare, ignore_errors=True)
        self._manifest: Manifest | None = None
        self._kept: frozenset[str] = frozenset()
        self._with()

    def __repr__(self) -> str:
        """Return where the run is, and how it was when it was sent."""
        return f"RemoteRun({self.url!r}, status={self.status!r})"

    @property
    def id(self) -> str:
        """Id of the run."""
        return self._id

    @property
    def url(self) -> str:
        """Address of the run, without what is secret of it."""
        return self._place.below(self._id).address

    @property
    def address(self) -> str:
        """Address of the run."""
        return self.url

    def command(self, name: str, *options: str) -> str:
        """Return a dynlora command on this run, as one types it: the run is fetched first."""
        fetch = command_text("pull", self.url, runs_dir=DEFAULT_RUNS_DIR)
        return f"{fetch}; {command_text(name, self.id, *options, runs_dir=DEFAULT_RUNS_DIR)}"

    @property
    def folder(self) -> Path:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A folder of this process with all of the run but its weights."""
        manifest = self._with(*SERIES)
        self._fetch(manifest, self._place_of_store, lambda entry: "/" not in entry.path)
        return self._place_of_store

    @property
    def summary(self) -> dict[str, Any]:
        """The run in one JSON document, as `dynlora show ID --json` prints it; `folder` is its address."""
        return {**super().summary, "folder": self.url}

    def load(self) -> Any:
        """Return the adapted model; needs torch, and fetches the adapter."""
        manifest = self._with()
        self._fetch(manifest, self._place_of_store, lambda entry: not entry.path.startswith(("tables/", "checkpoint/")))
        return Run(self._place_of_store).load()

    def _store(self, *tables: str) -> Path:
        """Return the folder of a store with these tables, as the run is now."""
        self._with(*tables)
        return self._place_of_store

    def _with(self, *tables: str) -> Manifest:
        """Fetch what of these tables is not here, and return what the run consists of now."""
        for number in range(TRIES):
            manifest = manifest_of(self._place, self._id)
            files = SMALL | self._kept | set(tables)
            if self._manifest is None or manifest.revision != self._manifest.revision or not files <= self._kept:
                try:
                    self._make(manifest, files)
                except (RemoteError, CorruptRunError):  # it may have been sent again meanwhile
                    if number == TRIES - 1 or manifest_of(self._place, self._id).revision == manifest.revision:
                        raise
                    continue
            self._manifest, self._kept = manifest, files
            return manifest
        raise AssertionError("unreachable")

    def _make(self, manifest: Manifest, tables: frozenset[str]) -> None:
        """Make a store of tables in the place of the one before: what is known from before is not fetched again."""
        files, building = self._spare / "files", self._spare / "building"
        shutil.rmtree(building, ignore_errors=True)
        for path in (files, building, self._place_of_store.parent):
            path.mkdir(exist_ok=True)
        table_files = {f"tables/{name}.parquet" for name in tables}
        self._fetch(manifest, building, lambda entry: entry.path in table_files)
        make_store(building, self._id, is_copy=False)
        shutil.rmtree(self._place_of_store, ignore_errors=True)
        building.rename(self._place_of_store)
        for old in files.iterdir():
            if old.name not in {entry.sha256 for entry in manifest.files}:
                old.unlink()

    def _fetch(self, manifest: Manifest, folder: Path, choose: Any) -> None:
        """Put files into a folder, each fetched once whatever revisions it is part of."""
        files = self._spare / "files"

        def is_new(entry: Entry) -> bool:
            return choose(entry) and not (files / entry.sha256).exists()

        new = self._spare / "new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        fetch_files(self._place.below(self._id), manifest, new, is_new)
        for entry in filter(choose, manifest.files):
            if not (files / entry.sha256).exists():
                (new / entry.path).rename(files / entry.sha256)
            target = folder / entry.path
            target.parent.mkdir(exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copy2(files / entry.sha256, target)
        shutil.rmtree(new, ignore_errors=True)


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a run.

    Args:
        path: the run's folder, `runs/<id>`, or the address it was sent to, such as `s3://bucket/runs/<id>`.

    Raises:
        RunNotFoundError: when the folder holds no run.
        RemoteError: when the address cannot be reached or holds no run.
        CorruptRunError: when what it holds cannot be read.
        ConfigError: when the path is none.

    Examples:
        >>> dynlora.open_run("sample_runs/20261205-150635-e9038c42")
        Run('20261205-150635-e9038c42', status='finished')
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"path={path!r:.60}: must be the folder of a run, such as runs/ID, or an address")
    if not is_url(path):
        return Run(open_stored(path).folder)
    place = Place(str(path))
    try:
        return RemoteRun(place.parent(), check_run_id(place.name))
    except ConfigError as error:
        raise ConfigError(f"{place.address}: {error}") from None
