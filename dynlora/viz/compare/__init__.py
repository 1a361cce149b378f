"""Several runs side by side: seeds, paired differences, sweeps, results table."""
