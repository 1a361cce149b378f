"""Opening a run, here or at the address it was sent to."""

from __future__ import annotations

import os

from dynlora.addresses import is_url
from dynlora.errors import ConfigError
from dynlora.notebook.remote_run import RemoteRun
from dynlora.notebook.run import Run
from dynlora.remote.place import Place
from dynlora.store.run import open_run as open_stored
from dynlora.store.schema import check_run_id


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a run.

    Args:
        path: the run's folder, `runs/<id>`, or the address it was sent to, such as `s3://bucket/runs/<id>`.

    Raises:
        RunNotFoundError: when the folder holds no run.
        RemoteError: when the address cannot be reached or holds no run.
        CorruptRunError: when what it holds cannot be read.
        ConfigError: when the path is none.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"path={path!r:.60}: must be the folder of a run, such as runs/ID, or an address")
    if not is_url(path):
        return Run(open_stored(path).folder)
    place = Place(str(path))
    try:
        return RemoteRun(place.parent(), check_run_id(place.name))
    except ConfigError as error:
        raise ConfigError(f"{place.shown}: {error}") from None
