"""Data files of every format: one reader for the check, the preview and training; faults by line, and repairs.

`reader.py` is called by the check, the preview and training, so they cannot disagree. CSV is typed by pandas and JSON
lines by pyarrow, in the pieces and with the options of the `datasets` library. A table remembers the line of each row
(`table.py`). A fault is a function from rows to those that have it (`finders.py`), and the repair of that name leaves
out exactly these, in the check and in training (`repairs.py`). Nothing is drawn at random: the same rows are found each
time.
"""
