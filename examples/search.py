"""Search for a learning rate from Python: four trials on a small random model, and the best of them.

Run it: python examples/search.py. It needs `pip install 'dynlora[search]'`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dynlora.integrations.search.run import Request, run_all, searches


def main(config: dict[str, Any] | None = None, runs_dir: str | Path = "runs") -> dict[str, Any]:
    """Search, print what was found, and return it.

    Args:
        config: settings of every trial, as in config.yaml of a run; None takes a short run of the defaults.
        runs_dir: folder of the runs.
    """
    config = config or {"train": {"steps": 60}, "data": {"max_train": 2000, "max_eval": 500}}
    request = Request(study="example", trials=4, confirm=0)
    (study,) = run_all(searches(request, config, {"train.lr": "5e-4..3e-2:log"}), runs_dir, request.confirm, print)
    print("best:", study["best"]["values"], "loss", study["best"]["value"])
    return study


if __name__ == "__main__":
    main()
