"""Data files of every format: one reader for the check, the preview and training; faults by line, and repairs."""
