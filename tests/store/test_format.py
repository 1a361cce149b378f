"""What STORE.md says about the file is so."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from dynlora.store.lifecycle import create_run
from tests.store.builder import finished_run

PAGE = (Path(__file__).parents[2] / "docs" / "STORE.md").read_text()


def test_the_queries_of_the_page_find_something(tmp_path: Path) -> None:
    folder = finished_run(tmp_path)
    (block,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    with closing(sqlite3.connect(folder / "run.db")) as connection:
        for statement in block.split(";"):
            if statement.strip():
                assert connection.execute(statement).fetchall(), statement


def test_the_python_of_the_page_runs(tmp_path: Path) -> None:
    folder = finished_run(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(block.replace("runs/ID", str(folder)), names)
    assert names["importance"].shape == (40, 3)  # type: ignore[attr-defined]
    names["db"].close()  # type: ignore[attr-defined]


def test_the_page_lists_every_table_and_column(tmp_path: Path) -> None:
    folder = create_run(tmp_path, config_yaml="", meta={}, max_steps=1)
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", PAGE, re.MULTILINE))
    with closing(sqlite3.connect(folder / "run.db")) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in set(names) - {"sqlite_sequence"}:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})") if row[1] != "id"]
            assert set(columns) <= set(re.findall(r"\w+", rows[name])), name
