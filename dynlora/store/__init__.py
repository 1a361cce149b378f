"""The run store: one folder and one SQLite file per run; STORE.md describes the format."""
