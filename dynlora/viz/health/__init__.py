"""Is anything wrong with a run."""
