"""Runs beyond one disk: sent to and fetched from wherever fsspec reaches, as Parquet, whole or not at all.

`place.py` is the only file that calls fsspec. Three decisions:

- Parquet is the one source, and `run.db` is not sent: queries want Parquet, and a database of somebody else would have
  to be trusted.
- Files are named by their content, and the manifest is written last. A broken transfer leaves files that nobody names,
  and readers of the old manifest still find theirs for 15 minutes.
- What may be fetched is a list (`manifest.py`): a path is looked up, never cleaned up.
"""
