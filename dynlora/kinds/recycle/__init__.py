"""A recycle: what was learned from finished runs, and how few examples a new task needs."""
